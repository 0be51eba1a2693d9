//! The coordinator behind a queue, by seed: members' heartbeats wait in it while the control plane waits for its disk.
//! Whoever beats as it should loses nothing to that, however long it takes; whoever falls silent loses everything.

use std::collections::{BTreeSet, VecDeque};

use super::{STREAM, info};
use crate::members::{Joining, Members};

const MS: u64 = 1_000_000;

/// Requests taken from the queue at once.
const GATHER: usize = 8;

/// How often time is made to pass, ns.
const LOOK: u64 = 200 * MS;

/// Commits come until then, ns; that is more work than can be done.
const BUSY: u64 = 20_000 * MS;

/// With so many requests in the queue no more commits are taken.
const FULL: usize = 32;

/// By then everything is settled again, ns.
const END: u64 = BUSY + 30_000 * MS;

const SHARDS: u32 = 7;

#[derive(Clone, Copy, Debug)]
enum Request {
    /// Of a client: it joins, or says that it lives.
    Sign(usize),
    /// It takes so long, ns.
    Commit(u64),
}

/// A member that does as it should until it falls silent. Its number is its place from 1 on.
#[derive(Debug)]
struct Client {
    session_ns: u64,
    every_ns: u64,
    /// When it has something to say; never while it waits for an answer.
    next_ns: u64,
    silent_ns: u64,
    joined: bool,
    /// A session after the last answer.
    until_ns: u64,
    releasing: Vec<u32>,
}

struct Server {
    seed: u64,
    rng: fastrand::Rng,
    members: Members,
    clients: Vec<Client>,
    /// With the time at which each came.
    queue: VecDeque<(u64, Request)>,
    now: u64,
    looked: u64,
    commit_ns: u64,
    met: BTreeSet<&'static str>,
}

impl Server {
    fn new(seed: u64) -> Server {
        let mut rng = fastrand::Rng::with_seed(seed);
        let client = |rng: &mut fastrand::Rng| {
            let session_ns = rng.u64(100 * MS..3_000 * MS);
            let dies = rng.u8(..) < 80;
            Client {
                session_ns,
                every_ns: (session_ns / 4).min(300 * MS),
                next_ns: rng.u64(1..2_000 * MS),
                silent_ns: if dies { rng.u64(..BUSY) } else { u64::MAX },
                joined: false,
                until_ns: u64::MAX,
                releasing: Vec::new(),
            }
        };
        let clients = (0..rng.usize(2..6)).map(|_| client(&mut rng)).collect();
        Server {
            seed,
            rng,
            members: Members::new(3),
            clients,
            queue: VecDeque::new(),
            now: 1,
            looked: 1,
            commit_ns: 1,
            met: BTreeSet::new(),
        }
    }

    /// What has come by now is put into the queue.
    fn arrive(&mut self) {
        let mut come = Vec::new();
        for (at, client) in self.clients.iter_mut().enumerate() {
            if client.next_ns <= self.now.min(client.silent_ns) {
                come.push((client.next_ns, Request::Sign(at)));
                client.next_ns = u64::MAX;
            }
        }
        while self.commit_ns <= self.now.min(BUSY) {
            if self.queue.len() + come.len() < FULL {
                come.push((self.commit_ns, Request::Commit(self.rng.u64(1..450 * MS))));
            }
            self.commit_ns += self.rng.u64(1..300 * MS);
        }
        come.sort_by_key(|(at, _)| *at);
        self.queue.extend(come);
    }

    /// Nothing is to be done until then.
    fn idle_until(&self) -> u64 {
        let signs = self.clients.iter().filter(|c| c.next_ns <= c.silent_ns).map(|c| c.next_ns);
        let commit = Some(self.commit_ns).filter(|at| *at <= BUSY);
        signs.chain(commit).fold(self.looked + LOOK, u64::min).max(self.now)
    }

    /// As the control thread does it.
    fn turn(&mut self) {
        self.arrive();
        if self.queue.is_empty() {
            self.now = self.idle_until();
            self.arrive();
        }
        let taken = self.queue.len().min(GATHER);
        let requests: Vec<(u64, Request)> = self.queue.drain(..taken).collect();
        let mut heard = self.now;
        if taken == GATHER {
            heard = requests[GATHER - 1].0;
            self.met.insert("some left in the queue");
        }
        for (_, request) in requests {
            match request {
                Request::Sign(at) => self.answer(at),
                Request::Commit(ns) => self.now += ns,
            }
        }
        if self.now >= self.looked + LOOK {
            self.members.pass(self.now, heard, &mut Vec::new());
            self.looked = self.now;
        }
    }

    fn answer(&mut self, at: usize) {
        let (seed, now, id) = (self.seed, self.now, at as u64 + 1);
        let client = &mut self.clients[at];
        let mut out = Vec::new();
        if client.joined {
            if now >= client.until_ns {
                self.met.insert("answered after the session");
            }
            let released = std::mem::take(&mut client.releasing);
            let known = self.members.heartbeat(now, "g", STREAM, id, &released, &mut out);
            assert_eq!(known, Ok(()), "seed {seed}: it beat in time, and nobody listened");
            if !out.is_empty() {
                self.met.insert("handed over");
            }
        } else {
            let name = format!("m{id}");
            let joining = Joining { member: id, name, fixed: false, session_ns: client.session_ns };
            let shards = (0..SHARDS).map(|shard| info(shard, &[])).collect();
            self.members.join(now, "g", STREAM, &joining, shards, &mut out).unwrap();
            client.joined = true;
        }
        client.until_ns = now + client.session_ns;
        client.next_ns = now + client.every_ns + self.rng.u64(..client.every_ns);
        for lease in self.members.leases("g", STREAM, id).iter().filter(|lease| lease.revoked) {
            client.releasing.push(lease.shard);
            client.next_ns = now + MS;
        }
    }

    fn check(&mut self) {
        let lives = |client: &Client| client.silent_ns == u64::MAX;
        let living: Vec<u64> =
            (1..).zip(&self.clients).filter(|(_, c)| lives(c)).map(|(id, _)| id).collect();
        let members = self.members.members(self.now, "g", STREAM);
        let known: Vec<u64> = members.iter().map(|member| member.member).collect();
        assert_eq!(known, living, "seed {}", self.seed);
        if !living.is_empty() {
            let held = members.iter().map(|member| member.shards.len()).sum::<usize>();
            assert_eq!(held, SHARDS as usize, "seed {}", self.seed);
            if self.clients.iter().any(|client| client.joined && !lives(client)) {
                self.met.insert("taken over");
            }
        }
    }
}

#[test]
fn no_heartbeat_goes_unheard_because_it_waits_in_the_queue() {
    let mut met = BTreeSet::new();
    for seed in 0..60 {
        let mut server = Server::new(seed);
        while server.now < END {
            server.turn();
        }
        server.check();
        met.extend(server.met);
    }
    let wanted =
        ["some left in the queue", "answered after the session", "handed over", "taken over"];
    assert!(wanted.iter().all(|event| met.contains(event)), "{met:?}");
}
