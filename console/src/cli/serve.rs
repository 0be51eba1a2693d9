//! `highwater serve`: a server, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;
#[cfg(target_os = "linux")]
use crate::human;
use crate::units::{self, Cores};

/// `highwater serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The data directory; created if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; port 0 picks one, which is printed
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7411")]
    listen: SocketAddr,
    /// CPUs to serve on, a core's thread each [default: all but the last]
    #[arg(long, value_name = "LIST", value_parser = units::cores)]
    cores: Option<Cores>,
    /// Port of core 0, the others follow upwards [default: the system picks each]
    #[arg(long, value_name = "PORT")]
    core_port_base: Option<u16>,
    /// Where to serve /metrics [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Largest record accepted: payload, key and headers
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = units::record_size)]
    max_record: u64,
    /// Memory for all buffers, divided among the cores [default: 512MiB a core, at most half of what is available]
    #[arg(long, value_name = "BYTES", value_parser = units::memory)]
    memory: Option<u64>,
    /// Segment files to keep prepared, so that writes never wait for the file system [default: 1GiB]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    prepared: Option<u64>,
    /// Free bytes of the file system below which appends are refused [default: 1 % of it, at least 64MiB, at most 5 %]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    disk_reserve: Option<u64>,
    /// Most connections per core [default: 4096, or as many as --memory has room for]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Threads that evaluate the filters of consumers, beside the cores and at a lower priority
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::count)]
    filter_threads: u64,
    /// Serve from a file system without O_DIRECT too (slower, and said so)
    #[arg(long)]
    allow_buffered: bool,
}

/// Carries it out.
#[cfg(target_os = "linux")]
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let usable = highwater_ring::usable_cpus().map_err(|e| Failure::doing("cannot serve", e))?;
    let cores = cpus_wanted(args.cores.as_ref(), &usable)?;
    let mut options = args.options();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limits = &options.store.core.limits;
    options.memory = Some(memory(options.memory, cores, limits, available(&meminfo))?);
    let stop = crate::signals::Stop::on_signals()?;
    let (notices, heard) = std::sync::mpsc::channel();
    options.notices = Some(notices);
    let server = start(options)?;
    let warnings = server.warnings();
    for warning in &warnings {
        note!("warning: {warning}");
    }
    write_down(heard, warnings)?;
    if let Some(http) = server.http_addr() {
        note!("metrics on http://{http}/metrics");
    }
    // Last, so that whoever waits for this line finds everything in place. Nobody has to read it.
    match crate::output::line(format!("listening on {}", server.local_addr())) {
        Ok(()) | Err(Failure::BrokenPipe) => {}
        Err(failure) => return Err(failure),
    }
    serve(server, stop)
}

/// Writes what happens in the server to stderr, for as long as there is one, but not what was `said` at the start.
#[cfg(target_os = "linux")]
fn write_down(
    notices: std::sync::mpsc::Receiver<String>,
    said: Vec<String>,
) -> Result<(), Failure> {
    let write = move || {
        for notice in notices.iter().filter(|notice| !said.contains(notice)) {
            note!("{notice}");
        }
    };
    std::thread::Builder::new()
        .name("notices".into())
        .spawn(write)
        .map(drop)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}

/// How many cores there will be; all of those asked for have to be usable.
#[cfg(target_os = "linux")]
fn cpus_wanted(wanted: Option<&Cores>, usable: &[usize]) -> Result<usize, Failure> {
    // The default leaves one to the kernel.
    let Some(Cores(list)) = wanted else { return Ok(usable.len().saturating_sub(1).max(1)) };
    match list.iter().find(|cpu| !usable.contains(cpu)) {
        None => Ok(list.len()),
        Some(cpu) => {
            let usable = Cores(usable.to_vec());
            Err(Failure::Usage(format!(
                "--cores: CPU {cpu} does not exist or may not be used; available: {usable}"
            )))
        }
    }
}

/// The memory bound: as wanted, if the machine has so much available: the kernel would otherwise kill the server in the
/// middle of it. Unless told, no more than half of that.
#[cfg(target_os = "linux")]
fn memory(
    wanted: Option<u64>,
    cores: usize,
    limits: &highwater_wire::Limits,
    available: Option<u64>,
) -> Result<u64, Failure> {
    use highwater_server::MemoryShares;
    // Without a figure of the kernel there is nothing to compare with.
    let available = available.unwrap_or(u64::MAX);
    match wanted {
        Some(wanted) if wanted > available => {
            let (wanted, limit) = (human::binary(wanted), human::binary(available));
            Err(Failure::Usage(format!("--memory {wanted}: the machine has {limit} available")))
        }
        Some(wanted) => Ok(wanted),
        None => {
            let usual = MemoryShares::default_bound(cores, limits);
            Ok(usual.min(available / 2).max(MemoryShares::least_bound(cores, limits)))
        }
    }
}

/// `MemAvailable` of /proc/meminfo, in bytes.
#[cfg(target_os = "linux")]
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Starts the server. The kernel closes a killed server's sockets only when it has wound up its io_uring
/// requests, a moment after the process has gone: a port in use is tried again for as long.
#[cfg(target_os = "linux")]
fn start(options: highwater_server::ServerOptions) -> Result<highwater_server::Server, Failure> {
    use highwater_server::{Server, StartError};
    use std::time::{Duration, Instant};

    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match Server::start(options.clone()) {
            Err(StartError::AddressInUse(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result.map_err(|e| Failure::doing("cannot serve", e)),
        }
    }
}

/// Until a signal, or until a core dies; then it is stopped either way, and says if a core had died.
#[cfg(target_os = "linux")]
fn serve(server: highwater_server::Server, stop: crate::signals::Stop) -> Result<(), Failure> {
    let server = std::sync::Arc::new(server);
    let (watched, died) = (std::sync::Arc::clone(&server), stop.clone());
    let watch = move || {
        // What it says is said again by `stop`.
        let _ = watched.wait();
        died.request();
    };
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(watch)
        .map_err(|e| Failure::doing("cannot start a thread", e))?;
    super::runtime()?.block_on(stop.wait());
    server.stop().map_err(|e| Failure::doing("stopping", e))
}

/// Carries it out elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn run(_: ServeArgs) -> Result<(), Failure> {
    let what = "the server needs Linux (O_DIRECT and io_uring); the client commands work here";
    Err(Failure::Failed(what.to_owned()))
}

#[cfg(target_os = "linux")]
impl ServeArgs {
    fn options(self) -> highwater_server::ServerOptions {
        let mut options = highwater_server::ServerOptions::new(self.data);
        options.listen = self.listen;
        options.http = self.http;
        options.core_port_base = self.core_port_base;
        options.cores = self.cores.unwrap_or_default().0;
        let max_record = u32::try_from(self.max_record).unwrap_or(u32::MAX);
        options.store.core.limits = highwater_wire::Limits::for_record(max_record);
        options.store.allow_buffered = self.allow_buffered;
        options.memory = self.memory;
        options.store.reserve_bytes = self.disk_reserve;
        if let Some(bytes) = self.prepared {
            options.store.prepared_bytes = bytes;
        }
        options.max_connections = self.max_connections;
        options.filter_threads = usize::try_from(self.filter_threads).unwrap_or(usize::MAX);
        options
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_before_it_is_missing() {
        let meminfo = "MemTotal:  8000000 kB\nMemAvailable:  1048576 kB\n";
        assert_eq!(available(meminfo), Some(1 << 30));
        assert_eq!(available("MemTotal: 1 kB"), None);
        let limits = highwater_wire::Limits::default();
        let of = |wanted, available| memory(wanted, 2, &limits, available);
        assert_eq!(of(Some(1 << 30), Some(1 << 30)).unwrap(), 1 << 30);
        assert_eq!(of(Some(u64::MAX), None).unwrap(), u64::MAX);
        assert_eq!((of(None, None).unwrap(), of(None, Some(1 << 30)).unwrap()), (1 << 30, 1 << 29));
        assert_eq!(of(None, Some(1 << 20)).unwrap(), 128 << 20, "what it cannot do without");
        let refused = of(Some(2 << 30), Some(1 << 30)).unwrap_err().to_string();
        assert_eq!(refused, "--memory 2.00 GiB: the machine has 1.00 GiB available");
    }

    #[test]
    fn cores_that_do_not_exist_are_named() {
        let refused = cpus_wanted(Some(&Cores(vec![0, 7])), &[0, 1]).unwrap_err().to_string();
        assert_eq!(refused, "--cores: CPU 7 does not exist or may not be used; available: 0,1");
        assert_eq!(cpus_wanted(None, &[0, 1]).unwrap(), 1);
    }
}
