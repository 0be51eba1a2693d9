//! `highwater dlq show`.

use std::io::Write;
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use highwater_process::record_line;
use serde::Serialize;
use serde_json::Value;

use super::Name;
use super::letter::{Letter, Met, Origin, each};
use crate::cli::Target;
use crate::failure::Failure;
use crate::human::{counted, rfc3339};
use crate::{output, units};

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A stream of dead letters, or a group
    #[arg(value_name = "NAME|GROUP")]
    name: Name,
    /// End after this many
    #[arg(long, value_name = "N", value_parser = units::count)]
    limit: Option<u64>,
    /// How they are printed
    #[arg(long, value_enum, default_value = "text")]
    format: ShowFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How dead letters are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// A line that says where it comes from and why, and the payload's beginning below
    Text,
    /// A JSON object a line: the record as `tail` prints it, and `reason`, `attempts` and `origin`
    Json,
    /// The payload, byte for byte, and a newline
    Payload,
}

/// What is said beside the record.
#[derive(Serialize)]
struct About<'a> {
    reason: &'a str,
    attempts: Option<u32>,
    /// When it first was a letter.
    since: String,
    /// How often it was written again since.
    kept: u32,
    origin: &'a Origin,
}

/// Characters of a payload shown.
const SHOWN: usize = 160;

/// Carries it out.
pub async fn run(args: ShowArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let (streams, group) = super::named(&client, args.name.as_str()).await?;
    let format = if args.json { ShowFormat::Json } else { args.format };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut out = output::stdout();
    let mut met = Met::default();
    for dead in &streams {
        let mut printed = Ok(());
        let take = |letter: Letter| {
            let others = group.is_some() && letter.told.origin.group != group;
            if others || !met.first(&letter.told) {
                return ControlFlow::Continue(());
            }
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            printed = print(dead.name(), &letter, format, &mut out);
            if printed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        each(&client, dead, None, take).await?;
        printed?;
    }
    Ok(out.flush()?)
}

fn print(
    stream: &str,
    letter: &Letter,
    format: ShowFormat,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (record, told) = (letter.record.view(), &letter.told);
    match format {
        ShowFormat::Payload => {
            out.write_all(record.payload)?;
            out.write_all(b"\n")?;
        }
        ShowFormat::Text => {
            let attempts =
                told.attempts.map(|n| format!(" after {}", counted(n.into(), "attempt")));
            writeln!(
                out,
                "{}  {}{}: {}",
                rfc3339(letter.since_ns()),
                told.place(),
                attempts.unwrap_or_default(),
                told.reason
            )?;
            let text = String::from_utf8_lossy(record.payload);
            let shown: String =
                text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
            writeln!(out, "    {shown}{more}")?;
        }
        ShowFormat::Json => {
            let mut line = Vec::new();
            record_line::write(stream, letter.shard, &record, letter.record.arrival_ns, &mut line)?;
            let mut value: Value = serde_json::from_slice(&line)?;
            let about = About {
                reason: &told.reason,
                attempts: told.attempts,
                since: rfc3339(letter.since_ns()),
                kept: told.kept,
                origin: &told.origin,
            };
            if let (Value::Object(value), Value::Object(about)) =
                (&mut value, serde_json::to_value(about)?)
            {
                value.extend(about);
            }
            serde_json::to_writer(&mut *out, &value)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}
