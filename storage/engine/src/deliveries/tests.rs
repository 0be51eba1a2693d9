//! Deliveries by table, and attacked by seed: members that fail, stall, die and come back, servers that crash, retention
//! that is faster.

use std::collections::{BTreeMap, BTreeSet};

use highwater_wire::{BreakerState, Burial, Outcome, Portion};

use super::*;

const ID: ShardId = ShardId { stream: 7, shard: 0 };
const MS: u64 = 1_000_000;

fn config() -> DeliveryConfig {
    DeliveryConfig { timeout_ms: 1_000, retry_after_ms: 10, ..DeliveryConfig::default() }
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "boom".to_owned() }
}

/// One group on one shard.
struct World {
    deliveries: Deliveries,
    now: Now,
    /// As the control database has it.
    kept: Vec<KeptShard>,
}

impl World {
    fn new(config: DeliveryConfig) -> World {
        let mut deliveries = Deliveries::default();
        deliveries.configure("g", ID.stream, Some(config));
        deliveries.set_position("g", ID.stream, ID.shard, 0);
        let now = Now { mono_ns: 1, wall_ns: 1_000_000_000 * MS };
        let mut world = World { deliveries, now, kept: Vec::new() };
        world.keep();
        world
    }

    fn keep(&mut self) {
        let changed = self.deliveries.changed();
        if !changed.is_empty() {
            self.kept = changed;
        }
        self.check();
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono_ns += ms * MS;
        self.now.wall_ns += ms * MS;
    }

    fn try_claim(
        &mut self,
        lease: u64,
        fresh: Range<u64>,
        most: u32,
    ) -> Result<Claimed, DeliveryError> {
        let ask = Ask { lease, fresh, most };
        let claimed = self.deliveries.claim(self.now, "g", ID, &ask);
        self.check();
        claimed
    }

    fn claim(&mut self, lease: u64, fresh: Range<u64>, most: u32) -> Claimed {
        self.try_claim(lease, fresh, most).unwrap()
    }

    /// What was handed out: from, to, attempt, whether it was before.
    fn portion(
        &mut self,
        lease: u64,
        fresh: Range<u64>,
        most: u32,
    ) -> Option<(u64, u64, u32, bool)> {
        let portion = self.claim(lease, fresh, most).portion;
        portion.map(|Portion { from, to, attempt, again, .. }| (from, to, attempt, again))
    }

    fn settle(
        &mut self,
        lease: u64,
        from: u64,
        to: u64,
        outcome: Outcome,
    ) -> Result<(), DeliveryError> {
        let settlement = [Settlement { from, to, outcome }];
        let settled = self.deliveries.settle(self.now, "g", ID, lease, &settlement);
        self.keep();
        settled
    }

    fn shard(&self) -> &Shard {
        &self.deliveries.groups[&("g".to_owned(), ID.stream)].shards[&ID.shard]
    }

    fn check(&self) {
        self.shard().check_sound();
    }

    fn figures(&self) -> GroupDelivery {
        self.deliveries.figures(self.now, "g", ID.stream).unwrap()
    }

    /// The server crashes and starts again.
    fn restart(&mut self) {
        let kept = self.kept.iter().map(|(group, stream, shard, kept)| {
            let json = serde_json::to_vec(kept).unwrap();
            (group.clone(), *stream, *shard, serde_json::from_slice(&json).unwrap())
        });
        let config = self.deliveries.config("g", ID.stream).unwrap().clone();
        self.deliveries = Deliveries::restore([("g".to_owned(), ID.stream, config)], kept);
        self.now.mono_ns = 1;
        self.check();
    }
}

#[test]
fn one_bad_record_among_many_is_found_by_halves_and_everything_else_is_processed_once() {
    let mut w = World::new(config());
    let (end, bad) = (10_000, 7_654);
    let (mut next, mut handed_out, mut tries) = (0, BTreeMap::new(), 0);
    let burial = loop {
        let claimed = w.claim(1, next..end, 100);
        next = claimed.next_fresh;
        if let Some(burial) = claimed.burials.first() {
            break burial.clone();
        }
        let Some(portion) = claimed.portion else {
            w.wait(claimed.again_ms.unwrap().into());
            continue;
        };
        let range = portion.from..portion.to;
        if !range.contains(&bad) {
            range.clone().for_each(|n| *handed_out.entry(n).or_insert(0) += 1);
        } else if range.clone().count() == 1 {
            tries += 1;
            assert_eq!(portion.attempt, tries);
        }
        let outcome = if range.contains(&bad) { failed() } else { Outcome::Done };
        w.settle(1, range.start, range.end, outcome).unwrap();
    };
    assert_eq!(tries, 3);
    assert_eq!(burial, Burial { from: bad, to: bad + 1, attempts: 3, reason: "boom".to_owned() });
    while let Some(portion) = w.claim(1, next..end, 100).portion {
        (portion.from..portion.to).for_each(|n| *handed_out.entry(n).or_insert(0) += 1);
        w.settle(1, portion.from, portion.to, Outcome::Done).unwrap();
    }
    assert!(handed_out.len() as u64 == end - 1 && handed_out.values().all(|times| *times == 1));
    assert_eq!(w.shard().position(), bad, "it is not stored yet");
    w.settle(1, bad, bad + 1, Outcome::Buried).unwrap();
    assert_eq!(w.shard().position(), end);
    let figures = w.figures();
    assert_eq!((figures.done, figures.buried, figures.lost), (end - 1, 1, 0));
    // Halves of 100: 50, 25, 12, 6, 3, 1 or fewer on each side, and two more attempts.
    assert!(figures.redelivered < 300, "{figures:?}");
    assert!(w.deliveries.at_rest("g", ID));
}

#[test]
fn what_is_late_or_lost_its_owner_is_handed_out_again() {
    let mut w = World::new(config());
    assert_eq!(w.portion(1, 0..10, 4), Some((0, 4, 1, false)));
    assert_eq!(w.portion(1, 4..10, 1), Some((4, 5, 1, false)));
    w.wait(1_000);
    let late = w.settle(1, 0, 4, Outcome::Done);
    assert_eq!(late, Err(DeliveryError::NotInHand { shard: 0, sequence: 0 }));
    w.wait(10);
    // Of several it is not known which one was slow; of one it is.
    assert_eq!(w.portion(1, 5..5, 10), Some((0, 2, 1, true)));
    assert_eq!(w.portion(1, 5..5, 10), Some((2, 4, 1, true)));
    assert_eq!(w.portion(1, 5..5, 10), Some((4, 5, 2, true)));
    assert_eq!(w.portion(1, 5..5, 10), None);
    assert!(w.settle(2, 0, 2, Outcome::Done).is_err(), "another's lease");
    w.settle(1, 0, 2, Outcome::Done).unwrap();
    w.settle(1, 0, 2, Outcome::Done).unwrap();
    assert_eq!(w.figures().done, 2, "said twice, counted once");
    w.deliveries.lease_ended(w.now, ID, 1);
    assert!(w.settle(1, 2, 4, Outcome::Done).is_err());
    w.wait(20);
    assert_eq!(w.portion(3, 0..0, 10), Some((2, 3, 1, true)));
    w.settle(3, 2, 3, Outcome::Done).unwrap();
    assert_eq!(w.portion(3, 0..0, 10), Some((3, 4, 1, true)));
    assert_eq!(w.portion(3, 0..0, 10), Some((4, 5, 3, true)));
    w.settle(3, 4, 5, failed()).unwrap();
    assert_eq!((w.figures().to_bury, w.figures().in_hand), (1, 1));
}

#[test]
fn what_is_given_back_untried_costs_no_attempt_and_comes_at_once() {
    let mut w = World::new(config());
    for _ in 0..10 {
        assert_eq!(w.portion(1, 0..1, 4), Some((0, 1, 1, false)));
        w.settle(1, 0, 1, Outcome::Released).unwrap();
    }
    assert_eq!(w.figures().redelivered, 0);
    assert_eq!(w.portion(1, 0..8, 4), Some((0, 1, 1, false)));
    assert_eq!(w.portion(1, 0..8, 4), Some((1, 5, 1, false)));
    // By record: the member knows which one it was.
    w.settle(1, 3, 4, failed()).unwrap();
    w.settle(1, 1, 3, Outcome::Done).unwrap();
    w.settle(1, 4, 5, Outcome::Released).unwrap();
    assert_eq!(w.portion(1, 5..8, 4), Some((4, 5, 1, false)));
    assert_eq!(w.portion(1, 5..8, 4), Some((5, 8, 1, false)));
    w.wait(10);
    assert_eq!(w.portion(1, 8..8, 4), Some((3, 4, 2, true)));
}

#[test]
fn pauses_double_with_each_attempt_up_to_a_bound() {
    let mut w = World::new(DeliveryConfig { attempts: 100, timeout_ms: 1_000_000, ..config() });
    assert!(w.portion(1, 0..1, 1).is_some());
    for pause in [10, 20, 40, 80, 160, 320, 640, 640, 640] {
        w.settle(1, 0, 1, failed()).unwrap();
        let claimed = w.claim(1, 0..0, 1);
        assert_eq!((claimed.portion, claimed.again_ms), (None, Some(pause)));
        assert!(!w.deliveries.due(w.now, "g", ID));
        w.wait(pause.into());
        assert!(w.deliveries.due(w.now, "g", ID));
        assert!(w.portion(1, 0..0, 1).is_some());
    }
}

#[test]
fn what_is_too_old_is_given_up_when_it_would_come_again() {
    let mut w = World::new(DeliveryConfig { max_age_ms: 500, attempts: 1_000, ..config() });
    assert!(w.portion(1, 0..8, 8).is_some());
    w.settle(1, 0, 8, failed()).unwrap();
    w.wait(400);
    assert_eq!(w.portion(1, 8..8, 8), Some((0, 4, 1, true)));
    w.settle(1, 0, 4, failed()).unwrap();
    w.wait(101);
    let claimed = w.claim(1, 8..9, 8);
    assert_eq!(claimed.portion.map(|p| (p.from, p.to)), Some((8, 9)), "what is fresh is not old");
    let old: Vec<(u64, u64)> = claimed.burials.iter().map(|b| (b.from, b.to)).collect();
    assert_eq!(old, [(0, 2), (2, 4), (4, 8)]);
    let reason = "older than 500 ms; last: boom";
    assert!(claimed.burials.iter().all(|b| b.attempts == 0 && b.reason == reason));
}

#[test]
fn burials_that_are_not_carried_out_come_again() {
    let mut w = World::new(DeliveryConfig { attempts: 1, ..config() });
    let burials = |w: &mut World, lease| w.claim(lease, 0..0, 0).burials.len();
    assert!(w.portion(1, 0..1, 1).is_some());
    w.settle(1, 0, 1, failed()).unwrap();
    assert_eq!(burials(&mut w, 1), 1);
    assert_eq!(burials(&mut w, 1), 0, "somebody is at it");
    w.wait(1_000);
    assert_eq!(burials(&mut w, 1), 1, "too slow");
    w.deliveries.lease_ended(w.now, ID, 1);
    assert_eq!(burials(&mut w, 2), 1, "gone");
    assert!(w.settle(2, 0, 1, Outcome::Done).is_err(), "it was given up");
    w.settle(2, 0, 1, Outcome::Released).unwrap();
    w.restart();
    assert_eq!(burials(&mut w, 3), 1, "through a restart");
    w.settle(3, 0, 1, Outcome::Buried).unwrap();
    assert_eq!((w.figures().buried, w.shard().position()), (1, 1));
}

#[test]
fn what_retention_removes_counts_as_lost() {
    let mut w = World::new(config());
    assert!(w.portion(1, 0..10, 2).is_some());
    w.settle(1, 0, 2, failed()).unwrap();
    assert!(w.portion(1, 4..6, 2).is_some());
    w.settle(1, 4, 6, Outcome::Done).unwrap();
    assert!(w.portion(1, 8..10, 2).is_some());
    let lost = |w: &mut World, oldest| {
        w.deliveries.trimmed(ID, oldest);
        w.check();
        (w.figures().lost, w.shard().position())
    };
    assert_eq!(lost(&mut w, 0), (0, 0));
    assert_eq!(lost(&mut w, 1), (1, 1));
    assert_eq!(lost(&mut w, 5), (4, 6), "2 and 3 were never handed out");
    assert_eq!(lost(&mut w, 20), (16, 8), "what is in hand is left to its member");
    w.settle(1, 8, 10, Outcome::Lost).unwrap();
    assert_eq!((w.figures().lost, w.shard().position()), (18, 20));
}

#[test]
fn settled_records_are_handed_out_again_when_told_to() {
    let mut w = World::new(config());
    for (from, to, outcome) in [(0, 10, Outcome::Done), (10, 20, failed()), (20, 30, Outcome::Done)]
    {
        assert_eq!(w.portion(1, from..to, 10), Some((from, to, 1, false)));
        w.settle(1, from, to, outcome).unwrap();
    }
    assert_eq!(w.shard().position(), 10);
    let redrive = |w: &mut World, ranges: &[(u64, u64)]| {
        let ranges: Vec<_> =
            ranges.iter().map(|(from, to)| SequenceRange { from: *from, to: *to }).collect();
        let redriven = w.deliveries.redrive("g", ID, &ranges, 2);
        w.keep();
        redriven.map(|r| (r.given, r.gone.iter().map(|g| (g.from, g.to)).collect::<Vec<_>>()))
    };
    let again = redrive(&mut w, &[(5, 6), (1, 4), (9, 12), (19, 22), (6, 7)]);
    assert_eq!(again, Ok((2 + 2 + 1 + 2, vec![(1, 2)])));
    assert_eq!(redrive(&mut w, &[(2, 4), (20, 22)]), Ok((0, vec![])), "they wait already");
    assert_eq!((w.shard().position(), w.deliveries.at_rest("g", ID)), (10, false));
    w.restart();
    let mut found = Vec::new();
    while let Some((from, to, attempt, again)) = w.portion(1, 0..30, 10) {
        assert!(attempt == 1 && again);
        found.push((from, to));
        w.settle(1, from, to, Outcome::Done).unwrap();
    }
    assert_eq!(found, [(2, 4), (5, 7), (9, 10), (10, 15), (15, 20), (20, 22)]);
    assert_eq!((w.shard().position(), w.deliveries.at_rest("g", ID)), (30, true));
    let odd = redrive(&mut w, &[(5, 5)]);
    assert_eq!(odd, Err(DeliveryError::Range { from: 5, to: 5 }));
    let many: Vec<(u64, u64)> = (0..=MAX_REDRIVEN as u64 / 2).map(|n| (2 * n, 2 * n + 1)).collect();
    assert!(matches!(redrive(&mut w, &many), Err(DeliveryError::TooMany { .. })));
}

#[test]
fn a_restart_knows_what_failed_and_takes_the_rest_for_fresh() {
    let mut w = World::new(config());
    assert!(w.portion(1, 0..1, 1).is_some());
    w.settle(1, 0, 1, failed()).unwrap();
    assert!(w.portion(1, 1..5, 4).is_some());
    assert!(w.portion(1, 5..9, 4).is_some());
    w.settle(1, 5, 9, Outcome::Done).unwrap();
    w.wait(10);
    assert_eq!(w.portion(1, 9..9, 4), Some((0, 1, 2, true)));
    w.restart();
    assert_eq!(w.figures().waiting, 1);
    // It may be due at once: how long it was to wait is not kept.
    assert_eq!(w.portion(2, 0..12, 20), Some((0, 1, 2, true)));
    let claimed = w.claim(2, 0..12, 20);
    assert_eq!(claimed.portion.map(|p| (p.from, p.to, p.again)), Some((1, 5, false)));
    assert_eq!(claimed.next_fresh, 9);
}

#[test]
fn nothing_new_is_handed_out_while_too_much_is_unsettled() {
    let mut w = World::new(config());
    // Every other record is settled; those between were in hand when the server crashed.
    let end = 2 * MAX_PIECES as u64;
    let settled = (0..MAX_PIECES as u64).map(|n| (2 * n + 1, 2 * n + 2)).collect();
    w.kept[0].3 = Kept { settled, ..Kept::default() };
    w.restart();
    let claimed = w.claim(1, end..end + 10, 10);
    assert_eq!((claimed.portion, claimed.next_fresh), (None, end));
    assert_eq!(claimed.again_ms, Some(FULL_AGAIN_MS));
    assert_eq!(w.portion(1, 0..end + 10, 10), Some((0, 1, 1, false)), "gaps are closed");
    w.settle(1, 0, 1, Outcome::Done).unwrap();
    assert_eq!(w.shard().position(), 2);
    assert_eq!(w.portion(1, end..end + 10, 10), Some((end, end + 10, 1, false)));
}

#[test]
fn a_breaker_stops_the_flood_and_tries_one_record_at_a_time() {
    let breaker = DeliveryConfig {
        attempts: 1,
        breaker_permille: 500,
        breaker_window_ms: 10_000,
        ..config()
    };
    let mut w = World::new(breaker);
    for n in 0..20 {
        assert_eq!(w.figures().breaker, BreakerState::Closed, "{n}");
        assert!(w.portion(1, n..100, 1).is_some());
        w.settle(1, n, n + 1, failed()).unwrap();
    }
    assert_eq!(w.figures().breaker, BreakerState::Open);
    assert!(!w.deliveries.due(w.now, "g", ID));
    w.wait(4_000);
    let refused = w.try_claim(1, 20..100, 10);
    assert!(
        matches!(refused, Err(DeliveryError::Breaker { retry_after_ms: 6_000, .. })),
        "{refused:?}"
    );
    w.wait(6_000);
    assert_eq!(w.figures().breaker, BreakerState::HalfOpen);
    assert_eq!(w.portion(1, 20..100, 10), Some((20, 21, 1, false)));
    assert!(w.try_claim(1, 21..100, 10).is_err(), "one at a time");
    w.settle(1, 20, 21, failed()).unwrap();
    assert!(w.try_claim(1, 21..100, 10).is_err(), "it is as it was");
    w.wait(10_000);
    assert_eq!(w.portion(1, 21..100, 10), Some((21, 22, 1, false)));
    w.settle(1, 21, 22, Outcome::Done).unwrap();
    assert_eq!(w.figures().breaker, BreakerState::Closed);
    assert_eq!(w.portion(1, 22..100, 10), Some((22, 32, 1, false)));
}

#[test]
fn only_groups_that_ask_for_it_settle_record_by_record() {
    let mut w = World::new(config());
    w.deliveries.configure("g", ID.stream, None);
    let refused = Err(DeliveryError::Positions("g".to_owned()));
    let ask = Ask { lease: 1, fresh: 0..1, most: 1 };
    assert_eq!(w.deliveries.claim(w.now, "g", ID, &ask), refused);
    assert_eq!(w.deliveries.redrive("g", ID, &[], 0).map(drop), refused.map(drop));
    assert!(w.deliveries.at_rest("g", ID) && w.deliveries.changed().is_empty());
}

/// One history of a shard with `END` records, some of which are bad.
fn history(seed: u64) -> BTreeSet<&'static str> {
    const END: u64 = 150;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut met = BTreeSet::new();
    let mut w = World::new(DeliveryConfig { attempts: 2, ..config() });
    let bad: BTreeSet<u64> = (0..rng.u64(0..8)).map(|_| rng.u64(..END)).collect();
    let (mut lease, mut next, mut oldest) = (1, 0, 0);
    // What members believe they have; and what one really has, until when.
    let mut believed: Vec<(u64, Portion)> = Vec::new();
    let mut in_hand: BTreeMap<u64, u64> = BTreeMap::new();
    let mut settled = vec![false; END as usize];
    let mut position = 0;
    for step in 0..2_000 {
        assert!(w.shard().position() >= position, "seed {seed}: it went back");
        position = w.shard().position();
        if step % 8 == 0 {
            let found: Vec<bool> = (0..END).map(|n| w.shard().is_settled(n)).collect();
            assert_eq!(found, settled, "seed {seed} step {step}");
        }
        match rng.u8(..) {
            0..80 => {
                let fresh = next..END.min(next + rng.u64(..40));
                let claimed = w.claim(lease, fresh, rng.u32(1..20));
                next = claimed.next_fresh;
                if let Some(portion) = claimed.portion {
                    let until = w.now.mono_ns + u64::from(portion.timeout_ms) * MS;
                    for n in portion.from..portion.to {
                        let owner = in_hand.insert(n, until);
                        let free = owner.is_none_or(|until| until <= w.now.mono_ns);
                        assert!(free, "seed {seed}: record {n} has two owners");
                        assert!(!settled[n as usize], "seed {seed}: record {n} is settled");
                    }
                    if portion.again {
                        met.insert("again");
                    }
                    believed.push((lease, portion));
                }
                for Burial { from, to, attempts, .. } in claimed.burials {
                    assert!(attempts == 2 && to == from + 1, "seed {seed}");
                    if rng.u8(..) < 200 {
                        w.settle(lease, from, to, Outcome::Buried).unwrap();
                        settled[from as usize] = true;
                        met.insert("buried");
                    }
                }
            }
            80..190 if !believed.is_empty() => {
                let (of, portion) = believed.swap_remove(rng.usize(..believed.len()));
                let Portion { from, to, .. } = portion;
                let outcome = match rng.u8(..) {
                    0..30 => Outcome::Released,
                    _ if from < oldest => Outcome::Lost,
                    _ if (from..to).any(|n| bad.contains(&n)) => failed(),
                    30..60 => failed(),
                    _ => Outcome::Done,
                };
                let ends = matches!(outcome, Outcome::Done | Outcome::Lost);
                match w.settle(of, from, to, outcome) {
                    Ok(()) => (from..to).for_each(|n| {
                        in_hand.remove(&n);
                        settled[n as usize] |= ends;
                    }),
                    Err(_) => {
                        met.insert("too late");
                    }
                }
            }
            190..198 => {
                // The member dies; the next one begins at the position.
                w.deliveries.lease_ended(w.now, ID, lease);
                (lease, next) = (lease + 1, w.shard().position());
                in_hand.clear();
                met.insert("another member");
            }
            198..202 => {
                w.restart();
                (lease, next) = (lease + 1, w.shard().position());
                in_hand.clear();
                met.insert("crash");
            }
            202..204 => {
                oldest = rng.u64(oldest..END / 2);
                w.deliveries.trimmed(ID, oldest);
                w.keep();
                // What is in hand, or carried, is left to its member.
                for n in 0..oldest {
                    if w.shard().is_settled(n) && !settled[n as usize] {
                        settled[n as usize] = true;
                        met.insert("lost");
                    }
                }
            }
            204..208 => {
                let from = rng.u64(oldest..END);
                let range = SequenceRange { from, to: END.min(from + rng.u64(1..9)) };
                let given = w.deliveries.redrive("g", ID, &[range], oldest).unwrap().given;
                w.keep();
                let range = range.from as usize..range.to as usize;
                let before = settled[range.clone()].iter().filter(|settled| **settled).count();
                assert_eq!(given, before as u64, "seed {seed}");
                settled[range].fill(false);
                if given > 0 {
                    met.insert("redriven");
                }
            }
            _ => w.wait(rng.u64(..200)),
        }
    }
    while w.shard().position() < END || !w.deliveries.at_rest("g", ID) {
        w.wait(2_000);
        let claimed = w.claim(lease, 0..END, 20);
        for Burial { from, to, .. } in claimed.burials {
            w.settle(lease, from, to, Outcome::Buried).unwrap();
        }
        if let Some(Portion { from, to, .. }) = claimed.portion {
            let is_bad = (from..to).any(|n| bad.contains(&n));
            let outcome = if is_bad { failed() } else { Outcome::Done };
            w.settle(lease, from, to, outcome).unwrap();
        }
    }
    assert_eq!(w.shard().position(), END, "seed {seed}");
    met
}

#[test]
fn whatever_happens_a_record_has_one_owner_and_one_end() {
    let mut met = BTreeSet::new();
    for seed in 0..60 {
        met.extend(history(seed));
    }
    let wanted = ["again", "buried", "too late", "another member", "crash", "lost", "redriven"];
    assert!(wanted.iter().all(|event| met.contains(event)), "{met:?}");
}
