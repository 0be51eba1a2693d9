//! The consumer of one shard: pushed by the server as credit allows, resumed where it stopped when the
//! connection breaks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_wire::{
    CreditRequest, ErrorCode, FilterTally, Kind, NO_END, StreamDescription, SubscribeRequest,
    UnsubscribeRequest, WireError,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::client::find;
use crate::connection::{Connection, Permit, Slot, SubscriptionEvent};
use crate::delivery::{Flaw, Inflated, check, check_found, inflate};
use crate::delivery_receipts::DeliveryReceipts;
use crate::writer::Control;
use crate::{Client, ClientError, ConsumeError, ConsumerOptions, Delivery, OnTrimmed, Start};

/// Reads the records of one shard in order, each exactly once, for as long as it lives.
#[derive(Debug)]
pub struct ShardConsumer {
    client: Client,
    stream: u32,
    shard: u32,
    port: u16,
    options: ConsumerOptions,
    /// The lease it reads under; 0 for none.
    lease: u64,
    position: u64,
    /// Batches that arrived earlier are passed over.
    since_ns: u64,
    /// Began at the oldest record and has read nothing yet: what retention removes meanwhile is not missed.
    at_oldest: bool,
    high_water: u64,
    trimmed: u64,
    /// Of these, those that no delivery has told of.
    untold: u64,
    ended: bool,
    subscription: Option<Subscription>,
    retry: Retry,
}

/// Trouble since the last sign of life.
#[derive(Debug, Default)]
struct Retry {
    since: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

/// A subscription under way; dropped, it is ended at the server too.
#[derive(Debug)]
struct Subscription {
    connection: Connection,
    correlation: u64,
    events: mpsc::UnboundedReceiver<SubscriptionEvent>,
    /// Bytes delivered and not yet given back as credit.
    used: u64,
    /// Of deliveries handed out that the server has not been told of.
    receipts: DeliveryReceipts,
    /// Wakes when they are due; set once for all of them.
    report: Pin<Box<Sleep>>,
    /// When it must have been answered; `None` once it was.
    answer_by: Option<Instant>,
    /// When it was answered.
    started: Option<Instant>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.forget(self.correlation);
        // With the queue full the server goes on until the credit is spent; that is bounded too.
        if self.receipts.due().is_some()
            && let Ok(permit) = self.connection.try_permit()
        {
            give_back(permit, self.correlation, &mut self.used, &mut self.receipts);
        }
        if let Ok(permit) = self.connection.try_permit() {
            let request = UnsubscribeRequest { subscription: self.correlation.into() };
            permit.send(Kind::Unsubscribe, Control::fixed(request.to_array()), None);
        }
    }
}

impl ShardConsumer {
    pub(crate) async fn start(
        client: Client,
        stream: &StreamDescription,
        shard: u32,
        start: Start,
        mut options: ConsumerOptions,
    ) -> Result<ShardConsumer, ClientError> {
        let port = find(stream, shard)?.port;
        let (position, since_ns, high_water) = match start {
            Start::At(sequence) => (sequence, 0, 0),
            Start::After(sequence) => (sequence.saturating_add(1), 0, 0),
            Start::Oldest | Start::Latest | Start::Time(_) => {
                let located = client.locate(stream, shard, start).await?;
                let since = if let Start::Time(ns) = start { ns } else { 0 };
                (located.sequence, since, located.high_water)
            }
        };
        // Credit is given back by halves: the half left must do for the largest batch.
        let largest = u64::from(client.pool().info().max_batch);
        options.credit_bytes = options.credit_bytes.max(2 * largest);
        Ok(ShardConsumer {
            client,
            stream: stream.id,
            shard,
            port,
            options,
            lease: 0,
            position,
            since_ns,
            at_oldest: start == Start::Oldest,
            high_water,
            trimmed: 0,
            untold: 0,
            ended: false,
            subscription: None,
            retry: Retry::default(),
        })
    }

    /// Reads under a lease: it ends when that is not in force any more.
    pub(crate) fn under(self, lease: u64) -> ShardConsumer {
        ShardConsumer { lease, ..self }
    }

    /// The next records; waits for them. With a filter also deliveries without records, from which follows how far it is,
    /// about once a second while it advances. Where retention was quicker and
    /// [`OnTrimmed`] lets it go on, [`Delivery::trimmed`] says over how many records. `None` once the position has reached the `end` of the options, or the end
    /// of a shard that a split or merge closed: see [`ended`](Self::ended).
    /// Cancelled, it loses nothing. Lost connections and refusals that will pass are retried until the
    /// retry deadline.
    pub async fn next(&mut self) -> Result<Option<Delivery>, ConsumeError> {
        loop {
            if self.ended || self.options.end.is_some_and(|end| self.position >= end) {
                self.subscription = None;
                return Ok((self.untold > 0).then(|| self.nothing()));
            }
            let step = match self.subscription.as_mut() {
                None => self.subscribe().await,
                Some(subscription) => {
                    let after = self.client.options().request_timeout;
                    let event = subscription.next(self.options.credit_bytes / 2, after).await;
                    match self.handle(event) {
                        Ok(Some(delivery)) => return Ok(Some(delivery)),
                        Ok(None) => Ok(()),
                        Err(error) => Err(error),
                    }
                }
            };
            if let Err(error) = step {
                // Asked again, it starts over at its position.
                self.subscription = None;
                self.retry = Retry::default();
                return Err(error);
            }
        }
    }

    /// Next sequence number to read: everything below it was given out (or passed over by the start).
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at sequence number `position`: past a [gap](ConsumeError::Gap), or back to read again.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
        self.untold = 0;
        self.at_oldest = false;
        self.since_ns = 0;
        self.ended = false;
        self.subscription = None;
    }

    /// Whether the shard was closed by a split or merge and read to its end: its children go on.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The shard's number.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The latest high-water mark heard of; 0 before the first.
    pub fn high_water(&self) -> u64 {
        self.high_water
    }

    /// Records that retention removed before they were read.
    pub fn trimmed(&self) -> u64 {
        self.trimmed
    }

    async fn subscribe(&mut self) -> Result<(), ConsumeError> {
        if let Some(at) = self.retry.not_before {
            tokio::time::sleep_until(at).await;
        }
        let connection = match self.client.pool().to_core(self.port).await {
            Ok(connection) => connection,
            Err(error) => return self.lost(error.into()),
        };
        let (sender, events) = mpsc::unbounded_channel();
        let request = SubscribeRequest {
            stream: self.stream.into(),
            shard: self.shard.into(),
            from: self.position.into(),
            credit_bytes: self.options.credit_bytes.into(),
            max_bytes: self.options.max_delivery_bytes.into(),
            reserved: 0.into(),
            lease: self.lease.into(),
            until: self.options.end.unwrap_or(NO_END).into(),
            since_ns: self.since_ns.into(),
        };
        let filter =
            self.options.filter.as_ref().map(|filter| Arc::new(filter.clone().into_bytes()));
        let after = self.client.options().request_timeout;
        let submitted = match connection.permit_within(after).await {
            Ok(permit) => {
                let control = Control::fixed(request.to_array());
                permit.submit(Slot::Subscription(sender), Kind::Subscribe, control, filter)
            }
            Err(error) => Err(error),
        };
        match submitted {
            Ok(correlation) => {
                self.subscription = Some(Subscription {
                    connection,
                    correlation,
                    events,
                    used: 0,
                    receipts: DeliveryReceipts::default(),
                    report: Box::pin(tokio::time::sleep_until(Instant::now())),
                    answer_by: Instant::now().checked_add(after),
                    started: None,
                });
                Ok(())
            }
            Err(error) => self.lost(error),
        }
    }

    fn handle(&mut self, event: SubscriptionEvent) -> Result<Option<Delivery>, ConsumeError> {
        match event {
            SubscriptionEvent::Started { high_water } => {
                self.high_water = self.high_water.max(high_water);
                Ok(None)
            }
            SubscriptionEvent::Delivery { high_water, next, sent_ns, tally, data } => {
                self.high_water = self.high_water.max(high_water);
                self.retry = Retry::default();
                let delivery = match tally {
                    None => self.take(high_water, sent_ns, data)?,
                    Some(tally) => Some(self.take_found(high_water, next, sent_ns, tally, data)?),
                };
                if let Some(subscription) = &mut self.subscription {
                    subscription.handed_out(next);
                }
                Ok(delivery)
            }
            SubscriptionEvent::Ended(ClientError::Refused(error)) => {
                self.refused(error).map(|()| None)
            }
            SubscriptionEvent::Ended(error) => self.lost(error).map(|()| None),
        }
    }

    fn take(
        &mut self,
        high_water: u64,
        sent_ns: u64,
        bytes: Bytes,
    ) -> Result<Option<Delivery>, ConsumeError> {
        let from = self.position;
        let limit = self.client.pool().info().max_batch;
        let verify_crc = self.options.verify_crc;
        let flawed = |flaw| flawed(from, flaw);
        let Inflated { bytes, more } = inflate(bytes, limit, verify_crc).map_err(flawed)?;
        let sound = check(&bytes, from, verify_crc).map_err(flawed)?;
        let mut end = self.options.end.unwrap_or(u64::MAX);
        let next = sound.next.min(end);
        if sound.cut || more {
            // The next subscription begins there, and says what is wrong, if anything is.
            end = next;
            self.subscription = None;
        }
        self.position = next;
        let since_ns = self.since_ns;
        let mut delivery = Delivery {
            bytes,
            from,
            end,
            since_ns,
            high_water,
            next,
            sent_ns,
            filtered: None,
            trimmed: 0,
        };
        if delivery.batches().next().is_none() {
            return Ok(None);
        }
        delivery.trimmed = std::mem::take(&mut self.untold);
        // From the first record wanted on, all are: the server's clock may step back.
        self.since_ns = 0;
        self.at_oldest = false;
        Ok(Some(delivery))
    }

    /// What a filter found up to `next`.
    fn take_found(
        &mut self,
        high_water: u64,
        next: u64,
        sent_ns: u64,
        tally: FilterTally,
        bytes: Bytes,
    ) -> Result<Delivery, ConsumeError> {
        let from = self.position;
        let limit = self.client.pool().info().max_batch;
        let verify_crc = self.options.verify_crc;
        let flawed = |flaw| flawed(from, flaw);
        let Inflated { bytes, more } = inflate(bytes, limit, verify_crc).map_err(flawed)?;
        let end = self.options.end.unwrap_or(u64::MAX);
        let until = next.min(end);
        let sound = check_found(&bytes, from, until, more, verify_crc).map_err(flawed)?;
        if sound.cut {
            self.subscription = None;
        }
        self.position = sound.next.max(from);
        if tally.looked > 0 {
            // The server has passed over what arrived earlier.
            self.since_ns = 0;
            self.at_oldest = false;
        }
        let (end, next, filtered) = (end.min(self.position), self.position, Some(tally));
        let trimmed = std::mem::take(&mut self.untold);
        Ok(Delivery { bytes, from, end, since_ns: 0, high_water, next, sent_ns, filtered, trimmed })
    }

    /// A delivery without records, which tells what was trimmed up to here.
    fn nothing(&mut self) -> Delivery {
        Delivery {
            bytes: Bytes::new(),
            from: self.position,
            end: self.position,
            since_ns: 0,
            high_water: self.high_water.max(self.position),
            next: self.position,
            sent_ns: 0,
            filtered: self.options.filter.is_some().then(FilterTally::default),
            trimmed: std::mem::take(&mut self.untold),
        }
    }

    /// The server refused the subscription, or ended it.
    fn refused(&mut self, error: WireError) -> Result<(), ConsumeError> {
        let position = self.position;
        match error.code {
            ErrorCode::PositionTrimmed => {
                let oldest = error.detail;
                let go_on =
                    self.at_oldest || self.options.on_trimmed == OnTrimmed::ContinueAtOldest;
                if !go_on || oldest <= position {
                    return Err(ConsumeError::Trimmed { position, oldest });
                }
                if !self.at_oldest {
                    self.trimmed += oldest - position;
                    self.untold += oldest - position;
                }
                self.position = oldest;
                self.subscription = None;
                Ok(())
            }
            ErrorCode::ShardEnded if position >= error.detail => {
                self.ended = true;
                self.subscription = None;
                Ok(())
            }
            ErrorCode::PositionBeyondEnd => {
                Err(ConsumeError::BeyondEnd { position, high_water: error.detail })
            }
            _ => self.lost(ClientError::Refused(error)),
        }
    }

    /// Prepares to subscribe again, or gives up.
    fn lost(&mut self, error: ClientError) -> Result<(), ConsumeError> {
        let policy = self.client.options().retry;
        let now = Instant::now();
        let started = self.subscription.take().and_then(|ended| ended.started);
        // It held, though perhaps nothing was written meanwhile: this is new trouble.
        if started.is_some_and(|started| now.duration_since(started) > policy.max) {
            self.retry = Retry::default();
        }
        let since = *self.retry.since.get_or_insert(now);
        if !error.retriable() || now.duration_since(since) >= policy.deadline {
            return Err(error.into());
        }
        let wait = policy.backoff(self.retry.failures, &mut fastrand::Rng::new());
        self.retry.failures = self.retry.failures.saturating_add(1);
        self.retry.not_before = Some(now + wait.max(error.retry_after()));
        Ok(())
    }
}

impl Subscription {
    /// The delivery up to `next` is handed to the application.
    fn handed_out(&mut self, next: u64) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_ns = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        if self.receipts.note(next, received_ns, Instant::now())
            && let Some(due) = self.receipts.due()
        {
            self.report.as_mut().reset(due);
        }
    }

    /// Sends receipts, and with them what credit there is to give back, if there is room now.
    fn report(&mut self) {
        if let Ok(permit) = self.connection.try_permit() {
            give_back(permit, self.correlation, &mut self.used, &mut self.receipts);
        } else {
            self.receipts.put_off(Instant::now());
            if let Some(due) = self.receipts.due() {
                self.report.as_mut().reset(due);
            }
        }
    }

    /// The next event; gives credit back first once `refill` bytes were used, and sends receipts that are due.
    /// Waits at most `after` for the answer to the request, and for room to give credit back.
    async fn next(&mut self, refill: u64, after: Duration) -> SubscriptionEvent {
        if self.used >= refill {
            match self.connection.permit_within(after).await {
                Ok(permit) => {
                    give_back(permit, self.correlation, &mut self.used, &mut self.receipts);
                }
                Err(error) => return SubscriptionEvent::Ended(error),
            }
        } else if self.receipts.are_due(Instant::now()) {
            self.report();
        }
        let event = match self.answer_by {
            None => loop {
                tokio::select! {
                    biased;
                    event = self.events.recv() => break event,
                    () = &mut self.report, if self.receipts.due().is_some() => self.report(),
                }
            },
            Some(by) => match tokio::time::timeout_at(by, self.events.recv()).await {
                Ok(event) => event,
                Err(_) => {
                    self.connection.end_if_silent(after);
                    return SubscriptionEvent::Ended(ClientError::TimedOut { after });
                }
            },
        };
        match event {
            Some(event) => {
                self.answer_by = None;
                self.started.get_or_insert_with(Instant::now);
                if let SubscriptionEvent::Delivery { data, .. } = &event {
                    self.used += data.len() as u64;
                }
                event
            }
            None => SubscriptionEvent::Ended(ClientError::Disconnected {
                address: String::new(),
                reason: "the connection ended".to_owned(),
            }),
        }
    }
}

fn flawed(position: u64, flaw: Flaw) -> ConsumeError {
    match flaw {
        Flaw::Corrupt(error) => ConsumeError::Corrupt { position, error },
        Flaw::Gap { expected, found } => ConsumeError::Gap { expected, found },
    }
}

/// Gives `used` bytes of credit back, and tells of what was handed out.
fn give_back(
    permit: Permit<'_>,
    correlation: u64,
    used: &mut u64,
    receipts: &mut DeliveryReceipts,
) {
    let bytes = std::mem::take(used);
    let request = CreditRequest { subscription: correlation.into(), bytes: bytes.into() };
    permit.send(Kind::Credit, Control::fixed(request.to_array()), receipts.take());
}
