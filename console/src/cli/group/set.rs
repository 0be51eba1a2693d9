//! `highwater group set`: how a group's records are delivered.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater_client::Client;
use highwater_wire::{DeliveryConfig, ErrorCode, GroupName, OutOfRange, StreamName};
use serde::Serialize;

use crate::cli::Target;
use crate::failure::Failure;
use crate::units::{self, UnitError};
use crate::{human, output};

#[derive(Debug, Args)]
pub struct SetArgs {
    /// The group; it need not exist yet, and nobody may be reading as a member of it if --delivery changes
    group: GroupName,
    /// In which stream
    #[arg(long, value_name = "STREAM")]
    stream: StreamName,
    /// positions: each shard has one, which members commit. records: each record is settled by itself, handed out again
    /// if it fails, and a dead letter if it fails too often [default: records]
    #[arg(long, value_enum)]
    delivery: Option<Delivery>,
    /// Records that are not settled so long after they were handed out have failed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    timeout: Option<Duration>,
    /// A record that failed so often is a dead letter [default: 3]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// What failed is handed out again after this, doubled with each attempt [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    retry_after: Option<Duration>,
    /// What failed is a dead letter so long after it was first handed out, however few attempts were made; 0s for never
    /// [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    max_age: Option<Duration>,
    /// The stream that dead letters go to; made when the first comes [default: STREAM.GROUP.dead]
    #[arg(long, value_name = "STREAM")]
    dead_letters: Option<StreamName>,
    /// Hand nothing out while more than this share of the records settled within this time became dead letters;
    /// none for no breaker [default: none]
    #[arg(long, value_name = "PERCENT,TIME|none")]
    breaker: Option<Breaker>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Delivery {
    /// Shards, read on from a position
    Positions,
    /// Records, settled one by one
    Records,
}

/// When to stop handing records out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Breaker {
    permille: u32,
    window: Duration,
}

/// Not a breaker.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum BreakerError {
    #[error("write a share and a time like 50%,1m, or none")]
    Form,
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("{0} is outside 0.1% to 100%")]
    Share(String),
}

impl FromStr for Breaker {
    type Err = BreakerError;

    fn from_str(text: &str) -> Result<Breaker, BreakerError> {
        if text == "none" {
            let window = Duration::from_millis(DeliveryConfig::default().breaker_window_ms.into());
            return Ok(Breaker { permille: 0, window });
        }
        let (share, window) = text.split_once(',').ok_or(BreakerError::Form)?;
        let permille = (units::share(share)? * 1e3).round() as u32;
        if permille == 0 {
            return Err(BreakerError::Share(share.to_owned()));
        }
        Ok(Breaker { permille, window: units::duration(window)? })
    }
}

/// How it is then, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    group: &'a str,
    stream: &'a str,
    /// Null for positions.
    delivery: Option<&'a DeliveryConfig>,
}

impl SetArgs {
    /// Whether anything is said that only records have.
    fn of_records(&self) -> Option<&'static str> {
        let given = [
            ("--timeout", self.timeout.is_some()),
            ("--attempts", self.attempts.is_some()),
            ("--retry-after", self.retry_after.is_some()),
            ("--max-age", self.max_age.is_some()),
            ("--dead-letters", self.dead_letters.is_some()),
            ("--breaker", self.breaker.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// What was said over what there is.
    fn over(&self, mut config: DeliveryConfig) -> Result<DeliveryConfig, Failure> {
        // What is too long to be sent is outside every range.
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let short = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        if let Some(time) = self.timeout {
            config.timeout_ms = short(time);
        }
        if let Some(attempts) = self.attempts {
            config.attempts = attempts;
        }
        if let Some(time) = self.retry_after {
            config.retry_after_ms = short(time);
        }
        if let Some(time) = self.max_age {
            config.max_age_ms = ms(time);
        }
        if let Some(stream) = &self.dead_letters {
            config.dead_letters = stream.to_string();
        }
        if let Some(breaker) = self.breaker {
            config.breaker_permille = breaker.permille;
            config.breaker_window_ms = short(breaker.window);
        }
        config.check().map_err(|out| Failure::Usage(self.outside(&out)))?;
        let (group, stream) = (self.group.as_str(), self.stream.as_str());
        let name = config.dead_letters_of(group, stream);
        if name == stream {
            let what =
                format!("--dead-letters is {name}: dead letters would come again from there");
            return Err(Failure::Usage(what));
        }
        if let Err(reason) = StreamName::new(&name) {
            let what = format!("--dead-letters is {name}, as nothing else is said: {reason}");
            return Err(Failure::Usage(what));
        }
        Ok(config)
    }

    /// What is wrong with a value, by its flag and as it was typed.
    fn outside(&self, out: &OutOfRange) -> String {
        let time = |ms: u64| human::span(Duration::from_millis(ms));
        let typed = |time: Option<Duration>| human::span(time.unwrap_or_default());
        let (least, most) = (*out.range.start(), *out.range.end());
        let (flag, value) = match out.field {
            "timeout_ms" => ("--timeout", typed(self.timeout)),
            "retry_after_ms" => ("--retry-after", typed(self.retry_after)),
            "breaker_window_ms" => ("--breaker", typed(self.breaker.map(|b| b.window))),
            "attempts" => {
                return format!("--attempts is {}; {least} to {most} are allowed", out.value);
            }
            _ => return out.to_string(),
        };
        format!("{flag} is {value}; {} to {} are allowed", time(least), time(most))
    }
}

/// How a group's records of a stream are delivered now; `None` for positions, or if there is no such group.
async fn current(
    client: &Client,
    group: &str,
    stream: &str,
) -> Result<Option<DeliveryConfig>, Failure> {
    let described = match client.describe_group(group).await {
        Err(e) if e.code() == Some(ErrorCode::UnknownGroup) => Vec::new(),
        described => {
            described.map_err(|e| Failure::doing(format!("cannot describe group {group}"), e))?
        }
    };
    let found = described.into_iter().find(|of| of.stream == stream);
    Ok(found.and_then(|of| of.delivery).map(|delivery| delivery.config))
}

/// Carries it out.
pub async fn run(args: SetArgs) -> Result<(), Failure> {
    let (group, stream) = (args.group.as_str(), args.stream.as_str());
    if args.delivery == Some(Delivery::Positions)
        && let Some(flag) = args.of_records()
    {
        let what = format!("{flag} with --delivery positions, which has no such thing");
        return Err(Failure::Usage(what));
    }
    let client = args.target.connect().await?;
    let config = match args.delivery {
        Some(Delivery::Positions) => None,
        _ => Some(args.over(current(&client, group, stream).await?.unwrap_or_default())?),
    };
    client
        .set_group(group, stream, config.clone())
        .await
        .map_err(|e| Failure::doing(format!("cannot set group {group} in {stream}"), e))?;
    if args.json {
        return output::json(&Done { group, stream, delivery: config.as_ref() });
    }
    output::line(match &config {
        None => format!("group {group} keeps positions in {stream}"),
        Some(config) => {
            format!(
                "group {group} settles {stream} record by record: {}",
                words(config, group, stream)
            )
        }
    })
}

/// A configuration in words.
pub fn words(config: &DeliveryConfig, group: &str, stream: &str) -> String {
    let time = |ms: u64| human::span(Duration::from_millis(ms));
    let mut words = format!(
        "{} to settle, {}, the next after {}",
        time(config.timeout_ms.into()),
        human::counted(config.attempts.into(), "attempt"),
        time(config.retry_after_ms.into()),
    );
    if config.max_age_ms > 0 {
        words += &format!(", for {} at most", time(config.max_age_ms));
    }
    words += &format!("; dead letters in {}", config.dead_letters_of(group, stream));
    if config.breaker_permille > 0 {
        let (share, window) =
            (f64::from(config.breaker_permille) / 10.0, time(config.breaker_window_ms.into()));
        words += &format!("; breaker at {share} % within {window}");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers() {
        let breaker = |text: &str| text.parse::<Breaker>();
        let minute = Duration::from_secs(60);
        assert_eq!(breaker("50%,1m"), Ok(Breaker { permille: 500, window: minute }));
        assert_eq!(breaker("0.5%,1m"), Ok(Breaker { permille: 5, window: minute }));
        assert_eq!(breaker("none").unwrap().permille, 0);
        for wrong in ["", "50%", "0%,1m", "101%,1m", "50%,soon"] {
            assert!(breaker(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: SetArgs,
    }

    #[test]
    fn values_outside_their_range_are_told_by_flag() {
        use clap::Parser as _;
        let told = |flags: &str| {
            let words = ["set", "g", "--stream", "s"].into_iter().chain(flags.split(' '));
            let alone = Alone::try_parse_from(words).unwrap();
            match alone.args.over(DeliveryConfig::default()) {
                Err(Failure::Usage(told)) => told,
                other => panic!("{flags}: {other:?}"),
            }
        };
        let table = [
            ("--timeout 1ms", "--timeout is 1ms; 100ms to 12h are allowed"),
            (
                "--timeout 60days",
                "--timeout is 1month 29days 13h 26m 24s; 100ms to 12h are allowed",
            ),
            ("--attempts 0", "--attempts is 0; 1 to 1000 are allowed"),
            ("--retry-after 2h", "--retry-after is 2h; 0s to 1h are allowed"),
            ("--breaker 50%,10ms", "--breaker is 10ms; 1s to 1h are allowed"),
            ("--dead-letters s", "--dead-letters is s: dead letters would come again from there"),
        ];
        for (flags, words) in table {
            assert_eq!(told(flags), words);
        }
    }

    #[test]
    fn settings_in_words() {
        let config = DeliveryConfig { breaker_permille: 500, ..DeliveryConfig::default() };
        assert_eq!(
            words(&config, "g", "s"),
            "30s to settle, 3 attempts, the next after 1s; dead letters in s.g.dead; breaker at 50 % within 1m"
        );
    }
}
