//! Why a control request was refused.

use std::sync::Arc;

use highwater_wire::{ErrorCode, GroupName, NameError, StreamName, WireError};

use crate::catalogue::{CatalogueError, StreamRecord};
use crate::deliveries::DeliveryError;
use crate::layout::ReshardError;
use crate::members::MemberError;
use crate::types::ReadError;

/// Why a control request was refused.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A name that is not allowed.
    #[error("{field} {name:?}: {reason}")]
    Name {
        /// `stream`, `group`, `producer` or `client`.
        field: &'static str,
        /// As given.
        name: String,
        /// Why.
        reason: NameError,
    },
    /// A value out of its range.
    #[error("{field} is {value}; {limit}")]
    Argument {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        limit: String,
    },
    /// The name is taken.
    #[error("stream {0:?} exists")]
    StreamExists(String),
    /// No such stream.
    #[error("stream {0:?} does not exist")]
    UnknownStream(String),
    /// No such shard.
    #[error("stream {stream:?} has no shard {shard}; it has {}", numbers(shards))]
    UnknownShard {
        /// Its name.
        stream: String,
        /// As given.
        shard: u32,
        /// The numbers there are.
        shards: Vec<u32>,
    },
    /// Shards cannot be split or merged as asked.
    #[error("stream {stream:?}: {reason}")]
    Reshard {
        /// Its name.
        stream: String,
        /// Why.
        reason: ReshardError,
    },
    /// A shard cannot tell where a time lies.
    #[error("stream {stream:?} shard {shard}: {reason}")]
    Locate {
        /// Its name.
        stream: String,
        /// Which.
        shard: u32,
        /// Why.
        reason: ReadError,
    },
    /// No group of this name has positions, or not there.
    #[error("group {group:?} has no positions{}", within(stream))]
    UnknownGroup {
        /// Its name.
        group: String,
        /// The stream it was looked for in; empty for all.
        stream: String,
    },
    /// As a member of a group, or because of its members.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// As a group that settles record by record, or because it does not.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// What is given up would come again.
    #[error("dead letters of stream {0:?} cannot go to the stream itself")]
    OwnDeadLetters(String),
    /// A core did not answer.
    #[error("core {0} does not answer")]
    CoreGone(usize),
    /// Files could not be removed.
    #[error("removing the files of stream {stream:?}: {reason}")]
    Remove {
        /// Its name.
        stream: String,
        /// The cause.
        reason: Arc<str>,
    },
    /// The control database.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A request that is not for the control plane.
    #[error("this request is not for the control plane")]
    NotMine,
}

impl ControlError {
    /// As told to a client.
    pub fn to_wire(&self) -> WireError {
        let (mut detail, mut retry_after) = (0, 0);
        let code = match self {
            ControlError::Delivery(DeliveryError::Positions(_) | DeliveryError::Records(_)) => {
                ErrorCode::WrongDelivery
            }
            ControlError::Delivery(DeliveryError::Breaker { retry_after_ms, .. }) => {
                retry_after = *retry_after_ms;
                ErrorCode::BreakerOpen
            }
            ControlError::Delivery(DeliveryError::TooMany { .. }) => ErrorCode::GroupFull,
            ControlError::Delivery(DeliveryError::NotInHand { sequence, .. }) => {
                detail = *sequence;
                ErrorCode::NotInHand
            }
            ControlError::Delivery(_) | ControlError::OwnDeadLetters(_) => {
                ErrorCode::InvalidArgument
            }
            ControlError::Member(MemberError::Unknown { .. }) => ErrorCode::UnknownMember,
            ControlError::Member(MemberError::Lease { shard, .. }) => {
                detail = u64::from(*shard);
                ErrorCode::LeaseLost
            }
            ControlError::Member(MemberError::Active { .. }) => ErrorCode::GroupActive,
            ControlError::Member(MemberError::Full) => ErrorCode::InvalidArgument,
            ControlError::Name { .. } => ErrorCode::InvalidName,
            ControlError::Argument { .. } => ErrorCode::InvalidArgument,
            ControlError::UnknownGroup { .. } => ErrorCode::UnknownGroup,
            ControlError::StreamExists(_) => ErrorCode::StreamExists,
            ControlError::UnknownStream(_) => ErrorCode::UnknownStream,
            ControlError::UnknownShard { .. }
            | ControlError::Reshard { reason: ReshardError::Unknown(_), .. } => {
                ErrorCode::UnknownShard
            }
            ControlError::Reshard { reason: ReshardError::NoAnswer { .. }, .. }
            | ControlError::Reshard { reason: ReshardError::UnderWay { .. }, .. } => {
                ErrorCode::Unavailable
            }
            ControlError::Reshard { .. } => ErrorCode::CannotReshard,
            ControlError::Locate { reason, .. } => return reason.to_wire(),
            ControlError::Catalogue(CatalogueError::Full { .. }) => ErrorCode::InvalidArgument,
            ControlError::CoreGone(_) => ErrorCode::Unavailable,
            ControlError::NotMine => ErrorCode::UnknownRequest,
            ControlError::Remove { .. } | ControlError::Catalogue(_) => ErrorCode::Internal,
        };
        WireError::new(code, self.to_string()).detail(detail).retry_after(retry_after)
    }
}

/// Where, in words.
fn within(stream: &str) -> String {
    if stream.is_empty() { String::new() } else { format!(" in stream {stream:?}") }
}

/// Shard numbers in words.
fn numbers(shards: &[u32]) -> String {
    match shards {
        [] => "none".to_owned(),
        [first, .., last] if shards.len() as u32 == last - first + 1 && shards.len() > 2 => {
            format!("{first} to {last}")
        }
        _ => shards.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn unknown_shard(stream: &str, record: &StreamRecord, shard: u32) -> ControlError {
    let shards = record.shards.iter().map(|s| s.shard).collect();
    ControlError::UnknownShard { stream: stream.to_owned(), shard, shards }
}

pub(super) fn stream_name(name: &str) -> Result<(), ControlError> {
    StreamName::new(name).map(|_| ()).map_err(|reason| ControlError::Name {
        field: "stream",
        name: name.to_owned(),
        reason,
    })
}

pub(super) fn group_name(name: &str) -> Result<(), ControlError> {
    GroupName::new(name).map(|_| ()).map_err(|reason| ControlError::Name {
        field: "group",
        name: name.to_owned(),
        reason,
    })
}
