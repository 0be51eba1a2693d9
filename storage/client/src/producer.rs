//! The producer: records in, partitioned and gathered into batches, receipts out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_wire::{BatchBuilder, Header, MAX_KEY_CHARS, StreamDescription};
use tokio::sync::Semaphore;

use crate::gather::{Entry, Queue, Setup};
use crate::partition::Partitioner;
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

/// Sends records to all shards of a stream. Cheap to clone. When the last clone is dropped, what was
/// accepted is still sent; [`close`](Producer::close) waits for that.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: Arc<StreamDescription>,
    partitioner: Arc<Partitioner>,
    /// By place in the description.
    queues: Vec<Arc<Queue>>,
    memory: Arc<Semaphore>,
    /// Callers waiting for memory.
    waiting: AtomicUsize,
    max_record: u32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
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
        if stream.shards.is_empty() {
            return Err(ClientError::Protocol(format!("stream {} has no shards", stream.name)));
        }
        let info = client.info();
        let memory = options.memory.max(info.max_batch as usize).min(u32::MAX as usize);
        let memory = Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS)));
        let first = fastrand::usize(..stream.shards.len());
        let partitioner = Arc::new(Partitioner::new(&stream, first));
        let stream = Arc::new(stream);
        let queues = (0..stream.shards.len()).map(|place| {
            Arc::new(Queue::new(Setup {
                client: client.clone(),
                stream: Arc::clone(&stream),
                place,
                partitioner: Arc::clone(&partitioner),
                memory: Arc::clone(&memory),
                batch_bytes: options.batch_bytes.min(info.max_batch as usize),
                linger: options.linger,
                appender: options.appender.clone(),
            }))
        });
        let queues = queues.collect();
        let max_record = info.max_record;
        let waiting = AtomicUsize::new(0);
        let inner = Inner { stream, partitioner, queues, memory, waiting, max_record };
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
        let place = inner.partitioner.place(record.key, record.hash_key).ok_or_else(|| {
            ClientError::Protocol("no shard of the stream holds the record's hash key".to_owned())
        })?;
        let bytes = BatchBuilder::record_len(record.key.len(), headers, record.payload.len());
        inner.reserve(bytes).await;
        let timestamp_ns = record.timestamp_ns.unwrap_or_else(now_ns);
        let hurry = inner.waiting.load(Ordering::Relaxed) > 0;
        let accepted =
            inner.queues[place].push(Entry { record: &record, timestamp_ns, bytes, hurry });
        if accepted.is_err() {
            inner.memory.add_permits(bytes);
        }
        accepted
    }

    /// Sends what has gathered and waits until everything accepted so far is acknowledged or has failed;
    /// the first failure, if any.
    pub async fn flush(&self) -> Result<(), SendError> {
        let receipts: Vec<_> = self.inner.queues.iter().flat_map(|queue| queue.flush()).collect();
        let mut outcome = Ok(());
        for receipt in receipts {
            let result = receipt.await.map(|_| ());
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Accepts nothing more, from any clone, and [flushes](Self::flush).
    pub async fn close(&self) -> Result<(), SendError> {
        self.inner.queues.iter().for_each(|queue| queue.close());
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
    /// Sets memory aside; the acknowledgement of the batch gives it back.
    async fn reserve(&self, bytes: usize) {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Ok(permit) = self.memory.try_acquire_many(permits) {
            return permit.forget();
        }
        // Whatever lingers now holds the memory waited for.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        self.queues.iter().for_each(|queue| queue.hurry());
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
