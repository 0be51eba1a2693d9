//! Syslog: RFC 5424, and what goes by the name of RFC 3164, with or without its priority (files have none).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::cursor::{
    Cursor, clock, escape_into, month, month_name, present, two_digits, unescaped,
};
use super::{LineError, maybe};

/// Escaped in the values of structured data (RFC 5424, 6.3.3).
const SPECIAL: &[char] = &['"', '\\', ']'];

/// Structured data: parameters by element.
type Structured = BTreeMap<String, BTreeMap<String, String>>;

/// A message. What is written as `-`, or is not there, is null.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    /// 0 to 23.
    facility: Option<u8>,
    /// 0 (emergency) to 7 (debug).
    severity: Option<u8>,
    /// Of RFC 5424: 1. RFC 3164 has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u16>,
    /// RFC 3339.
    time: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
    app: Option<Cow<'a, str>>,
    pid: Option<Cow<'a, str>>,
    /// Only in RFC 5424, as is what follows.
    #[serde(default, deserialize_with = "maybe::there", skip_serializing_if = "Option::is_none")]
    msgid: Option<Option<Cow<'a, str>>>,
    #[serde(default, deserialize_with = "maybe::there", skip_serializing_if = "Option::is_none")]
    structured: Option<Option<Structured>>,
    message: Option<Cow<'a, str>>,
}

/// Reads a line.
pub(super) fn parse(line: &str, now_ns: u64) -> Result<Entry<'_>, LineError> {
    let mut at = Cursor::new(line);
    let mut priority = None;
    if at.rest.starts_with('<') {
        let stands = at;
        at.takes("<");
        let text = at.until("priority", '>')?;
        let sound = matches!(text.len(), 1..=3)
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        let number: Option<u8> = text.parse().ok().filter(|n| sound && *n < 192);
        priority =
            Some(number.ok_or_else(|| stands.wrong("priority", "a number from 0 to 191 in <>"))?);
        let version: String = at.rest.chars().take_while(char::is_ascii_digit).collect();
        if !version.is_empty() && at.rest[version.len()..].starts_with(' ') {
            return rfc5424(at, priority, &version);
        }
    }
    rfc3164(at, priority, now_ns)
}

fn rfc5424<'a>(
    mut at: Cursor<'a>,
    priority: Option<u8>,
    version: &str,
) -> Result<Entry<'a>, LineError> {
    let number = version.parse::<u16>().ok().filter(|n| (1..1000).contains(n));
    let version = Some(number.ok_or_else(|| at.wrong("version", "a number from 1 to 999"))?);
    at.word("version")?;
    at.space("time")?;
    let stands = at;
    let time = present(at.word("time")?);
    if time.is_some_and(|time| time.parse::<Timestamp>().is_err()) {
        return Err(stands.wrong("time", "a time as in RFC 3339, or -"));
    }
    let mut field = |name| -> Result<Option<Cow<'a, str>>, LineError> {
        at.space(name)?;
        Ok(present(at.word(name)?).map(Cow::Borrowed))
    };
    let (host, app, pid, msgid) = (field("host")?, field("app")?, field("pid")?, field("msgid")?);
    at.space("structured")?;
    let structured = if at.takes("-") { None } else { Some(elements(&mut at)?) };
    let mut message = None;
    if at.takes(" ") {
        at.takes("\u{feff}");
        message = Some(Cow::Borrowed(at.rest));
        at.rest = "";
    }
    at.end()?;
    Ok(Entry {
        facility: priority.map(|p| p / 8),
        severity: priority.map(|p| p % 8),
        version,
        time: time.map(Cow::Borrowed),
        host,
        app,
        pid,
        msgid: Some(msgid),
        structured: Some(structured),
        message,
    })
}

/// `[id name="value" …]`, at least one, with nothing between them.
fn elements(at: &mut Cursor<'_>) -> Result<Structured, LineError> {
    let field = "structured";
    let expected = "elements like [id name=\"value\"], or -";
    let mut elements = Structured::new();
    if !at.rest.starts_with('[') {
        return Err(at.wrong(field, expected));
    }
    while at.takes("[") {
        let end = at.rest.find([' ', ']']).filter(|end| *end > 0);
        let Some(end) = end else { return Err(at.wrong(field, expected)) };
        let (id, rest) = at.rest.split_at(end);
        at.rest = rest;
        let parameters = elements.entry(id.to_owned()).or_default();
        while at.takes(" ") {
            let name = at.until(field, '=')?;
            if name.is_empty() || name.contains([' ', '"', ']']) {
                return Err(at.wrong(field, expected));
            }
            let value = unescaped(at.quoted(field)?, SPECIAL);
            parameters.insert(name.to_owned(), value.into_owned());
        }
        if !at.takes("]") {
            return Err(at.wrong(field, "] or another name=\"value\""));
        }
    }
    Ok(elements)
}

fn rfc3164<'a>(
    mut at: Cursor<'a>,
    priority: Option<u8>,
    now_ns: u64,
) -> Result<Entry<'a>, LineError> {
    let time = match at.rest.split(' ').next() {
        // As newer daemons write their files.
        Some(word) if word.parse::<Timestamp>().is_ok() => {
            at.rest = &at.rest[word.len()..];
            Cow::Borrowed(word)
        }
        _ => {
            let text = at.rest.get(..15).filter(|text| text.is_ascii());
            let time = text.and_then(|text| with_year(text, now_ns));
            let time = time.ok_or_else(|| at.wrong("time", "a time like Oct 11 22:14:15"))?;
            at.rest = &at.rest[15..];
            Cow::Owned(time)
        }
    };
    at.space("host")?;
    let before = at;
    let mut host = Some(at.word("host")?);
    // Some send no host: then the tag follows at once.
    if host.is_some_and(|word| word.ends_with(':')) {
        (host, at) = (None, before);
    } else if !at.rest.is_empty() {
        at.space("message")?;
    }
    let (app, pid, message) = tag(at.rest);
    Ok(Entry {
        facility: priority.map(|p| p / 8),
        severity: priority.map(|p| p % 8),
        version: None,
        time: Some(time),
        host: host.map(Cow::Borrowed),
        app: app.map(Cow::Borrowed),
        pid: pid.map(Cow::Borrowed),
        msgid: None,
        structured: None,
        message: Some(Cow::Borrowed(message)),
    })
}

/// Program, process and message of `program[process]: message`; without such a tag everything is message.
fn tag(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let none = (None, None, text);
    let Some(end) = text.find(['[', ':', ' ']).filter(|end| *end > 0) else { return none };
    let (app, rest) = text.split_at(end);
    let (pid, rest) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((pid, rest))) if !pid.is_empty() && !pid.contains(' ') => (Some(pid), rest),
        Some(_) => return none,
        None => (None, rest),
    };
    match rest.strip_prefix(':') {
        Some(message) => (Some(app), pid, message.strip_prefix(' ').unwrap_or(message)),
        None => none,
    }
}

/// `Oct 11 22:14:15` as RFC 3339, in UTC and in the latest year that puts it at most a day ahead of now.
fn with_year(text: &str, now_ns: u64) -> Option<String> {
    let now = Timestamp::from_nanosecond(i128::from(now_ns)).ok()?;
    let limit = now.checked_add(SignedDuration::from_hours(24)).ok()?;
    let (name, rest) = text.split_at_checked(3)?;
    let (day, time) = rest.strip_prefix(' ')?.split_at_checked(2)?;
    let time = time.strip_prefix(' ')?;
    let month = month(name)?;
    let padded = day.replace(' ', "0");
    if !two_digits(&padded, 32) || !clock(time) {
        return None;
    }
    let this = now.to_zoned(TimeZone::UTC).year();
    // Eight years back there is a leap year, whatever the century.
    (this - 8..=this).rev().find_map(|year| {
        let date = Date::new(year, month, padded.parse().ok()?).ok()?;
        let text = format!("{date}T{time}Z");
        let at = format!("{date}T{time}").parse::<DateTime>().ok()?;
        let at = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
        (at <= limit).then_some(text)
    })
}

impl Entry<'_> {
    /// The line as it would be sent or filed.
    pub fn line(&self) -> Option<String> {
        let mut line = String::new();
        if let (Some(facility), Some(severity)) = (self.facility, self.severity) {
            write!(line, "<{}>", u16::from(facility) * 8 + u16::from(severity)).ok()?;
        }
        match self.version {
            Some(version) => self.new_form(&mut line, version)?,
            None => self.old_form(&mut line)?,
        }
        Some(line)
    }

    fn new_form(&self, line: &mut String, version: u16) -> Option<()> {
        write!(line, "{version}").ok()?;
        let msgid = self.msgid.as_ref().and_then(Option::as_ref);
        for field in [&self.time, &self.host, &self.app, &self.pid] {
            line.extend([" ", field.as_deref().unwrap_or("-")]);
        }
        line.extend([" ", msgid.map_or("-", |text| text), " "]);
        match self.structured.as_ref().and_then(Option::as_ref) {
            None => line.push('-'),
            Some(elements) => {
                for (id, parameters) in elements {
                    line.extend(["[", id]);
                    for (name, value) in parameters {
                        line.extend([" ", name, "=\""]);
                        escape_into(line, value, SPECIAL);
                        line.push('"');
                    }
                    line.push(']');
                }
            }
        }
        if let Some(message) = &self.message {
            line.extend([" ", message]);
        }
        Some(())
    }

    fn old_form(&self, line: &mut String) -> Option<()> {
        let (date, time) = self.time.as_deref()?.split_once('T')?;
        let mut date = date.split('-').skip(1);
        let (month, day) = (month_name(date.next()?)?, date.next()?);
        let day = day.strip_prefix('0').map_or(day.to_owned(), |day| format!(" {day}"));
        write!(line, "{month} {day} {}", time.strip_suffix('Z')?).ok()?;
        if let Some(host) = &self.host {
            line.extend([" ", host]);
        }
        line.push(' ');
        if let Some(app) = &self.app {
            line.push_str(app);
            if let Some(pid) = &self.pid {
                line.extend(["[", pid, "]"]);
            }
            line.push_str(": ");
        }
        line.push_str(self.message.as_deref()?);
        Some(())
    }
}
