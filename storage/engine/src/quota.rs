//! Quotas: how much may pass in a second. A meter is a token bucket kept as one number, the time at which it
//! will be full again (GCRA, ITU-T I.371: the theoretical arrival time), so that cores can share one without a
//! lock. The arithmetic is pure; time comes in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_wire::Quota;

use crate::types::Now;

/// Parts of a nanosecond that a meter counts in: a byte at 10 GB/s takes 6 of them, and 64 bits last 9 years.
const TICKS: u64 = 64;

/// What passes at once after a quiet time when a quota does not say, milliseconds of its rate.
const BURST_MS: u32 = 1_000;

/// A stream that samples leaves so many-th part of a burst to the sample: it is to pass at once also when all that there
/// is room for besides has been stored.
const FOR_SAMPLE: u64 = 10;

/// A rate and its burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens (records or bytes) a second, at least 1.
    per_second: u64,
    /// How far ahead of time the bucket may be, ticks.
    burst: u64,
}

impl Rate {
    /// `per_second` tokens a second (0 counts as 1), `burst_ms` milliseconds' worth of them at once, but never less
    /// than one.
    pub fn new(per_second: u64, burst_ms: u32) -> Rate {
        let mut rate = Rate { per_second: per_second.max(1), burst: 0 };
        let burst_ms = if burst_ms == 0 { BURST_MS } else { burst_ms };
        rate.burst = (u64::from(burst_ms) * 1_000_000 * TICKS).max(rate.cost(1));
        rate
    }

    /// Ticks that `tokens` take to come back.
    fn cost(&self, tokens: u64) -> u64 {
        let ticks = u128::from(tokens) * u128::from(1_000_000_000 * TICKS);
        u64::try_from(ticks.div_ceil(u128::from(self.per_second))).unwrap_or(u64::MAX)
    }

    /// Ticks left of the burst of a bucket that is full again at `full_at`.
    fn left(&self, full_at: u64, now: u64) -> u64 {
        self.burst.saturating_sub(full_at.saturating_sub(now))
    }

    /// Tokens that may pass now.
    fn room(&self, full_at: u64, now: u64) -> u64 {
        self.tokens(self.left(full_at, now))
    }

    /// Tokens that may pass now beside a sample.
    fn spare(&self, full_at: u64, now: u64) -> u64 {
        self.tokens(self.left(full_at, now).saturating_sub(self.burst / FOR_SAMPLE))
    }

    fn tokens(&self, ticks: u64) -> u64 {
        let ticks = u128::from(ticks) * u128::from(self.per_second);
        u64::try_from(ticks / u128::from(1_000_000_000 * TICKS)).unwrap_or(u64::MAX)
    }

    /// Whether `tokens` may pass now: they are there, or the bucket is full (what is larger than the burst must pass
    /// some time; it is paid for by those after it).
    fn fits(&self, full_at: u64, now: u64, tokens: u64) -> bool {
        full_at <= now || self.covers(full_at, now, tokens)
    }

    /// Whether `tokens` are there.
    fn covers(&self, full_at: u64, now: u64, tokens: u64) -> bool {
        self.cost(tokens) <= self.left(full_at, now)
    }

    /// When the bucket is full again after `tokens` have passed.
    fn take(&self, full_at: u64, now: u64, tokens: u64) -> u64 {
        full_at.max(now).saturating_add(self.cost(tokens))
    }

    /// Ticks until `tokens` fit.
    fn wait(&self, full_at: u64, now: u64, tokens: u64) -> u64 {
        let spare = self.burst - self.cost(tokens).min(self.burst);
        full_at.saturating_sub(now).saturating_sub(spare)
    }
}

fn ticks(now: Now) -> u64 {
    now.mono_ns.saturating_mul(TICKS)
}

/// A rate and what has been used of it; of one shard, or shared by many.
#[derive(Debug)]
pub struct Meter {
    rate: Rate,
    full_at: AtomicU64,
}

impl Meter {
    fn new(per_second: u64, burst_ms: u32) -> Option<Meter> {
        let rate = Rate::new(per_second, burst_ms);
        (per_second > 0).then(|| Meter { rate, full_at: AtomicU64::new(0) })
    }

    fn full_at(&self) -> u64 {
        // Nothing else is published by it.
        self.full_at.load(Ordering::Relaxed)
    }

    /// Tokens that may pass now.
    pub fn room(&self, now: Now) -> u64 {
        self.rate.room(self.full_at(), ticks(now))
    }

    /// Tokens that may pass now and leave to a sample what it may need.
    pub fn spare(&self, now: Now) -> u64 {
        self.rate.spare(self.full_at(), ticks(now))
    }

    /// Whether `tokens` may pass now; more than the burst may when the bucket is full.
    pub fn fits(&self, now: Now, tokens: u64) -> bool {
        self.rate.fits(self.full_at(), ticks(now), tokens)
    }

    /// Whether `tokens` are there; more than the burst never are.
    pub fn covers(&self, now: Now, tokens: u64) -> bool {
        self.rate.covers(self.full_at(), ticks(now), tokens)
    }

    /// Whether all of the burst is there.
    pub fn full(&self, now: Now) -> bool {
        self.full_at() <= ticks(now)
    }

    /// Whether less than half of the burst is there.
    pub fn low(&self, now: Now) -> bool {
        self.rate.left(self.full_at(), ticks(now)) < self.rate.burst / 2
    }

    /// `tokens` pass, whether they fit or not: between two cores' looking and taking one batch of each may pass that
    /// should not have. It is paid for all the same, so the rate holds.
    pub fn take(&self, now: Now, tokens: u64) {
        let take = |full_at| Some(self.rate.take(full_at, ticks(now), tokens));
        // Never refuses: the closure always gives a value.
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// Nanoseconds until `tokens` fit once `before` others have passed, rounded up; 0 when they do now.
    pub fn wait_ns(&self, now: Now, before: u64, tokens: u64) -> u64 {
        let full_at = match before {
            0 => self.full_at(),
            before => self.rate.take(self.full_at(), ticks(now), before),
        };
        self.rate.wait(full_at, ticks(now), tokens).div_ceil(TICKS)
    }
}

/// What a batch asks of the meters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Its records.
    pub records: u64,
    /// Its bytes, as they came.
    pub bytes: u64,
}

impl Demand {
    /// This and another.
    pub fn and(self, other: Demand) -> Demand {
        Demand { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }

    /// Whether there is room for it.
    pub fn within(self, room: Demand) -> bool {
        self.records <= room.records && self.bytes <= room.bytes
    }
}

/// The meters of a quota: those it sets.
#[derive(Debug, Default)]
pub struct Meters {
    records_in: Option<Meter>,
    bytes_in: Option<Meter>,
    bytes_out: Option<Meter>,
}

impl Meters {
    /// With all their burst there.
    pub fn new(quota: &Quota) -> Meters {
        Meters {
            records_in: Meter::new(quota.records_in, quota.burst_ms),
            bytes_in: Meter::new(quota.bytes_in, quota.burst_ms),
            bytes_out: Meter::new(quota.bytes_out, quota.burst_ms),
        }
    }

    fn each(&self) -> impl Iterator<Item = (&Meter, fn(Demand) -> u64)> {
        let records = self.records_in.iter().map(|m| (m, (|d| d.records) as fn(Demand) -> u64));
        let bytes = self.bytes_in.iter().map(|m| (m, (|d| d.bytes) as fn(Demand) -> u64));
        records.chain(bytes)
    }

    /// Whether appends are metered.
    pub fn meter_in(&self) -> bool {
        self.records_in.is_some() || self.bytes_in.is_some()
    }

    /// The meter of what is read, if there is one.
    pub fn out(&self) -> Option<&Meter> {
        self.bytes_out.as_ref()
    }

    /// What may be appended now.
    pub fn room(&self, now: Now) -> Demand {
        let of = |meter: &Option<Meter>| meter.as_ref().map_or(u64::MAX, |m| m.room(now));
        Demand { records: of(&self.records_in), bytes: of(&self.bytes_in) }
    }

    /// What may be appended now beside a sample.
    pub fn spare(&self, now: Now) -> Demand {
        let of = |meter: &Option<Meter>| meter.as_ref().map_or(u64::MAX, |m| m.spare(now));
        Demand { records: of(&self.records_in), bytes: of(&self.bytes_in) }
    }

    /// Whether a batch may be appended now; `cut`: no more of it than there is room for.
    pub fn fits(&self, now: Now, demand: Demand, cut: bool) -> bool {
        let fits = if cut { Meter::covers } else { Meter::fits };
        self.each().all(|(meter, of)| fits(meter, now, of(demand)))
    }

    /// Whether all of the burst is there.
    pub fn full(&self, now: Now) -> bool {
        self.each().all(|(meter, _)| meter.full(now))
    }

    /// Whether less than half of a burst is there: appends come as fast as they may.
    pub fn low(&self, now: Now) -> bool {
        self.each().any(|(meter, _)| meter.low(now))
    }

    /// A batch is appended.
    pub fn take(&self, now: Now, demand: Demand) {
        self.each().for_each(|(meter, of)| meter.take(now, of(demand)));
    }

    /// Nanoseconds until a batch fits once `before` has passed.
    pub fn wait_ns(&self, now: Now, before: Demand, demand: Demand) -> u64 {
        self.each().map(|(m, of)| m.wait_ns(now, of(before), of(demand))).max().unwrap_or(0)
    }
}

/// Milliseconds for a client, from nanoseconds: rounded up, at least 1, at most an hour.
pub fn retry_ms(wait_ns: u64) -> u32 {
    wait_ns.div_ceil(1_000_000).clamp(1, 3_600_000) as u32
}

/// The meters that cores share: of whole streams, and of client names. Looked up when a shard or a connection is
/// made or its settings change, never for a batch.
#[derive(Debug, Default)]
pub struct Quotas {
    streams: Mutex<BTreeMap<u32, (Quota, Arc<Meters>)>>,
    clients: Mutex<BTreeMap<String, (Quota, Arc<Meters>)>>,
    /// Changes of `clients` so far.
    changes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The meters under `key` for `quota`: those there are, if it is still the same.
fn meters<K: Ord>(
    all: &mut BTreeMap<K, (Quota, Arc<Meters>)>,
    key: K,
    quota: &Quota,
) -> Option<Arc<Meters>> {
    if no_bound(quota) {
        all.remove(&key);
        return None;
    }
    let make = || (*quota, Arc::new(Meters::new(quota)));
    let entry = all.entry(key).or_insert_with(make);
    if entry.0 != *quota {
        *entry = make();
    }
    Some(Arc::clone(&entry.1))
}

/// Whether a quota sets nothing.
pub fn no_bound(quota: &Quota) -> bool {
    (quota.records_in, quota.bytes_in, quota.bytes_out) == (0, 0, 0)
}

impl Quotas {
    /// The meters of a whole stream, the same for all its shards; `None` without a quota. A stream that goes should
    /// say so with a quota of zeros.
    pub fn stream(&self, stream: u32, quota: &Quota) -> Option<Arc<Meters>> {
        meters(&mut lock(&self.streams), stream, quota)
    }

    /// Bounds the connections that greet with a name; a quota of zeros lifts that.
    pub fn set_client(&self, name: &str, quota: &Quota) {
        meters(&mut lock(&self.clients), name.to_owned(), quota);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Grows whenever [`Quotas::client`] may have another answer.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The meters of a client's name, if it has a quota.
    pub fn client(&self, name: &str) -> Option<Arc<Meters>> {
        lock(&self.clients).get(name).map(|(_, meters)| Arc::clone(meters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: ms * 1_000_000, wall_ns: 0 }
    }

    fn meter(per_second: u64, burst_ms: u32) -> Meter {
        Meter::new(per_second, burst_ms).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let m = meter(1_000, 0);
        assert_eq!((m.room(at(0)), m.fits(at(0), 1_000)), (1_000, true));
        m.take(at(0), 1_000);
        assert_eq!((m.room(at(0)), m.fits(at(0), 1)), (0, false));
        assert_eq!(m.wait_ns(at(0), 0, 1), 1_000_000);
        assert_eq!((m.room(at(250)), m.low(at(250)), m.low(at(501))), (250, true, false));
        assert_eq!(m.wait_ns(at(250), 0, 300), 50_000_000);
        assert!(m.full(at(1_000)) && !m.full(at(999)));
        assert_eq!(m.room(at(90_000)), 1_000, "no more than the burst gathers");
    }

    #[test]
    fn more_than_the_burst_passes_when_it_is_full_and_is_paid_for() {
        let m = meter(1, 0);
        assert_eq!(m.room(at(0)), 1);
        assert!(m.fits(at(0), 500));
        m.take(at(0), 500);
        assert_eq!(m.wait_ns(at(0), 0, 1), 500_000_000_000);
        assert_eq!(retry_ms(m.wait_ns(at(0), 0, 1)), 500_000);
        assert!(!m.fits(at(499_999), 1) && m.fits(at(500_000), 1));
        assert_eq!(m.wait_ns(at(0), 0, 500), 500_000_000_000, "a large one waits for all of it");
    }

    #[test]
    fn what_may_be_cut_takes_no_more_than_the_burst() {
        let quota = Quota { records_in: 5, burst_ms: 1_000, ..Quota::default() };
        let meters = Meters::new(&quota);
        let demand = |records| Demand { records, bytes: 1 };
        assert!(meters.fits(at(0), demand(200), false) && !meters.fits(at(0), demand(200), true));
        assert!(meters.fits(at(0), demand(5), true));
        meters.take(at(0), demand(3));
        assert_eq!(
            (meters.fits(at(0), demand(2), true), meters.fits(at(0), demand(3), true)),
            (true, false)
        );
    }

    #[test]
    fn a_burst_is_never_less_than_one() {
        let m = meter(1, 10);
        assert_eq!(m.room(at(0)), 1);
        m.take(at(0), 1);
        assert_eq!((m.room(at(999)), m.room(at(1_000))), (0, 1));
    }

    #[test]
    fn meters_of_a_stream_are_shared_until_its_quota_changes() {
        let quotas = Quotas::default();
        let quota = Quota { records_in: 10, ..Quota::default() };
        let (a, b) = (quotas.stream(1, &quota).unwrap(), quotas.stream(1, &quota).unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        let more = Quota { records_in: 20, ..quota };
        assert!(!Arc::ptr_eq(&a, &quotas.stream(1, &more).unwrap()));
        assert!(quotas.stream(1, &Quota::default()).is_none());
        let before = quotas.changes();
        quotas.set_client("batch-jobs", &quota);
        assert!(quotas.changes() > before && quotas.client("batch-jobs").is_some());
        quotas.set_client("batch-jobs", &Quota::default());
        assert!(quotas.client("batch-jobs").is_none());
    }

    proptest! {
        /// Whatever is asked and when: in no stretch of time does more pass than rate, burst and one batch allow, and
        /// what was told to wait passes after that wait and not a tick earlier.
        #[test]
        fn the_rate_holds(
            per_second in prop_oneof![1u64..100, 1_000u64..10_000_000, Just(20_000_000_000)],
            burst_ms in 1u32..2_000,
            asks in prop::collection::vec((0u64..300_000_000, 1u64..50_000), 1..80),
        ) {
            let m = meter(per_second, burst_ms);
            let (mut now, mut passed) = (Now::default(), Vec::new());
            for (ns, tokens) in asks {
                now.mono_ns += ns;
                if m.fits(now, tokens) {
                    prop_assert_eq!(m.wait_ns(now, 0, tokens), 0);
                    m.take(now, tokens);
                    passed.push((now.mono_ns, tokens));
                    continue;
                }
                let wait = m.wait_ns(now, 0, tokens);
                prop_assert!(wait > 0);
                let then = |ns| Now { mono_ns: now.mono_ns + ns, wall_ns: 0 };
                prop_assert!(m.fits(then(wait), tokens));
                prop_assert!(!m.fits(then(wait - 1), tokens));
                prop_assert!(m.room(now) <= tokens);
            }
            let largest = passed.iter().map(|p| p.1).max().unwrap_or(0);
            for (i, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0u128;
                for (to, tokens) in &passed[i..] {
                    sum += u128::from(*tokens);
                    let ns = u128::from(to - from) + u128::from(burst_ms) * 1_000_000;
                    let allowed = ns * u128::from(per_second) / 1_000_000_000;
                    prop_assert!(sum <= allowed + u128::from(largest) + 1);
                }
            }
        }
    }
}
