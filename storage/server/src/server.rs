//! A server from outside: start, look, stop.

mod exits;
mod ports;
mod shares;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_engine::{Control, CoreCommand, CoreSeed, Store};
use highwater_wire::telemetry::Snapshot;
use highwater_wire::{ControlReply, decode_control_reply};
use tokio::sync::watch;

use self::exits::{Exit, ExitState, Exits};
use self::ports::{Ports, copy};
use self::shares::Shares;
use crate::clock::{Clock, wall_ns};
use crate::control_thread::{ControlThread, StoreView};
use crate::core_thread::{CoreThread, Phase, Rest, StartFailure, advance};
use crate::error::{CoreDied, StartError, StopError};
use crate::filter::{FilterLink, filter_threads};
use crate::net::close_listener;
use crate::options::{ServerOptions, bounds};
use crate::router::{CoreLink, Inbox, link};
use crate::telemetry::{Facts, Handed, Published, Slot, TelemetryThread};

/// What a core's thread says once: that it serves, or its number and why it does not.
type Ready = Result<(), (usize, StartFailure)>;

/// A running server. Dropping it stops it as [`Server::stop`] does.
pub struct Server {
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    core_ports: Arc<[u16]>,
    facts: Facts,
    published: Arc<Published>,
    view: Arc<Slot<StoreView>>,
    phase: watch::Sender<Phase>,
    /// Copies of what the cores accept from, to end their waiting.
    listeners: Vec<TcpListener>,
    deadline: Duration,
    exits: Arc<Exits>,
    stopped: Mutex<Stopped>,
}

#[derive(Default)]
struct Stopped {
    threads: Vec<JoinHandle<()>>,
    unfinished: bool,
}

impl Server {
    /// Opens the store, binds the ports and starts the threads. Returns when every core has recovered its
    /// shards and serves.
    ///
    /// # Errors
    /// When any of that fails; whatever had been started is stopped again.
    pub fn start(mut options: ServerOptions) -> Result<Server, StartError> {
        let shares = Shares::settle(&mut options)?;
        let (cores, limits) = (options.cores.len(), options.store.core.limits);
        let Ports { shared, local_addr, own, core_ports, http, http_addr } = Ports::bind(&options)?;
        let (store, seeds) = Store::open(&options.data, options.store.clone())?;
        let facts = Facts {
            started_ns: wall_ns(),
            durability: store.durability(),
            durable: store.durable(),
            warnings: shares.warnings,
            memory: shares.bound,
        };
        let (links, inboxes): (Vec<_>, Vec<_>) = (0..cores).map(|_| link()).unzip();
        let (jobs_in, jobs) = sync_channel(bounds::CONTROL);
        let (phase, _) = watch::channel(Phase::Starting);
        let mut server = Server {
            local_addr,
            http_addr,
            core_ports: Arc::clone(&core_ports),
            facts,
            published: Arc::default(),
            view: Arc::default(),
            phase: phase.clone(),
            listeners: Vec::new(),
            deadline: options.stop_deadline,
            exits: Arc::default(),
            stopped: Mutex::default(),
        };
        let filters = server.start_filters(options.filter_threads, &links)?;
        let rest = Arc::new(Rest::new(cores, phase.clone()));
        let clock = Clock::new();
        let reports: Vec<Arc<Handed>> = (0..cores).map(|_| Arc::default()).collect();
        let (ready, is_ready) = channel();
        for (seed, own_listener, inbox) in zip(seeds, own, inboxes) {
            let (index, cpu) = (seed.core, seed.cpu);
            let shared_listener = copy(&shared, local_addr)?;
            server.listeners.push(copy(&shared, local_addr)?);
            server.listeners.push(copy(&own_listener, local_addr)?);
            let thread = CoreThread {
                index,
                cpu,
                seed,
                clock,
                limits,
                quotas: Arc::clone(store.quotas()),
                memory: shares.memory,
                max_connections: shares.max_connections,
                core_ports: Arc::clone(&core_ports),
                shared_listener,
                own_listener,
                links: links.clone(),
                inbox,
                control: jobs_in.clone(),
                published: Arc::clone(&server.published),
                report: Arc::clone(&reports[index]),
                phase: phase.subscribe(),
                rest: Arc::clone(&rest),
                filters: Arc::clone(&filters),
                filter_bytes: shares.filter_bytes,
            };
            let ready: Sender<_> = ready.clone();
            server.spawn(format!("core-{index}"), Some(index), move || thread.run(ready))?;
        }
        // Now they end with the cores.
        let gauge = filters.gauge();
        drop((ready, jobs_in, shared, filters));
        server.until_ready(&is_ready, &options.cores)?;

        if let Err(e) = store.started() {
            server.facts.warnings.push(format!("removing what the last start left: {e}"));
        }
        let view = Arc::clone(&server.view);
        view.set(StoreView { warnings: store.warnings(), ..StoreView::default() });
        let commands = links.iter().map(|link| {
            let commands = link.commands.clone();
            Box::new(move |command| commands.blocking_send(command).is_ok())
                as Box<dyn Fn(CoreCommand) -> bool + Send>
        });
        let control = Control::new(&store, commands.collect());
        let notices = options.notices.clone();
        let shown = Arc::clone(&view);
        let thread =
            ControlThread { control, store, jobs, links, core_ports, view: shown, notices };
        server.spawn("control".to_owned(), None, move || {
            thread.run();
            Ok(())
        })?;
        let published = Arc::clone(&server.published);
        let facts = server.facts.clone();
        let mut telemetry = TelemetryThread::new(
            facts,
            clock,
            reports,
            view,
            published,
            http,
            phase.subscribe(),
            gauge,
        );
        telemetry.publish();
        server.start_telemetry(telemetry)?;
        advance(&phase, Phase::Running);
        Ok(server)
    }

    fn spawn(
        &self,
        name: String,
        core: Option<usize>,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), StartError> {
        let exits = Arc::clone(&self.exits);
        let cores = usize::from(core.is_some());
        exits.with(|state| {
            (state.running, state.cores_started) = (state.running + 1, state.cores_started + cores)
        });
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            let panicked = Err("its thread panicked".to_owned());
            let mut exit = Exit { exits, core, outcome: panicked };
            exit.outcome = work();
        });
        match thread {
            Ok(thread) => {
                self.stopped.lock().unwrap_or_else(PoisonError::into_inner).threads.push(thread);
                Ok(())
            }
            // The closure was dropped before `Exit` was made.
            Err(source) => {
                self.exits.with(|state| {
                    (state.running, state.cores_started) =
                        (state.running - 1, state.cores_started - cores)
                });
                Err(StartError::Thread { name, source })
            }
        }
    }

    fn start_filters(
        &self,
        threads: usize,
        links: &[CoreLink],
    ) -> Result<Arc<FilterLink>, StartError> {
        let signals: Vec<_> = links.iter().map(|link| link.signals.clone()).collect();
        let (filters, threads) = filter_threads(threads, &signals);
        for (number, thread) in threads.into_iter().enumerate() {
            self.spawn(format!("filter-{number}"), None, move || {
                thread.run();
                Ok(())
            })?;
        }
        Ok(Arc::new(filters))
    }

    fn start_telemetry(&self, telemetry: TelemetryThread) -> Result<(), StartError> {
        let name = "telemetry".to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| StartError::Thread { name: name.clone(), source })?;
        self.spawn(name, None, move || {
            // It fails only at starting to serve; the cores go on without it.
            runtime.block_on(telemetry.run()).map_err(|e| e.to_string())
        })
    }

    /// Waits until every core has recovered its shards.
    fn until_ready(&self, is_ready: &Receiver<Ready>, cpus: &[usize]) -> Result<(), StartError> {
        for _ in cpus {
            match is_ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err((core, failure))) => return Err(start_error(core, cpus[core], failure)),
                Err(_) => return Err(self.core_vanished(cpus)),
            }
        }
        Ok(())
    }

    fn core_vanished(&self, cpus: &[usize]) -> StartError {
        self.exits.wait(None, |state| state.cores_ended > 0);
        let died = self.exits.with(|state| state.died.clone());
        let (core, reason) =
            died.map_or((0, "its thread ended".to_owned()), |d| (d.core, d.reason));
        StartError::Core { core, cpu: cpus.get(core).copied().unwrap_or_default(), reason }
    }

    /// Address of the port that all cores share.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Address of `/metrics`, if it is on.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Port of each core.
    pub fn core_ports(&self) -> &[u16] {
        &self.core_ports
    }

    /// What an operator should know: things that work, but not as they could.
    pub fn warnings(&self) -> Vec<String> {
        self.facts.warnings.iter().chain(&self.view.get().warnings).cloned().collect()
    }

    /// False on a volatile file system: acknowledged records do not survive a power cut there.
    pub fn durable(&self) -> bool {
        self.facts.durable
    }

    /// How writes are made durable, as calibrated, and on what; for people.
    pub fn durability(&self) -> &str {
        &self.facts.durability
    }

    /// The latest telemetry, at most about two seconds old.
    pub fn snapshot(&self) -> Snapshot {
        match decode_control_reply(&self.published.get().encoded.bytes) {
            Ok(ControlReply::Snapshot(snapshot)) => *snapshot,
            _ => Snapshot::default(),
        }
    }

    /// Blocks until the server has been stopped, or a core died.
    ///
    /// # Errors
    /// When a core died: its shards are not served any more, and the server should be stopped.
    pub fn wait(&self) -> Result<(), CoreDied> {
        let cores = self.core_ports.len();
        self.exits.wait(None, |state| state.died.is_some() || state.cores_ended == cores);
        self.exits.with(|state| state.died.clone()).map_or(Ok(()), Err)
    }

    /// Stops gracefully: accepts nothing more, refuses new appends, answers what is in flight, sends the
    /// replies, closes the shards. May be called from any thread, and again.
    ///
    /// # Errors
    /// When the deadline passed first (connections are then cut and threads left behind), or a core had died.
    pub fn stop(&self) -> Result<(), StopError> {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.deadline;
        advance(&self.phase, Phase::Stopping);
        self.listeners.iter().for_each(close_listener);
        let at_rest = |state: &ExitState| state.cores_ended >= state.cores_started;
        let in_time = self.exits.wait(Some(deadline), at_rest);
        if !in_time {
            advance(&self.phase, Phase::Cutting);
            stopped.unfinished = true;
        }
        advance(&self.phase, Phase::Over);
        // What is left has nothing to wait for, unless the disk holds it.
        let deadline = Instant::now() + Duration::from_secs(2);
        if self.exits.wait(Some(deadline), |state| state.running == 0) {
            for thread in stopped.threads.drain(..) {
                // A panic was noted as it happened.
                let _ = thread.join();
            }
        } else {
            stopped.unfinished = true;
        }
        if let Some(died) = self.exits.with(|state| state.died.clone()) {
            return Err(died.into());
        }
        if stopped.unfinished { Err(StopError::Deadline(self.deadline)) } else { Ok(()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop` first.
        let _ = self.stop();
    }
}

fn zip(
    mut seeds: Vec<CoreSeed>,
    listeners: Vec<TcpListener>,
    inboxes: Vec<Inbox>,
) -> impl Iterator<Item = (CoreSeed, TcpListener, Inbox)> {
    seeds.sort_by_key(|seed| seed.core);
    seeds
        .into_iter()
        .zip(listeners)
        .zip(inboxes)
        .map(|((seed, listener), inbox)| (seed, listener, inbox))
}

fn start_error(core: usize, cpu: usize, failure: StartFailure) -> StartError {
    match failure {
        StartFailure::Pin(error) => error.into(),
        StartFailure::Open(error) => error.into(),
        StartFailure::Uring(source) => match source.raw_os_error() {
            // EPERM, ENOSYS.
            Some(1 | 38) => StartError::Uring { source },
            // ENOMEM: rings count against the limit on locked memory.
            Some(12) => StartError::Core {
                core,
                cpu,
                reason: format!(
                    "no memory for its ring ({source}): raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=) to 1 MiB or more"
                ),
            },
            _ => StartError::Core { core, cpu, reason: source.to_string() },
        },
    }
}
