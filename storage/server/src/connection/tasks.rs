//! The tasks of a connection: a reader that is never cancelled, and a writer.

use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use highwater_ring::{SEND_NOW, send_now};
use highwater_wire::{Decoded, ErrorCode, Frame, WireError, decode_frame};
use tokio::time::Instant;
use tokio_uring::buf::BoundedBuf;

use super::{Connection, State};
use crate::core_state::CoreState;
use crate::options::bounds::{APPEND_WAIT_MS, FRAME_STALL_S, LINGER_MS};
use crate::outgoing::advance;
use crate::receive::{Exhausted, ReceiveBuffer};
use crate::request::frame_error;
use crate::session::{self, Step};

/// Buffers of one `writev`: IOV_MAX.
const WRITE_BUFS: usize = 1024;
/// Bytes of one `writev`, about.
const WRITE_BYTES: usize = 1 << 20;

/// Serves a connection until it is over.
pub(crate) async fn serve(core: Rc<CoreState>, connection: Rc<Connection>) {
    let _registered = core.register(&connection);
    let writer = tokio_uring::spawn(write(Rc::clone(&core), Rc::clone(&connection)));
    read(&core, &connection).await;
    core.unsubscribe_all(&connection);
    core.end_waits(&connection);
    connection.out_ready.notify_one();
    if writer.await.is_err() {
        // It panicked; the connection's accounts are not to be trusted.
        core.fail("a connection's writer panicked");
    }
    let held = connection.out.borrow_mut().clear();
    core.held.set(core.held.get().saturating_sub(held));
    core.relieve();
}

/// Refuses a connection beyond the bound.
pub(crate) async fn turn_away(core: Rc<CoreState>, connection: Rc<Connection>, error: WireError) {
    connection.refuse(&core, 0, &error);
    connection.finish(core.clock.now().mono_ns);
    serve(core, connection).await;
}

async fn read(core: &Rc<CoreState>, connection: &Connection) {
    let mut buffer = ReceiveBuffer::new(Rc::clone(&core.receive_budget));
    let mut need = 0;
    loop {
        while !connection.may_read() {
            connection.readable.notified().await;
        }
        let Ok(buf) = lend(core, connection, &mut buffer, need).await else {
            end(core, connection, &session::receive_memory_spent(need));
            return discard(connection).await;
        };
        let filled = buf.len();
        connection.frame_ticks.set(0);
        connection.unfinished.set(filled > 0);
        let (result, slice) = connection.socket.read(buf.slice(filled..)).await;
        connection.unfinished.set(false);
        let read = match result {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                buffer.give_back(slice.into_inner(), 0);
                continue;
            }
            Err(_) => return connection.cut(),
        };
        buffer.give_back(slice.into_inner(), read);
        if read == 0 {
            if connection.state.get() == State::Open {
                connection.state.set(State::Answering);
            }
            return;
        }
        if connection.state.get() > State::Open {
            return discard(connection).await;
        }
        match frames(core, connection, &mut buffer).await {
            Ok(bytes) => need = bytes,
            Err(error) => {
                if error.code != ErrorCode::UnsupportedVersion {
                    core.figures.malformed();
                }
                end(core, connection, &error);
                return discard(connection).await;
            }
        }
    }
}

/// The receive buffer with room for the next frame. Where there is no memory for that the peer waits until
/// others have had theirs, as long as they may take for it.
async fn lend(
    core: &CoreState,
    connection: &Connection,
    buffer: &mut ReceiveBuffer,
    need: usize,
) -> Result<Vec<u8>, Exhausted> {
    let deadline = Instant::now() + Duration::from_secs(2 * u64::from(FRAME_STALL_S));
    loop {
        // From here on nothing that comes back is missed.
        let returned = core.receive_budget.returned();
        match buffer.lend(need) {
            Err(Exhausted) if connection.state.get() == State::Open => tokio::select! {
                () = returned => {}
                // It is to end.
                () = connection.readable.notified() => {}
                () = tokio::time::sleep_until(deadline) => return Err(Exhausted),
            },
            result => return result,
        }
    }
}

/// Handles all whole frames in the buffer; how many bytes the next one needs.
async fn frames(
    core: &Rc<CoreState>,
    connection: &Connection,
    buffer: &mut ReceiveBuffer,
) -> Result<usize, WireError> {
    let mut worked = false;
    let need = loop {
        // One read may bring many requests with long replies.
        while !connection.may_read() {
            if std::mem::take(&mut worked) {
                core.poll();
            }
            connection.readable.notified().await;
        }
        if connection.state.get() > State::Open {
            // The next read looks after it.
            break 0;
        }
        let (step, used, correlation) = match decode_frame(buffer.bytes(), core.max_frame) {
            Ok(Decoded::Frame(frame, used)) => {
                connection.slow_ticks.set(0);
                core.figures.requested();
                let mut step = session::handle(core, connection, &frame);
                if let Step::Full { wait_ms, .. } = step {
                    core.figures.stalled();
                    let wait_ms = wait_ms.min(APPEND_WAIT_MS);
                    step = wait_for_memory(core, connection, &frame, wait_ms).await;
                    if matches!(step, Step::Full { .. }) {
                        session::give_up(core, &frame);
                    }
                }
                (step, used, frame.correlation)
            }
            Ok(Decoded::Need(need)) => break need,
            Err(error) => {
                if worked {
                    core.poll();
                }
                return Err(frame_error(&error));
            }
        };
        buffer.consume(used);
        match step {
            Step::Done => {}
            Step::Worked => worked = true,
            Step::Full { error, .. } => connection.refuse(core, correlation, &error),
            Step::End(error) => {
                if worked {
                    core.poll();
                }
                return Err(error);
            }
        }
    };
    // Submit what this read brought as one, and reap what is there: under load the eventfd hardly ever
    // has to wake anybody.
    if worked {
        core.poll();
    }
    Ok(need)
}

/// Rather than refuse an append for want of memory at once, leave it in the receive buffer until a commit
/// group has given some back: the peer feels it as TCP backpressure.
async fn wait_for_memory(
    core: &Rc<CoreState>,
    connection: &Connection,
    frame: &Frame<'_>,
    wait_ms: u64,
) -> Step {
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    loop {
        // What came before it in this read is submitted, or it would wait for itself.
        core.poll();
        let step = session::handle(core, connection, frame);
        let Step::Full { error, .. } = &step else { return step };
        let now = Instant::now();
        if now >= deadline {
            return step;
        }
        let again = now + Duration::from_millis(error.retry_after_ms.max(1).into());
        // Not a socket operation: its wait may be given up.
        let _ = tokio::time::timeout_at(deadline.min(again), core.space.notified()).await;
    }
}

/// Says why, and begins to end.
fn end(core: &CoreState, connection: &Connection, error: &WireError) {
    connection.refuse(core, 0, error);
    connection.finish(core.clock.now().mono_ns);
}

/// Reads on without looking, until the peer has closed: closing a socket with bytes unread would reset it,
/// and the peer might never see the last reply.
async fn discard(connection: &Connection) {
    let mut buf = vec![0; 16 << 10];
    loop {
        let (result, back) = connection.socket.read(buf).await;
        buf = back;
        match result {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return connection.cut(),
        }
    }
}

async fn write(core: Rc<CoreState>, connection: Rc<Connection>) {
    let mut bufs = Vec::new();
    // Bytes that went without waiting.
    let mut at_once = 0;
    loop {
        if bufs.is_empty() {
            connection.out.borrow_mut().take(WRITE_BUFS, WRITE_BYTES, &mut bufs);
        }
        if connection.state.get() == State::Over {
            return;
        }
        if bufs.is_empty() {
            match connection.state.get() {
                State::Answering if connection.pending.get() == 0 => break,
                State::Flushing => break,
                _ => connection.out_ready.notified().await,
            }
            continue;
        }
        // In one piece: what is cut is sent as small segments.
        let whole = bufs.len() <= SEND_NOW;
        let sent = if whole { send_now(&connection.socket, &bufs) } else { Ok(0) };
        let result = match sent {
            Ok(n) if n > 0 => Ok(n),
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => Err(e),
            _ => {
                at_once = 0;
                let (result, back) = connection.socket.writev(bufs).await;
                bufs = back;
                result
            }
        };
        match result {
            Ok(n) if n > 0 => {
                advance(&mut bufs, n);
                connection.sent(&core, n);
                at_once += n;
                if at_once >= WRITE_BYTES {
                    // Others have their turn.
                    at_once = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return connection.cut(),
        }
    }
    // All is out. The peer reads the end and closes; it has a while for that.
    connection.state.set(State::Flushing);
    let _ = connection.socket.shutdown(Shutdown::Write);
    let linger = core.clock.now().mono_ns + LINGER_MS * 1_000_000;
    connection.deadline.set(Some(linger));
}
