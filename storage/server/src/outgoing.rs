//! What a connection has yet to send: small replies gathered into one buffer, delivered batches straight
//! from the log's buffers.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use highwater_engine::{Arrivals, Chunk, Slice};
use highwater_ring::SendBuf;
use highwater_wire::{Kind, crc32c, encode_bare_header, encode_frame_header};

/// Owned bytes gathered into one buffer before the next is begun.
const GATHER: usize = 16 << 10;

/// A control part made once for all who get it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    pub bytes: Arc<Vec<u8>>,
    /// Its CRC32C.
    crc: u32,
}

impl Common {
    pub fn new(bytes: Vec<u8>) -> Common {
        let crc = crc32c(&bytes);
        Common { bytes: Arc::new(bytes), crc }
    }
}

/// Bytes whose sending matters to somebody: a delivery.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Counted from the first byte of the connection: sent when this many have gone.
    end: u64,
    /// Correlation of the subscription; 0 for a fetch.
    subscription: u64,
    /// Sequence number after its last record.
    next: u64,
    /// Bytes of batches.
    bytes: usize,
    /// Capacity of the log buffers held.
    held: usize,
}

/// What has become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Correlation of the subscription; 0 for a fetch.
    pub subscription: u64,
    /// Sequence number after the last record sent.
    pub next: u64,
    /// Bytes of batches sent.
    pub bytes: usize,
    /// Capacity of the log buffers no longer held.
    pub held: usize,
}

/// Where records are on their way from the device to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In a reply.
    Ack,
    /// In a delivery.
    Deliver,
}

/// Records whose way to the socket is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub stage: Stage,
    /// Counted from the first byte of the connection: handed over when this many have gone.
    pub end: u64,
    /// When they became durable, monotonic nanoseconds.
    pub since_ns: u64,
    pub records: u64,
    /// Of what nobody will send a receipt for: when its batches arrived.
    pub arrivals: Option<Arrivals>,
}

impl Way {
    /// Of a delivery; what it carries and since when is to be said.
    pub fn delivery(arrivals: Option<Arrivals>) -> Way {
        Way { stage: Stage::Deliver, end: 0, since_ns: 0, records: 0, arrivals }
    }
}

/// What is queued on all connections of a core.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    /// Memory for it, bytes.
    most: usize,
    bytes: Cell<usize>,
    pressed: Cell<bool>,
}

impl Queued {
    /// Nothing yet, of `most` bytes.
    pub fn new(most: usize) -> Queued {
        Queued { most, ..Queued::default() }
    }

    /// Bytes above which the core is pressed: nothing is granted, fetches are refused, and peers' requests are
    /// only read while little is queued for them. What was granted before comes on top.
    pub fn bound(&self) -> usize {
        self.most / 2
    }

    /// Whether nothing more may be queued, but for a peer that has nothing.
    pub fn spent(&self) -> bool {
        self.bytes.get() > self.most
    }

    /// Counts bytes.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() > self.bound() {
            self.pressed.set(true);
        }
    }

    /// Counts them no more.
    pub fn subtract(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Whether there is too much.
    pub fn pressed(&self) -> bool {
        self.pressed.get()
    }

    /// Ends the pressure once a good part has gone; true if that was now.
    pub fn relieved(&self) -> bool {
        let over = self.pressed.get() && self.bytes.get() <= self.bound() / 4 * 3;
        if over {
            self.pressed.set(false);
        }
        over
    }
}

/// The queue of one connection; bounded by whoever fills it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    core: Rc<Queued>,
    queue: VecDeque<SendBuf>,
    /// Bytes pushed and not yet sent, those being written included.
    bytes: usize,
    pushed: u64,
    sent: u64,
    marks: VecDeque<Mark>,
    ways: VecDeque<Way>,
}

impl Outgoing {
    /// An empty queue whose bytes count for its core.
    pub fn new(core: Rc<Queued>) -> Outgoing {
        Outgoing { core, ..Outgoing::default() }
    }

    /// Bytes pushed and not yet sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A frame without data, or one whose `data_len` bytes of data are pushed next.
    pub fn push_frame(&mut self, kind: Kind, correlation: u64, control: &[u8], data_len: usize) {
        let before;
        match self.queue.back_mut() {
            Some(SendBuf::Owned(last)) if last.len() + control.len() < GATHER => {
                before = last.len();
                encode_frame_header(last, kind, correlation, control, data_len);
                let added = last.len() - before;
                self.count(added);
            }
            _ => {
                let mut buf = Vec::new();
                encode_frame_header(&mut buf, kind, correlation, control, data_len);
                self.count(buf.len());
                self.queue.push_back(SendBuf::Owned(buf));
            }
        }
    }

    /// A frame whose control part others get as well.
    pub fn push_common(&mut self, kind: Kind, correlation: u64, control: &Common) {
        let mut header = Vec::new();
        encode_bare_header(&mut header, kind, correlation, control.bytes.len(), control.crc);
        self.count(header.len() + control.bytes.len());
        self.queue.push_back(SendBuf::Owned(header));
        self.queue.push_back(SendBuf::Common { bytes: Arc::clone(&control.bytes), start: 0 });
    }

    /// Data of the frame pushed last.
    pub fn push_data(&mut self, data: &[u8]) {
        if let Some(SendBuf::Owned(last)) = self.queue.back_mut() {
            last.extend_from_slice(data);
            self.count(data.len());
        }
    }

    /// A frame with batches. With `share`, the log's buffers are held until sent, otherwise copied. Returns
    /// the capacity held.
    pub fn push_chunk(
        &mut self,
        kind: Kind,
        correlation: u64,
        control: &[u8],
        chunk: Chunk,
        share: bool,
    ) -> usize {
        let bytes: usize = chunk.slices.iter().map(|slice| slice.end - slice.start).sum();
        self.push_frame(kind, correlation, control, bytes);
        let held = if share { chunk.capacity() } else { 0 };
        if share {
            for Slice { buf, start, end } in chunk.slices {
                self.queue.push_back(SendBuf::shared(buf, start, end));
            }
        } else {
            let mut copy = Vec::with_capacity(bytes);
            chunk.slices.iter().for_each(|slice| copy.extend_from_slice(slice.bytes()));
            self.queue.push_back(SendBuf::Owned(copy));
        }
        self.count(bytes);
        let subscription = if kind == Kind::Deliver { correlation } else { 0 };
        self.marks.push_back(Mark {
            end: self.pushed,
            subscription,
            next: chunk.next,
            bytes,
            held,
        });
        held
    }

    /// A frame with batches that a filter found.
    pub fn push_found(
        &mut self,
        kind: Kind,
        correlation: u64,
        control: &[u8],
        data: Vec<u8>,
        next: u64,
    ) {
        let bytes = data.len();
        self.push_frame(kind, correlation, control, bytes);
        self.queue.push_back(SendBuf::Owned(data));
        self.count(bytes);
        let subscription = if kind == Kind::DeliverFiltered { correlation } else { 0 };
        self.marks.push_back(Mark { end: self.pushed, subscription, next, bytes, held: 0 });
    }

    /// The reply pushed last answers for `records`, durable since `since_ns`. Replies of one turn count as one.
    pub fn note_reply(&mut self, since_ns: u64, records: u64) {
        if records == 0 {
            return;
        }
        let (stage, end) = (Stage::Ack, self.pushed);
        match self.ways.back_mut() {
            Some(last) if (last.stage, last.since_ns) == (stage, since_ns) => {
                (last.end, last.records) = (end, last.records + records);
            }
            _ => self.ways.push_back(Way { stage, end, since_ns, records, arrivals: None }),
        }
    }

    /// The delivery pushed last carries `records` for a reader that had caught up.
    pub fn note_delivery(&mut self, since_ns: u64, records: u64, arrivals: Option<Arrivals>) {
        let (stage, end) = (Stage::Deliver, self.pushed);
        self.ways.push_back(Way { stage, end, since_ns, records, arrivals });
    }

    /// Whether [`Outgoing::passed`] has something to say.
    pub fn has_passed(&self) -> bool {
        self.ways.front().is_some_and(|way| way.end <= self.sent)
    }

    /// What has been handed over since the last time.
    pub fn passed(&mut self) -> impl Iterator<Item = Way> + '_ {
        std::iter::from_fn(|| self.ways.pop_front_if(|way| way.end <= self.sent))
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.core.add(bytes);
        self.pushed += bytes as u64;
    }

    /// Moves buffers to `into` for one write: at most `max_bufs`, and no more once `max_bytes` are there.
    pub fn take(&mut self, max_bufs: usize, max_bytes: usize, into: &mut Vec<SendBuf>) {
        let mut bytes = 0;
        while into.len() < max_bufs && bytes < max_bytes {
            let Some(buf) = self.queue.pop_front() else { break };
            // A zero-length element would only use up a place.
            if !buf.is_empty() {
                bytes += buf.len();
                into.push(buf);
            }
        }
    }

    /// Notes that `n` bytes more have gone; the deliveries completed by that.
    pub fn sent(&mut self, n: usize) -> impl Iterator<Item = Sent> + '_ {
        self.core.subtract(n.min(self.bytes));
        self.bytes -= n.min(self.bytes);
        self.sent += n as u64;
        std::iter::from_fn(move || {
            let mark = self.marks.pop_front_if(|mark| mark.end <= self.sent)?;
            let Mark { subscription, next, bytes, held, .. } = mark;
            Some(Sent { subscription, next, bytes, held })
        })
    }

    /// Drops everything; the capacity of log buffers no longer held.
    pub fn clear(&mut self) -> usize {
        self.queue.clear();
        self.ways.clear();
        self.core.subtract(std::mem::take(&mut self.bytes));
        self.marks.drain(..).map(|mark| mark.held).sum()
    }
}

/// Drops the first `n` bytes of `bufs` after a short write.
pub(crate) fn advance(bufs: &mut Vec<SendBuf>, mut n: usize) {
    let whole = bufs
        .iter()
        .take_while(|buf| {
            let done = buf.len() <= n;
            if done {
                n -= buf.len();
            }
            done
        })
        .count();
    bufs.drain(..whole);
    if let Some(first) = bufs.first_mut() {
        first.advance(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_ring::AlignedBuf;
    use highwater_wire::{Decoded, decode_frame};

    fn chunk(bytes: usize) -> Chunk {
        let buf = AlignedBuf::alloc(4096).freeze();
        let slices = vec![Slice { buf, start: 8, end: 8 + bytes }];
        Chunk { slices, bytes, next: 5, ..Chunk::default() }
    }

    #[test]
    fn small_replies_share_a_buffer() {
        let mut out = Outgoing::default();
        for i in 0..10 {
            out.push_frame(Kind::AppendReply, i, &[0; 24], 0);
        }
        let mut bufs = Vec::new();
        out.take(1024, 1 << 20, &mut bufs);
        assert_eq!((bufs.len(), bufs[0].len(), out.bytes()), (1, 560, 560));
        assert_eq!(out.sent(560).count(), 0);
        assert_eq!(out.bytes(), 0);
    }

    #[test]
    fn what_many_get_is_a_frame_like_any_other_and_lies_there_once() {
        let common = Common::new(vec![7; 5_000]);
        let mut out = Outgoing::default();
        out.push_frame(Kind::AppendReply, 1, &[0; 24], 0);
        out.push_common(Kind::ControlReply, 9, &common);
        let mut bufs = Vec::new();
        out.take(1024, 1 << 20, &mut bufs);
        let bytes: Vec<u8> = bufs.iter().flat_map(SendBuf::as_slice).copied().collect();
        assert_eq!((bytes.len(), out.bytes()), (56 + 32 + 5_000, bytes.len()));
        let Ok(Decoded::Frame(frame, _)) = decode_frame(&bytes[56..], 1 << 20) else { panic!() };
        assert_eq!((frame.correlation, frame.control), (9, common.bytes.as_slice()));
        assert_eq!(Arc::strong_count(&common.bytes), 2);
    }

    #[test]
    fn deliveries_are_told_when_their_last_byte_went() {
        let mut out = Outgoing::default();
        assert_eq!(out.push_chunk(Kind::Deliver, 7, &[0; 24], chunk(100), true), 4096);
        assert_eq!(out.push_chunk(Kind::FetchReply, 8, &[0; 24], chunk(50), false), 0);
        let total = 2 * (32 + 24) + 150;
        assert_eq!(out.bytes(), total);
        assert_eq!(out.sent(56 + 99).count(), 0);
        let sent: Vec<Sent> = out.sent(1).collect();
        assert_eq!(sent, [Sent { subscription: 7, next: 5, bytes: 100, held: 4096 }]);
        let sent: Vec<Sent> = out.sent(106).collect();
        assert_eq!(sent, [Sent { subscription: 0, next: 5, bytes: 50, held: 0 }]);
        assert_eq!(out.bytes(), 0);
    }

    #[test]
    fn replies_of_one_turn_are_measured_when_the_last_has_gone() {
        let mut out = Outgoing::default();
        for (correlation, since_ns) in [(1, 50), (2, 50), (3, 90)] {
            out.push_frame(Kind::AppendReply, correlation, &[0; 24], 0);
            out.note_reply(since_ns, 10);
        }
        assert_eq!(out.sent(56).count(), 0);
        assert!(!out.has_passed());
        assert_eq!(out.sent(60).count(), 0);
        let way = Way { stage: Stage::Ack, end: 112, since_ns: 50, records: 20, arrivals: None };
        assert_eq!(out.passed().collect::<Vec<_>>(), [way]);
        assert!(!out.has_passed());
        assert_eq!(out.sent(52).count(), 0);
        assert_eq!(out.passed().map(|way| way.records).sum::<u64>(), 10);
    }

    #[test]
    fn a_core_is_pressed_until_a_good_part_has_gone() {
        const BOUND: usize = 1 << 20;
        let core = Rc::new(Queued::new(2 * BOUND));
        let mut out = Outgoing::new(Rc::clone(&core));
        let mut other = Outgoing::new(Rc::clone(&core));
        other.count(BOUND - 50);
        assert!(!core.pressed());
        out.push_frame(Kind::AppendReply, 1, &[0; 24], 0);
        assert!(core.pressed() && !core.relieved());
        out.clear();
        assert!(!core.relieved(), "not back and forth at the bound");
        assert_eq!(other.sent(BOUND / 4).count(), 0);
        assert!(core.relieved() && !core.pressed() && !core.relieved());
        other.clear();
        assert_eq!(core.bytes(), 0);
    }

    #[test]
    fn clearing_gives_back_what_is_held() {
        let mut out = Outgoing::default();
        out.push_chunk(Kind::Deliver, 7, &[0; 24], chunk(100), true);
        out.push_chunk(Kind::Deliver, 7, &[0; 24], chunk(100), true);
        assert_eq!(out.clear(), 8192);
        assert_eq!(out.bytes(), 0);
    }

    #[test]
    fn a_buffer_with_several_blocks_is_held_once() {
        let buf = AlignedBuf::alloc(4096).freeze();
        let slice = |start, end| Slice { buf: buf.clone(), start, end };
        let slices = vec![slice(0, 8), slice(16, 24), chunk(8).slices.remove(0)];
        let chunk = Chunk { slices, bytes: 24, ..Chunk::default() };
        let mut out = Outgoing::default();
        assert_eq!(out.push_chunk(Kind::Deliver, 7, &[0; 24], chunk, true), 8192);
        assert_eq!(out.clear(), 8192);
    }

    #[test]
    fn a_short_write_leaves_the_rest() {
        let owned = |n: usize| SendBuf::Owned((0..n as u8).collect());
        let mut bufs = vec![owned(10), owned(5), owned(5)];
        advance(&mut bufs, 12);
        assert_eq!(bufs.iter().map(SendBuf::len).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(bufs[0].as_slice(), [2, 3, 4]);
        advance(&mut bufs, 8);
        assert!(bufs.is_empty());
    }
}
