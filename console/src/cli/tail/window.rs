//! `--window` and what belongs to it: counts of records by span of time instead of the records.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use highwater_client::Delivery;
use highwater_process::window::{
    Counts, DEFAULT_MEMORY, Kind, Outcome, Query, QueryError, Row, Spec, Watermark, Windows,
};
use highwater_process::{EvalError, Record};
use highwater_wire::{RecordView, StreamDescription};
use serde_json::{Map, Value, json};

use super::settled::Settled;
use crate::failure::Failure;
use crate::human::{counted, grouped, rfc3339};
use crate::units;

/// Windows.
#[derive(Debug, Args)]
pub struct WindowArgs {
    /// Print what came within spans of this length instead of the records
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    window: Option<Duration>,
    /// A window ends this often: windows overlap [default: the length of a window]
    #[arg(long, value_name = "TIME", value_parser = units::duration, requires = "window")]
    every: Option<Duration>,
    /// Windows by key that last until nothing came for so long
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with = "window")]
    session: Option<Duration>,
    /// What to find out, like 'max(json.temp), p99(json.ms) by json.deviceid': count(), rate(), sum(E), min(E), max(E),
    /// mean(E), p50(E), distinct(E), top(E, N) [default: count()]
    #[arg(long, value_name = "EXPR")]
    agg: Option<String>,
    /// By what: a window for each value of this CEL expression
    #[arg(long, value_name = "EXPR")]
    by: Option<String>,
    /// Where a record has its time: a CEL expression for a time, RFC 3339 or seconds since 1970, like json.time
    /// [default: its arrival at the server]
    #[arg(long, value_name = "EXPR")]
    time: Option<String>,
    /// A window stays open for so long after its end, for records out of order
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration)]
    lateness: Duration,
    /// Print only where the first aggregate is at least this
    #[arg(long, value_name = "NUMBER")]
    at_least: Option<f64>,
    /// Memory for keys and aggregates; what would need more is dropped and counted
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = units::size)]
    window_memory: u64,
}

/// When records are waited for with arrival for a time, a window stays open for so long after its end: they are on
/// their way.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// A shard of which nothing has come for so long has nothing to give at the moment.
const SILENT: Duration = Duration::from_secs(2);

/// How often windows are looked at while nothing comes.
pub const LOOK: Duration = Duration::from_millis(100);

impl WindowArgs {
    /// What is to be counted, if anything.
    pub fn plan(&self) -> Result<Option<Counting>, Failure> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            Err(Failure::Usage(format!("{what}: {error}")))
        };
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let kind = match (self.window, self.session) {
            (Some(size), _) => {
                Kind::Fixed { size: ns(size), every: ns(self.every.unwrap_or(size)) }
            }
            (None, Some(gap)) => Kind::Session { gap: ns(gap) },
            (None, None) => {
                let given = [
                    ("--agg", self.agg.is_some()),
                    ("--by", self.by.is_some()),
                    ("--time", self.time.is_some()),
                    ("--at-least", self.at_least.is_some()),
                ];
                return match given.iter().find(|(_, given)| *given) {
                    Some((flag, _)) => wrong(flag, &"needs --window or --session"),
                    None => Ok(None),
                };
            }
        };
        let agg = self.agg.as_deref().unwrap_or_default();
        let query = match Query::parse(agg, self.by.as_deref(), self.time.as_deref()) {
            Ok(query) => query,
            Err(QueryError::Expression { text, error }) => {
                let is = |given: &Option<String>| given.as_deref() == Some(text.as_str());
                let flag = match () {
                    () if is(&self.by) => "--by",
                    () if is(&self.time) => "--time",
                    () => "--agg",
                };
                return Err(super::filter::wrong(flag, &text, &error));
            }
            Err(error) => return wrong("--agg", &error),
        };
        let spec = match Spec::new(kind, query.aggregates()) {
            Ok(spec) => spec,
            Err(error) => return wrong("--window", &error),
        };
        let memory = usize::try_from(self.window_memory).unwrap_or(DEFAULT_MEMORY);
        Ok(Some(Counting {
            windows: Windows::new(spec.with_memory(memory)),
            watermark: Watermark::new(ns(self.lateness)),
            query,
            at_least: self.at_least,
            shards: BTreeMap::new(),
            server_ahead_ns: 0,
            rows: Vec::new(),
            undecided: BTreeMap::new(),
            told: false,
        }))
    }
}

/// Windows being filled from a stream.
pub struct Counting {
    query: Query,
    windows: Windows,
    watermark: Watermark,
    at_least: Option<f64>,
    shards: BTreeMap<u32, Shard>,
    /// The server's clock minus ours.
    server_ahead_ns: i128,
    rows: Vec<Row>,
    /// Records and aggregates of which nothing could be said.
    undecided: BTreeMap<EvalError, u64>,
    /// That records are dropped was said.
    told: bool,
}

/// How far a shard is.
struct Shard {
    /// Latest time seen there.
    at_ns: u64,
    settled: Settled,
    last: std::time::Instant,
    /// Those that go on where it ends.
    children: Vec<u32>,
    empty: bool,
}

impl Counting {
    /// These shards are read; `wanted` is the only one, if there is one.
    pub fn expect(&mut self, stream: &StreamDescription, wanted: Option<u32>) {
        let now = std::time::Instant::now();
        for shard in stream.shards.iter().filter(|s| wanted.is_none_or(|w| w == s.shard)) {
            let children = if wanted.is_some() { &[][..] } else { &shard.children };
            let empty = shard.oldest >= shard.high_water;
            let known = |parent: &u32| stream.shards.iter().any(|s| s.shard == *parent);
            // Those that follow others are waited for when those are at their end.
            if wanted.is_some() || !shard.parents.iter().any(known) {
                self.watermark.expect(shard.shard);
                self.watermark.caught_up(shard.shard, empty && !shard.closed);
            }
            let children = children.to_vec();
            self.shards.insert(
                shard.shard,
                Shard { at_ns: 0, settled: Settled::default(), last: now, children, empty },
            );
        }
    }

    /// A record of `shard`.
    pub fn observe(&mut self, shard: u32, record: &RecordView<'_>, arrival_ns: u64) {
        match self.query.samples(&Record::new(*record, arrival_ns, self.query.wanted())) {
            Ok(samples) => {
                let at_ns = samples.at_ns.unwrap_or(arrival_ns);
                self.watermark.saw(shard, at_ns);
                if let Some(state) = self.shards.get_mut(&shard) {
                    state.at_ns = state.at_ns.max(at_ns);
                    state.settled.read(record.sequence + 1, at_ns);
                }
                self.windows.observe(at_ns, samples.key.as_deref(), &samples.samples);
                for error in samples.errors {
                    *self.undecided.entry(error).or_default() += 1;
                }
            }
            Err(error) => *self.undecided.entry(error).or_default() += 1,
        }
    }

    /// Everything of `shard` below the sequence number `next` was observed, or is of no interest.
    pub fn read(&mut self, shard: u32, next: u64) {
        if let Some(state) = self.shards.get_mut(&shard) {
            state.settled.read(next, 0);
        }
    }

    /// By shard, where it has to be read from again if what is not printed yet is not to be lost; those that got on.
    pub fn settled(&mut self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let open_ns = self.windows.oldest_ns();
        let shards = self.shards.iter_mut();
        shards.filter_map(move |(shard, state)| Some((*shard, state.settled.settled(open_ns)?)))
    }

    /// All of a delivery was observed, or passed over.
    pub fn delivered(&mut self, shard: u32, delivery: &Delivery) {
        if delivery.sent_ns > 0 {
            self.server_ahead_ns = i128::from(delivery.sent_ns) - i128::from(local_ns());
        }
        let caught_up = delivery.next >= delivery.high_water;
        self.watermark.caught_up(shard, caught_up);
        let Some(state) = self.shards.get_mut(&shard) else { return };
        state.last = std::time::Instant::now();
        let (at_ns, children) =
            (state.at_ns, if caught_up { state.children.clone() } else { vec![] });
        for child in children {
            let empty = self.shards.get(&child).is_none_or(|child| child.empty);
            self.watermark.saw(child, at_ns);
            self.watermark.caught_up(child, empty);
        }
    }

    /// Nothing waits to be taken: shards that have been silent for a while have nothing to give.
    pub fn silent(&mut self) {
        for (shard, state) in &self.shards {
            if state.last.elapsed() > SILENT {
                self.watermark.caught_up(*shard, true);
            }
        }
    }

    /// Prints the windows that are over, at most `left` rows; how many.
    pub fn print(
        &mut self,
        left: u64,
        as_json: bool,
        out: &mut impl Write,
    ) -> Result<u64, Failure> {
        // Times of their own may come from any time: then only records say how far time has come.
        let now = i128::from(local_ns()) + self.server_ahead_ns - ON_THE_WAY.as_nanos() as i128;
        let now = (!self.query.timed()).then(|| u64::try_from(now).unwrap_or(0));
        let keyed = self.query.keyed();
        self.windows.advance(self.watermark.now(now), keyed, &mut self.rows);
        self.rows(left, as_json, out)
    }

    /// Nothing more comes: prints all windows.
    pub fn finish(
        &mut self,
        left: u64,
        as_json: bool,
        out: &mut impl Write,
    ) -> Result<u64, Failure> {
        self.windows.finish(self.query.keyed(), &mut self.rows);
        self.rows(left, as_json, out)
    }

    fn rows(&mut self, left: u64, as_json: bool, out: &mut impl Write) -> Result<u64, Failure> {
        if self.windows.counts().dropped > 0 && !std::mem::replace(&mut self.told, true) {
            note!(
                "windows: their memory is spent; records of new keys are dropped (see --window-memory)"
            );
        }
        let mut printed = 0;
        for row in self.rows.drain(..) {
            let enough = self.at_least.is_none_or(|least| size(&row.outcomes) >= least);
            if !enough || printed == left {
                continue;
            }
            printed += 1;
            if as_json {
                serde_json::to_writer(&mut *out, &in_json(&row, &self.query))?;
                out.write_all(b"\n")?;
            } else {
                writeln!(out, "{}", in_text(&row, &self.query))?;
            }
        }
        Ok(printed)
    }

    /// Says on stderr what was not counted.
    pub fn report(&self) {
        let Counts { counted: taken, late, dropped } = self.windows.counts();
        let undecided: u64 = self.undecided.values().sum();
        let mut parts = vec![format!("{} counted", counted(taken, "record"))];
        if late > 0 {
            parts.push(format!("{} too late for any window (see --lateness)", grouped(late)));
        }
        if dropped > 0 {
            parts.push(format!("{} dropped for lack of memory", grouped(dropped)));
        }
        if undecided > 0 {
            let reasons = self.undecided.iter().map(|(why, n)| format!("{why} {}", grouped(*n)));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            parts.push(format!("{} without a value: {reasons}", counted(undecided, "time")));
        }
        note!("windows: {}", parts.join("; "));
    }
}

/// Nanoseconds since 1970 UTC, by our own clock.
fn local_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The first aggregate as a number.
fn size(outcomes: &[Outcome]) -> f64 {
    match outcomes.first() {
        Some(Outcome::Count(n) | Outcome::About(n)) => *n as f64,
        Some(Outcome::Number(Some(number))) => *number,
        Some(Outcome::Top(top)) => top.values.first().map_or(0.0, |(_, n)| *n as f64),
        _ => f64::NEG_INFINITY,
    }
}

/// JSON text as a value; it was made from one.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

fn in_json(row: &Row, query: &Query) -> Value {
    let (mut values, mut estimated) = (Map::new(), Vec::new());
    for (label, outcome) in query.labels().zip(&row.outcomes) {
        let value = match outcome {
            Outcome::Count(n) => json!(n),
            Outcome::About(n) => {
                estimated.push(label);
                json!(n)
            }
            Outcome::Number(number) => json!(number),
            Outcome::Top(top) => {
                if top.over > 0 {
                    estimated.push(label);
                }
                let entry = |(v, n): &(String, u64)| json!({"value": parsed(v), "count": n});
                top.values.iter().map(entry).collect()
            }
        };
        values.insert(label.to_owned(), value);
    }
    let mut line = json!({
        "start": rfc3339(row.start_ns), "end": rfc3339(row.end_ns), "values": values,
    });
    if let Some(key) = &row.key {
        line["by"] = parsed(key);
    }
    if !estimated.is_empty() {
        line["estimated"] = json!(estimated);
    }
    line
}

fn in_text(row: &Row, query: &Query) -> String {
    let words = |text: &str| match parsed(text) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut line = format!("{}  {}", rfc3339(row.start_ns), rfc3339(row.end_ns));
    if let Some(key) = &row.key {
        line += &format!("  {}", words(key));
    }
    for (label, outcome) in query.labels().zip(&row.outcomes) {
        let value = match outcome {
            Outcome::Count(n) => n.to_string(),
            Outcome::About(n) => format!("~{n}"),
            Outcome::Number(None) => "-".to_owned(),
            Outcome::Number(Some(number)) => number.to_string(),
            Outcome::Top(top) => {
                let about = if top.over > 0 { "~" } else { "" };
                let values = top.values.iter().map(|(v, n)| format!("{} {about}{n}", words(v)));
                format!("[{}]", values.collect::<Vec<_>>().join(", "))
            }
        };
        line += &format!("  {label} {value}");
    }
    line
}
