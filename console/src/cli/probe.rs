//! `highwater probe`: what this machine can do by itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use highwater_loadgen::capacity::{ProbeFile, WriteFigure};
use highwater_loadgen::{ProbeError, ProbeOptions, probe};

use crate::failure::Failure;
use crate::signals::Stop;
use crate::{human, output, units};

/// `highwater probe`.
#[derive(Debug, Args)]
#[command(
    after_help = "Writes half a gigabyte into files without a name: nothing is left behind. Keep the JSON for \
    `highwater plan --probe FILE`."
)]
pub struct ProbeArgs {
    /// A directory on the file system to be probed
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How long to measure, all parts together; making the files comes on top
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    time: Duration,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(args: &ProbeArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let time = humantime::format_duration(args.time).to_string().replace(' ', "");
    let dir = args.dir.display().to_string();
    let command = ["highwater", "probe", dir.as_str(), "--for", &time, "--json"];
    let options = ProbeOptions {
        time: args.time,
        command: command.map(str::to_owned).into(),
        stop: stop.load().clone(),
    };
    note!("probing {dir} for about {time}");
    let found = probe(&args.dir, &options).map_err(|error| match error {
        ProbeError::Time(_) => Failure::Usage(format!("--for: {error}")),
        error => Failure::failed(error),
    })?;
    if args.json {
        return output::json(&found);
    }
    print(&found)
}

fn print(found: &ProbeFile) -> Result<(), Failure> {
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    let per_s = |bytes: f64| format!("{}/s", human::bytes(bytes));
    let direct = if found.direct { "O_DIRECT" } else { "through the page cache" };
    let buffers = if found.registered_buffers { "registered buffers" } else { "plain buffers" };
    output::line(format_args!(
        "{}: {}, {}, {direct}, {buffers}; {:.0} s\n",
        found.dir, found.filesystem, found.durability, found.spent_s
    ))?;
    let lone = |bytes: u64| found.unwritten.iter().find(|figure| figure.bytes == bytes);
    let row = |w: &WriteFigure| {
        // What recycled segments save: a write onto blocks that were only allocated, over this one.
        let fresh = lone(w.bytes).filter(|_| w.depth == 1);
        let fresh = fresh.map_or_else(String::new, |fresh| {
            format!("{} ({:.1}x)", us(fresh.p50_us), fresh.p50_us / w.p50_us)
        });
        vec![
            human::binary(w.bytes),
            w.depth.to_string(),
            us(w.p50_us),
            us(w.p99_us),
            per_s(w.bytes_per_s),
            fresh,
        ]
    };
    let rows: Vec<Vec<String>> = found.durable_write.iter().map(row).collect();
    let head = ["durable write", "in flight", "p50", "p99", "rate", "p50 on fresh blocks"];
    output::table(&head, &rows)?;
    output::line("")?;
    let rows: Vec<Vec<String>> = found
        .read
        .iter()
        .map(|r| {
            vec![human::binary(r.bytes), r.depth.to_string(), us(r.p50_us), per_s(r.bytes_per_s)]
        })
        .collect();
    output::table(&["sequential read", "in flight", "p50", "rate"], &rows)?;
    output::line("")?;
    let mut rows = vec![
        vec!["copy, one thread".to_owned(), per_s(found.copy_bytes_per_s)],
        vec!["CRC32C, one thread".to_owned(), per_s(found.crc_bytes_per_s)],
    ];
    if let Some(loopback) = found.loopback {
        let times = format!("{} (p99 {})", us(loopback.p50_us), us(loopback.p99_us));
        rows.push(vec!["loopback round trip".to_owned(), times]);
    }
    output::table(&["memory and network", ""], &rows)?;
    found.notes.iter().try_for_each(|note| output::line(format_args!("\n{note}")))
}
