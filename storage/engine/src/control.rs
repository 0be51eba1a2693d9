//! The control plane: streams and positions, kept in the catalogue and told to the cores. Blocking; runs
//! on a thread of its own, never on a core's.

mod deliveries;
mod groups;
mod members;
mod reshard;
mod settings;
mod tend;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use highwater_wire::{
    ControlReply, ControlRequest, ErrorCode, GroupName, MAX_SHARDS_PER_STREAM, NameError,
    ShardDescription, ShardId, StreamConfig, StreamDescription, StreamName, WireError,
};

use crate::catalogue::{Catalogue, CatalogueError, PositionRecord, StreamRecord};
use crate::core::CoreCommand;
use crate::deliveries::{Deliveries, DeliveryError};
use crate::layout::ReshardError;
use crate::members::{MemberError, Members};
use crate::quota::Quotas;
use crate::routes::Routes;
use crate::store::{Store, specs_of};
use crate::types::{Located, ReadError, ShardStatus, Start};
pub use deliveries::{Claim, Settle};
pub use groups::GroupReset;
pub use members::{Commit, Join};
pub use tend::Tended;

/// How long a core may take to answer before the control plane gives up on it.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// What became of requests to keep something, in their order.
#[derive(Debug, Default)]
pub struct Committed {
    /// Of positions.
    pub positions: Vec<Result<(), ControlError>>,
    /// Of settlements.
    pub settled: Vec<Result<(), ControlError>>,
}

/// Delivers a command to a core; `false` when the core is gone.
pub type CoreLink = Box<dyn Fn(CoreCommand) -> bool + Send>;

/// The control plane of an open store.
pub struct Control {
    catalogue: Arc<Mutex<Catalogue>>,
    streams: BTreeMap<String, StreamRecord>,
    positions: BTreeMap<(String, u32, u32), u64>,
    links: Vec<CoreLink>,
    routes: Routes,
    /// What cores meter by, together.
    quotas: Arc<Quotas>,
    tending: tend::Tending,
    /// Who reads what for a group.
    members: Members,
    /// What is settled of groups that settle record by record.
    deliveries: Deliveries,
    /// Where closed shards end, as far as somebody has asked.
    ends: BTreeMap<ShardId, u64>,
    started: Instant,
    /// How long a split or merge waits for a core, all in all.
    reshard_patience: Duration,
}

impl Control {
    /// Over the cores of `store`; `links[i]` reaches core `i`.
    pub fn new(store: &Store, links: Vec<CoreLink>) -> Control {
        Control {
            catalogue: store.catalogue(),
            streams: store.streams().iter().cloned().collect(),
            positions: store
                .positions()
                .iter()
                .cloned()
                .map(|(g, st, sh, p)| ((g, st, sh), p))
                .collect(),
            links,
            routes: store.routes().clone(),
            quotas: Arc::clone(store.quotas()),
            tending: tend::Tending::default(),
            members: Members::new(store.epoch()),
            deliveries: {
                let kept = store.deliveries().clone();
                Deliveries::restore(kept.configs, kept.shards)
            },
            ends: BTreeMap::new(),
            started: Instant::now(),
            reshard_patience: reshard::PATIENCE,
        }
    }

    /// Creates a stream: kept durably, then served.
    pub fn create_stream(
        &mut self,
        name: &str,
        config: StreamConfig,
    ) -> Result<StreamDescription, ControlError> {
        stream_name(name)?;
        if !(1..=MAX_SHARDS_PER_STREAM).contains(&config.shards) {
            let limit = format!("1 to {MAX_SHARDS_PER_STREAM} are allowed");
            return Err(ControlError::Argument {
                field: "shards",
                value: config.shards.into(),
                limit,
            });
        }
        if self.streams.contains_key(name) {
            return Err(ControlError::StreamExists(name.to_owned()));
        }
        settings::check(&config)?;
        let record = self.catalogue().add_stream(name, config, now_ns())?;
        self.streams.insert(name.to_owned(), record.clone());
        for spec in specs_of(name, &record) {
            self.tell(spec.id, CoreCommand::AddShard(spec))?;
        }
        self.describe(name)
    }

    /// Removes a stream and its records: forgotten durably, then its files go.
    pub fn delete_stream(&mut self, name: &str) -> Result<(), ControlError> {
        let record = self.find(name)?.clone();
        self.catalogue().remove_stream(name, record.id)?;
        self.streams.remove(name);
        self.positions.retain(|(_, stream, _), _| *stream != record.id);
        self.members.forget_stream(record.id);
        self.deliveries.forget_stream(record.id);
        self.ends.retain(|id, _| id.stream != record.id);
        let shards = record.shards.iter().map(|s| ShardId { stream: record.id, shard: s.shard });
        self.remove_files(name, shards.collect())
    }

    /// Has the cores remove shards that the catalogue has forgotten.
    fn remove_files(&mut self, name: &str, shards: Vec<ShardId>) -> Result<(), ControlError> {
        let mut waits = Vec::new();
        for &shard in &shards {
            // A core that is gone has its files removed at the next start.
            waits.extend(self.ask(shard, |done| CoreCommand::RemoveShard { shard, done }));
            self.routes.forget(shard);
        }
        for (core, wait) in waits {
            match wait.recv_timeout(PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    return Err(ControlError::Remove { stream: name.to_owned(), reason });
                }
                Err(_) => return Err(ControlError::CoreGone(core)),
            }
        }
        Ok(())
    }

    /// Sends a command to the core that owns a shard.
    fn tell(&self, shard: ShardId, command: CoreCommand) -> Result<usize, ControlError> {
        let core = self.routes.core_of(shard);
        if (self.links[core])(command) { Ok(core) } else { Err(ControlError::CoreGone(core)) }
    }

    /// The same for one that answers; the core and the answer to wait for.
    fn ask<T>(
        &self,
        shard: ShardId,
        command: impl FnOnce(Sender<T>) -> CoreCommand,
    ) -> Result<(usize, Receiver<T>), ControlError> {
        let (sender, wait) = channel();
        Ok((self.tell(shard, command(sender))?, wait))
    }

    /// Where a start lies on a shard of a stream.
    fn locate(&self, name: &str, shard: ShardId, start: Start) -> Result<Located, ControlError> {
        let (core, wait) = self.ask(shard, |reply| CoreCommand::Locate { shard, start, reply })?;
        let located = wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))?;
        located.map_err(|reason| ControlError::Locate {
            stream: name.to_owned(),
            shard: shard.shard,
            reason,
        })
    }

    /// Sends a command to every core, and waits until all have answered.
    fn ask_all(&self, command: impl Fn(Sender<()>) -> CoreCommand) -> Result<(), ControlError> {
        let mut waits = Vec::new();
        for (core, link) in self.links.iter().enumerate() {
            let (done, wait) = channel();
            if !link(command(done)) {
                return Err(ControlError::CoreGone(core));
            }
            waits.push((core, wait));
        }
        waits.into_iter().try_for_each(|(core, wait)| {
            wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))
        })
    }

    /// Describes a stream. Ports are left at 0: only a server has them.
    pub fn describe(&self, name: &str) -> Result<StreamDescription, ControlError> {
        let record = self.find(name)?;
        Ok(self.description(name, record, &self.status()?))
    }

    /// Describes all streams, by name.
    pub fn list_streams(&self) -> Result<Vec<StreamDescription>, ControlError> {
        let status = self.status()?;
        Ok(self
            .streams
            .iter()
            .map(|(name, record)| self.description(name, record, &status))
            .collect())
    }

    /// A producer id never given before, and the epoch to use.
    pub fn new_producer(&mut self) -> Result<(u64, u32), ControlError> {
        Ok((self.catalogue().new_producer()?, 0))
    }

    /// Keeps positions of several groups in one durable transaction; each request is answered on its own.
    pub fn commit_positions(&mut self, commits: &[Commit]) -> Vec<Result<(), ControlError>> {
        self.commit(commits, &[]).positions
    }

    /// Keeps positions and settlements of several groups in one durable transaction; each request is answered on its own.
    pub fn commit(&mut self, commits: &[Commit], settles: &[Settle]) -> Committed {
        let mut records: Vec<PositionRecord> = Vec::new();
        let mut positions: Vec<Result<(), ControlError>> = Vec::new();
        for commit in commits {
            positions.push(self.check_commit(commit, &mut records));
        }
        let mut settled: Vec<Result<(), ControlError>> = Vec::new();
        let mut places = BTreeSet::new();
        for settle in settles {
            settled.push(self.settle(settle).map(|place| {
                places.insert(place);
            }));
        }
        match self.keep(records) {
            Ok(kept) => {
                places.extend(kept);
                self.finish_shards(&places);
            }
            Err(error) => {
                // What was settled is kept with the next that can be: whoever settles it again does no harm.
                let text = error.to_string();
                for result in positions.iter_mut().chain(&mut settled).filter(|r| r.is_ok()) {
                    let failed = redb::Error::Io(std::io::Error::other(text.clone()));
                    *result = Err(CatalogueError::Database(Box::new(failed)).into());
                }
            }
        }
        Committed { positions, settled }
    }

    fn check_commit(
        &self,
        commit: &Commit,
        records: &mut Vec<PositionRecord>,
    ) -> Result<(), ControlError> {
        let Commit { group, stream, positions, .. } = commit;
        group_name(group)?;
        let record = self.find(stream)?;
        if let Some(odd) = positions.iter().find(|p| p.shard >= record.next_shard) {
            return Err(unknown_shard(stream, record, odd.shard));
        }
        if self.deliveries.config(group, record.id).is_some() {
            return Err(DeliveryError::Records(group.clone()).into());
        }
        self.check_leases(commit, record.id)?;
        // What was a shard until retention emptied it has no position any more; the others are kept.
        let kept = positions.iter().filter(|p| record.shard(p.shard).is_some());
        records.extend(kept.map(|p| (group.clone(), record.id, p.shard, p.sequence)));
        Ok(())
    }

    /// Carries out a request from the wire (all but the greeting and the snapshot, which are the server's).
    /// `ports[i]` is the port of core `i`.
    pub fn handle(
        &mut self,
        request: ControlRequest,
        ports: &[u16],
    ) -> Result<ControlReply, WireError> {
        let with_ports = |mut stream: StreamDescription| {
            for shard in &mut stream.shards {
                shard.port = ports.get(shard.core as usize).copied().unwrap_or(0);
            }
            stream
        };
        let reply = match request {
            ControlRequest::CreateStream { name, config } => {
                self.create_stream(&name, config).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::ListStreams => self
                .list_streams()
                .map(|all| ControlReply::Streams(all.into_iter().map(with_ports).collect())),
            ControlRequest::DescribeStream { name } => {
                self.describe(&name).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::DeleteStream { name } => {
                self.delete_stream(&name).map(|()| ControlReply::Done)
            }
            ControlRequest::NewProducer => {
                self.new_producer().map(|(id, epoch)| ControlReply::Producer { id, epoch })
            }
            // Whoever gathers commits takes them before.
            ControlRequest::CommitPositions { .. } | ControlRequest::CommitLeased { .. } => {
                let commit = Commit::of(request).ok_or(ControlError::NotMine);
                commit
                    .and_then(|commit| self.commit_positions(&[commit]).remove(0))
                    .map(|()| ControlReply::Done)
            }
            ControlRequest::JoinGroup {
                ref group,
                ref stream,
                member,
                ref name,
                fixed,
                session_ms,
                start,
            } => {
                let join = Join { group, stream, member, name, fixed, session_ms, start };
                self.join_group(&join).map(ControlReply::Membership)
            }
            ControlRequest::Heartbeat { group, stream, member, released } => {
                self.heartbeat(&group, &stream, member, &released).map(ControlReply::Membership)
            }
            ControlRequest::LeaveGroup { group, stream, member } => {
                self.leave_group(&group, &stream, member).map(|()| ControlReply::Done)
            }
            ControlRequest::FetchPositions { group, stream } => {
                self.fetch_positions(&group, &stream).map(ControlReply::Positions)
            }
            ControlRequest::ListGroups { stream } => {
                self.list_groups(&stream).map(ControlReply::Groups)
            }
            ControlRequest::SetStream { name, change } => {
                self.set_stream(&name, &change).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::Split { name, shard, at } => {
                self.split(&name, shard, &at).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::Merge { name, shards } => {
                self.merge(&name, &shards).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::Reshard { name, shards } => {
                self.reshard(&name, shards).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::Trim { name, shard, before } => {
                self.trim(&name, shard, before).map(|s| ControlReply::Stream(with_ports(s)))
            }
            ControlRequest::OpenProducer { name } => {
                self.open_producer(&name).map(|(id, epoch)| ControlReply::Producer { id, epoch })
            }
            ControlRequest::SetClientQuota { client, quota } => {
                self.set_client_quota(&client, quota).map(|()| ControlReply::Done)
            }
            ControlRequest::ListClientQuotas => {
                self.client_quotas().map(ControlReply::ClientQuotas)
            }
            ControlRequest::DescribeGroup { group } => {
                self.describe_group(&group).map(ControlReply::Groups)
            }
            ControlRequest::ResetGroup { group, stream, shard, to, shift, dry_run } => {
                let reset = GroupReset { shard, to, shift, dry_run };
                self.reset_group(&group, &stream, &reset).map(ControlReply::Reset)
            }
            ControlRequest::DeleteGroup { group, stream } => {
                self.delete_group(&group, &stream).map(|()| ControlReply::Done)
            }
            ControlRequest::SetGroup { group, stream, delivery } => {
                self.set_group(&group, &stream, delivery).map(|()| ControlReply::Done)
            }
            ControlRequest::Claim {
                ref group,
                ref stream,
                member,
                shard,
                lease,
                from,
                to,
                most,
            } => {
                let claim = Claim { group, stream, member, shard, lease, from, to, most };
                self.claim(&claim).map(ControlReply::Claimed)
            }
            // As with commits.
            ControlRequest::Settle { .. } => {
                let settle = Settle::of(request).ok_or(ControlError::NotMine);
                settle
                    .and_then(|settle| self.commit(&[], &[settle]).settled.remove(0))
                    .map(|()| ControlReply::Done)
            }
            ControlRequest::Redrive { group, stream, shard, ranges } => {
                self.redrive(&group, &stream, shard, &ranges).map(ControlReply::Redriven)
            }
            ControlRequest::Hello { .. }
            | ControlRequest::Snapshot
            | ControlRequest::SnapshotAfter { .. } => Err(ControlError::NotMine),
        };
        reply.map_err(|e| e.to_wire())
    }

    /// Monotonic, nanoseconds since it began.
    fn mono_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<&StreamRecord, ControlError> {
        self.streams.get(name).ok_or_else(|| ControlError::UnknownStream(name.to_owned()))
    }

    fn status(&self) -> Result<BTreeMap<ShardId, ShardStatus>, ControlError> {
        self.status_within(PATIENCE)
    }

    fn status_within(
        &self,
        patience: Duration,
    ) -> Result<BTreeMap<ShardId, ShardStatus>, ControlError> {
        let until = Instant::now() + patience;
        let mut waits = Vec::new();
        for (core, link) in self.links.iter().enumerate() {
            let (reply, wait) = channel();
            if !link(CoreCommand::Status { reply }) {
                return Err(ControlError::CoreGone(core));
            }
            waits.push((core, wait));
        }
        let mut status = BTreeMap::new();
        for (core, wait) in waits {
            let left = until.saturating_duration_since(Instant::now());
            let shards = wait.recv_timeout(left).map_err(|_| ControlError::CoreGone(core))?;
            status.extend(shards.into_iter().map(|s| (s.id, s)));
        }
        Ok(status)
    }

    fn description(
        &self,
        name: &str,
        record: &StreamRecord,
        status: &BTreeMap<ShardId, ShardStatus>,
    ) -> StreamDescription {
        // No child is told to anybody before its parents have nothing in flight.
        let at_work = |parent: &u32| {
            let of = status.get(&ShardId { stream: record.id, shard: *parent });
            of.is_some_and(|of| of.closed && of.state == "closing")
        };
        let told = record.shards.iter().filter(|kept| !kept.parents.iter().any(at_work));
        let shards = told.map(|kept| {
            let id = ShardId { stream: record.id, shard: kept.shard };
            let of = status.get(&id);
            ShardDescription {
                shard: kept.shard,
                hash_start: kept.hash_start,
                hash_end: kept.hash_end,
                core: self.routes.core_of(id) as u32,
                port: 0,
                oldest: of.map_or(0, |s| s.oldest),
                high_water: of.map_or(0, |s| s.high_water),
                stored_bytes: of.map_or(0, |s| s.stored_bytes),
                log_bytes: of.map_or(0, |s| s.log_bytes),
                state: of.map_or_else(|| "missing".to_owned(), |s| s.state.clone()),
                closed: kept.closed,
                parents: kept.parents.clone(),
                children: kept.children.clone(),
                counters: of.map_or_else(Default::default, |s| s.counters),
                advice: self.tending.advice(id),
            }
        });
        StreamDescription {
            name: name.to_owned(),
            id: record.id,
            created_ns: record.created_ns,
            config: record.config.clone(),
            shards: shards.collect(),
        }
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

fn unknown_shard(stream: &str, record: &StreamRecord, shard: u32) -> ControlError {
    let shards = record.shards.iter().map(|s| s.shard).collect();
    ControlError::UnknownShard { stream: stream.to_owned(), shard, shards }
}

fn stream_name(name: &str) -> Result<(), ControlError> {
    StreamName::new(name).map(|_| ()).map_err(|reason| ControlError::Name {
        field: "stream",
        name: name.to_owned(),
        reason,
    })
}

fn group_name(name: &str) -> Result<(), ControlError> {
    GroupName::new(name).map(|_| ()).map_err(|reason| ControlError::Name {
        field: "group",
        name: name.to_owned(),
        reason,
    })
}

/// Wall clock, nanoseconds since 1970 UTC.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
