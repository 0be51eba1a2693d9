//! Servers and commands as processes, and input made from a seed.

#[path = "support/proxy.rs"]
pub mod proxy;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The executable under test.
pub fn highwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    // The tests' own settings only, whatever this user has configured.
    command.env_remove("HIGHWATER_TARGET").env("HIGHWATER_CONFIG", "").stdin(Stdio::null());
    command
}

/// A directory on the file system of the build, which is no tmpfs; it goes with the value.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// What a command printed on stdout.
pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command said on stderr.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The report that `--json -` has a load print, whatever its exit code says of it.
pub fn report(load: Child) -> Value {
    let output = load.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", said(&output)))
}

/// A command ended with this exit code and said all of these words.
#[track_caller]
pub fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

/// A server process; killed with the value.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: String,
    errors: PathBuf,
}

impl Server {
    /// On one core and a free port.
    pub fn start(dir: &Path) -> Server {
        Server::start_with(dir, &["--listen", "127.0.0.1:0"])
    }

    /// With these arguments as well.
    pub fn start_with(dir: &Path, args: &[&str]) -> Server {
        let errors = dir.with_extension("stderr");
        let mut child = serve(dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(&errors).unwrap();
        let addr = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let addr = addr.unwrap_or_else(|| panic!("no server: {line:?} {}", said()));
        Server { child, addr, errors }
    }

    /// What it said on stderr.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap()
    }

    /// A client command at this server.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = highwater();
        command.args(args).env("HIGHWATER_TARGET", &self.addr);
        command
    }

    /// Runs a client command.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Begins a client command, with pipes on all sides.
    pub fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a client command that has to succeed; its stdout.
    pub fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", said(&output), self.said());
        output.stdout
    }

    /// Runs a client command that has to succeed and prints JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(args)).unwrap()
    }

    /// Creates a stream.
    pub fn create(&self, name: &str, shards: u32) {
        self.ok(&["stream", "create", name, "--shards", &shards.to_string()]);
    }

    /// Puts `input` with these further arguments.
    pub fn put(&self, stream: &str, input: &[u8], args: &[&str]) -> Output {
        let mut child = self.begin(&[&["put", stream], args].concat());
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // It may end before it has read everything: that is some tests' point.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        })
    }

    /// Records below the high-water marks of a stream.
    pub fn records(&self, stream: &str) -> u64 {
        let described = self.json(&["stream", "describe", stream, "--json"]);
        let shards = described["shards"].as_array().unwrap();
        shards.iter().map(|shard| shard["high_water"].as_u64().unwrap()).sum()
    }

    /// The most memory its process ever had resident, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib << 10
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `serve` on one core, without a gigabyte of prepared segments for each test.
pub fn serve(dir: &Path) -> Command {
    let mut command = highwater();
    command.arg("serve").arg("--data").arg(dir).args(["--cores", "0", "--prepared", "16MiB"]);
    command
}

/// `lines` lines of an access log, the same for the same seed; some hold bytes that are no UTF-8, some nothing.
pub fn access_log(seed: u64, lines: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut log = Vec::new();
    for i in 0..lines {
        match rng.u32(0..100) {
            0 => {}
            1 => log.extend((0..rng.usize(1..300)).map(|_| rng.u8(11..=255))),
            _ => {
                let ip = format!("{}.{}.{}.{}", rng.u8(1..), rng.u8(..), rng.u8(..), rng.u8(..));
                let path: String = (0..rng.usize(1..80)).map(|_| rng.alphanumeric()).collect();
                let (status, size) = (rng.choice([200, 304, 404]).unwrap(), rng.u32(0..100_000));
                let line = format!("{ip} - - [{i}] \"GET /{path} HTTP/1.1\" {status} {size}\r");
                log.extend(line.as_bytes());
            }
        }
        log.push(b'\n');
    }
    log
}

/// Asks again until it is so; the test runner's patience is the limit.
pub fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        std::thread::yield_now();
    }
}
