//! Requests to the small server, with faults, and what subscriptions are due.

use std::collections::HashMap;

use highwater_wire::*;

use super::World;

/// What becomes of a request.
pub(super) enum Outcome {
    Reply(Vec<u8>),
    Nothing,
    Cut,
}

fn answer(id: u64, kind: Kind, control: &[u8], data: &[u8]) -> Outcome {
    let mut out = Vec::new();
    encode_frame(&mut out, kind, id, control, data);
    Outcome::Reply(out)
}

fn refuse(id: u64, error: &WireError) -> Outcome {
    answer(id, Kind::Error, &encode_error(error), &[])
}

pub(super) struct Subscription {
    shard: usize,
    from: u64,
    credit: i64,
}

impl World {
    pub(super) fn request(
        &mut self,
        frame: &Frame<'_>,
        subscriptions: &mut HashMap<u64, Subscription>,
        port: u16,
    ) -> Outcome {
        let id = frame.correlation;
        match frame.kind {
            Kind::Control => {
                let request = decode_control_request(frame.control).unwrap();
                match self.control(request, port) {
                    Ok(reply) => answer(id, Kind::ControlReply, &encode_control_reply(&reply), &[]),
                    Err(error) => refuse(id, &error),
                }
            }
            Kind::Append => self.append(frame),
            Kind::Locate => {
                let reply = self.locate(LocateRequest::view(frame.control).unwrap());
                answer(id, Kind::LocateReply, &reply.to_array(), &[])
            }
            Kind::Fetch => self.fetch(id, FetchRequest::view(frame.control).unwrap()),
            Kind::Subscribe => {
                let request = SubscribeRequest::view(frame.control).unwrap();
                match self.subscribe(request) {
                    Ok((reply, subscription)) => {
                        subscriptions.insert(id, subscription);
                        answer(id, Kind::SubscribeReply, &reply.to_array(), &[])
                    }
                    Err(error) => refuse(id, &error),
                }
            }
            Kind::Credit => {
                let request = CreditRequest::view(frame.control).unwrap();
                self.receipts.extend(DeliveryReceipt::each(frame.data));
                if let Some(s) = subscriptions.get_mut(&request.subscription.to_native()) {
                    s.credit += request.bytes.to_native() as i64;
                }
                Outcome::Nothing
            }
            Kind::Unsubscribe => {
                let request = UnsubscribeRequest::view(frame.control).unwrap();
                subscriptions.remove(&request.subscription.to_native());
                Outcome::Nothing
            }
            kind => panic!("a client does not send {kind:?}"),
        }
    }

    fn append(&mut self, frame: &Frame<'_>) -> Outcome {
        let (id, request) = (frame.correlation, AppendRequest::view(frame.control).unwrap());
        if self.swallow {
            return Outcome::Nothing;
        }
        if let Some(code) = self.refuse_all {
            return refuse(id, &WireError::new(code, "as the test wants it"));
        }
        if self.strikes(self.faults.cut_before) {
            return Outcome::Cut;
        }
        if self.strikes(self.faults.refuse) {
            return refuse(id, &WireError::new(ErrorCode::Busy, "full").retry_after(1));
        }
        if self.strikes(self.faults.reshard) {
            self.reshard();
        }
        let flags = request.flags.to_native();
        assert!(flags & APPEND_TELL != 0);
        let records = BatchView::parse(frame.data).unwrap().record_count();
        let limit = (flags & APPEND_PARTIAL != 0 && self.strikes(self.faults.part))
            .then(|| self.rng.u32(..=records));
        let dropped = self.strikes(self.faults.drop_record).then(|| self.rng.u32(..records));
        self.clock += 1;
        let (arrival, expected) = (self.clock, request.expected_sequence.to_native());
        let shard = &mut self.shards[request.shard.to_native() as usize];
        let out = match shard.append(frame.data, expected, limit, dropped, arrival) {
            Ok(said) => said.encode(id, arrival, records),
            Err(error) => return refuse(id, &error),
        };
        if self.strikes(self.faults.cut_after) {
            return Outcome::Cut;
        }
        if self.strikes(self.faults.drop_reply) {
            return Outcome::Nothing;
        }
        Outcome::Reply(out)
    }

    fn fetch(&self, id: u64, request: &FetchRequest) -> Outcome {
        let at = request.shard.to_native() as usize;
        let limit = u64::from(request.max_bytes.to_native());
        let (data, next) = self.read(at, request.from.to_native(), limit);
        let (high_water, oldest) = (self.shards[at].next, self.shards[at].oldest);
        let reply =
            FetchReply { high_water: high_water.into(), oldest: oldest.into(), next: next.into() };
        answer(id, Kind::FetchReply, &reply.to_array(), &data)
    }

    fn subscribe(
        &mut self,
        request: &SubscribeRequest,
    ) -> Result<(SubscribeReply, Subscription), WireError> {
        let at = request.shard.to_native() as usize;
        let (from, shard) = (request.from.to_native(), &self.shards[at]);
        self.subscriptions += 1;
        let refused = |code, why: &str, detail| Err(WireError::new(code, why).detail(detail));
        if from < shard.oldest {
            return refused(ErrorCode::PositionTrimmed, "gone", shard.oldest);
        }
        if from > shard.next {
            return refused(ErrorCode::PositionBeyondEnd, "not yet", shard.next);
        }
        if from == shard.next && shard.closed {
            return refused(ErrorCode::ShardEnded, "no more", shard.next);
        }
        let reply = SubscribeReply { high_water: shard.next.into(), oldest: shard.oldest.into() };
        let credit = request.credit_bytes.to_native() as i64;
        Ok((reply, Subscription { shard: at, from, credit }))
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

    /// What subscriptions are due; `Err` cuts the connection.
    pub(super) fn deliver(
        &mut self,
        subscriptions: &mut HashMap<u64, Subscription>,
    ) -> Result<Vec<u8>, ()> {
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
