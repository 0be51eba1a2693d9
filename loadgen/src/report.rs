//! What a run found: one JSON object, and a table for people.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{Environment, LoadOptions};

/// Version of the JSON layout: fields may be added under the same name, none change meaning.
pub const SCHEMA: &str = "highwater-load/1";

/// A run is not valid if the generator itself acted later than this at the 99th percentile.
/// A scheduler tick is 1 to 4 ms, so a busy or stolen CPU is well beyond it.
pub const LATE_P99_MAX: Duration = Duration::from_millis(1);

/// ... or sent less than this share of what was due by the end of the window, the target's fault or not.
pub const ACHIEVED_MIN: f64 = 0.99;

/// ... or lost more than this share of the machine's CPU time to the hypervisor.
pub const STEAL_MAX: f64 = 0.02;

/// How records were offered, and so what their latency counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At due times that do not wait for the target; from the due time.
    Open,
    /// As fast as the target takes them; from the moment the record was made.
    Saturating,
    /// Each caller waits for its acknowledgement; from the moment the record was made.
    Closed,
}

/// A latency distribution in microseconds, three significant digits. All values count: none is
/// dropped, and nothing is averaged over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// Median.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// Largest.
    pub max: f64,
    /// Records.
    pub count: u64,
}

impl Distribution {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Distribution {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Distribution::default();
        }
        Distribution {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1e3,
            count: histogram.len(),
        }
    }
}

/// The five distributions, of records intended within the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Distributions {
    /// Intended send time to acknowledgement.
    pub response: Distribution,
    /// Intended send time to reading by a consumer.
    pub propagation: Distribution,
    /// Intended send time to sending: linger, the generator's lateness and waiting for the target.
    pub send_lag: Distribution,
    /// Sending to acknowledgement.
    pub service: Distribution,
    /// Acknowledgement to reading; 0 for a record read before its acknowledgement came.
    pub visibility: Distribution,
}

/// The generator's own lateness: how long after it could and should have acted it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lateness {
    /// 99th percentile over records, in microseconds; 0 in a saturating or closed run.
    pub p99_us: f64,
    /// Largest, in microseconds.
    pub max_us: f64,
    /// Bound on `p99_us` of a valid run, in microseconds.
    pub bound_us: f64,
}

/// What a run found. Records of the warm-up count in the integrity figures (`checked_records`, `lost` to
/// `unread`, `refused`, `errors`, `unknown`), not in rates and latencies.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether the measurement can be trusted; see `void_reason`.
    pub valid: bool,
    /// Why not.
    pub void_reason: Option<String>,
    /// Whether the run was stopped before its time.
    pub interrupted: bool,
    /// How records were offered.
    pub mode: Mode,
    /// The target.
    pub target: String,
    /// The server's release.
    pub server: String,
    /// The stream.
    pub stream: String,
    /// Its shards.
    pub shards: u32,
    /// Seed of arrivals, keys and filler.
    pub seed: u64,
    /// Number in the header of every record of this run.
    pub run_id: u64,
    /// When the measured window began, nanoseconds since 1970 UTC.
    pub started_ns: u64,
    /// Length of the measured window.
    pub duration_s: f64,
    /// Records per second due by the schedule in the window; sent, in a saturating or closed run.
    pub offered_rate: f64,
    /// Records per second of those that were sent by the end of the window, give or take linger and
    /// `LATE_P99_MAX`. How late each of them was is in the latencies.
    pub achieved_rate: f64,
    /// Records due within the window that were acknowledged, whenever that was.
    pub acked_records: u64,
    /// Acknowledgements within the window, per second.
    pub records_per_s: f64,
    /// Their payload bytes, per second.
    pub bytes_per_s: f64,
    /// Records due within the window that were read, each once.
    pub consumed_records: u64,
    /// Whether consumers read every shard: otherwise the records of some were not checked.
    pub checked: bool,
    /// Acknowledged records of the whole run in shards that were read.
    pub checked_records: u64,
    /// Acknowledged, and never read though the consumer went past them or to the end of the shard.
    pub lost: u64,
    /// Read again.
    pub duplicated: u64,
    /// Read after a later record of the same producer and shard.
    pub reordered: u64,
    /// Read with a wrong checksum, or where this run never put them.
    pub corrupted: u64,
    /// Acknowledged, and removed by retention before they were read.
    pub trimmed: u64,
    /// Acknowledged, and not yet reached by the consumer when the drain timeout ended the run.
    pub unread: u64,
    /// Records the target said it did not store.
    pub refused: u64,
    /// ... that were read all the same.
    pub refused_but_read: u64,
    /// Records whose fate the target did not tell.
    pub unknown: u64,
    /// ... that were read: they are stored.
    pub unknown_but_read: u64,
    /// Records due that were not sent: the generator or the target was too slow.
    pub unsent: u64,
    /// Failed requests: batches not acknowledged, and reads that had to be begun again.
    pub errors: u64,
    /// ... of them reads, or attempts to learn up to where to read. With `unread` records these are not
    /// merely late: nobody could get at them.
    pub read_errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
    /// By distribution, in microseconds.
    pub latency_us: Distributions,
    /// The generator's own lateness.
    pub generator_late: Lateness,
    /// Worker threads.
    pub workers: usize,
    /// The machine.
    pub environment: Environment,
    /// What was asked.
    pub options: LoadOptions,
}

impl Report {
    /// Whether everything acknowledged was read once, in order and unharmed, or removed by retention, or not
    /// reached (`unread`, which makes the run invalid). If not `checked`, as far as shards were read.
    pub fn intact(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.reordered == 0
            && self.corrupted == 0
            && self.refused_but_read == 0
    }
}

/// Microseconds in the unit a reader would choose, three significant digits.
fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => (us, "us"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A whole number with its thousands apart.
fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.options;
        let mode = match self.mode {
            Mode::Open => format!("open loop, {} arrivals", o.arrival),
            Mode::Saturating => {
                "saturating: latencies count from the making of a record".to_owned()
            }
            Mode::Closed => {
                let callers = o.clients.unwrap_or_default();
                let plural = if callers == 1 { "" } else { "s" };
                format!(
                    "closed loop, {callers} caller{plural}: latencies count from the actual send"
                )
            }
        };
        let plural = if self.shards == 1 { "" } else { "s" };
        writeln!(
            f,
            "stream      {} on {}, {} shard{plural}",
            self.stream, self.target, self.shards
        )?;
        writeln!(f, "load        {mode}, {} B records, seed {}", o.record_size, self.seed)?;
        writeln!(
            f,
            "window      {:.3} s after {:.3} s of warm-up{}",
            self.duration_s,
            o.warmup.as_secs_f64(),
            if self.interrupted { ", INTERRUPTED" } else { "" }
        )?;
        if self.mode == Mode::Open {
            let (due, sent) = (self.offered_rate, self.achieved_rate);
            writeln!(f, "rates       offered {due:.1} records/s, sent by the end {sent:.1}")?;
        } else {
            writeln!(f, "rates       sent {:.1} records/s", self.offered_rate)?;
        }
        writeln!(
            f,
            "            acknowledged {:.1} records/s, {:.3} MB/s",
            self.records_per_s,
            self.bytes_per_s / 1e6
        )?;
        writeln!(
            f,
            "records     acknowledged {}, consumed {}",
            whole(self.acked_records),
            whole(self.consumed_records)
        )?;
        writeln!(f)?;
        self.table(f)?;
        writeln!(f)?;
        self.integrity(f)?;
        writeln!(
            f,
            "generator   late p99 {} (bound {}), {} worker{}{}{}",
            time(self.generator_late.p99_us),
            time(self.generator_late.bound_us),
            self.workers,
            if self.workers == 1 { "" } else { "s" },
            self.environment.steal.map_or(String::new(), |s| format!(", steal {:.1} %", s * 100.0)),
            if self.environment.debug_build { ", DEBUG BUILD" } else { "" },
        )?;
        match &self.void_reason {
            Some(reason) => writeln!(f, "verdict     NOT VALID: {reason}"),
            None => writeln!(f, "verdict     valid"),
        }
    }
}

impl Report {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        write!(f, "{:<12}", "latency")?;
        for column in columns {
            write!(f, "{column:>10}")?;
        }
        writeln!(f, "{:>16}", "records")?;
        let l = &self.latency_us;
        for (name, d) in [
            ("response", l.response),
            ("propagation", l.propagation),
            ("send lag", l.send_lag),
            ("service", l.service),
            ("visibility", l.visibility),
        ] {
            write!(f, "{name:<12}")?;
            for (value, share) in
                [(d.p50, 0.5), (d.p90, 0.1), (d.p99, 0.01), (d.p999, 0.001), (d.p9999, 0.0001)]
            {
                // A percentile with fewer than ten values beyond it is noise.
                let enough = d.count as f64 * share >= 10.0;
                write!(f, "{:>10}", if enough { time(value) } else { "-".to_owned() })?;
            }
            let max = if d.count > 0 { time(d.max) } else { "-".to_owned() };
            writeln!(f, "{max:>10}{:>16}", whole(d.count))?;
        }
        Ok(())
    }

    fn integrity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.checked_records == 0 && !self.checked {
            writeln!(f, "integrity   not checked (no consumers)")?;
        } else {
            writeln!(
                f,
                "integrity   lost {} duplicated {} reordered {} corrupted {}, of {} acknowledged{}",
                self.lost,
                self.duplicated,
                self.reordered,
                self.corrupted,
                whole(self.checked_records),
                if self.checked { "" } else { " (only some shards were read)" },
            )?;
        }
        for (name, count) in [
            ("trimmed by retention before they were read", self.trimmed),
            ("not reached by the consumers in time", self.unread),
            ("refused by the target", self.refused),
            ("refused by the target, but read", self.refused_but_read),
            ("of unknown fate", self.unknown),
            ("of unknown fate, and read", self.unknown_but_read),
            ("due, but never sent", self.unsent),
        ] {
            if count > 0 {
                writeln!(f, "            {} records {name}", whole(count))?;
            }
        }
        if self.errors > 0 {
            let first = self.first_error.as_deref().unwrap_or("no reason given");
            writeln!(f, "errors      {}, the first: {first}", whole(self.errors))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(time(0.123), "0.12 us");
        assert_eq!(time(85.04), "85.0 us");
        assert_eq!(time(1_234.0), "1.23 ms");
        assert_eq!(time(12_345_678.0), "12.3 s");
        assert_eq!((whole(0), whole(999)), ("0".into(), "999".into()));
        assert_eq!(whole(1_234_567), "1 234 567");
    }
}
