//! Gathers what the workers measure and follows it: tells the observer once a second, and the timeline what
//! it has to know.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::busy::busiest;
use crate::clock::nanos;
use crate::environment::CpuTime;
use crate::latency::{Meter, Set};
use crate::plan::Plan;
use crate::steady::{Rule, Sample, Steady};
use crate::timeline::{Bursts, CALM, DRAINING, OUTSIDE, Times, View};
use crate::{
    Distribution, LoadError, Mode, Observer, Phase, Progress, Rate, Scenario, Tick, WarmUpRule,
};

use super::due::Due;
use super::recovery::{Recovered, Recovery};
use super::totals::Totals;

/// How often the observer is told.
const TICK: Duration = Duration::from_secs(1);
/// An interval is not cut shorter than this.
const SHORTEST: Duration = Duration::from_millis(100);
/// How often the steady-state test gets a sample.
const SAMPLE: Duration = Duration::from_millis(250);

/// Watches a run.
pub struct Watcher {
    plan: Arc<Plan>,
    meters: Vec<Arc<Meter>>,
    /// Everything so far, by class.
    total: Vec<Set>,
    /// Since the observer was told, by class.
    interval: Vec<Set>,
    /// What a worker measured since it was last asked.
    fresh: Vec<Set>,
    /// Response of the warm-up since the last sample.
    warming: Histogram<u64>,
    /// Of the interval: what lies in the window, and everything.
    merged: (Set, Set),
    now: Totals,
    due: Due,
    /// When the observer was told, and when the last sample was taken.
    told: Totals,
    sampled: Totals,
    /// Some time ago, for the rate of now.
    earlier: Totals,
    cpu: Option<CpuTime>,
    /// For how long each worker's thread had wanted a CPU when the observer was told, nanoseconds.
    wanted: Vec<Option<u64>>,
    /// Of the measured window: busy time, and the time it is a part of, seconds.
    busy: (f64, f64),
    steady: Steady,
    is_steady: bool,
    recovery: Option<Recovery>,
    first_error: Option<String>,
}

impl Watcher {
    /// Watches a run that begins now.
    pub fn new(plan: &Arc<Plan>, meters: Vec<Arc<Meter>>) -> Result<Watcher, LoadError> {
        let set = || Set::new().map_err(|_| LoadError::Worker { worker: 0 });
        let sets = || (0..plan.marks.classes()).map(|_| set()).collect::<Result<Vec<_>, _>>();
        let now = Totals { at_ns: plan.clock.now_ns(), ..Totals::default() };
        Ok(Watcher {
            total: sets()?,
            interval: sets()?,
            fresh: sets()?,
            warming: set()?.response,
            merged: (set()?, set()?),
            told: now.clone(),
            sampled: now.clone(),
            earlier: now.clone(),
            now,
            due: Due::default(),
            cpu: CpuTime::read(),
            wanted: wanted(&meters),
            busy: (0.0, 0.0),
            steady: Steady::new(Rule::default()),
            is_steady: false,
            recovery: Bursts::of(&plan.options).map(Recovery::new),
            first_error: None,
            plan: Arc::clone(plan),
            meters,
        })
    }

    /// Looks at the counters, and does what is due by now: at least every 250 ms, better oftener.
    pub fn look(&mut self, observer: &mut dyn Observer) {
        self.read_counters();
        if self.now.at_ns.saturating_sub(self.sampled.at_ns) >= nanos(SAMPLE) {
            self.sample();
        }
        if self.now.at_ns >= self.due_ns() {
            self.tell(observer);
        }
    }

    /// When the observer is to be told next.
    pub fn due_ns(&self) -> u64 {
        next_tick(self.told.at_ns, &self.plan.times())
    }

    /// The last look: everything is told.
    pub fn close(&mut self, observer: &mut dyn Observer) {
        self.read_counters();
        self.tell(observer);
    }

    /// What the timeline is to know. Of the time as it is, not as it was at the last look: the observer may
    /// have taken long since then, and what is decided must lie in the future.
    pub fn view(&self) -> View {
        View {
            now_ns: self.plan.clock.now_ns(),
            steady: self.is_steady,
            caught_up: self.now.caught_up(self.plan.paused(), self.plan.live(), &self.earlier),
        }
    }

    /// The counters as last seen.
    pub fn now(&self) -> &Totals {
        &self.now
    }

    /// The histograms of the whole run, by class.
    pub fn total(&self) -> &[Set] {
        &self.total
    }

    /// Those of everything due in the measured window, merged.
    pub fn window(&self) -> Result<Set, LoadError> {
        let mut merged = Set::new().map_err(|_| LoadError::Worker { worker: 0 })?;
        for set in in_window(&self.total) {
            merged.add(set);
        }
        Ok(merged)
    }

    /// What came of the bursts, if there were any.
    pub fn recovered(&self) -> Option<Recovered> {
        let recovery = self.recovery.clone()?;
        Some(recovery.finish(&self.plan.times().window()))
    }

    /// Share of the measured window for which the busiest worker wanted a CPU; `None` where that is not known.
    pub fn busy(&self) -> Option<f64> {
        let (busy, of) = self.busy;
        (of > 0.0).then(|| busy / of)
    }

    /// The first failure, in words.
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    fn read_counters(&mut self) {
        let plan = &*self.plan;
        self.now.at_ns = plan.clock.now_ns();
        self.now.counts = Default::default();
        self.now.reads.clear();
        self.now.reads.resize(plan.readers(), Default::default());
        for meter in &self.meters {
            let readings = meter.lock();
            self.now.counts.add(&readings.counts);
            for (sum, reads) in self.now.reads.iter_mut().zip(&readings.reads) {
                sum.add(reads);
            }
            if self.first_error.is_none() {
                self.first_error.clone_from(&readings.first_error);
            }
        }
        let times = plan.times();
        self.now.due = match plan.mode {
            Mode::Open => self.due.by(plan, self.now.at_ns).max(self.now.counts.sent),
            Mode::Saturating | Mode::Closed => self.now.counts.sent,
        };
        if let (Some(recovery), Rate::PerSecond(rate)) = (&mut self.recovery, plan.options.rate) {
            let slack = (rate / 10.0).ceil() as u64;
            let waiting = self.now.waiting(plan.live());
            recovery.sample(&times.window(), self.now.at_ns, waiting, slack);
        }
    }

    /// Takes the histograms from the workers.
    fn harvest(&mut self) {
        for meter in &self.meters {
            self.fresh.iter_mut().for_each(Set::clear);
            meter.harvest(&mut self.fresh, &mut []);
            for ((total, interval), fresh) in
                self.total.iter_mut().zip(&mut self.interval).zip(&self.fresh)
            {
                total.add(fresh);
                interval.add(fresh);
            }
            // Nothing of a warm-up is in the window. The bounds of all histograms are the same.
            let _same_bounds = self.warming.add(&self.fresh[OUTSIDE].response);
        }
    }

    /// Follows the warm-up, as long as it lasts.
    fn sample(&mut self) {
        let times = self.plan.times();
        let tested = matches!(self.plan.options.warmup, WarmUpRule::Steady { .. });
        if tested && times.phase(self.now.at_ns) == Phase::Warmup {
            self.harvest();
            let response = Distribution::of(&self.warming);
            let told = |us: f64| (response.count > 0).then_some(us);
            let seconds = self.now.at_ns.saturating_sub(self.sampled.at_ns) as f64 / 1e9;
            let acked = self.now.counts.acked.saturating_sub(self.sampled.counts.acked);
            self.is_steady = self.steady.push(Sample {
                t_s: self.now.at_ns.saturating_sub(times.start_ns) as f64 / 1e9,
                rate: acked as f64 / seconds.max(1e-9),
                p50_us: told(response.p50),
                p99_us: told(response.p99),
            });
            self.warming.reset();
        }
        self.earlier = std::mem::replace(&mut self.sampled, self.now.clone());
    }

    fn tell(&mut self, observer: &mut dyn Observer) {
        self.harvest();
        let (window, all) = (&mut self.merged.0, &mut self.merged.1);
        window.clear();
        all.clear();
        for set in in_window(&self.interval) {
            window.add(set);
        }
        all.add(window);
        all.add(&self.interval[OUTSIDE]);
        let wanted = wanted(&self.meters);
        let passed_ns = self.now.at_ns.saturating_sub(self.told.at_ns);
        let busy = busiest(&self.wanted, &wanted, passed_ns);
        let progress = self.progress(busy);
        if let (Some(busy), Phase::Measure | Phase::Outage | Phase::Catchup) =
            (busy, progress.phase)
        {
            self.busy =
                (self.busy.0 + busy * progress.interval_s, self.busy.1 + progress.interval_s);
        }
        self.wanted = wanted;
        observer.tick(&Tick {
            progress: &progress,
            start_ns: self.told.at_ns,
            end_ns: self.now.at_ns,
            histograms: self.merged.0.named(),
        });
        for set in &mut self.interval {
            set.clear();
        }
        self.told = self.now.clone();
        self.cpu = CpuTime::read();
    }

    fn progress(&self, generator_busy: Option<f64>) -> Progress {
        let (plan, now, told) = (&*self.plan, &self.now, &self.told);
        let (times, all) = (plan.times(), &self.merged.1);
        let seconds = now.at_ns.saturating_sub(told.at_ns) as f64 / 1e9;
        let rate = |now: u64, told: u64| now.saturating_sub(told) as f64 / seconds.max(1e-9);
        // An interval belongs where most of it lies.
        let middle = told.at_ns + now.at_ns.saturating_sub(told.at_ns) / 2;
        let started = times.start_ns.min(now.at_ns);
        // Before the window is known, it begins when the warm-up has lasted its longest.
        let window = match times.window_ns {
            u64::MAX => started.saturating_add(nanos(plan.options.warmup.most())),
            known => known,
        };
        Progress {
            phase: times.phase(middle),
            t_s: (now.at_ns as i64).saturating_sub(window as i64) as f64 / 1e9,
            elapsed_s: (now.at_ns - started) as f64 / 1e9,
            total_s: self.expected_end().map(|end| end.saturating_sub(started) as f64 / 1e9),
            interval_s: seconds,
            offered: now.due,
            sent: now.counts.sent,
            acked: now.counts.acked,
            acked_bytes: now.counts.acked_bytes,
            consumed: now.consumed(),
            consumed_bytes: now.consumed_bytes(),
            refused: now.counts.refused,
            errors: now.counts.errors,
            unsent: now.due.saturating_sub(now.counts.sent),
            unanswered: Some(now.unanswered()),
            backlog: now.backlog(),
            offered_per_s: rate(now.due, told.due),
            sent_per_s: rate(now.counts.sent, told.counts.sent),
            acked_per_s: rate(now.counts.acked, told.counts.acked),
            acked_bytes_per_s: rate(now.counts.acked_bytes, told.counts.acked_bytes),
            consumed_per_s: rate(now.consumed(), told.consumed()),
            consumed_bytes_per_s: rate(now.consumed_bytes(), told.consumed_bytes()),
            response: Distribution::of(&all.response),
            propagation: Distribution::of(&all.propagation),
            send_lag: Distribution::of(&all.send_lag),
            service: Distribution::of(&all.service),
            delivery: Distribution::of(&all.delivery),
            steal: self.cpu.zip(CpuTime::read()).and_then(|(then, now)| now.steal_since(then)),
            generator_busy,
        }
    }

    /// When production will end, as far as that is known.
    fn expected_end(&self) -> Option<u64> {
        let times = self.plan.times();
        match (times.end_ns, times.window_ns, self.plan.options.scenario) {
            (u64::MAX, _, Scenario::Backlog { .. }) | (u64::MAX, u64::MAX, _) => None,
            (u64::MAX, window, _) => Some(window.saturating_add(nanos(self.plan.options.duration))),
            (end, _, _) => Some(end),
        }
    }
}

/// When an interval that began at `told_ns` ends: after [`TICK`], but where a part of the run ends if that is
/// near, so that hardly an interval belongs to two.
fn next_tick(told_ns: u64, times: &Times) -> u64 {
    let after = |time: Duration| told_ns.saturating_add(nanos(time));
    let near = after(SHORTEST)..=after(TICK + TICK / 2);
    let edges = [times.window_ns, times.away_ns, times.back_ns, times.end_ns];
    edges.into_iter().filter(|edge| near.contains(edge)).min().unwrap_or(after(TICK))
}

/// For how long each worker's thread has wanted a CPU, nanoseconds.
fn wanted(meters: &[Arc<Meter>]) -> Vec<Option<u64>> {
    let threads = meters.iter().map(|meter| meter.lock().thread.clone());
    threads.map(|thread| thread?.wanted_ns()).collect()
}

/// The sets of what was due in the measured window.
fn in_window(sets: &[Set]) -> impl Iterator<Item = &Set> {
    sets.iter().take(DRAINING + 1).skip(CALM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadOptions;
    use crate::timeline::{Marks, Step};

    /// The observer may take longer than the lead: a window opened by the time of the last look would have
    /// begun already.
    #[test]
    fn decisions_are_taken_at_the_time_it_is_after_the_observer_was_told() {
        let options = LoadOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let null = crate::Null::default();
        let set_up = runtime.block_on(crate::run::setup::set_up(&null, options));
        let plan = Arc::new(set_up.unwrap().1);
        let mut watcher = Watcher::new(&plan, Vec::new()).unwrap();
        watcher.look(&mut ());
        let told_ns = plan.clock.now_ns();
        assert!(watcher.view().now_ns >= told_ns && watcher.now().at_ns <= told_ns);
    }

    #[test]
    fn intervals_end_where_the_parts_of_a_run_do() {
        const MS: u64 = 1_000_000;
        let marks = Marks::new(&LoadOptions::default());
        marks.begin(0);
        assert_eq!(next_tick(0, &marks.times()), 1_000 * MS);
        let outage = Some(9_050 * MS..20_000 * MS);
        marks.set(Step::Open { window_ns: 5_400 * MS, outage });
        for (told, next) in [
            (3_000, 4_000),
            // Rather a long interval than a very short one.
            (4_000, 5_400),
            (5_400, 6_400),
            (7_600, 9_050),
            // Too late to end there.
            (8_990, 9_990),
        ] {
            assert_eq!(next_tick(told * MS, &marks.times()), next * MS, "after {told} ms");
        }
        marks.cut(9_500 * MS);
        assert_eq!(next_tick(9_000 * MS, &marks.times()), 9_500 * MS);
    }
}
