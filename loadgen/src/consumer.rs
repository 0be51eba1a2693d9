//! Reads one shard for one group, every record of the run in it, verifies each and times it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::hash_key;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::integrity::{Order, Reach};
use crate::latency::{Meter, Readings, record};
use crate::plan::Plan;
use crate::positions::Reached;
use crate::proof::{Verdict, verify};
use crate::run::Goal;
use crate::target::{Chunk, Source, Trouble};
use crate::timeline::{PAUSED, Times};

/// How long to wait before a source that failed is asked again; it has retried for long itself.
const RETRY: Duration = Duration::from_millis(100);

/// Which shard is read, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The group.
    pub group: usize,
    /// Index of the stream.
    pub stream: usize,
    /// The shard's number.
    pub shard: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// How far it was read.
    pub reach: Reach,
    /// Whether that is the end of a closed shard: its children may be read.
    pub ended: bool,
}

/// Reads what lies on `way` until `goal`, and says in `reached` where it is. `place` is the shard's if it is one, and
/// not one that came of places.
pub async fn consume<S: Source>(
    plan: Arc<Plan>,
    way: Way,
    place: Option<usize>,
    source: S,
    meter: Arc<Meter>,
    goal: watch::Receiver<Goal>,
    reached: Reached,
) -> Read {
    let paused = plan.paused().contains(&way.group);
    Reader { plan, meter, way, place, paused, reached }.run(source, goal).await
}

/// One group's way through one shard.
struct Reader {
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    way: Way,
    place: Option<usize>,
    /// Whether the group goes away for a time.
    paused: bool,
    reached: Reached,
}

impl Reader {
    async fn run<S: Source>(self, mut source: S, mut goal: watch::Receiver<Goal>) -> Read {
        let mut reach = Reach { position: source.position(), ..Reach::default() };
        let mut ended = false;
        let mut gone = source.trimmed();
        let mut damaged_at = None;
        loop {
            note(&source, &mut reach, &mut gone);
            let deadline = match &*goal.borrow_and_update() {
                Goal::Open => None,
                Goal::Until(ends, deadline) => match ends.get(&(self.way.stream, self.way.shard)) {
                    Some(end) if reach.position < end.sequence => Some(*deadline),
                    end => {
                        reach.at_end = true;
                        ended = end.is_some_and(|end| end.closed);
                        break;
                    }
                },
                Goal::Here => break,
            };
            // An order that changes something is also how a time becomes known: it is looked at again.
            let (away, wake) = self.away();
            if away {
                // Nothing may come ahead while it is away: what was asked for is given up.
                source.resume(source.position());
            }
            let next = tokio::select! {
                biased;
                // The channel closes only if the controlling thread is gone.
                changed = goal.changed() => if changed.is_ok() { continue } else { break },
                () = until(wake) => continue,
                next = source.next(), if !away => next,
                () = until(deadline) => break,
            };
            let read_ns = self.plan.clock.now_ns();
            match next {
                Ok(Some(chunk)) => {
                    self.read(&chunk, read_ns);
                    self.reached.set(source.position());
                }
                Ok(None) => {
                    ended = source.ended();
                    reach.at_end = ended;
                    break;
                }
                Err(why) => {
                    let position = Some(source.position());
                    // Once, however often it is asked for again.
                    let damaged = matches!(why, Trouble::Damaged(_)) && damaged_at != position;
                    if damaged {
                        damaged_at = position;
                    }
                    self.trouble(&why, damaged);
                    match why {
                        // What was left out is lost if it was acknowledged: the ledgers know.
                        Trouble::Gap { found, .. } => source.resume(found),
                        Trouble::Damaged(_) | Trouble::Failed(_) => sleep(RETRY).await,
                    }
                }
            }
            // Producers on the same thread have their turn even while there is always more to read.
            tokio::task::yield_now().await;
        }
        note(&source, &mut reach, &mut gone);
        Read { reach, ended }
    }

    /// Whether to be away now, and when that changes, as far as it is known.
    fn away(&self) -> (bool, Option<Instant>) {
        if !self.paused {
            return (false, None);
        }
        let (times, now) = (self.plan.times(), self.plan.clock.now_ns());
        let away = times.away(now);
        let next = [times.away_ns, times.back_ns].into_iter().find(|ns| *ns > now);
        let known = next.filter(|ns| *ns < times.end_ns);
        (away, known.map(|ns| Instant::from_std(self.plan.clock.instant(ns))))
    }

    /// Counts a failure to read.
    fn trouble(&self, why: &Trouble, damaged: bool) {
        let Way { stream, shard, .. } = self.way;
        let stream = &self.plan.streams[stream].name;
        let mut readings = self.meter.lock();
        readings.failed(|| format!("reading shard {shard} of {stream}: {why}"));
        readings.counts.read_errors += 1;
        readings.counts.corrupted += u64::from(damaged);
    }

    fn read<C: Chunk>(&self, chunk: &C, read_ns: u64) {
        let (plan, times) = (&*self.plan, self.plan.times());
        let mut readings = self.meter.lock();
        let mut stretch: Option<Stretch> = None;
        chunk.each(|view, arrival_ns| {
            let proof = match verify(&view, plan.run) {
                Verdict::Own(proof) => proof,
                Verdict::Foreign => return,
                Verdict::Corrupt => {
                    readings.counts.corrupted += 1;
                    return;
                }
            };
            let (place, order) = self.origin(view.key);
            let Some(lane) = place.and_then(|place| plan.lane_of(proof.producer, place)) else {
                readings.counts.corrupted += 1;
                return;
            };
            let class = if self.paused { PAUSED } else { times.class(proof.intended_ns) };
            if let Some(set) = readings.sets.get_mut(class) {
                record(&mut set.propagation, proof.intended_ns, read_ns, 1);
                if arrival_ns > 0 {
                    record(&mut set.delivery, arrival_ns, read_ns, 1);
                }
            }
            readings.counts.delivery_before_arrival += u64::from(arrival_ns > read_ns);
            let in_window = times.window().contains(&proof.intended_ns);
            let bytes = view.payload.len() as u64;
            match &mut stretch {
                // A stretch ends where a class does, so that what counts in each is exact.
                Some(s)
                    if (s.lane, s.order) == (lane, order)
                        && s.records.end == proof.sequence
                        && (s.class, s.in_window) == (class, in_window) =>
                {
                    s.records.end += 1;
                    s.bytes += bytes;
                }
                other => {
                    // A number at the very end of its range was never given out; an empty range is ignored.
                    let records = proof.sequence..proof.sequence.saturating_add(1);
                    let next = Stretch { lane, order, records, bytes, class, in_window };
                    if let Some(done) = other.replace(next) {
                        self.settle(&mut readings, &times, done, read_ns);
                    }
                }
            }
        });
        if let Some(done) = stretch {
            self.settle(&mut readings, &times, done, read_ns);
        }
    }

    /// The place where a record with this key began, and how its order is judged.
    #[inline]
    fn origin(&self, key: &[u8]) -> (Option<usize>, Order) {
        if self.place.is_some() {
            return (self.place, Order::ByNumber);
        }
        let hash = hash_key(key);
        (self.plan.place_of(self.way.stream, hash), Order::ByKey(hash))
    }

    /// Enters a stretch into its lane's ledger.
    fn settle(&self, readings: &mut Readings, times: &Times, s: Stretch, read_ns: u64) {
        let Readings { sets, reads, .. } = readings;
        let set = sets.get_mut(s.class).map(|set| &mut set.visibility);
        let count = s.records.end - s.records.start;
        let mut visible = set;
        let Way { group, shard, .. } = self.way;
        let mut ledger = self.plan.ledger(s.lane);
        let new = ledger.read(group, shard, s.records, s.order, |acked_ns, records| {
            if let Some(histogram) = &mut visible {
                record(histogram, acked_ns, read_ns, records);
            }
        });
        drop(ledger);
        let Some(reads) = reads.get_mut(group) else { return };
        reads.consumed += new;
        // Of what is read again a part is counted: which of the bytes were new nobody knows.
        reads.consumed_bytes += if new == count { s.bytes } else { s.bytes * new / count.max(1) };
        if s.in_window {
            reads.window_consumed += new;
        }
        if times.window().contains(&read_ns) {
            reads.consumed_within += new;
        }
    }
}

/// Records of one lane and class (and of one key, where that decides), one after the other, met in one chunk.
struct Stretch {
    lane: usize,
    order: Order,
    records: Range<u64>,
    /// Of their payloads.
    bytes: u64,
    class: usize,
    in_window: bool,
}

/// Brings `reach` up to where the source is; `gone` are the records it had passed over before.
fn note<S: Source>(source: &S, reach: &mut Reach, gone: &mut u64) {
    let trimmed = source.trimmed() - *gone;
    *gone += trimmed;
    // What is missing lies right after what was read last.
    reach.trimmed.insert(reach.position..reach.position + trimmed);
    reach.position = source.position();
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
