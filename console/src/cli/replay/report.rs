//! What was replayed, and how well.

use serde::Serialize;

use super::By;
use super::merge::Next;
use super::pace::{Percentiles, Speed};
use crate::failure::Failure;
use crate::human::{self, counted};
use crate::output;

/// What was replayed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub stream: String,
    pub to: String,
    pub speed: Speed,
    pub by: By,
    pub dry_run: bool,
    pub shards: usize,
    pub records: u64,
    /// Of their payloads.
    pub bytes: u64,
    /// Records that the target stream's backpressure did not keep.
    pub shed: u64,
    /// Time of the first record, and of the last, as they were paced.
    #[serde(serialize_with = "time")]
    pub first: Option<u64>,
    #[serde(serialize_with = "time")]
    pub last: Option<u64>,
    /// From the first record to the last: as recorded, as it should have taken, as it took.
    pub recorded_seconds: f64,
    pub due_seconds: f64,
    pub elapsed_seconds: f64,
    /// How late records were; null if none was waited for.
    pub lateness_ms: Option<Percentiles>,
    /// How far off the time between a record and the one before it was.
    pub gap_error_ms: Option<Percentiles>,
}

fn time<S: serde::Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    ns.map(human::rfc3339).serialize(serializer)
}

impl Report {
    /// A record went out at `at`; it was due at `due`, both after the first.
    pub fn sent(&mut self, next: &Next, due: std::time::Duration, at: std::time::Duration) {
        self.records += 1;
        self.bytes += next.record.view().payload.len() as u64;
        let first = *self.first.get_or_insert(next.time_ns);
        let last = next.time_ns.max(self.last.unwrap_or(first));
        self.last = Some(last);
        self.recorded_seconds = (last - first) as f64 / 1e9;
        self.due_seconds = due.as_secs_f64();
        self.elapsed_seconds = at.as_secs_f64();
    }

    /// Says it; `beside` what is on standard output already.
    pub fn tell(&self, json: bool, beside: bool) -> Result<(), Failure> {
        let text = if json { serde_json::to_string_pretty(self)? } else { self.text() };
        if beside {
            note!("{text}");
            return Ok(());
        }
        output::line(text)
    }

    fn text(&self) -> String {
        let seconds = |seconds: f64| human::nanos((seconds * 1e9) as u64);
        let what = format!(
            "{}, {} of {} ({} recorded)",
            counted(self.records, "record"),
            counted(self.bytes, "byte"),
            self.stream,
            seconds(self.recorded_seconds)
        );
        let speed = self.speed;
        if self.dry_run {
            return match speed {
                Speed::Max => format!("would replay {what} as fast as it goes"),
                _ => format!("would replay {what} in {} at {speed}", seconds(self.due_seconds)),
            };
        }
        let to = if self.to == "-" { "standard output" } else { &self.to };
        let mut text = format!("replayed {what} to {to} in {}", seconds(self.elapsed_seconds));
        if self.shed > 0 {
            text += &format!("\n{} not kept, as the stream's backpressure says", self.shed);
        }
        if let (Some(late), Some(gaps)) = (self.lateness_ms, self.gap_error_ms) {
            let ms = |ms: f64| human::nanos((ms * 1e6) as u64);
            let each = |of: Percentiles| {
                format!("{} at p50, {} at p99, {} at most", ms(of.p50), ms(of.p99), ms(of.max))
            };
            text += &format!("\nlate by {}\ngaps off by {}", each(late), each(gaps));
        }
        text
    }
}
