//! Requests a core has accepted from its connections and not yet answered.

/// What an answer is matched with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The connection that asked.
    pub connection: u64,
    /// Its name for the request.
    pub correlation: u64,
    /// Bytes reserved for the reply (fetches).
    pub reserved: usize,
    /// Handed over: to which core, and how many bytes of batch.
    pub forwarded: Option<(usize, usize)>,
    /// A fetch that may wait.
    pub waits: bool,
    /// Bytes of a control request.
    pub control: usize,
}

/// A table of them. Slots are reused under other numbers: what is said of an earlier request means no later one.
#[derive(Debug, Default)]
pub(crate) struct PendingTable {
    /// How often each was used, and by whom it is.
    slots: Vec<(u16, Option<Pending>)>,
    free: Vec<u32>,
}

/// Numbers have their slot below these bits, and above how often it was used before; 48 bits in all.
const SLOT_BITS: u32 = 32;

impl PendingTable {
    /// Keeps one; the number to ask for it with.
    pub fn insert(&mut self, pending: Pending) -> u64 {
        match self.free.pop() {
            Some(slot) => {
                let (uses, place) = &mut self.slots[slot as usize];
                *uses = uses.wrapping_add(1);
                *place = Some(pending);
                u64::from(*uses) << SLOT_BITS | u64::from(slot)
            }
            None => {
                self.slots.push((0, Some(pending)));
                self.slots.len() as u64 - 1
            }
        }
    }

    /// Takes one out; `None` if there is none of that number.
    pub fn remove(&mut self, slot: u64) -> Option<Pending> {
        let (index, uses) = (slot as u32, slot >> SLOT_BITS);
        let (used, place) = self.slots.get_mut(index as usize)?;
        let pending = place.take_if(|_| u64::from(*used) == uses)?;
        self.free.push(index);
        Some(pending)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_answers_match_once() {
        let pending = |connection| Pending { connection, correlation: 9, ..Pending::default() };
        let mut table = PendingTable::default();
        let a = table.insert(pending(1));
        let b = table.insert(pending(2));
        assert_ne!(a, b);
        assert_eq!(table.remove(a).map(|p| p.connection), Some(1));
        assert_eq!(table.remove(a), None);
        let c = table.insert(pending(3));
        assert_eq!((c as u32, table.slots.len()), (a as u32, 2), "in the same place");
        assert_eq!(table.remove(a), None, "not taken for the later one");
        assert_eq!((table.len(), table.remove(77)), (2, None));
        assert_eq!(table.remove(c).map(|p| p.connection), Some(3));
        for n in 0..200_000 {
            let number = table.insert(pending(n));
            assert!(number < 1 << 48 && table.remove(number).is_some());
        }
    }
}
