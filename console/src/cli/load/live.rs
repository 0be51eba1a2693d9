//! A run on the console's Load screen.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use highwater_loadgen::search::{
    SearchResult, SearchSettings, Spectator, Step, TrialRecord, about,
};
use highwater_loadgen::{LoadError, Observer, Report, Scenario, Stop, Tick};

use super::flags::Request;
use crate::dashboard::app::Screen;
use crate::dashboard::load::{Estimate, LoadEvent, Plan, Response, Stage, Trial};
use crate::dashboard::{self, Extras, StyleArgs};
use crate::failure::Failure;
use crate::signals;

/// Seconds that wait to be shown. A screen that cannot keep up misses some; the run does not wait for it.
const INBOX: usize = 16;

/// Tells the screen of each interval, after `also` has been told.
struct Teller<'a> {
    screen: SyncSender<LoadEvent>,
    also: &'a mut (dyn Observer + Send),
}

impl Observer for Teller<'_> {
    fn tick(&mut self, tick: &Tick<'_>) {
        self.also.tick(tick);
        let _full_or_gone = self.screen.try_send(LoadEvent::Tick(tick.progress.into()));
    }
}

/// Runs `request` and shows it until it is over. Leaving the screen ends production; what was sent is drained.
pub fn run(
    request: &Request,
    style: &StyleArgs,
    also: &mut (dyn Observer + Send),
    stop: &Stop,
) -> Result<Result<Report, LoadError>, Failure> {
    let options = request.options.clone();
    watch(plan(request), request, style, stop, |screen| {
        let mut teller = Teller { screen, also };
        highwater_loadgen::run(options, &mut teller, stop)
    })
}

/// Does `work`, which tells the screen, and shows it until it is over. Leaving the screen asks `stop`.
pub fn watch<T: Send>(
    plan: Plan,
    request: &Request,
    style: &StyleArgs,
    stop: &Stop,
    work: impl FnOnce(SyncSender<LoadEvent>) -> T + Send,
) -> Result<T, Failure> {
    let (screen, events) = sync_channel(INBOX);
    let _room_for_the_first = screen.try_send(LoadEvent::Begins(plan));
    let target = server(&request.options.target).map(str::to_owned);
    let left = signals::Stop::new();
    thread::scope(|scope| {
        let over = left.clone();
        let load = scope.spawn(move || {
            let result = work(screen);
            over.request();
            result
        });
        let extras = Extras { load: Some(events), screen: Screen::Load, ..Extras::default() };
        let shown = dashboard::run(target.as_deref(), &style.clone().into(), extras, &left);
        if stop.level() == 0 && !load.is_finished() {
            note!("left the screen: no more records are made; waiting for what is under way");
            stop.request();
        }
        outcome(load.join(), shown.map(drop))
    })
}

/// What was measured counts, whatever became of the screen: of that it is only said.
fn outcome<T>(load: thread::Result<T>, shown: Result<(), Failure>) -> Result<T, Failure> {
    if let Err(failure) = shown {
        note!("the screen failed: {failure}");
    }
    load.map_err(|_| Failure::failed("the load generator ended unexpectedly"))
}

/// A search on the screen.
pub struct Shown {
    screen: SyncSender<LoadEvent>,
    /// What is searched, for another search that begins.
    plan: Plan,
    before: Option<(f64, f64)>,
}

impl Shown {
    /// Tells `screen` of what `plan` says.
    pub fn new(screen: SyncSender<LoadEvent>, plan: Plan) -> Shown {
        Shown { screen, plan, before: None }
    }

    /// Begins another search or run of the same kind: a point of a sweep.
    pub fn begin(&mut self, words: String) {
        self.before = None;
        self.tell(LoadEvent::Begins(Plan { words, ..self.plan.clone() }));
    }

    /// Waits for room: what happens between trials is not missed.
    fn tell(&self, event: LoadEvent) {
        let _gone = self.screen.send(event);
    }
}

impl Observer for Shown {
    fn tick(&mut self, tick: &Tick<'_>) {
        let _full_or_gone = self.screen.try_send(LoadEvent::Tick(tick.progress.into()));
    }
}

impl Spectator for Shown {
    fn begins(&mut self, number: u32, step: &Step, asked: &SearchSettings, so_far: &SearchResult) {
        let stage = format!("{:?}", step.stage).to_lowercase();
        self.tell(LoadEvent::Stage(Stage {
            words: format!(
                "trial {number}, {stage}: {}/s for {:.0} s",
                about(step.rate),
                step.seconds
            ),
            left_s: None,
        }));
        // The binding goal is drawn; before there is one, the first.
        let goal = so_far.goals.iter().find(|goal| so_far.binding.as_ref() == Some(&goal.of));
        let goal = goal.filter(|goal| goal.bound_us.is_some()).or(so_far.goals.first());
        let allowed = goal.map_or(asked.stable, |goal| goal.allowed);
        let curve = goal.map_or_else(Vec::new, |goal| {
            goal.curve.iter().map(|point| (point.rate, point.share)).collect()
        });
        self.tell(LoadEvent::Response(Response { allowed, curve }));
        if let Some(found) = so_far.estimate {
            let interval = (found.low, found.high);
            let before = self.before.replace(interval).filter(|before| *before != interval);
            let next = Some(step.rate);
            let rate = found.value;
            self.tell(LoadEvent::Estimate(Estimate {
                rate,
                interval,
                before,
                next,
                planned: None,
            }));
        }
    }

    fn ended(&mut self, trial: &TrialRecord, so_far: &SearchResult, left_s: f64) {
        let goal = so_far.goals.iter().position(|goal| so_far.binding.as_ref() == Some(&goal.of));
        let goals = so_far.goals.len().saturating_sub(1);
        let goal = goal.filter(|goal| *goal < goals).unwrap_or(0);
        let over = trial.share_over(goal);
        let growth = trial.backlog.filter(|backlog| backlog.significant).map_or(0.0, |b| b.growth);
        let stable = so_far.goals.last().map_or(1.0, |goal| goal.allowed);
        let kept = (0..goals).all(|at| {
            let allowed = so_far.goals.get(at).map_or(1.0, |goal| goal.allowed);
            trial.share_over(at).is_some_and(|share| share <= allowed)
        });
        self.tell(LoadEvent::Trial(Trial {
            rate: trial.rate,
            over: over.unwrap_or(growth.max(0.0)),
            p99_us: trial.response.p99,
            kept: trial.void_reason.is_none().then_some(kept && growth <= stable),
        }));
        let words = "between trials".to_owned();
        self.tell(LoadEvent::Stage(Stage { words, left_s: Some(left_s) }));
    }
}

/// A search in a line.
pub fn searching(request: &Request, settings: &SearchSettings) -> Plan {
    let goals: Vec<String> = request.slo.iter().map(ToString::to_string).collect();
    let plan = plan(request);
    let options = &request.options;
    Plan {
        what: "search".to_owned(),
        words: format!(
            "highest rate with {} of {} {} to {} of {}",
            if goals.is_empty() { "a stable backlog".to_owned() } else { goals.join(" ") },
            options.arrival,
            options.workload,
            options.stream,
            options.target
        ),
        budget_s: Some(settings.budget_s),
        ..plan
    }
}

/// The server to watch, if the target is one.
fn server(target: &str) -> Option<&str> {
    let apart = |name: &str| target == name || target.starts_with(&format!("{name}:"));
    (!apart("null") && !apart("embedded")).then_some(target)
}

/// The run in a line.
pub fn plan(request: &Request) -> Plan {
    let options = &request.options;
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
    Plan {
        what: match options.scenario {
            Scenario::Run => "run",
            Scenario::Burst => "burst",
            Scenario::Backlog { .. } => "backlog",
        }
        .to_owned(),
        words: format!(
            "{} {} {} to {} of {}",
            options.rate, options.arrival, options.workload, options.stream, options.target
        ),
        slo_us: request.slo.iter().filter_map(|slo| slo.response_p99_us()).reduce(f64::min),
        lag_budget_us: Some(micros(options.late_bound)),
        budget_s: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that took no more output in the last minute cost the report of the whole run.
    #[test]
    fn a_screen_that_fails_costs_no_result() {
        let failed = || Err(Failure::failed("cannot draw"));
        assert_eq!(outcome(Ok(7), failed()).unwrap(), 7);
        assert_eq!(outcome(Ok(7), Ok(())).unwrap(), 7);
        assert!(outcome::<u8>(Err(Box::new("panicked")), failed()).is_err());
    }

    #[test]
    fn only_servers_are_watched() {
        assert_eq!(server("host:7411"), Some("host:7411"));
        for target in ["null", "null:stall=1s/10s", "embedded", "embedded:/srv/data"] {
            assert_eq!(server(target), None, "{target}");
        }
        assert_eq!(server("nullable:1"), Some("nullable:1"));
    }
}
