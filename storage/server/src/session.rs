//! What a frame makes a core do: one function from (connection, frame) to work for the engine, a reply, or
//! a request handed to the core that owns the shard.

use std::sync::Arc;

use highwater_engine::{AppendError, AppendTerms, Located, ReadError, ReaderId};
use highwater_wire::{
    ClusterInfo, ControlReply, ControlRequest, DeliveryReceipt, ErrorCode, Frame, Kind,
    PROTOCOL_VERSION, ShardId, WireError, encode_control_reply,
};

use crate::clock::wall_ns;
use crate::connection::{Connection, Subscription};
use crate::core_state::CoreState;
use crate::filter::{Filtering, Program, Span, Wanted};
use crate::flow::Flow;
use crate::options::bounds::{APPEND_WAIT_MS, FILTER_READ, RETRY_MS, SUBSCRIPTIONS};
use crate::pending::Pending;
use crate::receipts::Receipts;
use crate::request::{Append, Refusal, Request, Subscribe, parse};
use crate::router::{Answer, Ask, RemoteCredit, Signal, Terms, address};

mod fetch;

pub(crate) use fetch::begin_fetch;

/// What is to be done after a frame.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing.
    Done,
    /// The engine has work: poll it soon.
    Worked,
    /// No memory for it now; may be tried again for as long.
    Full { error: WireError, wait_ms: u64 },
    /// The connection ends.
    End(WireError),
}

/// Told to a client whose frame finds no memory.
pub(crate) fn receive_memory_spent(bytes: usize) -> WireError {
    let message =
        format!("no memory to receive a frame of {bytes} bytes: too many large frames at once");
    WireError::new(ErrorCode::OutOfMemory, message).retry_after(RETRY_MS)
}

/// Handles one frame.
pub(crate) fn handle(core: &CoreState, connection: &Connection, frame: &Frame<'_>) -> Step {
    let correlation = frame.correlation;
    let refuse = |error: WireError| {
        connection.refuse(core, correlation, &error);
        Step::Done
    };
    let request = match parse(frame) {
        Ok(request) => request,
        Err(Refusal::Fatal(error)) => return Step::End(error),
        Err(Refusal::Request(error)) if !connection.greeted.get() => return Step::End(error),
        Err(Refusal::Request(error)) => return refuse(error),
    };
    if !connection.greeted.get()
        && !matches!(request, Request::Control(ControlRequest::Hello { .. }))
    {
        let message = "the first frame on a connection has to be the greeting";
        return Step::End(WireError::new(ErrorCode::UnknownRequest, message));
    }
    match request {
        Request::Control(request) => {
            control(core, connection, correlation, request, frame.control.len())
        }
        _ if core.stopping.get() => refuse(stopping()),
        Request::Append { shard, append, batch } => {
            self::append(core, connection, correlation, shard, append, batch)
        }
        Request::Fetch { shard, fetch, filter } => {
            fetch::fetch(core, connection, correlation, shard, fetch, filter)
        }
        Request::Subscribe { shard, subscribe, filter } => {
            self::subscribe(core, connection, correlation, shard, subscribe, filter)
        }
        Request::Credit { subscription: named, bytes, receipts } => {
            // For one that ended a moment ago it comes to nothing.
            if let Some(subscription) = connection.subscriptions.borrow_mut().get_mut(&named) {
                subscription.flow.add_credit(bytes);
                if let Some(filtering) = &mut subscription.filtering {
                    filtering.heard();
                }
                let receipts = DeliveryReceipt::each(receipts);
                let count = |arrivals, at_ns| core.handed_over(arrivals, at_ns);
                subscription.receipts.credited(receipts, wall_ns(), count);
            }
            let worked = core.top_up_one(connection, named);
            if worked { Step::Worked } else { Step::Done }
        }
        Request::Unsubscribe { subscription } => {
            let ended = connection.subscriptions.borrow_mut().remove(&subscription);
            if let Some(mut subscription) = ended {
                subscription.receipts.left(|arrivals, at_ns| core.handed_over(arrivals, at_ns));
                core.unsubscribe(subscription.flow.reader, subscription.flow.owner);
            }
            Step::Done
        }
        Request::Locate { shard, start } => {
            let owner = core.owner(shard);
            if owner != core.index {
                return forward(core, connection, correlation, owner, shard, Ask::Locate(start), 0);
            }
            let located = core.engine.borrow().locate(shard, start);
            core.reply(connection, correlation, Answer::Located(located));
            Step::Done
        }
    }
}

fn stopping() -> WireError {
    WireError::new(ErrorCode::Unavailable, "the server is stopping").retry_after(1000)
}

fn control(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    request: ControlRequest,
    bytes: usize,
) -> Step {
    match request {
        ControlRequest::Hello { protocol, .. } if protocol != PROTOCOL_VERSION => {
            let message = format!(
                "protocol version {protocol} is not spoken here; this server speaks {PROTOCOL_VERSION}"
            );
            let error = WireError::new(ErrorCode::UnsupportedVersion, message);
            Step::End(error.detail(u64::from(PROTOCOL_VERSION)))
        }
        ControlRequest::Hello { client, .. } => {
            connection.greet(client);
            let hello = ControlReply::Hello(ClusterInfo {
                protocol: PROTOCOL_VERSION,
                server: env!("CARGO_PKG_VERSION").to_owned(),
                max_record: core.limits.max_record,
                max_batch: core.limits.max_batch,
                core_ports: core.core_ports.to_vec(),
                now_ns: wall_ns(),
            });
            connection.reply(Kind::ControlReply, correlation, &encode_control_reply(&hello));
            Step::Done
        }
        ControlRequest::Snapshot => snapshot(core, connection, correlation, None),
        ControlRequest::SnapshotAfter { serial } => {
            snapshot(core, connection, correlation, Some(serial))
        }
        _ if core.stopping.get() => {
            connection.refuse(core, correlation, &stopping());
            Step::Done
        }
        request => {
            if let Err(error) = core.ask_control(connection, correlation, request, bytes) {
                connection.refuse(core, correlation, &error);
            }
            Step::Done
        }
    }
}

/// The latest snapshot, unless the peer has it: `known` is its serial number.
fn snapshot(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    known: Option<u64>,
) -> Step {
    core.figures.charged(|| {
        let latest = core.published.get();
        if known == Some(latest.serial) {
            let unchanged = encode_control_reply(&ControlReply::Unchanged);
            connection.reply(Kind::ControlReply, correlation, &unchanged);
        } else {
            connection.reply_common(Kind::ControlReply, correlation, &latest.encoded);
        }
    });
    Step::Done
}

fn append(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    shard: ShardId,
    append: Append,
    batch: &[u8],
) -> Step {
    let Append { timeout_ms, partial, tell, expected } = append;
    let terms = AppendTerms { partial, tell, expected, client: connection.meters(&core.quotas) };
    let owner = core.owner(shard);
    if owner != core.index {
        let ask = |batch: &[u8]| Ask::Append { batch: batch.to_vec(), terms };
        if let Err(error) = core.may_forward(owner, batch.len(), false) {
            connection.refuse(core, correlation, &error);
            return Step::Done;
        }
        return forward(core, connection, correlation, owner, shard, ask(batch), batch.len());
    }
    let pending = Pending { connection: connection.id, correlation, ..Pending::default() };
    let slot = core.pending.borrow_mut().insert(pending);
    let now = core.clock.now();
    let tag = address(core.index, slot);
    let result = core.engine.borrow_mut().append_on(now, shard, batch, &terms, tag);
    match result {
        Ok(()) => {
            connection.pending.set(connection.pending.get() + 1);
            Step::Worked
        }
        Err(error) => {
            core.pending.borrow_mut().remove(slot);
            if matches!(error, AppendError::Busy { .. }) {
                let wait_ms = if timeout_ms == 0 { APPEND_WAIT_MS } else { timeout_ms.into() };
                return Step::Full { error: error.to_wire(), wait_ms };
            }
            connection.refuse(core, correlation, &error.to_wire());
            Step::Done
        }
    }
}

/// An append found no memory for as long as it could wait.
pub(crate) fn give_up(core: &CoreState, frame: &Frame<'_>) {
    if let Ok(Request::Append { shard, batch, .. }) = parse(frame) {
        core.engine.borrow_mut().given_up(shard, batch);
    }
}

/// A subscription to be begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub reader: ReaderId,
    pub shard: ShardId,
    pub from: u64,
    /// Most bytes that are read at once.
    pub max_bytes: usize,
    /// 0 for none.
    pub lease: u64,
}

fn subscribe(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    shard: ShardId,
    subscribe: Subscribe,
    filter: &str,
) -> Step {
    let Subscribe { from, credit, max_bytes, lease, until, since_ns } = subscribe;
    let refuse = |error: WireError| {
        connection.refuse(core, correlation, &error);
        Step::Done
    };
    let count = connection.subscriptions.borrow().len();
    if count >= SUBSCRIPTIONS {
        let message =
            format!("this connection has {count} subscriptions; the limit is {SUBSCRIPTIONS}");
        return refuse(WireError::new(ErrorCode::InvalidArgument, message));
    }
    let (readers, most) = (core.readers.borrow().len(), core.memory.waiters());
    if readers >= most {
        let message = format!("this core has {readers} subscriptions; the limit is {most}");
        return refuse(WireError::new(ErrorCode::Busy, message).retry_after(RETRY_MS));
    }
    if correlation == 0 || connection.subscriptions.borrow().contains_key(&correlation) {
        let message = format!("correlation {correlation} is 0 or names a subscription already");
        return refuse(WireError::new(ErrorCode::InvalidArgument, message));
    }
    let limit = core.limits.max_batch;
    let most = if max_bytes == 0 { limit.min(256 << 10) } else { max_bytes.min(limit) } as usize;
    let owner = core.owner(shard);
    let reader = core.new_reader(connection, correlation);
    let receipts = Receipts::new(&core.unreceipted);
    let insert = |flow, filtering| {
        let subscription = Subscription { flow, remote: None, receipts, filtering };
        connection.subscriptions.borrow_mut().insert(correlation, subscription);
    };
    if filter.is_empty() {
        insert(Flow::new(reader, owner, credit), None);
        let opening = Opening { reader, shard, from, max_bytes: most, lease };
        return open(core, connection, correlation, opening, None);
    }
    let span = Span { next: from, since_ns, until };
    let filtering = Filtering::new(shard, span, most);
    insert(Flow::filtered(reader, owner, credit), Some(Box::new(filtering)));
    // What a delivery may have says nothing about what is read for it.
    let opening =
        Opening { reader, shard, from, max_bytes: FILTER_READ.min(limit as usize), lease };
    match core.program(connection, correlation, filter, Wanted::Subscription(opening)) {
        Ok(None) => Step::Done,
        Ok(program) => open(core, connection, correlation, opening, program),
        Err(error) => {
            core.forget(connection, correlation, reader);
            refuse(error)
        }
    }
}

/// Begins a subscription that the connection has, with a filter if it has one.
pub(crate) fn open(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    opening: Opening,
    program: Option<Arc<Program>>,
) -> Step {
    let Opening { reader, shard, from, max_bytes, lease } = opening;
    let refuse = |error: WireError| {
        core.forget(connection, correlation, reader);
        connection.refuse(core, correlation, &error);
        Step::Done
    };
    if core.stopping.get() {
        return refuse(stopping());
    }
    let filtered = program.is_some();
    let begun = {
        let mut subscriptions = connection.subscriptions.borrow_mut();
        let count = subscriptions.len();
        let known = subscriptions.get_mut(&correlation);
        known.filter(|known| known.flow.reader == reader).map(|subscription| {
            if let (Some(filtering), Some(program)) = (&mut subscription.filtering, program) {
                filtering.begin(program);
            }
            let granted = core.grant(&mut subscription.flow, connection, count);
            let owner = subscription.flow.owner;
            subscription.remote = (owner != core.index).then(|| RemoteCredit::opening(granted));
            (granted, owner, subscription.remote.clone())
        })
    };
    let Some((granted, owner, remote)) = begun else {
        let message = "the subscription was ended before its filter was compiled";
        return refuse(WireError::new(ErrorCode::InvalidArgument, message));
    };
    let terms = Terms { client: connection.meters(&core.quotas), lease, filtered };
    if let Some(credit) = remote {
        let ask = Ask::Subscribe { reader, from, max_bytes, credit, terms };
        let pending = Pending {
            connection: connection.id,
            correlation,
            forwarded: Some((owner, 0)),
            ..Pending::default()
        };
        return match core.forward(connection, pending, owner, shard, ask) {
            Ok(_) => Step::Done,
            Err(error) => refuse(error),
        };
    }
    let result = core.engine_subscribe(shard, reader, from, granted, max_bytes, terms);
    if result.is_err() {
        core.forget(connection, correlation, reader);
    }
    core.reply(connection, correlation, Answer::Subscribed(reader, result));
    Step::Worked
}

fn forward(
    core: &CoreState,
    connection: &Connection,
    correlation: u64,
    owner: usize,
    shard: ShardId,
    ask: Ask,
    bytes: usize,
) -> Step {
    let forwarded = Some((owner, bytes));
    let pending =
        Pending { connection: connection.id, correlation, forwarded, ..Pending::default() };
    if let Err(error) = core.forward(connection, pending, owner, shard, ask) {
        connection.refuse(core, correlation, &error);
    }
    Step::Done
}

impl CoreState {
    /// Begins a subscription in the engine, on its terms.
    pub fn engine_subscribe(
        &self,
        shard: ShardId,
        reader: ReaderId,
        from: u64,
        credit: u64,
        max_bytes: usize,
        terms: Terms,
    ) -> Result<Located, ReadError> {
        let Terms { client, lease, filtered } = terms;
        let (now, mut engine) = (self.clock.now(), self.engine.borrow_mut());
        if client.is_none() && lease == 0 && !filtered {
            return engine.subscribe(now, shard, from, credit, max_bytes, reader);
        }
        engine.leased(shard, lease)?;
        // Nothing is delivered before it obeys all of them.
        let located = engine.subscribe(now, shard, from, 0, max_bytes, reader)?;
        engine.limit(reader, client);
        engine.bind(reader, lease);
        if filtered {
            engine.filter(reader);
        }
        engine.credit(now, reader, credit);
        Ok(located)
    }

    /// Ends a reader, wherever it is served.
    pub fn unsubscribe(&self, reader: ReaderId, owner: usize) {
        self.readers.borrow_mut().remove(&reader);
        if owner == self.index {
            self.engine.borrow_mut().unsubscribe(reader);
        } else {
            self.signal(owner, Signal::Unsubscribe { reader });
        }
    }
}
