//! The keys most of a shard's load comes from: a space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over a
//! sample of the records, in bounded memory. Nothing is kept of a shard without appends.

use highwater_wire::BatchView;
use highwater_wire::telemetry::HotKey;

/// Keys kept; one of more than a few percent of the load is among them.
const SLOTS: usize = 32;

/// Keys told.
const TOLD: usize = 10;

/// Keys of a smaller share are not told: by then it is chance.
const LEAST_SHARE: f64 = 0.01;

/// Bytes kept of a key.
const KEY_BYTES: usize = 64;

/// One record in so many is looked at, on average; at most one of a batch.
const ONE_IN: u64 = 64;

/// Records of a batch that may be looked at: walking further costs more than it tells.
const REACH: usize = 64;

/// What was counted fades by this factor a second: about the last ten seconds matter.
const FADES: f64 = 0.9;

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: [u8; KEY_BYTES],
    len: u8,
    /// Estimate of its records: too high by `error` at most.
    records: f64,
    error: f64,
}

impl Slot {
    fn key(&self) -> &[u8] {
        &self.key[..usize::from(self.len)]
    }

    fn least(&self) -> f64 {
        self.records - self.error
    }
}

/// The sketch of one shard.
#[derive(Debug)]
pub struct HotKeys {
    slots: Vec<Slot>,
    /// Records behind the sketch, those without a key included; fades like the slots.
    total: f64,
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
            total: 0.0,
            passed: 0,
            gap: 0,
            random: fastrand::Rng::with_seed(0),
            faded_ns: 0,
        }
    }
}

impl HotKeys {
    /// Tells of a batch that was checked. Mostly one subtraction.
    pub fn see(&mut self, batch: &BatchView<'_>) {
        self.passed += u64::from(batch.record_count());
        if self.passed > self.gap {
            self.look(batch);
        }
    }

    /// One of the batch's records stands for all since the last look.
    fn look(&mut self, batch: &BatchView<'_>) {
        let weight = std::mem::take(&mut self.passed) as f64;
        // At random, so that no rhythm of the producers is met.
        self.gap = self.random.u64(0..2 * ONE_IN);
        self.total += weight;
        let reach = (batch.record_count() as usize).clamp(1, REACH);
        let nth = self.random.usize(0..reach);
        if let Some(record) = batch.records().nth(nth)
            && !record.key.is_empty()
        {
            self.count(&record.key[..record.key.len().min(KEY_BYTES)], weight);
        }
    }

    fn count(&mut self, key: &[u8], weight: f64) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key() == key) {
            slot.records += weight;
            return;
        }
        let mut new =
            Slot { key: [0; KEY_BYTES], len: key.len() as u8, records: weight, error: 0.0 };
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
        self.slots.is_empty() && self.total < 1.0
    }

    /// Records of about the last ten seconds, and the keys most of them have, by how many at least.
    pub fn tell(&mut self, mono_ns: u64) -> (u64, Vec<HotKey>) {
        self.fade(mono_ns);
        let mut hot: Vec<&Slot> =
            self.slots.iter().filter(|s| s.least() >= self.total * LEAST_SHARE).collect();
        hot.sort_by(|a, b| b.least().total_cmp(&a.least()));
        let told = |slot: &&Slot| HotKey { key: text(slot.key()), records: slot.least() as u64 };
        (self.total as u64, hot.iter().take(TOLD).map(told).collect())
    }

    fn fade(&mut self, mono_ns: u64) {
        let seconds = mono_ns.saturating_sub(self.faded_ns) as f64 / 1e9;
        self.faded_ns = self.faded_ns.max(mono_ns);
        let factor = FADES.powf(seconds);
        self.total *= factor;
        for slot in &mut self.slots {
            slot.records *= factor;
            slot.error *= factor;
        }
        self.slots.retain(|slot| slot.records >= 1.0);
    }
}

/// Keys are UTF-8; a long one may have been cut within a character.
fn text(key: &[u8]) -> String {
    let end = std::str::from_utf8(key).map_or_else(|e| e.valid_up_to(), |_| key.len());
    String::from_utf8_lossy(&key[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, ProducerStamp};

    const S: u64 = 1_000_000_000;

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
        feed(&mut keys, 50, String::new);
        let (total, told) = keys.tell(0);
        assert_eq!(told.iter().map(|k| k.key.len()).collect::<Vec<_>>(), [64]);
        assert!(told[0].records < total * 3 / 4, "records without a key count in the whole");
    }
}
