//! What needs no device: copies, checksums, and a round trip over loopback.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_wire::crc32c;

use super::{ProbeError, Slices};
use crate::Stop;
use crate::capacity::RoundTrip;

/// Larger than the caches.
const BYTES: usize = 64 << 20;
/// What is done between two looks at the clock.
const STEP: usize = 1 << 20;
/// A peer that answers nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes per second, one thread.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub copy: f64,
    pub crc: f64,
}

/// Copies and checksums.
pub fn measure(slices: &Slices, stop: &Stop) -> Result<Memory, ProbeError> {
    let mut from = vec![0u8; BYTES];
    fastrand::Rng::with_seed(1).fill(&mut from);
    let mut to = vec![0u8; BYTES];
    let copy = rate(slices.other, stop, |at| {
        to[at..at + STEP].copy_from_slice(&from[at..at + STEP]);
        std::hint::black_box(&mut to);
    })?;
    let crc = rate(slices.other, stop, |at| {
        std::hint::black_box(crc32c(&from[at..at + STEP]));
    })?;
    Ok(Memory { copy, crc })
}

/// Bytes per second of `step`, which deals with [`STEP`] bytes at a place.
fn rate(time: Duration, stop: &Stop, mut step: impl FnMut(usize)) -> Result<f64, ProbeError> {
    // Once through, so that every page is there.
    (0..BYTES).step_by(STEP).for_each(&mut step);
    let (began, mut done, mut at) = (Instant::now(), 0u64, 0);
    loop {
        step(at);
        at = (at + STEP) % BYTES;
        done += STEP as u64;
        let spent = began.elapsed();
        if spent >= time {
            return Ok(done as f64 / spent.as_secs_f64());
        }
        if stop.level() > 0 {
            return Err(ProbeError::Stopped);
        }
    }
}

/// A byte to another thread over TCP and back, again and again.
pub fn loopback(slices: &Slices, stop: &Stop) -> Result<RoundTrip, ProbeError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(ProbeError::Loopback)?;
    let address = listener.local_addr().map_err(ProbeError::Loopback)?;
    let mut near = TcpStream::connect(address).map_err(ProbeError::Loopback)?;
    let (far, _) = listener.accept().map_err(ProbeError::Loopback)?;
    for stream in [&near, &far] {
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .map_err(ProbeError::Loopback)?;
    }
    std::thread::scope(|scope| {
        scope.spawn(move || echo(far));
        let found = round_trips(&mut near, slices.other, stop);
        // The other side reads the end, and ends.
        drop(near);
        found
    })
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0u8; 1];
    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
}

fn round_trips(
    stream: &mut TcpStream,
    time: Duration,
    stop: &Stop,
) -> Result<RoundTrip, ProbeError> {
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|e| ProbeError::Loopback(io::Error::other(e.to_string())))?;
    let (began, mut byte) = (Instant::now(), [7u8; 1]);
    while began.elapsed() < time || times.is_empty() {
        if stop.level() > 0 {
            return Err(ProbeError::Stopped);
        }
        let sent = Instant::now();
        stream
            .write_all(&byte)
            .and_then(|()| stream.read_exact(&mut byte))
            .map_err(ProbeError::Loopback)?;
        times.saturating_record(sent.elapsed().as_nanos() as u64);
    }
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(RoundTrip { p50_us: at(0.5), p99_us: at(0.99), count: times.len() })
}
