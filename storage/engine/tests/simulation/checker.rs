//! What clients were told and what they saw, and whether the log agrees.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use highwater_wire::RecordView;

/// One record's identity: who wrote it, and as what number.
pub type Identity = (u64, u64);

/// The promises of one shard.
#[derive(Default)]
pub struct Checker {
    /// Acknowledged: sequence number to identity.
    acked: BTreeMap<u64, Identity>,
    /// Read by a consumer: sequence number to identity.
    seen: BTreeMap<u64, Identity>,
    /// Told as never stored: refused for good, dropped or sampled out.
    gone: BTreeSet<Identity>,
    /// The highest high-water mark any reader was shown.
    high_water: u64,
    oldest: u64,
}

/// The payload of a record: its identity, then filler that depends on it.
pub fn payload(who: Identity, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + len);
    bytes.extend_from_slice(&who.0.to_le_bytes());
    bytes.extend_from_slice(&who.1.to_le_bytes());
    bytes.extend((0..len).map(|i| (who.0 ^ who.1.wrapping_mul(31) ^ i as u64) as u8));
    bytes
}

fn identity(record: &RecordView<'_>) -> Result<Identity, String> {
    let p = record.payload;
    let word =
        |at: usize| p.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let (Some(a), Some(b)) = (word(0), word(8)) else {
        return Err(format!("record {} has a payload of {} bytes", record.sequence, p.len()));
    };
    if p != payload((a, b), p.len() - 16) {
        return Err(format!("record {} is corrupt", record.sequence));
    }
    Ok((a, b))
}

impl Checker {
    /// A batch was acknowledged, with these records stored.
    pub fn acked(&mut self, base: u64, stored: &[Identity]) -> Result<(), String> {
        for (sequence, &identity) in (base..).zip(stored) {
            if self.gone.contains(&identity) {
                return Err(format!("{identity:?} is stored at {sequence}, was told as gone"));
            }
            if let Some(before) = self.acked.insert(sequence, identity)
                && before != identity
            {
                return Err(format!(
                    "sequence {sequence} acknowledged as {before:?} and as {identity:?}"
                ));
            }
            if let Some(read) = self.seen.get(&sequence).filter(|r| **r != identity) {
                return Err(format!(
                    "sequence {sequence} acknowledged as {identity:?}, read as {read:?}"
                ));
            }
        }
        Ok(())
    }

    /// These were told as never to be stored.
    pub fn gone(&mut self, records: &[Identity]) -> Result<(), String> {
        if records.is_empty() {
            return Ok(());
        }
        self.gone.extend(records);
        match self.acked.iter().find(|(_, who)| records.contains(who)) {
            Some((sequence, who)) => Err(format!("{who:?} is gone, was stored at {sequence}")),
            None => Ok(()),
        }
    }

    /// A consumer read a record.
    pub fn read(&mut self, record: &RecordView<'_>) -> Result<(), String> {
        let who = identity(record)?;
        for (what, known) in [
            ("read", self.seen.get(&record.sequence)),
            ("acknowledged", self.acked.get(&record.sequence)),
        ] {
            if let Some(known) = known.filter(|k| **k != who) {
                return Err(format!(
                    "sequence {} is {who:?}, was {what} as {known:?}",
                    record.sequence
                ));
            }
        }
        self.seen.insert(record.sequence, who);
        Ok(())
    }

    /// A high-water mark and oldest sequence number were shown.
    pub fn bounds(&mut self, oldest: u64, high_water: u64) -> Result<(), String> {
        if high_water < self.high_water {
            return Err(format!(
                "the high-water mark went back from {} to {high_water}",
                self.high_water
            ));
        }
        if oldest < self.oldest {
            return Err(format!("the oldest sequence went back from {} to {oldest}", self.oldest));
        }
        (self.high_water, self.oldest) = (high_water, oldest);
        Ok(())
    }

    /// A `written` stream may lose what was acknowledged, but not read, when the power fails.
    pub fn forgive_unread(&mut self, high_water: u64) -> usize {
        let lost = self.acked.split_off(&high_water);
        lost.len()
    }

    /// Everything the shard holds from `oldest` on, after a restart.
    pub fn whole_log(
        &mut self,
        oldest: u64,
        high_water: u64,
        log: &[(u64, Identity)],
    ) -> Result<(), String> {
        self.bounds(oldest, high_water)?;
        for (i, (sequence, _)) in log.iter().enumerate() {
            if *sequence != oldest + i as u64 {
                return Err(format!("sequence {sequence} follows {} others from {oldest}", i));
            }
        }
        if log.len() as u64 != high_water - oldest {
            return Err(format!("{} records between {oldest} and {high_water}", log.len()));
        }
        let held: HashMap<u64, Identity> = log.iter().copied().collect();
        for (what, promised) in [("acknowledged", &self.acked), ("read", &self.seen)] {
            for (sequence, who) in promised.range(oldest..) {
                match held.get(sequence) {
                    Some(found) if found == who => {}
                    found => {
                        return Err(format!(
                            "{what} record {who:?} at {sequence}: found {found:?}"
                        ));
                    }
                }
            }
        }
        let mut once = BTreeSet::new();
        let mut last: HashMap<u64, u64> = HashMap::new();
        for (sequence, who) in log {
            if self.gone.contains(who) {
                return Err(format!("record {who:?} at {sequence} was told as gone"));
            }
            if !once.insert(*who) {
                return Err(format!("record {who:?} stands twice, again at {sequence}"));
            }
            if let Some(before) = last.insert(who.0, who.1).filter(|before| *before >= who.1) {
                return Err(format!(
                    "producer {} is out of order: {} after {before}",
                    who.0, who.1
                ));
            }
        }
        Ok(())
    }
}

/// Decodes a record's identity for [`Checker::whole_log`].
pub fn entry(record: &RecordView<'_>) -> Result<(u64, Identity), String> {
    Ok((record.sequence, identity(record)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hand-broken histories: each must be refused.
    #[test]
    fn broken_histories_are_refused() {
        let log = |ids: &[u64]| -> Vec<(u64, Identity)> {
            ids.iter().enumerate().map(|(i, n)| (i as u64, (1, *n))).collect()
        };
        let acked = |n: u64| {
            let mut c = Checker::default();
            c.acked(0, &(0..n).map(|i| (1, i)).collect::<Vec<_>>()).unwrap();
            c
        };
        assert!(acked(3).whole_log(0, 3, &log(&[0, 1, 2])).is_ok());
        assert!(
            acked(3).whole_log(0, 2, &log(&[0, 1])).unwrap_err().contains("acknowledged"),
            "lost"
        );
        assert!(
            acked(2).whole_log(0, 3, &log(&[0, 1, 1])).unwrap_err().contains("twice"),
            "doubled"
        );
        assert!(
            acked(1).whole_log(0, 3, &log(&[0, 2, 1])).unwrap_err().contains("order"),
            "reordered"
        );
        assert!(acked(2).whole_log(0, 2, &log(&[0, 7])).unwrap_err().contains("found"), "replaced");
        assert!(acked(1).whole_log(0, 3, &log(&[0, 1])).unwrap_err().contains("between"), "short");
        let stolen = acked(2).acked(1, &[(9, 0)]);
        assert!(stolen.unwrap_err().contains("acknowledged as"), "two owners");
        assert!(acked(2).gone(&[(1, 1)]).unwrap_err().contains("gone"), "stored and dropped");
        let mut c = acked(1);
        c.gone(&[(1, 1)]).unwrap();
        assert!(
            c.whole_log(0, 2, &log(&[0, 1])).unwrap_err().contains("gone"),
            "dropped, and there"
        );
        let mut c = Checker::default();
        c.bounds(0, 5).unwrap();
        assert!(c.bounds(0, 4).is_err(), "mark went back");
    }
}
