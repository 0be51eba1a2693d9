//! The control thread: catalogue and positions, which may wait for the disk. Position commits that have
//! gathered while it worked become one durable transaction.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use highwater_engine::{Control, Store};
use highwater_wire::{ControlReply, ControlRequest, Position, encode_control_reply};

use crate::router::{Answer, CoreLink, Signal, core_of};
use crate::telemetry::Slot;

/// A request for the control thread; answered by a signal to the core in the tag.
#[derive(Debug)]
pub(crate) struct ControlJob {
    pub request: ControlRequest,
    pub tag: u64,
}

/// Requests taken from the queue at once.
const GATHER: usize = 256;
/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// What only a look at the disk tells; taken by the control thread, because the telemetry thread must not
/// touch one.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreView {
    /// Free bytes of the file system.
    pub free: u64,
    /// Its size in bytes.
    pub total: u64,
    /// Memory of this process, bytes; 0 where it is not told.
    pub resident: u64,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Memory of this process, bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or(0) * rustix::param::page_size() as u64
}

/// What the thread works with.
pub(crate) struct ControlThread {
    pub control: Control,
    pub store: Store,
    pub jobs: Receiver<ControlJob>,
    pub links: Vec<CoreLink>,
    pub core_ports: Arc<[u16]>,
    pub view: Arc<Slot<StoreView>>,
}

/// Positions to be committed, and whom to answer.
#[derive(Default)]
struct Commits {
    tags: Vec<u64>,
    commits: Vec<(String, String, Vec<Position>)>,
}

impl ControlThread {
    /// Works until every core is gone.
    pub fn run(mut self) {
        let mut looked = Instant::now();
        self.look();
        loop {
            match self.jobs.recv_timeout(SPACE_EVERY.saturating_sub(looked.elapsed())) {
                Ok(first) => {
                    let mut jobs = vec![first];
                    jobs.extend(self.jobs.try_iter().take(GATHER - 1));
                    self.work(jobs);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= SPACE_EVERY {
                self.look();
                looked = Instant::now();
            }
        }
    }

    fn look(&self) {
        // Zeroes where the file system does not say.
        let (free, total) = self.store.space().unwrap_or_default();
        let (resident, warnings) = (resident(), self.store.warnings());
        self.view.set(StoreView { free, total, resident, warnings });
    }

    /// In order; neighbouring commits together.
    fn work(&mut self, jobs: Vec<ControlJob>) {
        let mut commits = Commits::default();
        for ControlJob { request, tag } in jobs {
            match request {
                ControlRequest::CommitPositions { group, stream, positions } => {
                    commits.tags.push(tag);
                    commits.commits.push((group, stream, positions));
                }
                request => {
                    self.commit(std::mem::take(&mut commits));
                    let reply = self.control.handle(request, &self.core_ports);
                    self.answer(tag, reply.map(|reply| encode_control_reply(&reply)));
                }
            }
        }
        self.commit(commits);
    }

    fn commit(&mut self, commits: Commits) {
        if commits.tags.is_empty() {
            return;
        }
        let results = self.control.commit_positions(&commits.commits);
        let done = encode_control_reply(&ControlReply::Done);
        for (tag, result) in commits.tags.into_iter().zip(results) {
            self.answer(tag, result.map(|()| done.clone()).map_err(|error| error.to_wire()));
        }
    }

    fn answer(&self, tag: u64, result: Result<Vec<u8>, highwater_wire::WireError>) {
        if let Some(link) = self.links.get(core_of(tag)) {
            // A core that is gone needs no answer.
            let _ = link.signals.send(Signal::Answer { tag, answer: Answer::Control(result) });
        }
    }
}
