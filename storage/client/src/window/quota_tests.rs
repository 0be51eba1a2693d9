//! Windows against a model of a shard with a quota: partial refusals, repetitions, what is out of sequence, replies
//! that are lost. Events in simulated time; the same seed, the same history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use highwater_wire::{ErrorCode, ProducerStamp, WireError};
use proptest::prelude::*;

use super::*;
use crate::outcome::Decision;

/// A quota and who meets it.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Records a second.
    rate: u32,
    burst_ms: u32,
    /// Batches are held back until they fit, if that takes no longer; 0: what does not fit is refused.
    held_ms: u32,
    /// Most records of a batch.
    batch: u32,
    clients: usize,
    /// Records a second that each client has to send, gathered while there is no room; 0: always more.
    offered: u32,
    /// Records that each client has in all.
    records: u64,
    /// From a client to the shard, and back.
    way_us: u64,
    /// Of a million replies, those that are lost with their connection.
    lost_ppm: u32,
    seconds: u64,
}

/// A shard with a quota: a token bucket, and what it remembers of its producers.
#[derive(Debug)]
struct Shard {
    rate: f64,
    burst: f64,
    held: Duration,
    /// Negative by what is held back.
    tokens: f64,
    at: Time,
    /// By client: its next sequence number, and the decisions by sequence number.
    known: Vec<(u64, HashMap<u64, u32>)>,
    log: Vec<(usize, u64)>,
    refused: u64,
}

impl Shard {
    /// The reply, and for how long the batch is held before that.
    fn append(&mut self, request: &Request, now: Time) -> (Reply, Duration) {
        let reply = self.decide(request, now);
        let held = if reply.is_ok() { (-self.tokens).max(0.0) / self.rate } else { 0.0 };
        (reply, Duration::from_secs_f64(held))
    }

    fn decide(&mut self, request: &Request, now: Time) -> Reply {
        let Request { client, sequence, first, count } = *request;
        let gained = (now - self.at).as_secs_f64() * self.rate;
        (self.tokens, self.at) = ((self.tokens + gained).min(self.burst), now);
        let (next, decisions) = &mut self.known[client];
        if sequence < *next {
            return match decisions.get(&sequence).copied().filter(|decided| *decided <= count) {
                Some(decided) => Ok(self.decision(decided, count)),
                None => Err(refusal(ErrorCode::DuplicateSequence, 0)),
            };
        }
        if sequence > *next {
            self.refused += u64::from(count);
            return Err(refusal(ErrorCode::OutOfSequence, 0));
        }
        // Even with a burst of less than one, one has to pass some time.
        let least = u32::from(self.tokens >= self.burst);
        let behind = (f64::from(count) - self.tokens) / self.rate;
        let decided = match self.held.is_zero() {
            true => (self.tokens as u32).max(least).min(count),
            // What is larger than the burst passes when all of that is there, and is paid back.
            false if behind <= self.held.as_secs_f64() || self.tokens >= self.burst => count,
            false => 0,
        };
        self.refused += u64::from(count - decided);
        if decided == 0 {
            return Err(refusal(ErrorCode::QuotaExceeded, self.wait_ms(count)));
        }
        self.tokens -= f64::from(decided);
        *next += u64::from(decided);
        decisions.insert(sequence, decided);
        self.log.extend((first..first + u64::from(decided)).map(|record| (client, record)));
        Ok(self.decision(decided, count))
    }

    fn decision(&self, decided: u32, count: u32) -> Decision {
        let left = count - decided;
        let retry_after_ms = if left == 0 { 0 } else { self.wait_ms(left) };
        Decision { stored: decided, decided, retry_after_ms, ..Decision::default() }
    }

    /// Until so many fit, or all of the burst is there.
    fn wait_ms(&self, count: u32) -> u32 {
        let missing = f64::from(count).min(self.burst) - self.tokens;
        ((missing / self.rate * 1e3).ceil() as u32).max(1)
    }
}

fn refusal(code: ErrorCode, after_ms: u32) -> ClientError {
    ClientError::Refused(WireError::new(code, "no").retry_after(after_ms))
}

/// `count` records of a client, the first of which is its record `first`.
#[derive(Clone, Copy, Debug)]
struct Request {
    client: usize,
    sequence: u64,
    first: u64,
    count: u32,
}

#[derive(Debug)]
enum Event {
    Arrives { request: Request, index: u64, attempt: u32, connection: u32 },
    Replied { client: usize, index: u64, attempt: u32, connection: u32, reply: Reply },
}

type Reply = Result<Decision, ClientError>;

/// What is left of a batch.
#[derive(Debug)]
struct Body {
    first: u64,
    count: u32,
}

/// A window with something to send.
struct Client {
    window: Window<Body>,
    next: u64,
    /// When it was last told that something is stored.
    told: Time,
    connection: u32,
    flying: BTreeSet<(u64, u32)>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Told {
    accepted: u64,
    refused: u64,
    /// The longest time in which nothing was accepted.
    standstill: Duration,
    /// The longest time in which a client that had something to send was told of nothing.
    silence: Duration,
    /// When the last was accepted.
    lasted: Time,
}

impl Told {
    /// What was accepted of all the quota lets pass, and what was refused in parts of that.
    fn shares(&self, setup: &Setup) -> (f64, f64) {
        let seconds = setup.seconds as f64 + f64::from(setup.burst_ms) / 1e3;
        let all = f64::from(setup.rate) * seconds;
        (self.accepted as f64 / all, self.refused as f64 / self.accepted as f64)
    }
}

/// Lives through a setup and then until all is decided. Panics with what was wrong.
fn live(setup: Setup, seed: u64) -> Told {
    let mut rng = fastrand::Rng::with_seed(seed);
    let burst = (f64::from(setup.rate) * f64::from(setup.burst_ms) / 1e3).max(1.0);
    let known = (0..setup.clients).map(|_| (0, HashMap::new())).collect();
    let (log, at, refused) = (Vec::new(), Time::ZERO, 0);
    let held = Duration::from_millis(setup.held_ms.into());
    let mut shard =
        Shard { held, rate: setup.rate.into(), burst, tokens: burst, at, known, log, refused };
    let retry = RetryPolicy { deadline: Time::MAX, ..RetryPolicy::default() };
    let config = Config {
        shard: 0,
        inflight: 8,
        idempotent: true,
        partial: true,
        request_timeout: Duration::from_secs(30),
        retry,
    };
    let mut clients: Vec<Client> = (0..setup.clients)
        .map(|client| {
            let stamp = ProducerStamp { id: 1 + client as u64, epoch: 0, sequence: 0 };
            let window = Window::new(config.clone(), Some(stamp), rng.fork());
            Client { window, next: 0, told: Time::ZERO, connection: 0, flying: BTreeSet::new() }
        })
        .collect();
    let way = Duration::from_micros(setup.way_us);
    let (mut now, mut number) = (Time::ZERO, 0u64);
    let mut events: BTreeMap<Reverse<(Time, u64)>, Event> = BTreeMap::new();
    let (mut told, mut last) = (Told::default(), now);
    let end = Duration::from_secs(setup.seconds);
    for turn in 0.. {
        assert!(turn < 3_000_000, "{setup:?}, seed {seed}: no end at {now:?}");
        let mut later = |events: &mut BTreeMap<_, _>, at: Time, event| {
            number += 1;
            events.insert(Reverse((at, number)), event);
        };
        for (at, client) in clients.iter_mut().enumerate() {
            client.window.tick(now);
            let mut news = client.window.is_empty() || client.window.take_decided().is_some();
            while client.window.pop_settled().is_some() {
                news = true;
            }
            news |= client.window.take_decided().is_some();
            if now < end {
                told.silence = told.silence.max(now - client.told);
            }
            if news {
                client.told = now;
            }
            let due = match setup.offered {
                0 => setup.records,
                offered => setup.records.min((now.as_secs_f64() * f64::from(offered)) as u64),
            };
            while now < end && client.window.has_room() && client.next < due {
                let (first, stamp) = (client.next, client.window.next_stamp());
                let count = u64::from(setup.batch).min(due - first) as u32;
                client.window.push(Body { first, count }, count, stamp, now);
                client.next += u64::from(count);
            }
            while let Some(send) = client.window.next_send(now) {
                send.body.first += u64::from(send.cut);
                send.body.count -= send.cut;
                let (index, attempt) = (send.index, send.attempt);
                let (first, count) = (send.body.first, send.piece.unwrap_or(send.body.count));
                let request = Request { client: at, sequence: send.stamp.sequence, first, count };
                client.flying.insert((index, attempt));
                let connection = client.connection;
                later(
                    &mut events,
                    now + way,
                    Event::Arrives { request, index, attempt, connection },
                );
            }
        }
        if now >= end && told.accepted == 0 {
            (told.accepted, told.refused) = (shard.log.len() as u64, shard.refused);
        }
        // As timers have it, to the millisecond.
        let timer = |client: &Client| {
            let ns = client.window.next_tick()?.as_nanos().div_ceil(1_000_000) * 1_000_000;
            Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
        };
        let more = |client: &Client| client.next < setup.records && client.window.has_room();
        let gathers = setup.offered > 0 && now < end && clients.iter().any(more);
        let gathered = gathers.then(|| now + Duration::from_millis(5));
        let wake = clients.iter().filter_map(timer).chain(gathered).min();
        let next = events.last_key_value().map(|(Reverse((at, _)), _)| *at);
        let Some(then) = wake.into_iter().chain(next).min() else { break };
        now = now.max(then);
        let Some(entry) = events.last_entry().filter(|e| e.key().0.0 <= now) else { continue };
        match entry.remove() {
            Event::Arrives { request, index, attempt, connection } => {
                let client = request.client;
                // What was on its way when the connection broke may still arrive.
                if connection != clients[client].connection && rng.bool() {
                    continue;
                }
                let before = shard.log.len();
                let (reply, held) = shard.append(&request, now);
                if shard.log.len() > before {
                    told.standstill = told.standstill.max(now - last);
                    (last, told.lasted) = (now, now);
                }
                later(
                    &mut events,
                    now + held + way,
                    Event::Replied { client, index, attempt, connection, reply },
                );
            }
            Event::Replied { client, index, attempt, connection, reply } => {
                let client = &mut clients[client];
                if connection != client.connection {
                    continue;
                }
                if rng.u32(..1_000_000) < setup.lost_ppm {
                    client.connection += 1;
                    for (index, attempt) in std::mem::take(&mut client.flying) {
                        let reason = "cut".to_owned();
                        let cut = ClientError::Disconnected { address: "a".to_owned(), reason };
                        client.window.failed(index, attempt, cut, now);
                    }
                    continue;
                }
                client.flying.remove(&(index, attempt));
                match reply {
                    Ok(decision) => client.window.replied(index, attempt, &decision, now),
                    Err(cause) => client.window.failed(index, attempt, cause, now),
                }
            }
        }
    }
    if told.accepted == 0 {
        (told.accepted, told.refused) = (shard.log.len() as u64, shard.refused);
    }
    for (at, client) in clients.iter().enumerate() {
        assert!(client.window.is_empty(), "{setup:?}, seed {seed}: {:?}", client.window);
        let of = shard.log.iter().filter(|(of, _)| *of == at).map(|(_, record)| *record);
        assert!(of.eq(0..client.next), "{setup:?}, seed {seed}: client {at} lost its order");
    }
    told
}

const USUAL: Setup = Setup {
    rate: 1_000,
    burst_ms: 100,
    held_ms: 0,
    batch: 250,
    clients: 1,
    offered: 0,
    records: u64::MAX,
    way_us: 1_000,
    lost_ppm: 0,
    seconds: 20,
};

/// Pauses of seconds came of batches as large as the burst, which waited until all of them fitted, were told of only when
/// all of them was stored, and made the bucket overflow meanwhile.
#[test]
fn large_batches_use_the_quota_without_pauses() {
    let large = Setup { burst_ms: 1_000, batch: 2_000, offered: 2_000, ..USUAL };
    // What is to be used of the quota, refusals at most in parts of what is accepted, the longest silence in ms.
    for (setup, used, refused, silence) in [
        (large, 0.97, 0.05, 150),
        (Setup { rate: 2_000, offered: 4_000, ..large }, 0.97, 0.05, 150),
        // The lanes of a producer, which share the quota of a stream.
        (Setup { clients: 4, offered: 500, ..large }, 0.97, 0.2, 1_000),
        (Setup { rate: 100, offered: 200, ..large }, 0.95, 0.05, 150),
        (Setup { rate: 1, offered: 3, seconds: 100, ..large }, 0.95, 0.8, 1_500),
        // Held back for seconds.
        (Setup { held_ms: 5_000, batch: 100, ..large }, 0.95, 0.05, 200),
        // Far away.
        (Setup { way_us: 50_000, ..large }, 0.95, 0.05, 400),
    ] {
        for seed in 0..2 {
            let told = live(setup, seed);
            let (of, ratio) = told.shares(&setup);
            println!("{setup:?}: {of:.3} of the quota, {ratio:.3} refused, {:?}", told.silence);
            let silence = Duration::from_millis(silence);
            assert!(of >= used && ratio <= refused, "{setup:?}: {of:.3}, {ratio:.3}, {told:?}");
            assert!(told.silence <= silence, "{setup:?}: {told:?}");
        }
    }
}

/// As `put` does it: so much and no more, a batch or some for each of the lanes, which share a quota.
#[test]
fn what_is_there_passes_in_little_more_than_its_time() {
    let four = Setup { burst_ms: 1_000, batch: 1_250, records: 1_250, clients: 4, ..USUAL };
    let seconds = 300;
    for setup in [
        Setup { seconds, ..four },
        Setup { seconds, clients: 1, records: 5_000, ..four },
        Setup { seconds, rate: 100, clients: 1, records: 6_000, ..four },
        Setup { seconds, rate: 100, clients: 4, records: 500, ..four },
    ] {
        for seed in 0..2 {
            let told = live(setup, seed);
            let rate = f64::from(setup.rate);
            let all = setup.records as f64 * setup.clients as f64;
            let least = all / rate - f64::from(setup.burst_ms) / 1e3;
            let (lasted, ratio) = (told.lasted.as_secs_f64(), told.refused as f64 / all);
            println!(
                "{setup:?}: {lasted:.1} s of {least:.1} s, {ratio:.2} refused, {:?}",
                told.silence
            );
            assert!(lasted <= 1.3 * least + 0.5, "{setup:?}: {lasted:.1} s of {least:.1} s");
        }
    }
}

/// What a client over a quota is to show: it takes what there is, and is refused little.
#[test]
fn a_window_takes_its_quota_and_little_of_it_is_refused() {
    let usual = Setup { rate: 20_000, seconds: 30, ..USUAL };
    // What is to be used of the quota, and refusals at most in parts of what is accepted.
    for (setup, used, refused) in [
        (usual, 0.98, 0.05),
        (Setup { burst_ms: 1_000, batch: 950, ..usual }, 0.98, 0.05),
        (Setup { rate: 1_000_000, batch: 1_000, ..usual }, 0.95, 0.05),
        // Far away.
        (Setup { way_us: 50_000, ..usual }, 0.9, 0.1),
        // Held back for a while before it is refused.
        (Setup { held_ms: 500, batch: 950, ..usual }, 0.95, 0.1),
        (Setup { held_ms: 200, batch: 950, clients: 2, ..usual }, 0.9, 0.3),
        // Several share it.
        (Setup { clients: 4, ..usual }, 0.98, 0.2),
        // Batches are much larger than the burst; eight of them go before anything is known of it.
        (Setup { rate: 500, batch: 1_000, seconds: 60, ..usual }, 0.85, 0.4),
        (Setup { rate: 1, burst_ms: 1_000, batch: 10, seconds: 300, ..usual }, 0.8, 1.0),
    ] {
        for seed in 0..2 {
            let told = live(setup, seed);
            let (of, ratio) = told.shares(&setup);
            println!("{setup:?}: {of:.3} of the quota, {ratio:.3} refused, {:?}", told.standstill);
            assert!(of >= used && ratio <= refused, "{setup:?}: {of:.3}, {ratio:.3}, {told:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the quota, its burst, the batches and the losses: it never comes to a standstill, and what is stored is
    /// everything, once, in order.
    #[test]
    fn a_window_never_stalls_at_a_quota(
        rate in prop_oneof![1u32..20, 20u32..2_000, 2_000u32..200_000],
        burst_ms in 1u32..2_000, held_ms in prop_oneof![Just(0u32), 1u32..1_000], batch in 1u32..400, clients in 1usize..4,
        way_us in 10u64..100_000, lost_ppm in prop_oneof![Just(0u32), 1_000u32..100_000],
        seed: u64,
    ) {
        let setup = Setup {
            rate, burst_ms, held_ms, batch, clients, way_us, lost_ppm, seconds: 2, ..USUAL
        };
        let told = live(setup, seed);
        // Some tokens, and some ways there and back and longest back-offs.
        let token = Duration::from_secs_f64(1.0 / f64::from(rate));
        let most = 10 * token + Duration::from_secs(10) + Duration::from_millis(burst_ms.into());
        let debt = if held_ms > 0 { 3 * token * batch * clients as u32 } else { Time::ZERO };
        let most = most + debt;
        prop_assert!(told.standstill <= most, "{:?} of {:?}", told, most);
    }
}
