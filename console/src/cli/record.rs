//! `highwater record`: a flight recorder. It keeps the last hours of a server's figures in a file of bounded size.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Target;
use crate::dashboard::recording::Head;
use crate::dashboard::recording::ring::{Keep, Ring};
use crate::dashboard::source::{self, Live, Reading, Source as _, What};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{human, units};

/// `highwater record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The file; goes on if it is there. Look at it with `highwater top --replay FILE`
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How long samples are kept before they are overwritten
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::duration)]
    keep: Duration,
    /// Size of the file at most; comes before --keep
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = units::size)]
    max_size: u64,
    /// When to stop [default: on Ctrl-C or SIGTERM]
    #[arg(short, long, value_parser = units::duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

/// Carries it out.
pub fn run(args: &RecordArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let head = Head::new(&args.target.target, source::now_ns());
    let keep = Keep { time: args.keep, bytes: args.max_size };
    let name = args.output.display();
    let mut ring = Ring::open(&args.output, &head, keep)
        .map_err(|e| Failure::doing(format!("cannot record to {name}"), e))?;
    let samples = super::runtime()?.block_on(record(args, &mut ring, &stop))?;
    note!("{} in {name}", human::counted(samples, "sample"));
    match samples {
        0 => Err(Failure::Unmeasured(format!("no figures from {}", args.target.target))),
        _ => Ok(()),
    }
}

/// Stores what comes until it is to stop; how many samples had figures.
async fn record(args: &RecordArgs, ring: &mut Ring, stop: &Stop) -> Result<u64, Failure> {
    let (_asker, asks) = source::questions();
    let mut live = Live::new(&args.target.target, asks);
    // Longer than there is time for is for ever.
    let end = args.duration.and_then(|duration| tokio::time::Instant::now().checked_add(duration));
    let over = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let (mut samples, mut was_lost) = (0, false);
    loop {
        let reading = tokio::select! {
            reading = live.next() => reading,
            () = stop.wait() => None,
            () = &mut over => None,
        };
        let Some(reading) = reading else { return Ok(samples) };
        let Reading::Sample(sample) = reading else { continue };
        // That there was nothing is stored once, not with each attempt.
        let lost = matches!(sample.what, What::Lost(_));
        if !(lost && was_lost) {
            ring.store(&sample).map_err(|e| {
                Failure::doing(format!("cannot write {}", args.output.display()), e)
            })?;
        }
        if let (What::Lost(reason), false) = (&sample.what, was_lost) {
            note!("no figures: {reason}");
        }
        was_lost = lost;
        samples += u64::from(!lost);
    }
}
