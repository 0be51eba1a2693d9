//! Servers as child processes: started, seen to answer, held still while another is measured, and ended.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a server may take until it answers; one on Erlang takes a third of this on a busy machine.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end before it is killed.
const END: Duration = Duration::from_secs(20);
/// How long it may take to answer what it is asked beside its load.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its executable cannot be run.
    #[error("{name}: {program} cannot be run ({source}); {hint}")]
    Missing {
        /// Whose.
        name: String,
        /// What was tried.
        program: String,
        /// What the system said.
        source: io::Error,
        /// Where to get it.
        hint: &'static str,
    },
    /// It ended before it answered.
    #[error("{name} ended ({status}) before it answered; the end of {}:\n{end}", log.display())]
    Ended {
        /// Whose.
        name: String,
        /// How.
        status: ExitStatus,
        /// What it printed.
        log: PathBuf,
        /// The end of that.
        end: String,
    },
    /// It did not answer in time.
    #[error("{name} did not answer at {address} within {START:?}; see {}", log.display())]
    Silent {
        /// Whose.
        name: String,
        /// Where it should have.
        address: SocketAddr,
        /// What it printed.
        log: PathBuf,
    },
    /// Something around it failed.
    #[error("{name}: {doing}: {source}")]
    Io {
        /// Whose.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A port of the loopback that nobody has at the moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// `program` on the CPUs in `cpus` (all of them if that is empty), with `dir` as working directory.
pub fn command(program: &Path, cpus: &str, dir: &Path) -> Command {
    // A bare name is looked for in PATH; anything else is meant from here, not from `dir`.
    let from_here = program.components().nth(1).and_then(|_| std::path::absolute(program).ok());
    let program = from_here.as_deref().unwrap_or(program);
    let mut command = match cpus.is_empty() {
        true => Command::new(program),
        false => {
            let mut command = Command::new("taskset");
            command.args(["-c", cpus]).arg(program);
            command
        }
    };
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// A running server and whatever it started, in a process group of their own. Ended when dropped.
pub struct Server {
    name: String,
    child: Child,
    group: Option<Pid>,
}

impl Server {
    /// Starts it, printing to `log`, and waits until it takes connections at `address`.
    ///
    /// # Errors
    /// It cannot be run, ended at once, or does not answer.
    pub fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        address: SocketAddr,
        hint: &'static str,
    ) -> Result<Server, ServerError> {
        let io = |doing, source| ServerError::Io { name: name.to_owned(), doing, source };
        let out = File::create(log).map_err(|e| io("its log", e))?;
        let err = out.try_clone().map_err(|e| io("its log", e))?;
        command.stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(|source| ServerError::Missing {
            name: name.to_owned(),
            program: command.get_program().to_string_lossy().into_owned(),
            source,
            hint,
        })?;
        let group = Pid::from_child(&child);
        let mut server = Server { name: name.to_owned(), child, group: Some(group) };
        let begun = Instant::now();
        loop {
            if TcpStream::connect_timeout(&address, LOOK).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait().map_err(|e| io("waiting for it", e))? {
                let (name, log) = (name.to_owned(), log.to_owned());
                return Err(ServerError::Ended { name, status, end: end_of(&log), log });
            }
            if begun.elapsed() > START {
                let (name, log) = (name.to_owned(), log.to_owned());
                return Err(ServerError::Silent { name, address, log });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Holds it still: what it has to do in the background waits as well.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal.
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.signal(Signal::TERM);
        let begun = Instant::now();
        while !self.ended() && begun.elapsed() < END {
            std::thread::sleep(LOOK);
        }
        if !self.ended() {
            eprintln!("{} does not end: killed", self.name);
        }
        // Also what the server itself left behind.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// What `program` prints when asked for its version, its first line.
pub fn version(program: &Path, flag: &str) -> Option<String> {
    let said = Command::new(program).arg(flag).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().next().map(str::to_owned)
}

/// What an HTTP server answers to a `GET` of `path`, without the header.
///
/// # Errors
/// It is not there, does not answer within [`ANSWER`], or answers what is no text.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}
