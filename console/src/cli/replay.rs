//! `highwater replay`: a recorded stream again, in the order and at the pace it was recorded: into another stream, a file,
//! or standard output.

mod merge;
mod pace;
mod report;
mod sink;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use highwater_client::Client;
use highwater_loadgen::Alarm;
use highwater_wire::{NameError, StreamName};
use jiff::Timestamp;

use super::Target;
use super::tail::{Found, From};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::units;
use crate::when::moment;
pub use merge::{Merge, Next, Wanted};
use pace::{Lateness, Pace, Speed};
use report::Report;
use sink::Sink;

/// `highwater replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The stream
    stream: StreamName,
    /// original, a multiple of it like 10x or 0.5x, or max: as fast as it goes
    #[arg(long, value_name = "original|10x|max", default_value = "original")]
    speed: Speed,
    /// Where to: `-` for standard output, a file (a path with a slash, or a name that ends in .json, .jsonl or .ndjson),
    /// else a stream, which has to be there; file:NAME and stream:NAME leave nothing open. Files have a record a line as
    /// JSON: `put --format records` stores them, `load run --trace` follows them
    #[arg(long, value_name = "STREAM|FILE|-", default_value = "-")]
    to: To,
    /// The server that --to's stream is on [default: the same]
    #[arg(long, value_name = "HOST:PORT", value_parser = units::target)]
    to_target: Option<String>,
    /// Where to begin: oldest, latest, a sequence number, or a time of arrival (RFC 3339, or back from now like -10m)
    #[arg(
        long,
        value_name = "oldest|latest|N|TIME",
        default_value = "oldest",
        allow_hyphen_values = true
    )]
    from: From,
    /// Where to end: before this sequence number, or before the first record that arrived at this time or later
    /// [default: what is there now]
    #[arg(long, value_name = "N|TIME", allow_hyphen_values = true)]
    until: Option<Until>,
    /// Only this shard
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    /// Only records for which this CEL expression is true (docs/consuming.md)
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// By which of a record's times
    #[arg(long, value_enum, default_value = "arrival")]
    by: By,
    /// Longer times without a record are cut to this, before --speed counts
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    max_gap: Option<Duration>,
    /// End after this many records
    #[arg(long, value_name = "N", value_parser = units::count)]
    limit: Option<u64>,
    /// Write over the file that --to names, if there is one
    #[arg(long)]
    force: bool,
    /// Only read, and say how much it is and how long it would take
    #[arg(long)]
    dry_run: bool,
    /// Say at the end as JSON what was done, and how late records were
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// By which time records are put in order and paced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// When they reached the server; those of one batch together
    #[default]
    Arrival,
    /// The producer's own time. A record is never before those in front of it in its shard
    Timestamp,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Stdout,
    File(PathBuf),
    Stream(StreamName),
}

/// What a file of records is called.
const ENDINGS: [&str; 3] = [".json", ".jsonl", ".ndjson"];

impl FromStr for To {
    type Err = NameError;

    fn from_str(text: &str) -> Result<To, NameError> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(To::File(path.into()));
        }
        if let Some(name) = text.strip_prefix("stream:") {
            return Ok(To::Stream(StreamName::new(name)?));
        }
        let file = text.contains('/') || ENDINGS.iter().any(|ending| text.ends_with(ending));
        Ok(match text {
            "-" => To::Stdout,
            path if file => To::File(path.into()),
            name => To::Stream(StreamName::new(name)?),
        })
    }
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            To::Stdout => f.write_str("-"),
            To::File(path) => write!(f, "{}", path.display()),
            To::Stream(name) => write!(f, "{name}"),
        }
    }
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Before this sequence number.
    Sequence(u64),
    /// Before the first record that arrived then or later, nanoseconds since 1970 UTC.
    Time(u64),
}

/// Not a place to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a sequence number, a time like 2026-05-17T10:05:03Z, or -10m")]
pub struct UntilError;

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Until, UntilError> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Until::Sequence).map_err(|_| UntilError);
        }
        moment(text, Timestamp::now()).map(Until::Time).ok_or(UntilError)
    }
}

/// Carries it out.
pub fn run(args: ReplayArgs) -> Result<(), Failure> {
    let same_server = args.to_target.as_ref().is_none_or(|other| *other == args.target.target);
    if args.to == To::Stream(args.stream.clone()) && same_server && !args.dry_run {
        let what = format!("--to {} is the stream itself: its records would be doubled", args.to);
        return Err(Failure::Usage(what));
    }
    if args.to_target.is_some() && !matches!(args.to, To::Stream(_)) {
        return Err(Failure::Usage(format!(
            "--to-target with --to {}, which is no stream",
            args.to
        )));
    }
    let found = Found::new(args.filter.as_deref())?;
    let stop = Stop::on_signals()?;
    let (report, found) = super::runtime()?.block_on(replay(&args, found, &stop))?;
    // What goes to standard output stays alone there.
    let beside = args.to == To::Stdout && !args.dry_run;
    report.tell(args.json, beside)?;
    // What the filter found behind the last record wanted was not asked for.
    if args.limit.is_none() && !matches!(args.until, Some(Until::Time(_))) {
        found.report();
    }
    if stop.requested() {
        return Err(Failure::failed(format!("interrupted after {} records", report.records)));
    }
    Ok(())
}

async fn replay(args: &ReplayArgs, found: Found, stop: &Stop) -> Result<(Report, Found), Failure> {
    let client = args.target.connect().await?;
    let wanted = Wanted {
        from: args.from.start(),
        until: args.until,
        shard: args.shard,
        by: args.by,
        filter: args.filter.clone(),
    };
    let mut merge = Merge::open(&client, args.stream.as_str(), wanted, found).await?;
    let sink = match &args.to {
        _ if args.dry_run => Sink::nothing(),
        To::Stdout => Sink::stdout(args.stream.as_str()),
        To::File(path) => Sink::lines(args.stream.as_str(), create(path, args.force)?),
        To::Stream(name) => {
            let other = match &args.to_target {
                None => client.clone(),
                Some(target) => {
                    let client_name = args.target.client_name.clone();
                    Target { target: target.clone(), client_name }.connect().await?
                }
            };
            Sink::stream(&other, name, args.speed == Speed::Max).await?
        }
    };
    let mut report = Report {
        stream: args.stream.to_string(),
        to: args.to.to_string(),
        speed: args.speed,
        by: args.by,
        shards: merge.shards(),
        dry_run: args.dry_run,
        ..Report::default()
    };
    let speed = if args.dry_run { Speed::Max } else { args.speed };
    let mut player = Player {
        merge: &mut merge,
        pace: Pace::new(args.speed, args.max_gap),
        waits: speed != Speed::Max,
        left: args.limit.unwrap_or(u64::MAX),
        report: &mut report,
    };
    let shed = sink.drain(async |out| player.play(out, stop).await).await?;
    report.shed = shed;
    Ok((report, merge.found))
}

/// A file to write. One that is there is written over only by `force`; what is no file (a pipe, a device) holds nothing.
fn create(path: &Path, force: bool) -> Result<File, Failure> {
    let path_text = path.display();
    let fresh = || File::options().write(true).create_new(true).open(path);
    let opened = match fresh() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if !force && path.metadata().is_ok_and(|found| found.is_file()) {
                let what = format!("--to {path_text}: it is there; --force writes over it");
                return Err(Failure::Usage(what));
            }
            File::create(path)
        }
        opened => opened,
    };
    opened.map_err(|e| Failure::doing(format!("cannot write {path_text}"), e))
}

/// Takes records as they come and gives them on when they are due.
struct Player<'a> {
    merge: &'a mut Merge,
    pace: Pace,
    /// Whether it waits until they are due.
    waits: bool,
    /// Records still wanted.
    left: u64,
    report: &'a mut Report,
}

impl Player<'_> {
    async fn play(&mut self, out: &mut sink::Out, stop: &Stop) -> Result<(), Failure> {
        let alarm = Alarm::new().map_err(|e| Failure::doing("cannot set a timer", e))?;
        let mut lateness =
            Lateness::new().map_err(|e| Failure::doing("cannot measure lateness", e))?;
        let mut begun: Option<Instant> = None;
        while self.left > 0 {
            let next = tokio::select! {
                biased;
                () = stop.wait() => break,
                next = self.merge.next() => next?,
            };
            let Some(next) = next else { break };
            let due = Duration::from_nanos(self.pace.due(next.time_ns));
            while let (Some(begun), true) = (begun, self.waits && !stop.requested()) {
                let wait = due.saturating_sub(begun.elapsed());
                if wait.is_zero() {
                    break;
                }
                out.flush()?;
                tokio::select! {
                    biased;
                    () = stop.wait() => {}
                    rang = alarm.after(wait) => {
                        rang.map_err(|e| Failure::doing("cannot wait", e))?;
                    }
                }
            }
            if stop.requested() {
                break;
            }
            out.send(next.shard, &next.record).await?;
            if begun.is_none() && self.waits {
                // Connections are opened for the first: the clock starts when it is there.
                out.arrive().await;
            }
            let at = begun.get_or_insert_with(Instant::now).elapsed();
            if self.waits {
                lateness.add(at.saturating_sub(due));
            }
            self.left -= 1;
            self.report.sent(&next, due, at);
        }
        let (late, gaps) = lateness.figures().unzip();
        (self.report.lateness_ms, self.report.gap_error_ms) = (late, gaps);
        out.flush()
    }
}

/// Keeps what is in a stream in a file, as a trace: what a load run does first that follows a stream.
pub async fn keep(client: &Client, stream: &str, path: &Path) -> Result<u64, Failure> {
    let wanted = Wanted {
        from: highwater_client::Start::Oldest,
        until: None,
        shard: None,
        by: By::Arrival,
        filter: None,
    };
    let mut merge = Merge::open(client, stream, wanted, Found::new(None)?).await?;
    let mut report = Report::default();
    let mut player = Player {
        merge: &mut merge,
        pace: Pace::new(Speed::Max, None),
        waits: false,
        left: u64::MAX,
        report: &mut report,
    };
    let stop = Stop::new();
    let sink = Sink::lines(stream, create(path, true)?);
    sink.drain(async |out| player.play(out, &stop).await).await?;
    Ok(report.records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let to = |text: &str| text.parse::<To>().unwrap();
        let stream = |name| To::Stream(StreamName::new(name).unwrap());
        assert_eq!(to("-"), To::Stdout);
        for file in ["./copy", "/tmp/copy", "copy.jsonl", "copy.json", "a.ndjson"] {
            assert_eq!(to(file), To::File(file.into()));
        }
        assert_eq!(to("file:copy"), To::File("copy".into()));
        assert_eq!((to("copy"), to("a.dead")), (stream("copy"), stream("a.dead")));
        assert_eq!(to("stream:copy.jsonl"), stream("copy.jsonl"));
        assert!("a copy".parse::<To>().is_err());
    }

    #[test]
    fn a_file_that_is_there_is_written_over_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept.jsonl");
        drop(create(&path, false).unwrap());
        std::fs::write(&path, "kept").unwrap();
        let refused = create(&path, false).unwrap_err().to_string();
        assert!(refused.contains("kept.jsonl: it is there; --force"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"kept");
        drop(create(&path, true).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert!(create(Path::new("/dev/null"), false).is_ok());
        let nowhere = dir.path().join("none/kept.jsonl");
        assert!(matches!(create(&nowhere, false), Err(Failure::Failed(_))));
    }

    #[test]
    fn ends() {
        assert_eq!("17".parse(), Ok(Until::Sequence(17)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Until::Time(1_000_000_000)));
        assert!(matches!("-10m".parse(), Ok(Until::Time(_))));
        for wrong in ["oldest", "latest", "", "-"] {
            assert_eq!(wrong.parse::<Until>(), Err(UntilError), "{wrong}");
        }
    }
}
