//! `highwater dlq list`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use clap::Args;
use serde::Serialize;

use super::letter::{Met, each};
use crate::cli::Target;
use crate::failure::Failure;
use crate::{human, output};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Different reasons counted; further ones together.
const REASONS: usize = 1_000;
const OTHERS: &str = "(others)";

/// A stream of dead letters.
#[derive(Serialize)]
struct Listed {
    stream: String,
    /// Whose letters go there; none for those of `put`.
    groups: Vec<String>,
    /// Each origin counted once.
    letters: u64,
    oldest: Option<String>,
    newest: Option<String>,
    reasons: Vec<Reason>,
    #[serde(skip)]
    oldest_ns: Option<u64>,
}

#[derive(Serialize)]
struct Reason {
    reason: String,
    letters: u64,
}

/// Carries it out.
pub async fn run(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let mut listed = Vec::new();
    for dead in super::all(&client).await? {
        let (mut met, mut letters) = (Met::default(), 0);
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        let (mut oldest, mut newest) = (None, None);
        let count = |letter: super::letter::Letter| {
            if met.first(&letter.told) {
                letters += 1;
                oldest.get_or_insert(letter.record.arrival_ns);
                newest = Some(letter.record.arrival_ns);
                let reason = letter.told.reason;
                let known = reasons.contains_key(&reason) || reasons.len() < REASONS;
                let reason = if known { reason } else { OTHERS.to_owned() };
                *reasons.entry(reason).or_default() += 1;
            }
            ControlFlow::Continue(())
        };
        each(&client, &dead, None, count).await?;
        let reasons = reasons.into_iter().map(|(reason, letters)| Reason { reason, letters });
        let mut reasons: Vec<Reason> = reasons.collect();
        reasons.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.reason.cmp(&b.reason)));
        listed.push(Listed {
            stream: dead.name().to_owned(),
            groups: dead.groups,
            letters,
            oldest: oldest.map(human::rfc3339),
            newest: newest.map(human::rfc3339),
            reasons,
            oldest_ns: oldest,
        });
    }
    if args.json {
        return output::json(&listed);
    }
    let now_ns = crate::when::now_ns();
    let rows = listed.iter().map(|of| {
        let age = of
            .oldest_ns
            .map_or_else(|| "-".to_owned(), |at| human::nanos(now_ns.saturating_sub(at)));
        let first = of.reasons.first().map_or_else(
            || "-".to_owned(),
            |first| {
                let reason: String = first.reason.chars().take(60).collect();
                let more = of.reasons.len() - 1;
                let more = if more > 0 { format!(" (and {more} other)") } else { String::new() };
                format!("{reason}: {}{more}", human::grouped(first.letters))
            },
        );
        let groups = if of.groups.is_empty() { "-".to_owned() } else { of.groups.join(", ") };
        vec![of.stream.clone(), groups, human::grouped(of.letters), age, first]
    });
    output::table(&["stream", "groups", "letters", "oldest", "reason"], &rows.collect::<Vec<_>>())
}
