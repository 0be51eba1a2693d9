//! Apache's access log: `%h %l %u %t "%r" %>s %b`, and the combined format with `"%{Referer}i" "%{User-agent}i"`
//! (Apache HTTP Server documentation, "Log Files"; nginx's `combined` is the same).

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::cursor::{
    Cursor, clock, escape_into, month, month_name, present, two_digits, unescaped,
};
use super::{LineError, maybe};

/// Escaped in quotes.
const SPECIAL: &[char] = &['"', '\\'];

/// A line. What the log writes as `-` is null.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(borrow)]
    client: Cow<'a, str>,
    /// RFC 1413's identity, which hardly anybody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ident: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    /// RFC 3339, in the log's own zone.
    time: Cow<'a, str>,
    method: Option<Cow<'a, str>>,
    /// Of a request that is none, all of it.
    path: Option<Cow<'a, str>>,
    /// What follows the first question mark.
    query: Option<Cow<'a, str>>,
    protocol: Option<Cow<'a, str>>,
    status: Option<u16>,
    bytes: Option<u64>,
    /// Only in the combined format.
    #[serde(default, deserialize_with = "maybe::there", skip_serializing_if = "Option::is_none")]
    referer: Option<Option<Cow<'a, str>>>,
    #[serde(default, deserialize_with = "maybe::there", skip_serializing_if = "Option::is_none")]
    agent: Option<Option<Cow<'a, str>>>,
}

/// Reads a line.
pub(super) fn parse(line: &str) -> Result<Entry<'_>, LineError> {
    let mut at = Cursor::new(line);
    let client = at.word("client")?;
    at.space("ident")?;
    let ident = at.word("ident")?;
    at.space("user")?;
    // A name may have spaces; what follows it is the time in brackets.
    let end = at.rest.find(" [").filter(|end| *end > 0);
    let Some(end) = end else { return Err(at.wrong("user", "a name and the time in brackets")) };
    let (user, rest) = at.rest.split_at(end);
    at.rest = &rest[2..];
    let stands = at;
    let time = rfc3339(at.until("time", ']')?)
        .ok_or_else(|| stands.wrong("time", "a time like 17/May/2015:10:05:03 +0000"))?;
    at.space("request")?;
    let request = unescaped(at.quoted("request")?, SPECIAL);
    at.space("status")?;
    let status = number(&mut at, "status", "a status of three digits", |text| {
        text.parse().ok().filter(|status| (100..1000).contains(status))
    })?;
    at.space("bytes")?;
    let bytes = number(&mut at, "bytes", "a number of bytes or -", |text| text.parse().ok())?;
    let (mut referer, mut agent) = (None, None);
    if at.takes(" ") {
        referer = Some(quoted(&mut at, "referer")?);
        at.space("agent")?;
        agent = Some(quoted(&mut at, "agent")?);
    }
    at.end()?;
    let [method, path, query, protocol] = request_parts(request);
    let text = |text| present(text).map(Cow::Borrowed);
    Ok(Entry {
        client: Cow::Borrowed(client),
        ident: text(ident),
        user: text(user),
        time: Cow::Owned(time),
        method,
        path,
        query,
        protocol,
        status,
        bytes,
        referer,
        agent,
    })
}

fn quoted<'a>(at: &mut Cursor<'a>, field: &'static str) -> Result<Option<Cow<'a, str>>, LineError> {
    Ok(present(at.quoted(field)?).map(|text| unescaped(text, SPECIAL)))
}

/// A number as this format writes it, or `-`.
fn number<T>(
    at: &mut Cursor<'_>,
    field: &'static str,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, LineError> {
    let stands = *at;
    let Some(text) = present(at.word(field)?) else { return Ok(None) };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { parse(text) } else { None };
    number.map(Some).ok_or_else(|| stands.wrong(field, expected))
}

/// Method, path, query and protocol. What a scanner or a broken client sends instead of a request is all path.
fn request_parts(request: Cow<'_, str>) -> [Option<Cow<'_, str>>; 4] {
    let owned = |text: &str| Some(Cow::Owned(text.to_owned()));
    let words: Vec<&str> = request.split(' ').collect();
    let method = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
    let (name, target, protocol) = match words[..] {
        [name, target] if method(name) && !target.is_empty() => (name, target, None),
        [name, target, protocol] if method(name) && protocol.starts_with("HTTP/") => {
            (name, target, owned(protocol))
        }
        _ if request == "-" => return [None, None, None, None],
        _ => return [None, Some(request), None, None],
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, owned(query)),
        None => (target, None),
    };
    [owned(name), owned(path), query, protocol]
}

/// `17/May/2015:10:05:03 +0000` as RFC 3339.
fn rfc3339(text: &str) -> Option<String> {
    let (date, rest) = text.split_once(':')?;
    let (time, zone) = rest.split_once(' ')?;
    let mut date = date.split('/');
    let (day, name, year) = (date.next()?, date.next()?, date.next()?);
    let month = month(name)?;
    if date.next().is_some() || !two_digits(day, 32) || year.len() != 4 || !clock(time) {
        return None;
    }
    Date::new(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let (hours, minutes) = zone.get(1..)?.split_at_checked(2)?;
    if !zone.starts_with(['+', '-']) || !two_digits(hours, 24) || !two_digits(minutes, 60) {
        return None;
    }
    let zone = match zone {
        "+0000" => "Z".to_owned(),
        _ => format!("{}{hours}:{minutes}", &zone[..1]),
    };
    Some(format!("{year}-{month:02}-{day}T{time}{zone}"))
}

/// The reverse.
fn apache(text: &str) -> Option<String> {
    let (date, rest) = text.split_once('T')?;
    let (time, zone) = rest.split_at_checked(8)?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, month_name(date.next()?)?, date.next()?);
    let zone = if zone == "Z" { "+0000".to_owned() } else { zone.replace(':', "") };
    Some(format!("{day}/{month}/{year}:{time} {zone}"))
}

impl Entry<'_> {
    /// The line as a log would have it.
    pub fn line(&self) -> Option<String> {
        let dash = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
        let mut line = format!(
            "{} {} {} [{}] \"",
            self.client,
            dash(&self.ident),
            dash(&self.user),
            apache(&self.time)?
        );
        escape_into(&mut line, &self.request(), SPECIAL);
        line.push('"');
        for number in [self.status.map(u64::from), self.bytes] {
            match number {
                Some(number) => write!(line, " {number}").ok()?,
                None => line.push_str(" -"),
            }
        }
        for text in [&self.referer, &self.agent].into_iter().flatten() {
            line.push_str(" \"");
            escape_into(&mut line, text.as_deref().unwrap_or("-"), SPECIAL);
            line.push('"');
        }
        Some(line)
    }

    fn request(&self) -> String {
        let mut request = String::new();
        if let Some(method) = &self.method {
            request.extend([method, " "]);
        }
        request.push_str(self.path.as_deref().unwrap_or(if self.method.is_none() {
            "-"
        } else {
            ""
        }));
        if let Some(query) = &self.query {
            request.extend(["?", query]);
        }
        if let Some(protocol) = &self.protocol {
            request.extend([" ", protocol]);
        }
        request
    }
}
