//! One trial from the first record to the report: produce, drain, judge.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::nanos;
use crate::environment::Before;
use crate::plan::Plan;
use crate::target::{Link, Target};
use crate::timeline::{Rules, Step, Timeline};
use crate::{LoadError, LoadOptions, Mode, Observer, Phase, Report};

use super::account;
use super::crew::Crew;
use super::goal::{self, Goal};
use super::judge::{Case, judge};
use super::orders::Halt;
use super::patience::{Answers, Patience};
use super::setup::set_up;
use super::stop::Stop;
use super::totals::Totals;
use super::watcher::Watcher;

/// How long workers get between being told to begin and the first due time.
const BEGIN: Duration = Duration::from_millis(20);
/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Carries out a valid run.
pub fn conduct<T: Target>(
    target: &T,
    options: LoadOptions,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Report, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| LoadError::System { doing: "start a runtime", source })?;
    let before = Before::read();
    let (control, plan) = runtime.block_on(set_up(target, options))?;
    let plan = Arc::new(plan);
    let mut crew = Crew::start(target, &plan)?;
    crew.ready(stop, LOOK)?;
    let mut trial = Trial::begin(&plan, crew, observer, stop)?;
    trial.produce()?;
    trial.drain(&runtime, &control)?;
    trial.crew.join()?;
    trial.watcher.close(trial.observer);
    // Whoever was given up, or is waited for no longer, is not asked again.
    let told = trial.ended_early.is_none() && stop.level() < 2;
    let account = told.then(|| runtime.block_on(account::read(&control, &plan))).flatten();
    let mut report = judge(Case {
        plan: &plan,
        target: target.address().to_owned(),
        server: control.server(),
        watcher: &trial.watcher,
        gaps: trial.crew.gaps(),
        pauses: trial.crew.pauses(),
        reached: std::mem::take(&mut trial.crew.reached),
        timeline: &trial.timeline,
        outage: trial.returned.take().zip(trial.ended.take()),
        workers: trial.crew.workers(),
        interrupted: trial.interrupted,
        ended_early: trial.ended_early.take(),
        account,
        before: &before,
    })?;
    if plan.options.delete_stream {
        report.notes.extend(runtime.block_on(remove(&control, &plan)));
    }
    Ok(report)
}

/// Removes the streams that held nothing before; says which stay.
async fn remove<L: Link>(control: &L, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    for (number, stream) in plan.streams.iter().enumerate() {
        let name = &stream.name;
        let mut places = plan.places.iter().zip(&plan.from).filter(|(at, _)| at.stream == number);
        if places.any(|(_, from)| *from > 0) {
            notes.push(format!("Stream {name} held records before the run: it is kept."));
        } else if let Err(why) = control.delete(name).await {
            notes.push(format!("Stream {name} could not be removed: {why}."));
        }
    }
    notes
}

/// A run under way.
struct Trial<'a> {
    plan: Arc<Plan>,
    crew: Crew,
    watcher: Watcher,
    timeline: Timeline,
    /// `None`: the target may be away for as long as it likes.
    patience: Option<Patience>,
    observer: &'a mut dyn Observer,
    stop: &'a Stop,
    /// The counters when the paused groups returned.
    returned: Option<Totals>,
    /// ... and when production was ended.
    ended: Option<Totals>,
    interrupted: bool,
    ended_early: Option<String>,
    /// When a target that was given up is not waited for any more.
    abandon_ns: u64,
}

impl<'a> Trial<'a> {
    /// Everybody begins.
    fn begin(
        plan: &Arc<Plan>,
        crew: Crew,
        observer: &'a mut dyn Observer,
        stop: &'a Stop,
    ) -> Result<Trial<'a>, LoadError> {
        let o = &plan.options;
        let watcher = Watcher::new(plan, crew.meters.clone())?;
        let start_ns = plan.clock.now_ns().saturating_add(nanos(BEGIN));
        let mut trial = Trial {
            timeline: Timeline::new(Rules::of(o, plan.lead()), start_ns),
            patience: (!o.tolerate_restart).then(|| Patience::new(o.target_timeout)),
            watcher,
            crew,
            observer,
            stop,
            returned: None,
            ended: None,
            interrupted: false,
            ended_early: None,
            abandon_ns: u64::MAX,
            plan: Arc::clone(plan),
        };
        // A window known beforehand is there before the first record is.
        trial.decide();
        plan.marks.begin(start_ns);
        trial.crew.command.begin();
        Ok(trial)
    }

    /// Until nothing more is sent, and what was sent is answered or given up.
    fn produce(&mut self) -> Result<(), LoadError> {
        while self.crew.producing > 0 {
            self.crew.hear(self.pause())?;
            self.look();
        }
        Ok(())
    }

    /// Until the readers have everything, or enough time.
    fn drain<L: Link>(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        control: &L,
    ) -> Result<(), LoadError> {
        if self.plan.read() {
            let plan = Arc::clone(&self.plan);
            let mut search = pin!(goal::find(control, &plan, self.drain_time()));
            let found = loop {
                if self.stop.level() > 1 {
                    break Ok(Goal::Here);
                }
                let look = async { tokio::time::timeout(LOOK, &mut search).await };
                match runtime.block_on(look) {
                    Ok(found) => break found,
                    Err(_) => self.look(),
                }
            };
            let goal = found.unwrap_or_else(|why| {
                if let Some(early) = &mut self.ended_early {
                    // This is why: while it was only silent nobody could say.
                    *early = format!("{early}; {why}");
                }
                self.crew.unreadable(why);
                Goal::Here
            });
            self.crew.command.goal(goal);
        }
        while self.crew.working > 0 {
            self.crew.hear(LOOK)?;
            self.look();
        }
        Ok(())
    }

    /// How long to wait for a target that has nothing more to do: not so long if it was given up.
    fn drain_time(&self) -> Duration {
        let o = &self.plan.options;
        match self.ended_early {
            Some(_) => o.drain_timeout.min(o.target_timeout),
            None => o.drain_timeout,
        }
    }

    /// How long nothing need be looked at.
    fn pause(&self) -> Duration {
        let now_ns = self.plan.clock.now_ns();
        let due = [self.timeline.due_ns(), Some(self.watcher.due_ns())];
        // What lies in the past is looked at in its turn, not at once for ever.
        let ahead = due.into_iter().flatten().filter(|due| *due > now_ns).min();
        ahead.map_or(LOOK, |due| LOOK.min(Duration::from_nanos(due - now_ns)))
    }

    fn look(&mut self) {
        let before = self.watcher.now().clone();
        self.watcher.look(self.observer);
        let now_ns = self.watcher.now().at_ns;
        if self.returned.is_none() && self.plan.times().phase(now_ns) == Phase::Catchup {
            // Whatever they have read since they returned was waiting for them.
            let reads = before.reads;
            self.returned = Some(Totals { reads, ..self.watcher.now().clone() });
        }
        self.decide();
        self.heed();
    }

    /// Lets the timeline decide what is due.
    fn decide(&mut self) {
        while let Some(step) = self.timeline.step(self.watcher.view()) {
            self.take(step);
        }
    }

    fn take(&mut self, step: Step) {
        if let Step::Cut { .. } = step {
            self.ended.get_or_insert_with(|| self.watcher.now().clone());
        }
        self.plan.marks.set(step);
        self.crew.command.recall();
    }

    /// Looks for reasons to end before the time.
    fn heed(&mut self) {
        let now = self.watcher.now();
        let now_ns = now.at_ns;
        let over = now_ns >= self.plan.times().end_ns;
        if self.stop.level() > 0 && !over && !self.interrupted {
            self.interrupted = true;
            let step = self.timeline.stop(now_ns);
            return self.take(step);
        }
        if self.stop.level() > 1 || now_ns >= self.abandon_ns {
            self.crew.command.halt(Halt::Abandon);
        }
        if self.stop.level() > 1 {
            // Stopped in the drain: what it would have shown is missing.
            self.interrupted = true;
            self.crew.command.goal(Goal::Here);
        }
        if over || self.ended_early.is_some() {
            return;
        }
        let answers = Answers {
            due: if self.plan.mode == Mode::Open { now.due } else { 0 },
            sent: now.counts.sent,
            // To drop is what such a stream does: the target is well.
            acked: now.counts.acked + now.counts.dropped + now.counts.sampled_out,
            failed: now.counts.refused + now.counts.unknown,
        };
        let verdict = self.patience.as_mut().and_then(|patience| patience.look(now_ns, answers));
        if let Some(verdict) = verdict {
            self.ended_early = Some(match self.watcher.first_error() {
                Some(error) => format!("{verdict}: {error}"),
                None => verdict.to_string(),
            });
            self.abandon_ns = now_ns.saturating_add(nanos(self.drain_time()));
            let step = self.timeline.stop(now_ns);
            self.take(step);
            // What is due and has not been taken by now is not offered again.
            self.crew.command.halt(Halt::Cut);
        }
    }
}
