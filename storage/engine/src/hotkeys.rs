//! The keys most of a shard's load comes from: a space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over a
//! sample of the records, in bounded memory. Nothing is kept of a shard without appends.

use std::collections::VecDeque;

use highwater_wire::select::records;
use highwater_wire::telemetry::HotKey;
use highwater_wire::{BatchView, HashRange, hash_key};

use crate::balance::ShardLoad;

/// Keys kept; one of more than a few percent of the load is among them.
const SLOTS: usize = 32;

/// Keys told.
const TOLD: usize = 10;

/// Keys of a smaller share are not told: by then it is chance.
const LEAST_SHARE: f64 = 0.01;

/// ... nor those that were looked at fewer times: of a quiet shard a single look is a large share.
const LEAST_LOOKS: f64 = 3.0;

/// Bytes kept of a key.
const KEY_BYTES: usize = 64;

/// One record in so many is looked at, on average; at most one of a batch.
const ONE_IN: u64 = 64;

/// Records of a batch that may be looked at: walking further costs more than it tells.
const REACH: usize = 64;

/// Hash keys kept of the records looked at last: the median of so many lies within 5 % of the true one (two
/// standard deviations of the share below it, 2 * 0.5 / sqrt(512)).
const HASHES: usize = 512;

/// So many are taken as soon as there are records: a split may be asked for after the first batch.
const YOUNG: usize = 64;

/// What was counted fades by this factor a second: about the last ten seconds matter.
const FADES: f64 = 0.9;

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: [u8; KEY_BYTES],
    len: u8,
    /// Estimate of its records: too high by `error` at most.
    records: f64,
    error: f64,
    /// How often it was looked at; fades as well.
    looks: f64,
}

impl Slot {
    fn key(&self) -> &[u8] {
        &self.key[..usize::from(self.len)]
    }

    fn least(&self) -> f64 {
        self.records - self.error
    }
}

/// What the hash keys of a shard's latest records say about where to split it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitPoint {
    /// No record with a key was looked at lately.
    Unknown,
    /// All of them had the same hash key.
    OneKey {
        /// Which.
        hash: u128,
        /// Records looked at.
        samples: usize,
    },
    /// The weighted median: the hash key at which the second half begins.
    At {
        /// Which.
        hash: u128,
        /// Records below it, of a million.
        below_ppm: u32,
        /// Records looked at.
        samples: usize,
    },
}

/// The sketch of one shard.
#[derive(Debug)]
pub struct HotKeys {
    slots: Vec<Slot>,
    /// Hash keys of the records looked at last, each with the records it stands for.
    hashes: VecDeque<(u128, f64)>,
    /// Records behind the sketch, those without a key included; fades like the slots.
    total: f64,
    /// All records; fades as well.
    seen: f64,
    /// Records taken to begin with, [`HASHES`] at most, those without a key included; and records since the last.
    taken: usize,
    untaken: u64,
    /// Records since the last one that was looked at.
    passed: u64,
    /// How many have to pass.
    gap: u64,
    /// Its own, so that sampling changes nothing else that follows a seed.
    random: fastrand::Rng,
    faded_ns: u64,
}

impl Default for HotKeys {
    fn default() -> HotKeys {
        HotKeys {
            slots: Vec::new(),
            hashes: VecDeque::new(),
            total: 0.0,
            seen: 0.0,
            taken: 0,
            untaken: 0,
            passed: 0,
            gap: 0,
            random: fastrand::Rng::with_seed(0),
            faded_ns: 0,
        }
    }
}

impl HotKeys {
    /// Tells of a batch that was checked and is not compressed. Mostly one subtraction.
    pub fn see(&mut self, batch: &BatchView<'_>) {
        self.see_body(batch.body(), batch.record_count());
    }

    /// Tells of a batch of so many records that was checked, by its body, uncompressed.
    pub fn see_body(&mut self, body: &[u8], count: u32) {
        self.pass(count);
        let filled = self.taken == HASHES;
        if !filled {
            self.take_hashes(body, count);
        }
        if self.passed > self.gap {
            self.look(body, count, filled);
        }
    }

    /// Whether one of so many further records would be looked at.
    pub fn is_due(&self, count: u32) -> bool {
        self.taken < HASHES || self.passed + u64::from(count) > self.gap
    }

    /// So many records are passed by: none of them is looked at.
    pub fn pass(&mut self, count: u32) {
        self.passed += u64::from(count);
        self.seen += f64::from(count);
    }

    /// Takes the hash keys of the first records, one in [`ONE_IN`] from all over the batch: what lies together in it often
    /// has one key. (Walking through all batches for good would cost more than it tells.)
    fn take_hashes(&mut self, body: &[u8], count: u32) {
        self.untaken += u64::from(count);
        let missing = YOUNG.saturating_sub(self.taken).min(count as usize);
        let room = (HASHES - self.taken).min(count as usize);
        let due = missing.max((self.untaken / ONE_IN) as usize).min(room);
        if due == 0 {
            return;
        }
        self.taken += due;
        let weight = std::mem::take(&mut self.untaken) as f64 / due as f64;
        let step = count as usize / due;
        let first = self.random.usize(0..step);
        let taken = records(body, count, 0).skip(first).step_by(step).take(due);
        for record in taken.filter(|r| !r.key.is_empty()) {
            self.hashes.push_back((hash_key(record.key), weight));
        }
    }

    /// One of the batch's records stands for all since the last look. Its hash key takes the place of the oldest, if there
    /// are as many as are kept.
    fn look(&mut self, body: &[u8], count: u32, filled: bool) {
        let weight = std::mem::take(&mut self.passed) as f64;
        // At random, so that no rhythm of the producers is met.
        self.gap = self.random.u64(0..2 * ONE_IN);
        self.total += weight;
        let reach = (count as usize).clamp(1, REACH);
        let nth = self.random.usize(0..reach);
        if let Some(record) = records(body, count, 0).nth(nth)
            && !record.key.is_empty()
        {
            self.count(&record.key[..record.key.len().min(KEY_BYTES)], weight);
            if filled {
                if self.hashes.len() == HASHES {
                    self.hashes.pop_front();
                }
                self.hashes.push_back((hash_key(record.key), weight));
            }
        }
    }

    /// Where a split of `range` would divide the load of the last records best. (Hash keys given explicitly are
    /// known to the client only: a key whose own lies elsewhere says nothing.)
    pub fn split_point(&self, range: HashRange) -> SplitPoint {
        split_point(self.hashes.iter().copied().filter(|(hash, _)| range.contains(*hash)).collect())
    }

    /// What is known of the load of a shard with this range, for a division of its stream.
    pub fn load(&mut self, mono_ns: u64, range: HashRange) -> ShardLoad {
        self.fade(mono_ns);
        let hashes = self.hashes.iter().copied().filter(|(hash, _)| range.contains(*hash));
        ShardLoad { range, records: self.seen, hashes: hashes.collect() }
    }

    fn count(&mut self, key: &[u8], weight: f64) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key() == key) {
            slot.records += weight;
            slot.looks += 1.0;
            return;
        }
        let mut new = Slot {
            key: [0; KEY_BYTES],
            len: key.len() as u8,
            records: weight,
            error: 0.0,
            looks: 1.0,
        };
        new.key[..key.len()].copy_from_slice(key);
        if self.slots.len() < SLOTS {
            self.slots.push(new);
        } else if let Some(least) =
            self.slots.iter_mut().min_by(|a, b| a.records.total_cmp(&b.records))
        {
            // It may have been there before: at most as often as the one it takes the place of.
            (new.records, new.error) = (weight + least.records, least.records);
            *least = new;
        }
    }

    /// Whether there is nothing to tell of.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.total < 1.0 && self.seen < 1.0
    }

    /// Records of about the last ten seconds, and the keys most of them have, by how many: an estimate from the sample,
    /// without what may have been counted for another key.
    pub fn tell(&mut self, mono_ns: u64) -> (u64, Vec<HotKey>) {
        self.fade(mono_ns);
        let told =
            |slot: &&Slot| slot.looks >= LEAST_LOOKS && slot.least() >= self.total * LEAST_SHARE;
        let mut hot: Vec<&Slot> = self.slots.iter().filter(told).collect();
        hot.sort_by(|a, b| b.least().total_cmp(&a.least()));
        let told = |slot: &&Slot| HotKey { key: text(slot.key()), records: slot.least() as u64 };
        (self.total as u64, hot.iter().take(TOLD).map(told).collect())
    }

    fn fade(&mut self, mono_ns: u64) {
        let seconds = mono_ns.saturating_sub(self.faded_ns) as f64 / 1e9;
        self.faded_ns = self.faded_ns.max(mono_ns);
        let factor = FADES.powf(seconds);
        self.total *= factor;
        self.seen *= factor;
        for slot in &mut self.slots {
            slot.records *= factor;
            slot.error *= factor;
            slot.looks *= factor;
        }
        self.slots.retain(|slot| slot.records >= 1.0);
        if self.seen < 1.0 {
            // What was long ago says nothing about where to split.
            self.hashes.clear();
            (self.taken, self.untaken) = (0, 0);
        }
    }
}

/// Of all places between two different hash keys, the one that divides the weights most evenly. The places
/// beside a key that has most of the weight are both looked at.
fn split_point(mut hashes: Vec<(u128, f64)>) -> SplitPoint {
    hashes.sort_unstable_by_key(|(hash, _)| *hash);
    let samples = hashes.len();
    let Some(&(first, _)) = hashes.first() else { return SplitPoint::Unknown };
    let total: f64 = hashes.iter().map(|(_, weight)| weight).sum();
    let (mut below, mut last) = (0.0, first);
    let mut best: Option<(f64, u128, f64)> = None;
    for (hash, weight) in hashes {
        let off = (below - total / 2.0).abs();
        if hash != last && best.is_none_or(|(least, ..)| off < least) {
            best = Some((off, hash, below));
        }
        (below, last) = (below + weight, hash);
    }
    match best {
        None => SplitPoint::OneKey { hash: first, samples },
        Some((_, hash, below)) => {
            let below_ppm = (below / total.max(f64::MIN_POSITIVE) * 1e6) as u32;
            SplitPoint::At { hash, below_ppm, samples }
        }
    }
}

/// Keys are UTF-8; a long one may have been cut within a character.
fn text(key: &[u8]) -> String {
    let end = std::str::from_utf8(key).map_or_else(|e| e.valid_up_to(), |_| key.len());
    String::from_utf8_lossy(&key[..end]).into_owned()
}

#[cfg(test)]
#[allow(clippy::panic, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, ProducerStamp};

    const S: u64 = 1_000_000_000;
    const ALL: HashRange = HashRange { start: 0, end: u128::MAX };

    /// `batches` batches of 40 records, with the key that `key` gives.
    fn feed(keys: &mut HotKeys, batches: usize, mut key: impl FnMut() -> String) {
        let mut builder = BatchBuilder::default();
        for _ in 0..batches {
            (0..40).for_each(|_| builder.push(key().as_bytes(), &[], b"payload", 1).unwrap());
            let bytes = builder.finish(ProducerStamp::default()).to_vec();
            keys.see(&BatchView::parse(&bytes).unwrap());
            builder.clear();
        }
    }

    #[test]
    fn heavy_keys_are_found_among_many_and_their_shares_are_right() {
        let mut keys = HotKeys::default();
        let mut random = fastrand::Rng::with_seed(7);
        feed(&mut keys, 5_000, || match random.u32(0..100) {
            0..30 => "hot".into(),
            30..40 => "warm".into(),
            _ => format!("user-{}", random.u32(0..1_000_000)),
        });
        let (total, told) = keys.tell(0);
        assert!((total as f64 / 200_000.0 - 1.0).abs() < 0.01, "{total}");
        let names: Vec<&str> = told.iter().map(|k| k.key.as_str()).collect();
        assert_eq!(names, ["hot", "warm"]);
        let share = |n: usize| told[n].records as f64 / total as f64;
        assert!((share(0) - 0.3).abs() < 0.05 && (share(1) - 0.1).abs() < 0.04, "{told:?}");
        assert!(keys.slots.len() <= SLOTS);
    }

    #[test]
    fn even_load_names_nobody() {
        let mut keys = HotKeys::default();
        let mut random = fastrand::Rng::with_seed(7);
        feed(&mut keys, 2_000, || format!("user-{}", random.u32(0..1_000_000)));
        assert_eq!(keys.tell(0).1, []);
        assert_eq!(HotKeys::default().tell(5 * S), (0, vec![]));
    }

    #[test]
    fn chance_names_nobody_on_a_quiet_shard() {
        // A record a batch, of 10,000 keys alike: some 150 looks in ten seconds.
        for seed in 0..20 {
            let mut keys = HotKeys::default();
            let mut random = fastrand::Rng::with_seed(seed);
            feed(&mut keys, 100, || format!("key-{}", random.u32(0..10_000)));
            assert_eq!(keys.tell(0).1, [], "{seed}");
        }
    }

    #[test]
    fn what_was_hot_fades() {
        let mut keys = HotKeys::default();
        feed(&mut keys, 500, || "old".into());
        keys.tell(S);
        feed(&mut keys, 500, || "new".into());
        let (_, told) = keys.tell(21 * S);
        assert_eq!(told[0].key, "new");
        let (total, told) = keys.tell(400 * S);
        assert_eq!((total, told.len(), keys.slots.len()), (0, 0, 0));
    }

    #[test]
    fn long_and_missing_keys() {
        let mut keys = HotKeys::default();
        feed(&mut keys, 50, || "ä".repeat(200));
        feed(&mut keys, 5_000, String::new);
        assert_eq!(keys.taken, HASHES, "looked for in vain no longer");
        feed(&mut keys, 5_000, || "ä".repeat(200));
        let (total, told) = keys.tell(0);
        assert_eq!(told.iter().map(|k| k.key.len()).collect::<Vec<_>>(), [64]);
        assert!(told[0].records < total * 3 / 4, "records without a key count in the whole");
    }

    #[test]
    fn the_median_divides_the_load_wherever_the_keys_lie() {
        let mut keys = HotKeys::default();
        assert_eq!(keys.split_point(ALL), SplitPoint::Unknown);
        let mut random = fastrand::Rng::with_seed(7);
        feed(&mut keys, 5_000, || format!("user-{}", random.u32(0..10_000)));
        let SplitPoint::At { hash, below_ppm, samples } = keys.split_point(ALL) else { panic!() };
        assert_eq!(samples, HASHES);
        assert!((490_000..510_000).contains(&below_ppm), "{below_ppm}");
        let truth = hash as f64 / u128::MAX as f64;
        assert!((truth - 0.5).abs() < 0.1, "{truth}");
        keys.tell(400 * S);
        assert_eq!(keys.split_point(ALL), SplitPoint::Unknown, "long ago");
    }

    /// A split fell back to the middle: the first sixteen records of a sorted batch had one key.
    #[test]
    fn a_few_large_sorted_batches_show_where_their_load_lies() {
        for batch in [10_000u32, 1_000, 20_000] {
            let mut keys = HotKeys::default();
            for first in (0..20_000).step_by(batch as usize) {
                let mut builder = BatchBuilder::default();
                for n in first..first + batch {
                    builder.push((n / 200).to_string().as_bytes(), &[], b"x", 1).unwrap();
                }
                let bytes = builder.finish(ProducerStamp::default()).to_vec();
                keys.see(&BatchView::parse(&bytes).unwrap());
            }
            let SplitPoint::At { hash, samples, .. } = keys.split_point(ALL) else { panic!() };
            assert!(samples >= 250, "{samples} in batches of {batch}");
            let below = (0..100).filter(|key| hash_key(key.to_string().as_bytes()) < hash).count();
            assert!((40..=60).contains(&below), "{below} in batches of {batch}");
            assert_eq!(keys.load(0, ALL).records, 20_000.0);
            assert_eq!(keys.load(400 * S, ALL).hashes, []);
        }
    }

    #[test]
    fn one_key_has_no_median_and_a_hot_one_is_set_apart() {
        let mut keys = HotKeys::default();
        feed(&mut keys, 500, || "only".into());
        let hash = hash_key(b"only");
        assert!(matches!(keys.split_point(ALL), SplitPoint::OneKey { hash: h, .. } if h == hash));
        // One key has 90 % of the load: it is either the first of the right half or the last of the left.
        let sample = |hot: u128| {
            let mut hashes = vec![(hot, 90.0)];
            hashes.extend((1..=10).map(|i| (i * 100, 1.0)));
            split_point(hashes)
        };
        let SplitPoint::At { hash, below_ppm, .. } = sample(250) else { panic!() };
        assert_eq!((hash, below_ppm), (300, 920_000));
        let SplitPoint::At { hash, below_ppm, .. } = sample(950) else { panic!() };
        assert_eq!((hash, below_ppm), (950, 90_000));
    }
}
