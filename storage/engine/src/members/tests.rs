//! The coordinator by table, and attacked by seed: members that join, leave, stand still, die and come back, while shards
//! split under them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

mod queue;

const STREAM: u32 = 7;
const SESSION: u64 = 1_000_000_000;
const TICK: u64 = 50_000_000;

fn info(shard: u32, parents: &[u32]) -> ShardInfo {
    ShardInfo { shard, parents: parents.to_vec(), finished: false, rate: 0.0 }
}

fn joining(member: u64, name: &str, fixed: bool) -> Joining {
    Joining { member, name: name.to_owned(), fixed, session_ns: SESSION }
}

/// One group, and what is to be done by hand.
struct World {
    members: Members,
    shards: Vec<ShardInfo>,
    now: u64,
}

impl World {
    fn new(shards: u32) -> World {
        World {
            members: Members::new(3),
            shards: (0..shards).map(|s| info(s, &[])).collect(),
            now: 1,
        }
    }

    fn join(&mut self, member: u64, name: &str, fixed: bool) -> Vec<Change> {
        let mut out = Vec::new();
        let joining = joining(member, name, fixed);
        self.members.join(self.now, "g", STREAM, &joining, self.shards.clone(), &mut out).unwrap();
        out
    }

    fn beat(&mut self, member: u64, released: &[u32]) -> Result<Vec<Change>, MemberError> {
        let mut out = Vec::new();
        self.members.heartbeat(self.now, "g", STREAM, member, released, &mut out).map(|()| out)
    }

    fn pass(&mut self, ns: u64) -> Vec<Change> {
        let mut out = Vec::new();
        let until = self.now + ns;
        while self.now < until {
            self.now = (self.now + TICK).min(until);
            self.members.pass(self.now, self.now, &mut out);
        }
        out
    }

    fn held(&self, member: u64) -> Vec<u32> {
        self.members.leases("g", STREAM, member).iter().map(|l| l.shard).collect()
    }

    fn revoked(&self, member: u64) -> Vec<u32> {
        let leases = self.members.leases("g", STREAM, member);
        leases.iter().filter(|l| l.revoked).map(|l| l.shard).collect()
    }

    fn lease(&self, member: u64, shard: u32) -> u64 {
        let leases = self.members.leases("g", STREAM, member);
        leases.iter().find(|l| l.shard == shard).map_or(0, |l| l.lease)
    }

    fn may_commit(&self, member: u64, shard: u32, lease: u64) -> Result<(), MemberError> {
        self.members.may_commit("g", STREAM, member, (shard, lease))
    }
}

#[test]
fn a_second_member_gets_its_half_when_the_first_has_released_it() {
    let mut w = World::new(4);
    assert_eq!(w.join(1, "a", false).len(), 4);
    assert_eq!(w.join(2, "b", false), [], "nothing is taken from whoever reads it");
    assert_eq!((w.held(1), w.held(2)), (vec![0, 1, 2, 3], vec![]));
    let going = w.revoked(1);
    assert_eq!(going.len(), 2);
    // What is in flight may be finished and committed.
    let old = w.lease(1, going[0]);
    assert_eq!(w.may_commit(1, going[0], old), Ok(()));
    let changes = w.beat(1, &going[..1]).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].old, changes[0].new), (old, w.lease(2, going[0])));
    assert!(matches!(w.may_commit(1, going[0], old), Err(MemberError::Lease { .. })));
    assert_eq!(w.may_commit(2, going[0], changes[0].new), Ok(()));
    // The other one is not given up: it goes when the session's time is over.
    for _ in 0..30 {
        w.pass(TICK);
        w.beat(1, &[]).unwrap();
        w.beat(2, &[]).unwrap();
    }
    assert_eq!(w.held(2), going);
}

#[test]
fn whoever_is_silent_loses_everything_and_is_told() {
    let mut w = World::new(3);
    w.join(1, "a", false);
    let lease = w.lease(1, 0);
    w.pass(SESSION / 2);
    w.join(2, "b", false);
    w.pass(SESSION / 2);
    assert_eq!((w.held(1), w.held(2)), (vec![], vec![0, 1, 2]), "taken over");
    assert!(matches!(w.may_commit(1, 0, lease), Err(MemberError::Unknown { .. })));
    assert!(matches!(w.beat(1, &[]), Err(MemberError::Unknown { .. })));
    w.join(1, "a", false);
    assert!(matches!(w.may_commit(1, 0, lease), Err(MemberError::Lease { .. })), "a zombie's");
    let mut out = Vec::new();
    w.members.leave(w.now, "g", STREAM, 2, &mut out).unwrap();
    assert_eq!(w.held(1), [0, 1, 2]);
    w.members.leave(w.now, "g", STREAM, 1, &mut out).unwrap();
    assert_eq!(w.members.must_rest("g", STREAM, "wait"), Ok(()));
}

#[test]
fn a_fixed_member_comes_back_to_what_it_had() {
    let mut w = World::new(4);
    w.join(1, "a", true);
    w.join(2, "b", true);
    let going = w.revoked(1);
    w.beat(1, &going).unwrap();
    let (had, lease) = (w.held(2), w.lease(2, w.held(2)[0]));
    w.pass(SESSION / 2);
    let changes = w.join(20, "b", true);
    assert_eq!((w.held(20), changes.len()), (had.clone(), had.len()), "nothing else moved");
    assert!(matches!(w.may_commit(2, had[0], lease), Err(MemberError::Unknown { .. })));
    assert!(matches!(w.beat(2, &[]), Err(MemberError::Unknown { .. })), "the old one is out");
    // Joining again after a lost reply changes nothing.
    assert_eq!(w.join(20, "b", true), []);
}

#[test]
fn children_wait_for_all_their_parents() {
    let mut w = World::new(2);
    w.join(1, "a", false);
    w.shards.push(info(2, &[0, 1]));
    w.shards.push(info(3, &[9]));
    let mut out = Vec::new();
    w.members.layout("g", STREAM, w.shards.clone(), &mut out);
    assert_eq!(w.held(1), [0, 1, 3], "a parent that is not there any more is not waited for");
    w.members.finished("g", STREAM, 0, &mut out);
    assert_eq!(w.held(1), [1, 3], "what is finished is nobody's");
    w.members.finished("g", STREAM, 1, &mut out);
    assert_eq!(w.held(1), [2, 3]);
}

#[test]
fn a_pause_of_the_whole_process_is_nobodys_fault() {
    let mut w = World::new(1);
    w.join(1, "a", false);
    let lease = w.lease(1, 0);
    w.pass(SESSION / 2);
    w.now += 60 * SESSION;
    // Whichever is looked at first then: what it commits, that it lives, or the time.
    assert_eq!(w.may_commit(1, 0, lease), Ok(()));
    w.pass(TICK);
    assert!(w.beat(1, &[]).is_ok());
    assert_eq!(w.held(1), [0]);
}

/// The server was slow, not the member: its heartbeat lay in the queue while others had time pass.
#[test]
fn a_heartbeat_that_waits_its_turn_is_no_silence() {
    let mut w = World::new(2);
    w.join(1, "a", false);
    w.join(2, "b", false);
    let going = w.revoked(1);
    let lease = w.lease(1, going[0]);
    w.pass(SESSION - TICK);
    let heard = w.now;
    // Both have beaten by now, and one has given its shard up; then something takes longer than was left of the session.
    let mut out = Vec::new();
    for _ in 0..4 {
        w.now += 8 * TICK;
        assert_eq!(w.beat(2, &[]), Ok(vec![]));
        w.members.pass(w.now, heard, &mut out);
    }
    assert_eq!((w.held(1), out), (vec![0, 1], vec![]));
    assert_eq!(w.may_commit(1, going[0], lease), Ok(()), "it was committed in time");
    assert!(w.beat(1, &going).is_ok(), "and released");
    w.pass(SESSION - TICK);
    assert_eq!((w.held(1).len(), w.held(2)), (1, going), "from then on it counts");
    w.pass(TICK);
    assert_eq!((w.held(1), w.held(2)), (vec![], vec![]), "nobody was heard for a session");
}

/// A member as the simulation has it: what it believes, and when it next does something.
#[derive(Clone, Debug)]
struct Client {
    id: u64,
    name: String,
    fixed: bool,
    /// By shard: the lease it believes in.
    leases: BTreeMap<u32, u64>,
    releasing: Vec<u32>,
    /// Stands still until then.
    until: u64,
}

/// One history of a group.
fn history(seed: u64) -> BTreeSet<&'static str> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut w = World::new(rng.u32(1..12));
    let mut clients: Vec<Client> = Vec::new();
    let mut met = BTreeSet::new();
    // By shard: the lease in force, and the highest there ever was.
    let mut in_force: BTreeMap<u32, u64> = BTreeMap::new();
    let mut finished: BTreeSet<u32> = BTreeSet::new();
    let mut next = 1;
    for step in 0..600 {
        let calm = step >= 500;
        let mut out = Vec::new();
        w.now += rng.u64(1..2 * TICK);
        w.members.pass(w.now, w.now, &mut out);
        if !calm && rng.u8(..) < 8 && clients.len() < 6 {
            let fixed = rng.bool();
            let name = format!("m{}", rng.u8(..4));
            clients.push(Client {
                id: next,
                name: name.clone(),
                fixed,
                leases: BTreeMap::new(),
                releasing: Vec::new(),
                until: 0,
            });
            next += 1;
            let joining = joining(next - 1, &name, fixed);
            w.members.join(w.now, "g", STREAM, &joining, w.shards.clone(), &mut out).unwrap();
        }
        if !calm && rng.u8(..) < 3 && w.shards.len() < 30 {
            // A split: the parent is closed, and finished when its reader gets to the end.
            let parent = w.shards[rng.usize(..w.shards.len())].shard;
            if !w.shards.iter().any(|s| s.parents.contains(&parent)) {
                let child = w.shards.len() as u32;
                w.shards.extend([info(child, &[parent]), info(child + 1, &[parent])]);
                w.members.layout("g", STREAM, w.shards.clone(), &mut out);
                met.insert("split");
            }
        }
        for at in (0..clients.len()).rev() {
            let mut client = clients[at].clone();
            if client.until > w.now && !calm {
                continue;
            }
            match rng.u8(..) {
                0..2 if !calm => client.until = w.now + rng.u64(..3 * SESSION),
                2..4 if !calm => {
                    // Dies, without a word.
                    clients.remove(at);
                    met.insert("death");
                    continue;
                }
                4..6 if !calm => {
                    let _ = w.members.leave(w.now, "g", STREAM, client.id, &mut out);
                    clients.remove(at);
                    met.insert("leave");
                    continue;
                }
                6..60 => {
                    for (shard, lease) in client.leases.clone() {
                        let taken = w.members.may_commit("g", STREAM, client.id, (shard, lease));
                        let valid = in_force_after(&in_force, &out, shard) == lease;
                        assert!(
                            taken.is_err() || valid,
                            "seed {seed}: a zombie's commit was taken"
                        );
                        if taken.is_err() {
                            met.insert("refused commit");
                            client.leases.remove(&shard);
                        } else if w.shards.iter().any(|s| s.parents.contains(&shard)) && rng.bool()
                        {
                            finished.insert(shard);
                            w.shards
                                .iter_mut()
                                .filter(|s| s.shard == shard)
                                .for_each(|s| s.finished = true);
                            w.members.finished("g", STREAM, shard, &mut out);
                            client.leases.remove(&shard);
                            met.insert("finished");
                        }
                    }
                }
                _ => {
                    let released = std::mem::take(&mut client.releasing);
                    match w.members.heartbeat(w.now, "g", STREAM, client.id, &released, &mut out) {
                        Ok(()) => {
                            let told = w.members.leases("g", STREAM, client.id);
                            client.leases = told.iter().map(|l| (l.shard, l.lease)).collect();
                            let revoked = told.iter().filter(|l| l.revoked).map(|l| l.shard);
                            // Some take their time, or never do it.
                            client.releasing =
                                revoked.filter(|_| calm || rng.u8(..) < 100).collect();
                            if !client.releasing.is_empty() {
                                met.insert("handover");
                            }
                        }
                        Err(_) => {
                            met.insert("zombie");
                            client.leases.clear();
                            client.id = next;
                            next += 1;
                            let joining = joining(client.id, &client.name, client.fixed);
                            w.members
                                .join(w.now, "g", STREAM, &joining, w.shards.clone(), &mut out)
                                .unwrap();
                        }
                    }
                }
            }
            clients[at] = client;
        }
        for change in out {
            let shard = change.shard.shard;
            let old = in_force.insert(shard, change.new).unwrap_or(0);
            assert_eq!(old, change.old, "seed {seed}: cores would keep a lease that is over");
            if change.new > 0 {
                assert!(change.new > old, "seed {seed}");
                let parents = &w.shards.iter().find(|s| s.shard == shard).unwrap().parents;
                assert!(parents.iter().all(|p| finished.contains(p)), "seed {seed}: shard {shard}");
                assert!(!finished.contains(&shard), "seed {seed}");
            }
        }
        // What cores hold in force is what members hold.
        let members = w.members.members(w.now, "g", STREAM);
        let held: Vec<(u32, u64)> = members
            .iter()
            .flat_map(|m| w.members.leases("g", STREAM, m.member))
            .map(|l| (l.shard, l.lease))
            .collect();
        let mut sorted = held.clone();
        sorted.sort_unstable();
        sorted.dedup_by_key(|(shard, _)| *shard);
        assert_eq!(sorted.len(), held.len(), "seed {seed}: a shard has two owners");
        let in_force: Vec<(u32, u64)> =
            in_force.iter().filter(|(_, l)| **l > 0).map(|(s, l)| (*s, *l)).collect();
        assert_eq!(sorted, in_force, "seed {seed}");
    }
    let members = w.members.members(w.now, "g", STREAM);
    if !members.is_empty() {
        let readable = w.shards.iter().filter(|s| {
            !finished.contains(&s.shard) && s.parents.iter().all(|p| finished.contains(p))
        });
        let counts: Vec<usize> = members.iter().map(|m| m.shards.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), readable.count(), "seed {seed}: {members:?}");
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        // Those that finish at the end are not worth a move.
        assert!(most - least <= 3, "seed {seed}: {counts:?}");
        met.insert("members at the end");
    }
    met
}

/// The lease in force on a shard, those changes included that have not been applied yet.
fn in_force_after(in_force: &BTreeMap<u32, u64>, out: &[Change], shard: u32) -> u64 {
    let last = out.iter().rev().find(|change| change.shard.shard == shard);
    last.map_or_else(|| in_force.get(&shard).copied().unwrap_or(0), |change| change.new)
}

#[test]
fn no_history_gives_a_shard_two_owners_or_takes_a_zombies_commit() {
    let mut met = BTreeSet::new();
    for seed in 0..120 {
        met.extend(history(seed));
    }
    let wanted = [
        "split",
        "death",
        "leave",
        "refused commit",
        "finished",
        "handover",
        "zombie",
        "members at the end",
    ];
    assert!(wanted.iter().all(|event| met.contains(event)), "{met:?}");
}
