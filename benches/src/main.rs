//! The engine in this process beside fio on the same file system, alternating in one run (A B A B …), so
//! that a noisy machine troubles both alike. Ratios and medians; absolute figures only for orientation.
//!
//! `cargo run --release -p highwater-benches -- --dir DIR`

mod engine;
mod fio;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The engine beside fio.
#[derive(Parser)]
struct Args {
    /// Where to measure: a directory on the device in question.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// CPU of the engine's core.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Only the engine, for profiling.
    #[arg(long)]
    engine_only: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let span = Duration::from_secs(args.seconds);
    let bench = engine::Bench::open(&scratch.path().join("engine"), args.cpu)?;
    println!("durability: {}", bench.durability());
    bench.warm_up()?;
    let mut direct = engine::Direct::open(&scratch.path().join("direct"))?;
    direct.lone(span)?; // warm up
    let fio = if args.engine_only { None } else { Some(fio::Fio::prepare(scratch.path())?) };

    let mut table = Vec::new();
    for round in 0..args.rounds {
        let mut row = Vec::new();
        if let Some(fio) = &fio {
            row.push(("fio 256 KiB depth 4, MB/s", fio.bandwidth(args.seconds)? / 1e6));
        }
        row.push(("engine 1 KiB, MB/s", bench.throughput(1024, span)?.bytes_per_s / 1e6));
        if let Some(fio) = &fio {
            row.push(("fio 256 KiB depth 4 (again), MB/s", fio.bandwidth(args.seconds)? / 1e6));
        }
        let small = bench.throughput(100, span)?;
        row.push(("engine 100 B, MB/s", small.bytes_per_s / 1e6));
        row.push(("engine 100 B, M records/s", small.records_per_s / 1e6));
        if let Some(fio) = &fio {
            row.push(("fio 4 KiB depth 1, p50 us", fio.latency(args.seconds)?));
        }
        row.push(("engine lone append, p50 us", bench.lone(span)?));
        row.push(("engine lone append, spinning, p50 us", bench.lone_spinning(span)?));
        row.push(("core driven by the caller, lone append, p50 us", direct.lone(span)?));
        println!(
            "round {}: {}",
            round + 1,
            row.iter().map(|(n, v)| format!("{n} {v:.1}")).collect::<Vec<_>>().join("; ")
        );
        table.push(row);
    }
    let column = |name: &str| -> Option<f64> {
        let values = table.iter().flatten().filter(|(n, _)| *n == name).map(|(_, v)| *v);
        median(values.collect())
    };
    println!("\nmedians of {} rounds", args.rounds);
    for (name, _) in table.first().into_iter().flatten() {
        println!("{name:<44} {:>10.1}", column(name).unwrap_or(f64::NAN));
    }
    let pairs = |a: &str, b: &str| {
        let of = |row: &Vec<(&str, f64)>, name: &str| {
            row.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
        };
        median(table.iter().filter_map(|row| Some(of(row, a)? / of(row, b)?)).collect())
    };
    for (what, a, b, budget) in [
        ("1 KiB throughput / fio", "engine 1 KiB, MB/s", "fio 256 KiB depth 4, MB/s", ">= 0.6"),
        ("100 B throughput / fio", "engine 100 B, MB/s", "fio 256 KiB depth 4 (again), MB/s", ""),
        ("lone append / fio", "engine lone append, p50 us", "fio 4 KiB depth 1, p50 us", "<= 1.5"),
        (
            "lone append, driven by the caller / fio",
            "core driven by the caller, lone append, p50 us",
            "fio 4 KiB depth 1, p50 us",
            "<= 1.5",
        ),
        (
            "lone append, spinning / fio",
            "engine lone append, spinning, p50 us",
            "fio 4 KiB depth 1, p50 us",
            "<= 1.5",
        ),
    ] {
        if let Some(ratio) = pairs(a, b) {
            println!("{what:<44} {ratio:>10.2}  {budget}");
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
