//! The sparse index of a segment: where in the file a sequence number or a time is.

/// A block worth remembering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct IndexEntry {
    /// Sequence number of the block's first record.
    pub sequence: u64,
    /// Where the block begins in the file.
    pub offset: u64,
    /// Arrival of its first batch, nanoseconds since 1970 UTC.
    pub arrival_ns: u64,
}

/// Entries in order; the first block of a segment always has one.
#[derive(Clone, Debug, Default)]
pub struct SparseIndex {
    entries: Vec<IndexEntry>,
    interval: u64,
}

impl SparseIndex {
    /// For a file of `capacity` bytes: an entry every 64 KiB, or every 1,024th of the file if that is more.
    pub fn new(capacity: u64) -> SparseIndex {
        SparseIndex { entries: Vec::new(), interval: (capacity / 1024).max(64 << 10) }
    }

    /// As it was kept.
    pub fn restore(capacity: u64, entries: Vec<IndexEntry>) -> SparseIndex {
        SparseIndex { entries, ..SparseIndex::new(capacity) }
    }

    /// Most entries an index of a file of this size can have.
    pub fn most(capacity: u64) -> u64 {
        capacity / (capacity / 1024).max(64 << 10) + 2
    }

    /// Tells of a block; kept if it is far enough from the one kept last.
    pub fn note(&mut self, entry: IndexEntry) {
        if self.entries.last().is_none_or(|last| entry.offset >= last.offset + self.interval) {
            self.entries.push(entry);
        }
    }

    /// The last entry at or before `sequence`.
    pub fn by_sequence(&self, sequence: u64) -> Option<&IndexEntry> {
        let after = self.entries.partition_point(|e| e.sequence <= sequence);
        self.entries.get(after.checked_sub(1)?)
    }

    /// The last entry whose block arrived before `time_ns`, or the first entry: reading from there meets
    /// every record that arrived at that time or later.
    pub fn by_time(&self, time_ns: u64) -> Option<&IndexEntry> {
        // Arrival times follow the wall clock, which may step back: look for the first late enough.
        let late =
            self.entries.iter().position(|e| e.arrival_ns >= time_ns).unwrap_or(self.entries.len());
        self.entries.get(late.saturating_sub(1))
    }

    /// All entries.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> IndexEntry {
        IndexEntry { sequence: n * 10, offset: n * 32768, arrival_ns: 1000 + n }
    }

    #[test]
    fn sparse_and_searchable() {
        let mut index = SparseIndex::new(1 << 20);
        (0..100).for_each(|n| index.note(entry(n)));
        assert_eq!(index.entries().len(), 50);
        assert_eq!(index.by_sequence(0), Some(&entry(0)));
        assert_eq!(index.by_sequence(25), Some(&entry(2)));
        assert_eq!(index.by_sequence(19), Some(&entry(0)));
        assert_eq!(index.by_sequence(u64::MAX), Some(&entry(98)));
        assert_eq!(index.by_time(0), Some(&entry(0)));
        assert_eq!(index.by_time(1004), Some(&entry(2)));
        assert_eq!(index.by_time(u64::MAX), Some(&entry(98)));
        assert_eq!(SparseIndex::new(1 << 20).by_sequence(5), None);
    }
}
