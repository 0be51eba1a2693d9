//! `highwater load run`: load, measured.

mod echo;
mod slo;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use highwater_loadgen::{Arrival, LoadError, LoadOptions, Phase, Progress, Rate, Report};

use super::Target;
use super::stream::Ack;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::units::{self, Cores};
use crate::{human, output};
use slo::Slo;

/// `highwater load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Debug, Subcommand)]
enum LoadCommand {
    /// Offer load at a rate, measure it, and check that everything arrives once and in order
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Records a second in total, or max to saturate [default: 10k]
    #[arg(short, long, value_name = "RATE|max", value_parser = units::rate)]
    rate: Option<units::Rate>,
    /// How long to measure [default: 10s]
    #[arg(short, long, value_parser = units::duration)]
    duration: Option<Duration>,
    /// Before it, at the same rate, not measured [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    warmup: Option<Duration>,
    /// Payload of a record [default: 1KiB]
    #[arg(long, value_name = "BYTES", value_parser = units::record_size)]
    size: Option<u64>,
    /// Producers, each with its own order [default: 1]
    #[arg(long, value_name = "N")]
    producers: Option<usize>,
    /// Consumers; 0 for none, then nothing is checked [default: one per shard]
    #[arg(long, value_name = "N")]
    consumers: Option<usize>,
    /// The stream; created if missing [default: load- and a random number]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Shards of a stream created [default: 1]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Acknowledgement of a stream created
    #[arg(long, value_enum, default_value_t)]
    ack: Ack,
    /// Bytes kept of a stream created [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    retention_bytes: Option<u64>,
    /// How records are spaced
    #[arg(long, value_enum, default_value_t)]
    arrival: Spacing,
    /// Closed loop instead: N callers with one record outstanding each
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// A batch is sent at this size [default: 256KiB]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    batch: Option<u64>,
    /// ... or this long after its first record [default: 200us]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    linger: Option<Duration>,
    /// Batches not yet acknowledged, per producer and shard [default: 16]
    #[arg(long, value_name = "N")]
    inflight: Option<usize>,
    /// Connections to each core of the server, per worker [default: 1]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Pin the workers to these CPUs [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = units::cores)]
    cores: Option<Cores>,
    /// Seed of arrivals, keys and payloads [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Wait awake for this long before a record is due [default: 60us]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    spin: Option<Duration>,
    /// Longest wait at the end for acknowledgements and consumers [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    drain_timeout: Option<Duration>,
    /// A bound that decides the exit code: 1 not met, 5 no valid measurement. p50 to p99.99 or max of response,
    /// or of propagation (propagation.p99=20ms); may be given several times
    #[arg(long, value_name = "p99=10ms")]
    slo: Vec<Slo>,
    /// Write the report as JSON; - for standard output instead of the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// How records are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Spacing {
    /// Evenly
    #[default]
    Constant,
    /// As independent producers behave
    Poisson,
}

impl RunArgs {
    /// What was typed over the generator's own defaults.
    fn options(&self) -> Result<LoadOptions, Failure> {
        let mut options =
            LoadOptions { target: self.target.target.clone(), ..LoadOptions::default() };
        set(
            &mut options.rate,
            self.rate.map(|rate| match rate {
                units::Rate::Max => Rate::Max,
                units::Rate::PerSecond(rate) => Rate::PerSecond(rate),
            }),
        );
        set(&mut options.duration, self.duration);
        set(&mut options.warmup, self.warmup);
        set(&mut options.record_size, self.size.map(|size| size as usize));
        set(&mut options.producers, self.producers);
        set(&mut options.stream, self.stream.clone());
        set(&mut options.shards, self.shards);
        set(&mut options.retention_bytes, self.retention_bytes);
        let batch = self.batch.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        set(&mut options.batch_bytes, batch);
        set(&mut options.linger, self.linger);
        set(&mut options.inflight, self.inflight);
        set(&mut options.connections, self.connections);
        set(&mut options.cores, self.cores.clone().map(|cores| cores.0));
        set(&mut options.seed, self.seed);
        set(&mut options.spin, self.spin);
        set(&mut options.drain_timeout, self.drain_timeout);
        (options.consumers, options.clients) = (self.consumers, self.clients);
        options.ack = self.ack.into();
        options.arrival = match self.arrival {
            Spacing::Constant => Arrival::Constant,
            Spacing::Poisson => Arrival::Poisson,
        };
        options.validate().map_err(|e| Failure::Usage(e.to_string()))?;
        Ok(options)
    }
}

fn set<T>(field: &mut T, typed: Option<T>) {
    if let Some(value) = typed {
        *field = value;
    }
}

/// Carries it out.
pub fn run(args: LoadArgs) -> Result<(), Failure> {
    let LoadCommand::Run(args) = args.command;
    let options = args.options()?;
    let stop = Stop::on_signals()?;
    eprintln!("{}", echo::command(&options));
    let report = highwater_loadgen::run(options, |p| eprintln!("{}", line(&p)), stop.flag())
        .map_err(failure)?;
    match args.json.as_deref() {
        None => output::text(&report)?,
        Some(path) if path.as_os_str() == "-" => output::json(&report)?,
        Some(path) => {
            let doing = || format!("cannot write {}", path.display());
            let mut file = File::create(path).map_err(|e| Failure::doing(doing(), e))?;
            serde_json::to_writer_pretty(&mut file, &report)?;
            writeln!(file).map_err(|e| Failure::doing(doing(), e))?;
            output::text(&report)?;
        }
    }
    verdict(&report, &args.slo)
}

/// What the exit code says: records in doubt first, then the bounds asked for. A measurement that is not valid
/// matters only to those who set a bound.
fn verdict(report: &Report, slos: &[Slo]) -> Result<(), Failure> {
    if !report.intact() {
        let what = format!(
            "lost {} duplicated {} reordered {} corrupted {}",
            report.lost, report.duplicated, report.reordered, report.corrupted
        );
        return Err(Failure::Failed(what));
    }
    if report.unread > 0 && report.read_errors > 0 {
        let why = report.first_error.as_deref().unwrap_or("reading failed");
        let unread = human::grouped(report.unread);
        return Err(Failure::Failed(format!(
            "{unread} acknowledged records could not be read: {why}"
        )));
    }
    if report.acked_records == 0 {
        let why = match &report.first_error {
            Some(error) => error,
            None if report.unsent > 0 => "the target or this generator is too slow for the rate",
            None => "the run was too short",
        };
        return Err(Failure::Failed(format!("nothing that counts was acknowledged: {why}")));
    }
    if slos.is_empty() {
        return Ok(());
    }
    if let Some(reason) = &report.void_reason {
        return Err(Failure::Unmeasured(format!("not a valid measurement: {reason}")));
    }
    slos.iter().try_for_each(|slo| slo.check(&report.latency_us))
}

/// A run that could not be: what was asked for was wrong, or it failed.
pub fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::OutOfRange { .. }
        | LoadError::Rate { .. }
        | LoadError::Duration { .. }
        | LoadError::StreamName { .. }
        | LoadError::RecordTooLarge { .. }
        | LoadError::Memory { .. }
        | LoadError::Consumers { .. } => Failure::Usage(error.to_string()),
        other => Failure::Failed(crate::failure::chain(&other)),
    }
}

/// Progress as a line.
pub fn line(p: &Progress) -> String {
    let phase = match p.phase {
        Phase::Warmup => "warm-up",
        Phase::Measure => "measure",
        Phase::Drain => "drain",
    };
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    let mut line = format!(
        "{:>4}s {phase:<7}  in {:>6}/s {:>8}/s  out {:>6}/s {:>8}/s  propagation p50 {} p99 {} p99.9 {}  backlog {}",
        p.elapsed.as_secs_f64().round(),
        human::count(p.acked_per_s),
        human::bytes(p.acked_bytes_per_s),
        human::count(p.consumed_per_s),
        human::bytes(p.consumed_bytes_per_s),
        us(p.propagation.p50),
        us(p.propagation.p99),
        us(p.propagation.p999),
        human::grouped(p.backlog),
    );
    for (name, count) in [("unsent", p.unsent), ("refused", p.refused), ("errors", p.errors)] {
        if count > 0 {
            line += &format!("  {name} {}", human::grouped(count));
        }
    }
    line
}

#[cfg(test)]
mod tests;
