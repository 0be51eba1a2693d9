//! Who reads which shard for a consumer group: members with names and sessions, a lease for each shard, handed over
//! gracefully or taken over when a session runs out. Pure: (event, now) → leases that changed; the control plane
//! tells the cores and asks here whether a commit may be taken.
//!
//! A lease has a number that is never used again, the fence: whoever holds another one holds nothing. A member that is
//! to give up a shard is told so with its next heartbeat, finishes what it has in flight, commits, and releases; the
//! next owner begins there. One that does not release in the time of its session loses the shard. No child of a split
//! or merge is leased before its parents were read to their end.
//!
//! Only [`Members::pass`] finds that somebody's time is over, and by a time up to which everybody was heard: requests wait
//! while the control plane does, and what lies there may be the sign of life that is missing.

mod assign;
mod group;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use highwater_wire::ShardId;

use group::{Group, Member, end};

/// Members that all groups may have together.
pub const MAX_MEMBERS: usize = 65_536;

/// Shortest session, nanoseconds.
pub const SHORTEST_SESSION_NS: u64 = 100_000_000;

/// Longest session, nanoseconds: ten minutes.
pub const LONGEST_SESSION_NS: u64 = 600_000_000_000;

/// If nothing was looked at for longer than this, the whole process stood still, which is no member's fault, ns.
const STOOD_STILL_NS: u64 = 500_000_000;

/// Why a member is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not, or not any more.
    #[error(
        "member {member:#x} is not in group {group:?} (any more): its session ran out, it left, or another took its \
         name; join again"
    )]
    Unknown {
        /// The group's name.
        group: String,
        /// The member's number.
        member: u64,
    },
    /// The lease is not in force.
    #[error(
        "lease {lease:#x} on shard {shard} of group {group:?} is not in force any more: the shard has gone to another \
         member, or was read to its end"
    )]
    Lease {
        /// The group's name.
        group: String,
        /// The shard.
        shard: u32,
        /// As given.
        lease: u64,
    },
    /// The group is read by members.
    #[error("group {group:?} has {members} active members in this stream; {what}")]
    Active {
        /// The group's name.
        group: String,
        /// How many.
        members: usize,
        /// What is to be done.
        what: &'static str,
    },
    /// No more members are kept.
    #[error("there are {MAX_MEMBERS} members of groups; no more are taken")]
    Full,
}

/// A member as it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Its number, chosen by itself: for who joins again after a lost reply.
    pub member: u64,
    /// Its name.
    pub name: String,
    /// It keeps its leases through a restart: whoever joins under its name within its session takes them over.
    pub fixed: bool,
    /// Longest silence, nanoseconds.
    pub session_ns: u64,
}

/// A shard of the stream as the group finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardInfo {
    /// Its number.
    pub shard: u32,
    /// The shards that have to be read before it.
    pub parents: Vec<u32>,
    /// Closed, and read to its end.
    pub finished: bool,
    /// Records that come in, a second.
    pub rate: f64,
}

/// The lease on a shard changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub shard: ShardId,
    /// The lease that is not in force any more; 0 for none.
    pub old: u64,
    /// The one that is now; 0 for none.
    pub new: u64,
}

/// A lease as its holder is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The shard.
    pub shard: u32,
    /// The lease's number.
    pub lease: u64,
    /// To be given up: finish, commit, release.
    pub revoked: bool,
}

/// A member as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its number.
    pub member: u64,
    /// Its name.
    pub name: String,
    /// Whether it keeps its leases through a restart.
    pub fixed: bool,
    /// Nanoseconds left of its session.
    pub left_ns: u64,
    /// The shards it holds.
    pub shards: Vec<u32>,
}

/// All groups that have members, by name and stream number.
#[derive(Debug)]
pub struct Members {
    groups: BTreeMap<(String, u32), Group>,
    next_lease: u64,
    seen_ns: u64,
}

impl Members {
    /// For one start of the server: leases of different epochs have different numbers.
    pub fn new(epoch: u32) -> Members {
        Members { groups: BTreeMap::new(), next_lease: u64::from(epoch) << 32 | 1, seen_ns: 0 }
    }

    /// A member joins, or joins again, a group that finds the stream's shards so.
    pub fn join(
        &mut self,
        now_ns: u64,
        group: &str,
        stream: u32,
        joining: &Joining,
        shards: Vec<ShardInfo>,
        out: &mut Vec<Change>,
    ) -> Result<(), MemberError> {
        self.look_at_clock(now_ns);
        let known = self.groups.values().map(|group| group.members.len()).sum::<usize>();
        if known >= MAX_MEMBERS {
            return Err(MemberError::Full);
        }
        let entry = self.groups.entry((group.to_owned(), stream)).or_default();
        entry.lay_out(stream, shards, out);
        let until_ns = now_ns.saturating_add(joining.session_ns);
        let Joining { member, name, fixed, session_ns } = joining.clone();
        let taken_over = entry
            .members
            .iter()
            .find(|(id, m)| fixed && m.fixed && m.name == name && **id != member)
            .map(|(id, _)| *id);
        entry.members.insert(member, Member { name, fixed, session_ns, until_ns });
        if let Some(before) = taken_over {
            entry.members.remove(&before);
            entry.inherit(stream, before, member, &mut self.next_lease, out);
        }
        entry.balance(now_ns, stream, &mut self.next_lease, out);
        Ok(())
    }

    /// A sign of life; `released` are shards that the member was to give up, and has.
    pub fn heartbeat(
        &mut self,
        now_ns: u64,
        group: &str,
        stream: u32,
        member: u64,
        released: &[u32],
        out: &mut Vec<Change>,
    ) -> Result<(), MemberError> {
        self.look_at_clock(now_ns);
        let entry = self.groups.get_mut(&(group.to_owned(), stream));
        let found = entry.and_then(|entry| entry.members.contains_key(&member).then_some(entry));
        let Some(entry) = found else { return Err(unknown(group, member)) };
        if let Some(member) = entry.members.get_mut(&member) {
            member.until_ns = now_ns.saturating_add(member.session_ns);
        }
        let mut changed = false;
        for shard in released {
            changed |= entry.release(stream, *shard, member, &mut self.next_lease, out);
        }
        if changed {
            entry.balance(now_ns, stream, &mut self.next_lease, out);
        }
        Ok(())
    }

    /// A member leaves: what it holds is free. (It has committed.)
    pub fn leave(
        &mut self,
        now_ns: u64,
        group: &str,
        stream: u32,
        member: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), MemberError> {
        self.look_at_clock(now_ns);
        let key = (group.to_owned(), stream);
        let entry = self.groups.get_mut(&key).ok_or_else(|| unknown(group, member))?;
        entry.members.remove(&member).ok_or_else(|| unknown(group, member))?;
        entry.forget(stream, member, out);
        entry.balance(now_ns, stream, &mut self.next_lease, out);
        self.groups.retain(|_, group| !group.members.is_empty());
        Ok(())
    }

    /// Time passes: sessions run out, and what was not given up in time is taken away, where that time was over at
    /// `heard_ns`: all that had come by then has been carried out. To be called several times a second.
    pub fn pass(&mut self, now_ns: u64, heard_ns: u64, out: &mut Vec<Change>) {
        self.look_at_clock(now_ns);
        for ((_, stream), group) in &mut self.groups {
            let gone: Vec<u64> = group
                .members
                .iter()
                .filter(|(_, member)| member.until_ns <= heard_ns)
                .map(|(id, _)| *id)
                .collect();
            for member in &gone {
                group.members.remove(member);
                group.forget(*stream, *member, out);
            }
            let taken = group.take_away(heard_ns, *stream, &mut self.next_lease, out);
            if taken || !gone.is_empty() {
                group.balance(now_ns, *stream, &mut self.next_lease, out);
            }
        }
        self.groups.retain(|_, group| !group.members.is_empty());
    }

    /// If it was not looked at for long, all times are put off.
    fn look_at_clock(&mut self, now_ns: u64) {
        let still = now_ns.saturating_sub(self.seen_ns);
        self.seen_ns = self.seen_ns.max(now_ns);
        if still > STOOD_STILL_NS {
            self.put_off(still);
        }
    }

    fn put_off(&mut self, by_ns: u64) {
        for group in self.groups.values_mut() {
            for member in group.members.values_mut() {
                member.until_ns = member.until_ns.saturating_add(by_ns);
            }
            let leases = group.shards.values_mut().filter_map(|shard| shard.lease.as_mut());
            for revoked in leases.filter_map(|lease| lease.revoked.as_mut()) {
                revoked.until_ns = revoked.until_ns.saturating_add(by_ns);
            }
        }
    }

    /// The shards of a stream, as a group finds them now: of one that has members.
    pub fn layout(
        &mut self,
        group: &str,
        stream: u32,
        shards: Vec<ShardInfo>,
        out: &mut Vec<Change>,
    ) {
        if let Some(entry) = self.groups.get_mut(&(group.to_owned(), stream)) {
            entry.lay_out(stream, shards, out);
            // Rates change all the time and are no reason to move any.
            entry.grant(stream, &mut self.next_lease, out);
        }
    }

    /// A shard was read to its end by a group: what came of it may be read.
    pub fn finished(&mut self, group: &str, stream: u32, shard: u32, out: &mut Vec<Change>) {
        let Some(entry) = self.groups.get_mut(&(group.to_owned(), stream)) else { return };
        let Some(found) = entry.shards.get_mut(&shard) else { return };
        found.info.finished = true;
        end(found, stream, out);
        entry.grant(stream, &mut self.next_lease, out);
    }

    /// Whether a member may commit a position of a shard: it may as long as nobody has found that its time is over.
    pub fn may_commit(
        &self,
        group: &str,
        stream: u32,
        member: u64,
        (shard, lease): (u32, u64),
    ) -> Result<(), MemberError> {
        let entry = self.groups.get(&(group.to_owned(), stream));
        if entry.is_none_or(|entry| !entry.members.contains_key(&member)) {
            return Err(unknown(group, member));
        }
        let held = entry.and_then(|entry| entry.shards.get(&shard)?.lease);
        match held {
            Some(held) if held.number == lease && held.member == member => Ok(()),
            _ => Err(MemberError::Lease { group: group.to_owned(), shard, lease }),
        }
    }

    /// Refuses what only a group without members may be asked.
    pub fn must_rest(
        &self,
        group: &str,
        stream: u32,
        what: &'static str,
    ) -> Result<(), MemberError> {
        match self.groups.get(&(group.to_owned(), stream)).map_or(0, |g| g.members.len()) {
            0 => Ok(()),
            members => Err(MemberError::Active { group: group.to_owned(), members, what }),
        }
    }

    /// What a member holds, by shard.
    pub fn leases(&self, group: &str, stream: u32, member: u64) -> Vec<Leased> {
        let entry = self.groups.get(&(group.to_owned(), stream));
        let shards = entry.into_iter().flat_map(|entry| &entry.shards);
        shards
            .filter_map(|(shard, kept)| {
                let lease = kept.lease.filter(|lease| lease.member == member)?;
                let (lease, revoked) = (lease.number, lease.revoked.is_some());
                Some(Leased { shard: *shard, lease, revoked })
            })
            .collect()
    }

    /// The members of a group, by number.
    pub fn members(&self, now_ns: u64, group: &str, stream: u32) -> Vec<MemberInfo> {
        let Some(entry) = self.groups.get(&(group.to_owned(), stream)) else { return Vec::new() };
        let shards_of =
            |member| self.leases(group, stream, member).iter().map(|l| l.shard).collect();
        let info = |(id, member): (&u64, &Member)| MemberInfo {
            member: *id,
            name: member.name.clone(),
            fixed: member.fixed,
            left_ns: member.until_ns.saturating_sub(now_ns),
            shards: shards_of(*id),
        };
        entry.members.iter().map(info).collect()
    }

    /// The groups that have members, with the numbers of their streams.
    pub fn groups(&self) -> impl Iterator<Item = (&str, u32)> {
        self.groups.keys().map(|(group, stream)| (group.as_str(), *stream))
    }

    /// A stream is no more.
    pub fn forget_stream(&mut self, stream: u32) {
        self.groups.retain(|(_, of), _| *of != stream);
    }
}

fn unknown(group: &str, member: u64) -> MemberError {
    MemberError::Unknown { group: group.to_owned(), member }
}
