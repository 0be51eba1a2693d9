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
    /// A fetch that may wait for records.
    pub waits: bool,
    /// Bytes of a control request.
    pub control: usize,
}

/// A table of them; slots are reused.
#[derive(Debug, Default)]
pub(crate) struct PendingTable {
    slots: Vec<Option<Pending>>,
    free: Vec<u32>,
}

impl PendingTable {
    /// Keeps one; the number to ask for it with.
    pub fn insert(&mut self, pending: Pending) -> u64 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(pending);
                u64::from(slot)
            }
            None => {
                self.slots.push(Some(pending));
                self.slots.len() as u64 - 1
            }
        }
    }

    /// Takes one out; `None` if there is none of that number.
    pub fn remove(&mut self, slot: u64) -> Option<Pending> {
        let pending = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot as u32);
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
        assert_eq!(table.insert(pending(3)), a);
        assert_eq!((table.len(), table.remove(77)), (2, None));
    }
}
