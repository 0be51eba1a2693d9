//! Why the figures of a run are not to be trusted.

use crate::{ACHIEVED_MIN, Report};

/// A run of whose records more than this share were trimmed before they were read, refused, or of unknown
/// fate, says nothing about the rest.
pub const DOUBT_MAX: f64 = 0.01;

/// Every reason there is; `None` if the figures can be trusted.
pub fn reason(report: &Report) -> Option<String> {
    let reasons = [
        ended(report),
        late(report),
        behind(report),
        stolen(report),
        doubtful(report, "were removed by retention before they were read", report.trimmed),
        doubtful(report, "were refused", report.refused),
        doubtful(report, "are of unknown fate", report.unknown),
        (report.unread > 0).then(|| {
            format!(
                "the consumers did not reach {} records within the drain timeout",
                report.unread
            )
        }),
    ];
    let reasons: Vec<String> = reasons.into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Whether there is anything to trust.
fn ended(report: &Report) -> Option<String> {
    match &report.ended_early {
        Some(why) => Some(format!("ended early: {why}")),
        None if report.duration_s == 0.0 => {
            Some("stopped before the measured window began".to_owned())
        }
        None if report.acked_records == 0 => {
            Some("nothing due in the measured window was acknowledged".to_owned())
        }
        None => None,
    }
}

/// The generator itself was later than it may be.
pub(crate) fn late(report: &Report) -> Option<String> {
    let late = &report.generator_late;
    (late.p99_us > late.bound_us).then(|| {
        format!(
            "the generator was late by {:.0} us at p99; the bound is {:.0}",
            late.p99_us, late.bound_us
        )
    })
}

/// More than may be was given to other machines.
pub(crate) fn stolen(report: &Report) -> Option<String> {
    let bound = report.options.steal_bound;
    report.steal.filter(|steal| *steal > bound).map(|steal| {
        let (steal, bound) = (steal * 100.0, bound * 100.0);
        format!("{steal:.1} % of the CPU time was stolen by the hypervisor; the bound is {bound} %")
    })
}

fn behind(report: &Report) -> Option<String> {
    (report.achieved_rate < report.offered_rate * ACHIEVED_MIN).then(|| {
        format!(
            "{:.1} % of the offered rate was sent by the end of the window; the bound is {:.0} %",
            report.achieved_rate / report.offered_rate * 100.0,
            ACHIEVED_MIN * 100.0
        )
    })
}

/// If `count` is too large a share of everything that was answered. What fared badly once may do so in
/// several groups, and still counts once.
fn doubtful(report: &Report, what: &str, count: u64) -> Option<String> {
    let (sent, share) = (answered(report), DOUBT_MAX);
    (count as f64 > sent as f64 * share)
        .then(|| format!("{count} of {sent} records {what}; the bound is {:.0} %", share * 100.0))
}

/// Records of the whole run whose fate was told.
fn answered(report: &Report) -> u64 {
    let shed = report.dropped + report.sampled_out;
    report.checked_records.max(report.acked_records) + shed + report.refused + report.unknown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::target::memory::Memory;
    use crate::{LoadOptions, Rate, Stop, WarmUpRule, run_on};

    /// 100 records that all fared well.
    fn sound() -> Report {
        let options = LoadOptions {
            rate: Rate::PerSecond(1_000.0),
            duration: Duration::from_millis(100),
            warmup: WarmUpRule::Fixed(Duration::ZERO),
            ..LoadOptions::default()
        };
        let report = run_on(Memory::with_faults(&[]), options, &mut (), &Stop::new()).unwrap();
        assert_eq!((report.acked_records, report.checked_records), (100, 100), "{report}");
        // The machine of the tests may be busy.
        Report { steal: None, generator_late: Default::default(), ..report }
    }

    #[test]
    fn every_doubt_has_its_reason() {
        type Change = fn(&mut Report);
        let table: [(Change, Option<&str>); 13] = [
            (|_| (), None),
            // 1 of 101 and more is over the bound, 1 of 100 is not.
            (|r| r.trimmed = 1, None),
            (|r| r.trimmed = 2, Some("retention")),
            (|r| r.unknown = 1, None),
            (|r| r.unknown = 2, Some("unknown fate")),
            (|r| r.refused = 2, Some("2 of 102 records were refused")),
            (|r| r.unread = 1, Some("did not reach 1 ")),
            (|r| r.steal = Some(0.021), Some("stolen")),
            (|r| r.achieved_rate = r.offered_rate * 0.98, Some("98.0 % of the offered rate")),
            (|r| r.generator_late.p99_us = 1.0, Some("late by 1 us")),
            (|r| r.duration_s = 0.0, Some("before the measured window")),
            (|r| r.acked_records = 0, Some("nothing due")),
            (|r| r.ended_early = Some("it hung".into()), Some("ended early: it hung")),
        ];
        let sound = sound();
        for (change, expected) in table {
            let mut report = Report { achieved_rate: sound.offered_rate, ..sound.clone() };
            change(&mut report);
            let told = reason(&report);
            match expected {
                None => assert_eq!(told, None),
                Some(part) => assert!(told.as_ref().is_some_and(|t| t.contains(part)), "{told:?}"),
            }
        }
    }
}
