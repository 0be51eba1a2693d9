//! What a record consumer asks the server: records to work on, the records themselves, and that they are settled.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use highwater_wire::{
    Claimed, ControlReply, ControlRequest, ErrorCode, Kind, Outcome, Portion, Settlement,
    StreamDescription,
};

use crate::client::{Repeat, done};
use crate::connection::unexpected;
use crate::membership::Identity;
use crate::{Client, ClientError, Delivery, FetchOptions};

/// Bytes of records fetched for one lot, about; what is beyond is given back untried.
const LOT_BYTES: usize = 4 << 20;

/// A shard, and the lease on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub shard: u32,
    pub lease: u64,
}

/// Asks for records to work on; `at_hand` are those that need not be fetched.
pub(super) async fn claim(
    identity: &Identity,
    held: Held,
    at_hand: Range<u64>,
    most: u32,
) -> Result<Claimed, ClientError> {
    let request = ControlRequest::Claim {
        group: identity.group.clone(),
        stream: identity.stream.clone(),
        member: identity.member,
        shard: held.shard,
        lease: held.lease,
        from: at_hand.start,
        to: at_hand.end,
        most,
    };
    // If the reply is lost and it is asked again, what it brought is handed out again when its time is over.
    match identity.client.control(request, Repeat::Yes).await? {
        ControlReply::Claimed(claimed) => Ok(claimed),
        _ => Err(unexpected(Kind::ControlReply)),
    }
}

/// Says what became of records. That they are not in hand any more matters only to those that were processed: the others
/// are handed out again in any case.
pub(crate) async fn settle(
    identity: &Identity,
    held: Held,
    settlements: Vec<(u64, u64, Outcome)>,
) -> Result<(), ClientError> {
    let processed = settlements.iter().any(|(_, _, outcome)| *outcome == Outcome::Done);
    let settlement = |(from, to, outcome)| Settlement { from, to, outcome };
    let request = ControlRequest::Settle {
        group: identity.group.clone(),
        stream: identity.stream.clone(),
        member: identity.member,
        shard: held.shard,
        lease: held.lease,
        settlements: settlements.into_iter().map(settlement).collect(),
    };
    match identity.client.control(request, Repeat::Yes).await {
        Ok(reply) => done(reply),
        Err(error) if !processed && error.code() == Some(ErrorCode::NotInHand) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The parts of what is at hand that a portion is of; `None` if it is not all there.
pub(super) fn within(fresh: &VecDeque<Delivery>, portion: &Portion) -> Option<Vec<Delivery>> {
    let mut parts = Vec::new();
    let mut next = portion.from;
    for delivery in fresh.iter().filter(|d| d.next > portion.from && d.from < portion.to) {
        if delivery.from > next {
            return None;
        }
        next = delivery.next;
        let (from, end) = (delivery.from.max(portion.from), delivery.end.min(portion.to));
        parts.push(Delivery { from, end, ..delivery.clone() });
    }
    (next >= portion.to && !parts.is_empty()).then_some(parts)
}

/// Records fetched.
#[derive(Debug)]
pub(crate) struct Brought {
    /// The deliveries they are in.
    pub parts: Vec<Delivery>,
    /// Their sequence numbers: what was asked for before them is not kept any more, what lies behind was too much.
    pub range: Range<u64>,
}

/// Where records are fetched from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The stream.
    pub stream: &'a StreamDescription,
    /// Only those that match.
    pub filter: Option<&'a str>,
}

/// Fetches records, about as many bytes as a lot may have.
pub(crate) async fn fetch(
    client: &Client,
    source: Source<'_>,
    shard: u32,
    wanted: Range<u64>,
) -> Result<Brought, ClientError> {
    let options =
        FetchOptions { min_bytes: 1, max_wait: Duration::from_secs(5), ..FetchOptions::default() };
    let (mut parts, mut range) = (Vec::new(), wanted.start..wanted.start);
    let mut bytes = 0;
    while range.end < wanted.end && bytes < LOT_BYTES {
        let fetched = match source.filter {
            None => client.fetch(source.stream, shard, range.end, options).await,
            Some(filter) => {
                client.fetch_filtered(source.stream, shard, range.end, options, filter).await
            }
        };
        match fetched {
            Ok(fetched) => {
                let mut delivery = fetched.delivery;
                if delivery.next <= range.end {
                    let reason = format!("shard {shard} does not show record {}", range.end);
                    return Err(ClientError::Protocol(reason));
                }
                delivery.end = delivery.end.min(wanted.end);
                range.end = delivery.next.min(wanted.end);
                bytes += delivery.len();
                parts.push(delivery);
            }
            Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::PositionTrimmed => {
                if refusal.detail <= range.end {
                    return Err(ClientError::Refused(refusal));
                }
                // In front of everything: what is kept has no gaps.
                parts.clear();
                bytes = 0;
                range = refusal.detail.min(wanted.end)..refusal.detail.min(wanted.end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Brought { parts, range })
}

/// Fetches what was handed out. What is not kept any more is settled as lost, what is too much as untried; if all
/// fails, it is given back.
pub(super) async fn bring(
    identity: &Identity,
    source: Source<'_>,
    held: Held,
    portion: &Portion,
) -> Result<Vec<Delivery>, ClientError> {
    let wanted = portion.from..portion.to;
    let brought = match fetch(&identity.client, source, held.shard, wanted).await {
        Ok(brought) => brought,
        Err(error) => {
            let released = vec![(portion.from, portion.to, Outcome::Released)];
            // What does not get there is handed out again when its time is over.
            let _ = settle(identity, held, released).await;
            return Err(error);
        }
    };
    let mut settlements = Vec::new();
    if brought.range.start > portion.from {
        settlements.push((portion.from, brought.range.start, Outcome::Lost));
    }
    if brought.range.end < portion.to {
        settlements.push((brought.range.end, portion.to, Outcome::Released));
    }
    if !settlements.is_empty() {
        settle(identity, held, settlements).await?;
    }
    Ok(brought.parts)
}
