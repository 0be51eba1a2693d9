//! `highwater dlq list`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use clap::Args;
use highwater_client::Client;
use highwater_wire::ShardDescription;
use serde::Serialize;

use super::Dead;
use super::letter::{Letter, Met, Span, each};
use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output, units};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Read so many letters of a stream for their reasons, the newest ones, and no more than 256 MiB; of more, how many
    /// there are is told without
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = units::count)]
    limit: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Different reasons counted; further ones together.
const REASONS: usize = 1_000;
const OTHERS: &str = "(others)";
/// Bytes of letters read of a stream, payloads and all: the server has no others to give.
const READ_BYTES: u64 = 256 << 20;

/// A stream of dead letters.
#[derive(Serialize)]
struct Listed {
    stream: String,
    /// Whose letters go there; none for those of `put`.
    groups: Vec<String>,
    /// Each origin counted once, as far as they were looked at.
    letters: u64,
    /// Of these, so many were read: the newest.
    looked: u64,
    oldest: Option<String>,
    newest: Option<String>,
    /// Of those that were read.
    reasons: Vec<Reason>,
    #[serde(skip)]
    oldest_ns: Option<u64>,
}

#[derive(Serialize)]
struct Reason {
    reason: String,
    letters: u64,
}

/// What was found of letters.
#[derive(Default)]
struct Found {
    met: Met,
    letters: u64,
    /// Letters that a crash buried once more.
    twice: u64,
    reasons: BTreeMap<String, u64>,
    oldest_ns: Option<u64>,
    newest_ns: Option<u64>,
}

impl Found {
    fn take(&mut self, letter: Letter) -> ControlFlow<()> {
        if !self.met.first(&letter.told) {
            self.twice += 1;
            return ControlFlow::Continue(());
        }
        self.letters += 1;
        let _one_of_many = self.seen(&letter);
        let reason = letter.told.reason;
        let known = self.reasons.contains_key(&reason) || self.reasons.len() < REASONS;
        let reason = if known { reason } else { OTHERS.to_owned() };
        *self.reasons.entry(reason).or_default() += 1;
        ControlFlow::Continue(())
    }

    /// There is such a letter.
    fn seen(&mut self, letter: &Letter) -> ControlFlow<()> {
        let since_ns = letter.since_ns();
        self.oldest_ns = self.oldest_ns.into_iter().chain([since_ns]).min();
        self.newest_ns = self.newest_ns.into_iter().chain([since_ns]).max();
        ControlFlow::Break(())
    }
}

fn letters(shard: &ShardDescription) -> u64 {
    shard.high_water.saturating_sub(shard.oldest)
}

/// Of which letters the reasons are read: the newest of each shard, `limit` over all of them.
fn newest(shards: &[ShardDescription], limit: u64) -> Vec<Span> {
    let all: u64 = shards.iter().map(letters).sum();
    let bytes: u64 = shards.iter().map(|shard| shard.log_bytes).sum();
    let fit = (u128::from(READ_BYTES) * u128::from(all) / u128::from(bytes.max(1))) as u64;
    let most = if bytes > READ_BYTES { limit.min(fit.max(1)) } else { limit };
    let span = |shard: &ShardDescription| {
        // Its part of them, by how many it has.
        let part = u128::from(letters(shard)) * u128::from(most.min(all)) / u128::from(all.max(1));
        let from = shard.high_water - part as u64;
        Span { shard: shard.shard, from, until: shard.high_water }
    };
    shards.iter().filter(|shard| letters(shard) > 0).map(span).collect()
}

/// Reads letters of a stream.
async fn look(client: &Client, dead: &Dead, limit: u64) -> Result<(Found, u64), Failure> {
    let shards = &dead.stream.shards;
    let mut found = Found::default();
    let spans = newest(shards, limit);
    let oldest =
        |span: &Span| shards.iter().find(|s| s.shard == span.shard).map_or(0, |s| s.oldest);
    if spans.iter().all(|span| span.from == oldest(span)) {
        each(client, dead, None, |letter| found.take(letter)).await?;
        let letters = found.letters;
        return Ok((found, letters));
    }
    for span in &spans {
        // Since when there are letters is worth one more; it may have been purged a moment ago.
        let first = Span { from: oldest(span), until: oldest(span) + 1, ..*span };
        let _gone = each(client, dead, Some(first), |letter| found.seen(&letter)).await;
    }
    for span in spans.into_iter().filter(|span| span.from < span.until) {
        each(client, dead, Some(span), |letter| found.take(letter)).await?;
    }
    let all: u64 = shards.iter().map(letters).sum();
    let letters = all.saturating_sub(found.twice);
    Ok((found, letters))
}

/// Carries it out.
pub async fn run(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let mut listed = Vec::new();
    for dead in super::all(&client).await? {
        let (found, letters) = look(&client, &dead, args.limit).await?;
        let reasons = found.reasons.into_iter().map(|(reason, letters)| Reason { reason, letters });
        let mut reasons: Vec<Reason> = reasons.collect();
        reasons.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.reason.cmp(&b.reason)));
        listed.push(Listed {
            stream: dead.name().to_owned(),
            groups: dead.groups,
            letters,
            looked: found.letters,
            oldest: found.oldest_ns.map(human::rfc3339),
            newest: found.newest_ns.map(human::rfc3339),
            reasons,
            oldest_ns: found.oldest_ns,
        });
    }
    if args.json {
        return output::json(&listed);
    }
    let now_ns = crate::when::now_ns();
    let rows = listed.iter().map(|of| of.row(now_ns));
    output::table(&["stream", "groups", "letters", "oldest", "reason"], &rows.collect::<Vec<_>>())
}

impl Listed {
    fn row(&self, now_ns: u64) -> Vec<String> {
        let dash = || "-".to_owned();
        let age = |at| human::nanos(now_ns.saturating_sub(at));
        let groups = if self.groups.is_empty() { dash() } else { self.groups.join(", ") };
        vec![
            self.stream.clone(),
            groups,
            human::grouped(self.letters),
            self.oldest_ns.map_or_else(dash, age),
            self.reasons.first().map_or_else(dash, |first| self.most(first)),
        ]
    }

    /// The reason most letters have.
    fn most(&self, first: &Reason) -> String {
        let reason: String = first.reason.chars().take(60).collect();
        let more = self.reasons.len() - 1;
        let more = if more > 0 { format!(" (and {more} other)") } else { String::new() };
        let looked = human::grouped(self.looked);
        let of = if self.looked < self.letters {
            format!(" of the newest {looked}")
        } else {
            String::new()
        };
        format!("{reason}: {}{of}{more}", human::grouped(first.letters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(shard: u32, oldest: u64, high_water: u64, log_bytes: u64) -> ShardDescription {
        ShardDescription { shard, oldest, high_water, log_bytes, ..ShardDescription::default() }
    }

    /// All payloads of a stream were read to list how many there are.
    #[test]
    fn of_many_letters_the_newest_are_read() {
        let spans = |shards: &[ShardDescription], limit| -> Vec<(u32, u64, u64)> {
            newest(shards, limit).iter().map(|s| (s.shard, s.from, s.until)).collect()
        };
        let few = [shard(0, 5, 15, 4096), shard(1, 3, 3, 0)];
        assert_eq!(spans(&few, 10_000), [(0, 5, 15)]);
        let many = [shard(0, 0, 90_000, 1 << 20), shard(1, 100, 10_100, 1 << 20)];
        assert_eq!(spans(&many, 10_000), [(0, 81_000, 90_000), (1, 9_100, 10_100)]);
        // A thousand of a mebibyte each.
        let large = [shard(0, 0, 1_000, 1_000 << 20)];
        assert_eq!(spans(&large, 10_000), [(0, 744, 1_000)]);
        assert_eq!(spans(&few, 0), [(0, 15, 15)]);
        assert_eq!(spans(&[], 7), []);
    }

    #[test]
    fn what_was_not_looked_at_is_said() {
        let reason = Reason { reason: "broken".to_owned(), letters: 3 };
        let listed = Listed {
            stream: "s.dead".to_owned(),
            groups: Vec::new(),
            letters: 100_000,
            looked: 10_000,
            oldest: None,
            newest: None,
            reasons: vec![reason],
            oldest_ns: Some(0),
        };
        let row = listed.row(61_000_000_000);
        assert_eq!(row, ["s.dead", "-", "100,000", "1m01s", "broken: 3 of the newest 10,000"]);
    }
}
