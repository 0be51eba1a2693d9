//! The heartbeat of a member of a group, in a task of its own: it goes on while the application works on records.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_wire::{
    ControlReply, ControlRequest, ErrorCode, Kind, LeaseGrant, Membership, ResetTo,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::client::Repeat;
use crate::connection::unexpected;
use crate::{Client, ClientError};

/// Longest time between two heartbeats: a lease that is to be given up, or is free, is learnt of by then.
const BEAT_AT_MOST: Duration = Duration::from_millis(300);

/// Heartbeats in the time of a session, at least.
const BEATS: u32 = 4;

/// After a failure not before this time again.
const AGAIN: Duration = Duration::from_millis(100);

/// Who joins what.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub client: Client,
    pub group: String,
    pub stream: String,
    /// Its number, chosen here: joining again after a lost reply makes no second member.
    pub member: u64,
    pub name: String,
    pub fixed: bool,
    pub session: Duration,
    pub start: ResetTo,
}

/// What is known of the membership.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Heartbeats answered so far.
    pub beats: u64,
    /// Times it had to join; leases of an earlier time are not in force.
    pub joined: u64,
    /// The leases it holds.
    pub leases: Vec<LeaseGrant>,
    /// Until then they are in force whatever happens.
    pub good_until: Instant,
    /// Why it cannot go on.
    pub failed: Option<ClientError>,
}

/// What the task and the consumer share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Asks for a heartbeat at once.
    pub wake: Arc<Notify>,
    released: Arc<Mutex<BTreeSet<u32>>>,
}

impl Shared {
    pub fn new() -> Shared {
        Shared { wake: Arc::new(Notify::new()), released: Arc::default() }
    }

    /// The next heartbeat says that a shard was given up.
    pub fn release(&self, shard: u32) {
        self.lock().insert(shard);
        self.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    /// Joins.
    pub async fn join(&self) -> Result<View, ClientError> {
        let sent = Instant::now();
        let request = ControlRequest::JoinGroup {
            group: self.group.clone(),
            stream: self.stream.clone(),
            member: self.member,
            name: self.name.clone(),
            fixed: self.fixed,
            session_ms: u32::try_from(self.session.as_millis()).unwrap_or(u32::MAX),
            start: self.start,
        };
        let leases = self.ask(request).await?.leases;
        Ok(View { beats: 0, joined: 1, leases, good_until: sent + self.session, failed: None })
    }

    async fn ask(&self, request: ControlRequest) -> Result<Membership, ClientError> {
        match self.client.control(request, Repeat::Yes).await? {
            ControlReply::Membership(membership) => Ok(membership),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    async fn beat(&self, released: Vec<u32>) -> Result<Membership, ClientError> {
        let request = ControlRequest::Heartbeat {
            group: self.group.clone(),
            stream: self.stream.clone(),
            member: self.member,
            released,
        };
        self.ask(request).await
    }

    /// Beats until the consumer is gone or nothing helps.
    pub async fn keep(self, shared: Shared, view: watch::Sender<View>) {
        let every = (self.session / BEATS).min(BEAT_AT_MOST);
        let patience = self.client.options().retry.deadline;
        let mut trouble: Option<Instant> = None;
        let mut wait = every;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shared.wake.notified() => {}
                () = view.closed() => return,
            }
            let released: Vec<u32> = shared.lock().iter().copied().collect();
            let sent = Instant::now();
            let result = match self.beat(released.clone()).await {
                Err(error) if error.code() == Some(ErrorCode::UnknownMember) => {
                    shared.lock().clear();
                    // What it held it holds no more, whatever it is given now.
                    self.join().await.map(|joined| (joined.leases, true))
                }
                result => result.map(|membership| (membership.leases, false)),
            };
            wait = every;
            match result {
                Ok((leases, again)) => {
                    trouble = None;
                    shared.lock().retain(|shard| !released.contains(shard));
                    view.send_modify(|view| {
                        view.beats += 1;
                        view.joined += u64::from(again);
                        view.leases = leases;
                        view.good_until = sent + self.session;
                    });
                }
                Err(error) => {
                    let since = *trouble.get_or_insert(sent);
                    if !error.retriable() || since.elapsed() >= patience {
                        view.send_modify(|view| view.failed = Some(error));
                        return;
                    }
                    wait = every.min(AGAIN);
                }
            }
        }
    }
}
