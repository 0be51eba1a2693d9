//! Members of groups: the coordinator ([`crate::members`]) joined to the catalogue and the cores.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use highwater_wire::{
    ControlRequest, GroupMember, LeaseGrant, Membership, Position, ResetTo, ShardId,
};

use super::groups::GroupReset;
use super::{Control, ControlError, PATIENCE, group_name};
use crate::catalogue::StreamRecord;
use crate::core::CoreCommand;
use crate::members::{Change, Joining, LONGEST_SESSION_NS, SHORTEST_SESSION_NS, ShardInfo};
use crate::types::ShardStatus;

/// Longest name of a member, characters.
const MEMBER_NAME: usize = 128;

/// Positions to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// The stream.
    pub stream: String,
    /// By shard.
    pub positions: Vec<Position>,
    /// Of a member: its number, and the lease it commits each position under.
    pub leases: Option<(u64, Vec<u64>)>,
}

impl Commit {
    /// The commit in a request, if it is one.
    pub fn of(request: ControlRequest) -> Option<Commit> {
        match request {
            ControlRequest::CommitPositions { group, stream, positions } => {
                Some(Commit { group, stream, positions, leases: None })
            }
            ControlRequest::CommitLeased { group, stream, member, positions } => {
                let leases = positions.iter().map(|p| p.lease).collect();
                let positions = positions
                    .iter()
                    .map(|p| Position { shard: p.shard, sequence: p.sequence })
                    .collect();
                Some(Commit { group, stream, positions, leases: Some((member, leases)) })
            }
            _ => None,
        }
    }
}

/// How a member joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join<'a> {
    /// The group.
    pub group: &'a str,
    /// The stream.
    pub stream: &'a str,
    /// Its number, chosen by itself.
    pub member: u64,
    /// Its name.
    pub name: &'a str,
    /// It keeps its leases through a restart.
    pub fixed: bool,
    /// Longest silence, milliseconds.
    pub session_ms: u32,
    /// Where a group begins that has no positions yet.
    pub start: ResetTo,
}

impl Control {
    /// A member joins. A group that is new in the stream gets its first positions, durably.
    pub fn join_group(&mut self, join: &Join<'_>) -> Result<Membership, ControlError> {
        group_name(join.group)?;
        let chars = join.name.chars().count();
        if !(1..=MEMBER_NAME).contains(&chars) || join.name.chars().any(char::is_control) {
            let limit = format!("1 to {MEMBER_NAME}, no control characters among them");
            return Err(ControlError::Argument {
                field: "characters of the member's name",
                value: chars as u64,
                limit,
            });
        }
        let session_ns = u64::from(join.session_ms) * 1_000_000;
        if !(SHORTEST_SESSION_NS..=LONGEST_SESSION_NS).contains(&session_ns) {
            let (least, most) = (SHORTEST_SESSION_NS / 1_000_000, LONGEST_SESSION_NS / 1_000_000);
            return Err(ControlError::Argument {
                field: "session_ms",
                value: join.session_ms.into(),
                limit: format!("{least} to {most} are allowed"),
            });
        }
        let record = self.find(join.stream)?.clone();
        self.begin_group(join, &record)?;
        let status = self.status()?;
        let shards = self.shard_infos(join.group, &record, &status);
        let joining = Joining {
            member: join.member,
            name: join.name.to_owned(),
            fixed: join.fixed,
            session_ns,
        };
        let (now_ns, mut changes) = (self.mono_ns(), Vec::new());
        let joined =
            self.members.join(now_ns, join.group, record.id, &joining, shards, &mut changes);
        self.carry(changes)?;
        joined?;
        Ok(self.membership(join.group, record.id, join.member))
    }

    /// A group that has no positions in a stream gets them on all its shards, so that none of what is stored from now
    /// on is missed by whoever reads a shard first.
    fn begin_group(&mut self, join: &Join<'_>, record: &StreamRecord) -> Result<(), ControlError> {
        if self.positions_of(join.group, record.id).next().is_some() {
            return Ok(());
        }
        let reset = GroupReset { shard: None, to: join.start, shift: 0, dry_run: false };
        self.set_positions(join.group, &[join.stream.to_owned()], &reset).map(drop)
    }

    /// The shards of a stream as a group finds them.
    fn shard_infos(
        &mut self,
        group: &str,
        record: &StreamRecord,
        status: &BTreeMap<ShardId, ShardStatus>,
    ) -> Vec<ShardInfo> {
        let positions: BTreeMap<u32, u64> = self.positions_of(group, record.id).collect();
        let infos = record.shards.iter().map(|kept| {
            let id = ShardId { stream: record.id, shard: kept.shard };
            let status = status.get(&id);
            // A closed shard that is at rest has its end where its mark is.
            if let Some(status) = status.filter(|s| s.closed && s.state == "closed") {
                self.ends.insert(id, status.high_water);
            }
            ShardInfo {
                shard: kept.shard,
                parents: kept.parents.clone(),
                finished: is_finished(&self.ends, id, positions.get(&kept.shard).copied())
                    && self.deliveries.at_rest(group, id),
                rate: status.map_or(0.0, |s| s.arriving_per_s),
            }
        });
        infos.collect()
    }

    /// A sign of life of a member, and what it has given up.
    pub fn heartbeat(
        &mut self,
        group: &str,
        stream: &str,
        member: u64,
        released: &[u32],
    ) -> Result<Membership, ControlError> {
        let id = self.find(stream)?.id;
        let (now_ns, mut changes) = (self.mono_ns(), Vec::new());
        let known = self.members.heartbeat(now_ns, group, id, member, released, &mut changes);
        self.carry(changes)?;
        known?;
        Ok(self.membership(group, id, member))
    }

    /// A member leaves.
    pub fn leave_group(
        &mut self,
        group: &str,
        stream: &str,
        member: u64,
    ) -> Result<(), ControlError> {
        let id = self.find(stream)?.id;
        let (now_ns, mut changes) = (self.mono_ns(), Vec::new());
        let left = self.members.leave(now_ns, group, id, member, &mut changes);
        self.carry(changes)?;
        Ok(left?)
    }

    /// Time passes for members, up to `heard`: the caller has carried out all that had come by then, and no member is
    /// held to be silent because its heartbeat still waits in a queue. To be called several times a second by whoever has
    /// a thread for it.
    ///
    /// # Errors
    /// When a core does not answer: it serves nobody any more.
    pub fn pass_members(&mut self, heard: Instant) -> Result<(), ControlError> {
        let (now_ns, mut changes) = (self.mono_ns(), Vec::new());
        let heard_ns = self.mono_ns_at(heard).min(now_ns);
        self.members.pass(now_ns, heard_ns, &mut changes);
        self.deliveries.pass(self.now());
        self.carry(changes)
    }

    /// Tells the coordinator how the streams of its groups look now.
    pub(super) fn lay_out_groups(&mut self) -> Result<(), ControlError> {
        let groups: Vec<(String, u32)> =
            self.members.groups().map(|(group, stream)| (group.to_owned(), stream)).collect();
        if groups.is_empty() {
            return Ok(());
        }
        // Asked once, however many groups there are.
        let status = self.status()?;
        for (group, stream) in groups {
            let record = self.streams.values().find(|record| record.id == stream).cloned();
            let Some(record) = record else { continue };
            let shards = self.shard_infos(&group, &record, &status);
            let mut changes = Vec::new();
            self.members.layout(&group, stream, shards, &mut changes);
            self.carry(changes)?;
        }
        Ok(())
    }

    /// Whether a member may commit all of these positions.
    pub(super) fn check_leases(&self, commit: &Commit, stream: u32) -> Result<(), ControlError> {
        let Some((member, leases)) = &commit.leases else {
            let what = "commit as a member of it, or wait until they have left";
            return Ok(self.members.must_rest(&commit.group, stream, what)?);
        };
        if leases.len() != commit.positions.len() {
            return Err(ControlError::Argument {
                field: "leases",
                value: leases.len() as u64,
                limit: format!("one for each of {} positions", commit.positions.len()),
            });
        }
        for (position, lease) in commit.positions.iter().zip(leases) {
            let held = (position.shard, *lease);
            self.members.may_commit(&commit.group, stream, *member, held)?;
        }
        Ok(())
    }

    /// Positions were committed: shards that a group has read to their end give way to what came of them.
    pub(super) fn finish_shards(&mut self, moved: &BTreeSet<(String, ShardId)>) {
        let mut changes = Vec::new();
        for (group, id) in moved {
            let position = self.positions.get(&(group.clone(), id.stream, id.shard)).copied();
            if is_finished(&self.ends, *id, position) && self.deliveries.at_rest(group, *id) {
                self.members.finished(group, id.stream, id.shard, &mut changes);
            }
        }
        // A core that is gone serves nobody any more.
        let _ = self.carry(changes);
    }

    /// The members of a group in a stream, for who operates it.
    pub(super) fn group_members(&self, group: &str, stream: u32) -> Vec<GroupMember> {
        let members = self.members.members(self.mono_ns(), group, stream);
        let told = members.into_iter().map(|member| GroupMember {
            member: member.member,
            name: member.name,
            fixed: member.fixed,
            left_ms: member.left_ns / 1_000_000,
            shards: member.shards,
        });
        told.collect()
    }

    /// Has the cores take and refuse readers by the leases in force. When it returns, they do.
    fn carry(&mut self, changes: Vec<Change>) -> Result<(), ControlError> {
        let now = self.now();
        for Change { shard, old, .. } in changes.iter().filter(|change| change.old > 0) {
            self.deliveries.lease_ended(now, *shard, *old);
        }
        let mut waits = Vec::new();
        for Change { shard, old, new } in changes {
            waits.push(self.ask(shard, |done| CoreCommand::Lease { shard, old, new, done })?);
        }
        waits.into_iter().try_for_each(|(core, wait)| {
            wait.recv_timeout(PATIENCE).map_err(|_| ControlError::CoreGone(core))
        })
    }

    fn membership(&self, group: &str, stream: u32, member: u64) -> Membership {
        let now = self.now();
        let leases = self.members.leases(group, stream, member).into_iter().map(|leased| {
            let position = self.positions.get(&(group.to_owned(), stream, leased.shard)).copied();
            LeaseGrant {
                shard: leased.shard,
                lease: leased.lease,
                position,
                revoked: leased.revoked,
                due: self.deliveries.due(now, group, ShardId { stream, shard: leased.shard }),
            }
        });
        Membership { member, leases: leases.collect() }
    }
}

fn is_finished(ends: &BTreeMap<ShardId, u64>, shard: ShardId, position: Option<u64>) -> bool {
    let end = ends.get(&shard);
    end.is_some_and(|end| position.is_some_and(|position| position >= *end))
}
