//! Which keys belong to a producer, where a key's records have an order.

/// Every `producers`-th key, from the producer's own number on; if there are more producers than keys,
/// one key shared with others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    first: u32,
    step: u32,
    count: u32,
}

impl Owned {
    /// Of `keys` keys, at least 1.
    pub fn new(keys: u32, producer: u32, producers: u32) -> Owned {
        let (keys, step) = (keys.max(1), producers.max(1));
        let first = producer % step % keys;
        let count = if producer % step < keys { (keys - first).div_ceil(step) } else { 1 };
        Owned { first, step, count }
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The `index`-th of them.
    #[inline]
    pub fn key(&self, index: u32) -> u32 {
        self.first + index * self.step
    }

    /// Of all keys ordered by how often they come, the one among these nearest to `key`: its index.
    #[inline]
    pub fn nearest(&self, key: u32) -> u32 {
        (key / self.step).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_owner() {
        for (keys, producers) in [(1, 1), (10, 1), (10, 3), (10, 10), (4096, 7)] {
            let mut owners = vec![0; keys as usize];
            for producer in 0..producers {
                let owned = Owned::new(keys, producer, producers);
                (0..owned.count()).for_each(|i| owners[owned.key(i) as usize] += 1);
                for key in 0..keys {
                    assert!(owned.nearest(key) < owned.count());
                }
            }
            assert!(owners.iter().all(|n| *n == 1), "{keys} {producers}: {owners:?}");
        }
    }

    #[test]
    fn producers_beyond_the_keys_share() {
        for producer in 0..10 {
            let owned = Owned::new(3, producer, 10);
            assert_eq!((owned.count(), owned.key(0)), (1, producer % 3));
        }
    }
}
