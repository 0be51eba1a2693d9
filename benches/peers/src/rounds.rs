//! What is run, in which order: rounds in which every system has its turn at every load.

use std::time::{Duration, Instant};

use highwater_loadgen::{LoadOptions, Rate, Report, WarmUpRule, Workload, units};

use crate::Failure;
use crate::rivals::Contender;

/// What all runs have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    /// Rounds; each system has each load once in each of them
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Begin no round that would not be over by then, after the longest so far
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub within: Option<Duration>,
    /// What is measured of each run
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    pub length: Duration,
    /// What each run sends before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Payload bytes of a record
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1KiB,100", value_parser = bytes)]
    pub sizes: Vec<usize>,
    /// Producers, each with its own order
    #[arg(long, default_value_t = 4)]
    pub producers: usize,
    /// Bytes of a batch
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = bytes)]
    pub batch: usize,
    /// Unanswered batches of each producer
    #[arg(long, default_value_t = 16)]
    pub inflight: usize,
    /// CPU of the generator; empty for any
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", num_args = 0..)]
    pub load_cpus: Vec<usize>,
}

fn bytes(text: &str) -> Result<usize, String> {
    let size = units::size(text).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| "a number of bytes, as 100, 64KiB or 1MB".to_owned())
}

/// How a system is loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// As fast as it takes records; nobody reads.
    Max,
    /// The same, briefly, and everything is read and checked.
    Check,
    /// Records per second, open loop, read and checked.
    Rate(f64),
    /// One producer that waits for each record's acknowledgement; nobody reads.
    Lone,
}

impl Shape {
    fn options(&self, load: Load, size: usize) -> LoadOptions {
        let usual = LoadOptions::default();
        let common = LoadOptions {
            workload: Workload::Fixed { size },
            duration: self.length,
            warmup: WarmUpRule::Fixed(self.warmup),
            cores: self.load_cpus.clone(),
            delete_stream: true,
            // The table says how much was stolen.
            steal_bound: 1.0,
            ..usual.clone()
        };
        let batched = LoadOptions {
            producers: self.producers,
            batch_bytes: self.batch,
            inflight: self.inflight,
            ..common.clone()
        };
        match load {
            Load::Max => LoadOptions { rate: Rate::Max, consumers: Some(0), ..batched },
            Load::Check => LoadOptions {
                rate: Rate::Max,
                duration: Duration::from_secs(1),
                warmup: WarmUpRule::Fixed(Duration::ZERO),
                ..batched
            },
            Load::Rate(rate) => LoadOptions { rate: Rate::PerSecond(rate), ..batched },
            Load::Lone => {
                LoadOptions { clients: Some(1), rate: Rate::Max, consumers: Some(0), ..common }
            }
        }
    }
}

/// One run and what came of it.
pub struct Run {
    /// Index of the system.
    pub system: usize,
    /// Of a run at half a rival's rate: that rival's index.
    pub rival: usize,
    /// Payload bytes of a record.
    pub size: usize,
    /// Load.
    pub load: Load,
    /// Round, from 0; the runs before the first have none.
    pub round: Option<usize>,
    /// What was measured.
    pub report: Report,
}

/// How often a rival may be given up in the midst of a run before it is left out of those that follow.
const CHANCES: u32 = 2;

/// All runs, the first system being the one that the others are compared with.
pub struct Rounds<'a> {
    shape: &'a Shape,
    systems: &'a [Contender],
    stop: highwater_loadgen::Stop,
    /// In the order they were made.
    pub runs: Vec<Run>,
    /// Rounds that were made to their end.
    pub made: usize,
    /// By system, how often it was given up in the midst of a run.
    given_up: Vec<u32>,
    /// Systems that failed, and are left out from then on: index, when, and why.
    pub failed: Vec<(usize, String)>,
}

impl<'a> Rounds<'a> {
    /// None yet.
    pub fn new(
        shape: &'a Shape,
        systems: &'a [Contender],
        stop: highwater_loadgen::Stop,
    ) -> Rounds<'a> {
        let given_up = vec![0; systems.len()];
        Rounds { shape, systems, stop, runs: Vec::new(), made: 0, given_up, failed: Vec::new() }
    }

    /// Makes all of them, or as many as there is time for. A rival that fails is left out from then on.
    ///
    /// # Errors
    /// A run of Highwater that could not begin, or a request to stop.
    pub fn all(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        // What each can do decides at which rates it is compared; and it is warm then.
        let mut half = Vec::new();
        for size in self.shape.sizes.clone() {
            for system in 0..self.systems.len() {
                self.run(system, system, size, Load::Check, None)?;
                let rate = self.run(system, system, size, Load::Max, None)?;
                if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
                    half.push(Half { rival: system, size, rate: rate / 2.0 });
                }
            }
        }
        let mut longest = Duration::ZERO;
        for round in 0..self.shape.rounds {
            let start = begun.elapsed();
            if self.shape.within.is_some_and(|within| start + longest > within) {
                break;
            }
            self.round(round, &half)?;
            self.made = round + 1;
            longest = longest.max(begun.elapsed() - start);
        }
        Ok(())
    }

    /// Makes one round; `half` are the rates at which rivals and Highwater are compared.
    fn round(&mut self, round: usize, half: &[Half]) -> Result<(), Failure> {
        let order = |mut list: Vec<usize>| {
            // Whoever went first goes last in the next round.
            if round % 2 == 1 {
                list.reverse();
            }
            list
        };
        let systems: Vec<usize> = (0..self.systems.len()).collect();
        for size in self.shape.sizes.clone() {
            for system in order(systems.clone()) {
                self.run(system, system, size, Load::Max, Some(round))?;
            }
            for Half { rival, rate, .. } in
                half.iter().filter(|half| half.rival > 0 && half.size == size)
            {
                // Alone it would be compared with nothing.
                if self.is_out(*rival) {
                    continue;
                }
                for system in order(vec![*rival, 0]) {
                    self.run(system, *rival, size, Load::Rate(*rate), Some(round))?;
                }
            }
        }
        if let Some(size) = self.shape.sizes.first().copied() {
            for system in order(systems) {
                self.run(system, system, size, Load::Lone, Some(round))?;
            }
        }
        Ok(())
    }

    fn is_out(&self, system: usize) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == system)
    }

    /// Makes one and says so; gives the records per second, unless the system is out.
    fn run(
        &mut self,
        system: usize,
        rival: usize,
        size: usize,
        load: Load,
        round: Option<usize>,
    ) -> Result<Option<f64>, Failure> {
        if self.stop.level() > 0 {
            return Err("stopped before the end".into());
        }
        if self.is_out(system) {
            return Ok(None);
        }
        let contender = &self.systems[system];
        let when = round.map_or("before".to_owned(), |round| format!("round {}", round + 1));
        let ran = contender.run(self.shape.options(load, size), &self.stop);
        let report = match ran {
            Ok(report) => report,
            Err(error) if system > 0 => {
                self.fail(system, format!("{when}, {size} B, {load}: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let rate = report.records_per_s;
        let response = &report.latency_us.response;
        eprintln!(
            "{when:<8} {:<28} {size:>5} B {load:<20} {rate:>11.0} records/s  p50 {:>9.1} us  p99 {:>9.1} us{}",
            contender.name,
            response.p50,
            response.p99,
            report.void_reason.as_ref().map_or(String::new(), |why| format!("  VOID: {why}")),
        );
        if let Some(error) = &report.first_error {
            eprintln!("         first error: {error}");
        }
        if let Some(why) = report.ended_early.clone()
            && system > 0
        {
            self.given_up[system] += 1;
            if self.given_up[system] == CHANCES {
                self.fail(
                    system,
                    format!("{when}, {size} B, {load}: {why}; not for the first time"),
                );
            }
        }
        self.runs.push(Run { system, rival, size, load, round, report });
        Ok(Some(rate))
    }

    fn fail(&mut self, system: usize, why: String) {
        eprintln!("{} is left out from now on: {why}", self.systems[system].name);
        self.failed.push((system, why));
    }
}

/// At which rate a rival and Highwater are compared.
struct Half {
    /// Index of the system.
    rival: usize,
    /// Payload bytes of a record.
    size: usize,
    /// Half of what the rival takes, records per second.
    rate: f64,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Load::Max => "max".to_owned(),
            Load::Check => "max, all read".to_owned(),
            Load::Rate(rate) => format!("{rate:.0}/s, all read"),
            Load::Lone => "one at a time".to_owned(),
        };
        f.pad(&text)
    }
}
