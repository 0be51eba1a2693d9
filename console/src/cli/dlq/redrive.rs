//! `highwater dlq redrive`: dead letters are given to their group again, which then gets the records of the log and no
//! copies; or they are copied into a stream. What was done with is trimmed from the stream of dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clap::Args;
use highwater_client::wire::Header;
use highwater_client::{Client, Producer, ProducerOptions, SendError};
use highwater_wire::{ErrorCode, SequenceRange, StreamName, TrimBefore};
use serde::Serialize;

use super::letter::{Letter, Met, Span, Told, each, send};
use super::{Dead, Name};
use crate::cli::Target;
use crate::failure::{Failure, chain};
use crate::human::counted;
use crate::output;

#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// The group, or a stream of dead letters
    #[arg(value_name = "GROUP|NAME")]
    name: Name,
    /// Copy them into this stream, as the records they were, instead of giving them to their group again: those of
    /// `put`, and those that retention has removed from the stream they come from
    #[arg(long, value_name = "STREAM")]
    to: Option<StreamName>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Letters taken at once, at most: they are held in memory, and what stays of them is written again.
const ROUND: usize = 1_000;
/// Bytes of them, likewise.
const ROUND_BYTES: usize = 16 << 20;
/// Ranges in one request.
const RANGES: usize = 250;
/// How long a group that has as much to work off as it may is waited for, if it does not work any of it off.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(250);

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Done {
    dry_run: bool,
    /// Given to their groups again.
    redriven: u64,
    /// Copied into the stream.
    copied: u64,
    /// Those that stay, by reason.
    kept: BTreeMap<&'static str, u64>,
}

/// Why a letter stays.
const GONE: &str = "the record is not kept any more (copy the letters with --to STREAM)";
const NO_GROUP: &str = "it is no record of a group (copy the letters with --to STREAM)";
const REFUSED: &str = "its group does not settle this stream record by record";
const CUT: &str = "not all of the record is here";
const ANEW: &str =
    "the stream it comes from is another one now, or none (copy the letters with --to STREAM)";
const OTHERWISE: &str = "the server refuses it (the note says why)";
const FULL: &str = "its group has enough to work off first; then give them again";
const OTHER: &str = "it is of another group";

/// Why the server, asked to, does not take one.
const ASKED: [&str; 3] = [GONE, OTHERWISE, FULL];

impl Done {
    fn keeps(&mut self, why: &'static str, letters: u64) {
        *self.kept.entry(why).or_default() += letters;
    }

    /// Letters that nothing spoke against and that were tried, whatever came of it.
    fn tried(&self) -> u64 {
        let stay: u64 = ASKED.iter().filter_map(|why| self.kept.get(why)).sum();
        self.redriven + self.copied + stay
    }

    /// A shard was left because a group is full, with so many letters that nothing spoke against, and `before` tried
    /// when it was begun: the others have not been touched.
    fn left(&mut self, promised: u64, before: u64) {
        let tried = self.tried() - before;
        self.keeps(FULL, promised.saturating_sub(tried));
    }
}

/// What is done with letters.
struct Redrive<'a> {
    client: &'a Client,
    /// Only those of this group.
    group: Option<String>,
    to: Option<(StreamName, Producer)>,
    dry_run: bool,
    known: Known,
    /// A group has as much to work off as it may.
    full: bool,
    done: Done,
}

/// What is there now.
struct Known {
    /// Streams, and when they were made, nanoseconds since 1970 UTC.
    streams: BTreeMap<String, u64>,
    /// Groups that settle record by record, and in which streams.
    groups: BTreeSet<(String, String)>,
}

impl Known {
    async fn of(client: &Client) -> Result<Known, Failure> {
        let listing = |e| Failure::doing("cannot list streams and groups", e);
        let streams = client.list_streams().await.map_err(listing)?;
        let groups = client.list_groups("").await.map_err(listing)?;
        let settles = groups.into_iter().filter(|group| group.delivery.is_some());
        Ok(Known {
            streams: streams.into_iter().map(|s| (s.name, s.created_ns)).collect(),
            groups: settles.map(|group| (group.group, group.stream)).collect(),
        })
    }

    /// Why a group cannot be given the record that a letter is of.
    fn obstacle(&self, told: &Told) -> Option<&'static str> {
        let Some((group, stream, ..)) = told.given_up() else { return Some(NO_GROUP) };
        // A stream of the same name has other records under the same numbers.
        match (self.streams.get(stream), told.origin.arrival_ns) {
            (Some(created_ns), Some(arrival_ns)) if arrival_ns >= *created_ns => {}
            _ => return Some(ANEW),
        }
        let settles = self.groups.contains(&(group.to_owned(), stream.to_owned()));
        (!settles).then_some(REFUSED)
    }
}

/// Carries it out.
pub async fn run(args: RedriveArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let (streams, group) = super::named(&client, args.name.as_str()).await?;
    let to = match &args.to {
        None => None,
        Some(name) if streams.iter().any(|dead| dead.name() == name.as_str()) => {
            return Err(Failure::Usage(format!("--to {name} is where the letters are")));
        }
        Some(name) => Some((name.clone(), producer(&client, name.as_str()).await?)),
    };
    let done = Done { dry_run: args.dry_run, ..Done::default() };
    let known = Known::of(&client).await?;
    let mut redrive =
        Redrive { client: &client, group, to, dry_run: args.dry_run, known, full: false, done };
    for dead in &streams {
        redrive.stream(dead).await?;
    }
    let done = redrive.done;
    if args.json {
        output::json(&done)?;
    } else {
        let would = if done.dry_run { "would be " } else { "" };
        let (redriven, copied) = (counted(done.redriven, "letter"), counted(done.copied, "letter"));
        match &args.to {
            None => output::line(format!("{redriven} {would}given again"))?,
            Some(to) => output::line(format!("{copied} {would}copied to {to}"))?,
        }
        for (why, letters) in &done.kept {
            output::line(format!("{} kept: {why}", counted(*letters, "letter")))?;
        }
    }
    let stuck: u64 = done.kept.iter().filter(|(why, _)| **why != OTHER).map(|(_, n)| n).sum();
    match stuck {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 dead letter stays".to_owned())),
        _ => Err(Failure::Failed(format!("{} stay", counted(stuck, "dead letter")))),
    }
}

async fn producer(client: &Client, stream: &str) -> Result<Producer, Failure> {
    let producer = client.producer(stream, ProducerOptions::default()).await;
    producer.map_err(|e| Failure::doing(format!("cannot write to stream {stream}"), e))
}

impl Redrive<'_> {
    /// All letters of a stream that were there when it began, some at a time.
    async fn stream(&mut self, dead: &Dead) -> Result<(), Failure> {
        for shard in &dead.stream.shards {
            let mut span = Span { shard: shard.shard, from: shard.oldest, until: shard.high_water };
            let promised = self.promises(dead, span).await?;
            if promised == 0 || self.dry_run {
                continue;
            }
            let mut met = Met::default();
            let before = self.done.tried();
            while !self.full {
                let (mut round, mut bytes) = (Vec::new(), 0);
                let take = |letter: Letter| {
                    bytes += letter.record.view().payload.len();
                    round.push(letter);
                    if round.len() < ROUND && bytes < ROUND_BYTES {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                };
                each(self.client, dead, Some(span), take).await?;
                let Some(last) = round.last() else { break };
                span.from = last.record.sequence + 1;
                self.round(dead, span, round, &mut met).await?;
            }
            if std::mem::take(&mut self.full) {
                self.done.left(promised, before);
            }
        }
        Ok(())
    }

    /// How many letters can be done with, by what shows. If none, or if it is only to be said, they are counted.
    async fn promises(&mut self, dead: &Dead, span: Span) -> Result<u64, Failure> {
        let (mut met, mut some) = (Met::default(), 0);
        let mut kept: BTreeMap<&'static str, u64> = BTreeMap::new();
        let count = |letter: Letter| {
            match self.obstacle(&letter) {
                _ if !met.first(&letter.told) => {}
                Some(why) => *kept.entry(why).or_default() += 1,
                None => some += 1,
            }
            ControlFlow::Continue(())
        };
        each(self.client, dead, Some(span), count).await?;
        if some == 0 || self.dry_run {
            kept.into_iter().for_each(|(why, letters)| self.done.keeps(why, letters));
            let done =
                if self.to.is_some() { &mut self.done.copied } else { &mut self.done.redriven };
            *done += some;
        }
        Ok(some)
    }

    /// Why a letter cannot be done with, as far as it shows itself.
    fn obstacle(&self, letter: &Letter) -> Option<&'static str> {
        let other = self.group.is_some() && letter.told.origin.group != self.group;
        match self.to {
            _ if other => Some(OTHER),
            Some(_) => letter.told.cut.then_some(CUT),
            None => self.known.obstacle(&letter.told),
        }
    }

    /// Letters of one shard, all that lie before the span.
    async fn round(
        &mut self,
        dead: &Dead,
        span: Span,
        round: Vec<Letter>,
        met: &mut Met,
    ) -> Result<(), Failure> {
        // Buried twice, a record is given again once; the second letter only goes.
        let once = |letter: &Letter| met.first(&letter.told);
        let round: Vec<Letter> = round.into_iter().filter(once).collect();
        let stay = match &self.to {
            Some(_) => self.copy(&round).await?,
            None => self.give(&round).await?,
        };
        // What stays is written again behind the others, and then all of the round can go. A crash in between leaves
        // letters twice, which say that they are the same.
        if !stay.is_empty() {
            let producer = producer(self.client, dead.name()).await?;
            let mut receipts = Vec::new();
            for (index, why) in stay {
                if let Some(letter) = round.get(index) {
                    let again = letter.write_again(&producer).await;
                    receipts.push(again.map_err(|e| cannot_write(&producer, e))?);
                    self.done.keeps(why, 1);
                }
            }
            for receipt in receipts {
                receipt.await.map_err(|e| Failure::doing("cannot keep a dead letter", e))?;
            }
        }
        let (shard, before) = (Some(span.shard), TrimBefore::Sequence(span.from));
        let trimmed = self.client.trim_stream(dead.name(), shard, before).await;
        trimmed.map(drop).map_err(|e| Failure::doing(format!("cannot trim {}", dead.name()), e))
    }

    /// Copies letters; those that stay, and why.
    async fn copy(&mut self, round: &[Letter]) -> Result<Vec<(usize, &'static str)>, Failure> {
        let Some((name, producer)) = &self.to else { return Ok(Vec::new()) };
        let (mut stay, mut receipts) = (Vec::new(), Vec::new());
        for (index, letter) in round.iter().enumerate() {
            match self.obstacle(letter) {
                Some(why) => stay.push((index, why)),
                None => {
                    let record = letter.record.view();
                    let own: Vec<Header<'_>> = record.headers().take(letter.told.own).collect();
                    let copied = send(producer, &letter.record, &own).await;
                    receipts.push(copied.map_err(|e| cannot_write(producer, e))?);
                }
            }
        }
        let copied = receipts.len() as u64;
        for receipt in receipts {
            receipt.await.map_err(|e| {
                Failure::Failed(format!("cannot copy a dead letter to {name}: {}", chain(&e)))
            })?;
        }
        self.done.copied += copied;
        Ok(stay)
    }

    /// Gives letters to their groups again; those that stay, and why.
    async fn give(&mut self, round: &[Letter]) -> Result<Vec<(usize, &'static str)>, Failure> {
        let mut stay = Vec::new();
        let mut places: BTreeMap<(&str, &str, u32), BTreeMap<u64, usize>> = BTreeMap::new();
        for (index, letter) in round.iter().enumerate() {
            match (self.obstacle(letter), letter.told.given_up()) {
                (None, Some((group, stream, shard, sequence))) => {
                    places.entry((group, stream, shard)).or_default().insert(sequence, index);
                }
                (why, _) => stay.push((index, why.unwrap_or(NO_GROUP))),
            }
        }
        for ((group, stream, shard), letters) in places {
            for ranges in ranges(letters.keys().copied()).chunks(RANGES) {
                let whole = ranges.first().zip(ranges.last()).map(|(a, b)| a.from..b.to);
                let these = whole.map(|whole| letters.range(whole)).into_iter().flatten();
                match self.offer((group, stream, shard), ranges).await? {
                    Ok(gone) => {
                        for (sequence, index) in these {
                            if gone.iter().any(|gone| (gone.from..gone.to).contains(sequence)) {
                                stay.push((*index, GONE));
                            } else {
                                self.done.redriven += 1;
                            }
                        }
                    }
                    // It will not change by itself: the others need not wait for it.
                    Err(why) => stay.extend(these.map(|(_, index)| (*index, why))),
                }
            }
        }
        stay.sort_unstable();
        Ok(stay)
    }
}

/// A group, a stream, a shard.
type Place<'p> = (&'p str, &'p str, u32);

impl Redrive<'_> {
    /// Gives records to a group again, as soon as it takes more; those that are gone, or why it does not take any.
    async fn offer(
        &mut self,
        (group, stream, shard): Place<'_>,
        ranges: &[SequenceRange],
    ) -> Result<Result<Vec<SequenceRange>, &'static str>, Failure> {
        let (mut waiting, mut since) = (u64::MAX, Instant::now());
        loop {
            let error = match self.client.redrive(group, stream, shard, ranges).await {
                Ok(redriven) => return Ok(Ok(redriven.gone)),
                Err(error) => error,
            };
            if error.code() == Some(ErrorCode::GroupFull) && !self.full {
                let left = self.waiting(group, stream).await?;
                if left < waiting {
                    if waiting == u64::MAX {
                        note!("{group} has {left} records to work off first; waiting");
                    }
                    (waiting, since) = (left, Instant::now());
                }
                if since.elapsed() < PATIENCE {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                self.full = true;
            }
            return match error.code() {
                Some(ErrorCode::GroupFull) => Ok(Err(FULL)),
                Some(_) if !error.retriable() => {
                    note!("note: {group} in {stream}, shard {shard}: {}", chain(&error));
                    Ok(Err(OTHERWISE))
                }
                _ => {
                    let doing = format!("cannot give dead letters to group {group} again");
                    Err(Failure::doing(doing, error))
                }
            };
        }
    }

    /// Records of a group in a stream that wait to be handed out again.
    async fn waiting(&self, group: &str, stream: &str) -> Result<u64, Failure> {
        let listed = self.client.list_groups(stream).await;
        let listed = listed.map_err(|e| Failure::doing("cannot list groups", e))?;
        let found = listed.into_iter().find(|listed| listed.group == group);
        let delivery = found.and_then(|found| found.delivery);
        Ok(delivery.map_or(0, |delivery| delivery.waiting + delivery.in_hand))
    }
}

fn cannot_write(producer: &Producer, error: SendError) -> Failure {
    Failure::doing(format!("cannot write to {}", producer.stream().name), error)
}

/// Ascending sequence numbers as ranges.
fn ranges(sequences: impl Iterator<Item = u64>) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for sequence in sequences {
        match ranges.last_mut() {
            Some(last) if last.to == sequence => last.to += 1,
            _ => ranges.push(SequenceRange { from: sequence, to: sequence + 1 }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stayed of shards before was taken off what stays of this one, and what is gone was counted again.
    #[test]
    fn each_letter_is_counted_once_however_many_shards_meet_a_full_group() {
        let mut done = Done::default();
        for _shard in 0..2 {
            let before = done.tried();
            done.redriven += 4;
            for (why, letters) in [(GONE, 1), (OTHERWISE, 1), (FULL, 2), (OTHER, 50)] {
                done.keeps(why, letters);
            }
            done.left(10, before);
        }
        let kept = [(GONE, 2), (OTHERWISE, 2), (FULL, 8), (OTHER, 100)];
        assert_eq!((done.redriven, &done.kept), (8, &BTreeMap::from(kept)));
    }

    #[test]
    fn neighbours_are_asked_for_together() {
        let range = |from, to| SequenceRange { from, to };
        assert_eq!(
            ranges([3, 4, 5, 9, 11, 12].into_iter()),
            [range(3, 6), range(9, 10), range(11, 13)]
        );
        assert_eq!(ranges([].into_iter()), []);
    }
}
