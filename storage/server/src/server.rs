//! A server from outside: start, look, stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_engine::{Control, CoreCommand, CoreSeed, Store};
use highwater_ring::usable_cpus;
use highwater_wire::telemetry::Snapshot;
use highwater_wire::{ControlReply, Limits, decode_control_reply};
use tokio::sync::watch;

use crate::clock::{Clock, wall_ns};
use crate::control_thread::{ControlThread, StoreView};
use crate::core_thread::{CoreThread, Phase, Rest, StartFailure, advance};
use crate::error::{CoreDied, StartError, StopError};
use crate::filter::filter_threads;
use crate::memory::MemoryShares;
use crate::net::{close_listener, listen, raise_open_files};
use crate::options::{ServerOptions, bounds};
use crate::router::{Inbox, link};
use crate::telemetry::{Facts, Handed, Published, Slot, TelemetryThread};

/// Descriptors a core needs beside its connections.
const FILES_PER_CORE: u64 = 128;
/// Placement and tags give a core's number 16 bits.
const MAX_CORES: usize = 1 << 10;

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

/// Which threads have ended, and how.
#[derive(Default)]
struct Exits {
    state: Mutex<ExitState>,
    changed: Condvar,
}

#[derive(Default)]
struct ExitState {
    running: usize,
    cores_started: usize,
    cores_ended: usize,
    died: Option<CoreDied>,
}

impl Exits {
    fn with<T>(&self, change: impl FnOnce(&mut ExitState) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }

    /// Waits until `done`, at most until `deadline`; whether it was.
    fn wait(&self, deadline: Option<Instant>, done: impl Fn(&ExitState) -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !done(&state) {
            let left = match deadline {
                None => Duration::from_secs(3600),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    None => return false,
                    Some(left) => left,
                },
            };
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Notes the end of a thread, by panic too.
struct Exit {
    exits: Arc<Exits>,
    core: Option<usize>,
    outcome: Result<(), String>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.exits.with(|state| {
            state.running -= 1;
            if let Some(core) = self.core {
                state.cores_ended += 1;
                if let Err(reason) = outcome {
                    state.died.get_or_insert(CoreDied { core, reason });
                }
            }
        });
    }
}

impl Server {
    /// Opens the store, binds the ports and starts the threads. Returns when every core has recovered its
    /// shards and serves.
    ///
    /// # Errors
    /// When any of that fails; whatever had been started is stopped again.
    pub fn start(mut options: ServerOptions) -> Result<Server, StartError> {
        options.cores = cores(&options)?;
        let cores = options.cores.len();
        let limits = options.store.core.limits;
        let bound = options.memory.unwrap_or_else(|| MemoryShares::default_bound(cores, &limits));
        let memory = MemoryShares::divide(bound, cores, &limits)?;
        let filter_bytes = filter_memory(options.filter_threads, cores, &memory, &limits)?;
        let max_connections =
            memory.connections(options.max_connections, bounds::CONNECTIONS, cores)?;
        options.store.pool_bytes = memory.groups;
        options.store.large_bytes = memory.large;
        let store = &mut options.store.core;
        (store.waiting_bytes, store.held_bytes) = (memory.waiting, memory.held);
        store.tail_bytes = memory.groups / 2;
        let warnings = open_files(cores, max_connections)?;
        let shared = listen(options.listen)?;
        let local_addr = address_of(&shared, options.listen)?;
        let own = core_listeners(local_addr, options.core_port_base, cores)?;
        let mut core_ports = Vec::new();
        for listener in &own {
            core_ports.push(address_of(listener, local_addr)?.port());
        }
        let core_ports: Arc<[u16]> = core_ports.into();
        let http = options.http.map(listen).transpose()?;
        let http_addr = match (&http, options.http) {
            (Some(listener), Some(address)) => Some(address_of(listener, address)?),
            _ => None,
        };

        options.store.cores.clone_from(&options.cores);
        let (store, seeds) = Store::open(&options.data, options.store.clone())?;
        let facts = Facts {
            started_ns: wall_ns(),
            durability: store.durability(),
            durable: store.durable(),
            warnings,
            memory: bound,
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
        let signals: Vec<_> = links.iter().map(|link| link.signals.clone()).collect();
        let (filters, filter_threads) = filter_threads(options.filter_threads, &signals);
        let filters = Arc::new(filters);
        for (number, thread) in filter_threads.into_iter().enumerate() {
            server.spawn(format!("filter-{number}"), None, move || {
                thread.run();
                Ok(())
            })?;
        }
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
                memory,
                max_connections,
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
                filter_bytes,
            };
            let ready: Sender<_> = ready.clone();
            server.spawn(format!("core-{index}"), Some(index), move || thread.run(ready))?;
        }
        // Now they end with the cores.
        let gauge = filters.gauge();
        drop((ready, jobs_in, shared, filters));
        for _ in 0..cores {
            match is_ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err((core, failure))) => {
                    return Err(start_error(core, options.cores[core], failure));
                }
                Err(_) => return Err(server.core_vanished(&options.cores)),
            }
        }

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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| StartError::Thread { name: "telemetry".to_owned(), source })?;
        server.spawn("telemetry".to_owned(), None, move || {
            // It fails only at starting to serve; the cores go on without it.
            runtime.block_on(telemetry.run()).map_err(|e| e.to_string())
        })?;
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

/// Memory of each core for compiled filters, bytes: what filter threads do not need to inflate batches in.
fn filter_memory(
    threads: usize,
    cores: usize,
    memory: &MemoryShares,
    limits: &Limits,
) -> Result<usize, StartError> {
    let each = (threads.saturating_mul(limits.max_batch as usize)).div_ceil(cores.max(1));
    if threads == 0 || threads > bounds::FILTER_THREADS || each > memory.filters / 2 {
        let limit = "1 to 64, and the largest batch for each within 1/32 of the memory bound";
        return Err(StartError::Option { field: "filter_threads", value: threads, limit });
    }
    Ok(memory.filters - each)
}

/// The CPUs to serve on.
fn cores(options: &ServerOptions) -> Result<Vec<usize>, StartError> {
    if options.max_connections == Some(0) {
        return Err(StartError::Option { field: "max_connections", value: 0, limit: "at least 1" });
    }
    if options.cores.len() > MAX_CORES {
        let value = options.cores.len();
        return Err(StartError::Option { field: "number of cores", value, limit: "at most 1,024" });
    }
    if !options.cores.is_empty() {
        return Ok(options.cores.clone());
    }
    let mut cpus = usable_cpus()?;
    if cpus.len() > 1 {
        // Left to the kernel's own work, and to whoever runs beside.
        cpus.pop();
    }
    Ok(cpus)
}

/// Raises the limit of open files; warnings if it does not allow all connections.
fn open_files(cores: usize, max_connections: usize) -> Result<Vec<String>, StartError> {
    let (cores, connections) = (cores as u64, max_connections as u64);
    let limit = raise_open_files();
    let needed = cores * FILES_PER_CORE + 64;
    if limit < needed {
        return Err(StartError::OpenFiles { limit, needed });
    }
    let wanted = needed + cores * connections;
    if limit >= wanted {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "RLIMIT_NOFILE is {limit}; {} connections and the log may need {wanted} (ulimit -n, LimitNOFILE=)",
        cores * connections
    )])
}

fn core_listeners(
    address: SocketAddr,
    base: Option<u16>,
    cores: usize,
) -> Result<Vec<TcpListener>, StartError> {
    let port = |core: usize| match base {
        None => Ok(0),
        Some(base) => u16::try_from(core)
            .ok()
            .and_then(|core| base.checked_add(core))
            .ok_or(StartError::PortRange { base, cores }),
    };
    (0..cores).map(|core| listen(SocketAddr::new(address.ip(), port(core)?))).collect()
}

fn address_of(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}

fn copy(listener: &TcpListener, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener.try_clone().map_err(|source| StartError::Listen { address, source })
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
