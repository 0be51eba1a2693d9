//! `highwater top`: the dashboard, live or of a recording; or measurements without it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Target;
use crate::dashboard::app::App;
use crate::dashboard::figures::Figures;
use crate::dashboard::model::{Model, Picture};
use crate::dashboard::once::{self, Gather, Measurement};
use crate::dashboard::recording::{self, Head, Recorder, Tape};
use crate::dashboard::source::{self, Live, Reading, Sample, Source as _, What};
use crate::dashboard::{self, Extras, LookArgs, Recording};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{output, units};

/// `highwater top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// One measurement as text instead of the dashboard. Exit code 0 healthy, 1 a rule of Watch fires, 5 no data
    #[arg(long)]
    once: bool,
    /// With --once: as JSON
    #[arg(long, requires = "once", conflicts_with = "jsonl")]
    json: bool,
    /// With --once: how long to measure, at least; it takes until the server's next figures after that: a second more,
    /// of a server with hundreds of busy shards up to ten
    #[arg(long, requires = "once", conflicts_with_all = ["jsonl", "replay"])]
    #[arg(default_value = "1s", value_parser = units::some_time)]
    span: Duration,
    /// A line of JSON for each sample instead of the dashboard
    #[arg(long, conflicts_with = "once")]
    jsonl: bool,
    /// With --jsonl: end after this many lines
    #[arg(long, value_name = "N", requires = "jsonl", conflicts_with = "once")]
    #[arg(value_parser = units::count)]
    limit: Option<u64>,
    /// Keep what is seen in this new file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["once", "replay"])]
    record: Option<PathBuf>,
    /// Show a recording instead of a server (with --once its last sample); - is standard input
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// With --replay: draw its last moment in this file, as an SVG picture, instead of playing it
    #[arg(long, value_name = "FILE", requires = "replay", conflicts_with_all = ["jsonl", "once"])]
    svg: Option<PathBuf>,
    /// With --svg: how large
    #[arg(long, value_name = "COLUMNSxROWS", requires = "svg", default_value = "120x36")]
    #[arg(value_parser = units::cells)]
    size: (u16, u16),
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    target: Target,
}

/// Figures have this much longer than what is to be measured: two samples, which a server with hundreds of busy
/// shards takes every ten seconds. One that does not answer at all is given up sooner.
const PATIENCE: Duration = Duration::from_secs(25);

/// Carries it out.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    match (&args.replay, args.jsonl) {
        (Some(file), _) if args.once => replay_once(args, file),
        (None, _) if args.once => once(args),
        (Some(file), true) => replay_lines(args, file),
        (Some(file), false) if args.svg.is_some() => draw(args, file),
        (Some(file), false) => replay(args, file),
        (None, true) => live_lines(args),
        (None, false) => show(args),
    }
}

fn show(args: &TopArgs) -> Result<(), Failure> {
    if !dashboard::possible() {
        let what =
            "top needs a terminal; use `top --once`, `--once --json` or `--jsonl` without one";
        return Err(Failure::Usage(what.to_owned()));
    }
    let extras = Extras { recording: recording(args)?, ..Extras::default() };
    let app = dashboard::run(Some(&args.target.target), &args.look, extras, &Stop::on_signals()?)?;
    if let Some(path) = &args.record {
        keep_marks(path, &app, &[]);
    }
    match once::line(app.picture()) {
        Some(line) => output::line(line),
        None => Ok(()),
    }
}

/// The new file of `--record`. One that is there is somebody's recording, and stays.
fn recording(args: &TopArgs) -> Result<Option<Recording>, Failure> {
    let Some(path) = &args.record else { return Ok(None) };
    let doing = |e: &dyn std::fmt::Display| {
        Failure::Failed(format!("cannot record to {}: {e}", path.display()))
    };
    // Marks are put behind what is there when the session ends.
    let mut file = std::fs::OpenOptions::new();
    let file = file.append(true).create_new(true).open(path).map_err(|e| doing(&e))?;
    let head = Head::new(&args.target.target, source::now_ns());
    Recorder::new(file, &head).map(Some).map_err(|e| doing(&e))
}

fn open(file: &Path) -> Result<Tape, Failure> {
    let name =
        if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
    Tape::open(file).map_err(|e| Failure::Unmeasured(format!("cannot replay {name}: {e}")))
}

fn replay(args: &TopArgs, file: &Path) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    // Keys come from the terminal, also when the recording comes through standard input.
    if !std::io::stdout().is_terminal() {
        let what = "top --replay needs a terminal; add --jsonl without one";
        return Err(Failure::Usage(what.to_owned()));
    }
    let tape = open(file)?;
    let name = name(&tape, file);
    let skipped = if let Tape::Recorded(recorded) = &tape { recorded.skipped } else { 0 };
    let marks = tape.marks().to_vec();
    let app = dashboard::replay(&name, tape, &args.look, &Stop::on_signals()?)?;
    if file != Path::new("-") {
        keep_marks(file, &app, &marks);
    }
    if skipped > 0 {
        note!("note: {} no sample", crate::human::plural(skipped, "line") + " held");
    }
    Ok(())
}

/// What a recording is called on the screen.
fn name(tape: &Tape, file: &Path) -> String {
    match (tape, file.file_name()) {
        (Tape::Recorded(recorded), None) => recorded.head.target.clone(),
        (_, Some(name)) => name.to_string_lossy().into_owned(),
        (_, None) => "replay".to_owned(),
    }
}

/// `--svg`.
fn draw(args: &TopArgs, file: &Path) -> Result<(), Failure> {
    let tape = open(file)?;
    let picture = dashboard::draw(&name(&tape, file), tape, &args.look, args.size);
    let Some(path) = &args.svg else { return Ok(()) };
    std::fs::write(path, picture)
        .map_err(|e| Failure::doing(format!("cannot write {}", path.display()), e))
}

/// Keeps what was marked with the recording, where that differs from what it has. What was seen was seen: marks that
/// cannot be kept are told, and no failure.
fn keep_marks(file: &Path, app: &App, known: &[u64]) {
    let marks: Vec<u64> = app.player.marks().collect();
    if marks == known {
        return;
    }
    if let Err(error) = recording::keep_marks(file, marks) {
        note!("note: the marks cannot be kept in {}: {error}", file.display());
    }
}

/// Writes a line for each sample that makes figures.
struct Lines {
    model: Model,
    out: std::io::BufWriter<std::io::Stdout>,
    left: u64,
}

impl Lines {
    fn new(args: &TopArgs) -> Lines {
        Lines { model: Model::new(), out: output::stdout(), left: args.limit.unwrap_or(u64::MAX) }
    }

    /// Takes in `sample`; false when there have been enough.
    fn take(&mut self, sample: Sample) -> Result<bool, Failure> {
        if let What::Snapshot(snapshot) = sample.what
            && self.model.take(snapshot)
            && let Some(measurement) = once::sample(&self.model, sample.at)
        {
            serde_json::to_writer(&mut self.out, &measurement)?;
            self.out.write_all(b"\n")?;
            self.left -= 1;
        }
        Ok(self.left > 0)
    }
}

fn replay_lines(args: &TopArgs, file: &Path) -> Result<(), Failure> {
    let tape = open(file)?;
    let mut lines = Lines::new(args);
    for sample in (tape.first()..tape.end()).filter_map(|index| tape.get(index)) {
        if !lines.take(sample)? {
            break;
        }
    }
    Ok(lines.out.flush()?)
}

fn live_lines(args: &TopArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let mut recording = recording(args)?;
    let mut lines = Lines::new(args);
    super::runtime()?.block_on(async {
        let (_asker, asks) = source::questions();
        let mut live = Live::new(&args.target.target, asks);
        loop {
            let reading = tokio::select! {
                reading = live.next() => reading,
                () = stop.wait() => None,
            };
            let Some(reading) = reading else {
                return match lines.model.picture().figures {
                    Some(_) => Ok(()),
                    None => {
                        Err(Failure::Unmeasured(format!("no figures from {}", args.target.target)))
                    }
                };
            };
            let Reading::Sample(sample) = reading else { continue };
            if let What::Lost(reason) = &sample.what {
                note!("no figures: {reason}");
            }
            if let Some(recorder) = &mut recording {
                recorder
                    .store(&sample)
                    .map_err(|e| Failure::doing("cannot write the recording", e))?;
            }
            let more = lines.take(sample)?;
            lines.out.flush()?;
            if !more {
                return Ok(());
            }
        }
    })
}

/// `--once`.
fn once(args: &TopArgs) -> Result<(), Failure> {
    let target = &args.target.target;
    let mut gather = Gather::new(args.span);
    let (figures, age) = super::runtime()?
        .block_on(async {
            tokio::time::timeout(args.span + PATIENCE, measure(args, &mut gather)).await
        })
        .unwrap_or_else(|_| {
            Err(Failure::Unmeasured(format!("no figures from {target} in time")))
        })?;
    tell(args, &figures, gather.picture(), age)
}

/// `--replay FILE --once`.
fn replay_once(args: &TopArgs, file: &Path) -> Result<(), Failure> {
    let tape = open(file)?;
    let mut model = Model::new();
    let mut age = Duration::ZERO;
    for sample in (tape.first()..tape.end()).filter_map(|index| tape.get(index)) {
        if let What::Snapshot(snapshot) = sample.what {
            age = Duration::from_nanos(sample.at.saturating_sub(snapshot.taken_ns));
            model.take(snapshot);
        }
    }
    let picture = model.picture();
    let figures = picture.figures.as_ref().ok_or_else(|| {
        Failure::Unmeasured(format!("no figures in {}: it needs two samples", file.display()))
    })?;
    tell(args, figures, picture, age)
}

/// One measurement, and whether all is well.
fn tell(
    args: &TopArgs,
    figures: &Figures,
    picture: &Picture,
    age: Duration,
) -> Result<(), Failure> {
    let measurement = Measurement::new(figures, picture, age);
    if args.json {
        output::json(&measurement)?;
    } else {
        let mut out = output::stdout();
        once::write_text(figures, picture, age, &mut out)?;
        out.flush()?;
    }
    if measurement.healthy() { Ok(()) } else { Err(Failure::Unhealthy) }
}

/// Figures over the span asked for, and how old they were when they came.
async fn measure(args: &TopArgs, gather: &mut Gather) -> Result<(Figures, Duration), Failure> {
    let target = &args.target.target;
    let (_asker, asks) = source::questions();
    let mut live = Live::new(target, asks);
    loop {
        let Some(Reading::Sample(sample)) = live.next().await else { continue };
        match sample.what {
            What::Lost(reason) => {
                return Err(Failure::Unmeasured(format!("no figures from {target}: {reason}")));
            }
            What::Snapshot(snapshot) => {
                // Both clocks are the same machine's or kept in step; a server ahead of us counts as no age.
                let age = Duration::from_nanos(sample.at.saturating_sub(snapshot.taken_ns));
                if let Some(figures) = gather.take(snapshot) {
                    return Ok((figures, age));
                }
            }
        }
    }
}
