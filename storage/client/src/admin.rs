//! What an operator asks for: settings of a stream, its shards, what it gives up, quotas of client names.

use highwater_wire::{
    ClientQuota, ControlReply, ControlRequest, Kind, Quota, StreamChange, StreamDescription,
    TrimBefore,
};

use crate::client::{Repeat, done, stream};
use crate::connection::unexpected;
use crate::{Client, ClientError};

impl Client {
    /// Changes a stream's settings, at once and durably; the stream as it is then.
    pub async fn set_stream(
        &self,
        name: &str,
        change: StreamChange,
    ) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::SetStream { name: name.to_owned(), change };
        stream(self.control(request, Repeat::Yes).await?)
    }

    /// Splits an open shard at these hash keys, the first of the second and later children; without any the
    /// server halves the load. Not tried again after a lost connection.
    pub async fn split_shard(
        &self,
        name: &str,
        shard: u32,
        at: &[u128],
    ) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::Split { name: name.to_owned(), shard, at: at.to_vec() };
        stream(self.control(request, Repeat::No).await?)
    }

    /// Merges neighbouring open shards into one. Not tried again after a lost connection.
    pub async fn merge_shards(
        &self,
        name: &str,
        shards: &[u32],
    ) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::Merge { name: name.to_owned(), shards: shards.to_vec() };
        stream(self.control(request, Repeat::No).await?)
    }

    /// Splits and merges until `shards` shards are open. Not tried again after a lost connection.
    pub async fn reshard(&self, name: &str, shards: u32) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::Reshard { name: name.to_owned(), shards };
        stream(self.control(request, Repeat::No).await?)
    }

    /// Gives up a stream's oldest records, of one shard or of all; the stream as it is then.
    pub async fn trim_stream(
        &self,
        name: &str,
        shard: Option<u32>,
        before: TrimBefore,
    ) -> Result<StreamDescription, ClientError> {
        let request = ControlRequest::Trim { name: name.to_owned(), shard, before };
        stream(self.control(request, Repeat::Yes).await?)
    }

    /// Bounds all connections that greet with this name; a quota of zeros lifts the bound.
    pub async fn set_client_quota(&self, client: &str, quota: Quota) -> Result<(), ClientError> {
        let request = ControlRequest::SetClientQuota { client: client.to_owned(), quota };
        done(self.control(request, Repeat::Yes).await?)
    }

    /// The quotas of client names.
    pub async fn client_quotas(&self) -> Result<Vec<ClientQuota>, ClientError> {
        match self.control(ControlRequest::ListClientQuotas, Repeat::Yes).await? {
            ControlReply::ClientQuotas(quotas) => Ok(quotas),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }
}
