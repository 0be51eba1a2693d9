//! `highwater top`: the dashboard, or one measurement without it.

use std::time::Duration;

use clap::Args;

use super::Target;
use crate::dashboard::once::{self, Measurement};
use crate::dashboard::{self, figures, source, watch};
use crate::failure::Failure;
use crate::signals::Stop;
use crate::{output, units};

/// `highwater top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// One measurement as text instead of the dashboard
    #[arg(long)]
    once: bool,
    /// With --once: as JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// With --once: how long to measure
    #[arg(long, requires = "once", default_value = "1s", value_parser = units::duration)]
    span: Duration,
    #[command(flatten)]
    target: Target,
}

/// Carries it out.
pub fn run(args: TopArgs) -> Result<(), Failure> {
    if args.once {
        return measure(&args);
    }
    if !dashboard::possible() {
        let what = "top needs a terminal; use `top --once` (or `--once --json`) without one";
        return Err(Failure::Usage(what.to_owned()));
    }
    let model = dashboard::run(&args.target.target, &Stop::on_signals()?)?;
    match once::line(model.picture()) {
        Some(line) => output::line(line),
        None => Ok(()),
    }
}

fn measure(args: &TopArgs) -> Result<(), Failure> {
    let target = &args.target.target;
    let runtime = super::runtime()?;
    let (first, second) = runtime
        .block_on(source::pair(target, args.span))
        .map_err(|e| Failure::Unmeasured(format!("no figures from {target}: {e}")))?;
    let figures = figures::between(&first, &second)
        .ok_or_else(|| Failure::Unmeasured(format!("no figures from {target}: no time passed")))?;
    // Both clocks are the same machine's or kept in step; a server ahead of us counts as no age.
    let age = Duration::from_nanos(now_ns().saturating_sub(second.taken_ns));
    if args.json {
        return output::json(&Measurement::new(&figures, second.durable, age));
    }
    let mut out = output::stdout();
    if !second.durable {
        let why = watch::volatile(&second.warnings, &second.durability);
        std::io::Write::write_all(&mut out, format!("{why}\n").as_bytes())?;
    }
    once::write_text(&figures, age, &mut out)?;
    Ok(std::io::Write::flush(&mut out)?)
}

fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
