//! `tail --group`: as a member of the group, which reads what others do not.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use highwater_client::{Client, GroupConsumer, GroupEvent, GroupOptions, Start, Until};
use highwater_wire::{ResetTo, ShardDescription};

use super::{COMMIT_EVERY, Printer, trimmed};
use crate::failure::Failure;
use crate::output;
use crate::signals::Stop;

/// Reads until it is stopped, has printed enough, or is at the end.
pub async fn read(
    printer: &mut Printer<'_>,
    client: &Client,
    group: &str,
    stop: &Stop,
) -> Result<(), Failure> {
    let args = printer.args;
    let stream = args.stream.as_str();
    let joining =
        |e| Failure::doing(format!("cannot read stream {stream} as a member of {group}"), e);
    let options = GroupOptions {
        name: args.member.clone(),
        fixed: args.member.is_some(),
        session_timeout: args.session_timeout,
        start: start(args.from.start()),
        consumer: args.reading(),
        until: if args.follow { None } else { Some(marks(client, stream).await?) },
        ..GroupOptions::default()
    };
    super::group::must_keep_positions(client, group, stream).await?;
    let mut consumer = client.group_consumer(group, stream, options).await.map_err(joining)?;
    let mut out = output::stdout();
    let printed = print(printer, group, &mut consumer, &mut out, stop).await;
    // Positions of what was printed are kept, however the printing ended; what could not be written is read again.
    let committing = |e| Failure::doing(format!("cannot commit positions of group {group}"), e);
    let committed = match out.flush() {
        Ok(()) => consumer.commit().await.map_err(committing),
        Err(error) => Err(error.into()),
    };
    let left = consumer.close().await.map_err(committing);
    printed.and(committed).and(left)
}

/// Keeps the positions of what was printed. A server that is away for a moment is asked again with the next commit.
async fn commit(
    group: &str,
    consumer: &mut GroupConsumer,
    out: &mut impl Write,
) -> Result<(), Failure> {
    // Whoever dies right after a commit must have printed all of it.
    out.flush()?;
    match consumer.commit().await {
        Err(error) if !error.retriable() => {
            Err(Failure::doing(format!("cannot commit positions of group {group}"), error))
        }
        _ => Ok(()),
    }
}

/// Where a group begins that has no positions.
pub fn start(from: Start) -> ResetTo {
    match from {
        Start::Oldest => ResetTo::Oldest,
        Start::Latest => ResetTo::Latest,
        Start::At(sequence) => ResetTo::Sequence(sequence),
        Start::After(sequence) => ResetTo::Sequence(sequence.saturating_add(1)),
        Start::Time(ns) => ResetTo::Time(ns),
    }
}

/// The high-water marks of now: where to end without `--follow`.
pub async fn marks(client: &Client, stream: &str) -> Result<Until, Failure> {
    let reading = |e| Failure::doing(format!("cannot read stream {stream}"), e);
    let described = client.describe_stream(stream).await.map_err(reading)?;
    let marks: BTreeMap<u32, u64> =
        described.shards.iter().map(|s| (s.shard, s.high_water)).collect();
    // Of what comes to be meanwhile, what it has when it is begun.
    Ok(Arc::new(move |shard: &ShardDescription| {
        Some(marks.get(&shard.shard).copied().unwrap_or(shard.high_water))
    }))
}

async fn print(
    printer: &mut Printer<'_>,
    group: &str,
    consumer: &mut GroupConsumer,
    out: &mut impl Write,
    stop: &Stop,
) -> Result<(), Failure> {
    let stream = printer.args.stream.as_str();
    let mut due = tokio::time::interval(COMMIT_EVERY);
    while printer.left > 0 && !stop.requested() {
        // Whoever reads along sees records at once; whoever is behind gets them in large writes.
        if consumer.is_empty() {
            out.flush()?;
        }
        let event = tokio::select! {
            biased;
            () = stop.wait() => break,
            _ = due.tick() => {
                commit(group, consumer, out).await?;
                continue;
            }
            event = consumer.next() => event,
        };
        let (shard, delivery) = match event {
            Ok(Some(GroupEvent::Records { shard, delivery })) => (shard, delivery),
            Ok(Some(GroupEvent::Assigned { .. })) => continue,
            Ok(Some(GroupEvent::Revoked { .. } | GroupEvent::Ended { .. })) => {
                commit(group, consumer, out).await?;
                continue;
            }
            Ok(Some(GroupEvent::Lost { shard })) => {
                note!(
                    "note: shard {shard} has gone to another member of group {group}; what was printed of it since \
                     the last commit is read again there"
                );
                continue;
            }
            Ok(None) => break,
            Err(error) => {
                out.flush()?;
                return Err(trimmed::failure(printer.args, error));
            }
        };
        trimmed::tell(shard, &delivery);
        printer.print(stream, shard, &delivery, stop, out, |next| {
            consumer.done(shard, next);
        })?;
    }
    Ok(out.flush()?)
}
