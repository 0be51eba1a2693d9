//! A core's thread: pinned, with a tokio-uring runtime for connections and the engine's own ring for the
//! log, which meet through an eventfd. Nothing here spins: every task parks until there is work.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use highwater_engine::quota::Quotas;
use highwater_engine::{CoreSeed, OpenError};
use highwater_ring::{DiskEvent, PinError, pin_thread};
use highwater_wire::Limits;
use tokio::sync::watch;

use crate::accept::accept;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::control_thread::ControlJob;
use crate::core_state::{CoreParts, CoreState};
use crate::filter::FilterLink;
use crate::memory::MemoryShares;
use crate::publisher::Publisher;
use crate::router::{CoreLink, Inbox, Signal};
use crate::telemetry::{EVERY, Handed, Published};

/// What the whole server is doing. Only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Cores recover their shards.
    Starting,
    /// Connections are served.
    Running,
    /// No new work; what is in flight is answered.
    Stopping,
    /// All cores are at rest; connections get their last replies and end.
    Closing,
    /// Time is up: connections are cut.
    Cutting,
    /// Nothing is left to serve.
    Over,
}

/// Lets the last core that comes to rest start the next phase.
#[derive(Debug)]
pub(crate) struct Rest {
    busy: AtomicUsize,
    phase: watch::Sender<Phase>,
}

impl Rest {
    pub fn new(cores: usize, phase: watch::Sender<Phase>) -> Rest {
        Rest { busy: AtomicUsize::new(cores), phase }
    }

    fn one_more(&self) {
        if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            advance(&self.phase, Phase::Closing);
        }
    }
}

/// Moves on to `next`, unless things have gone further.
pub(crate) fn advance(phase: &watch::Sender<Phase>, next: Phase) {
    phase.send_if_modified(|phase| {
        let forward = *phase < next;
        if forward {
            *phase = next;
        }
        forward
    });
}

/// Why a core did not start.
#[derive(Debug)]
pub(crate) enum StartFailure {
    Pin(PinError),
    Open(OpenError),
    Uring(io::Error),
}

/// What a core's thread is started with.
pub(crate) struct CoreThread {
    pub index: usize,
    pub cpu: usize,
    pub seed: CoreSeed,
    pub clock: Clock,
    pub limits: Limits,
    pub quotas: Arc<Quotas>,
    pub memory: MemoryShares,
    pub max_connections: usize,
    pub core_ports: Arc<[u16]>,
    pub shared_listener: TcpListener,
    pub own_listener: TcpListener,
    pub links: Vec<CoreLink>,
    pub inbox: Inbox,
    pub control: SyncSender<ControlJob>,
    pub published: Arc<Published>,
    pub report: Arc<Handed>,
    pub phase: watch::Receiver<Phase>,
    pub rest: Arc<Rest>,
    pub filters: Arc<FilterLink>,
    /// Memory for compiled filters, bytes.
    pub filter_bytes: usize,
}

/// Counts a core as at rest when its thread ends in whatever way, so that the others do not wait for it.
struct AtRest {
    rest: Arc<Rest>,
    done: bool,
}

impl AtRest {
    fn set(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.rest.one_more();
        }
    }
}

impl Drop for AtRest {
    fn drop(&mut self) {
        self.set();
    }
}

impl CoreThread {
    /// Serves until the server stops. Says on `ready` whether it could start; afterwards an `Err` is why it
    /// died.
    pub fn run(self, ready: Sender<Result<(), (usize, StartFailure)>>) -> Result<(), String> {
        let index = self.index;
        let mut at_rest = AtRest { rest: Arc::clone(&self.rest), done: false };
        let prepared = pin_thread(self.cpu).map_err(StartFailure::Pin).and_then(|()| {
            let runtime = runtime().map_err(StartFailure::Uring)?;
            let CoreThread { seed, .. } = self;
            Ok((runtime, seed.build().map_err(StartFailure::Open)?))
        });
        let (runtime, mut engine) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                // Whoever started it may have given up already.
                let _ = ready.send(Err((index, failure)));
                return Ok(());
            }
        };
        // The descriptor belongs to the runtime it is waited for in.
        let event = match runtime.block_on(async { engine.disk().event() }) {
            Ok(event) => event,
            Err(e) => {
                let _ = ready.send(Err((index, StartFailure::Uring(e))));
                return Ok(());
            }
        };
        let CoreThread { clock, limits, quotas, core_ports, links, control, published, .. } = self;
        let core = Rc::new(CoreState::new(CoreParts {
            index,
            engine,
            clock,
            limits,
            quotas,
            core_ports,
            links,
            control,
            published,
            held_limit: self.memory.groups / 4,
            memory: self.memory,
            connections: self.max_connections,
            filters: self.filters,
            filter_bytes: self.filter_bytes,
        }));
        let served = Served {
            max_connections: self.max_connections,
            publisher: Publisher::new(self.cpu, self.report),
            phase: self.phase,
        };
        served.publisher.publish(&core);
        let _ = ready.send(Ok(()));
        let listeners = [self.shared_listener, self.own_listener];
        runtime.block_on(served.serve(
            Rc::clone(&core),
            listeners,
            self.inbox,
            event,
            &mut at_rest,
        ));
        let failure = core.failure.borrow_mut().take();
        failure.map_or(Ok(()), Err)
    }
}

/// Entries for submission and completion of the connections' ring. Rings count against the limit on locked
/// memory; under a very low one a small ring serves as well, with more system calls.
const RINGS: [(u32, u32); 3] = [(1024, 4096), (256, 512), (32, 64)];

fn runtime() -> io::Result<tokio_uring::Runtime> {
    let mut last = io::Error::from(io::ErrorKind::OutOfMemory);
    for (entries, completions) in RINGS {
        // Never DEFER_TASKRUN here: tokio-uring waits on the ring's descriptor, which such a ring does not wake.
        let mut uring = tokio_uring::uring_builder();
        uring.setup_coop_taskrun().setup_single_issuer().setup_cqsize(completions);
        let mut builder = tokio_uring::builder();
        builder.entries(entries).uring_builder(&uring);
        match tokio_uring::Runtime::new(&builder) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => last = error,
            made => return made,
        }
    }
    Err(last)
}

struct Served {
    max_connections: usize,
    publisher: Publisher,
    phase: watch::Receiver<Phase>,
}

impl Served {
    async fn serve(
        &self,
        core: Rc<CoreState>,
        listeners: [TcpListener; 2],
        inbox: Inbox,
        event: DiskEvent,
        at_rest: &mut AtRest,
    ) {
        watched(&core, "the log task", log(Rc::clone(&core), event));
        watched(&core, "the inbox task", receive(Rc::clone(&core), inbox));
        let mut phase = self.phase.clone();
        // An error would mean that the server object is gone; the phase then never changes again.
        let started = phase.wait_for(|phase| *phase > Phase::Starting).await.map(|phase| *phase);
        if !matches!(started, Ok(Phase::Running)) {
            return;
        }
        for listener in listeners {
            let listener = tokio_uring::net::TcpListener::from_std(listener);
            let accepting = accept(Rc::clone(&core), listener, self.max_connections);
            watched(&core, "an accepting task", accepting);
        }
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.publisher.publish_in_turn(&core);
                    core.follow_quotas();
                    all(&core).iter().for_each(|connection| {
                        connection.tick(core.clock.now().mono_ns, core.receive_budget.short());
                        if core.queued.pressed() {
                            // It may have got nothing because everything was used up, with nothing queued that could go.
                            core.top_up(connection);
                        }
                        core.tell_progress(connection);
                    });
                }
                _ = phase.wait_for(|phase| *phase >= Phase::Stopping) => break,
                () = core.failed.notified() => break,
            }
        }
        self.stop(&core, at_rest).await;
    }

    /// Answers what is in flight, lets the replies out, ends connections.
    async fn stop(&self, core: &Rc<CoreState>, at_rest: &mut AtRest) {
        let failed = core.failure.borrow().is_some();
        core.stopping.set(true);
        core.engine.borrow_mut().begin_stop();
        core.poll();
        core.log_wake.notify_one();
        let until = |wanted: Phase| {
            let mut phase = self.phase.clone();
            // The server object being gone is as good as any phase.
            async move { drop(phase.wait_for(|phase| *phase >= wanted).await) }
        };
        let rest = async {
            while !(core.engine.borrow().stopped() && core.at_rest()) {
                core.progress.notified().await;
            }
        };
        if !failed {
            tokio::select! { () = rest => {}, () = until(Phase::Cutting) => {} }
            at_rest.set();
            // Others may still hand over requests, to be refused.
            until(Phase::Closing).await;
        }
        let now = core.clock.now().mono_ns;
        all(core)
            .iter()
            .for_each(|connection| if failed { connection.cut() } else { connection.finish(now) });
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let cutting = until(Phase::Cutting);
        tokio::pin!(cutting);
        let mut cut = failed;
        while !core.connections.borrow().is_empty() {
            tokio::select! {
                _ = tick.tick() => {
                    let now = core.clock.now().mono_ns;
                    all(core).iter().for_each(|connection| connection.sweep(now));
                }
                () = core.progress.notified() => {}
                () = &mut cutting, if !cut => {
                    cut = true;
                    all(core).iter().for_each(|connection| connection.cut());
                }
            }
        }
        self.publisher.publish(core);
    }
}

fn all(core: &CoreState) -> Vec<Rc<Connection>> {
    core.connections.borrow().values().cloned().collect()
}

/// Runs a task whose end by panic ends the core: an engine that panicked must not go on.
fn watched(core: &Rc<CoreState>, name: &'static str, task: impl Future<Output = ()> + 'static) {
    let task = tokio_uring::spawn(task);
    let core = Rc::clone(core);
    tokio_uring::spawn(async move {
        if task.await.is_err_and(|e| e.is_panic()) {
            core.fail(&format!("{name} panicked"));
        }
    });
}

/// Turns the engine when its disk, its clock or a session asks for it.
async fn log(core: Rc<CoreState>, event: DiskEvent) {
    loop {
        let wake = core.engine.borrow().next_wake();
        core.armed.set(wake.unwrap_or(u64::MAX));
        let deadline = core.clock.instant(wake.unwrap_or(0));
        tokio::select! {
            told = event.wait() => match told {
                // It is told of each completion twice.
                Ok(()) if !core.engine.borrow_mut().disk().has_news() => continue,
                Ok(()) => {}
                Err(e) => return core.fail(&format!("waiting for the log's eventfd: {e}")),
            },
            () = core.log_wake.notified() => {}
            () = tokio::time::sleep_until(deadline.into()), if wake.is_some() => {}
        }
        // Awake already: what the engine says of its next wake is looked at above.
        core.armed.set(0);
        core.poll();
    }
}

/// Messages handled before the engine is turned.
const BURST: usize = 256;

/// Handles what other cores and the control thread send.
async fn receive(core: Rc<CoreState>, mut inbox: Inbox) {
    loop {
        tokio::select! {
            Some(signal) = inbox.signals.recv() => heed(&core, &mut inbox, signal),
            Some(handover) = inbox.handovers.recv() => core.take_over(handover),
            Some(command) = inbox.commands.recv() => {
                core.engine.borrow_mut().command(core.clock.now(), command);
            }
            else => return,
        }
        for _ in 0..BURST {
            if let Ok(signal) = inbox.signals.try_recv() {
                heed(&core, &mut inbox, signal);
            } else if let Ok(handover) = inbox.handovers.try_recv() {
                core.take_over(handover);
            } else {
                break;
            }
        }
        core.poll();
    }
}

fn heed(core: &CoreState, inbox: &mut Inbox, signal: Signal) {
    if matches!(signal, Signal::Hurry { .. }) {
        // The fetches it means were handed over before.
        while let Ok(handover) = inbox.handovers.try_recv() {
            core.take_over(handover);
        }
    }
    core.heed(signal);
}
