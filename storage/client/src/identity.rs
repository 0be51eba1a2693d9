//! Who the batches are from: ids given out one by one, or the one id of a name, whose epoch fences those before.

use highwater_wire::{ErrorCode, ProducerStamp, WireError};
use tokio::sync::Mutex;

use crate::{Client, ClientError};

/// Gives out producer ids to those who append for one producer.
#[derive(Debug)]
pub(crate) struct Identity {
    client: Client,
    name: Option<String>,
    /// Of a named producer: what it was opened as last.
    opened: Mutex<Option<ProducerStamp>>,
}

impl Identity {
    pub(crate) fn new(client: Client, name: Option<String>) -> Identity {
        Identity { client, name, opened: Mutex::new(None) }
    }

    /// An id to begin with, tried for until the retry deadline.
    pub(crate) async fn first(&self) -> Result<ProducerStamp, ClientError> {
        match &self.name {
            None => self.client.new_producer().await,
            Some(name) => {
                let mut opened = self.opened.lock().await;
                match *opened {
                    Some(stamp) => Ok(stamp),
                    None => Ok(*opened.insert(self.client.open_producer(name).await?)),
                }
            }
        }
    }

    /// An id in place of `old`, tried once. `fenced_by` is the newest epoch that the server said is in force (0:
    /// none). Of a named producer a newer epoch, once for all who append for it; if that in force is not one of
    /// its own, somebody else has opened it since, and it is at its end: [`ErrorCode::ProducerFenced`].
    pub(crate) async fn renew(
        &self,
        old: ProducerStamp,
        fenced_by: u64,
    ) -> Result<ProducerStamp, ClientError> {
        let Some(name) = &self.name else { return self.client.new_producer_once().await };
        let mut opened = self.opened.lock().await;
        match *opened {
            Some(stamp) if fenced_by > u64::from(stamp.epoch) => {
                let message = format!("producer {name:?} was opened by somebody else");
                let error = WireError::new(ErrorCode::ProducerFenced, message).detail(fenced_by);
                Err(ClientError::Refused(error))
            }
            // Another of its shards was quicker.
            Some(stamp) if stamp.epoch != old.epoch || stamp.id != old.id => Ok(stamp),
            _ => Ok(*opened.insert(self.client.open_producer_once(name).await?)),
        }
    }
}
