//! What is run, in which order: rounds in which every system has its turn at every load.

use std::time::Duration;

use highwater_loadgen::{LoadOptions, Rate, Report, WarmUpRule, Workload, units};

use crate::Failure;
use crate::rivals::Contender;

/// What all runs have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Shape {
    /// Rounds; each system has each load once in each of them
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// What is measured of each run
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub length: Duration,
    /// What each run sends before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
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

/// All runs, the first system being the one that the others are compared with.
pub struct Rounds<'a> {
    shape: &'a Shape,
    systems: &'a [Contender],
    stop: highwater_loadgen::Stop,
    /// In the order they were made.
    pub runs: Vec<Run>,
}

impl<'a> Rounds<'a> {
    /// None yet.
    pub fn new(
        shape: &'a Shape,
        systems: &'a [Contender],
        stop: highwater_loadgen::Stop,
    ) -> Rounds<'a> {
        Rounds { shape, systems, stop, runs: Vec::new() }
    }

    /// Makes all of them.
    ///
    /// # Errors
    /// A run that could not begin, or a request to stop.
    pub fn all(&mut self) -> Result<(), Failure> {
        let systems = 0..self.systems.len();
        // What each can do decides at which rates it is compared; and it is warm then.
        let mut half = Vec::new();
        for size in self.shape.sizes.clone() {
            for system in systems.clone() {
                self.run(system, system, size, Load::Check, None)?;
                let rate = self.run(system, system, size, Load::Max, None)?;
                half.push((system, size, rate / 2.0));
            }
        }
        for round in 0..self.shape.rounds {
            let order = |mut list: Vec<usize>| {
                // Whoever went first goes last in the next round.
                if round % 2 == 1 {
                    list.reverse();
                }
                list
            };
            for size in self.shape.sizes.clone() {
                for system in order(systems.clone().collect()) {
                    self.run(system, system, size, Load::Max, Some(round))?;
                }
                for &(rival, _, rate) in half.iter().filter(|(s, at, _)| *s > 0 && *at == size) {
                    for system in order(vec![rival, 0]) {
                        self.run(system, rival, size, Load::Rate(rate), Some(round))?;
                    }
                }
            }
            if let Some(size) = self.shape.sizes.first().copied() {
                for system in order(systems.clone().collect()) {
                    self.run(system, system, size, Load::Lone, Some(round))?;
                }
            }
        }
        Ok(())
    }

    /// Makes one and says so; gives the records per second.
    fn run(
        &mut self,
        system: usize,
        rival: usize,
        size: usize,
        load: Load,
        round: Option<usize>,
    ) -> Result<f64, Failure> {
        if self.stop.level() > 0 {
            return Err("stopped before the end".into());
        }
        let contender = &self.systems[system];
        let report = contender.run(self.shape.options(load, size), &self.stop)?;
        let rate = report.records_per_s;
        let response = &report.latency_us.response;
        eprintln!(
            "{:<8} {:<28} {size:>5} B {load:<20} {rate:>11.0} records/s  p50 {:>9.1} us  p99 {:>9.1} us{}",
            round.map_or("before".to_owned(), |round| format!("round {}", round + 1)),
            contender.name,
            response.p50,
            response.p99,
            report.void_reason.as_ref().map_or(String::new(), |why| format!("  VOID: {why}")),
        );
        if let Some(error) = &report.first_error {
            eprintln!("         first error: {error}");
        }
        self.runs.push(Run { system, rival, size, load, round, report });
        Ok(rate)
    }
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
