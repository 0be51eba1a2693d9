//! The client: streams, positions, telemetry, and the way to appenders, producers and consumers.

use std::sync::Arc;
use std::time::Duration;

use highwater_wire::telemetry::Snapshot;
use highwater_wire::{
    ClusterInfo, ControlReply, ControlRequest, ErrorCode, FetchReply, FetchRequest,
    GroupDescription, Kind, LocateReply, LocateRequest, Position, ProducerStamp, ShardDescription,
    StreamConfig, StreamDescription, decode_control_reply, encode_control_request,
};
use tokio::time::Instant;

use crate::connection::{Reply, tally, unexpected};
use crate::delivery::{Flaw, Inflated, check, check_found, inflate};
use crate::pool::Pool;
use crate::writer::Control;
use crate::{
    Acks, Appender, AppenderOptions, ClientError, ClientOptions, ConnectError, ConsumerOptions,
    Delivery, FetchOptions, Fetched, Located, Producer, ProducerOptions, ShardConsumer, Start,
};

/// A client of one server. Cheap to clone; the clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
}

/// Whether a request may be carried out twice without harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Yes,
    No,
}

impl Client {
    /// Connects to `target`, `HOST:PORT` of a server (an IPv6 address stands in brackets). Tries once,
    /// for at most `connect_timeout`. Must be called within a tokio runtime.
    pub async fn connect(target: &str, options: ClientOptions) -> Result<Client, ConnectError> {
        Ok(Client { pool: Arc::new(Pool::open(target, options).await?) })
    }

    /// What the server said in its greeting.
    pub fn info(&self) -> ClusterInfo {
        self.pool.info().clone()
    }

    /// What this client was told.
    pub fn options(&self) -> &ClientOptions {
        self.pool.options()
    }

    /// Creates a stream. Not tried again after a lost connection.
    pub async fn create_stream(
        &self,
        name: &str,
        config: StreamConfig,
    ) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::CreateStream { name: name.to_owned(), config };
        stream(self.control(request, Repeat::No).await?)
    }

    /// All streams.
    pub async fn list_streams(&self) -> Result<Vec<StreamDescription>, ClientError> {
        match self.control(ControlRequest::ListStreams, Repeat::Yes).await? {
            ControlReply::Streams(streams) => Ok(streams),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// One stream.
    pub async fn describe_stream(&self, name: &str) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::DescribeStream { name: name.to_owned() };
        stream(self.control(request, Repeat::Yes).await?)
    }

    /// Removes a stream and its records. Not tried again after a lost connection.
    pub async fn delete_stream(&self, name: &str) -> Result<(), ClientError> {
        let request = ControlRequest::DeleteStream { name: name.to_owned() };
        done(self.control(request, Repeat::No).await?)
    }

    /// The server's latest telemetry.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        match self.control(ControlRequest::Snapshot, Repeat::Yes).await? {
            ControlReply::Snapshot(snapshot) => Ok(*snapshot),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// The server's latest telemetry, if it is another than the one with this [`Snapshot::serial`]: of many shards
    /// it is megabytes, which whoever asks often need not receive again.
    pub async fn snapshot_after(&self, serial: u64) -> Result<Option<Snapshot>, ClientError> {
        match self.control(ControlRequest::SnapshotAfter { serial }, Repeat::Yes).await? {
            ControlReply::Snapshot(snapshot) => Ok(Some(*snapshot)),
            ControlReply::Unchanged => Ok(None),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// Keeps a group's positions, durably. A position may move back.
    pub async fn commit_positions(
        &self,
        group: &str,
        stream: &str,
        positions: &[Position],
    ) -> Result<(), ClientError> {
        let request = ControlRequest::CommitPositions {
            group: group.to_owned(),
            stream: stream.to_owned(),
            positions: positions.to_vec(),
        };
        done(self.control(request, Repeat::Yes).await?)
    }

    /// The positions a group committed; empty if none.
    pub async fn fetch_positions(
        &self,
        group: &str,
        stream: &str,
    ) -> Result<Vec<Position>, ClientError> {
        let request =
            ControlRequest::FetchPositions { group: group.to_owned(), stream: stream.to_owned() };
        match self.control(request, Repeat::Yes).await? {
            ControlReply::Positions(positions) => Ok(positions),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// The groups of a stream with their backlog; of all streams if the name is empty.
    pub async fn list_groups(&self, stream: &str) -> Result<Vec<GroupDescription>, ClientError> {
        let request = ControlRequest::ListGroups { stream: stream.to_owned() };
        match self.control(request, Repeat::Yes).await? {
            ControlReply::Groups(groups) => Ok(groups),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// Turns a start into a sequence number; tells the oldest one kept and the high-water mark too.
    pub async fn locate(
        &self,
        stream: &StreamDescription,
        shard: u32,
        start: Start,
    ) -> Result<Located, ClientError> {
        let port = find(stream, shard)?.port;
        let (kind, value) = match start {
            Start::Oldest => (0, 0),
            Start::Latest => (1, 0),
            Start::At(sequence) => (2, sequence),
            Start::After(sequence) => (3, sequence),
            Start::Time(ns) => (4, ns),
        };
        let request = LocateRequest {
            stream: stream.id.into(),
            shard: shard.into(),
            kind: kind.into(),
            reserved: 0.into(),
            value: value.into(),
        };
        let control = request.to_array();
        let wait = self.options().request_timeout;
        let make = || Control::fixed(control);
        let reply = self.exchange(port, Kind::Locate, make, None, wait, Repeat::Yes).await?;
        match LocateReply::view(&reply.control) {
            Some(located) if reply.kind == Kind::LocateReply => Ok(Located {
                sequence: located.sequence.to_native(),
                oldest: located.oldest.to_native(),
                high_water: located.high_water.to_native(),
            }),
            _ => Err(unexpected(reply.kind)),
        }
    }

    /// Reads once from sequence number `from`, waiting for records if `options` say so.
    pub async fn fetch(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
        options: FetchOptions,
    ) -> Result<Fetched, ClientError> {
        self.fetch_with(stream, shard, from, options, None).await
    }

    /// The same with a filter, see [`ConsumerOptions::filter`]: brings those of the records read that match, perhaps none.
    /// It may end before as much was read as was asked for: go on at [`Delivery::next`].
    pub async fn fetch_filtered(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
        options: FetchOptions,
        filter: &str,
    ) -> Result<Fetched, ClientError> {
        self.fetch_with(stream, shard, from, options, Some(filter)).await
    }

    async fn fetch_with(
        &self,
        stream: &StreamDescription,
        shard: u32,
        from: u64,
        options: FetchOptions,
        filter: Option<&str>,
    ) -> Result<Fetched, ClientError> {
        let port = find(stream, shard)?.port;
        let max_wait_ms = u32::try_from(options.max_wait.as_millis()).unwrap_or(u32::MAX);
        let request = FetchRequest {
            stream: stream.id.into(),
            shard: shard.into(),
            from: from.into(),
            max_bytes: options.max_bytes.into(),
            min_bytes: options.min_bytes.into(),
            max_wait_ms: max_wait_ms.into(),
            reserved: 0.into(),
            lease: 0.into(),
        };
        let control = request.to_array();
        let body = filter.map(|filter| Arc::new(filter.as_bytes().to_vec()));
        let wait = self.options().request_timeout.saturating_add(options.max_wait);
        let make = || Control::fixed(control);
        let reply = self.exchange(port, Kind::Fetch, make, body, wait, Repeat::Yes).await?;
        let header = match FetchReply::view(&reply.control) {
            Some(header) if reply.kind == Kind::FetchReply => header,
            _ => return Err(unexpected(reply.kind)),
        };
        let filtered = match filter {
            Some(_) => {
                Some(tally(&reply, FetchReply::LEN).ok_or_else(|| unexpected(Kind::FetchReply))?)
            }
            None => None,
        };
        let flawed = |flaw| match flaw {
            Flaw::Corrupt(error) => ClientError::Corrupt(error),
            Flaw::Gap { expected, found } => {
                ClientError::Protocol(format!("records {expected} to {found} are missing"))
            }
        };
        let (limit, verify_crc) = (self.pool.info().max_batch, options.verify_crc);
        let Inflated { bytes, more } =
            inflate(reply.data.clone(), limit, verify_crc).map_err(flawed)?;
        let sound = match filtered {
            Some(_) => check_found(&bytes, from, header.next.to_native(), more, verify_crc),
            None => check(&bytes, from, verify_crc),
        };
        let sound = sound.map_err(flawed)?;
        let delivery = Delivery {
            bytes,
            from,
            end: if sound.cut || more { sound.next } else { u64::MAX },
            since_ns: 0,
            high_water: header.high_water.to_native(),
            next: sound.next,
            sent_ns: 0,
            filtered,
            trimmed: 0,
        };
        Ok(Fetched { delivery, oldest: header.oldest.to_native() })
    }

    /// A producer for all shards of a stream.
    pub async fn producer(
        &self,
        stream: &str,
        options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        let stream = self.describe_stream(stream).await?;
        Producer::new(self.clone(), stream, options)
    }

    /// A sender of ready batches for one shard (and, once it is split or merged, for those that take over from it),
    /// and the outcomes in order of sending.
    pub async fn appender(
        &self,
        stream: &StreamDescription,
        shard: u32,
        options: AppenderOptions,
    ) -> Result<(Appender, Acks), ClientError> {
        Appender::start(self.clone(), stream, shard, options).await
    }

    /// A reader of one shard. The start is settled when this returns: after [`Start::Latest`], whatever
    /// becomes durable from then on is delivered.
    pub async fn consumer(
        &self,
        stream: &StreamDescription,
        shard: u32,
        start: Start,
        options: ConsumerOptions,
    ) -> Result<ShardConsumer, ClientError> {
        ShardConsumer::start(self.clone(), stream, shard, start, options).await
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A producer id never given out before, tried for until the retry deadline.
    pub(crate) async fn new_producer(&self) -> Result<ProducerStamp, ClientError> {
        producer(self.control(ControlRequest::NewProducer, Repeat::Yes).await?)
    }

    /// The same, tried once.
    pub(crate) async fn new_producer_once(&self) -> Result<ProducerStamp, ClientError> {
        producer(self.control_once(&ControlRequest::NewProducer).await?)
    }

    /// The producer of a name, opened anew, tried for until the retry deadline. (If the reply is lost the epoch is
    /// bumped once more, which does no harm.)
    pub(crate) async fn open_producer(&self, name: &str) -> Result<ProducerStamp, ClientError> {
        let request = ControlRequest::OpenProducer { name: name.to_owned() };
        producer(self.control(request, Repeat::Yes).await?)
    }

    /// The same, tried once.
    pub(crate) async fn open_producer_once(
        &self,
        name: &str,
    ) -> Result<ProducerStamp, ClientError> {
        producer(self.control_once(&ControlRequest::OpenProducer { name: name.to_owned() }).await?)
    }

    async fn control_once(&self, request: &ControlRequest) -> Result<ControlReply, ClientError> {
        let control = Control::Archive(encode_control_request(request));
        let connection = self.pool.shared().await?;
        let wait = self.options().request_timeout;
        control_reply(&connection.request(Kind::Control, control, None, wait).await?)
    }

    pub(crate) async fn control(
        &self,
        request: ControlRequest,
        repeat: Repeat,
    ) -> Result<ControlReply, ClientError> {
        let archive = encode_control_request(&request);
        let make = || Control::Archive(archive.clone());
        let wait = self.options().request_timeout;
        control_reply(&self.exchange(0, Kind::Control, make, None, wait, repeat).await?)
    }

    /// One request and its reply. Tried again after a refusal that will pass, until the retry deadline, and
    /// once on a new connection if the old one broke and repetition does no harm. A server that cannot be
    /// reached is reported at once.
    async fn exchange(
        &self,
        port: u16,
        kind: Kind,
        control: impl Fn() -> Control,
        body: Option<Arc<Vec<u8>>>,
        wait: Duration,
        repeat: Repeat,
    ) -> Result<Reply, ClientError> {
        let retry = self.options().retry;
        let started = Instant::now();
        let mut reconnected = false;
        let mut refusals = 0;
        loop {
            let connection = self.pool.to_core(port).await?;
            let error = match connection.request(kind, control(), body.clone(), wait).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match &error {
                ClientError::Disconnected { .. } if repeat == Repeat::Yes && !reconnected => {
                    reconnected = true;
                }
                ClientError::Refused(refusal) if passing(refusal.code) => {
                    let pause = retry.backoff(refusals, &mut fastrand::Rng::new());
                    let pause = pause.max(error.retry_after());
                    if started.elapsed() + pause > retry.deadline {
                        return Err(error);
                    }
                    refusals += 1;
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }
}

/// Refusals that say: not carried out, try later.
fn passing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Busy | ErrorCode::OutOfMemory | ErrorCode::Unavailable)
}

/// The shard's description.
pub(crate) fn find(
    stream: &StreamDescription,
    shard: u32,
) -> Result<&ShardDescription, ClientError> {
    stream.shards.iter().find(|s| s.shard == shard).ok_or_else(|| ClientError::NoShard {
        stream: stream.name.clone(),
        shard,
        shards: stream.shards.len(),
    })
}

fn control_reply(reply: &Reply) -> Result<ControlReply, ClientError> {
    match reply.kind {
        Kind::ControlReply => decode_control_reply(&reply.control)
            .map_err(|error| ClientError::Protocol(error.message)),
        kind => Err(unexpected(kind)),
    }
}

pub(crate) fn stream(reply: ControlReply) -> Result<StreamDescription, ClientError> {
    match reply {
        ControlReply::Stream(stream) => Ok(stream),
        _ => Err(unexpected(Kind::ControlReply)),
    }
}

fn producer(reply: ControlReply) -> Result<ProducerStamp, ClientError> {
    match reply {
        ControlReply::Producer { id, epoch } => Ok(ProducerStamp { id, epoch, sequence: 0 }),
        _ => Err(unexpected(Kind::ControlReply)),
    }
}

pub(crate) fn done(reply: ControlReply) -> Result<(), ClientError> {
    match reply {
        ControlReply::Done => Ok(()),
        _ => Err(unexpected(Kind::ControlReply)),
    }
}
