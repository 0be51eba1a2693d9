//! The producer: records in, partitioned and gathered into batches, receipts out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_wire::{
    BatchBuilder, Header, MAX_KEY_CHARS, Packer, ShardDescription, StreamDescription,
};
use tokio::sync::Semaphore;

use crate::gather::{Entry, Queue, Refused, Setup, Table};
use crate::identity::Identity;
use crate::partition::Partitioner;
use crate::router::{Heirs, LeafStart, Router};
use crate::{Client, ClientError, ProducerOptions, Receipt, SendError};

/// A record to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Partition key: at most 256 characters of UTF-8. Records of one key stay in order. Empty: any shard.
    pub key: &'a [u8],
    /// Names and values that travel with the record.
    pub headers: &'a [Header<'a>],
    /// Payload.
    pub payload: &'a [u8],
    /// The producer's time, nanoseconds since 1970 UTC; `None` for now.
    pub timestamp_ns: Option<u64>,
    /// Chooses the shard instead of the key's MD5.
    pub hash_key: Option<u128>,
}

impl<'a> Record<'a> {
    /// A record of key and payload.
    pub fn new(key: &'a [u8], payload: &'a [u8]) -> Record<'a> {
        Record { key, payload, ..Record::default() }
    }
}

/// Sends records to all shards of a stream, and to those that take over when some are split or merged. Cheap to
/// clone. When the last clone is dropped, what was accepted is still sent; [`close`](Producer::close) waits for that.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: Arc<StreamDescription>,
    queues: Arc<Queues>,
    memory: Arc<Semaphore>,
    /// Callers waiting for memory.
    waiting: AtomicUsize,
    max_record: u32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queues.each(Queue::close);
    }
}

/// The queues of the shards that are open as far as is known, and which record goes to which.
#[derive(Debug)]
struct Queues {
    setup: Arc<Setup>,
    table: RwLock<Lanes>,
    this: Weak<Queues>,
}

#[derive(Debug)]
struct Lanes {
    partitioner: Partitioner,
    queues: BTreeMap<u32, Arc<Queue>>,
}

impl Queues {
    fn read(&self) -> RwLockReadGuard<'_, Lanes> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, act: impl Fn(&Queue)) {
        self.read().queues.values().for_each(|queue| act(queue));
    }

    /// The queue for a record.
    fn of(&self, record: &Record<'_>) -> Option<Arc<Queue>> {
        let table = self.read();
        let shard = table.partitioner.shard(record.key, record.hash_key)?;
        table.queues.get(&shard).cloned()
    }
}

impl Table for Queues {
    fn turn_from(&self, shard: u32) {
        self.read().partitioner.turn_from(shard);
    }

    fn replace(&self, queue: &Arc<Queue>, heirs: &Heirs) {
        let mut packer = Packer::new(self.setup.compression);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever looked it up before is sent back here, and finds the heirs: behind what it held.
        queue.give_up(&mut packer);
        let closed = queue.is_closed();
        table.queues.remove(&queue.shard);
        for (shard, _) in heirs {
            table.queues.entry(*shard).or_insert_with(|| {
                let this: Weak<dyn Table> = Weak::<Queues>::clone(&self.this);
                Arc::new(Queue::new(*shard, None, &self.setup, this, closed))
            });
        }
        table.partitioner = table.partitioner.replaced(queue.shard, heirs);
    }
}

/// Counts a caller who waits for memory.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Producer {
    pub(crate) fn new(
        client: Client,
        stream: StreamDescription,
        options: ProducerOptions,
    ) -> Result<Producer, ClientError> {
        let open: Vec<_> = stream.shards.iter().filter(|shard| !shard.closed).collect();
        if open.is_empty() {
            return Err(ClientError::Protocol(format!(
                "stream {} has no open shards",
                stream.name
            )));
        }
        let info = client.info();
        let memory = options.memory.max(info.max_batch as usize).min(u32::MAX as usize);
        let memory = Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS)));
        let compression = options.appender.compression;
        let identity = Arc::new(Identity::new(client.clone(), options.appender.name.clone()));
        let setup = Arc::new(Setup {
            router: Router::new(client, &stream, options.appender, identity),
            memory: Arc::clone(&memory),
            batch_bytes: options.batch_bytes.min(info.max_batch as usize),
            linger: options.linger,
            compression,
            sent: Mutex::default(),
        });
        let partitioner = Partitioner::new(&stream, fastrand::usize(..open.len()));
        let queues = Arc::new_cyclic(|this: &Weak<Queues>| {
            let queue = |shard: &&ShardDescription| {
                let table: Weak<dyn Table> = Weak::<Queues>::clone(this);
                let start = Some(LeafStart::of(shard, None));
                (shard.shard, Arc::new(Queue::new(shard.shard, start, &setup, table, false)))
            };
            let queues = open.iter().map(queue).collect();
            let table = RwLock::new(Lanes { partitioner, queues });
            Queues { setup: Arc::clone(&setup), table, this: Weak::clone(this) }
        });
        let max_record = info.max_record;
        let waiting = AtomicUsize::new(0);
        let stream = Arc::new(stream);
        let inner = Inner { stream, queues, memory, waiting, max_record };
        Ok(Producer { inner: Arc::new(inner) })
    }

    /// The stream, as it was when the producer was made.
    pub fn stream(&self) -> &StreamDescription {
        &self.inner.stream
    }

    /// Accepts a record; waits while the memory set aside is spent. The record is copied, and sent even if
    /// the receipt is dropped. Cancelled while it waits, it has accepted nothing.
    pub async fn send(&self, record: Record<'_>) -> Result<Receipt, SendError> {
        let inner = &*self.inner;
        let headers: usize = record.headers.iter().map(|h| 3 + h.name.len() + h.value.len()).sum();
        self.check(&record, headers)?;
        let bytes = BatchBuilder::record_len(record.key.len(), headers, record.payload.len());
        inner.reserve(bytes).await;
        let timestamp_ns = record.timestamp_ns.unwrap_or_else(now_ns);
        let hurry = inner.waiting.load(Ordering::Relaxed) > 0;
        let accepted = inner.accept(&Entry { record: &record, timestamp_ns, bytes, hurry });
        if accepted.is_err() {
            inner.memory.add_permits(bytes);
        }
        accepted
    }

    /// Why the oldest records that were sent are not acknowledged yet, as the server last said or the connection failed:
    /// they are sent again. `None` if nothing is held up, or no reply has come yet.
    pub fn held_up_by(&self) -> Option<ClientError> {
        self.inner.queues.setup.router.held_up_by()
    }

    /// Sends what has gathered and waits until everything accepted so far is acknowledged or has failed;
    /// the first failure, if any.
    pub async fn flush(&self) -> Result<(), SendError> {
        let setup = &self.inner.queues.setup;
        // What is not passed on first: it may be passed on meanwhile.
        let queues: Vec<_> = self.inner.queues.read().queues.values().cloned().collect();
        let mut batches: Vec<_> = queues.iter().flat_map(|queue| queue.flush()).collect();
        {
            let sent = setup.sent.lock().unwrap_or_else(PoisonError::into_inner);
            batches.extend(sent.iter().map(Arc::clone));
        }
        let mut outcome = Ok(());
        for batch in batches {
            let result = batch.done().await;
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Accepts nothing more, from any clone, and [flushes](Self::flush).
    pub async fn close(&self) -> Result<(), SendError> {
        self.inner.queues.each(Queue::close);
        self.flush().await
    }

    fn check(&self, record: &Record<'_>, headers: usize) -> Result<(), SendError> {
        let (bytes, limit) =
            (record.key.len() + headers + record.payload.len(), self.inner.max_record);
        if bytes > limit as usize {
            return Err(SendError::RecordTooLarge { bytes, limit });
        }
        let key = std::str::from_utf8(record.key).map_err(|_| SendError::KeyNotUtf8)?;
        if key.len() > MAX_KEY_CHARS {
            let chars = key.chars().count();
            if chars > MAX_KEY_CHARS {
                return Err(SendError::KeyTooLong { chars, limit: MAX_KEY_CHARS });
            }
        }
        Ok(())
    }
}

impl Inner {
    fn accept(&self, entry: &Entry<'_>) -> Result<Receipt, SendError> {
        loop {
            let queue = self.queues.of(entry.record).ok_or_else(|| {
                let reason = "no shard of the stream holds the record's hash key";
                ClientError::Protocol(reason.to_owned())
            })?;
            match queue.push(entry) {
                Ok(receipt) => return Ok(receipt),
                Err(Refused::For(error)) => return Err(error),
                Err(Refused::Replaced) => {}
            }
        }
    }

    /// Sets memory aside; the acknowledgement of the batch gives it back.
    async fn reserve(&self, bytes: usize) {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = self.memory.try_acquire_many(permits) {
            return permit.forget();
        }
        // Whatever lingers now holds the memory waited for.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.queues.each(Queue::hurry);
        // The semaphore is never closed.
        if let Ok(permit) = self.memory.acquire_many(permits).await {
            permit.forget();
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
