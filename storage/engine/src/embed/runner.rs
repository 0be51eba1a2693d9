//! The thread of one core: requests in, answers out, each exactly once.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use highwater_ring::UringDisk;
use highwater_wire::ShardId;

use super::{Clock, Idle};
use crate::core::{Core, CoreCommand};
use crate::shard::ReadRequest;
use crate::types::{AppendError, Appended, Chunk, Located, Output, ReadError, Start};

/// Reads that may wait in one core.
const READS: usize = 4096;

/// How often an append that waits for memory is tried.
const HOLD_STEP: Duration = Duration::from_millis(2);

/// What a core is asked.
pub enum Message {
    /// Store a batch.
    Append { shard: ShardId, batch: Vec<u8>, answer: Answer<Appended, AppendError> },
    /// Read, with a long poll; the request's deadline is `wait` from its arrival.
    Read { shard: ShardId, request: ReadRequest, wait: Duration, answer: Answer<Chunk, ReadError> },
    /// Turn a start into a sequence number.
    Locate { shard: ShardId, start: Start, answer: Answer<Located, ReadError> },
    /// From the control plane.
    Command(Box<CoreCommand>),
    /// Stop gracefully.
    Stop,
}

impl Message {
    /// Nobody will be answered; the batch, if it brought one.
    pub fn forget(self) -> Option<Vec<u8>> {
        match self {
            Message::Append { answer, batch, .. } => {
                answer.forget();
                return Some(batch);
            }
            Message::Read { answer, .. } => answer.forget(),
            Message::Locate { answer, .. } => answer.forget(),
            Message::Command(_) | Message::Stop => {}
        }
        None
    }
}

/// Where an answer goes. Dropped without one (the core has ended), it gives the error for that.
pub struct Answer<T, E> {
    way: Option<Way<T, E>>,
    gone: fn() -> E,
}

enum Way<T, E> {
    /// Someone waits at the other end; gone, they see it from the closed channel.
    Reply(SyncSender<Result<T, E>>),
    Call(Box<dyn FnOnce(Result<T, E>) + Send>),
}

impl<T, E> Answer<T, E> {
    /// To someone who waits.
    pub fn reply(sender: SyncSender<Result<T, E>>, gone: fn() -> E) -> Answer<T, E> {
        Answer { way: Some(Way::Reply(sender)), gone }
    }

    /// By a call.
    pub fn call(then: impl FnOnce(Result<T, E>) + Send + 'static, gone: fn() -> E) -> Answer<T, E> {
        Answer { way: Some(Way::Call(Box::new(then))), gone }
    }

    /// Gives it.
    pub fn give(mut self, result: Result<T, E>) {
        match self.way.take() {
            // Whoever asked may have stopped waiting.
            Some(Way::Reply(sender)) => drop(sender.send(result)),
            Some(Way::Call(then)) => then(result),
            None => {}
        }
    }

    fn forget(mut self) {
        self.way = None;
    }
}

impl<T, E> Drop for Answer<T, E> {
    fn drop(&mut self) {
        if let Some(Way::Call(then)) = self.way.take() {
            then(Err((self.gone)()));
        }
    }
}

enum Waiter {
    Append(Answer<Appended, AppendError>),
    Read(Answer<Chunk, ReadError>),
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Drives one core on its own thread.
pub struct Runner {
    core: Core<UringDisk>,
    mailbox: Receiver<Message>,
    idle: Idle,
    hold: Duration,
    clock: Clock,
    waiters: Vec<Option<Waiter>>,
    free: Vec<usize>,
    /// Reads among the waiters.
    reads: usize,
    outputs: Vec<Output>,
    /// An append the core had no memory for: it waits here, and the mailbox behind it, for a while.
    held: Option<(Message, Instant)>,
}

impl Runner {
    pub fn new(
        core: Core<UringDisk>,
        mailbox: Receiver<Message>,
        idle: Idle,
        hold: Duration,
        clock: Clock,
    ) -> Runner {
        Runner {
            core,
            mailbox,
            idle,
            hold,
            clock,
            waiters: Vec::new(),
            free: Vec::new(),
            reads: 0,
            outputs: Vec::new(),
            held: None,
        }
    }

    /// Until the core has stopped or failed.
    pub fn run(mut self) {
        let mut idle_since = Instant::now();
        loop {
            let mut busy = false;
            if let Some((message, since)) = self.held.take() {
                self.take(message, since);
            }
            while self.held.is_none() {
                match self.mailbox.try_recv() {
                    Ok(message) => {
                        busy = true;
                        self.take(message, Instant::now());
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.core.begin_stop();
                        break;
                    }
                }
            }
            let now = self.clock.now();
            self.core.poll(now, &mut self.outputs);
            busy |= !self.outputs.is_empty();
            self.answer();
            if self.core.stopped() || self.core.failure().is_some() {
                return;
            }
            if busy && self.held.is_none() {
                idle_since = Instant::now();
                continue;
            }
            if let Idle::SpinThenBlock(bound) = self.idle
                && idle_since.elapsed() < bound
            {
                // Giving way lets the kernel thread run that completes the write.
                std::thread::yield_now();
                continue;
            }
            let until = self
                .core
                .next_wake()
                .map(|at| Duration::from_nanos(at.saturating_sub(now.mono_ns)));
            let until = match self.held {
                Some(_) => Some(until.map_or(HOLD_STEP, |u| u.min(HOLD_STEP))),
                None => until,
            };
            if self.core.disk().wait(until).is_err() {
                return;
            }
            idle_since = Instant::now();
        }
    }

    fn take(&mut self, message: Message, since: Instant) {
        let now = self.clock.now();
        match message {
            Message::Append { shard, batch, answer } => {
                let tag = self.keep(Waiter::Append(answer));
                match self.core.append(now, shard, &batch, tag) {
                    Ok(()) => {}
                    Err(AppendError::Busy { .. }) if since.elapsed() < self.hold => {
                        if let Some(Waiter::Append(answer)) = self.waiter(tag) {
                            self.held = Some((Message::Append { shard, batch, answer }, since));
                        }
                    }
                    Err(error) => {
                        if matches!(error, AppendError::Busy { .. }) {
                            self.core.given_up(shard, &batch);
                        }
                        self.resolve_append(tag, Err(error));
                    }
                }
            }
            Message::Read { answer, .. } if self.reads >= READS => {
                answer.give(Err(ReadError::Busy { retry_after_ms: 1 }));
            }
            Message::Read { shard, mut request, wait, answer } => {
                request.deadline_ns = now.mono_ns.saturating_add(nanos(wait));
                let tag = self.keep(Waiter::Read(answer));
                self.reads += 1;
                self.core.read(now, shard, request, tag);
            }
            Message::Locate { shard, start, answer } => answer.give(self.core.locate(shard, start)),
            Message::Command(command) => self.core.command(now, *command),
            Message::Stop => self.core.begin_stop(),
        }
    }

    fn keep(&mut self, waiter: Waiter) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiters.push(None);
            self.waiters.len() - 1
        });
        self.waiters[slot] = Some(waiter);
        slot as u64
    }

    fn waiter(&mut self, tag: u64) -> Option<Waiter> {
        let slot = tag as usize;
        let waiter = self.waiters.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(waiter)
    }

    fn resolve_append(&mut self, tag: u64, result: Result<Appended, AppendError>) {
        if let Some(Waiter::Append(answer)) = self.waiter(tag) {
            answer.give(result);
        }
    }

    fn answer(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Appended { tag, result } => self.resolve_append(tag, result),
                Output::Read { tag, result } => {
                    if let Ok(Some(arrivals)) = result.as_ref().map(|chunk| &chunk.arrivals) {
                        self.core.handed_over(arrivals, self.clock.now().wall_ns);
                    }
                    if let Some(Waiter::Read(answer)) = self.waiter(tag) {
                        self.reads -= 1;
                        answer.give(result);
                    }
                }
                // Neither is asked for through this handle.
                Output::Deliver { .. } | Output::Ended { .. } | Output::Removed { .. } => {}
            }
        }
        self.outputs = outputs;
    }
}
