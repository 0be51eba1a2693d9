//! Requests from the wire, each to the function that carries it out.

use highwater_wire::{ControlReply, ControlRequest, StreamDescription, WireError};

use super::{Claim, Commit, Control, ControlError, GroupReset, Join, Settle};

impl Control {
    /// Carries out a request from the wire (all but the greeting and the snapshot, which are the server's).
    /// `ports[i]` is the port of core `i`.
    pub fn handle(
        &mut self,
        request: ControlRequest,
        ports: &[u16],
    ) -> Result<ControlReply, WireError> {
        let with_ports = |mut stream: StreamDescription| {
            for shard in &mut stream.shards {
                shard.port = ports.get(shard.core as usize).copied().unwrap_or(0);
            }
            stream
        };
        let stream = |described| ControlReply::Stream(with_ports(described));
        let reply = match request {
            ControlRequest::CreateStream { name, config } => {
                self.create_stream(&name, config).map(stream)
            }
            ControlRequest::ListStreams => self
                .list_streams()
                .map(|all| ControlReply::Streams(all.into_iter().map(with_ports).collect())),
            ControlRequest::DescribeStream { name } => self.describe(&name).map(stream),
            ControlRequest::DeleteStream { name } => {
                self.delete_stream(&name).map(|()| ControlReply::Done)
            }
            ControlRequest::SetStream { name, change } => {
                self.set_stream(&name, &change).map(stream)
            }
            ControlRequest::Split { name, shard, at } => self.split(&name, shard, &at).map(stream),
            ControlRequest::Merge { name, shards } => self.merge(&name, &shards).map(stream),
            ControlRequest::Reshard { name, shards } => self.reshard(&name, shards).map(stream),
            ControlRequest::Trim { name, shard, before } => {
                self.trim(&name, shard, before).map(stream)
            }
            ControlRequest::NewProducer => {
                self.new_producer().map(|(id, epoch)| ControlReply::Producer { id, epoch })
            }
            ControlRequest::OpenProducer { name } => {
                self.open_producer(&name).map(|(id, epoch)| ControlReply::Producer { id, epoch })
            }
            ControlRequest::SetClientQuota { client, quota } => {
                self.set_client_quota(&client, quota).map(|()| ControlReply::Done)
            }
            ControlRequest::ListClientQuotas => {
                self.client_quotas().map(ControlReply::ClientQuotas)
            }
            // Whoever gathers commits takes them before.
            ControlRequest::CommitPositions { .. } | ControlRequest::CommitLeased { .. } => {
                let commit = Commit::of(request).ok_or(ControlError::NotMine);
                commit
                    .and_then(|commit| self.commit_positions(&[commit]).remove(0))
                    .map(|()| ControlReply::Done)
            }
            ControlRequest::FetchPositions { group, stream } => {
                self.fetch_positions(&group, &stream).map(ControlReply::Positions)
            }
            ControlRequest::ListGroups { stream } => {
                self.list_groups(&stream).map(ControlReply::Groups)
            }
            ControlRequest::DescribeGroup { group } => {
                self.describe_group(&group).map(ControlReply::Groups)
            }
            ControlRequest::ResetGroup { group, stream, shard, to, shift, dry_run } => {
                let reset = GroupReset { shard, to, shift, dry_run };
                self.reset_group(&group, &stream, &reset).map(ControlReply::Reset)
            }
            ControlRequest::DeleteGroup { group, stream } => {
                self.delete_group(&group, &stream).map(|()| ControlReply::Done)
            }
            ControlRequest::JoinGroup {
                ref group,
                ref stream,
                member,
                ref name,
                fixed,
                session_ms,
                start,
            } => {
                let join = Join { group, stream, member, name, fixed, session_ms, start };
                self.join_group(&join).map(ControlReply::Membership)
            }
            ControlRequest::Heartbeat { group, stream, member, released } => {
                self.heartbeat(&group, &stream, member, &released).map(ControlReply::Membership)
            }
            ControlRequest::LeaveGroup { group, stream, member } => {
                self.leave_group(&group, &stream, member).map(|()| ControlReply::Done)
            }
            ControlRequest::SetGroup { group, stream, delivery } => {
                self.set_group(&group, &stream, delivery).map(|()| ControlReply::Done)
            }
            ControlRequest::Claim {
                ref group,
                ref stream,
                member,
                shard,
                lease,
                from,
                to,
                most,
            } => {
                let claim = Claim { group, stream, member, shard, lease, from, to, most };
                self.claim(&claim).map(ControlReply::Claimed)
            }
            // As with commits.
            ControlRequest::Settle { .. } => {
                let settle = Settle::of(request).ok_or(ControlError::NotMine);
                settle
                    .and_then(|settle| self.commit(&[], &[settle]).settled.remove(0))
                    .map(|()| ControlReply::Done)
            }
            ControlRequest::Redrive { group, stream, shard, ranges } => {
                self.redrive(&group, &stream, shard, &ranges).map(ControlReply::Redriven)
            }
            ControlRequest::Hello { .. }
            | ControlRequest::Snapshot
            | ControlRequest::SnapshotAfter { .. } => Err(ControlError::NotMine),
        };
        reply.map_err(|e| e.to_wire())
    }
}
