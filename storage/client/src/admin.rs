//! What an operator asks for: settings of a stream, its shards, what it gives up, quotas of client names.

use highwater_wire::{
    ClientQuota, ControlReply, ControlRequest, DeliveryConfig, GroupDescription, Kind, Quota,
    Redriven, ResetPosition, ResetTo, SequenceRange, StreamChange, StreamDescription, TrimBefore,
};

use crate::client::{Repeat, done, stream};
use crate::connection::unexpected;
use crate::{Client, ClientError};

/// How the positions of a group are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReset {
    /// In which stream; empty for all where it has positions.
    pub stream: String,
    /// Of which shard; of all of them if `None`.
    pub shard: Option<u32>,
    /// Where to.
    pub to: ResetTo,
    /// And then on by so many records, or back; no further than what is kept.
    pub shift: i64,
    /// Only tell what would be done.
    pub dry_run: bool,
}

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

    /// One group with its backlog, in all streams where it has positions or members.
    pub async fn describe_group(&self, group: &str) -> Result<Vec<GroupDescription>, ClientError> {
        let request = ControlRequest::DescribeGroup { group: group.to_owned() };
        match self.control(request, Repeat::Yes).await? {
            ControlReply::Groups(groups) => Ok(groups),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// Sets a group's positions. Not tried again after a lost connection: a shift would be made twice.
    pub async fn reset_group(
        &self,
        group: &str,
        reset: &GroupReset,
    ) -> Result<Vec<ResetPosition>, ClientError> {
        let request = ControlRequest::ResetGroup {
            group: group.to_owned(),
            stream: reset.stream.clone(),
            shard: reset.shard,
            to: reset.to,
            shift: reset.shift,
            dry_run: reset.dry_run,
        };
        match self.control(request, Repeat::No).await? {
            ControlReply::Reset(positions) => Ok(positions),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// Forgets a group's positions, in one stream or, for the empty name, in all.
    pub async fn delete_group(&self, group: &str, stream: &str) -> Result<(), ClientError> {
        let (group, stream) = (group.to_owned(), stream.to_owned());
        let request = ControlRequest::DeleteGroup { group, stream };
        done(self.control(request, Repeat::No).await?)
    }

    /// Has a group settle the records of a stream one by one, or go back to positions. The group need not exist yet.
    pub async fn set_group(
        &self,
        group: &str,
        stream: &str,
        delivery: Option<DeliveryConfig>,
    ) -> Result<(), ClientError> {
        let (group, stream) = (group.to_owned(), stream.to_owned());
        let request = ControlRequest::SetGroup { group, stream, delivery };
        done(self.control(request, Repeat::Yes).await?)
    }

    /// Hands records of a shard out again to a group that settles record by record: to it alone, from the first attempt.
    /// Those that are not kept any more are told. Repeating it does no harm while they are not settled.
    pub async fn redrive(
        &self,
        group: &str,
        stream: &str,
        shard: u32,
        ranges: &[SequenceRange],
    ) -> Result<Redriven, ClientError> {
        let (group, stream, ranges) = (group.to_owned(), stream.to_owned(), ranges.to_vec());
        let request = ControlRequest::Redrive { group, stream, shard, ranges };
        match self.control(request, Repeat::Yes).await? {
            ControlReply::Redriven(redriven) => Ok(redriven),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }

    /// The quotas of client names.
    pub async fn client_quotas(&self) -> Result<Vec<ClientQuota>, ClientError> {
        match self.control(ControlRequest::ListClientQuotas, Repeat::Yes).await? {
            ControlReply::ClientQuotas(quotas) => Ok(quotas),
            _ => Err(unexpected(Kind::ControlReply)),
        }
    }
}
