//! What becomes of the records of a batch that is not stored whole, record by record.

use highwater_wire::{
    BatchError, BatchHeader, ErrorCode, RECORD_HEADER_LEN, RecordOutcome, SampleBy, select,
};

use crate::admit::sampled;
use crate::producers::Claim;
use crate::quota::Demand;
use crate::types::Parts;

/// The fate of each record of a batch.
#[derive(Debug)]
pub(super) struct Fates {
    /// `None`: stored; otherwise why not.
    each: Vec<Option<ErrorCode>>,
    /// Records from the front that are decided; all behind are refused for now.
    decided: usize,
}

impl Fates {
    /// All `count` of them are stored, so far.
    pub fn new(count: u32) -> Fates {
        Fates { each: vec![None; count as usize], decided: count as usize }
    }

    /// Those at fault by themselves are refused for good.
    pub fn find_faults(&mut self, body: &[u8], max_record: u32) -> Result<(), BatchError> {
        let faults = select::faults(body, self.each.len() as u32, max_record)?;
        for (index, fault) in faults {
            let code = match fault {
                BatchError::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
                _ => ErrorCode::KeyTooLong,
            };
            if let Some(fate) = self.each.get_mut(index as usize) {
                *fate = Some(code);
            }
        }
        Ok(())
    }

    /// Only those in the sample stay.
    pub fn sample(&mut self, body: &[u8], claim: &Claim, ppm: u32, by: SampleBy) {
        let records = select::records(body, self.each.len() as u32, 0);
        for (index, (fate, record)) in (0..).zip(self.each.iter_mut().zip(records)) {
            if fate.is_none() && !sampled(ppm, by, claim, index, &record) {
                *fate = Some(ErrorCode::RecordSampledOut);
            }
        }
    }

    /// Of those left out by the sample, as many from the front come back as fit into `spare`, all that stay into `room`; the
    /// first `least` records in any case.
    pub fn fill(&mut self, body: &[u8], room: Demand, spare: Demand, least: u32) {
        let (mut all, mut besides) = (self.demand(body), Demand::default());
        for (index, record) in select::spans(body, self.each.len() as u32) {
            let fate = &mut self.each[index as usize];
            if *fate != Some(ErrorCode::RecordSampledOut) {
                continue;
            }
            let one = Demand { records: 1, bytes: record.len() as u64 };
            (all, besides) = (all.and(one), besides.and(one));
            if index >= least && !(all.within(room) && besides.within(spare)) {
                return;
            }
            *fate = None;
        }
    }

    /// Of those that stay only as many from the front as fit into `room`, at least `least` of them; the rest is dropped,
    /// or refused for now with all that follows.
    pub fn limit(&mut self, body: &[u8], room: Demand, least: u64, drop: bool) {
        let mut left = room;
        left.bytes = left.bytes.saturating_sub(BatchHeader::LEN as u64);
        let (mut passed, mut end) = (0, None);
        for (index, record) in select::spans(body, self.each.len() as u32) {
            if self.each[index as usize].is_some() {
                continue;
            }
            let bytes = record.len() as u64;
            if (left.records == 0 || bytes > left.bytes) && passed >= least {
                end = Some(index as usize);
                break;
            }
            passed += 1;
            left.records = left.records.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(bytes);
        }
        let Some(end) = end else { return };
        for fate in &mut self.each[end..] {
            match drop {
                true => *fate = fate.or(Some(ErrorCode::RecordDropped)),
                false => *fate = Some(ErrorCode::QuotaExceeded),
            }
        }
        self.decided = if drop { self.each.len() } else { end };
    }

    /// As it came out for a batch of which `decided` records were decided and `stored` of these stored: what the
    /// sample now leaves out was sampled out, what then is still too much was dropped from the end.
    pub fn recall(&mut self, decided: u32, stored: u32) {
        self.decided = (decided as usize).min(self.each.len());
        let (front, rest) = self.each.split_at_mut(self.decided);
        rest.fill(Some(ErrorCode::QuotaExceeded));
        let mut kept = front.iter().filter(|fate| fate.is_none()).count();
        for fate in front.iter_mut().rev().filter(|fate| fate.is_none()) {
            if kept <= stored as usize {
                break;
            }
            *fate = Some(ErrorCode::RecordDropped);
            kept -= 1;
        }
        // Another sample was in force then.
        for fate in front.iter_mut().filter(|f| **f == Some(ErrorCode::RecordSampledOut)) {
            if kept >= stored as usize {
                break;
            }
            *fate = None;
            kept += 1;
        }
    }

    /// All are dropped.
    pub fn drop_all(&mut self) {
        self.each.fill(Some(ErrorCode::RecordDropped));
    }

    /// Whether a record is stored.
    pub fn stored(&self, index: u32) -> bool {
        self.each.get(index as usize).is_some_and(Option::is_none)
    }

    /// Whether all are.
    pub fn whole(&self) -> bool {
        self.each.iter().all(Option::is_none)
    }

    /// Records decided.
    pub fn decided(&self) -> u32 {
        self.decided as u32
    }

    /// What the stored ones ask of the meters, in a batch of their own.
    pub fn demand(&self, body: &[u8]) -> Demand {
        let stored = select::spans(body, self.each.len() as u32).filter(|(i, _)| self.stored(*i));
        let none = Demand { records: 0, bytes: BatchHeader::LEN as u64 };
        stored.fold(none, |sum, (_, r)| sum.and(Demand { records: 1, bytes: r.len() as u64 }))
    }

    /// What those refused for now will ask when they come again.
    pub fn rest(&self, body: &[u8]) -> Demand {
        let records = (self.each.len() - self.decided) as u64;
        let before: usize = select::spans(body, self.decided as u32).map(|(_, r)| r.len()).sum();
        let least = records * RECORD_HEADER_LEN as u64;
        let bytes = (body.len().saturating_sub(before) as u64).max(least);
        Demand { records, bytes: bytes + BatchHeader::LEN as u64 }
    }

    /// As it is answered. Of the records decided, those at fault are listed, and if `tell` those dropped and sampled
    /// out.
    pub fn parts(&self, tell: bool, retry_after_ms: u32) -> Box<Parts> {
        let mut parts = Parts { decided: self.decided(), retry_after_ms, ..Parts::default() };
        let mut last: Option<(ErrorCode, u32, u32)> = None;
        let mut push = |run: Option<(ErrorCode, u32, u32)>| {
            let Some((code, first, count)) = run else { return };
            parts.outcomes.push(RecordOutcome {
                first: first.into(),
                count: count.into(),
                code: (code as u16).into(),
                reserved: 0.into(),
            });
        };
        let (mut dropped, mut sampled_out) = (0, 0);
        for (index, fate) in (0..).zip(&self.each[..self.decided]) {
            dropped += u32::from(*fate == Some(ErrorCode::RecordDropped));
            sampled_out += u32::from(*fate == Some(ErrorCode::RecordSampledOut));
            let quiet = [Some(ErrorCode::RecordDropped), Some(ErrorCode::RecordSampledOut)];
            let told = fate.filter(|_| tell || !quiet.contains(fate));
            match (&mut last, told) {
                (Some((code, _, count)), Some(told)) if *code == told => *count += 1,
                (_, told) => push(std::mem::replace(&mut last, told.map(|code| (code, index, 1)))),
            }
        }
        push(last);
        (parts.dropped, parts.sampled_out) = (dropped, sampled_out);
        Box::new(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_wire::{BatchBuilder, BatchView, ProducerStamp};

    fn batch(sizes: &[usize]) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for (i, size) in sizes.iter().enumerate() {
            builder.push(format!("key-{i}").as_bytes(), &[], &vec![1; *size], 5).unwrap();
        }
        builder.finish(ProducerStamp { id: 7, epoch: 0, sequence: 0 }).to_vec()
    }

    fn told(parts: &Parts) -> Vec<(u32, u32, u16)> {
        let run =
            |o: &RecordOutcome| (o.first.to_native(), o.count.to_native(), o.code.to_native());
        parts.outcomes.iter().map(run).collect()
    }

    #[test]
    fn what_does_not_fit_is_refused_from_there_on_or_dropped() {
        let bytes = batch(&[10; 6]);
        let body = BatchView::parse(&bytes).unwrap().body();
        let room = Demand { records: 4, bytes: u64::MAX };
        let mut refused = Fates::new(6);
        refused.limit(body, room, 0, false);
        let parts = refused.parts(false, 9);
        assert_eq!((parts.decided, parts.retry_after_ms), (4, 9));
        assert_eq!(told(&parts), [], "those put off are no news");
        assert_eq!(refused.demand(body).records, 4);
        assert_eq!(refused.rest(body).records, 2);
        let mut dropped = Fates::new(6);
        dropped.limit(body, room, 0, true);
        assert_eq!((dropped.decided(), dropped.parts(false, 0).dropped), (6, 2));
        assert_eq!(told(&dropped.parts(false, 0)), []);
        assert_eq!(told(&dropped.parts(true, 0)), [(4, 2, ErrorCode::RecordDropped as u16)]);
        let mut one = Fates::new(6);
        one.limit(body, Demand::default(), 1, false);
        assert_eq!((one.decided(), one.stored(0), one.stored(1)), (1, true, false));
    }

    #[test]
    fn faults_are_told_and_do_not_use_room() {
        let bytes = batch(&[10, 500, 10, 10]);
        let body = BatchView::parse(&bytes).unwrap().body();
        let mut fates = Fates::new(4);
        fates.find_faults(body, 100).unwrap();
        fates.limit(body, Demand { records: 2, bytes: u64::MAX }, 0, false);
        let parts = fates.parts(false, 1);
        assert_eq!(parts.decided, 3);
        assert_eq!(told(&parts), [(1, 1, ErrorCode::RecordTooLarge as u16)]);
    }

    #[test]
    fn a_retry_is_told_what_the_first_attempt_was() {
        let bytes = batch(&[10, 500, 10, 10, 10, 10, 10, 10]);
        let view = BatchView::parse(&bytes).unwrap();
        let claim = Claim { id: 7, epoch: 0, sequence: 0, records: 8 };
        let mut first = Fates::new(8);
        first.find_faults(view.body(), 100).unwrap();
        first.sample(view.body(), &claim, 500_000, SampleBy::Record);
        let stored = first.demand(view.body()).records as u32;
        let mut again = Fates::new(8);
        again.find_faults(view.body(), 100).unwrap();
        again.sample(view.body(), &claim, 500_000, SampleBy::Record);
        again.recall(8, stored);
        assert_eq!(again.parts(true, 0), first.parts(true, 0));
        // There was room for two beside the sample.
        let spare = Demand { records: 2, bytes: u64::MAX };
        first.fill(view.body(), Demand { records: 7, bytes: u64::MAX }, spare, 0);
        let more = first.demand(view.body()).records as u32;
        assert_eq!(more, (stored + 2).min(7));
        let mut again = Fates::new(8);
        again.find_faults(view.body(), 100).unwrap();
        again.sample(view.body(), &claim, 500_000, SampleBy::Record);
        again.recall(8, more);
        assert_eq!(again.parts(true, 0), first.parts(true, 0));
        // Dropped from the third stored on.
        let mut first = Fates::new(8);
        first.find_faults(view.body(), 100).unwrap();
        first.limit(view.body(), Demand { records: 2, bytes: u64::MAX }, 0, true);
        let mut again = Fates::new(8);
        again.find_faults(view.body(), 100).unwrap();
        again.recall(8, 2);
        assert_eq!(again.parts(true, 0), first.parts(true, 0));
    }
}
