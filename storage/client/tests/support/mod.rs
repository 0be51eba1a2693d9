//! A small server in memory, with faults: a list of batches per shard, sequence stamping, recognition of
//! repeated batches, subscriptions with credit.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod control;
mod requests;
mod shard;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use highwater_wire::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use requests::Outcome;
pub use shard::Shard;

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
