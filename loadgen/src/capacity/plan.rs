//! A plan: everything that was measured, turned into an answer for each question. Pure.

use serde::Serialize;

use super::answer::{Answer, Verdict};
use super::demand::{Demand, DemandError};
use super::evidence::{Evidence, Range, Setup, Source, SourceKind};
use super::facts::{AVERAGE_FILL, Basis, Capacity, Facts};
use super::formula::{self, Formula};
use super::mixed::{Mixed, host, mixed};
use super::questions::{Scaling, answers, scaling};
use crate::compare::target_kind;
use crate::report::figures::{bytes, counted, percent, rate};
use crate::{Environment, Lint, Place, Severity};

/// Version of `plan.json`: fields may be added under the same name, none change meaning.
pub const PLAN_SCHEMA: &str = "highwater-plan/1";

/// An interval that spans more than this factor says little.
const ROUGH: f64 = 3.0;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Something asked for is out of range.
    #[error(transparent)]
    Demand(#[from] DemandError),
    /// There is nothing to plan from.
    #[error(
        "nothing to plan from: name the directory of a run, a search or a sweep, or a recording"
    )]
    Nothing,
    /// Figures of different machines or targets.
    #[error("these were not measured alike: {}", words(.mixed))]
    Mixed {
        /// In what.
        mixed: Vec<Mixed>,
    },
}

fn words(mixed: &[Mixed]) -> String {
    mixed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What the machine sustains.
#[derive(Clone, Debug, Serialize)]
pub struct Sustains {
    /// The source.
    pub from: String,
    /// `search`, `runs` or `recording`.
    pub basis: &'static str,
    /// What was to be met, in words.
    pub goals: String,
    /// What it holds for; absent for a recording.
    pub setup: Option<Setup>,
    /// What may be relied on, records per second.
    pub safe: f64,
    /// The estimate, records per second.
    pub estimate: Option<Range>,
    /// What is delivered when more is offered, records per second.
    pub overload: Option<Range>,
    /// Whether nothing gave out at the safe rate, nor above it: a bound from below.
    pub open: bool,
    /// Trials behind it.
    pub trials: Option<usize>,
    /// Trials that do not count.
    pub void: Option<usize>,
    /// Seconds for which the safe rate was kept up.
    pub soak_s: Option<f64>,
    /// Seconds for which it should have been.
    pub soak_wanted_s: Option<f64>,
    /// Whether it held.
    pub soak_held: Option<bool>,
    /// Whether the target is as before after an overload.
    pub recovers: Option<bool>,
    /// Percentiles and their bounds in microseconds.
    #[serde(skip)]
    pub bounds: Vec<(String, f64)>,
}

/// How far a plan can be relied on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trust {
    /// `good`, `fair` or `poor`.
    pub verdict: &'static str,
    /// Why, in sentences without a full stop.
    pub reasons: Vec<String>,
}

/// A load and the latency under it, for the chart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// Records due per second.
    pub offered: f64,
    /// Response p50, microseconds.
    pub p50_us: Option<f64>,
    /// Response p99.
    pub p99_us: Option<f64>,
}

/// A plan. `plan.json` is this.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// [`PLAN_SCHEMA`].
    pub schema: &'static str,
    /// Release that made it.
    pub version: &'static str,
    /// When it was made, nanoseconds since 1970 UTC.
    pub made_ns: u64,
    /// The command that repeats it, word by word.
    pub command: Vec<String>,
    /// What was asked.
    pub demand: Demand,
    /// What the machine sustains; absent if nothing says so.
    pub sustains: Option<Sustains>,
    /// An answer for each question, in order.
    pub answers: Vec<Answer>,
    /// How the rate grows with the shards.
    pub scaling: Option<Scaling>,
    /// Loads and latencies of the setup the plan is made with.
    pub seen: Vec<Seen>,
    /// What was assumed, in sentences.
    pub assumptions: Vec<String>,
    /// The formulas that were used.
    pub formulas: Vec<Formula>,
    /// How far it can be relied on.
    pub trust: Trust,
    /// In what the sources differ, if that was forced.
    pub mixed: Vec<Mixed>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
    /// What about the machines makes the figures worse, each once.
    pub lints: Vec<Lint>,
    /// What it was made from.
    pub sources: Vec<Source>,
}

/// How a plan is made.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Mix what was not measured alike.
    pub force: bool,
    /// The command that repeats it.
    pub command: Vec<String>,
    /// Now, nanoseconds since 1970 UTC.
    pub now_ns: u64,
}

/// Makes the plan of `demand` from `evidence`.
///
/// # Errors
/// When the demand is out of range, there is no evidence, or the evidence was not measured alike and that is not
/// forced. What is merely missing is an answer.
pub fn plan(
    evidence: &Evidence,
    demand: &Demand,
    options: &PlanOptions,
) -> Result<Plan, PlanError> {
    demand.validate()?;
    if evidence.sources.is_empty() {
        return Err(PlanError::Nothing);
    }
    let mixed = mixed(&evidence.sources);
    if !mixed.is_empty() && !options.force {
        return Err(PlanError::Mixed { mixed });
    }
    let facts = Facts::of(evidence, demand);
    let scaling = scaling(&facts);
    let answers = answers(&facts, scaling.as_ref());
    let lints = lints(&evidence.sources);
    Ok(Plan {
        schema: PLAN_SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        made_ns: options.now_ns,
        command: options.command.clone(),
        demand: demand.clone(),
        sustains: sustains(&facts),
        seen: seen(&facts),
        assumptions: assumptions(&facts, &answers),
        formulas: used(&answers),
        trust: trust(&facts, &mixed, &lints, &answers),
        answers,
        scaling,
        mixed,
        left_out: evidence.left_out.clone(),
        lints,
        sources: evidence.sources.clone(),
    })
}

fn sustains(facts: &Facts<'_>) -> Option<Sustains> {
    let capacity = facts.capacity.as_ref()?;
    let search = capacity.search.as_ref();
    Some(Sustains {
        from: capacity.from.clone(),
        basis: match capacity.basis {
            Basis::Search => "search",
            Basis::Runs => "runs",
            Basis::Recording => "recording",
        },
        goals: capacity.goals.clone(),
        setup: capacity.setup.clone(),
        safe: capacity.safe,
        estimate: capacity.estimate,
        overload: capacity.served.as_ref().map(|served| served.rate),
        open: search.is_some_and(|search| search.estimate.is_none()),
        trials: search.map(|search| search.trials).filter(|trials| *trials > 0),
        void: search.map(|search| search.void),
        soak_wanted_s: search.and_then(|search| search.wanted_s),
        soak_s: search.and_then(|search| search.soak).map(|(seconds, _)| seconds),
        soak_held: search.and_then(|search| search.soak).map(|(_, held)| held),
        recovers: search.and_then(|search| search.recovers),
        bounds: search.map(|search| search.bounds.clone()).unwrap_or_default(),
    })
}

fn seen(facts: &Facts<'_>) -> Vec<Seen> {
    let setup = facts.capacity.as_ref().and_then(|capacity| capacity.setup.as_ref());
    let alike = facts
        .evidence
        .points
        .iter()
        .filter(|point| setup.is_some_and(|setup| point.setup.same_but(setup, |_| ())));
    let mut seen: Vec<Seen> = alike
        .map(|point| Seen {
            offered: point.offered,
            p50_us: point.response_us[0],
            p99_us: point.response_us[1],
        })
        .collect();
    seen.sort_by(|a, b| a.offered.total_cmp(&b.offered));
    seen
}

fn used(answers: &[Answer]) -> Vec<Formula> {
    let figures = || answers.iter().flat_map(|answer| &answer.figures);
    let is_used = |formula: &&Formula| figures().any(|figure| figure.formula == formula.id);
    formula::ALL.iter().filter(is_used).copied().collect()
}

/// Each once, with the first source that has it, warnings first.
fn lints(sources: &[Source]) -> Vec<Lint> {
    let mut all: Vec<Lint> = Vec::new();
    for (source, lint) in sources.iter().flat_map(|s| s.lints.iter().map(move |lint| (s, lint))) {
        // Figures in the messages differ from run to run: the first has to do.
        if all.iter().all(|known| known.name != lint.name) {
            let message = format!("{} ({})", lint.message.trim_end_matches('.'), source.name);
            all.push(Lint { message, ..lint.clone() });
        }
    }
    all.sort_by_key(|lint| lint.severity == Severity::Info);
    all
}

fn trust(facts: &Facts<'_>, mixed: &[Mixed], lints: &[Lint], answers: &[Answer]) -> Trust {
    let evidence = facts.evidence;
    let (mut poor, mut fair, mut good) = (Vec::new(), Vec::new(), Vec::new());
    if !mixed.is_empty() {
        poor.push(format!(
            "sources differ in {}, and were mixed by --force",
            counted(mixed.len() as u64, "field")
        ));
    }
    let other = |s: &&Source| !s.schema.is_empty() && s.schema != s.kind.schema();
    for source in evidence.sources.iter().filter(other) {
        poor.push(format!(
            "{} is of schema {}, and read by --force as if it were {}",
            source.name,
            source.schema,
            source.kind.schema()
        ));
    }
    if evidence.sources.iter().any(|source| source.in_memory()) {
        poor.push("the data was kept in memory (tmpfs): durable means nothing there".to_owned());
    }
    if lints.iter().any(|lint| lint.name == "debug-build") {
        poor.push("a debug build was measured".to_owned());
    }
    if evidence.sources.iter().any(|s| s.target.starts_with("null")) {
        poor.push("a null target was measured: the rates are the generator's own".to_owned());
    }
    // What was recorded or probed is no load that could be void.
    let loads = || {
        let other = |kind| matches!(kind, SourceKind::Recording | SourceKind::Probe);
        evidence.sources.iter().filter(move |source| !other(source.kind))
    };
    let counted_all: usize = loads().map(|source| source.counted).sum();
    let void: usize = loads().map(|source| source.void.len()).sum();
    let search = facts.capacity.as_ref().and_then(|capacity| capacity.search.as_ref());
    if let Some(search) = search.filter(|search| search.void > search.trials) {
        let all = search.void + search.trials;
        poor.push(format!("{} of {all} trials of {} are void", search.void, search.from));
    }
    let words = format!("{void} of {} trials, points and runs void", counted_all + void);
    match void {
        0 => good.push("nothing void".to_owned()),
        void if void * 10 > counted_all + void => fair.push(words),
        _ => good.push(words),
    }
    if answers.iter().any(|answer| answer.caution.is_some()) {
        fair.push("a caution says what is not sure".to_owned());
    }
    let warnings = lints.iter().filter(|lint| lint.severity == Severity::Warning).count();
    match warnings {
        0 => good.push("no warning about the machine".to_owned()),
        n => fair.push(format!("{} about the machine", counted(n as u64, "warning"))),
    }
    let kinds = |kind| evidence.sources.iter().any(|source: &Source| source.kind == kind);
    if !kinds(SourceKind::Search) && !kinds(SourceKind::Sweep) {
        fair.push("no search: rates are bounds from below, without intervals".to_owned());
    }
    if facts.open.is_some() {
        fair.push("the search promises no rate".to_owned());
    }
    fair.extend(facts.capacity.as_ref().and_then(roughly));
    fair.extend(recorded_elsewhere(&evidence.sources));
    let verdict = match (poor.is_empty(), fair.is_empty()) {
        (false, _) => "poor",
        (true, false) => "fair",
        (true, true) => "good",
    };
    Trust { verdict, reasons: poor.into_iter().chain(fair).chain(good).collect() }
}

/// What a search found only roughly is safe far below what it may be.
fn roughly(capacity: &Capacity) -> Option<String> {
    let range = capacity.estimate.filter(|_| capacity.basis == Basis::Search)?;
    let (factor, found) = (range.high / range.low.max(1.0), rate(range.value));
    let words = match factor > ROUGH {
        true => format!("knows its {found} records/s to a factor of {} only", rate(factor)),
        false if capacity.safe < range.value / 2.0 => format!("found {found} records/s"),
        false => return None,
    };
    let safe = rate(capacity.safe);
    Some(format!("the search {words}, and promises {safe}: a longer one says more"))
}

/// A recording may well be of production, for its demand; what else it says is of another server then.
fn recorded_elsewhere(sources: &[Source]) -> Option<String> {
    let server = |s: &&Source| s.environment.is_some() && target_kind(&s.target) == "server";
    let loaded = sources.iter().filter(|s| s.kind != SourceKind::Probe).find(server)?;
    let recorded = sources.iter().find(|s| {
        let known = s.kind == SourceKind::Recording && !s.target.is_empty();
        known && host(&s.target) != host(&loaded.target)
    })?;
    Some(format!(
        "{} is of the server on {}, {} of that on {}",
        recorded.name,
        host(&recorded.target),
        loaded.name,
        host(&loaded.target)
    ))
}

/// What holds for the figures that were given, in sentences.
fn assumptions(facts: &Facts<'_>, answers: &[Answer]) -> Vec<String> {
    let demand = facts.demand;
    let mut all = vec![format!(
        "Average {} records/s ({}), {}; all rates are totals over producers and shards.",
        rate(demand.rate),
        demand.from,
        counted(u64::from(demand.groups), "consumer group")
    )];
    if let Some((size, from)) = facts.record_bytes() {
        all.push(format!(
            "Records of {} in the mean ({from}): {}/s on average.",
            bytes(size),
            bytes(size * demand.rate)
        ));
    }
    all.push(format!(
        "An average may fill {} of the safe rate, a peak all of it.",
        percent(AVERAGE_FILL)
    ));
    let uses = |id: &str| answers.iter().flat_map(|a| &a.figures).any(|f| f.formula == id);
    if let Some(capacity) = &facts.capacity {
        let skew = capacity.setup.as_ref().map_or(0.0, |setup| setup.skew);
        match demand.skew {
            Some(asked) => all.push(format!("Keys as uneven as {asked:.2} (busiest shard over the mean).")),
            None if skew > 0.0 => all.push(format!(
                "Keys as even as those measured: busiest shard over the mean {skew:.2}. Give yours with --skew."
            )),
            None => {}
        }
        if let Some(setup) = &capacity.setup {
            all.push(format!(
                "Producers batch as those measured did: up to {}, {} us, {}.",
                bytes(setup.batch_bytes as f64),
                rate(setup.linger_us),
                counted(setup.producers as u64, "producer")
            ));
        }
    }
    if uses(formula::PEAK_BACKLOG.id) {
        all.push("Producers hold what is not acknowledged for as long as a peak takes, and send it in order.".to_owned());
    }
    if uses(formula::CATCH_UP.id) {
        all.push(
            "Arrivals go on at the average during the outage and after it; one group is away, and reads as fast as it did \
             when measured."
                .to_owned(),
        );
    }
    let sources = || facts.evidence.sources.iter().filter(|source| source.load.is_some());
    let durable =
        facts.capacity.as_ref().and_then(|c| c.setup.as_ref()).is_some_and(|s| s.ack == "durable");
    if durable && sources().all(|source| source.data_dir().is_none()) {
        all.push(
            "Where the server keeps its data it did not tell: durable is what it says it is."
                .to_owned(),
        );
    }
    if uses(formula::RETENTION.id) {
        all.push(
            "Files fill 80 % of the disk; one segment of 256 MiB more per shard; one copy (there is no replication)."
                .to_owned(),
        );
    }
    if let Some(rate_offered) = facts.commands.capped() {
        all.push(format!(
            "What is left to run offers {} records/s: {} would be overload.",
            rate(rate_offered),
            rate(demand.rate)
        ));
    }
    if let Some((from, false)) = facts.disk_bytes().map(|(_, from, measured)| (from, measured)) {
        all.push(format!(
            "A record adds 16 bytes and a key of about 12 on disk ({from}); not measured."
        ));
    }
    all
}

/// A machine in a line: `2 CPUs, AMD EPYC, linux 6.18, KVM`.
fn machine_line(e: &Environment) -> String {
    let mut words = vec![counted(e.cpus as u64, "CPU")];
    words.extend(e.cpu_model.clone());
    words.extend((!e.kernel.is_empty()).then(|| e.kernel.clone()));
    words.extend(e.virtualisation.as_deref().map(|kind| match kind {
        "unknown" => "virtual".to_owned(),
        kind => format!("virtual ({kind})"),
    }));
    words.join(", ")
}

impl Source {
    /// Where the engine kept its data, as far as whoever measured knows.
    fn data_dir(&self) -> Option<&Place> {
        self.environment.as_ref()?.data_dir.as_ref()
    }

    /// Whether it kept them in memory.
    fn in_memory(&self) -> bool {
        let kind = self.data_dir().and_then(|place| place.file_system.as_deref());
        self.kind != SourceKind::Probe && matches!(kind, Some("tmpfs" | "ramfs"))
    }
}

impl Plan {
    /// The machine that measured, of the first source that knows it: unless they were mixed by force, all are alike.
    pub(super) fn machine(&self) -> Option<(&Source, &Environment)> {
        self.sources.iter().find_map(|source| Some((source, source.environment.as_ref()?)))
    }

    /// The same in words. Of a server on another host only the generator's machine is known.
    pub(super) fn machine_words(&self) -> Option<String> {
        let (source, environment) = self.machine()?;
        let elsewhere = target_kind(&source.target) == "server"
            && source.kind != SourceKind::Probe
            && host(&source.target) != "127.0.0.1";
        let line = machine_line(environment);
        Some(match elsewhere {
            true => format!("{line} (the generator's; the server is on {})", host(&source.target)),
            false => line,
        })
    }

    /// The answers, as a reader wants them: those that are none come last.
    pub(super) fn by_use(&self) -> impl Iterator<Item = &Answer> {
        let open =
            |answer: &&Answer| matches!(answer.verdict, Verdict::NotMeasured | Verdict::NotAsked);
        self.answers.iter().filter(move |a| !open(a)).chain(self.answers.iter().filter(open))
    }
}
