//! A shard of the small server: batches, and what was said of each.

use std::collections::HashMap;

use highwater_wire::*;

#[derive(Default)]
pub struct Shard {
    /// Stamped batches, with the sequence number of the first record.
    pub batches: Vec<(u64, Vec<u8>)>,
    pub next: u64,
    pub oldest: u64,
    pub closed: bool,
    /// Records dropped.
    pub dropped: u64,
    pub parents: Vec<u32>,
    /// Its range, both ends included.
    pub range: (u128, u128),
    /// By producer: epoch, the sequence expected, and what was said of each of its batches.
    pub(super) producers: HashMap<u64, (u32, u64, HashMap<u64, Said>)>,
}

impl Shard {
    /// Keys and payloads, in order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut plain = Vec::new();
        for (_, bytes) in &self.batches {
            let batch = BatchView::parse(bytes).unwrap();
            Unpacker::default().unpack_batch(&batch, u32::MAX, &mut plain).unwrap();
        }
        let batches = BatchIter::new(&plain).map(Result::unwrap);
        batches.flat_map(|b| b.records()).map(|r| (r.key.to_vec(), r.payload.to_vec())).collect()
    }

    pub(super) fn store(&mut self, mut bytes: Vec<u8>, arrival_ns: u64) -> u64 {
        let base = self.next;
        stamp(&mut bytes, base, arrival_ns, 1);
        self.next += u64::from(BatchView::parse(&bytes).unwrap().record_count());
        self.batches.push((base, bytes));
        base
    }

    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        expected: u64,
        limit: Option<u32>,
        dropped: Option<u32>,
        arrival_ns: u64,
    ) -> Result<Said, WireError> {
        let batch = BatchView::parse(bytes).unwrap();
        let mut body = Vec::new();
        batch.check_outside(&Limits::default()).unwrap();
        Unpacker::default().unpack_into(&batch, Limits::default().max_batch, &mut body).unwrap();
        batch.check_inside(&body, &Limits::default()).unwrap();
        let header = batch.header();
        let (id, sequence) = (header.producer_id.to_native(), header.producer_sequence.to_native());
        let epoch = header.producer_epoch.to_native();
        let known = self.producers.get(&id).filter(|_| id != 0);
        if let Some((newest, ..)) = known
            && epoch < *newest
        {
            let error = WireError::new(ErrorCode::ProducerFenced, "fenced");
            return Err(error.detail(u64::from(*newest)));
        }
        let known = known.filter(|(newest, ..)| *newest == epoch);
        if let Some(said) = known.and_then(|(.., known)| known.get(&sequence)) {
            return Ok(*said);
        }
        if self.closed {
            return Err(WireError::new(ErrorCode::ShardClosed, "closed"));
        }
        let next = known.map_or(0, |(_, next, _)| *next);
        if id != 0 && sequence != next {
            return Err(WireError::new(ErrorCode::OutOfSequence, "gap").detail(next));
        }
        if expected != ANY_SEQUENCE && expected != self.next {
            return Err(WireError::new(ErrorCode::SequenceMismatch, "taken").detail(self.next));
        }
        let decided = limit.map_or(batch.record_count(), |limit| limit.min(batch.record_count()));
        let dropped = dropped.filter(|at| *at < decided);
        let kept = |at: u32| at < decided && Some(at) != dropped;
        let base = self.next;
        let stored = decided - u32::from(dropped.is_some());
        if stored == batch.record_count() {
            self.store(bytes.to_vec(), arrival_ns);
        } else {
            self.store(select::cut(header, &body, decided, kept), arrival_ns);
        }
        let said = Said { base, stored, decided, dropped };
        self.dropped += u64::from(dropped.is_some());
        if id != 0 && decided > 0 {
            let known = self.producers.entry(id).or_default();
            if known.0 != epoch {
                *known = (epoch, 0, HashMap::new());
            }
            known.1 = sequence + u64::from(decided);
            known.2.insert(sequence, said);
        }
        Ok(said)
    }
}

/// A reply to an append: where, how many were stored and decided, and which record was dropped.
#[derive(Clone, Copy)]
pub(super) struct Said {
    base: u64,
    stored: u32,
    decided: u32,
    dropped: Option<u32>,
}

impl Said {
    pub fn encode(&self, id: u64, arrival_ns: u64, records: u32) -> Vec<u8> {
        let mut reply = AppendReply::whole(self.base, arrival_ns, self.stored, false);
        reply.decided = self.decided.into();
        reply.dropped = u32::from(self.dropped.is_some()).into();
        reply.retry_after_ms = u32::from(self.decided < records).into();
        let code = ErrorCode::RecordDropped as u16;
        let outcome = self.dropped.map(|at| RecordOutcome {
            first: at.into(),
            count: 1.into(),
            code: code.into(),
            reserved: 0.into(),
        });
        let data: Vec<u8> = outcome.iter().flat_map(RecordOutcome::to_array).collect();
        let mut out = Vec::new();
        encode_frame(&mut out, Kind::AppendReply, id, &reply.to_array(), &data);
        out
    }
}
