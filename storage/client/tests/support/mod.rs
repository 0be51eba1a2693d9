//! A small server in memory, with faults: a list of batches per shard, sequence stamping, recognition of
//! repeated batches, subscriptions with credit.

// A panic of this server is a failure of the test.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use highwater_wire::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Chances of each fault, in percent, while `budget` lasts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub seed: u64,
    pub budget: u32,
    pub refuse: u8,
    pub cut_before: u8,
    pub cut_after: u8,
    pub drop_reply: u8,
    pub cut_delivery: u8,
    /// Replies that are ready together leave in any order.
    pub reorder: bool,
    /// Only a part of a batch is decided.
    pub part: u8,
    /// A record of the batch is dropped.
    pub drop_record: u8,
    /// A shard is split in two, or two neighbours are merged.
    pub reshard: u8,
}

#[derive(Default)]
pub struct Shard {
    /// Stamped batches, with the sequence number of the first record.
    pub batches: Vec<(u64, Vec<u8>)>,
    pub next: u64,
    pub oldest: u64,
    pub closed: bool,
    /// Records dropped.
    pub dropped: u64,
    pub parents: Vec<u32>,
    /// Its range, both ends included.
    pub range: (u128, u128),
    /// By producer: epoch, the sequence expected, and what was said of each of its batches.
    producers: HashMap<u64, (u32, u64, HashMap<u64, Said>)>,
}

/// A reply to an append: where, how many were stored and decided, and which record was dropped.
#[derive(Clone, Copy)]
struct Said {
    base: u64,
    stored: u32,
    decided: u32,
    dropped: Option<u32>,
}

impl Shard {
    /// Keys and payloads, in order.
    pub fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut plain = Vec::new();
        for (_, bytes) in &self.batches {
            let batch = BatchView::parse(bytes).unwrap();
            Unpacker::default().unpack_batch(&batch, u32::MAX, &mut plain).unwrap();
        }
        let batches = BatchIter::new(&plain).map(Result::unwrap);
        batches.flat_map(|b| b.records()).map(|r| (r.key.to_vec(), r.payload.to_vec())).collect()
    }
}

#[derive(Default)]
pub struct World {
    pub shards: Vec<Shard>,
    /// Appends are swallowed: stored and answered only when they are sent again.
    pub swallow: bool,
    /// Every append is refused with this.
    pub refuse_all: Option<ErrorCode>,
    /// Port given out for every core; 0 for the server's own.
    pub core_port: u16,
    pub faults: Faults,
    rng: fastrand::Rng,
    streams: Vec<(String, u32)>,
    positions: Vec<Position>,
    pub producers: u64,
    /// Epoch of each named producer; its id counts from 1,000,000.
    names: Vec<(String, u32)>,
    pub subscriptions: u64,
    /// What consumers said they had, as they said it.
    pub receipts: Vec<DeliveryReceipt>,
    clock: u64,
}

pub struct Server {
    pub port: u16,
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

/// What becomes of a request.
enum Outcome {
    Reply(Vec<u8>),
    Nothing,
    Cut,
}

impl Server {
    pub async fn start(shards: usize, faults: Faults) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let world = World {
            shards: split_evenly(shards as u32)
                .into_iter()
                .map(|range| Shard { range: (range.start, range.end), ..Shard::default() })
                .collect(),
            rng: fastrand::Rng::with_seed(faults.seed),
            faults,
            streams: vec![("s".to_owned(), shards as u32)],
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let (changed, watching) = watch::channel(0);
        let (shared, notify) = (Arc::clone(&world), changed.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (world, changed) = (Arc::clone(&shared), notify.clone());
                tokio::spawn(serve(stream, world, changed, watching.clone()));
            }
        });
        Server { port, world, changed }
    }

    pub fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Stores one batch of one record per payload, as if a producer had sent it; arrival time as given.
    pub fn store(&self, shard: usize, arrival_ns: u64, payloads: &[&[u8]]) {
        let mut builder = BatchBuilder::default();
        for payload in payloads {
            builder.push(b"k", &[], payload, 1).unwrap();
        }
        let bytes = builder.finish(ProducerStamp::default()).to_vec();
        self.world().shards[shard].store(bytes, arrival_ns);
        self.changed.send_modify(|n| *n += 1);
    }
}

impl Shard {
    fn store(&mut self, mut bytes: Vec<u8>, arrival_ns: u64) -> u64 {
        let base = self.next;
        stamp(&mut bytes, base, arrival_ns, 1);
        self.next += u64::from(BatchView::parse(&bytes).unwrap().record_count());
        self.batches.push((base, bytes));
        base
    }

    fn append(
        &mut self,
        bytes: &[u8],
        expected: u64,
        limit: Option<u32>,
        dropped: Option<u32>,
        arrival_ns: u64,
    ) -> Result<Said, WireError> {
        let batch = BatchView::parse(bytes).unwrap();
        let mut body = Vec::new();
        batch.check_outside(&Limits::default()).unwrap();
        Unpacker::default().unpack_into(&batch, Limits::default().max_batch, &mut body).unwrap();
        batch.check_inside(&body, &Limits::default()).unwrap();
        let header = batch.header();
        let (id, sequence) = (header.producer_id.to_native(), header.producer_sequence.to_native());
        let epoch = header.producer_epoch.to_native();
        let known = self.producers.get(&id).filter(|_| id != 0);
        if let Some((newest, ..)) = known
            && epoch < *newest
        {
            let error = WireError::new(ErrorCode::ProducerFenced, "fenced");
            return Err(error.detail(u64::from(*newest)));
        }
        let known = known.filter(|(newest, ..)| *newest == epoch);
        if let Some(said) = known.and_then(|(.., known)| known.get(&sequence)) {
            return Ok(*said);
        }
        if self.closed {
            return Err(WireError::new(ErrorCode::ShardClosed, "closed"));
        }
        let next = known.map_or(0, |(_, next, _)| *next);
        if id != 0 && sequence != next {
            return Err(WireError::new(ErrorCode::OutOfSequence, "gap").detail(next));
        }
        if expected != ANY_SEQUENCE && expected != self.next {
            return Err(WireError::new(ErrorCode::SequenceMismatch, "taken").detail(self.next));
        }
        let decided = limit.map_or(batch.record_count(), |limit| limit.min(batch.record_count()));
        let dropped = dropped.filter(|at| *at < decided);
        let kept = |at: u32| at < decided && Some(at) != dropped;
        let base = self.next;
        let stored = decided - u32::from(dropped.is_some());
        if stored == batch.record_count() {
            self.store(bytes.to_vec(), arrival_ns);
        } else {
            self.store(select::cut(header, &body, decided, kept), arrival_ns);
        }
        let said = Said { base, stored, decided, dropped };
        self.dropped += u64::from(dropped.is_some());
        if id != 0 && decided > 0 {
            let known = self.producers.entry(id).or_default();
            if known.0 != epoch {
                *known = (epoch, 0, HashMap::new());
            }
            known.1 = sequence + u64::from(decided);
            known.2.insert(sequence, said);
        }
        Ok(said)
    }
}

impl Said {
    fn encode(&self, id: u64, arrival_ns: u64, records: u32) -> Vec<u8> {
        let mut reply = AppendReply::whole(self.base, arrival_ns, self.stored, false);
        reply.decided = self.decided.into();
        reply.dropped = u32::from(self.dropped.is_some()).into();
        reply.retry_after_ms = u32::from(self.decided < records).into();
        let code = ErrorCode::RecordDropped as u16;
        let outcome = self.dropped.map(|at| RecordOutcome {
            first: at.into(),
            count: 1.into(),
            code: code.into(),
            reserved: 0.into(),
        });
        let data: Vec<u8> = outcome.iter().flat_map(RecordOutcome::to_array).collect();
        let mut out = Vec::new();
        encode_frame(&mut out, Kind::AppendReply, id, &reply.to_array(), &data);
        out
    }
}

impl World {
    /// Whether a fault of this chance strikes now.
    fn strikes(&mut self, percent: u8) -> bool {
        let hit = self.faults.budget > 0 && self.rng.u8(..100) < percent;
        self.faults.budget -= u32::from(hit);
        hit
    }

    /// Records dropped.
    pub fn dropped(&self) -> u64 {
        self.shards.iter().map(|shard| shard.dropped).sum()
    }

    fn stored(&self) -> u64 {
        self.shards.iter().map(|shard| shard.next).sum()
    }

    /// Of stream `s`, the shards as they are; of another, as many as it was created with.
    fn describe(&self, at: usize, port: u16) -> StreamDescription {
        let (name, shards) = &self.streams[at];
        let port = if self.core_port == 0 { port } else { self.core_port };
        let config = StreamConfig { shards: *shards, ..StreamConfig::default() };
        let mut stream = StreamDescription::evenly(name, at as u32 + 1, config);
        if at == 0 {
            let numbered = (0..).zip(&self.shards);
            let describe = |(n, s): (u32, &Shard)| ShardDescription {
                shard: n,
                hash_start: s.range.0,
                hash_end: s.range.1,
                oldest: s.oldest,
                high_water: s.next,
                closed: s.closed,
                parents: s.parents.clone(),
                ..ShardDescription::default()
            };
            stream.shards = numbered.map(describe).collect();
        }
        stream.shards.iter_mut().for_each(|shard| shard.port = port);
        stream
    }

    /// Closes `parents` and opens one shard for each of `ranges`.
    fn replace(&mut self, parents: &[u32], ranges: &[(u128, u128)]) {
        for range in ranges {
            let (range, parents) = (*range, parents.to_vec());
            self.shards.push(Shard { range, parents, ..Shard::default() });
        }
        for parent in parents {
            self.shards[*parent as usize].closed = true;
        }
    }

    pub fn split(&mut self, shard: u32) {
        let (start, end) = self.shards[shard as usize].range;
        let middle = start + (end - start) / 2;
        self.replace(&[shard], &[(start, middle), (middle + 1, end)]);
    }

    /// Merges an open shard with its neighbour above, if there is one.
    pub fn merge(&mut self, shard: u32) {
        let (start, end) = self.shards[shard as usize].range;
        let above = |s: &Shard| !s.closed && Some(s.range.0) == end.checked_add(1);
        if let Some(other) = self.shards.iter().position(above) {
            let range = (start, self.shards[other].range.1);
            self.replace(&[shard, other as u32], &[range]);
        }
    }

    /// Splits or merges some open shard.
    fn reshard(&mut self) {
        let open: Vec<u32> =
            (0..).zip(&self.shards).filter(|(_, s)| !s.closed).map(|(n, _)| n).collect();
        let shard = open[self.rng.usize(..open.len())];
        if self.rng.bool() { self.split(shard) } else { self.merge(shard) }
    }

    fn control(&mut self, request: ControlRequest, port: u16) -> Result<ControlReply, WireError> {
        let find = |world: &World, name: &str| {
            let at = world.streams.iter().position(|s| s.0 == name);
            at.ok_or_else(|| WireError::new(ErrorCode::UnknownStream, format!("no stream {name}")))
        };
        Ok(match request {
            ControlRequest::Hello { .. } => {
                let limits = Limits::default();
                ControlReply::Hello(ClusterInfo {
                    protocol: PROTOCOL_VERSION,
                    server: "test".to_owned(),
                    max_record: limits.max_record,
                    max_batch: limits.max_batch,
                    core_ports: vec![port],
                    now_ns: 1,
                })
            }
            ControlRequest::CreateStream { name, config } => {
                if find(self, &name).is_ok() {
                    return Err(WireError::new(ErrorCode::StreamExists, "exists"));
                }
                self.streams.push((name, config.shards));
                ControlReply::Stream(self.describe(self.streams.len() - 1, port))
            }
            ControlRequest::ListStreams => ControlReply::Streams(
                (0..self.streams.len()).map(|at| self.describe(at, port)).collect(),
            ),
            ControlRequest::DescribeStream { name } => {
                ControlReply::Stream(self.describe(find(self, &name)?, port))
            }
            ControlRequest::DeleteStream { name } => {
                let at = find(self, &name)?;
                self.streams.remove(at);
                ControlReply::Done
            }
            ControlRequest::NewProducer => {
                self.producers += 1;
                ControlReply::Producer { id: self.producers, epoch: 1 }
            }
            ControlRequest::OpenProducer { name } => {
                let at = self.names.iter().position(|known| known.0 == name);
                let at = at.unwrap_or_else(|| {
                    self.names.push((name, 0));
                    self.names.len() - 1
                });
                self.names[at].1 += 1;
                ControlReply::Producer { id: 1_000_000 + at as u64, epoch: self.names[at].1 }
            }
            ControlRequest::CommitPositions { positions, .. } => {
                self.positions = positions;
                ControlReply::Done
            }
            ControlRequest::FetchPositions { .. } => {
                ControlReply::Positions(self.positions.clone())
            }
            ControlRequest::ListGroups { .. } => ControlReply::Groups(Vec::new()),
            ControlRequest::Snapshot => ControlReply::Snapshot(Box::default()),
            ControlRequest::SnapshotAfter { .. } => ControlReply::Unchanged,
            other => panic!("{other:?} is not scripted"),
        })
    }

    fn locate(&self, request: &LocateRequest) -> LocateReply {
        let shard = &self.shards[request.shard.to_native() as usize];
        let value = request.value.to_native();
        let sequence = match request.kind.to_native() {
            0 => shard.oldest,
            1 => shard.next,
            2 => value,
            3 => value + 1,
            // As sparse as can be: the client has to pass over what arrived earlier.
            _ => shard.oldest,
        };
        LocateReply {
            sequence: sequence.into(),
            oldest: shard.oldest.into(),
            high_water: shard.next.into(),
        }
    }

    /// Batches from `from` on, at most `limit` bytes but at least one.
    fn read(&self, shard: usize, from: u64, limit: u64) -> (Vec<u8>, u64) {
        let (mut data, mut next) = (Vec::new(), from);
        for (_, bytes) in &self.shards[shard].batches {
            let end = BatchView::parse(bytes).unwrap().end_sequence();
            if end <= next {
                continue;
            }
            if !data.is_empty() && (data.len() + bytes.len()) as u64 > limit {
                break;
            }
            data.extend_from_slice(bytes);
            next = end;
        }
        (data, next)
    }

    fn request(
        &mut self,
        frame: &Frame<'_>,
        subscriptions: &mut HashMap<u64, Subscription>,
        port: u16,
    ) -> Outcome {
        let mut out = Vec::new();
        let id = frame.correlation;
        let refuse = |error: &WireError| {
            let mut out = Vec::new();
            encode_frame(&mut out, Kind::Error, id, &encode_error(error), &[]);
            Outcome::Reply(out)
        };
        match frame.kind {
            Kind::Control => {
                let request = decode_control_request(frame.control).unwrap();
                match self.control(request, port) {
                    Ok(reply) => {
                        let archive = encode_control_reply(&reply);
                        encode_frame(&mut out, Kind::ControlReply, id, &archive, &[]);
                    }
                    Err(error) => return refuse(&error),
                }
            }
            Kind::Append => {
                let request = AppendRequest::view(frame.control).unwrap();
                if self.swallow {
                    return Outcome::Nothing;
                }
                if let Some(code) = self.refuse_all {
                    return refuse(&WireError::new(code, "as the test wants it"));
                }
                if self.strikes(self.faults.cut_before) {
                    return Outcome::Cut;
                }
                if self.strikes(self.faults.refuse) {
                    return refuse(&WireError::new(ErrorCode::Busy, "full").retry_after(1));
                }
                if self.strikes(self.faults.reshard) {
                    self.reshard();
                }
                let flags = request.flags.to_native();
                assert!(flags & APPEND_TELL != 0);
                let records = BatchView::parse(frame.data).unwrap().record_count();
                let limit = (flags & APPEND_PARTIAL != 0 && self.strikes(self.faults.part))
                    .then(|| self.rng.u32(..=records));
                let dropped =
                    self.strikes(self.faults.drop_record).then(|| self.rng.u32(..records));
                self.clock += 1;
                let (arrival, expected) = (self.clock, request.expected_sequence.to_native());
                let shard = &mut self.shards[request.shard.to_native() as usize];
                match shard.append(frame.data, expected, limit, dropped, arrival) {
                    Ok(said) => {
                        out = said.encode(id, arrival, records);
                    }
                    Err(error) => return refuse(&error),
                }
                if self.strikes(self.faults.cut_after) {
                    return Outcome::Cut;
                }
                if self.strikes(self.faults.drop_reply) {
                    return Outcome::Nothing;
                }
            }
            Kind::Locate => {
                let reply = self.locate(LocateRequest::view(frame.control).unwrap());
                encode_frame(&mut out, Kind::LocateReply, id, &reply.to_array(), &[]);
            }
            Kind::Fetch => {
                let request = FetchRequest::view(frame.control).unwrap();
                let at = request.shard.to_native() as usize;
                let limit = u64::from(request.max_bytes.to_native());
                let (data, next) = self.read(at, request.from.to_native(), limit);
                let (high_water, oldest) = (self.shards[at].next, self.shards[at].oldest);
                let reply = FetchReply {
                    high_water: high_water.into(),
                    oldest: oldest.into(),
                    next: next.into(),
                };
                encode_frame(&mut out, Kind::FetchReply, id, &reply.to_array(), &data);
            }
            Kind::Subscribe => {
                let request = SubscribeRequest::view(frame.control).unwrap();
                let at = request.shard.to_native() as usize;
                let (from, shard) = (request.from.to_native(), &self.shards[at]);
                self.subscriptions += 1;
                if from < shard.oldest {
                    let error = WireError::new(ErrorCode::PositionTrimmed, "gone");
                    return refuse(&error.detail(shard.oldest));
                }
                if from > shard.next {
                    let error = WireError::new(ErrorCode::PositionBeyondEnd, "not yet");
                    return refuse(&error.detail(shard.next));
                }
                if from == shard.next && shard.closed {
                    let error = WireError::new(ErrorCode::ShardEnded, "no more");
                    return refuse(&error.detail(shard.next));
                }
                let reply =
                    SubscribeReply { high_water: shard.next.into(), oldest: shard.oldest.into() };
                let credit = request.credit_bytes.to_native() as i64;
                subscriptions.insert(id, Subscription { shard: at, from, credit });
                encode_frame(&mut out, Kind::SubscribeReply, id, &reply.to_array(), &[]);
            }
            Kind::Credit => {
                let request = CreditRequest::view(frame.control).unwrap();
                self.receipts.extend(DeliveryReceipt::each(frame.data));
                if let Some(s) = subscriptions.get_mut(&request.subscription.to_native()) {
                    s.credit += request.bytes.to_native() as i64;
                }
            }
            Kind::Unsubscribe => {
                let request = UnsubscribeRequest::view(frame.control).unwrap();
                subscriptions.remove(&request.subscription.to_native());
            }
            kind => panic!("a client does not send {kind:?}"),
        }
        Outcome::Reply(out)
    }

    /// What subscriptions are due; `Err` cuts the connection.
    fn deliver(&mut self, subscriptions: &mut HashMap<u64, Subscription>) -> Result<Vec<u8>, ()> {
        let mut out = Vec::new();
        for (id, s) in subscriptions.iter_mut() {
            while s.credit > 0 && s.from < self.shards[s.shard].next {
                if self.strikes(self.faults.cut_delivery) {
                    return Err(());
                }
                let (data, next) = self.read(s.shard, s.from, 300);
                s.credit -= data.len() as i64;
                s.from = next;
                let header = DeliverHeader {
                    high_water: self.shards[s.shard].next.into(),
                    next: next.into(),
                    sent_ns: 1.into(),
                };
                encode_frame(&mut out, Kind::Deliver, *id, &header.to_array(), &data);
            }
        }
        subscriptions.retain(|id, s| {
            let shard = &self.shards[s.shard];
            let ended = shard.closed && s.from >= shard.next;
            if ended {
                let error = WireError::new(ErrorCode::ShardEnded, "no more").detail(shard.next);
                encode_frame(&mut out, Kind::Error, *id, &encode_error(&error), &[]);
            }
            !ended
        });
        Ok(out)
    }
}

struct Subscription {
    shard: usize,
    from: u64,
    credit: i64,
}

async fn serve(
    mut stream: TcpStream,
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    mut watching: watch::Receiver<u64>,
) {
    let port = stream.local_addr().unwrap().port();
    let mut buffer = Vec::new();
    let mut subscriptions = HashMap::new();
    loop {
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            _ = watching.changed() => {}
        }
        let (out, cut, stored) = {
            let mut world = world.lock().unwrap();
            let before = world.stored();
            let (mut replies, mut cut, mut used) = (Vec::new(), false, 0);
            while !cut
                && let Ok(Decoded::Frame(frame, len)) = decode_frame(&buffer[used..], 1 << 24)
            {
                used += len;
                match world.request(&frame, &mut subscriptions, port) {
                    Outcome::Reply(reply) => replies.push(reply),
                    Outcome::Nothing => {}
                    Outcome::Cut => cut = true,
                }
            }
            buffer.drain(..used);
            if world.faults.reorder && subscriptions.is_empty() {
                world.rng.shuffle(&mut replies);
            }
            let mut out = replies.concat();
            match world.deliver(&mut subscriptions) {
                Ok(deliveries) => out.extend_from_slice(&deliveries),
                Err(()) => cut = true,
            }
            (out, cut, world.stored() > before)
        };
        if stored {
            changed.send_modify(|n| *n += 1);
        }
        if stream.write_all(&out).await.is_err() || cut {
            return;
        }
    }
}
