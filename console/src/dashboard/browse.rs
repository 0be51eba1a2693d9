//! Looking into streams: what is asked of the server, and its records as people read them. No I/O: questions leave
//! through [`super::app::App`], answers come as readings.

use highwater_wire::{RecordView, StreamDescription};
use serde_json::Value;

use crate::human;

/// Records asked for at a time.
pub const LAST: u32 = 50;
/// Of a payload, more than this is neither kept nor shown.
const KEPT: usize = 8 << 10;

/// A question to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What a stream was created with.
    Describe {
        /// Its name.
        stream: String,
    },
    /// The last records of a shard.
    Records {
        /// The stream's name.
        stream: String,
        /// The shard's number.
        shard: u32,
        /// How many.
        last: u32,
        /// Only those before this sequence number, where the shard ended at the moment shown; `None`: as it is now.
        until: Option<u64>,
    },
}

impl Ask {
    /// The stream it is about.
    fn stream(&self) -> &str {
        match self {
            Ask::Describe { stream } | Ask::Records { stream, .. } => stream,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of [`Ask::Describe`].
    Description(Box<StreamDescription>),
    /// Of [`Ask::Records`].
    Records(Records),
    /// Nothing.
    Failed {
        /// What was asked.
        ask: Ask,
        /// Why there is no answer.
        reason: String,
    },
}

/// The last records of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// The stream's name.
    pub stream: String,
    /// The shard's number.
    pub shard: u32,
    /// Oldest sequence number kept.
    pub oldest: u64,
    /// The high-water mark.
    pub high_water: u64,
    /// They are those before this sequence number; `None`: the last there were.
    pub until: Option<u64>,
    /// Oldest first.
    pub records: Vec<Record>,
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its sequence number.
    pub sequence: u64,
    /// The producer's time, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Its key, readable.
    pub key: String,
    /// Its headers, readable.
    pub headers: Vec<(String, String)>,
    /// Length of its payload in bytes.
    pub length: usize,
    /// What its payload is.
    pub payload: Payload,
}

/// A payload as it was recognised.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// An object or a list.
    Json(Value),
    /// Text: a line of a log, say.
    Text(String),
    /// Anything else; the first bytes.
    Bytes(Vec<u8>),
}

impl Record {
    /// Of a record as received.
    pub fn of(view: &RecordView<'_>) -> Record {
        let headers = view.headers().map(|h| (h.name.to_owned(), readable(h.value)));
        Record {
            sequence: view.sequence,
            at_ns: view.timestamp_ns,
            key: readable(view.key),
            headers: headers.collect(),
            length: view.payload.len(),
            payload: Payload::of(view.payload),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        match &self.payload {
            Payload::Json(value) => value.to_string(),
            Payload::Text(text) => one_line(text.trim_end()),
            Payload::Bytes(bytes) => format!("0x{}", hex(bytes.iter().take(64))),
        }
    }

    /// In as many lines as it takes: JSON indented, bytes sixteen to a line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("sequence  {}", human::grouped(self.sequence)),
            format!("time      {}", human::rfc3339(self.at_ns)),
            format!("key       {}", self.key),
            format!("payload   {} B, {}", human::grouped(self.length as u64), self.payload.kind()),
        ];
        lines.extend(self.headers.iter().map(|(name, value)| format!("header    {name}: {value}")));
        lines.push(String::new());
        match &self.payload {
            Payload::Json(value) => {
                let text =
                    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
                lines.extend(text.lines().map(str::to_owned));
            }
            Payload::Text(text) => lines.extend(text.lines().map(one_line)),
            Payload::Bytes(bytes) => {
                lines.extend(bytes.chunks(16).enumerate().map(|(i, chunk)| {
                    let text: String =
                        chunk
                            .iter()
                            .map(|&b| {
                                if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '.' }
                            })
                            .collect();
                    format!("{:06x}  {:<48}{text}", i * 16, spaced(chunk))
                }))
            }
        }
        lines
    }
}

impl Payload {
    fn of(bytes: &[u8]) -> Payload {
        let json = || serde_json::from_slice::<Value>(bytes).ok();
        if bytes.len() <= KEPT
            && matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
            && let Some(value) = json()
        {
            return Payload::Json(value);
        }
        let head = &bytes[..bytes.len().min(KEPT)];
        match std::str::from_utf8(head) {
            Ok(text) if !text.contains('\0') => Payload::Text(text.to_owned()),
            // Text that was cut within a character.
            Err(e) if e.error_len().is_none() && e.valid_up_to() + 4 > KEPT => {
                Payload::Text(String::from_utf8_lossy(&head[..e.valid_up_to()]).into_owned())
            }
            _ => Payload::Bytes(head.to_vec()),
        }
    }

    /// In a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Payload::Json(_) => "JSON",
            Payload::Text(_) => "text",
            Payload::Bytes(_) => "bytes",
        }
    }
}

/// How much a line of a log matters, as far as it says so near its beginning: 2 an error, 1 a warning, 0 neither.
pub fn severity(line: &str) -> u8 {
    let head: String = line.chars().take(120).collect::<String>().to_ascii_uppercase();
    let mut words = head.split(|c: char| !c.is_ascii_alphabetic());
    let mut found = 0;
    for word in words.by_ref() {
        found = found.max(match word {
            "ERROR" | "FATAL" | "CRITICAL" | "PANIC" => 2,
            "WARN" | "WARNING" => 1,
            _ => 0,
        });
    }
    found
}

/// As text where it is text, else in hexadecimal digits.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => one_line(text),
        Err(_) => format!("0x{}", hex(bytes.iter().take(64))),
    }
}

/// Control characters would move the cursor: they become blanks.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn hex<'a>(bytes: impl Iterator<Item = &'a u8>) -> String {
    bytes.map(|b| format!("{b:02x}")).collect()
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x} ")).collect()
}

/// What the streams screen knows beyond the snapshots.
#[derive(Clone, Debug, Default)]
pub struct Browse {
    /// The stream that is open, and the shard of it.
    pub open: Option<(String, u32)>,
    /// Where the shard ended at the moment shown, if that is not now.
    pub until: Option<u64>,
    /// What it was created with, once that is known.
    pub description: Option<Box<StreamDescription>>,
    /// The last records, once they are known.
    pub records: Option<Records>,
    /// The record that is looked at in full.
    pub record: Option<Record>,
    /// Why something is not known.
    pub trouble: Option<String>,
}

impl Browse {
    /// Opens a shard of a stream as it was when it ended at `until`, or as it is now; the questions this raises.
    pub fn open(&mut self, stream: &str, shard: u32, until: Option<u64>) -> Vec<Ask> {
        let same = self.open.as_ref().is_some_and(|(open, _)| open == stream);
        let description = self.description.take().filter(|_| same);
        *self = Browse { open: Some((stream.to_owned(), shard)), description, ..Browse::default() };
        let mut asks: Vec<Ask> = self.again(until).into_iter().collect();
        if self.description.is_none() {
            asks.push(Ask::Describe { stream: stream.to_owned() });
        }
        asks
    }

    /// What brings the records of the open shard up to date, or to the moment when it ended at `until`.
    pub fn again(&mut self, until: Option<u64>) -> Option<Ask> {
        let (stream, shard) = self.open.as_ref()?;
        self.until = until;
        Some(Ask::Records { stream: stream.clone(), shard: *shard, last: LAST, until })
    }

    /// Whether the records known are those of the moment wanted.
    pub fn up_to_date(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.until == self.until)
    }

    /// Closes what was opened last; whether there was anything.
    pub fn close(&mut self) -> bool {
        if self.record.take().is_some() {
            return true;
        }
        let was = self.open.is_some();
        *self = Browse::default();
        was
    }

    /// Takes in an answer; one to a question about something else comes too late.
    pub fn take(&mut self, answer: Answer) {
        let Some((stream, shard)) = &self.open else { return };
        match answer {
            Answer::Description(description) if description.name == *stream => {
                self.description = Some(description);
            }
            // What was asked for before the view was stopped is not what is looked at.
            Answer::Records(records)
                if records.stream == *stream
                    && records.shard == *shard
                    && records.until == self.until =>
            {
                self.records = Some(records);
                self.trouble = None;
            }
            Answer::Failed { ask, reason } if ask.stream() == stream => self.trouble = Some(reason),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Record {
        Record::of(&RecordView {
            sequence: 1_234,
            timestamp_ns: 1_500_000_000,
            key: b"k\xff",
            raw_headers: b"\x01\x02\0hv1",
            payload,
        })
    }

    #[test]
    fn payloads_are_recognised() {
        assert_eq!(record(b" {\"a\": [1, 2]}").line(), "{\"a\":[1,2]}");
        assert_eq!(record(b"{no json\n").line(), "{no json");
        assert_eq!(record(b"\x1b[31mred\n").line(), " [31mred");
        assert_eq!(record(b"\xff\x00").line(), "0xff00");
        let mut cut = "ä".repeat(KEPT).into_bytes();
        cut.insert(0, b'x');
        assert_eq!(record(&cut).payload.kind(), "text");
        assert_eq!(record(b"").payload, Payload::Text(String::new()));
        assert_eq!(record(b"").key, "0x6bff");
    }

    #[test]
    fn a_record_in_full() {
        let lines = record(b"{\"a\":1}").lines();
        assert_eq!(lines[0], "sequence  1,234");
        assert!(lines.contains(&"header    h: v1".to_owned()), "{lines:?}");
        assert_eq!(lines[lines.len() - 3..], ["{", "  \"a\": 1", "}"]);
        let dump = record(b"\xff\x00abc").lines();
        let expected = format!("000000  {:<48}..abc", "ff 00 61 62 63 ");
        assert_eq!(dump.last().unwrap(), &expected);
    }

    #[test]
    fn logs_say_how_bad_it_is() {
        assert_eq!(severity("2026-01-01T00:00:00Z ERROR disk"), 2);
        assert_eq!(severity("[warn] slow"), 1);
        assert_eq!(severity("no errors here"), 0);
        assert_eq!(severity("{\"level\":\"fatal\"}"), 2);
    }

    #[test]
    fn late_answers_are_no_answers() {
        let mut browse = Browse::default();
        assert_eq!(browse.open("orders", 1, None).len(), 2);
        browse.take(Answer::Records(Records { stream: "other".into(), ..Records::default() }));
        assert_eq!(browse.records, None);
        let records = Records { stream: "orders".into(), shard: 1, ..Records::default() };
        browse.take(Answer::Records(records.clone()));
        assert_eq!(browse.records, Some(records));
        browse.take(Answer::Failed {
            ask: Ask::Describe { stream: "orders".into() },
            reason: "x".into(),
        });
        assert_eq!(browse.trouble.as_deref(), Some("x"));
        assert!(browse.close() && !browse.close());
    }
}
