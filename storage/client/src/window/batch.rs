//! What a window knows of one batch, and what a failure means for it.

use highwater_wire::{ErrorCode, ProducerStamp};

use crate::ClientError;
use crate::outcome::Runs;

use super::Time;

/// A batch to send now.
#[derive(Debug)]
pub(crate) struct Send<'a, B> {
    /// Names the batch in later events.
    pub index: u64,
    /// Names the attempt in later events.
    pub attempt: u32,
    /// The stamp to send it with.
    pub stamp: ProducerStamp,
    /// The stamp differs from the one it was sent or pushed with.
    pub restamp: bool,
    /// Records to leave out from its front, since it was last sent: they are decided.
    pub cut: u32,
    /// Only so many records of what is left are to be sent.
    pub piece: Option<u32>,
    /// The batch.
    pub body: &'a mut B,
}

#[derive(Debug)]
pub(super) enum State {
    /// To be sent, or sent again.
    Queued,
    InFlight {
        since: Time,
    },
    Done,
    /// It is certain that it is not stored, and it is to be sent elsewhere.
    Moved,
}

/// A batch that is decided, or to be sent elsewhere.
#[derive(Debug)]
pub(crate) struct Settled<B> {
    /// What became of its records.
    pub runs: Runs,
    /// Those from this index on are to be sent elsewhere; `cut` of the body's records come before them.
    pub moved: Option<Moved>,
    /// The batch.
    pub body: B,
}

/// Which records are to be sent elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Index in the batch as it was pushed.
    pub first: u32,
    /// Index in the body as it is now.
    pub cut: u32,
}

#[derive(Debug)]
pub(super) struct Entry<B> {
    pub body: B,
    /// Records decided, from the front.
    pub decided: u32,
    /// Records behind those.
    pub records: u32,
    /// Records decided that are still in the body.
    pub cut: u32,
    /// Records that the last attempt was sent with.
    pub sent: u32,
    /// It is in flight, with a piece of its records.
    pub piece: bool,
    /// Records that the next attempt has to have, for a repetition to be recognised.
    pub least: u32,
    /// A quota put it off, and nothing was taken since without that.
    pub over_quota: bool,
    pub runs: Runs,
    pub stamp: ProducerStamp,
    pub restamp: bool,
    pub pushed: Time,
    pub attempt: u32,
    /// Replies to attempts before this one are about records decided by now.
    pub valid_from: u32,
    /// An attempt ended without saying whether the batch is stored.
    pub ambiguous: bool,
    pub last: Option<ClientError>,
    pub state: State,
}

/// What a failure means for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it again; `ambiguous`: it may be stored all the same.
    Retry { ambiguous: bool },
    /// The server does not know this producer any more.
    Renew,
    /// It was stored by an earlier attempt.
    Stored,
    /// The shard is closed, and the batch is not stored.
    Closed,
    /// Give it up.
    Final { ambiguous: bool },
}

pub(super) fn verdict(cause: &ClientError) -> Verdict {
    let ClientError::Refused(error) = cause else {
        return match cause {
            ClientError::Connect(_) => Verdict::Retry { ambiguous: false },
            ClientError::Disconnected { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Protocol(_) => Verdict::Retry { ambiguous: true },
            _ => Verdict::Final { ambiguous: false },
        };
    };
    match error.code {
        ErrorCode::TimedOut => Verdict::Retry { ambiguous: true },
        ErrorCode::UnknownProducer | ErrorCode::ProducerFenced => Verdict::Renew,
        ErrorCode::DuplicateSequence => Verdict::Stored,
        ErrorCode::ShardClosed => Verdict::Closed,
        // A write that failed may still be found whole after a restart.
        ErrorCode::ShardFailed | ErrorCode::Internal => Verdict::Final { ambiguous: true },
        code if code.retriable() => Verdict::Retry { ambiguous: false },
        _ => Verdict::Final { ambiguous: false },
    }
}
