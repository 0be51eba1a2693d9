//! The reader of one shard: a task of its own, which brings what it reads to the member.

use highwater_wire::StreamDescription;
use tokio::sync::mpsc;

use crate::{Client, ConsumeError, ConsumerOptions, Delivery, Start};

/// What a reader brings.
#[derive(Debug)]
pub(super) enum Read {
    Records(Delivery),
    /// At the end of a closed shard, or where it was to end.
    End {
        position: u64,
        closed: bool,
    },
    Failed(ConsumeError),
}

/// The reader of one shard.
pub(super) struct Reading {
    pub client: Client,
    pub stream: StreamDescription,
    pub shard: u32,
    pub lease: u64,
    pub start: Start,
    pub options: ConsumerOptions,
}

impl Reading {
    pub async fn run(self, sender: mpsc::Sender<(u32, u64, Read)>) {
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
