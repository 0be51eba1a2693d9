//! Partition keys that belong to a given shard, found once before the run.

use highwater_wire::{HashRange, ShardDescription, hash_key};

use crate::LoadError;

/// Bytes of every key.
pub const KEY_LEN: usize = 8;
/// Keys per shard: enough that no single key stands for a shard.
const PER_SHARD: usize = 16;
/// Attempts per key wanted before a range counts as too narrow: even the last of 4,096 equal shards
/// fails by chance less than once in 10¹³ runs.
const ATTEMPTS: usize = 4_096 * 32;

/// Keys of one shard.
pub type Keys = Vec<[u8; KEY_LEN]>;

/// Keys by shard, in the order of `shards`. A single shard takes any key: nothing is hashed.
pub fn keys(shards: &[ShardDescription], seed: u64) -> Result<Vec<Keys>, LoadError> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut found = vec![Keys::with_capacity(PER_SHARD); shards.len()];
    if let [only] = &mut found[..] {
        only.extend((0..PER_SHARD).map(|_| key(&mut random)));
        return Ok(found);
    }
    let mut by_start: Vec<(HashRange, usize)> = shards
        .iter()
        .enumerate()
        .map(|(i, s)| (HashRange { start: s.hash_start, end: s.hash_end }, i))
        .collect();
    by_start.sort_unstable_by_key(|(range, _)| range.start);
    // With very many shards one key each will do.
    let wanted = (16_384 / shards.len().max(1)).clamp(1, PER_SHARD);
    let mut missing = shards.len() * wanted;
    for _ in 0..ATTEMPTS.max(missing.saturating_mul(32)) {
        if missing == 0 {
            break;
        }
        let key = key(&mut random);
        let hash = hash_key(&key);
        let at = by_start.partition_point(|(range, _)| range.start <= hash);
        let Some((range, shard)) = at.checked_sub(1).and_then(|at| by_start.get(at)) else {
            continue;
        };
        if range.contains(hash) && found[*shard].len() < wanted {
            found[*shard].push(key);
            missing -= 1;
        }
    }
    match found.iter().position(Vec::is_empty) {
        Some(shard) => Err(LoadError::NoKey { shard: shards[shard].shard }),
        None => Ok(found),
    }
}

fn key(random: &mut fastrand::Rng) -> [u8; KEY_LEN] {
    std::array::from_fn(|_| random.digit(16) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::split_evenly;

    fn shards(ranges: &[HashRange]) -> Vec<ShardDescription> {
        let describe = |(i, range): (usize, &HashRange)| ShardDescription {
            shard: i as u32,
            hash_start: range.start,
            hash_end: range.end,
            core: 0,
            port: 0,
            oldest: 0,
            high_water: 0,
            stored_bytes: 0,
            state: "open".into(),
        };
        ranges.iter().enumerate().map(describe).collect()
    }

    #[test]
    fn every_key_hashes_into_its_shard() {
        for count in [1, 2, 7, 4096] {
            let ranges = split_evenly(count);
            let found = keys(&shards(&ranges), 1).unwrap();
            assert_eq!(found.len(), count as usize);
            for (range, keys) in ranges.iter().zip(&found) {
                assert!(!keys.is_empty());
                assert!(keys.iter().all(|key| range.contains(hash_key(key))));
            }
        }
    }

    #[test]
    fn a_range_too_narrow_to_hit_is_named() {
        let ranges = [HashRange { start: 0, end: 5 }, HashRange { start: 6, end: u128::MAX }];
        assert!(matches!(keys(&shards(&ranges), 1), Err(LoadError::NoKey { shard: 0 })));
    }
}
