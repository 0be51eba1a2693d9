//! What a subscription with a filter is at: what was read for it, whose turn it is, and what its consumer has been told.
//! Pure.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use highwater_wire::{DeliverHeader, ErrorCode, FilterCounts, FilterTally, ShardId, WireError};

use super::{Found, Lot, Program, Span, Turn, Whose};
use crate::options::bounds::FILTER_UNHEARD;
use crate::outgoing::Queued;

/// Memory that is accounted for until this is dropped: bytes that count as queued for clients, and log buffers held.
#[derive(Debug)]
pub(crate) struct Kept {
    queued: Rc<Queued>,
    held: Rc<Cell<usize>>,
    bytes: usize,
    capacity: usize,
}

impl Kept {
    /// Of a core's accounts.
    pub fn new(queued: &Rc<Queued>, held: &Rc<Cell<usize>>, bytes: usize, capacity: usize) -> Kept {
        queued.add(bytes);
        held.set(held.get() + capacity);
        Kept { queued: Rc::clone(queued), held: Rc::clone(held), bytes, capacity }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.queued.subtract(self.bytes);
        self.held.set(self.held.get().saturating_sub(self.capacity));
    }
}

/// What its consumer is told, beside batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub next: u64,
    pub high_water: u64,
    /// Since the frame before.
    pub tally: FilterTally,
}

impl Frame {
    /// The control part of a frame that goes at this time, nanoseconds since 1970 UTC.
    pub fn control(&self, sent_ns: u64) -> [u8; DeliverHeader::LEN + FilterCounts::LEN] {
        let header = DeliverHeader {
            high_water: self.high_water.into(),
            next: self.next.into(),
            sent_ns: sent_ns.into(),
        };
        let mut control = [0; DeliverHeader::LEN + FilterCounts::LEN];
        control[..DeliverHeader::LEN].copy_from_slice(&header.to_array());
        control[DeliverHeader::LEN..].copy_from_slice(&self.tally.to_array());
        control
    }
}

/// The state of one subscription.
#[derive(Debug)]
pub(crate) struct Filtering {
    pub shard: ShardId,
    /// Most bytes of one delivery.
    pub most: usize,
    /// Once it is compiled.
    program: Option<Arc<Program>>,
    /// Still to be looked at.
    span: Span,
    /// Read and not looked at to the end, in order.
    lots: VecDeque<(Lot, Kept)>,
    /// The accounts of the lot that a filter thread has, and of what may be found in it.
    out: Option<[Kept; 2]>,
    /// It is listed for a turn.
    listed: bool,
    /// The mark when records were last read.
    high_water: u64,
    /// Since the last frame.
    tally: FilterTally,
    /// `next` of the last frame.
    told: u64,
    /// Frames without batches that it was sent since it was last heard of: they use no credit, and have this bound.
    unheard: u32,
    /// It has not been at the mark since it was last told that it is.
    behind: bool,
    /// Why it ends, once what was read is looked at.
    over: Option<WireError>,
}

impl Filtering {
    /// Nothing yet; deliveries have at most `most` bytes.
    pub fn new(shard: ShardId, span: Span, most: usize) -> Filtering {
        Filtering {
            shard,
            most,
            program: None,
            span,
            lots: VecDeque::new(),
            out: None,
            listed: false,
            high_water: 0,
            tally: FilterTally::default(),
            told: span.next,
            unheard: 0,
            behind: true,
            over: None,
        }
    }

    /// Its filter is compiled.
    pub fn begin(&mut self, program: Arc<Program>) {
        self.program = Some(program);
    }

    /// Whether anything is to be read for it.
    pub fn reads(&self) -> bool {
        self.program.is_some() && !self.at_end() && self.over.is_none()
    }

    fn at_end(&self) -> bool {
        self.span.next >= self.span.until
    }

    fn idle(&self) -> bool {
        self.lots.is_empty() && self.out.is_none()
    }

    /// Something was read. Gives it back where nothing more is wanted.
    pub fn hold(&mut self, lot: Lot, kept: Kept) -> Option<Lot> {
        if self.at_end() {
            return Some(lot);
        }
        self.lots.push_back((lot, kept));
        None
    }

    /// Whether it should be listed for a turn; it is from then on.
    pub fn lists(&mut self) -> bool {
        let lists = !self.listed && self.out.is_none() && !self.lots.is_empty();
        self.listed |= lists;
        lists
    }

    /// A turn in which `room` bytes may be found, which `reserved` stands for; `None`: there is nothing to look at, or no
    /// room.
    pub fn turn(
        &mut self,
        whose: Whose,
        room: usize,
        max_batch: u32,
        reserved: impl FnOnce() -> Kept,
    ) -> Option<Turn> {
        self.listed = false;
        if room == 0 || self.out.is_some() {
            return None;
        }
        let program = Arc::clone(self.program.as_ref()?);
        let (lot, kept) = self.lots.pop_front()?;
        self.out = Some([kept, reserved()]);
        Some(Turn { whose, program, lot, span: self.span, room, max_batch })
    }

    /// Its turn is over; bytes of lots that are done with.
    pub fn turned(&mut self, lot: Lot, found: &Found) -> usize {
        self.span = found.span;
        self.tally.add(&found.tally);
        self.high_water = self.high_water.max(lot.high_water);
        let kept = self.out.take();
        if self.at_end() {
            let rest: usize = self.lots.drain(..).map(|(lot, _)| lot.bytes).sum();
            return lot.bytes + rest;
        }
        match kept {
            Some([kept, _]) if !found.finished => {
                self.lots.push_front((lot, kept));
                0
            }
            _ => lot.bytes,
        }
    }

    /// What its consumer has to hear at once: that records were `found`, and that the mark, or the end, was reached.
    pub fn news(&mut self, found: bool) -> Option<Frame> {
        let caught_up = self.span.next >= self.high_water;
        let reached = (caught_up && self.behind) || (self.at_end() && self.told < self.span.next);
        self.behind = !caught_up;
        if found {
            return Some(self.tell());
        }
        if reached { self.progress() } else { None }
    }

    /// What it has not heard, if there is anything, and it was heard of.
    pub fn progress(&mut self) -> Option<Frame> {
        let untold = self.span.next > self.told || self.tally.looked > 0;
        if !untold || self.unheard >= FILTER_UNHEARD {
            return None;
        }
        self.unheard += 1;
        Some(self.tell())
    }

    /// Its consumer was heard of.
    pub fn heard(&mut self) {
        self.unheard = 0;
    }

    /// What it has not heard by its end.
    pub fn last_words(&mut self) -> Option<Frame> {
        self.unheard = 0;
        self.progress()
    }

    fn tell(&mut self) -> Frame {
        self.told = self.span.next;
        let tally = std::mem::take(&mut self.tally);
        Frame { next: self.span.next, high_water: self.high_water, tally }
    }

    /// Reading has ended. Whether that has to wait until what was read is looked at: it does not where the reader has lost
    /// its right to it, or the server stops.
    pub fn ends_later(&mut self, error: &WireError) -> bool {
        let now = matches!(error.code, ErrorCode::LeaseLost | ErrorCode::Unavailable);
        let later = !now && !self.idle();
        if later {
            self.over = Some(error.clone());
        }
        later
    }

    /// Why it ends now, if it does.
    pub fn ends(&mut self) -> Option<WireError> {
        if self.idle() { self.over.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::{Chunk, ReaderId};

    const SHARD: ShardId = ShardId { stream: 1, shard: 0 };
    const WHOSE: Whose = Whose::Subscription(ReaderId(1));

    struct Accounts {
        queued: Rc<Queued>,
        held: Rc<Cell<usize>>,
    }

    impl Accounts {
        fn new() -> Accounts {
            Accounts { queued: Rc::new(Queued::new(1 << 20)), held: Rc::default() }
        }

        fn kept(&self, bytes: usize, capacity: usize) -> Kept {
            Kept::new(&self.queued, &self.held, bytes, capacity)
        }
    }

    fn filtering(until: u64) -> Filtering {
        let span = Span { next: 0, since_ns: 0, until };
        let mut filtering = Filtering::new(SHARD, span, 1_000);
        assert!(!filtering.reads(), "it is not compiled");
        filtering.begin(Arc::new(Program::compile("true", 1).unwrap()));
        assert!(filtering.reads());
        filtering
    }

    /// A lot up to `next` of 100 bytes.
    fn hold(filtering: &mut Filtering, accounts: &Accounts, next: u64, high_water: u64) {
        let chunk = Chunk { bytes: 100, next, high_water, ..Chunk::default() };
        let (lot, _) = Lot::of(chunk, true);
        assert!(filtering.hold(lot, accounts.kept(100, 4096)).is_none());
    }

    /// Has a turn that looks at records up to `next` and finds `matched` of them; bytes done with.
    fn turn(filtering: &mut Filtering, accounts: &Accounts, next: u64, matched: u64) -> usize {
        let turn = filtering.turn(WHOSE, 50, 1 << 20, || accounts.kept(50, 0)).unwrap();
        let looked = next - turn.span.next;
        let tally = FilterTally { looked, matched, ..FilterTally::default() };
        let found = Found {
            data: Vec::new(),
            tally,
            arrivals: None,
            span: Span { next, ..turn.span },
            finished: next >= turn.lot.next,
            flaw: None,
        };
        filtering.turned(turn.lot, &found)
    }

    #[test]
    fn turns_are_one_at_a_time_and_in_order() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(u64::MAX));
        assert!(!filtering.lists());
        hold(&mut filtering, &accounts, 10, 30);
        hold(&mut filtering, &accounts, 30, 30);
        assert!(filtering.lists() && !filtering.lists(), "listed once");
        assert!(filtering.turn(WHOSE, 0, 1, || accounts.kept(0, 0)).is_none(), "no room");
        assert!(filtering.lists());
        let first = filtering.turn(WHOSE, 50, 1, || accounts.kept(50, 0)).unwrap();
        assert_eq!((accounts.queued.bytes(), accounts.held.get()), (250, 8192));
        assert!(!filtering.lists());
        assert!(filtering.turn(WHOSE, 50, 1, || accounts.kept(50, 0)).is_none());
        drop(filtering);
        assert_eq!((accounts.queued.bytes(), accounts.held.get(), first.lot.next), (0, 0, 10));
    }

    #[test]
    fn a_lot_is_gone_on_with_until_it_is_finished() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(u64::MAX));
        hold(&mut filtering, &accounts, 10, 20);
        hold(&mut filtering, &accounts, 20, 20);
        assert_eq!(turn(&mut filtering, &accounts, 4, 1), 0);
        assert_eq!(filtering.news(true).map(|f| (f.next, f.tally.looked)), Some((4, 4)));
        assert_eq!(turn(&mut filtering, &accounts, 10, 0), 100);
        assert_eq!(filtering.news(false), None, "nothing found, and not at the mark");
        assert_eq!(turn(&mut filtering, &accounts, 20, 0), 100);
        let frame = filtering.news(false).unwrap();
        assert_eq!((frame.next, frame.high_water, frame.tally.looked), (20, 20, 16));
        assert_eq!((accounts.queued.bytes(), accounts.held.get()), (0, 0));
    }

    #[test]
    fn the_mark_is_told_at_once_when_it_is_reached_and_then_by_and_by() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(u64::MAX));
        assert_eq!(filtering.progress(), None);
        for next in 1..5 {
            hold(&mut filtering, &accounts, next, next);
            turn(&mut filtering, &accounts, next, 0);
            assert_eq!(filtering.news(false).is_some(), next == 1);
        }
        let frame = filtering.progress().unwrap();
        assert_eq!((frame.next, frame.tally.looked, frame.tally.matched), (4, 3, 0));
        assert_eq!(filtering.progress(), None);
        // Behind again, and at the mark again.
        hold(&mut filtering, &accounts, 8, 9);
        turn(&mut filtering, &accounts, 8, 0);
        assert_eq!(filtering.news(false), None);
        hold(&mut filtering, &accounts, 9, 9);
        turn(&mut filtering, &accounts, 9, 0);
        assert_eq!(filtering.news(false).map(|frame| frame.next), Some(9));
    }

    #[test]
    fn who_is_not_heard_of_is_not_flooded_and_misses_no_count() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(u64::MAX));
        let mut told = 0;
        for next in 1..=200 {
            hold(&mut filtering, &accounts, next, next);
            turn(&mut filtering, &accounts, next, 0);
            told += filtering.progress().map_or(0, |frame| frame.tally.looked);
        }
        assert_eq!(told, u64::from(FILTER_UNHEARD));
        filtering.heard();
        assert_eq!(filtering.progress().map(|frame| told + frame.tally.looked), Some(200));
        // What matches has its credit.
        for next in 201..=400 {
            hold(&mut filtering, &accounts, next, next);
            turn(&mut filtering, &accounts, next, 1);
            assert_eq!(filtering.news(true).map(|frame| frame.next), Some(next));
        }
    }

    #[test]
    fn at_its_end_everything_else_is_dropped() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(15));
        hold(&mut filtering, &accounts, 20, 50);
        hold(&mut filtering, &accounts, 30, 50);
        assert_eq!(turn(&mut filtering, &accounts, 15, 2), 200);
        assert!(!filtering.reads() && !filtering.lists());
        assert_eq!(filtering.news(false).map(|f| (f.next, f.tally.matched)), Some((15, 2)));
        assert_eq!(filtering.news(false), None);
        let (lot, _) = Lot::of(Chunk { bytes: 7, next: 40, ..Chunk::default() }, true);
        assert_eq!(filtering.hold(lot, accounts.kept(7, 0)).map(|lot| lot.bytes), Some(7));
        assert_eq!((accounts.queued.bytes(), accounts.held.get()), (0, 0));
    }

    #[test]
    fn an_end_waits_for_what_was_read_unless_the_right_to_it_is_gone() {
        let (accounts, mut filtering) = (Accounts::new(), filtering(u64::MAX));
        let ended = WireError::new(ErrorCode::ShardEnded, "").detail(10);
        assert!(!filtering.ends_later(&ended), "there is nothing to wait for");
        hold(&mut filtering, &accounts, 10, 10);
        assert!(!filtering.ends_later(&WireError::new(ErrorCode::LeaseLost, "")));
        assert!(filtering.ends_later(&ended) && !filtering.reads());
        assert_eq!(filtering.ends(), None);
        turn(&mut filtering, &accounts, 10, 0);
        assert_eq!(filtering.ends(), Some(ended));
    }

    #[test]
    fn a_frame_is_a_header_and_its_counts() {
        let tally = FilterTally { looked: 9, matched: 4, ..FilterTally::default() };
        let control = Frame { next: 3, high_water: 5, tally }.control(77);
        let header = DeliverHeader::view(&control).unwrap();
        assert_eq!((header.next.to_native(), header.high_water.to_native()), (3, 5));
        let counts = FilterCounts::view(&control[DeliverHeader::LEN..]).unwrap();
        assert_eq!((FilterTally::from(counts), header.sent_ns.to_native()), (tally, 77));
    }
}
