//! What of the machine a server takes, and what each core has of it.

use highwater_ring::usable_cpus;
use highwater_wire::Limits;

use crate::error::StartError;
use crate::memory::MemoryShares;
use crate::net::raise_open_files;
use crate::options::{ServerOptions, bounds};

/// Descriptors a core needs beside its connections.
const FILES_PER_CORE: u64 = 128;
/// Placement and tags give a core's number 16 bits.
const MAX_CORES: usize = 1 << 10;

/// The shares of one server.
pub(super) struct Shares {
    /// Memory of the whole server, bytes.
    pub bound: u64,
    /// Of each core.
    pub memory: MemoryShares,
    /// Of each core for compiled filters, bytes.
    pub filter_bytes: usize,
    /// Of each core.
    pub max_connections: usize,
    /// What works, but not as it could.
    pub warnings: Vec<String>,
}

impl Shares {
    /// Fills in what the options leave open: the CPUs to serve on, and the memory of the store.
    pub fn settle(options: &mut ServerOptions) -> Result<Shares, StartError> {
        options.cores = cores(options)?;
        let cores = options.cores.len();
        let limits = options.store.core.limits;
        let bound = options.memory.unwrap_or_else(|| MemoryShares::default_bound(cores, &limits));
        let memory = MemoryShares::divide(bound, cores, &limits)?;
        let filter_bytes = filter_memory(options.filter_threads, cores, &memory, &limits)?;
        let max_connections =
            memory.connections(options.max_connections, bounds::CONNECTIONS, cores)?;
        options.store.cores.clone_from(&options.cores);
        options.store.pool_bytes = memory.groups;
        options.store.large_bytes = memory.large;
        let store = &mut options.store.core;
        (store.waiting_bytes, store.held_bytes) = (memory.waiting, memory.held);
        store.tail_bytes = memory.groups / 2;
        let warnings = open_files(cores, max_connections)?;
        Ok(Shares { bound, memory, filter_bytes, max_connections, warnings })
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
