//! Commands of this program, or of another build of it, as processes of their own.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::signals::Stop;

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A server in a process of its own; killed with the value, so that its data must be worth nothing then. (A process that
/// is ended without dropping it, by SIGKILL or a signal more than it heeds, leaves the server behind.)
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// Starts `program` with its data in `data`, on a free port unless `more` has another `--listen`; waits for it to say
    /// where it listens, however long that takes, or until `stopped`.
    pub fn start(
        program: &Path,
        data: &Path,
        more: &[&str],
        stopped: impl Fn() -> bool,
    ) -> Result<Server, Failure> {
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
        let out = child.stdout.take();
        // From here on it ends with the value.
        let mut server = Server { child, address: String::new() };
        let said = out.map(first_line).transpose()?;
        let line = match said {
            Some(said) => loop {
                match said.recv_timeout(LOOK) {
                    Err(RecvTimeoutError::Timeout) if stopped() => {
                        return Err(Failure::Failed(format!("{}: interrupted", doing())));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    line => break line.ok(),
                }
            },
            None => None,
        };
        let address = line.as_deref().and_then(|line| line.trim().strip_prefix("listening on "));
        let Some(address) = address else {
            return Err(Failure::Failed(format!("{}: it did not say where it listens", doing())));
        };
        server.address = address.to_owned();
        Ok(server)
    }
}

/// What a process says first, as soon as it does; nothing if it says nothing and ends.
fn first_line(out: ChildStdout) -> Result<Receiver<String>, Failure> {
    let (sender, said) = sync_channel(1);
    let read = move || {
        let mut line = String::new();
        if BufReader::new(out).read_line(&mut line).is_ok() {
            // Nobody may wait for it any more.
            let _gone = sender.send(line);
        }
    };
    let thread = std::thread::Builder::new().name("first line".into()).spawn(read);
    thread.map(|_| said).map_err(|e| Failure::doing("cannot start a thread", e))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// It was waited for, with the run it was for long called off.
    #[test]
    fn a_server_that_says_nothing_is_waited_for_until_somebody_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mute");
        // Written by another process: while one of ours has it open, or a child has inherited that, it cannot be run.
        let words = "printf '#!/bin/sh\\nexec sleep 1000\\n' >\"$0\" && chmod +x \"$0\"";
        assert!(
            Command::new("/bin/sh").args(["-c", words]).arg(&program).status().unwrap().success()
        );
        let asked = Cell::new(0);
        let stopped = || asked.replace(asked.get() + 1) > 1;
        let failed = Server::start(&program, dir.path(), &[], stopped).unwrap_err();
        assert!(failed.to_string().contains("interrupted"), "{failed}");
        let failed = Server::start(Path::new("/bin/true"), dir.path(), &[], || false).unwrap_err();
        assert!(failed.to_string().contains("did not say where it listens"), "{failed}");
    }
}
