//! The formulas of a plan: each with its text, where it is from and what to beware of, as the report prints it, and
//! the function that computes it.

use serde::Serialize;

/// A formula as a reader is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Formula {
    /// Stable name; what figures refer to.
    pub id: &'static str,
    /// As it would be written on paper.
    pub text: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// What it does not know.
    pub caution: &'static str,
}

macro_rules! formulas {
    ($( $(#[$meta:meta])* $name:ident = $id:literal: $text:literal, $source:literal, $caution:literal; )*) => {
        $( $(#[$meta])* pub const $name: Formula =
            Formula { id: $id, text: $text, source: $source, caution: $caution }; )*
        /// All of them.
        pub const ALL: &[Formula] = &[$( $name ),*];
    };
}

formulas! {
    /// A figure that was measured and is passed on as it is.
    MEASURED = "measured": "as measured",
        "the run named beside it", "true of that machine, load and minute";
    /// The sustainable rate for keys that are less even than those measured.
    FOR_KEYS = "for-keys": "R* x skew measured / skew of the keys",
        "utilisation law, at the busiest shard",
        "holds where the busiest shard's core is what gives out; too careful where all shards share one core";
    /// What is asked over what is safe.
    HEADROOM = "headroom": "demand / safe rate",
        "definition; 0.7 on average leaves room for what is not average",
        "the rate holds for the records, batches and keys it was measured with";
    /// What is asked over where the goal gives out.
    OF_ESTIMATE = "of-estimate": "demand / R*",
        "definition", "R* is where half of all two-minute runs miss the goal: no rate to promise";
    /// Seconds of work above what is served.
    PEAK_BACKLOG = "peak-backlog": "(peak - C) x T",
        "fluid queue", "C, what is delivered under overload, has to hold for all of T";
    /// How long the last record of a peak waits.
    PEAK_DELAY = "peak-delay": "backlog / C = (peak / C - 1) x T",
        "fluid queue, first in first out", "producers have to be able to hold the backlog for as long";
    /// When a peak is over.
    PEAK_CLEAR = "peak-clear": "backlog / (C - average)",
        "fluid queue", "infinite if the average is not below C";
    /// What resource is used up first.
    UTILISATION = "utilisation": "share in use x demand / rate",
        "utilisation law, U = X x D (Denning and Buzen, 1978)",
        "a straight line: batching bends it down, contention up";
    /// The rate at which a resource is used up.
    BOUND = "resource-bound": "rate / share in use",
        "asymptotic bound, X <= 1 / D (Denning and Buzen, 1978)",
        "an upper bound; delay grows well before it";
    /// Throughput of N shards.
    USL = "usl":
        "X(N) = gN / (1 + a(N - 1) + bN(N - 1)); highest at a whole N beside sqrt((1 - a) / b), at 1 if that is less or a > 1",
        "N. J. Gunther, Guerrilla Capacity Planning, 2007",
        "a fit, not a law; nothing is read off beyond twice the largest N measured, or above what the device does";
    /// Shards for a target.
    SHARDS = "shards": "ceil(max(average / 0.7, peak) x skew / safe rate of a shard)",
        "definition", "takes shards to add up evenly; the USL question says whether they do";
    /// Shards for a target, where it was measured how they add up.
    SHARDS_BY_CURVE = "shards-by-curve":
        "the least N with X(N) >= max(average / 0.7, peak) x X(n) / safe rate of n shards",
        "the curve's shape, by which the safe rate is carried over from n to N shards",
        "takes what is safe to be the same share of the curve at every number of shards";
    /// Cores for a target.
    CORES = "cores": "ceil(CPU time of all cores a second x max(average / 0.7, peak) / rate)",
        "utilisation law",
        "a straight line from the load recorded; takes shards and connections to spread evenly over the cores";
    /// Seconds until a consumer is back at the head.
    CATCH_UP = "catch-up": "(arrival x outage) / (drain - arrival)",
        "fluid queue; the drain rate was measured while producers wrote",
        "infinite if drain <= arrival; drain was measured at the arrival rate named";
    /// What waits for a consumer that was away.
    OUTAGE_BACKLOG = "outage-backlog": "arrival x outage",
        "definition", "arrivals go on at the average";
    /// How long a consumer may be away.
    SURVIVABLE = "survivable-outage": "retention x (drain - arrival) / drain",
        "T + catch-up(T) <= retention, solved for T",
        "what is lost is what nobody has read when it expires; a longer outage, up to the retention itself, loses \
         nothing as long as drain > arrival";
    /// How long the disk lasts.
    DISK_LASTS = "disk-lasts": "free / (bytes on disk a second)",
        "definition", "for streams that are not trimmed";
    /// Disk for a retention.
    RETENTION = "retention-disk":
        "bytes/s x retention x (1 + overhead) / fill limit + one segment per shard",
        "definition", "retention removes whole segments: one more per shard is kept";
    /// Writes of the whole drive a day.
    ENDURANCE = "endurance": "bytes/s on disk x write amplification x 86,400 / capacity",
        "definition of drive writes per day",
        "what the drive writes besides (garbage collection) is its own and not in it";
    /// Groups that can be served.
    GROUPS = "groups": "rate x groups <= read rate measured",
        "definition", "tailing groups share what is in memory; replaying groups read the device";
    /// Shards of Amazon Kinesis for the same load.
    KINESIS = "kinesis-shards":
        "max(records/s / 1000, bytes/s in / 1 MB, bytes/s out / 2 MB), rounded up",
        "Amazon Kinesis Data Streams, quotas of a provisioned shard; MB = 10^6 bytes",
        "evenly spread keys; out counts every group without enhanced fan-out, which has 2 MB/s a consumer";
    /// What Kinesis would refuse.
    KINESIS_REFUSED = "kinesis-refused": "max(0, 1 - shards x limit / rate)",
        "quotas as above: 1,000 records/s and 1 MB/s in for each shard",
        "refusals are by the second and by the shard, so uneven keys are refused sooner";
    /// Two rates or two latencies over each other.
    RATIO = "ratio": "one / the other",
        "definition", "where two runs are compared, they differ in nothing else";
    /// What the device could do over what is asked of it.
    DEVICE_ROOM = "device-room": "probe bytes/s / bytes on disk a second at the safe rate",
        "asymptotic bound", "the probe writes one file and does nothing else; an engine shares the CPU with it";
}

/// What is asked over what is safe; red above 0.7 for an average, above 1 for a peak.
pub fn headroom(demand: f64, safe: f64) -> f64 {
    demand / safe
}

/// What becomes of a peak of rate `peak` for `time` seconds over an average of `average`, where `served` is
/// what the machine delivers under overload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// Records that wait at the peak's end; 0 if all are served.
    pub backlog: f64,
    /// How long the last of them waits, in seconds.
    pub delay_s: f64,
    /// From the peak's end until nothing waits, in seconds; `None` if never.
    pub clear_s: Option<f64>,
}

/// See [`Excess`].
pub fn excess(peak: f64, time: f64, average: f64, served: f64) -> Excess {
    let backlog = ((peak - served) * time).max(0.0);
    let clear_s = if backlog == 0.0 {
        Some(0.0)
    } else {
        (served > average).then(|| backlog / (served - average))
    };
    Excess { backlog, delay_s: backlog / served, clear_s }
}

/// Seconds a group needs that was away for `outage` seconds and reads `drain` records a second while `arrival` come;
/// `None` if it never catches up.
pub fn catch_up(arrival: f64, outage: f64, drain: f64) -> Option<f64> {
    (drain > arrival).then(|| arrival * outage / (drain - arrival))
}

/// The longest outage in seconds after which a group has caught up before anything expires that was written
/// in it.
pub fn survivable(retention: f64, arrival: f64, drain: f64) -> f64 {
    if drain > arrival { retention * (drain - arrival) / drain } else { 0.0 }
}

/// Bytes of disk that hold `retention` seconds of `bytes_per_s` (as written), filled up to `fill`.
pub fn retention_disk(
    bytes_per_s: f64,
    retention: f64,
    fill: f64,
    shards: f64,
    segment: f64,
) -> f64 {
    bytes_per_s * retention / fill + shards * segment
}

/// Whole writes of a drive of `capacity` bytes a day.
pub fn drive_writes_per_day(bytes_per_s: f64, capacity: f64) -> f64 {
    bytes_per_s * 86_400.0 / capacity
}

/// Shards, each safe up to `per_shard`, where the busiest has `skew` times its share.
pub fn shards(demand: f64, skew: f64, per_shard: f64) -> f64 {
    (demand * skew / per_shard).ceil().max(1.0)
}

/// Records a second that a shard of Kinesis takes.
pub const KINESIS_RECORDS: f64 = 1_000.0;
/// Bytes a second that it takes.
pub const KINESIS_IN: f64 = 1e6;
/// Bytes a second that it gives, over all consumers without enhanced fan-out.
pub const KINESIS_OUT: f64 = 2e6;

/// Shards of Kinesis, by each of its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kinesis {
    /// By records.
    pub records: f64,
    /// By bytes in.
    pub ingest: f64,
    /// By bytes out.
    pub egress: f64,
}

/// See [`Kinesis`].
pub fn kinesis(records: f64, bytes_in: f64, bytes_out: f64) -> Kinesis {
    Kinesis {
        records: records / KINESIS_RECORDS,
        ingest: bytes_in / KINESIS_IN,
        egress: bytes_out / KINESIS_OUT,
    }
}

impl Kinesis {
    /// Whole shards, at least 1, and which limit decides.
    pub fn shards(&self) -> (f64, &'static str) {
        let all =
            [(self.records, "records"), (self.ingest, "bytes in"), (self.egress, "bytes out")];
        let most = all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        most.map_or((1.0, "records"), |(shards, limit)| (shards.ceil().max(1.0), limit))
    }

    /// Share of the records that `shards` of them refuse, 0 to 1: what is read has no part in that.
    pub fn refused(&self, shards: f64) -> f64 {
        (1.0 - shards / self.records.max(self.ingest)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_formula_has_a_name_of_its_own_and_says_everything() {
        let mut ids: Vec<_> = ALL.iter().map(|formula| formula.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
        let said = |f: &Formula| [f.text, f.source, f.caution].iter().all(|text| !text.is_empty());
        assert!(ALL.iter().all(said));
    }

    #[test]
    fn a_peak_that_is_served_leaves_nothing() {
        let none = Excess { backlog: 0.0, delay_s: 0.0, clear_s: Some(0.0) };
        for peak in [100.0, 571_000.0] {
            assert_eq!(excess(peak, 600.0, 400e3, 571e3), none);
        }
        // Also at an average that is too much: the peak is not what leaves something.
        assert_eq!(excess(500.0, 10.0, 900.0, 800.0), none);
    }

    #[test]
    fn a_peak_that_is_not_waits_and_clears() {
        // 800k for 600 s where 637k are served: 163k x 600 = 97.8M wait, the last for 153.5 s; at 400k average
        // 237k/s are left to clear them: 412.7 s.
        let left = excess(800e3, 600.0, 400e3, 637e3);
        assert_eq!(left.backlog, 97.8e6);
        assert!((left.delay_s - 153.53).abs() < 0.01);
        assert!((left.clear_s.unwrap() - 412.66).abs() < 0.01);
        // At the lower bound, 571k: 137.4M, 240.6 s (4m01s), 803.5 s (13m24s).
        let worse = excess(800e3, 600.0, 400e3, 571e3);
        assert_eq!(worse.backlog, 137.4e6);
        assert!((worse.delay_s - 240.63).abs() < 0.01);
        assert!((worse.clear_s.unwrap() - 803.51).abs() < 0.01);
        assert_eq!(excess(800.0, 10.0, 700.0, 600.0).clear_s, None);
    }

    #[test]
    fn catching_up_takes_what_is_left_of_the_drain() {
        // 400k x 1,800 s = 720M, read at 900k - 400k: 1,440 s.
        assert_eq!(catch_up(400e3, 1_800.0, 900e3), Some(1_440.0));
        assert_eq!(catch_up(400e3, 0.0, 900e3), Some(0.0));
        assert_eq!(catch_up(400e3, 1_800.0, 400e3), None);
        assert_eq!(catch_up(400e3, 1_800.0, 300e3), None);
    }

    #[test]
    fn an_outage_and_its_catching_up_fit_into_the_retention() {
        // 24 h x 5/9 = 13 h 20 min; catching up from that takes the rest, 10 h 40 min.
        let away = survivable(86_400.0, 400e3, 900e3);
        assert!((away - 48_000.0).abs() < 1e-6);
        assert!((away + catch_up(400e3, away, 900e3).unwrap() - 86_400.0).abs() < 1e-6);
        assert_eq!(survivable(86_400.0, 400e3, 400e3), 0.0);
    }

    #[test]
    fn disk_for_a_day_and_what_it_wears() {
        // 400k x 512 B = 204.8 MB/s, 6 % overhead: 217.088 MB/s x 86,400 s = 18.7564 TB, / 0.8 = 23.4455 TB; and 16
        // segments of 256 MiB, 4.295 GB.
        let bytes = 204.8e6 * 1.06;
        let disk = retention_disk(bytes, 86_400.0, 0.8, 16.0, 268_435_456.0);
        assert!((disk / 1e12 - 23.4498).abs() < 1e-4, "{disk}");
        // Onto four drives of 7.68 TB: 18.7564 / 30.72.
        assert!((drive_writes_per_day(bytes, 30.72e12) - 0.6106).abs() < 1e-4);
    }

    #[test]
    fn shards_are_whole_and_the_busiest_counts() {
        assert_eq!(shards(400e3, 1.0, 40e3), 10.0);
        // 400k x 1.31 / 40k = 13.1.
        assert_eq!(shards(400e3, 1.31, 40e3), 14.0);
        assert_eq!(shards(1.0, 1.0, 40e3), 1.0);
    }

    #[test]
    fn kinesis_is_bound_by_the_tightest_of_its_limits() {
        // 400k records/s of 512 B: 400 by records, 204.8 by bytes in; three groups: 307.2 by bytes out.
        let of = kinesis(400e3, 204.8e6, 3.0 * 204.8e6);
        assert_eq!(of, Kinesis { records: 400.0, ingest: 204.8, egress: 307.2 });
        assert_eq!(of.shards(), (400.0, "records"));
        assert_eq!(kinesis(1e3, 5.5e6, 5.5e6).shards(), (6.0, "bytes in"));
        assert_eq!(kinesis(1e3, 1e6, 9e6).shards(), (5.0, "bytes out"));
        assert_eq!(kinesis(1.0, 1.0, 1.0).shards().0, 1.0);
        // 16 of them take 16,000 of 400,000 records: 96 % refused. 400 refuse nothing; at twice the rate half.
        assert!((of.refused(16.0) - 0.96).abs() < 1e-12);
        assert_eq!(of.refused(400.0), 0.0);
        assert_eq!(kinesis(800e3, 409.6e6, 0.0).refused(400.0), 0.5);
    }

    #[test]
    fn headroom_is_of_the_safe_rate() {
        assert!((headroom(400e3, 571e3) - 0.7005).abs() < 1e-4);
    }
}
