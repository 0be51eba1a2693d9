//! Partitioning as Kinesis does it: MD5 of the partition key, into ranges of a 128-bit hash-key space.

use md5::{Digest, Md5};

/// The hash key of a partition key: MD5, read as a big-endian 128-bit number.
pub fn hash_key(partition_key: &[u8]) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key).into())
}

/// A shard's part of the hash-key space, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRange {
    /// First hash key.
    pub start: u128,
    /// Last hash key.
    pub end: u128,
}

impl HashRange {
    /// Whether `key` belongs here.
    pub fn contains(&self, key: u128) -> bool {
        (self.start..=self.end).contains(&key)
    }
}

/// The whole space divided into `shards` ranges of equal size, rounded down (the last takes the remainder): those
/// that Kinesis gives a new stream.
///
/// # Panics
/// If `shards` is 0.
pub fn split_evenly(shards: u32) -> Vec<HashRange> {
    let n = u128::from(shards);
    // 2^128 / n, less the 1 that would not fit for a single shard.
    let width = (u128::MAX - (n - 1)) / n;
    let start = |i: u128| i * width + i;
    let end = |i: u128| if i + 1 == n { u128::MAX } else { start(i + 1) - 1 };
    (0..n).map(|i| HashRange { start: start(i), end: end(i) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_as_kinesis_reads_it() {
        // MD5("a") = 0cc175b9c0f1b6a831c399e269772661
        assert_eq!(hash_key(b"a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    }

    #[test]
    fn halves_and_thirds_are_those_of_kinesis() {
        let starts = |shards| split_evenly(shards).iter().map(|r| r.start).collect::<Vec<_>>();
        assert_eq!(starts(2), [0, 1 << 127]);
        let third = 113_427_455_640_312_821_154_458_202_477_256_070_485;
        assert_eq!(starts(3), [0, third, 2 * third]);
    }

    #[test]
    fn ranges_cover_the_space_without_overlap() {
        for shards in [1, 2, 3, 7, 100, 4096] {
            let ranges = split_evenly(shards);
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[ranges.len() - 1].end, u128::MAX);
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].end + 1, pair[1].start);
            }
        }
    }
}
