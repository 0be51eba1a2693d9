//! The console in a real terminal: tmux runs it, types, resizes, and looks at what is on the screen and at the
//! state the terminal is left in.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "product/support.rs"]
#[expect(dead_code, reason = "what the other tests need of it")]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Server, highwater, scratch};
use tempfile::TempDir;

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a shell in it, of its own tmux server; both end with the value.
struct Terminal {
    dir: TempDir,
}

impl Terminal {
    /// `None`, and why, where there is no tmux.
    fn open(width: u16, height: u16) -> Option<Terminal> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: tmux is not installed");
            return None;
        }
        // Socket paths are short by law of the kernel: not in the build's directory.
        let terminal = Terminal { dir: tempfile::tempdir().unwrap() };
        let (width, height) = (width.to_string(), height.to_string());
        let shell =
            "exec env -i PATH=/usr/bin:/bin LANG=C.UTF-8 TERM=screen-256color PS1='ready> ' sh";
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, shell]);
        terminal.until("ready>");
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.dir.path().join("socket"))
            .args(["-f", "/dev/null", "-u"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line at the shell's prompt.
    fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until `what` is on the screen.
    fn until(&self, what: &str) -> String {
        self.wait(what, |screen| screen.contains(what))
    }

    fn wait(&self, what: &str, there: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if there(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what:?} does not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Waits until the program has ended, which the shell says in a line of its own; gives the exit code.
    fn ended(&self) -> String {
        let code = |screen: &str| {
            // Not the line that was typed, which has `$?` there.
            let mut codes = screen.lines().filter_map(|line| line.strip_prefix("ended "));
            codes
                .find(|code| code.trim_end().parse::<u8>().is_ok())
                .map(|c| c.trim_end().to_owned())
        };
        code(&self.wait("the end", |screen| code(screen).is_some())).unwrap()
    }

    /// The program has ended; the terminal must be as the shell had it: main screen, cursor shown, no mouse
    /// reports, input echoed and by lines.
    fn is_clean(&self) {
        let state = "#{alternate_on} #{cursor_flag} #{mouse_any_flag}";
        self.wait("the main screen with its cursor", |_| {
            self.tmux(&["display-message", "-p", state]).trim_end() == "0 1 0"
        });
        let flags = "stty -a | tr ';' '\\n' | tr ' ' '\\n' | grep -c -x -e icanon -e echo -e isig";
        self.run(&format!("{flags}; echo counted"));
        let screen = self.until("\ncounted");
        assert!(screen.contains("\n3\n"), "{screen}");
    }

    /// The program that the shell runs.
    fn program(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = std::fs::read_to_string(children).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.dir.path().join("socket");
        let _no_server_left =
            Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

/// A server with something to show.
fn server(dir: &TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"));
    for stream in ["orders", "clicks"] {
        let load = [
            "load",
            "run",
            "-t",
            &server.addr,
            "-r",
            "2k",
            "-d",
            "200ms",
            "--warmup",
            "0s",
            "--stream",
            stream,
        ];
        assert!(highwater().args(load).output().unwrap().status.success());
    }
    server
}

fn top(server: &Server) -> String {
    format!("{} top -t {}; echo ended $?", env!("CARGO_BIN_EXE_highwater"), server.addr)
}

/// What the first line says on each screen, by its key.
const SCREENS: [(&str, &str); 6] = [
    ("1", "1 Overview"),
    ("2", "2 Shards"),
    ("3", "3 Latency"),
    ("4", "4 Backlog"),
    ("5", "5 Load"),
    ("6", "6 Streams"),
];

#[test]
fn every_screen_at_every_size_filter_pause_help_and_a_clean_end() {
    let dir = scratch();
    let Some(terminal) = Terminal::open(80, 24) else { return };
    let server = server(&dir);
    terminal.run(&top(&server));
    terminal.until("1 Overview");
    for (width, height) in [(80, 24), (120, 36), (200, 60), (40, 12)] {
        terminal.resize(width, height);
        for (key, title) in SCREENS {
            terminal.keys(&[key]);
            terminal.wait(title, |screen| {
                let widest = screen.lines().map(|line| line.chars().count()).max();
                screen.lines().next().is_some_and(|line| line.contains(title))
                    && widest.is_some_and(|widest| widest <= usize::from(width))
            });
        }
    }
    terminal.resize(80, 24);
    terminal.keys(&["1", "Space"]);
    terminal.until("PAUSED");
    terminal.keys(&["Space"]);
    terminal.wait("the end of the pause", |screen| !screen.contains("PAUSED"));
    terminal.keys(&["6", "/"]);
    terminal.tmux(&["send-keys", "-l", "orders"]);
    terminal.keys(&["Enter"]);
    terminal.wait("orders alone", |s| s.contains("orders") && !s.contains("clicks"));
    terminal.keys(&["?"]);
    terminal.until("close");
    terminal.keys(&["Escape"]);
    // An Escape with a key right behind it would be that key with Alt.
    terminal.wait("the end of the help", |screen| !screen.contains("close"));
    terminal.keys(&["q"]);
    assert_eq!(terminal.ended(), "0");
    terminal.is_clean();
}

#[test]
fn a_terminated_console_leaves_the_terminal_clean() {
    let dir = scratch();
    let Some(terminal) = Terminal::open(100, 30) else { return };
    let server = server(&dir);
    for signal in [Signal::TERM, Signal::HUP] {
        terminal.run(&top(&server));
        terminal.until("1 Overview");
        kill_process(terminal.program(), signal).unwrap();
        terminal.ended();
        terminal.is_clean();
        terminal.run("clear");
        terminal.wait("an empty screen", |screen| !screen.contains("ended"));
    }
}

#[test]
fn a_console_that_panics_leaves_the_terminal_clean() {
    let dir = scratch();
    let Some(terminal) = Terminal::open(100, 30) else { return };
    let server = server(&dir);
    terminal.run(&format!("export HIGHWATER_TEST_PANIC=1; {}", top(&server)));
    terminal.until("1 Overview");
    terminal.keys(&["F12"]);
    assert_eq!(terminal.ended(), "101");
    // Its last words can be read, below what was there before.
    terminal.until("asked to panic");
    terminal.is_clean();
}

#[test]
fn a_lost_server_is_said_with_the_age_of_the_figures_and_found_again() {
    let dir = scratch();
    let Some(terminal) = Terminal::open(100, 30) else { return };
    let server = server(&dir);
    terminal.run(&top(&server));
    terminal.until("LIVE");
    let addr = server.addr.clone();
    server.kill();
    terminal.until("STALE");
    let _again = Server::start_with(&dir.path().join("data"), &["--listen", &addr]);
    terminal.until("LIVE");
    terminal.keys(&["q"]);
    assert_eq!(terminal.ended(), "0");
    terminal.is_clean();
}
