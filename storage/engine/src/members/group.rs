//! One group in one stream: its members, and the leases on its shards.

use std::collections::BTreeMap;

use highwater_wire::ShardId;

use super::assign::{Place, assign};
use super::{Change, ShardInfo};

#[derive(Clone, Debug)]
pub(super) struct Member {
    pub name: String,
    pub fixed: bool,
    pub session_ns: u64,
    pub until_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub number: u64,
    pub member: u64,
    pub revoked: Option<Revoked>,
}

/// A lease that is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revoked {
    /// For whom; `None` if they have gone meanwhile.
    pub to: Option<u64>,
    /// Taken away then.
    pub until_ns: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub info: ShardInfo,
    pub lease: Option<Lease>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub members: BTreeMap<u64, Member>,
    pub shards: BTreeMap<u32, Shard>,
}

/// Takes the lease on a shard away.
pub(super) fn end(shard: &mut Shard, stream: u32, out: &mut Vec<Change>) {
    if let Some(lease) = shard.lease.take() {
        let id = ShardId { stream, shard: shard.info.shard };
        out.push(Change { shard: id, old: lease.number, new: 0 });
    }
}

/// Gives the lease on a shard to a member, in place of the one in force.
fn give(shard: &mut Shard, stream: u32, member: u64, next: &mut u64, out: &mut Vec<Change>) {
    let old = shard.lease.map_or(0, |lease| lease.number);
    let new = *next;
    *next += 1;
    shard.lease = Some(Lease { number: new, member, revoked: None });
    out.push(Change { shard: ShardId { stream, shard: shard.info.shard }, old, new });
}

impl Group {
    pub fn lay_out(&mut self, stream: u32, shards: Vec<ShardInfo>, out: &mut Vec<Change>) {
        let mut before = std::mem::take(&mut self.shards);
        for info in shards {
            let lease = before.remove(&info.shard).and_then(|shard| shard.lease);
            let mut shard = Shard { info, lease };
            if shard.info.finished {
                end(&mut shard, stream, out);
            }
            self.shards.insert(shard.info.shard, shard);
        }
        before.values_mut().for_each(|gone| end(gone, stream, out));
    }

    /// Whether a shard may be read now.
    pub fn readable(&self, shard: &Shard) -> bool {
        let done = |parent: &u32| self.shards.get(parent).is_none_or(|p| p.info.finished);
        !shard.info.finished && shard.info.parents.iter().all(done)
    }

    /// What one member holds goes to another, under new numbers.
    pub fn inherit(
        &mut self,
        stream: u32,
        from: u64,
        to: u64,
        next: &mut u64,
        out: &mut Vec<Change>,
    ) {
        for shard in self.shards.values_mut() {
            let Some(lease) = &mut shard.lease else { continue };
            if let Some(revoked) = &mut lease.revoked
                && revoked.to == Some(from)
            {
                revoked.to = Some(to);
            }
            if lease.member == from {
                // To be given up it is still, but by somebody who has not read of it: at once.
                let heir = lease.revoked.map_or(Some(to), |revoked| revoked.to);
                give(shard, stream, heir.unwrap_or(to), next, out);
            }
        }
    }

    /// A member is no more.
    pub fn forget(&mut self, stream: u32, member: u64, out: &mut Vec<Change>) {
        for shard in self.shards.values_mut() {
            let Some(lease) = &mut shard.lease else { continue };
            if lease.member == member {
                end(shard, stream, out);
            } else if let Some(revoked) = &mut lease.revoked
                && revoked.to == Some(member)
            {
                revoked.to = None;
            }
        }
    }

    /// A member has given up what it was to.
    pub fn release(
        &mut self,
        stream: u32,
        shard: u32,
        member: u64,
        next: &mut u64,
        out: &mut Vec<Change>,
    ) -> bool {
        let Some(found) = self.shards.get_mut(&shard) else { return false };
        let Some(lease) = found.lease.filter(|lease| lease.member == member) else { return false };
        let Some(revoked) = lease.revoked else { return false };
        match revoked.to {
            Some(to) => give(found, stream, to, next, out),
            None => end(found, stream, out),
        }
        true
    }

    /// What was not given up by then though its time was over goes on all the same.
    pub fn take_away(
        &mut self,
        heard_ns: u64,
        stream: u32,
        next: &mut u64,
        out: &mut Vec<Change>,
    ) -> bool {
        let late: Vec<(u32, u64)> = self
            .shards
            .iter()
            .filter_map(|(shard, kept)| {
                let lease = kept.lease?;
                (lease.revoked?.until_ns <= heard_ns).then_some((*shard, lease.member))
            })
            .collect();
        late.iter().fold(false, |any, (shard, member)| {
            self.release(stream, *shard, *member, next, out) || any
        })
    }

    pub fn places(&self) -> Vec<Place> {
        let readable = self.shards.values().filter(|shard| self.readable(shard));
        readable
            .map(|shard| {
                let owner = shard.lease.and_then(|lease| match lease.revoked {
                    Some(revoked) => revoked.to,
                    None => Some(lease.member),
                });
                let moving = shard.lease.is_some_and(|lease| lease.revoked.is_some());
                Place { shard: shard.info.shard, rate: shard.info.rate, owner, moving }
            })
            .collect()
    }

    /// Gives out what nobody holds.
    pub fn grant(&mut self, stream: u32, next: &mut u64, out: &mut Vec<Change>) {
        self.carry_out(0, stream, false, next, out);
    }

    /// Gives out what nobody holds, and has shards change hands where that makes the load even.
    pub fn balance(&mut self, now_ns: u64, stream: u32, next: &mut u64, out: &mut Vec<Change>) {
        self.carry_out(now_ns, stream, true, next, out);
    }

    fn carry_out(
        &mut self,
        now_ns: u64,
        stream: u32,
        moves: bool,
        next: &mut u64,
        out: &mut Vec<Change>,
    ) {
        let members: Vec<u64> = self.members.keys().copied().collect();
        for (number, owner) in assign(&members, &self.places(), moves) {
            let Some(shard) = self.shards.get_mut(&number) else { continue };
            match &mut shard.lease {
                None => give(shard, stream, owner, next, out),
                Some(lease) => match &mut lease.revoked {
                    // Whoever it was meant for has gone.
                    Some(revoked) => revoked.to = Some(owner),
                    None => {
                        let session_ns =
                            self.members.get(&lease.member).map_or(0, |m| m.session_ns);
                        let until_ns = now_ns.saturating_add(session_ns);
                        lease.revoked = Some(Revoked { to: Some(owner), until_ns });
                    }
                },
            }
        }
    }
}
