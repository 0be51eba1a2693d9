//! One trial from beginning to end: set up, start the workers, watch, drain, judge.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use highwater_wire::{AckMode, StreamConfig};
use tokio::sync::watch;

use crate::clock::nanos;
use crate::consumer::Goal;
use crate::environment::{CpuTime, Environment, cpus};
use crate::integrity::{Reach, Verdict};
use crate::latency::{Counts, Meter, Set};
use crate::plan::Plan;
use crate::target::{Highwater, Link, Refusal, Target};
use crate::worker::{Event, Orders, Worker};
use crate::{
    ACHIEVED_MIN, Distribution, LATE_P99_MAX, Lateness, LoadError, LoadOptions, Mode, Phase,
    Progress, Rate, Report, SCHEMA, STEAL_MAX,
};

/// How long workers get between being told to begin and the first due time.
const LEAD: Duration = Duration::from_millis(20);
/// How often the stop flag is looked at.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// How often progress is told.
const TICK: Duration = Duration::from_secs(1);

/// Runs one trial against the server at `options.target` and reports. Blocks; calls `progress` once a
/// second on this thread. Setting `stop` ends production early; what was sent is still drained and reported,
/// with `interrupted` set.
///
/// Once the first record is due, the target can no longer make this fail: refusals, failures and losses
/// are in the report.
pub fn run(
    options: LoadOptions,
    progress: impl FnMut(Progress),
    stop: Arc<AtomicBool>,
) -> Result<Report, LoadError> {
    let target = Highwater { address: options.target.clone(), connections: options.connections };
    trial(target, options, progress, &stop)
}

/// [`run`] on any target.
pub fn trial<T: Target>(
    target: T,
    options: LoadOptions,
    mut progress: impl FnMut(Progress),
    stop: &AtomicBool,
) -> Result<Report, LoadError> {
    options.validate()?;
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(LoadError::InsideRuntime);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| LoadError::System { doing: "start a runtime", source })?;
    let (control, plan) = runtime.block_on(set_up(&target, options))?;
    let plan = Arc::new(plan);
    let mut crew = Crew::start(&target, &plan)?;
    crew.all(|event| matches!(event, Event::Ready), stop)?;
    if stop.load(Ordering::Relaxed) {
        return Err(LoadError::Stopped);
    }

    let cpu = CpuTime::read();
    plan.begin(plan.clock.now_ns().saturating_add(nanos(LEAD)));
    crew.begin.send_replace(true);
    let mut watcher = Watcher::new(&plan, crew.meters.clone())?;
    let mut interrupted = false;
    while crew.producing > 0 {
        crew.hear(STOP_CHECK)?;
        if stop.load(Ordering::Relaxed) && !interrupted {
            plan.cut(plan.clock.now_ns());
            crew.stop.send_replace(true);
            interrupted = true;
        }
        watcher.tell(false, &mut progress);
    }

    let goal = runtime.block_on(goal(&control, &plan)).unwrap_or_else(|why| {
        crew.unreadable(why);
        Goal::Here
    });
    crew.goal.send_replace(goal);
    while crew.working > 0 {
        crew.hear(STOP_CHECK)?;
        watcher.tell(false, &mut progress);
    }
    watcher.tell(true, &mut progress);
    crew.join()?;
    Ok(judge(&plan, &target, &control, watcher, crew.reached, interrupted, cpu))
}

async fn set_up<T: Target>(target: &T, options: LoadOptions) -> Result<(T::Link, Plan), LoadError> {
    let refused = |doing: &'static str| {
        let target = target.address().to_owned();
        move |why: Refusal| LoadError::Target { target, doing, message: why.0 }
    };
    let control = target.link().await.map_err(refused("connecting"))?;
    let config = StreamConfig {
        shards: options.shards,
        retention_ms: 0,
        retention_bytes: options.retention_bytes,
        ack: options.ack,
    };
    let stream =
        control.stream(&options.stream, &config).await.map_err(refused("preparing the stream"))?;
    let mut from = Vec::with_capacity(stream.shards.len());
    for shard in &stream.shards {
        let mark = control.high_water(&stream, shard.shard).await;
        from.push(mark.map_err(refused("finding the high-water mark"))?);
    }
    let plan = Plan::new(options, stream, control.limits(), from)?;
    Ok((control, plan))
}

/// Twice what a `written` stream's mark may be behind its acknowledgements, by the protocol.
const FLUSH: Duration = Duration::from_millis(20);

/// Where consumers may end: the high-water mark of each shard, now that nothing more is sent. Why, if
/// nobody can say.
async fn goal<L: Link>(control: &L, plan: &Plan) -> Result<Goal, String> {
    let drain = plan.options.drain_timeout;
    let give_up = tokio::time::Instant::now() + drain;
    let marks = async || {
        let mut marks = Vec::with_capacity(plan.consumers);
        for shard in plan.stream.shards.iter().take(plan.consumers) {
            marks.push(control.high_water(&plan.stream, shard.shard).await?);
        }
        Ok::<_, Refusal>(marks)
    };
    let acked = plan.acked_ends();
    let mut known = None;
    let mut why = format!("not told within {drain:?}");
    // The mark of a `written` stream follows its acknowledgements by a flush: until it rests.
    let mut rests = plan.stream.config.ack == AckMode::Durable;
    loop {
        match tokio::time::timeout_at(give_up, marks()).await {
            Ok(Ok(ends)) => {
                rests |= known.as_ref() == Some(&ends);
                // What is acknowledged beyond the mark is lost, but only once the mark had time to get there.
                let covers = ends.iter().zip(&acked).all(|(end, acked)| end >= acked);
                known = Some(ends);
                if rests && covers {
                    break;
                }
            }
            Ok(Err(refusal)) => {
                why = refusal.0;
                break;
            }
            Err(_) => break,
        }
        if tokio::time::timeout_at(give_up, tokio::time::sleep(FLUSH)).await.is_err() {
            break;
        }
    }
    match known {
        Some(ends) => Ok(Goal::Until(Arc::new(ends), tokio::time::Instant::now() + drain)),
        None => Err(format!("finding the high-water marks: {why}")),
    }
}

/// The worker threads, as the controlling thread sees them.
struct Crew {
    threads: Vec<std::thread::JoinHandle<()>>,
    meters: Vec<Arc<Meter>>,
    events: mpsc::Receiver<(usize, Event)>,
    begin: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    goal: watch::Sender<Goal>,
    /// Workers whose lanes are not done.
    producing: usize,
    /// Workers whose consumers are not done.
    working: usize,
    reached: BTreeMap<usize, Reach>,
}

impl Crew {
    fn start<T: Target>(target: &T, plan: &Arc<Plan>) -> Result<Crew, LoadError> {
        let cores = &plan.options.cores;
        let known = core_affinity::get_core_ids().unwrap_or_default();
        if let Some(&core) = cores.iter().find(|core| known.iter().all(|id| id.id != **core)) {
            return Err(LoadError::Core { core });
        }
        let workers = match cores.len() {
            // One CPU is left to everything else.
            0 => plan.producers.min(cpus().saturating_sub(1)).max(1),
            pinned => pinned,
        };
        let (tell, events) = mpsc::channel();
        let (begin, stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let goal = watch::Sender::new(Goal::Open);
        let (mut threads, mut meters) = (Vec::new(), Vec::new());
        for index in 0..workers {
            let meter = Arc::new(Meter::new().map_err(|_| LoadError::Worker { worker: index })?);
            meters.push(Arc::clone(&meter));
            let worker = Worker {
                index,
                of: workers,
                core: cores.get(index).copied(),
                target: target.clone(),
                plan: Arc::clone(plan),
                meter,
                orders: Orders {
                    begin: begin.subscribe(),
                    stop: stop.subscribe(),
                    goal: goal.subscribe(),
                },
                events: tell.clone(),
            };
            threads.push(worker.start()?);
        }
        let reached = BTreeMap::new();
        let (producing, working) = (workers, workers);
        Ok(Crew { threads, meters, events, begin, stop, goal, producing, working, reached })
    }

    /// Waits for an event at most `wait`. A worker's failure is the run's: the others end when the crew is
    /// dropped.
    fn hear(&mut self, wait: Duration) -> Result<Option<Event>, LoadError> {
        match self.events.recv_timeout(wait) {
            Ok((_, Event::Failed(error))) => Err(error),
            Ok((_, Event::Done(reached))) => {
                self.working = self.working.saturating_sub(1);
                self.reached.extend(reached);
                Ok(None)
            }
            Ok((_, event)) => {
                if matches!(event, Event::Produced) {
                    self.producing = self.producing.saturating_sub(1);
                }
                Ok(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // Every worker reports before it ends.
            Err(RecvTimeoutError::Disconnected) => Err(LoadError::Worker { worker: 0 }),
        }
    }

    /// Waits until each worker has sent such an event, or `stop`.
    fn all(&mut self, is: impl Fn(&Event) -> bool, stop: &AtomicBool) -> Result<(), LoadError> {
        let mut missing = self.threads.len();
        while missing > 0 && !stop.load(Ordering::Relaxed) {
            if self.hear(STOP_CHECK)?.is_some_and(|event| is(&event)) {
                missing -= 1;
            }
        }
        Ok(())
    }

    /// Counts a failure to read that is no worker's.
    fn unreadable(&self, why: String) {
        if let Some(meter) = self.meters.first() {
            let mut readings = meter.lock();
            readings.counts.read_errors += 1;
            readings.failed(|| why);
        }
    }

    fn join(&mut self) -> Result<(), LoadError> {
        for (worker, thread) in self.threads.drain(..).enumerate() {
            thread.join().map_err(|_| LoadError::Worker { worker })?;
        }
        Ok(())
    }
}

/// Gathers what the workers measure, and tells of it.
struct Watcher {
    plan: Arc<Plan>,
    meters: Vec<Arc<Meter>>,
    /// All of the measured window so far.
    total: Set,
    /// Of the current interval: in the window, and outside it.
    interval: (Set, Set),
    spare: (Set, Set),
    counts: Counts,
    told: Counts,
    told_at: Instant,
    first_error: Option<String>,
}

impl Watcher {
    fn new(plan: &Arc<Plan>, meters: Vec<Arc<Meter>>) -> Result<Watcher, LoadError> {
        let set = || Set::new().map_err(|_| LoadError::Worker { worker: 0 });
        Ok(Watcher {
            plan: Arc::clone(plan),
            meters,
            total: set()?,
            interval: (set()?, set()?),
            spare: (set()?, set()?),
            counts: Counts::default(),
            told: Counts::default(),
            told_at: Instant::now(),
            first_error: None,
        })
    }

    /// Once a second, or now if `last`.
    fn tell(&mut self, last: bool, progress: &mut impl FnMut(Progress)) {
        let interval = self.told_at.elapsed();
        if interval < TICK && !last {
            return;
        }
        self.told_at += interval;
        self.harvest();
        let told = self.progress(interval);
        self.told = self.counts;
        progress(told);
    }

    fn harvest(&mut self) {
        self.counts = Counts::default();
        self.interval.0.clear();
        self.interval.1.clear();
        for meter in &self.meters {
            self.spare.0.clear();
            self.spare.1.clear();
            let (counts, error) = meter.harvest(&mut self.spare.0, &mut self.spare.1);
            self.counts.add(&counts);
            self.first_error = self.first_error.take().or(error);
            self.interval.0.add(&self.spare.0);
            self.interval.1.add(&self.spare.1);
        }
        self.total.add(&self.interval.0);
        // From here on `interval.1` is the whole interval.
        self.interval.1.add(&self.interval.0);
    }

    fn progress(&self, interval: Duration) -> Progress {
        let (plan, c) = (&*self.plan, &self.counts);
        let now = plan.clock.now_ns();
        let Range { start: window, end } = plan.window();
        let elapsed_ns = now.saturating_sub(plan.start_ns());
        let sending_ns = now.min(end).saturating_sub(plan.start_ns());
        let offered = match (plan.mode, plan.options.rate) {
            (Mode::Open, Rate::PerSecond(rate)) => (sending_ns as f64 * rate / 1e9) as u64,
            _ => c.sent,
        };
        let size = plan.options.record_size as u64;
        let seconds = interval.as_secs_f64().max(1e-9);
        let acked_per_s = (c.acked - self.told.acked) as f64 / seconds;
        let consumed_per_s = (c.consumed - self.told.consumed) as f64 / seconds;
        Progress {
            phase: match now {
                now if now < window => Phase::Warmup,
                now if now < end => Phase::Measure,
                _ => Phase::Drain,
            },
            elapsed: Duration::from_nanos(elapsed_ns),
            total: plan.options.warmup + plan.options.duration,
            offered: offered.max(c.sent),
            sent: c.sent,
            acked: c.acked,
            acked_bytes: c.acked * size,
            consumed: c.consumed,
            consumed_bytes: c.consumed * size,
            refused: c.refused,
            errors: c.errors,
            unsent: offered.saturating_sub(c.sent),
            backlog: c.acked_watched.saturating_sub(c.consumed),
            interval,
            acked_per_s,
            acked_bytes_per_s: acked_per_s * size as f64,
            consumed_per_s,
            consumed_bytes_per_s: consumed_per_s * size as f64,
            response: Distribution::of(&self.interval.1.response),
            propagation: Distribution::of(&self.interval.1.propagation),
        }
    }
}

fn judge<T: Target>(
    plan: &Plan,
    target: &T,
    control: &T::Link,
    watcher: Watcher,
    reached: BTreeMap<usize, Reach>,
    interrupted: bool,
    cpu: Option<CpuTime>,
) -> Report {
    let (mut verdict, mut checked_records) = (Verdict::default(), 0);
    for lane in 0..plan.lanes() {
        let reach = reached.get(&plan.lane(lane).1);
        let of_lane = plan.ledger(lane).verdict(reach);
        checked_records += if reach.is_some() { of_lane.acked } else { 0 };
        verdict.add(&of_lane);
    }
    let (c, o) = (watcher.counts, &plan.options);
    let window = plan.window();
    let seconds = (window.end - window.start) as f64 / 1e9;
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let late = Distribution::of(&watcher.total.late);
    let mut report = Report {
        schema: SCHEMA,
        valid: true,
        void_reason: None,
        interrupted,
        mode: plan.mode,
        target: target.address().to_owned(),
        server: control.server(),
        stream: plan.stream.name.clone(),
        shards: plan.stream.config.shards,
        seed: o.seed,
        run_id: plan.run,
        started_ns: window.start,
        duration_s: seconds,
        offered_rate: per_second(c.window_due),
        achieved_rate: per_second(c.window_sent),
        acked_records: c.window_acked,
        records_per_s: per_second(c.acked_within),
        bytes_per_s: per_second(c.acked_within) * o.record_size as f64,
        consumed_records: c.window_consumed,
        checked: plan.consumers > 0 && plan.consumers == plan.stream.shards.len(),
        checked_records,
        lost: verdict.lost,
        duplicated: verdict.duplicated,
        reordered: verdict.reordered,
        corrupted: c.corrupted,
        trimmed: verdict.trimmed,
        unread: verdict.unread,
        refused: verdict.refused,
        refused_but_read: verdict.refused_but_read,
        unknown: verdict.unknown,
        unknown_but_read: verdict.unknown_but_read,
        unsent: c.unsent,
        errors: c.errors,
        read_errors: c.read_errors,
        first_error: watcher.first_error,
        latency_us: watcher.total.distributions(),
        generator_late: Lateness {
            p99_us: late.p99,
            max_us: late.max,
            bound_us: LATE_P99_MAX.as_secs_f64() * 1e6,
        },
        workers: watcher.meters.len(),
        environment: Environment::read(cpu),
        options: o.clone(),
    };
    report.void_reason = void_reason(&report);
    report.valid = report.void_reason.is_none();
    report
}

/// Why the figures of a report are not to be trusted; `None` if they are.
fn void_reason(report: &Report) -> Option<String> {
    let mut reasons = Vec::new();
    if report.duration_s == 0.0 {
        reasons.push("stopped before the measured window began".to_owned());
    } else if report.acked_records == 0 {
        reasons.push("nothing due in the measured window was acknowledged".to_owned());
    }
    let late = &report.generator_late;
    if late.p99_us > late.bound_us {
        reasons.push(format!(
            "the generator was late by {:.0} us at p99; the bound is {:.0}",
            late.p99_us, late.bound_us
        ));
    }
    if report.achieved_rate < report.offered_rate * ACHIEVED_MIN {
        reasons.push(format!(
            "{:.1} % of the offered rate was sent by the end of the window; the bound is {:.0} %",
            report.achieved_rate / report.offered_rate * 100.0,
            ACHIEVED_MIN * 100.0
        ));
    }
    if let Some(steal) = report.environment.steal.filter(|steal| *steal > STEAL_MAX) {
        reasons.push(format!(
            "{:.1} % of the CPU time was stolen by the hypervisor; the bound is {:.0} %",
            steal * 100.0,
            STEAL_MAX * 100.0
        ));
    }
    if report.unread > 0 {
        reasons.push(format!(
            "the consumers did not reach {} records within the drain timeout",
            report.unread
        ));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
