//! What the generator itself can do, with nothing behind it: the report of one run on the null target, and
//! below it what its records cost.
//!
//! ```text
//! cargo run --release -p highwater-loadgen --example null -- [RATE|max] [SECONDS] [WORKLOAD|BYTES] [SHARDS] [TARGET]
//! ```
//!
//! One producer on one worker thread. Defaults: `max 5 100 1 null`. On a machine that others use as well,
//! records per second say little about the generator; records per second of CPU time (of the whole
//! process, the controlling thread included) hardly depend on them. Both are medians of the seconds measured.
//! At a given rate the thread spins shortly before each due time: then CPU time says nothing about the cost.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use highwater_loadgen::proof::Proof;
use highwater_loadgen::workload::Material;
use highwater_loadgen::{
    Keys, LoadOptions, Observer, Phase, Rate, Stop, Tick, WarmUpRule, Workload, run,
};
use highwater_wire::BatchBuilder;
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rate = match arguments.next().as_deref() {
        None | Some("max") => Rate::Max,
        Some(rate) => Rate::PerSecond(rate.parse()?),
    };
    let seconds = arguments.next().map_or(Ok(5.0), |seconds| seconds.parse())?;
    let workload = match arguments.next() {
        None => Workload::Fixed { size: 100 },
        Some(text) => match text.parse() {
            Ok(size) => Workload::Fixed { size },
            Err(_) => text.parse()?,
        },
    };
    let shards = arguments.next().map_or(Ok(1), |shards| shards.parse())?;
    let making = making(&workload)?;
    let options = LoadOptions {
        target: arguments.next().unwrap_or_else(|| "null".to_owned()),
        rate,
        shards,
        duration: Duration::try_from_secs_f64(seconds)?,
        warmup: WarmUpRule::Fixed(Duration::from_secs(1)),
        workload,
        ..LoadOptions::default()
    };
    let mut cost = Cost { cpu_s: cpu_seconds(), ..Cost::default() };
    println!("{}", run(options, &mut cost, &Stop::default())?);
    println!("drawing and writing a record: {making:.1} ns");
    println!("records per second          : {:.2} M", median(&mut cost.per_second) / 1e6);
    println!("records per CPU second      : {:.2} M", median(&mut cost.per_cpu_second) / 1e6);
    println!("CPU used                    : {:.2}", median(&mut cost.used));
    Ok(())
}

/// CPU time of this process, threads that have ended included.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Figures of each second of the measured window.
#[derive(Default)]
struct Cost {
    /// At the end of the interval before.
    cpu_s: f64,
    acked: u64,
    per_second: Vec<f64>,
    per_cpu_second: Vec<f64>,
    used: Vec<f64>,
}

impl Observer for Cost {
    fn tick(&mut self, tick: &Tick<'_>) {
        let (cpu_s, progress) = (cpu_seconds(), tick.progress);
        let (used, acked) = (cpu_s - self.cpu_s, progress.acked - self.acked);
        (self.cpu_s, self.acked) = (cpu_s, progress.acked);
        if progress.phase == Phase::Measure {
            self.per_second.push(progress.acked_per_s);
            self.per_cpu_second.push(acked as f64 / used);
            self.used.push(used / progress.interval_s);
        }
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds of CPU time to draw a record and write it to a batch, proof and checksum included: the
/// median of a few rounds.
fn making(workload: &Workload) -> Result<f64, Box<dyn Error>> {
    const ROUNDS: usize = 9;
    const BATCHES: usize = 100;
    const RECORDS: u64 = 1_000;
    let material = Arc::new(Material::prepare(workload, &Keys::default(), 1)?);
    let (mut source, mut writer) = (material.source(0, 1, 1), material.writer(1));
    let mut batch = BatchBuilder::default();
    let mut proof =
        Proof { producer: 0, run: 1, sequence: 0, intended_ns: 1_800_000_000_000_000_000 };
    let mut rounds = [0.0; ROUNDS];
    for round in &mut rounds {
        let begun = cpu_seconds();
        for _ in 0..BATCHES {
            for _ in 0..RECORDS {
                writer.push(&mut batch, &source.next(), &proof)?;
                proof.sequence += 1;
                proof.intended_ns += 100;
            }
            black_box(&batch);
            batch.clear();
        }
        *round = (cpu_seconds() - begun) * 1e9 / (BATCHES as u64 * RECORDS) as f64;
    }
    Ok(median(&mut rounds))
}
