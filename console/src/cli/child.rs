//! Commands of this program, or of another build of it, as processes of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::signals::Stop;

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A server in a process of its own; killed with the value, so that its data must be worth nothing then.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// Starts `program` with its data in `data`, on a free port unless `more` has another `--listen`.
    pub fn start(program: &Path, data: &Path, more: &[&str]) -> Result<Server, Failure> {
        let doing = || format!("cannot start {} serve", program.display());
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data).args(more);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for whoever started it.
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::doing(doing(), e))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let address = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let mut server = Server { child, address: String::new() };
        match (read, address) {
            (Some(Ok(_)), Some(address)) => {
                server.address = address;
                Ok(server)
            }
            _ => Err(Failure::Failed(format!("{}: it did not say where it listens", doing()))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A command that ends by itself, or when it is asked to; killed with the value if it has not.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it, its results going to `stdout`; what it says goes where this process says things.
    pub fn start(program: &Path, words: &[String], stdout: Stdio) -> Result<Running, Failure> {
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(stdout)
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::doing(format!("cannot start {}", program.display()), e))?;
        Ok(Running(child))
    }

    /// Waits for its end; asks it to stop as soon as `stop` is requested.
    pub fn wait(&mut self, stop: &Stop) -> Result<ExitStatus, Failure> {
        let mut asked = false;
        loop {
            let ended = self.0.try_wait().map_err(|e| Failure::doing("waiting", e))?;
            if let Some(status) = ended {
                return Ok(status);
            }
            if stop.requested() && !asked {
                self.interrupt();
                asked = true;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(mut self) -> Result<ExitStatus, Failure> {
        self.interrupt();
        self.0.wait().map_err(|e| Failure::doing("waiting", e))
    }

    fn interrupt(&self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // One that has ended meanwhile needs no signal.
            let _sent = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
