//! The control thread: catalogue and positions, which may wait for the disk. Position commits and settlements that have
//! gathered while it worked become one durable transaction, whatever signs of life and claims came among them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use highwater_engine::{Commit, Control, ControlError, Settle, Store, Tended, Watermark};
use highwater_wire::telemetry::DeliverySnapshot;
use highwater_wire::{ControlReply, ControlRequest, ShardId, encode_control_reply};

use crate::router::{Answer, CoreLink, Signal, core_of};
use crate::telemetry::Slot;

#[cfg(test)]
mod tests;

/// A request for the control thread; answered by a signal to the core in the tag.
#[derive(Debug)]
pub(crate) struct ControlJob {
    pub request: ControlRequest,
    pub tag: u64,
    /// When it was put into the queue.
    pub at: Instant,
}

/// Requests taken from the queue at once.
const GATHER: usize = 256;
/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_millis(200);
/// How often the rest is: warnings, memory, and what the control plane does by itself.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// What the control plane did by itself is shown for so long.
const SHOWN: Duration = Duration::from_secs(60);

/// What telemetry shows and only the control thread knows: what a look at the disk tells, which the telemetry thread
/// must not touch, and what the control plane advises.
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
    /// Splits that the load of shards suggests.
    pub advice: BTreeMap<ShardId, String>,
    /// Groups that settle record by record.
    pub deliveries: Vec<DeliverySnapshot>,
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
    /// Where what happens is said.
    pub notices: Option<Sender<String>>,
}

/// What is remembered between two looks.
struct Watch {
    watermark: Watermark,
    /// When the streams were tended last.
    tended: Option<Instant>,
    notes: VecDeque<(Instant, String)>,
}

impl Watch {
    /// Says the same thing once.
    fn note(&mut self, text: String) {
        self.notes.retain(|(_, known)| *known != text);
        self.notes.push_back((Instant::now(), text));
    }

    fn shown(&mut self) -> impl Iterator<Item = String> {
        while self.notes.front().is_some_and(|(since, _)| since.elapsed() > SHOWN) {
            self.notes.pop_front();
        }
        self.notes.iter().map(|(_, text)| text.clone())
    }
}

/// What an operator should hear of.
fn in_words(done: &Tended) -> Option<String> {
    match done {
        Tended::Forgotten(_) => None,
        Tended::Split(shard) => Some(format!("shard {shard}: beyond its quota, was split")),
        Tended::NotSplit(shard, reason) => {
            Some(format!("shard {shard}: beyond its quota, could not be split: {reason}"))
        }
    }
}

/// Requests that are carried out together.
#[derive(Debug)]
struct Turn {
    jobs: Vec<ControlJob>,
    /// What had come by then is among them, or was before.
    heard: Instant,
}

impl Turn {
    /// Takes what has come, and waits until something does, but not longer than `patience`; `None` when nobody is there any
    /// more who could ask.
    fn take(queue: &Receiver<ControlJob>, patience: Duration) -> Option<Turn> {
        let mut jobs = Vec::new();
        match queue.recv_timeout(patience) {
            Ok(first) => jobs.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        // Before the queue is emptied: what comes meanwhile may be among the rest or not.
        let now = Instant::now();
        jobs.extend(queue.try_iter().take(GATHER - jobs.len()));
        let more = jobs.len() == GATHER;
        let heard = jobs.last().filter(|_| more).map_or(now, |last| last.at);
        Some(Turn { jobs, heard })
    }
}

/// Positions and settlements to be kept, and whom to answer.
#[derive(Debug, Default)]
struct Commits {
    tags: Vec<u64>,
    commits: Vec<Commit>,
    settle_tags: Vec<u64>,
    settles: Vec<Settle>,
}

impl Commits {
    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.settle_tags.is_empty()
    }
}

/// Requests that are carried out one by one, and what is kept behind them in one durable transaction.
#[derive(Debug, Default)]
struct Stretch {
    singles: Vec<ControlJob>,
    commits: Commits,
}

/// Whether a request may be carried out before commits and settlements that came before it: it changes nothing that is
/// kept. Claims are asked as often as there are settlements, and signs of life come several times a second from each member;
/// one that gives a shard up tells the next owner what is committed.
fn may_overtake(request: &ControlRequest) -> bool {
    match request {
        ControlRequest::Claim { .. } => true,
        ControlRequest::Heartbeat { released, .. } => released.is_empty(),
        _ => false,
    }
}

/// Requests in their order, but that as much as possible is kept together.
fn stretches(jobs: Vec<ControlJob>) -> Vec<Stretch> {
    let (mut done, mut stretch) = (Vec::new(), Stretch::default());
    for job in jobs {
        let ControlJob { request, tag, at } = job;
        let commits = &mut stretch.commits;
        match request {
            ControlRequest::CommitPositions { .. } | ControlRequest::CommitLeased { .. } => {
                if let Some(commit) = Commit::of(request) {
                    commits.tags.push(tag);
                    commits.commits.push(commit);
                }
            }
            ControlRequest::Settle { .. } => {
                if let Some(settle) = Settle::of(request) {
                    commits.settle_tags.push(tag);
                    commits.settles.push(settle);
                }
            }
            request => {
                if !commits.is_empty() && !may_overtake(&request) {
                    done.push(std::mem::take(&mut stretch));
                }
                stretch.singles.push(ControlJob { request, tag, at });
            }
        }
    }
    done.push(stretch);
    done
}

impl ControlThread {
    /// Works until every core is gone.
    pub fn run(mut self) {
        let mut watch = Watch {
            watermark: Watermark::new(self.store.reserve_bytes(), self.store.smallest_segment()),
            tended: None,
            notes: VecDeque::new(),
        };
        self.look(Instant::now(), &mut watch);
        let mut looked = Instant::now();
        let patience = |looked: Instant| SPACE_EVERY.saturating_sub(looked.elapsed());
        while let Some(turn) = Turn::take(&self.jobs, patience(looked)) {
            self.work(turn.jobs);
            if looked.elapsed() >= SPACE_EVERY {
                self.look(turn.heard, &mut watch);
                looked = Instant::now();
            }
        }
    }

    /// Has time pass for members, up to when all were heard, follows the free space, tells the cores when it runs out or
    /// returns, and once a second tends the streams.
    fn look(&mut self, heard: Instant, watch: &mut Watch) {
        if let Err(error) = self.control.pass_members(heard) {
            watch.note(format!("looking after the members of groups: {error}"));
        }
        let space = self.store.space().ok();
        if let Some((free, _)) = space
            && let Some(low) = watch.watermark.look(free)
        {
            self.control.set_disk_low(low);
        }
        if let (Some(news), Some(notices)) = (watch.watermark.news(), &self.notices) {
            // Nobody has to listen.
            let _ = notices.send(news);
        }
        if watch.tended.is_some_and(|at| at.elapsed() < TEND_EVERY) {
            return;
        }
        watch.tended = Some(Instant::now());
        match self.control.tend() {
            Ok(done) => done.iter().filter_map(in_words).for_each(|text| watch.note(text)),
            Err(error) => watch.note(format!("looking after the streams: {error}")),
        }
        // Zeroes where the file system does not say.
        let (free, total) = space.unwrap_or_default();
        let mut warnings = self.store.warnings();
        warnings.extend(watch.watermark.warning());
        warnings.extend(watch.shown());
        let advice = self.control.advice().clone();
        let deliveries = self.control.deliveries();
        let resident = resident();
        self.view.set(StoreView { free, total, resident, warnings, advice, deliveries });
    }

    fn work(&mut self, jobs: Vec<ControlJob>) {
        for Stretch { singles, commits } in stretches(jobs) {
            for ControlJob { request, tag, .. } in singles {
                let reply = self.control.handle(request, &self.core_ports);
                self.answer(tag, reply.map(|reply| encode_control_reply(&reply)));
            }
            self.commit(commits);
        }
    }

    fn commit(&mut self, commits: Commits) {
        if commits.is_empty() {
            return;
        }
        let kept = self.control.commit(&commits.commits, &commits.settles);
        let done = encode_control_reply(&ControlReply::Done);
        let answer = |(tag, result): (u64, Result<(), ControlError>)| {
            self.answer(tag, result.map(|()| done.clone()).map_err(|error| error.to_wire()));
        };
        commits.tags.into_iter().zip(kept.positions).for_each(answer);
        commits.settle_tags.into_iter().zip(kept.settled).for_each(answer);
    }

    fn answer(&self, tag: u64, result: Result<Vec<u8>, highwater_wire::WireError>) {
        if let Some(link) = self.links.get(core_of(tag)) {
            // A core that is gone needs no answer.
            let _ = link.signals.send(Signal::Answer { tag, answer: Answer::Control(result) });
        }
    }
}
