//! What the exit code of a run says: records in doubt first, then the bounds asked for. A measurement that is not
//! valid matters only to those who set a bound.

use highwater_loadgen::Report;

use super::slo;
use crate::failure::Failure;
use crate::human;

/// Of a run that took place.
pub fn of(report: &Report) -> Result<(), Failure> {
    if !report.intact() {
        let mut what = format!(
            "lost {} duplicated {} reordered {} corrupted {}",
            report.lost, report.duplicated, report.reordered, report.corrupted
        );
        if report.refused_but_read > 0 {
            what += &format!(" refused but read {}", report.refused_but_read);
        }
        if report.shed_but_read > 0 {
            what += &format!(" dropped but read {}", report.shed_but_read);
        }
        return Err(Failure::Failed(what));
    }
    // Whoever cuts the drain short has decided not to wait for these.
    if report.unread > 0 && !report.interrupted {
        let unread = human::grouped(report.unread);
        let why = report.first_error.as_deref().filter(|_| report.read_errors > 0);
        let why = why.unwrap_or("they did not come before --drain-timeout");
        let what = format!("{unread} acknowledged records could not be read: {why}");
        return Err(Failure::Failed(what));
    }
    if !report.slo.is_empty()
        && let Some(reason) = &report.void_reason
    {
        return Err(Failure::Unmeasured(format!("not a valid measurement: {reason}")));
    }
    if let Some(why) = &report.ended_early {
        return Err(Failure::Failed(format!("the run ended before its time: {why}")));
    }
    if report.acked_records == 0 {
        let why = match &report.first_error {
            Some(error) => error,
            None if report.unsent > 0 => "the target or this generator is too slow for the rate",
            None => "the run was too short",
        };
        let what = format!("nothing that counts was acknowledged: {why}");
        return Err(match report.slo.is_empty() {
            true => Failure::Failed(what),
            false => Failure::Unmeasured(what),
        });
    }
    slo::check(report)
}
