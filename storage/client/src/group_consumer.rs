//! A member of a consumer group: reads the shards it holds leases on, gives them up when it is told to, and commits.

mod commit;
mod leases;
mod options;
mod reading;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_wire::{ControlRequest, ErrorCode, StreamDescription};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::client::Repeat;
use crate::membership::{Identity, Shared, View};
use crate::{Client, ClientError, ConsumeError, Delivery};
pub use options::{GroupOptions, Until};
use reading::Read;

/// Deliveries that wait to be taken, over all shards.
const WAITING: usize = 4;

/// What a member is told.
#[derive(Debug)]
pub enum GroupEvent {
    /// A shard is this member's to read, from here on.
    Assigned {
        /// The shard.
        shard: u32,
        /// Next sequence number to read; `None` for the oldest kept.
        position: Option<u64>,
    },
    /// Records. They count as processed when the next event is asked for, unless [`GroupConsumer::done`] says
    /// otherwise before.
    Records {
        /// Of this shard.
        shard: u32,
        /// The records.
        delivery: Delivery,
    },
    /// A shard is to go to another member. What was handed out of it is the last: commit it. It is given up when the
    /// next event is asked for.
    Revoked {
        /// The shard.
        shard: u32,
    },
    /// A shard has gone to another member, or will: this one was silent for too long. What it has not committed is
    /// read again by others.
    Lost {
        /// The shard.
        shard: u32,
    },
    /// A shard that a split or merge closed was read to its end: once that is committed its children are read.
    Ended {
        /// The shard.
        shard: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is read.
    Reading,
    /// It was read as far as it goes.
    AtEnd,
    /// It is to be given up, and the application knows.
    Leaving,
}

/// A shard it holds the lease on.
#[derive(Debug)]
struct Held {
    lease: u64,
    stage: Stage,
    /// Everything below was processed; `None` before anything was.
    done: Option<u64>,
    committed: Option<u64>,
    reader: AbortHandle,
}

/// Reads a stream as a member of a group, through splits and merges, each shard in order.
#[derive(Debug)]
pub struct GroupConsumer {
    identity: Identity,
    options: GroupOptions,
    stream: StreamDescription,
    shared: Shared,
    view: watch::Receiver<View>,
    joined: u64,
    /// The view has not been followed yet.
    behind: bool,
    held: BTreeMap<u32, Held>,
    /// Not to be given up yet.
    detained: BTreeSet<u32>,
    events: VecDeque<GroupEvent>,
    /// Handed out last: shard, and where it ends.
    handed: Option<(u32, u64)>,
    /// Came while it was not known whether the lease is still in force.
    put_off: Option<(u32, u64, Read)>,
    sender: mpsc::Sender<(u32, u64, Read)>,
    inbox: mpsc::Receiver<(u32, u64, Read)>,
    commit_at: Option<Instant>,
    /// Held something once.
    begun: bool,
    /// All it holds is at the end: over, once so many heartbeats have brought nothing new.
    over_at: Option<u64>,
    tasks: JoinSet<()>,
}

impl Client {
    /// Joins a group as a reader of a stream.
    pub async fn group_consumer(
        &self,
        group: &str,
        stream: &str,
        options: GroupOptions,
    ) -> Result<GroupConsumer, ClientError> {
        GroupConsumer::join(self.clone(), group, stream, options).await
    }
}

impl GroupConsumer {
    async fn join(
        client: Client,
        group: &str,
        stream: &str,
        options: GroupOptions,
    ) -> Result<GroupConsumer, ClientError> {
        let stream = client.describe_stream(stream).await?;
        let member = fastrand::u64(1..);
        let name = options
            .name
            .clone()
            .unwrap_or_else(|| format!("{} {member:08x}", client.options().name));
        let identity = Identity {
            client,
            group: group.to_owned(),
            stream: stream.name.clone(),
            member,
            fixed: options.fixed && options.name.is_some(),
            name,
            session: options.session_timeout,
            start: options.start,
        };
        let first = identity.join().await?;
        let (sender, inbox) = mpsc::channel(WAITING);
        let shared = Shared::new();
        let (viewed, view) = watch::channel(first);
        let mut tasks = JoinSet::new();
        tasks.spawn(identity.clone().keep(shared.clone(), viewed));
        let commit_at = options.auto_commit.and_then(|every| Instant::now().checked_add(every));
        Ok(GroupConsumer {
            identity,
            options,
            stream,
            shared,
            view,
            joined: 0,
            behind: true,
            held: BTreeMap::new(),
            detained: BTreeSet::new(),
            events: VecDeque::new(),
            handed: None,
            put_off: None,
            sender,
            inbox,
            commit_at,
            begun: false,
            over_at: None,
            tasks,
        })
    }

    /// The next event; waits for it. `None` once everything it holds was read to where [`GroupOptions::until`] says.
    /// Cancelled, it loses nothing.
    ///
    /// # Errors
    /// When the server cannot be reached until the retry deadline, a shard cannot be read, or a commit of its own
    /// fails. Asked again after an error of a shard, it goes on with the others.
    pub async fn next(&mut self) -> Result<Option<GroupEvent>, ConsumeError> {
        self.step(true).await
    }

    /// The same; without `records` only what else there is to tell.
    pub(crate) async fn step(&mut self, records: bool) -> Result<Option<GroupEvent>, ConsumeError> {
        self.settle();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.give_up().await?;
            // Before it is at its end, for whoever asks again then: what it holds may have to be given up.
            if self.view.has_changed().unwrap_or(false) {
                self.view.mark_unchanged();
                self.behind = true;
            }
            if self.behind {
                self.follow().await?;
                continue;
            }
            if self.commit_at.is_some_and(|at| at <= Instant::now()) {
                self.commit().await?;
                continue;
            }
            if self.over().await? {
                return Ok(None);
            }
            let valid = Instant::now() < self.view.borrow().good_until;
            let valid = valid && records;
            if valid && let Some((shard, lease, read)) = self.put_off.take() {
                if let Some(event) = self.take(shard, lease, read)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let commit_at = self.commit_at;
            let due = async move {
                match commit_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.view.changed() => match changed {
                    Ok(()) => self.behind = true,
                    Err(_) => return Err(self.failed().into()),
                },
                Some((shard, lease, read)) = self.inbox.recv(), if valid => {
                    // A process that stood still must not go on with what is others' by now.
                    if Instant::now() >= self.view.borrow().good_until {
                        self.put_off = Some((shard, lease, read));
                    } else if let Some(event) = self.take(shard, lease, read)? {
                        return Ok(Some(event));
                    }
                }
                () = due => {}
            }
        }
    }

    /// What it is to the server.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What heartbeats bring.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// The stream as it was described last.
    pub(crate) fn stream(&self) -> &StreamDescription {
        &self.stream
    }

    /// The lease it holds on a shard.
    pub(crate) fn lease(&self, shard: u32) -> Option<u64> {
        self.held.get(&shard).map(|held| held.lease)
    }

    /// Whether a shard is kept though it is to be given up.
    pub(crate) fn detain(&mut self, shard: u32, detained: bool) {
        if detained {
            self.detained.insert(shard);
        } else {
            self.detained.remove(&shard);
        }
    }

    /// Asks the server at once how things are.
    pub(crate) fn look(&self) {
        self.shared.wake.notify_one();
    }

    /// Whether an event can be had without waiting.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.inbox.is_empty() && self.put_off.is_none()
    }

    /// Leaves the group, so that others need not wait for the session to run out; what was processed is committed
    /// before if it commits by itself. A member with a fixed name keeps its leases for the session.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.settle();
        if self.options.auto_commit.is_some() {
            self.commit().await?;
        }
        self.tasks.abort_all();
        if self.identity.fixed {
            return Ok(());
        }
        let request = ControlRequest::LeaveGroup {
            group: self.identity.group.clone(),
            stream: self.identity.stream.clone(),
            member: self.identity.member,
        };
        match self.identity.client.control(request, Repeat::Yes).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(ErrorCode::UnknownMember) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether everything was read to where it is to end, and nothing more is to be expected.
    async fn over(&mut self) -> Result<bool, ClientError> {
        let at_end = self.held.values().all(|held| held.stage == Stage::AtEnd);
        if self.options.until.is_none() || !self.begun || !at_end {
            self.over_at = None;
            return Ok(false);
        }
        let beats = self.view.borrow().beats;
        match self.over_at {
            None => {
                if self.options.auto_commit.is_some() {
                    self.commit().await?;
                }
                // One may be under way that does not know of this commit yet.
                self.over_at = Some(beats + 2);
            }
            Some(at) if beats >= at => return Ok(self.put_off.is_none()),
            Some(_) => {}
        }
        self.shared.wake.notify_one();
        Ok(false)
    }

    pub(crate) fn failed(&self) -> ClientError {
        self.view.borrow().failed.clone().unwrap_or_else(|| {
            ClientError::Protocol("the task that keeps the membership has ended".to_owned())
        })
    }
}
