//! Partition keys: the table of them, and which comes next.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alias::Alias;
use super::{WorkloadError, between};

/// The partition keys of workloads that bring none of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many different ones, 1 to 16 Mi. Default 10,000.
    #[serde(default = "default_count")]
    pub count: u32,
    /// How often each comes. Default uniform.
    #[serde(default)]
    pub distribution: KeyDistribution,
}

/// How often each key comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyDistribution {
    /// All equally often, at random.
    #[default]
    Uniform,
    /// The r-th in proportion to r to the power of −`exponent`; more than 0, at most 10.
    Zipf {
        /// How steep.
        exponent: f64,
    },
    /// The first has this share of all records, 0 to 1; the others share the rest equally.
    Hot {
        /// How much.
        share: f64,
    },
    /// One after the other, over all producers.
    RoundRobin,
}

fn default_count() -> u32 {
    10_000
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { count: default_count(), distribution: KeyDistribution::Uniform }
    }
}

/// Most keys: each has its own bytes in a table.
const MAX_KEYS: u32 = 16 << 20;

impl Keys {
    /// Whether every field is in its range.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        between("keys", u64::from(self.count), 1, u64::from(MAX_KEYS))?;
        self.distribution.validate()
    }
}

impl KeyDistribution {
    /// Whether every field is in its range.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        let wrong = |field, value: f64, limit| {
            Err(WorkloadError::Field { field, value: value.to_string(), limit })
        };
        match *self {
            KeyDistribution::Zipf { exponent } if !(exponent > 0.0 && exponent <= 10.0) => {
                wrong("zipf exponent", exponent, "more than 0 and at most 10".to_owned())
            }
            KeyDistribution::Hot { share } if !(0.0..=1.0).contains(&share) => {
                wrong("hot share", share, "0 to 1, or 0% to 100%".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyDistribution::Uniform => f.write_str("uniform"),
            KeyDistribution::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            KeyDistribution::Hot { share } => write!(f, "hot:{}%", share * 100.0),
            KeyDistribution::RoundRobin => f.write_str("round-robin"),
        }
    }
}

impl std::str::FromStr for KeyDistribution {
    type Err = WorkloadError;

    /// `uniform`, `round-robin`, `zipf`, `zipf:1.1`, `hot`, `hot:50%`.
    fn from_str(text: &str) -> Result<KeyDistribution, WorkloadError> {
        let unknown = || WorkloadError::Unknown {
            what: "key distribution",
            value: text.to_owned(),
            known: "uniform, zipf[:EXPONENT], hot[:SHARE] or round-robin",
        };
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let number = |default: f64| match value {
            None => Ok(default),
            Some(value) => {
                let (digits, unit) =
                    value.strip_suffix('%').map_or((value, 1.0), |digits| (digits, 100.0));
                digits.parse::<f64>().map(|number| number / unit).map_err(|_| unknown())
            }
        };
        let distribution = match (name, value) {
            ("uniform", None) => KeyDistribution::Uniform,
            ("round-robin", None) => KeyDistribution::RoundRobin,
            ("zipf", _) => KeyDistribution::Zipf { exponent: number(1.0)? },
            ("hot", _) => KeyDistribution::Hot { share: number(0.5)? },
            _ => return Err(unknown()),
        };
        distribution.validate()?;
        Ok(distribution)
    }
}

/// All keys of a run, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    bytes: Vec<u8>,
    /// Where each ends; empty while all are of the same length.
    ends: Vec<usize>,
    /// Length of the first.
    len: usize,
    count: u32,
    longest: usize,
}

impl KeyTable {
    pub fn with_capacity(bytes: usize) -> KeyTable {
        KeyTable { bytes: Vec::with_capacity(bytes), ..KeyTable::default() }
    }

    /// Eight hexadecimal digits each, all different, in no order a hash could like.
    pub fn hexadecimal(count: u32, seed: u64) -> KeyTable {
        let mut table = KeyTable::with_capacity(count as usize * 8);
        for index in 0..count {
            // An odd factor permutes the 32-bit numbers.
            let number = index.wrapping_mul(0x9e37_79b1) ^ (seed >> 32) as u32 ^ seed as u32;
            table.push(format!("{number:08x}").as_bytes());
        }
        table
    }

    pub fn push(&mut self, key: &[u8]) {
        if self.count == 0 {
            self.len = key.len();
        } else if key.len() != self.len && self.ends.is_empty() {
            self.ends = (1..=self.count as usize).map(|index| index * self.len).collect();
        }
        self.bytes.extend_from_slice(key);
        if !self.ends.is_empty() {
            self.ends.push(self.bytes.len());
        }
        self.count += 1;
        self.longest = self.longest.max(key.len());
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    #[inline]
    pub fn key(&self, index: u32) -> &[u8] {
        let index = index as usize;
        if self.ends.is_empty() {
            return &self.bytes[index * self.len..(index + 1) * self.len];
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// Length of the longest.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// Draws keys of a distribution; shared by all producers.
#[derive(Clone, Debug)]
pub(super) enum KeyDraw {
    Uniform(u32),
    Weighted(Arc<Alias>),
    /// A share of 2³², and how many others there are.
    Hot(u64, u32),
    RoundRobin(u32),
}

impl KeyDraw {
    pub fn new(keys: &Keys) -> Result<KeyDraw, WorkloadError> {
        keys.validate()?;
        Ok(match keys.distribution {
            KeyDistribution::Uniform => KeyDraw::Uniform(keys.count),
            KeyDistribution::RoundRobin => KeyDraw::RoundRobin(keys.count),
            KeyDistribution::Hot { .. } if keys.count == 1 => KeyDraw::Uniform(1),
            KeyDistribution::Hot { share } => {
                KeyDraw::Hot((share * 4_294_967_296.0) as u64, keys.count - 1)
            }
            KeyDistribution::Zipf { exponent } => {
                KeyDraw::Weighted(Arc::new(Alias::zipf(keys.count, exponent)))
            }
        })
    }

    /// For one of `producers`.
    pub fn picker(&self, producer: u32, producers: u32) -> KeyPick {
        let producers = producers.max(1);
        match self {
            // The run's k-th record is its producer's; together they go round.
            KeyDraw::RoundRobin(count) => {
                KeyPick::Around { next: producer % count, step: producers % count, count: *count }
            }
            draw => KeyPick::Random(draw.clone()),
        }
    }
}

/// The next key of one producer.
#[derive(Clone, Debug)]
pub(super) enum KeyPick {
    Random(KeyDraw),
    Around { next: u32, step: u32, count: u32 },
}

impl KeyPick {
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> u32 {
        match self {
            KeyPick::Random(KeyDraw::Uniform(count))
            | KeyPick::Random(KeyDraw::RoundRobin(count)) => random.u32(..*count),
            KeyPick::Random(KeyDraw::Weighted(alias)) => alias.draw(random),
            KeyPick::Random(KeyDraw::Hot(share, others)) => {
                if u64::from(random.u32(..)) < *share {
                    0
                } else {
                    1 + random.u32(..*others)
                }
            }
            KeyPick::Around { next, step, count } => {
                let key = *next;
                // Both are below the count, which is far below 2³¹.
                *next += *step;
                if *next >= *count {
                    *next -= *count;
                }
                key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: KeyDistribution, count: u32, draws: u32) -> Vec<u32> {
        let draw = KeyDraw::new(&Keys { count, distribution }).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut pick = draw.picker(0, 1);
        let mut counts = vec![0; count as usize];
        (0..draws).for_each(|_| counts[pick.next(&mut random) as usize] += 1);
        counts
    }

    #[test]
    fn every_distribution_gives_the_shares_it_says() {
        let near = |found: u32, wanted: f64| (f64::from(found) / wanted - 1.0).abs() < 0.08;
        assert!(counts(KeyDistribution::Uniform, 100, 1_000_000).iter().all(|n| near(*n, 1e4)));
        let hot = counts(KeyDistribution::Hot { share: 0.5 }, 101, 1_000_000);
        assert!(near(hot[0], 5e5) && hot[1..].iter().all(|n| near(*n, 5e3)), "{hot:?}");
        assert_eq!(counts(KeyDistribution::Hot { share: 1.0 }, 9, 1000)[0], 1000);
        assert_eq!(counts(KeyDistribution::Hot { share: 0.3 }, 1, 10), [10]);
        assert_eq!(counts(KeyDistribution::RoundRobin, 10, 1000), [100; 10]);
        let zipf = counts(KeyDistribution::Zipf { exponent: 1.0 }, 100, 1_000_000);
        let norm: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 3, 10, 50] {
            assert!(near(zipf[rank - 1], 1e6 / norm / rank as f64), "{rank}");
        }
    }

    #[test]
    fn producers_go_round_together() {
        let draw = KeyDraw::new(&Keys { count: 6, distribution: KeyDistribution::RoundRobin });
        let draw = draw.unwrap();
        let mut random = fastrand::Rng::with_seed(0);
        for producers in [1, 2, 3, 4, 6, 9] {
            let mut picks: Vec<_> = (0..producers).map(|p| draw.picker(p, producers)).collect();
            for k in 0..100 {
                let key = picks[(k % producers) as usize].next(&mut random);
                assert_eq!(key, k % 6, "record {k} with {producers} producers");
            }
        }
    }

    #[test]
    fn keys_are_all_different() {
        let table = KeyTable::hexadecimal(100_000, 0xdead_beef_1234_5678);
        let set: std::collections::HashSet<_> = (0..table.count()).map(|i| table.key(i)).collect();
        assert_eq!((set.len(), table.longest()), (100_000, 8));
    }

    #[test]
    fn keys_of_any_length_keep_their_place() {
        for keys in [&["a", "b", "c"][..], &["aa", "b", "", "cccc"], &["", "", "x"], &["", ""]] {
            let mut table = KeyTable::default();
            keys.iter().for_each(|key| table.push(key.as_bytes()));
            let found: Vec<&[u8]> = (0..table.count()).map(|i| table.key(i)).collect();
            assert_eq!(found, keys.iter().map(|key| key.as_bytes()).collect::<Vec<_>>());
            assert_eq!(table.longest(), keys.iter().map(|key| key.len()).max().unwrap());
        }
    }

    #[test]
    fn distributions_are_written_as_they_are_read() {
        for text in ["uniform", "round-robin", "zipf:1.1", "hot:25%"] {
            assert_eq!(text.parse::<KeyDistribution>().unwrap().to_string(), text);
        }
        assert_eq!("hot:0.25".parse::<KeyDistribution>().unwrap().to_string(), "hot:25%");
        for wrong in ["", "normal", "zipf:", "zipf:0", "zipf:NaN", "hot:101%", "uniform:1"] {
            let said = wrong.parse::<KeyDistribution>().unwrap_err().to_string();
            assert!(said.contains("zipf") || said.contains("hot"), "{wrong}: {said}");
        }
    }
}
