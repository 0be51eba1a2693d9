//! The same load on Amazon Kinesis: how many shards, and what they would refuse.

use crate::capacity::answer::{Answer, Figure, Question, Unit, Verdict};
use crate::capacity::facts::Facts;
use crate::capacity::formula::{self, Kinesis};
use crate::capacity::recorded::Recorded;
use crate::report::figures::{percent, rate, whole};

/// How many shards is this, and what would they refuse?
pub fn equivalent(facts: &Facts<'_>) -> Answer {
    let question = Question::Kinesis;
    let Some((size, sized_by)) = facts.record_bytes() else {
        return Answer::not_measured(question, facts.commands.search());
    };
    let demand = facts.demand;
    let groups = f64::from(demand.groups);
    let of = |rate: f64| formula::kinesis(rate, rate * size, rate * size * groups);
    let (average, peak) = (of(demand.rate), of(demand.peak_rate()));
    let (shards, limit) = average.shards();
    let figure = |name: &str, load: &Kinesis, rate: f64| {
        Figure::new(name, load.shards().0, Unit::Count, formula::KINESIS)
            .from("records", rate, Unit::RecordsPerS, &demand.from)
            .from("bytes in", rate * size, Unit::BytesPerS, &sized_by)
            .from("bytes out", rate * size * groups, Unit::BytesPerS, &demand.from)
    };
    let refused = |name: String, load: &Kinesis, by: f64, count: f64, from: &str| {
        Figure::new(name, load.refused(by), Unit::Share, formula::KINESIS_REFUSED)
            .from("shards", by, Unit::Count, from)
            .from("records", count, Unit::RecordsPerS, &demand.from)
            .from("bytes in", count * size, Unit::BytesPerS, &sized_by)
    };
    let says = format!(
        "{} bound by {limit} ({} by records, {} by bytes in, {} by bytes out)",
        counted_shards(shards),
        whole(average.records.ceil() as u64),
        whole(average.ingest.ceil() as u64),
        whole(average.egress.ceil() as u64)
    );
    let mut answer = Answer::new(question, Verdict::Known, says).figure(figure(
        "shards of Kinesis for the average",
        &average,
        demand.rate,
    ));
    if demand.peak.is_some() {
        let top = demand.peak_rate();
        let share = peak.refused(shards);
        answer =
            answer.figure(figure("shards of Kinesis for the peak", &peak, top)).figure(refused(
                "refused at the peak by those for the average".to_owned(),
                &peak,
                shards,
                top,
                "as above",
            ));
        answer.says +=
            &format!("; sized for the average they refuse {} of the peak", percent(share));
    }
    if let Some((here, from)) = facts.shards() {
        let by = f64::from(here);
        answer = answer.figure(refused(
            format!("refused on average by {} of Kinesis, as many as here", counted_shards(by)),
            &average,
            by,
            demand.rate,
            &from,
        ));
    }
    let recording = facts.recording().filter(|_| demand.from.starts_with("recorded"));
    if let Some((from, share)) =
        recording.and_then(|(from, recorded)| Some((from, in_bursts(recorded, size, shards)?)))
    {
        answer = answer.note(format!(
            "Over the stretches of ten seconds in {from}, {} for the average would have refused {} of the records.",
            counted_shards(shards),
            percent(share)
        ));
    }
    if demand.groups > 2 {
        answer = answer.note(
            "More than two groups read more than a shard of Kinesis gives without enhanced fan-out, where each \
             consumer has 2 MB/s of its own.",
        );
    }
    answer
}

/// The share of all records that `shards` would have refused window by window: bursts count, where the mean hides them.
/// `size` is what a record counts in the mean; a recording has it with its framing. `None` if nothing came in.
fn in_bursts(recorded: &Recorded, size: f64, shards: f64) -> Option<f64> {
    let counts = size / recorded.batch_bytes_per_record()?;
    let (mut offered, mut over) = (0.0, 0.0);
    for window in recorded.windows.iter().filter(|window| window.records_in > 0.0) {
        let records = window.records_in * window.span_s;
        let load = formula::kinesis(window.records_in, window.bytes_in * counts, 0.0);
        offered += records;
        over += load.refused(shards) * records;
    }
    (offered > 0.0).then_some(over / offered)
}

fn counted_shards(shards: f64) -> String {
    if shards == 1.0 { "1 shard".to_owned() } else { format!("{} shards", rate(shards)) }
}
