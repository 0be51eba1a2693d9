//! A dead letter: a record, and what its headers say of where it comes from and why.

use std::collections::HashSet;
use std::ops::ControlFlow;

use highwater_client::{Client, KeptRecord, Producer, Receipt, Record, SendError, Start};
use highwater_wire::{Header, RecordView};
use serde::Serialize;

use super::Dead;
use crate::cli::replay::{By, Merge, Next, Until, Wanted};
use crate::cli::tail::Found;
use crate::failure::Failure;

/// Where a dead letter comes from, as far as its headers say so: a record of a stream that a group gave up, or a line of
/// a file that `put` could not store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When it reached the server, nanoseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Bytes of the payload, if not all of it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What a dead letter's headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub reason: String,
    pub attempts: Option<u32>,
    pub origin: Origin,
    /// How many headers in front are the record's own.
    pub own: usize,
    /// Not all of the record is here.
    pub cut: bool,
    /// When it first was a letter, nanoseconds since 1970 UTC, if it was written again since.
    pub since_ns: Option<u64>,
    /// How often it was written again because it stayed when others were given again.
    pub kept: u32,
}

/// The first of the headers that say so.
const REASON: &str = "reason";
/// What a letter carries that was written again.
const SINCE: &str = "letter-arrival";
const KEPT: &str = "letter-kept";

impl Told {
    /// What the headers of `record` say. Those that are told begin with the last that is called `reason`.
    pub fn of(record: &RecordView<'_>) -> Told {
        let headers: Vec<Header<'_>> = record.headers().collect();
        let Some(own) = headers.iter().rposition(|header| header.name == REASON) else {
            return Told { own: headers.len(), ..Told::default() };
        };
        let mut told = Told { own, ..Told::default() };
        let origin = &mut told.origin;
        for header in headers.get(own..).unwrap_or_default() {
            let text = || String::from_utf8_lossy(header.value).into_owned();
            let number = || std::str::from_utf8(header.value).ok()?.parse::<u64>().ok();
            let small = || number().and_then(|n| u32::try_from(n).ok());
            match header.name {
                REASON => told.reason = text(),
                "attempts" => told.attempts = small(),
                "origin-group" => origin.group = Some(text()),
                "origin-stream" => origin.stream = Some(text()),
                "origin-shard" => origin.shard = small(),
                "origin-sequence" => origin.sequence = number(),
                "origin-arrival" => origin.arrival_ns = number(),
                "origin-file" => origin.file = Some(text()),
                "origin-line" => origin.line = number(),
                "origin-format" => origin.format = Some(text()),
                "origin-size" => origin.size = number(),
                "origin-headers" => told.cut = true,
                SINCE => told.since_ns = number(),
                KEPT => told.kept = small().unwrap_or(0),
                _ => {}
            }
        }
        told.cut |= origin.size.is_some();
        told
    }

    /// The record that a group gave up: group, stream, shard and sequence number.
    pub fn given_up(&self) -> Option<(&str, &str, u32, u64)> {
        let Origin { group, stream, shard, sequence, .. } = &self.origin;
        Some((group.as_deref()?, stream.as_deref()?, (*shard)?, (*sequence)?))
    }

    /// Where it comes from, in words.
    pub fn place(&self) -> String {
        let origin = &self.origin;
        match (self.given_up(), &origin.stream) {
            (Some((group, stream, shard, sequence)), _) => {
                format!("{group}: {stream}/{shard} record {sequence}")
            }
            (None, Some(stream)) => match (&origin.file, origin.line) {
                (Some(file), Some(line)) => format!("{stream}: {file} line {line}"),
                _ => stream.clone(),
            },
            (None, None) => "unknown".to_owned(),
        }
    }
}

/// A dead letter, where it lies.
#[derive(Clone, Debug)]
pub struct Letter {
    pub shard: u32,
    pub record: KeptRecord,
    pub told: Told,
}

impl Letter {
    /// When it came to be a letter, nanoseconds since 1970 UTC.
    pub fn since_ns(&self) -> u64 {
        self.told.since_ns.unwrap_or(self.record.arrival_ns)
    }

    /// Writes it again, as it is and with what it would lose by that: since when it is a letter. One that has no room for
    /// that looks new.
    pub async fn write_again(&self, producer: &Producer) -> Result<Receipt, SendError> {
        let record = self.record.view();
        let (since, kept) = (self.since_ns().to_string(), (self.told.kept + 1).to_string());
        let told = |(n, header): &(usize, Header<'_>)| {
            *n < self.told.own || !matches!(header.name, SINCE | KEPT)
        };
        let headers = record.headers().enumerate().filter(told).map(|(_, header)| header);
        let more = [(SINCE, &since), (KEPT, &kept)];
        let more = more.map(|(name, value)| Header { name, value: value.as_bytes() });
        let headers: Vec<Header<'_>> = headers.chain(more).collect();
        match send(producer, &self.record, &headers).await {
            Err(SendError::RecordTooLarge { .. } | SendError::Encode(_)) => {
                let headers: Vec<Header<'_>> = record.headers().collect();
                send(producer, &self.record, &headers).await
            }
            sent => sent,
        }
    }
}

/// Sends a letter's record with these headers.
pub async fn send(
    producer: &Producer,
    kept: &KeptRecord,
    headers: &[Header<'_>],
) -> Result<Receipt, SendError> {
    let record = kept.view();
    let again = Record {
        headers,
        timestamp_ns: Some(record.timestamp_ns),
        ..Record::new(record.key, record.payload)
    };
    producer.send(again).await
}

/// Which letters were met: after a crash a record may have been buried twice.
#[derive(Debug, Default)]
pub struct Met(HashSet<(String, String, u32, u64)>);

impl Met {
    /// Whether this is the first of its origin.
    pub fn first(&mut self, told: &Told) -> bool {
        match told.given_up() {
            Some((group, stream, shard, sequence)) => {
                self.0.insert((group.to_owned(), stream.to_owned(), shard, sequence))
            }
            None => true,
        }
    }
}

/// Letters of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub shard: u32,
    pub from: u64,
    pub until: u64,
}

/// Calls `take` for the letters of a stream, in the order they came: all that are there, or those of a span.
pub async fn each(
    client: &Client,
    dead: &Dead,
    span: Option<Span>,
    mut take: impl FnMut(Letter) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let wanted = Wanted {
        from: span.map_or(Start::Oldest, |span| Start::At(span.from)),
        until: span.map(|span| Until::Sequence(span.until)),
        shard: span.map(|span| span.shard),
        by: By::Arrival,
        filter: None,
    };
    let mut letters = Merge::open(client, dead.name(), wanted, Found::new(None)?).await?;
    while let Some(Next { shard, record, .. }) = letters.next().await? {
        let told = Told::of(&record.view());
        if take(Letter { shard, record, told }).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &[(&str, &str)]) -> Told {
        let mut raw = Vec::new();
        for (name, value) in headers {
            raw.push(name.len() as u8);
            raw.extend((value.len() as u16).to_le_bytes());
            raw.extend([name.as_bytes(), value.as_bytes()].concat());
        }
        Told::of(&RecordView {
            sequence: 0,
            timestamp_ns: 0,
            key: b"",
            raw_headers: &raw,
            payload: b"",
        })
    }

    #[test]
    fn headers_tell_where_a_letter_comes_from_and_which_are_its_own() {
        let group = told(&[
            ("reason", "its own"),
            ("trace", "7"),
            ("reason", "no such user"),
            ("attempts", "3"),
            ("origin-group", "billing"),
            ("origin-stream", "clicks"),
            ("origin-shard", "2"),
            ("origin-sequence", "4711"),
            ("origin-arrival", "12"),
        ]);
        assert_eq!((group.own, group.attempts, group.cut), (2, Some(3), false));
        assert_eq!(group.given_up(), Some(("billing", "clicks", 2, 4711)));
        assert_eq!(group.place(), "billing: clicks/2 record 4711");
        let put = told(&[
            ("reason", "not JSON"),
            ("origin-stream", "logs"),
            ("origin-file", "-"),
            ("origin-line", "17"),
            ("origin-size", "5000000"),
        ]);
        assert_eq!((put.own, put.given_up(), put.cut), (0, None, true));
        assert_eq!((put.place().as_str(), put.origin.size), ("logs: - line 17", Some(5_000_000)));
        let none = told(&[("a", "b")]);
        assert_eq!((none.own, none.place().as_str()), (1, "unknown"));
        let nonsense = told(&[("reason", ""), ("origin-shard", "many"), ("attempts", "-1")]);
        assert_eq!((nonsense.origin.shard, nonsense.attempts), (None, None));
    }

    #[test]
    fn a_record_that_was_buried_twice_is_met_once() {
        let buried = [
            ("reason", ""),
            ("origin-group", "g"),
            ("origin-stream", "s"),
            ("origin-shard", "0"),
            ("origin-sequence", "5"),
        ];
        let mut met = Met::default();
        assert!(met.first(&told(&buried)) && !met.first(&told(&buried)));
        let line = told(&[("reason", ""), ("origin-stream", "s")]);
        assert!(met.first(&line) && met.first(&line));
    }
}
