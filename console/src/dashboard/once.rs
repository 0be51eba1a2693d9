//! One measurement as text or JSON, a JSON line per sample, and the line a second of a demo without a terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use highwater_wire::telemetry::Snapshot;
use serde::Serialize;

use super::figures::{self, CoreFigures, Figures, Filters, Flow, GroupFigures, Tail};
use super::model::{Model, Outlook, Picture};
use super::watch::{self, Notice};
use crate::human;

/// `top --once --json`, and each line of `top --jsonl`. The names are stable; more may come.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// The server's clock, nanoseconds since 1970 UTC.
    at_ns: u64,
    /// Whether no rule of Watch fires but those that are just good to know.
    healthy: bool,
    /// False on a volatile file system.
    durable: bool,
    tps_in: f64,
    tps_out: f64,
    bytes_in_per_s: f64,
    bytes_out_per_s: f64,
    propagation_us: Micros,
    durable_write_us: Micros,
    append_us: Micros,
    stages_us: StagesUs,
    groups: Vec<Group>,
    /// By stream, where there are any.
    filters: Vec<Filter>,
    /// CPU time of the filter threads over the time: 1 for each that is busy.
    filter_busy: f64,
    cores: Vec<Core>,
    /// Largest over mean of the shards' rates, for the stream where it is largest; null without two shards.
    skew: Option<f64>,
    /// By error code.
    refused_per_s: BTreeMap<String, f64>,
    watch: Vec<Said>,
    server_restarts: u32,
    samples_missed: u64,
    /// CPU time that snapshots cost the server, microseconds a second.
    snapshot_cost_us: f64,
    /// What the rates and tails are over.
    span_s: f64,
    /// From the copying of the figures by the server to their arrival here, by the clocks of both.
    sample_age_s: f64,
}

#[derive(Debug, Serialize)]
struct Micros {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct StagesUs {
    queue: Micros,
    write: Micros,
    ack: Micros,
    deliver: Micros,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    stream: String,
    backlog_records: u64,
    backlog_bytes: u64,
    backlog_seconds: f64,
    arrival_per_s: f64,
    read_per_s: f64,
    growth_per_s: f64,
    /// `keeps-up`, `drains`, `holds` or `grows`.
    outlook: &'static str,
    /// When it drains: in how long it is empty.
    empty_in_s: Option<f64>,
    /// When retention will pass it: in how long.
    loss_in_s: Option<f64>,
    lost_records: u64,
}

/// What filters did with a stream's records, for all its readers together.
#[derive(Debug, Serialize)]
struct Filter {
    stream: String,
    looked_per_s: f64,
    matched_per_s: f64,
    left_out_per_s: f64,
    /// Since the server started.
    looked_records: u64,
    matched_records: u64,
}

#[derive(Debug, Serialize)]
struct Core {
    core: u32,
    busy: f64,
    connections: u32,
    ring_in_flight: u32,
    groups_in_flight: u32,
    group_bytes_p50: u64,
    durable_write_us: Micros,
    turn_us: Micros,
    buffer_used: u64,
    buffer_capacity: u64,
    refused_per_s: f64,
}

/// A rule that fires.
#[derive(Debug, Serialize)]
struct Said {
    rule: &'static str,
    level: &'static str,
    text: String,
}

impl From<Tail> for Micros {
    fn from(tail: Tail) -> Micros {
        let us = |ns| ns as f64 / 1e3;
        Micros {
            count: tail.count,
            p50: us(tail.p50),
            p99: us(tail.p99),
            p999: us(tail.p999),
            max: us(tail.max),
        }
    }
}

impl From<Notice> for Said {
    fn from(notice: Notice) -> Said {
        Said { rule: notice.rule, level: notice.level.name(), text: notice.text }
    }
}

impl Measurement {
    /// Of `figures`, which came `age` after they were taken and made `picture` what it is.
    pub fn new(figures: &Figures, picture: &Picture, age: Duration) -> Measurement {
        let notices = watch::notices(picture);
        Measurement {
            at_ns: figures.at_ns,
            healthy: watch::healthy(&notices),
            durable: picture.about.durable,
            tps_in: figures.into.records,
            tps_out: figures.out.records,
            bytes_in_per_s: figures.into.bytes,
            bytes_out_per_s: figures.out.bytes,
            propagation_us: figures.propagation.into(),
            durable_write_us: figures.write.into(),
            append_us: figures.append.into(),
            stages_us: StagesUs {
                queue: figures.stages.queue.into(),
                write: figures.stages.write.into(),
                ack: figures.stages.ack.into(),
                deliver: figures.stages.deliver.into(),
            },
            groups: figures.groups.iter().map(|group| Group::new(group, picture)).collect(),
            filters: figures::filters(&figures.shards).into_iter().map(Filter::from).collect(),
            filter_busy: figures.filter_busy,
            cores: figures.cores.iter().map(Core::from).collect(),
            skew: figures::skew(&figures.shards),
            refused_per_s: figures
                .refusals
                .iter()
                .map(|(code, rate)| (format!("{code:?}"), *rate))
                .collect(),
            watch: notices.into_iter().map(Said::from).collect(),
            server_restarts: picture.restarts,
            samples_missed: picture.missed,
            snapshot_cost_us: figures.snapshot_cost_us,
            span_s: figures.span.as_secs_f64(),
            sample_age_s: age.as_secs_f64(),
        }
    }

    /// Whether nothing is wrong; the exit code of `--once` says the same.
    pub fn healthy(&self) -> bool {
        self.healthy
    }
}

impl Group {
    fn new(group: &GroupFigures, picture: &Picture) -> Group {
        let (outlook, empty_in_s) = match picture.outlook(group) {
            Outlook::KeepsUp => ("keeps-up", None),
            Outlook::Drains(after) => ("drains", Some(after.as_secs_f64())),
            Outlook::Holds => ("holds", None),
            Outlook::Grows => ("grows", None),
        };
        Group {
            name: group.group.clone(),
            stream: group.stream.clone(),
            backlog_records: group.records,
            backlog_bytes: group.bytes,
            backlog_seconds: group.age.as_secs_f64(),
            arrival_per_s: group.arrival,
            read_per_s: group.read,
            growth_per_s: picture.growth(group),
            outlook,
            empty_in_s,
            loss_in_s: group.loss.map(|loss| loss.after.as_secs_f64()),
            lost_records: group.lost,
        }
    }
}

impl From<(&str, Filters)> for Filter {
    fn from((stream, filters): (&str, Filters)) -> Filter {
        Filter {
            stream: stream.to_owned(),
            looked_per_s: filters.looked,
            matched_per_s: filters.matched,
            left_out_per_s: filters.left_out(),
            looked_records: filters.looked_records,
            matched_records: filters.matched_records,
        }
    }
}

impl From<&CoreFigures> for Core {
    fn from(core: &CoreFigures) -> Core {
        Core {
            core: core.core,
            busy: core.busy,
            connections: core.connections,
            ring_in_flight: core.ring_in_flight,
            groups_in_flight: core.groups_in_flight,
            group_bytes_p50: core.group_bytes.p50,
            durable_write_us: core.write.into(),
            turn_us: core.turn.into(),
            buffer_used: core.buffer_used,
            buffer_capacity: core.buffer_capacity,
            refused_per_s: core.refused,
        }
    }
}

/// The sample that `model` took in last, received at `received_ns` (nanoseconds since 1970 UTC, by the receiver's
/// clock); `None` before there are figures.
pub fn sample(model: &Model, received_ns: u64) -> Option<Measurement> {
    let picture = model.picture();
    let taken_ns = model.snapshot()?.taken_ns;
    // A server whose clock is ahead of ours counts as no age.
    let age = Duration::from_nanos(received_ns.saturating_sub(taken_ns));
    Some(Measurement::new(picture.figures.as_ref()?, picture, age))
}

/// Gathers samples until they span a time: `--once`.
#[derive(Debug)]
pub struct Gather {
    span: Duration,
    model: Model,
    first: Option<Box<Snapshot>>,
}

impl Gather {
    /// For figures over `span` at least.
    pub fn new(span: Duration) -> Gather {
        Gather { span, model: Model::new(), first: None }
    }

    /// Takes in a sample; the figures once there are enough. A restart of the server begins anew.
    pub fn take(&mut self, snapshot: Box<Snapshot>) -> Option<Figures> {
        let figures = self.first.as_ref().and_then(|first| figures::between(first, &snapshot));
        let same = self.first.as_ref().is_some_and(|first| first.started_ns == snapshot.started_ns);
        if !same {
            self.first = Some(snapshot.clone());
        }
        self.model.take(snapshot);
        figures.filter(|figures| figures.span >= self.span)
    }

    /// What the samples made.
    pub fn picture(&self) -> &Picture {
        self.model.picture()
    }
}

/// `figures` as text, and what Watch says of `picture`.
pub fn write_text(
    figures: &Figures,
    picture: &Picture,
    age: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    let flow =
        |f: Flow| format!("{} records/s  {}/s", human::count(f.records), human::bytes(f.bytes));
    writeln!(out, "TPS in       {}", flow(figures.into))?;
    writeln!(out, "TPS out      {}", flow(figures.out))?;
    writeln!(out, "propagation  {}", tail(figures.propagation))?;
    writeln!(out, "  queue      {}", tail(figures.stages.queue))?;
    writeln!(out, "  write      {}", tail(figures.stages.write))?;
    writeln!(out, "  ack        {}", tail(figures.stages.ack))?;
    writeln!(out, "  deliver    {}", tail(figures.stages.deliver))?;
    for core in &figures.cores {
        writeln!(
            out,
            "core {:<7} {:.0} % busy  {} in flight  write {}",
            core.core,
            core.busy * 100.0,
            core.ring_in_flight,
            tail(core.write)
        )?;
    }
    for group in &figures.groups {
        let outlook = match picture.outlook(group) {
            Outlook::KeepsUp => "keeps up".to_owned(),
            Outlook::Drains(after) => format!("empty in {}", human::duration(after)),
            Outlook::Holds => "holds".to_owned(),
            Outlook::Grows => "never empty: it grows".to_owned(),
        };
        writeln!(
            out,
            "backlog      {} on {}: {} records  {}  {}  {outlook}",
            group.group,
            group.stream,
            human::grouped(group.records),
            human::bytes(group.bytes as f64),
            human::nanos(u64::try_from(group.age.as_nanos()).unwrap_or(u64::MAX))
        )?;
    }
    for (stream, filters) in figures::filters(&figures.shards) {
        let words = filters.words().map_or("nothing looked at".to_owned(), |words| words.concat());
        writeln!(out, "filters      {stream}: {words}")?;
    }
    for Notice { rule, level, text } in watch::notices(picture) {
        writeln!(out, "{:<12} {text}  [{rule}]", level.mark())?;
    }
    let (span, age) = (figures.span.as_secs_f64(), age.as_secs_f64());
    let cost = figures.snapshot_cost_us;
    writeln!(out, "over {span:.2} s, {age:.2} s old; snapshots cost the server {cost:.0} us/s")
}

/// `p50 … p99 … p99.9 … max …`, or a dash when nothing was counted.
pub fn tail(tail: Tail) -> String {
    if tail.count == 0 {
        return "-".to_owned();
    }
    format!(
        "p50 {}  p99 {}  p99.9 {}  max {}",
        human::nanos(tail.p50),
        human::nanos(tail.p99),
        human::nanos(tail.p999),
        human::nanos(tail.max)
    )
}

/// The last sample in one line of a narrow terminal; `None` before there is one.
pub fn line(picture: &Picture) -> Option<String> {
    let figures = picture.figures.as_ref()?;
    let backlog = figures.groups.iter().map(|g| g.records).sum::<u64>();
    let age = figures.groups.iter().map(|g| g.age).max().unwrap_or_default();
    let behind = match backlog {
        0 => "none".to_owned(),
        _ => format!("{}, {}", human::count(backlog as f64), human::nanos(age.as_nanos() as u64)),
    };
    Some(format!(
        "{}  in {}/s  out {}/s  propagation p99 {}  backlog {behind}",
        human::clock(figures.at_ns),
        human::count(figures.into.records),
        human::count(figures.out.records),
        figures.propagation.time(|t| t.p99),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::fixture;

    /// The figures over two seconds, and the picture they are of.
    fn gathered() -> (Figures, Gather) {
        let mut gather = Gather::new(Duration::from_secs(2));
        assert_eq!(gather.take(Box::new(fixture::snapshot(10))), None);
        assert_eq!(gather.take(Box::new(fixture::snapshot(11))), None);
        let figures = gather.take(Box::new(fixture::snapshot(12))).unwrap();
        (figures, gather)
    }

    #[test]
    fn json_and_text_say_the_same() {
        let (figures, gather) = gathered();
        let picture = gather.picture();
        let age = Duration::from_millis(300);
        let measurement = Measurement::new(&figures, picture, age);
        assert!(!measurement.healthy());
        let json = serde_json::to_value(&measurement).unwrap();
        assert_eq!((&json["durable"], &json["healthy"]), (&true.into(), &false.into()));
        assert_eq!(json["tps_in"], 20_000.0);
        assert_eq!(json["bytes_out_per_s"], 40_000.0 * 512.0);
        assert_eq!(json["propagation_us"]["p99"], 3_900.0);
        assert_eq!(json["stages_us"]["queue"]["p50"], 80.0);
        assert_eq!(json["groups"][0]["name"], "audit");
        assert_eq!(json["groups"][0]["backlog_records"], 12_001);
        assert_eq!(json["groups"][0]["backlog_seconds"], 14.4);
        assert_eq!(json["groups"][0]["outlook"], "grows");
        assert_eq!(json["groups"][1]["empty_in_s"], serde_json::Value::Null);
        assert_eq!(json["cores"][1]["busy"], 0.41);
        assert_eq!(json["watch"][0]["rule"], "backlog-grows");
        assert_eq!((&json["sample_age_s"], &json["span_s"]), (&0.3.into(), &2.0.into()));
        assert_eq!(json["snapshot_cost_us"], 200.0);
        let mut text = Vec::new();
        write_text(&figures, picture, age, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("DURABLE"), "{text}");
        assert!(text.contains("TPS in       20.0k records/s  10.2 MB/s"), "{text}");
        assert!(text.contains("audit on orders: 12,001 records"), "{text}");
        assert!(text.contains("never empty: it grows"), "{text}");
        assert!(text.contains("!!           backlog of audit grows"), "{text}");
    }

    /// How long a group is behind was in seconds, to the thousandth, however many there were.
    #[test]
    fn text_has_times_for_people_and_what_filters_leave_out() {
        let mut gather = Gather::new(Duration::from_secs(2));
        let filtered = |at: u64| {
            let mut snapshot = fixture::snapshot(at);
            (snapshot.shards[0].filter_looked, snapshot.shards[0].filter_matched) =
                (at * 1_000, at * 10);
            snapshot.groups[1].backlog_ns = 80_000_000_000;
            Box::new(snapshot)
        };
        assert_eq!(gather.take(filtered(1)), None);
        assert_eq!(gather.take(filtered(2)), None);
        let figures = gather.take(filtered(3)).unwrap();
        let age = Duration::from_millis(300);
        let mut text = Vec::new();
        write_text(&figures, gather.picture(), age, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("1m20s  "), "{text}");
        let filters =
            "filters      orders: 1.00k/s looked at, 990/s left out, 10/s matched (1.0 %)";
        assert!(text.contains(filters), "{text}");
        let json = Measurement::new(&figures, gather.picture(), age);
        let json = serde_json::to_value(json).unwrap();
        let filters = &json["filters"][0];
        assert_eq!(
            (&filters["stream"], &filters["left_out_per_s"]),
            (&"orders".into(), &990.0.into())
        );
        assert_eq!(
            (&filters["looked_records"], &json["filter_busy"]),
            (&3_000.into(), &0.0.into())
        );
    }

    #[test]
    fn the_names_that_scripts_rely_on() {
        let (figures, gather) = gathered();
        let json =
            serde_json::to_value(Measurement::new(&figures, gather.picture(), Duration::ZERO));
        let json = json.unwrap();
        let paths = "tps_in tps_out bytes_in_per_s bytes_out_per_s propagation_us/p50 propagation_us/p99 \
                     propagation_us/p999 propagation_us/max groups/0/name groups/0/backlog_records \
                     groups/0/backlog_bytes groups/0/backlog_seconds watch sample_age_s";
        for path in paths.split_whitespace() {
            assert!(json.pointer(&format!("/{path}")).is_some(), "{path}");
        }
    }

    #[test]
    fn a_restart_begins_anew() {
        let (_, mut gather) = gathered();
        let restarted = |at| {
            let mut snapshot = fixture::snapshot(at);
            snapshot.started_ns += 1;
            Box::new(snapshot)
        };
        assert_eq!(gather.take(restarted(1)), None);
        assert_eq!(gather.take(restarted(2)), None);
        assert_eq!(gather.take(restarted(3)).unwrap().span, Duration::from_secs(2));
    }

    #[test]
    fn a_sample_is_as_old_as_its_way_was_long() {
        let mut model = Model::new();
        model.take(Box::new(fixture::snapshot(1)));
        assert!(sample(&model, u64::MAX).is_none());
        model.take(Box::new(fixture::snapshot(2)));
        let received = fixture::STARTED + 2_250_000_000;
        let json = serde_json::to_value(sample(&model, received).unwrap()).unwrap();
        assert_eq!((&json["sample_age_s"], &json["tps_in"]), (&0.25.into(), &20_000.0.into()));
        let json = serde_json::to_value(sample(&model, 0).unwrap()).unwrap();
        assert_eq!(json["sample_age_s"], 0.0);
    }

    #[test]
    fn the_last_line_is_short() {
        let mut model = Model::new();
        model.take(Box::new(fixture::snapshot(1)));
        assert_eq!(line(model.picture()), None);
        model.take(Box::new(fixture::snapshot(2)));
        let line = line(model.picture()).unwrap();
        let (_, line) = line.split_once("  ").unwrap();
        assert_eq!(line, "in 20.0k/s  out 40.0k/s  propagation p99 3.90 ms  backlog 2.01k, 2.40 s");
    }
}
