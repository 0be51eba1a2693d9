//! A member of a consumer group: reads the shards it holds leases on, gives them up when it is told to, and commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater_wire::{
    ControlReply, ControlRequest, ErrorCode, Kind, LeaseGrant, LeasedPosition, ResetTo,
    ShardDescription, StreamDescription,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::client::Repeat;
use crate::connection::unexpected;
use crate::membership::{Identity, Shared, View};
use crate::{Client, ClientError, ConsumeError, ConsumerOptions, Delivery, Start};

/// Deliveries that wait to be taken, over all shards.
const WAITING: usize = 4;

/// Where a shard is read to at most, chosen when its reading begins; `None` for ever on.
pub type Until = Arc<dyn Fn(&ShardDescription) -> Option<u64> + Send + Sync>;

/// How a member of a group reads.
#[derive(Clone)]
pub struct GroupOptions {
    /// What operators see it as. Default: the client's name and the member's number.
    pub name: Option<String>,
    /// The name stays the same through restarts: whoever joins under it within the session takes its leases over, and
    /// leaving keeps them for the session. Needs a name. Default false.
    pub fixed: bool,
    /// Longest silence after which its shards go to others. Default 10 s.
    pub session_timeout: Duration,
    /// Where a group begins that has no positions yet. Default: the oldest record kept.
    pub start: ResetTo,
    /// Commits by itself this often, and before it gives a shard up. Default: never; see [`GroupConsumer::commit`].
    pub auto_commit: Option<Duration>,
    /// How each shard is read; its `end` is not used.
    pub consumer: ConsumerOptions,
    /// Where shards are read to; [`GroupConsumer::next`] ends when all it holds are there. Default: for ever on.
    pub until: Option<Until>,
}

impl std::fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupOptions")
            .field("name", &self.name)
            .field("fixed", &self.fixed)
            .field("session_timeout", &self.session_timeout)
            .field("auto_commit", &self.auto_commit)
            .finish_non_exhaustive()
    }
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            name: None,
            fixed: false,
            session_timeout: Duration::from_secs(10),
            start: ResetTo::Oldest,
            auto_commit: None,
            consumer: ConsumerOptions::default(),
            until: None,
        }
    }
}

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

#[derive(Debug)]
enum Read {
    Records(Delivery),
    /// At the end of a closed shard, or where it was to end.
    End {
        position: u64,
        closed: bool,
    },
    Failed(ConsumeError),
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

    /// Everything of a shard below `sequence` was processed. Overrides what follows from asking for the next event.
    pub fn done(&mut self, shard: u32, sequence: u64) {
        if self.handed.is_some_and(|(handed, _)| handed == shard) {
            self.handed = None;
        }
        if let Some(held) = self.held.get_mut(&shard) {
            held.done = Some(sequence);
        }
    }

    /// Whether an event can be had without waiting.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.inbox.is_empty() && self.put_off.is_none()
    }

    /// Keeps the positions of all that was processed, durably. Of shards that have gone to others meanwhile it says so
    /// by [`GroupEvent::Lost`].
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let every = self.options.auto_commit;
        self.commit_at = every.and_then(|every| Instant::now().checked_add(every));
        loop {
            let moved: Vec<LeasedPosition> = self
                .held
                .iter()
                .filter(|(_, held)| held.done.is_some() && held.done != held.committed)
                .map(|(shard, held)| LeasedPosition {
                    shard: *shard,
                    lease: held.lease,
                    sequence: held.done.unwrap_or(0),
                })
                .collect();
            if moved.is_empty() {
                return Ok(());
            }
            let request = ControlRequest::CommitLeased {
                group: self.identity.group.clone(),
                stream: self.identity.stream.clone(),
                member: self.identity.member,
                positions: moved.clone(),
            };
            match self.identity.client.control(request, Repeat::Yes).await {
                Ok(ControlReply::Done) => {
                    for position in moved {
                        if let Some(held) = self.held.get_mut(&position.shard) {
                            held.committed = Some(position.sequence);
                        }
                    }
                    return Ok(());
                }
                Ok(_) => return Err(unexpected(Kind::ControlReply)),
                Err(error) => match (error.code(), &error) {
                    (Some(ErrorCode::LeaseLost), ClientError::Refused(refusal))
                        if self.held.contains_key(&(refusal.detail as u32)) =>
                    {
                        self.lose(refusal.detail as u32);
                    }
                    (Some(ErrorCode::UnknownMember), _) => {
                        let all: Vec<u32> = self.held.keys().copied().collect();
                        all.into_iter().for_each(|shard| self.lose(shard));
                        self.shared.wake.notify_one();
                        return Ok(());
                    }
                    // Nothing is lost yet: it is tried again.
                    _ if every.is_some() && error.retriable() => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
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

    /// What was handed out last counts as processed.
    fn settle(&mut self) {
        if let Some((shard, next)) = self.handed.take()
            && let Some(held) = self.held.get_mut(&shard)
        {
            held.done = Some(next);
        }
    }

    /// Gives up the shards that are to go to others, their last positions committed first.
    async fn give_up(&mut self) -> Result<(), ClientError> {
        if self.held.values().all(|held| held.stage != Stage::Leaving) {
            return Ok(());
        }
        if self.options.auto_commit.is_some() {
            self.commit().await?;
        }
        let detained = &self.detained;
        let going = |(shard, held): &(&u32, &Held)| {
            held.stage == Stage::Leaving && !detained.contains(shard)
        };
        let going: Vec<u32> = self.held.iter().filter(going).map(|(shard, _)| *shard).collect();
        for shard in going {
            self.held.remove(&shard);
            self.shared.release(shard);
        }
        Ok(())
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

    /// Takes note of the leases as they are now.
    async fn follow(&mut self) -> Result<(), ConsumeError> {
        let view = self.view.borrow().clone();
        if view.failed.is_some() {
            return Err(self.failed().into());
        }
        if view.joined != self.joined {
            self.joined = view.joined;
            let all: Vec<u32> = self.held.keys().copied().collect();
            all.into_iter().for_each(|shard| self.lose(shard));
        }
        let now: BTreeMap<u32, LeaseGrant> =
            view.leases.into_iter().map(|lease| (lease.shard, lease)).collect();
        let gone: Vec<u32> = self
            .held
            .iter()
            .filter(|(shard, held)| now.get(shard).is_none_or(|lease| lease.lease != held.lease))
            .map(|(shard, _)| *shard)
            .collect();
        for shard in gone {
            // What was read and committed to its end is nobody's any more.
            match self.held.get(&shard) {
                Some(held) if held.stage == Stage::AtEnd && held.done == held.committed => {
                    self.held.remove(&shard);
                }
                _ => self.lose(shard),
            }
        }
        for (shard, lease) in now {
            match self.held.get_mut(&shard) {
                Some(held) if lease.revoked && held.stage != Stage::Leaving => {
                    held.stage = Stage::Leaving;
                    held.reader.abort();
                    self.events.push_back(GroupEvent::Revoked { shard });
                }
                Some(_) => {}
                // Nothing of it was read.
                None if lease.revoked => self.shared.release(shard),
                None => self.begin(lease).await?,
            }
        }
        self.behind = false;
        Ok(())
    }

    /// Begins to read a shard.
    async fn begin(&mut self, lease: LeaseGrant) -> Result<(), ConsumeError> {
        let LeaseGrant { shard, lease, position, .. } = lease;
        if self.stream.shards.iter().all(|known| known.shard != shard) {
            self.stream = self.identity.client.describe_stream(&self.stream.name).await?;
        }
        let known = self.stream.shards.iter().find(|known| known.shard == shard);
        let Some(known) = known else { return Ok(()) };
        let mut options = self.options.consumer.clone();
        // A closed shard is read to its end in any case.
        options.end = match &self.options.until {
            Some(until) if !known.closed => until(known),
            _ => None,
        };
        let reading = Reading {
            client: self.identity.client.clone(),
            stream: self.stream.clone(),
            shard,
            lease,
            start: position.map_or(Start::Oldest, Start::At),
            options,
        };
        let reader = self.tasks.spawn(reading.run(self.sender.clone()));
        let held = Held { lease, stage: Stage::Reading, done: None, committed: position, reader };
        self.held.insert(shard, held);
        self.begun = true;
        self.over_at = None;
        self.events.push_back(GroupEvent::Assigned { shard, position });
        Ok(())
    }

    /// A shard is others'.
    fn lose(&mut self, shard: u32) {
        if let Some(held) = self.held.remove(&shard) {
            held.reader.abort();
            self.detained.remove(&shard);
            self.handed = self.handed.filter(|(handed, _)| *handed != shard);
            self.events.push_back(GroupEvent::Lost { shard });
        }
    }

    /// What a reader brought, if its lease is still the one that is held.
    fn take(
        &mut self,
        shard: u32,
        lease: u64,
        read: Read,
    ) -> Result<Option<GroupEvent>, ConsumeError> {
        let held = self.held.get_mut(&shard).filter(|held| held.lease == lease);
        let Some(held) = held.filter(|held| held.stage == Stage::Reading) else { return Ok(None) };
        match read {
            Read::Records(delivery) => {
                self.handed = Some((shard, delivery.next));
                Ok(Some(GroupEvent::Records { shard, delivery }))
            }
            Read::End { position, closed } => {
                held.stage = Stage::AtEnd;
                if !closed {
                    return Ok(None);
                }
                held.done = Some(position);
                // Committed at once if it commits by itself: its children wait for that.
                self.commit_at = self.options.auto_commit.map(|_| Instant::now());
                Ok(Some(GroupEvent::Ended { shard }))
            }
            Read::Failed(ConsumeError::Client(error))
                if error.code() == Some(ErrorCode::LeaseLost) =>
            {
                self.shared.wake.notify_one();
                self.lose(shard);
                Ok(self.events.pop_front())
            }
            Read::Failed(error) => {
                held.stage = Stage::AtEnd;
                Err(error)
            }
        }
    }
}

/// The reader of one shard.
struct Reading {
    client: Client,
    stream: StreamDescription,
    shard: u32,
    lease: u64,
    start: Start,
    options: ConsumerOptions,
}

impl Reading {
    async fn run(self, sender: mpsc::Sender<(u32, u64, Read)>) {
        let (shard, lease) = (self.shard, self.lease);
        let send = |read| sender.send((shard, lease, read));
        let begun = self.client.consumer(&self.stream, shard, self.start, self.options).await;
        let mut consumer = match begun {
            Ok(consumer) => consumer.under(lease),
            // Nobody may be there to be told.
            Err(error) => return drop(send(Read::Failed(error.into())).await),
        };
        loop {
            let read = match consumer.next().await {
                Ok(Some(delivery)) => Read::Records(delivery),
                Ok(None) => Read::End { position: consumer.position(), closed: consumer.ended() },
                Err(error) => Read::Failed(error),
            };
            let last = !matches!(read, Read::Records(_));
            if send(read).await.is_err() || last {
                return;
            }
        }
    }
}
