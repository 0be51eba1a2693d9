//! The engine in this process beside fio on the same file system, alternating in one run (A B A B …), so
//! that a noisy machine troubles both alike. Ratios and medians; absolute figures only for orientation.
//!
//! `cargo run --release -p highwater-benches -- --dir DIR`

mod arrivals;
mod engine;
mod fio;
mod reads;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

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
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "appends")]
    what: Vec<What>,
    /// GiB of data that is found and read again.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Write them into this directory and die, as a part of the above.
    #[arg(long, hide = true)]
    fill: Option<PathBuf>,
}

/// A group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Appends as fast as they are taken, and one at a time.
    Appends,
    /// Appends by size of record and batch.
    Sizes,
    /// Starts, catch-up and tail.
    Reads,
    /// Single records by pattern of arrival.
    Arrivals,
}

/// Figures of one round by name.
type Row = Vec<(String, f64)>;
type Failure = Box<dyn std::error::Error>;

const FIO_WRITE: &str = "fio 256 KiB depth 4, MB/s";
const FIO_WRITE_AGAIN: &str = "fio 256 KiB depth 4 (again), MB/s";
const FIO_LONE: &str = "fio 4 KiB depth 1, p50 us";
const FIO_READ: &str = "fio 1 MiB reads depth 4, MB/s";
const LARGE: &str = "engine 1 KiB, MB/s";
const SMALL: &str = "engine 100 B, MB/s";
const LONE: &str = "engine lone append, p50 us";
const SPINNING: &str = "engine lone append, spinning, p50 us";
const DIRECT: &str = "core driven by the caller, lone append, p50 us";

/// What is held against fio, and what it has to come to.
const RATIOS: [(&str, &str, &str, &str); 6] = [
    ("1 KiB throughput / fio", LARGE, FIO_WRITE, ">= 0.9"),
    ("100 B throughput / fio", SMALL, FIO_WRITE_AGAIN, ">= 0.6"),
    ("lone append / fio", LONE, FIO_LONE, ""),
    ("lone append, driven by the caller / fio", DIRECT, FIO_LONE, "<= 1.15"),
    ("lone append, spinning / fio", SPINNING, FIO_LONE, ""),
    ("catch-up / fio", reads::CATCH_UP, FIO_READ, ">= 0.8"),
];

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(dir) = &args.fill {
        return reads::fill_and_die(dir, args.gib << 30, args.cpu);
    }
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let span = Duration::from_secs(args.seconds);
    let bench = engine::Bench::open(&scratch.path().join("engine"), args.cpu)?;
    println!("durability: {}", bench.durability());
    bench.warm_up()?;
    let mut direct = engine::Direct::open(&scratch.path().join("direct"))?;
    direct.lone(span)?; // warm up
    let fio = if args.engine_only { None } else { Some(fio::Fio::prepare(scratch.path())?) };
    let reads = reads::Reads::new(scratch.path(), args.gib << 30, args.cpu);

    let mut table = Vec::new();
    for round in 0..args.rounds {
        let mut row = Row::new();
        for what in &args.what {
            match what {
                What::Appends => {
                    appends(&mut row, &bench, &mut direct, fio.as_ref(), args.seconds)?
                }
                What::Sizes => sizes(&mut row, &bench, span)?,
                What::Reads => {
                    if let Some(fio) = &fio {
                        row.push((FIO_READ.to_owned(), fio.reading(args.seconds)? / 1e6));
                    }
                    row.extend(reads.round()?);
                }
                What::Arrivals => {
                    let (engine, shard) = bench.blocking();
                    row.extend(arrivals::round(engine, shard, span)?);
                }
            }
        }
        let figures: Vec<String> = row.iter().map(|(n, v)| format!("{n} {v:.1}")).collect();
        println!("round {}: {}", round + 1, figures.join("; "));
        table.push(row);
    }
    report(&table);
    Ok(())
}

fn appends(
    row: &mut Row,
    bench: &engine::Bench,
    direct: &mut engine::Direct,
    fio: Option<&fio::Fio>,
    seconds: u64,
) -> Result<(), Failure> {
    let span = Duration::from_secs(seconds);
    let mut note = |name: &str, figure: f64| row.push((name.to_owned(), figure));
    if let Some(fio) = fio {
        note(FIO_WRITE, fio.bandwidth(seconds)? / 1e6);
    }
    note(LARGE, bench.throughput(1024, span)?.bytes_per_s / 1e6);
    if let Some(fio) = fio {
        note(FIO_WRITE_AGAIN, fio.bandwidth(seconds)? / 1e6);
    }
    let small = bench.throughput(100, span)?;
    note(SMALL, small.bytes_per_s / 1e6);
    note("engine 100 B, M records/s", small.records_per_s / 1e6);
    if let Some(fio) = fio {
        note(FIO_LONE, fio.latency(seconds)?);
    }
    note(LONE, bench.lone(span)?);
    note(SPINNING, bench.lone_spinning(span)?);
    note(DIRECT, direct.lone(span)?);
    Ok(())
}

/// By size of record and batch, as many of either as fit together.
fn sizes(row: &mut Row, bench: &engine::Bench, span: Duration) -> Result<(), Failure> {
    for size in [100, 1 << 10, 10 << 10] {
        for batch in [1 << 10, 16 << 10, 64 << 10, 256 << 10] {
            if batch < size {
                continue;
            }
            let bytes_per_s = bench.throughput_of(size, batch, span)?.bytes_per_s;
            let name = format!("records of {size} B in batches of {} KiB, MB/s", batch >> 10);
            row.push((name, bytes_per_s / 1e6));
        }
    }
    Ok(())
}

/// Medians of the rounds, and of the rounds' ratios.
fn report(table: &[Row]) {
    let of = |row: &Row, name: &str| row.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    println!("\nmedians of {} rounds", table.len());
    for (name, _) in table.first().into_iter().flatten() {
        let figures = table.iter().filter_map(|row| of(row, name)).collect();
        println!("{name:<52} {:>10.1}", median(figures).unwrap_or(f64::NAN));
    }
    for (what, a, b, budget) in RATIOS {
        let ratios = table.iter().filter_map(|row| Some(of(row, a)? / of(row, b)?)).collect();
        if let Some(ratio) = median(ratios) {
            println!("{what:<52} {ratio:>10.2}  {budget}");
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
