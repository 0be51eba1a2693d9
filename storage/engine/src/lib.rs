//! The shard log: commit groups, recovery, reads, retention, idempotence. Embeddable.

mod admit;
mod balance;
mod catalogue;
mod checkpoint;
mod control;
mod core;
mod deliveries;
mod embed;
pub mod format;
mod group;
mod hotkeys;
mod index;
pub mod inspect;
mod io;
mod kept;
mod lag;
mod layout;
mod members;
mod options;
mod producers;
pub mod quota;
pub mod recovery;
mod routes;
mod segment;
mod shard;
mod shards;
mod snapshot;
mod stats;
mod store;
mod types;
mod watermark;

pub use crate::balance::ShardLoad;
pub use crate::catalogue::CatalogueError;
pub use crate::checkpoint::{
    CHECKPOINT_DIR, CHECKPOINT_MAGIC, CheckpointEntry, CheckpointHeader, Claim, Claims,
    checkpoint_path, create as create_checkpoint, remove_others as remove_other_checkpoints,
};
pub use crate::control::{
    Claim as RecordClaim, Commit, Committed, Control, ControlError, CoreLink, GroupReset, Join,
    Settle, Tended,
};
pub use crate::core::{Core, CoreCommand, LagAsk};
pub use crate::deliveries::{DeliveryError, MAX_PIECES, MAX_REDRIVEN};
pub use crate::embed::{Clock, Engine, EngineOptions, Idle, NotTaken, Reply, StartError};
pub use crate::hotkeys::SplitPoint;
pub use crate::index::IndexEntry;
pub use crate::lag::{Lag, Outlook};
pub use crate::layout::{MAX_SHARDS_KEPT, ReshardError};
pub use crate::members::MemberError;
pub use crate::options::{CoreOptions, Planted, SegmentSizes};
pub use crate::producers::{IdsGiven, Producer, REMEMBERED, Stored};
pub use crate::routes::Routes;
pub use crate::segment::Seal;
pub use crate::shard::{ReadRequest, ShardLog};
pub use crate::snapshot::CoreReport;
pub use crate::stats::Durations;
pub use crate::store::{CoreSeed, OpenError, Store, StoreOptions, in_flight_bytes};
pub use crate::types::{
    AppendError, AppendTerms, Appended, Arrivals, Backlog, Chunk, Located, Now, Output, Parts,
    Policy, ReadError, ReaderId, ShardSpec, ShardStatus, Sifted, Slice, Start,
};
pub use crate::watermark::{Level, Watermark, reserve_of};
