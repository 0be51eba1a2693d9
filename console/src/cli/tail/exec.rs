//! `tail --group G --exec CMD`: a member of a group that settles record by record, which runs a command for each lot.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use highwater_client::{ConsumeError, ConsumerOptions, Lot, RecordConsumer, RecordOptions};
use highwater_wire::{ErrorCode, MAX_REASON, Outcome};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{OutputFormat, TailArgs, format, member};
use crate::failure::Failure;
use crate::human::counted;
use crate::signals::Stop;

/// A shell that finds no command, or one that it may not run: no record is to blame.
const NOT_FOUND: [i32; 2] = [126, 127];

/// A command is ended so much before its time is over, that this can be told in time; or a tenth of the time, if that
/// is less.
const MARGIN: Duration = Duration::from_millis(500);

/// How long the last words of a command that has ended are waited for: a process it left behind in a session of its own
/// may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    lots: u64,
    done: u64,
    failed: u64,
}

/// Works on lots until it is stopped, or everything is settled.
pub async fn run(args: &TailArgs, command: &str, stop: &Stop) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let stream = args.stream.as_str();
    let group = args.group.as_ref().map_or("", |group| group.as_str());
    let failed = |e: ConsumeError| failure(e, group, stream);
    // A group that is none must not become one by being asked for.
    if super::group::delivery(&client, group, stream).await?.is_none() {
        client
            .describe_stream(stream)
            .await
            .map_err(|e| Failure::doing(format!("cannot work on stream {stream}"), e))?;
        return Err(none_such(group, stream));
    }
    let options = RecordOptions {
        name: args.member.clone(),
        fixed: args.member.is_some(),
        session_timeout: args.session_timeout,
        start: member::start(args.from.start()),
        most: args.batch,
        until: if args.follow { None } else { Some(member::marks(&client, stream).await?) },
        ..reading(args.filter.clone())
    };
    let consumer = client.record_consumer(group, stream, options).await;
    let mut consumer = consumer.map_err(|e| failed(e.into()))?;
    let mut tally = Tally::default();
    let worked = work(args, command, &mut consumer, &mut tally, stop).await.map_err(|e| match e {
        Ended::Consume(e) => failed(e),
        Ended::Failed(failure) => failure,
    });
    let left = consumer.close().await.map_err(|e| failed(e.into()));
    note!(
        "{}: {} done, {} that failed",
        counted(tally.lots, "run"),
        counted(tally.done, "record"),
        counted(tally.failed, "run")
    );
    worked.and(left)
}

/// Only what matches; what retention removed is passed over, since the server counts it.
fn reading(filter: Option<String>) -> RecordOptions {
    let options = RecordOptions::default();
    RecordOptions { consumer: ConsumerOptions { filter, ..options.consumer }, ..options }
}

enum Ended {
    Consume(ConsumeError),
    Failed(Failure),
}

fn none_such(group: &str, stream: &str) -> Failure {
    Failure::Failed(format!(
        "group {group} does not settle {stream} record by record; `highwater group set {group} --stream {stream}` makes it so"
    ))
}

fn failure(error: ConsumeError, group: &str, stream: &str) -> Failure {
    if let ConsumeError::Client(client) = &error
        && client.code() == Some(ErrorCode::WrongDelivery)
    {
        return none_such(group, stream);
    }
    Failure::doing(format!("cannot work on stream {stream} as a member of {group}"), error)
}

async fn work(
    args: &TailArgs,
    command: &str,
    consumer: &mut RecordConsumer,
    tally: &mut Tally,
    stop: &Stop,
) -> Result<(), Ended> {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.wait() => return Ok(()),
            next = consumer.next() => next,
        };
        let lot = match next {
            Ok(Some(lot)) => lot,
            Ok(None) => return Ok(()),
            Err(ConsumeError::Client(e)) if e.code() == Some(ErrorCode::BreakerOpen) => {
                let group = args.group.as_ref().map_or("", |group| group.as_str());
                note!("the breaker of group {group} is open: {e}; waiting");
                continue;
            }
            Err(error) => return Err(Ended::Consume(error)),
        };
        let run = Run::of(args, command, &lot).map_err(Ended::Failed)?;
        tally.lots += 1;
        // What is under way is finished, whoever asks to stop.
        let ran = tokio::task::spawn_blocking(move || run.carry_out()).await;
        let ran = ran.unwrap_or_else(|e| Ran::Impossible(format!("the command was lost: {e}")));
        let (range, records) = (lot.range(), lot.records().count() as u64);
        let outcome = match ran {
            Ran::Done => Outcome::Done,
            Ran::Failed(reason) => Outcome::Failed { reason },
            Ran::Impossible(why) => {
                // Given back untried: with this command nothing can be done.
                let _given_back = consumer.settle(lot, Outcome::Released).await;
                return Err(Ended::Failed(Failure::Failed(format!("--exec: {why}"))));
            }
        };
        let done = outcome == Outcome::Done;
        let shard = lot.shard();
        match consumer.settle(lot, outcome).await {
            Ok(()) if done => tally.done += records,
            Ok(()) => tally.failed += 1,
            Err(e) => note!(
                "note: records {} to {} of shard {shard} could not be settled and are handed out again: {e}",
                range.start,
                range.end - 1
            ),
        }
    }
}

/// One run of the command.
struct Run {
    command: String,
    environment: BTreeMap<&'static str, String>,
    input: Vec<u8>,
    deadline: Instant,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Done,
    Failed(String),
    /// There is no such command.
    Impossible(String),
}

impl Run {
    fn of(args: &TailArgs, command: &str, lot: &Lot) -> Result<Run, Failure> {
        let (stream, shard) = (args.stream.as_str(), lot.shard());
        let mut input = Vec::new();
        let mut arrivals = format::Arrivals::new(lot.batches());
        // With a filter there are others between those of a lot.
        let (mut first, mut records) = (None, 0_u64);
        for record in lot.records() {
            first.get_or_insert(record.sequence);
            records += 1;
            let arrival_ns = arrivals.of(record.sequence);
            match args.format {
                OutputFormat::Text => format::text(&record, &mut input)?,
                OutputFormat::Payload => format::payload(&record, &mut input)?,
                OutputFormat::Json => {
                    format::json(stream, shard, &record, arrival_ns, &mut input)?;
                }
            }
        }
        let first = first.unwrap_or(lot.range().start);
        let environment = [
            ("HIGHWATER_STREAM", stream.to_owned()),
            ("HIGHWATER_SHARD", shard.to_string()),
            ("HIGHWATER_SEQUENCE", first.to_string()),
            ("HIGHWATER_RECORDS", records.to_string()),
            ("HIGHWATER_ATTEMPT", lot.attempt().to_string()),
        ];
        let left = lot.deadline().saturating_duration_since(Instant::now());
        Ok(Run {
            command: command.to_owned(),
            environment: environment.into(),
            input,
            deadline: lot.deadline() - MARGIN.min(left / 10),
        })
    }

    /// Runs it to its end, or until its time is over.
    fn carry_out(self) -> Ran {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &self.command])
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, which can be ended whole, and which the terminal's Ctrl-C does not reach.
            .process_group(0);
        match shell.spawn() {
            Ok(child) => self.watch(child),
            Err(e) => Ran::Impossible(format!("cannot start /bin/sh: {e}")),
        }
    }

    fn watch(self, mut child: Child) -> Ran {
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let end = move || {
            // It may have ended by itself.
            let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
        };
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        // Neither of these two is waited for longer than the command: what that leaves behind may hold the pipes.
        let input = self.input;
        thread::spawn(move || {
            // It need not read all of it.
            let _unread = stdin.map(|mut stdin| stdin.write_all(&input));
        });
        let last = Arc::new(Mutex::new(String::new()));
        let (silent, heard) = mpsc::channel::<()>();
        let hearing = Arc::clone(&last);
        thread::spawn(move || {
            if let Some(stderr) = stderr {
                listen(stderr, &hearing);
            }
            drop(silent);
        });
        let (over, ended) = mpsc::channel::<()>();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let watcher = thread::spawn(move || {
            let late = ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout);
            if late {
                end();
            }
            late
        });
        let status = child.wait();
        drop(over);
        let late = watcher.join().unwrap_or(false);
        // What it has left behind in its group would keep its pipes open.
        end();
        let _all_heard = heard.recv_timeout(LAST_WORDS);
        let said = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match status {
            Err(e) => Ran::Impossible(format!("the command was lost: {e}")),
            Ok(_) if late => Ran::Failed(cut("it was not done in time")),
            Ok(status) if status.success() => Ran::Done,
            Ok(status) => match status.code().filter(|code| NOT_FOUND.contains(code)) {
                Some(code) => Ran::Impossible(format!("exit code {code}: {said}")),
                None if said.is_empty() => Ran::Failed(match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
                }),
                None => Ran::Failed(cut(&said)),
            },
        }
    }
}

/// Keeps the last line with something on it; all are passed on.
fn listen(stderr: impl std::io::Read, last: &Mutex<String>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One that never ends takes no more memory than this.
        let mut part = (&mut reader).take(64 << 10);
        match part.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let _nobody_reads = std::io::stderr().write_all(&line);
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = text.trim().to_owned();
        }
    }
}

/// What is kept of a reason.
fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(command: &str, input: &[u8], left: Duration) -> Ran {
        let run = Run {
            command: command.to_owned(),
            environment: [("HIGHWATER_SHARD", "7".to_owned())].into(),
            input: input.to_vec(),
            deadline: Instant::now() + left,
        };
        run.carry_out()
    }

    #[test]
    fn a_command_says_by_its_exit_code_and_last_words_how_it_went() {
        let hour = Duration::from_secs(3600);
        assert_eq!(ran("test \"$(cat)\" = abc", b"abc\n", hour), Ran::Done);
        assert_eq!(ran("test $HIGHWATER_SHARD = 7", &[b'x'; 1 << 20], hour), Ran::Done, "unread");
        let failed = |reason: &str| Ran::Failed(reason.to_owned());
        assert_eq!(ran("echo one >&2; echo two >&2; echo >&2; exit 3", b"", hour), failed("two"));
        assert_eq!(ran("exit 3", b"", hour), failed("exit code 3"));
        assert_eq!(ran("kill -9 $$", b"", hour), failed("killed by signal 9"));
        assert!(matches!(ran("no-such-command-here", b"", hour), Ran::Impossible(_)));
        // With its children, and although one of them keeps its pipe open.
        let late = ran("sleep 1000 & sleep 1000", b"", Duration::from_millis(50));
        assert_eq!(late, failed("it was not done in time"));
        assert_eq!(ran("sleep 1000 & exit 0", b"", hour), Ran::Done);
    }

    /// It was waited for as long as a process in another session held the pipe, and then had failed.
    #[test]
    fn what_a_command_leaves_behind_does_not_hold_its_success_back() {
        let began = Instant::now();
        let command = "setsid sleep 60 & echo last words >&2; exit ";
        let left = Duration::from_secs(3600);
        assert_eq!(ran(&format!("{command}0"), &[b'x'; 1 << 20], left), Ran::Done);
        assert_eq!(ran(&format!("{command}1"), b"", left), Ran::Failed("last words".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(50), "it ended before what it left behind");
    }
}
