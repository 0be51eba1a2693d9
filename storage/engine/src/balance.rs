//! Where to divide the hash-key space so that shards have equal shares of the load that was seen. Pure.

use highwater_wire::{HashRange, split_evenly};

/// With fewer records looked at, nothing is said about where the load of a shard lies.
pub const FEW_SAMPLES: usize = 8;

/// Places that stand for a shard's load when nothing is known about where in its range it lies.
const SPREAD: u32 = 64;

/// What is known of the load of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardLoad {
    /// Its part of the hash-key space.
    pub range: HashRange,
    /// Records of about the last ten seconds.
    pub records: f64,
    /// Hash keys of some of the latest, each with the records it stands for.
    pub hashes: Vec<(u128, f64)>,
}

impl ShardLoad {
    /// Hash keys and how many of the records they stand for.
    fn points(&self) -> Vec<(u128, f64)> {
        let weight: f64 = self.hashes.iter().map(|(_, weight)| weight).sum();
        if self.hashes.len() >= FEW_SAMPLES && weight > 0.0 {
            let scale = self.records / weight;
            return self.hashes.iter().map(|(hash, weight)| (*hash, weight * scale)).collect();
        }
        let HashRange { start, end } = self.range;
        let step = (end - start) / u128::from(SPREAD) + 1;
        let place = |n| start.saturating_add(step.saturating_mul(u128::from(n))).min(end);
        (0..SPREAD).map(|n| (place(n), self.records / f64::from(SPREAD))).collect()
    }
}

/// A hash key where a shard may begin, and the load below it.
type Place = (u128, f64);

/// A load, in order of hash keys.
struct Seen {
    /// All hash keys seen but the first.
    places: Vec<Place>,
    total: f64,
    /// So many records alike would tell as much about where a share of the load ends.
    samples: f64,
}

impl Seen {
    fn new(loads: &[ShardLoad]) -> Seen {
        let loaded = loads.iter().filter(|load| load.records >= 1.0);
        let mut points: Vec<(u128, f64)> = loaded.flat_map(ShardLoad::points).collect();
        points.sort_unstable_by_key(|(hash, _)| *hash);
        let (mut places, mut total, mut squares) = (Vec::<Place>::new(), 0.0, 0.0);
        let mut last = points.first().map(|(hash, _)| *hash);
        for (hash, weight) in points {
            if last != Some(hash) {
                places.push((hash, total));
                last = Some(hash);
            }
            total += weight;
            squares += weight * weight;
        }
        let samples = if squares > 0.0 { total * total / squares } else { 0.0 };
        Seen { places, total, samples }
    }

    fn below(&self, hash: u128) -> f64 {
        let at = self.places.partition_point(|(place, _)| *place < hash);
        self.places.get(at).map_or(self.total, |(_, below)| *below)
    }

    /// Hash keys as places, in order.
    fn at(&self, hashes: impl Iterator<Item = u128>) -> Vec<Place> {
        let mut places: Vec<Place> = hashes.map(|hash| (hash, self.below(hash))).collect();
        places.sort_unstable_by_key(|(hash, _)| *hash);
        places
    }
}

/// Of the places beyond `last`, in order, the one that has most nearly `target` below it.
fn nearest(places: &[Place], last: u128, target: f64) -> Option<Place> {
    let beyond = &places[places.partition_point(|(hash, _)| *hash <= last)..];
    let at = beyond.partition_point(|(_, below)| *below < target);
    let off = |place: &Place| (place.1 - target).abs();
    let around = beyond[at.saturating_sub(1)..].iter().take(2).copied();
    around.min_by(|a, b| off(a).total_cmp(&off(b)))
}

/// Divides the space among so many shards by the load seen of those there are. A boundary that is there already stays
/// unless a shard would have over one and a half times its share; one that divides the space evenly is taken where what was
/// seen cannot tell it from a better one. Where too little is seen for so many shards, or only one key, the space is
/// divided evenly.
pub fn divide(loads: &[ShardLoad], shards: u32) -> Vec<HashRange> {
    let (seen, even) = (Seen::new(loads), split_evenly(shards.max(1)));
    if seen.samples < FEW_SAMPLES as f64 * f64::from(shards) {
        return even;
    }
    let present = seen.at(loads.iter().map(|load| load.range.start));
    let evenly = seen.at(even.iter().map(|range| range.start));
    let mut starts = vec![0];
    for nth in 1..shards {
        let last = starts.last().copied().unwrap_or(0);
        let share = f64::from(nth) / f64::from(shards);
        let target = seen.total * share;
        let Some(best) = nearest(&seen.places, last, target) else { break };
        // With so much at either end a shard has one and a half times its share.
        let quarter = 0.25 / f64::from(shards);
        // Two standard deviations of the share below a place, of a sample this large.
        let unsure = 2.0 * (share * (1.0 - share) / seen.samples).sqrt();
        let off = |place: &Place| (place.1 - target).abs() / seen.total;
        let within = |slack: f64| move |place: &Place| off(place) <= off(&best) + slack;
        let kept = nearest(&present, last, target).filter(within(quarter));
        let plain = || nearest(&evenly, last, target).filter(within(unsure.min(quarter)));
        starts.push(kept.or_else(plain).unwrap_or(best).0);
    }
    if starts.len() == 1 {
        return even;
    }
    let ends = starts[1..].iter().map(|next| next - 1).chain([u128::MAX]);
    let mut ranges: Vec<HashRange> =
        starts.iter().zip(ends).map(|(start, end)| HashRange { start: *start, end }).collect();
    // Fewer keys were seen than shards are wanted.
    while ranges.len() < even.len() {
        let width = |range: &HashRange| range.end - range.start;
        let Some(at) = (0..ranges.len()).max_by_key(|at| width(&ranges[*at])) else { break };
        let (wide, upper) = (ranges[at], middle(ranges[at]));
        ranges[at].end = upper - 1;
        ranges.insert(at + 1, HashRange { start: upper, end: wide.end });
    }
    ranges
}

/// The first hash key of the upper half of a range of at least two.
pub fn middle(range: HashRange) -> u128 {
    range.start + (range.end - range.start) / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: HashRange = HashRange { start: 0, end: u128::MAX };

    /// The load of one shard with the whole space: `samples` hash keys as `hash` gives them.
    fn load(samples: usize, mut hash: impl FnMut() -> u128) -> ShardLoad {
        let hashes = (0..samples).map(|_| (hash(), 64.0)).collect();
        ShardLoad { range: ALL, records: 10_000.0, hashes }
    }

    /// The largest share of a load that one of the ranges has, as a multiple of what it would have evenly.
    fn worst(loads: &[ShardLoad], ranges: &[HashRange]) -> f64 {
        let seen = Seen::new(loads);
        let below = |range: &HashRange| {
            range.end.checked_add(1).map_or(seen.total, |end| seen.below(end))
                - seen.below(range.start)
        };
        let most = ranges.iter().map(below).fold(0.0, f64::max);
        most / seen.total * ranges.len() as f64
    }

    #[test]
    fn skewed_load_is_divided_where_it_lies() {
        let mut random = fastrand::Rng::with_seed(7);
        // All of it in the first sixteenth of the space.
        let seen = [load(512, || random.u128(..) >> 4)];
        for shards in [2, 3, 4, 8] {
            let ranges = divide(&seen, shards);
            assert_eq!(ranges.len(), shards as usize);
            assert!(worst(&seen, &ranges) < 1.5, "{shards}: {ranges:?}");
            assert!(worst(&seen, &split_evenly(shards)) > 1.9);
        }
    }

    #[test]
    fn without_load_or_with_an_even_one_the_space_is_divided_evenly() {
        let idle = ShardLoad { range: ALL, records: 0.0, hashes: Vec::new() };
        assert_eq!(divide(&[idle], 3), split_evenly(3));
        let keyless = ShardLoad { range: ALL, records: 5_000.0, hashes: Vec::new() };
        assert_eq!(divide(&[keyless], 4), split_evenly(4));
        let few = load(20, || 5);
        assert_eq!(divide(&[few], 4), split_evenly(4));
        let one_key = load(512, || 5);
        assert_eq!(divide(&[one_key], 4), split_evenly(4), "no number of shards divides it");
        let (mut random, mut moved) = (fastrand::Rng::with_seed(7), 0);
        for _ in 0..100 {
            moved += u32::from(divide(&[load(512, || random.u128(..))], 2) != split_evenly(2));
        }
        assert!(moved < 15, "two standard deviations: {moved} of 100");
    }

    #[test]
    fn shards_count_by_their_load_and_not_by_what_was_looked_at() {
        let [low, high] = [split_evenly(2)[0], split_evenly(2)[1]];
        let mut random = fastrand::Rng::with_seed(7);
        let mut within = |range: HashRange, records| {
            let hashes = (0..512).map(|_| (random.u128(range.start..=range.end), 64.0)).collect();
            ShardLoad { range, records, hashes }
        };
        // Nine tenths of the load lie in the upper half.
        let seen = [within(low, 1_000.0), within(high, 9_000.0)];
        let ranges = divide(&seen, 2);
        let truth = ranges[1].start as f64 / u128::MAX as f64;
        assert!((truth - 0.722).abs() < 0.05, "{truth}");
        let merged = divide(&seen, 1);
        assert_eq!(merged, [ALL]);
    }

    #[test]
    fn divided_again_by_another_look_at_the_same_load_hardly_anything_moves() {
        let mut moved = 0;
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let first = divide(&[load(512, || random.u128(..) >> 3)], 4);
            // As the shards see it afterwards.
            let loads: Vec<ShardLoad> = first
                .iter()
                .map(|range| {
                    let hashes: Vec<u128> = (0..2_048).map(|_| random.u128(..) >> 3).collect();
                    let inside = hashes.iter().filter(|hash| range.contains(**hash));
                    let hashes: Vec<_> = inside.map(|hash| (*hash, 1.0)).collect();
                    ShardLoad { range: *range, records: hashes.len() as f64, hashes }
                })
                .collect();
            moved += u32::from(divide(&loads, 4) != first);
        }
        assert!(moved <= 3, "{moved} of 20");
    }

    #[test]
    fn a_hot_key_has_a_shard_of_its_own_and_too_few_keys_leave_ranges_to_halve() {
        let mut at = 0u128;
        // Of ten records nine have the same key.
        let hot = [load(500, || {
            at += 1;
            if at.is_multiple_of(10) { at << 100 } else { 1 << 107 }
        })];
        let ranges = divide(&hot, 4);
        assert_eq!(ranges.len(), 4);
        let of = ranges.iter().find(|r| r.contains(1 << 107)).unwrap();
        assert!(worst(&hot, &[*of]) < 0.95, "{of:?}");
        let mut n = 0u128;
        let three = [load(300, || {
            n += 1;
            (n % 3) << 126
        })];
        let ranges = divide(&three, 6);
        assert_eq!(ranges.len(), 6);
        assert!(worst(&three, &ranges) <= 2.01, "one key each: {ranges:?}");
    }

    proptest! {
        #[test]
        fn whatever_was_seen_the_ranges_cover_the_space(
            hashes in prop::collection::vec((any::<u128>(), 0.0f64..1e6), 0..200),
            records in 0.0f64..1e9,
            shards in 1u32..40,
            first in 1u32..6,
        ) {
            let of = |range: HashRange| {
                let inside = hashes.iter().copied().filter(|(hash, _)| range.contains(*hash));
                ShardLoad { range, records, hashes: inside.collect() }
            };
            let loads: Vec<ShardLoad> = split_evenly(first).into_iter().map(of).collect();
            let ranges = divide(&loads, shards);
            prop_assert_eq!(ranges.len(), shards as usize);
            prop_assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, u128::MAX));
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end.checked_add(1), Some(pair[1].start));
            }
        }
    }
}
