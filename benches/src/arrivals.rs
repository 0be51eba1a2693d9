//! Group commit under patterns of arrival: single records of 1 KiB when they are due, whatever became of those before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_engine::Engine;
use highwater_wire::ShardId;

use crate::engine::lone_batch;

type Failure = Box<dyn std::error::Error>;

/// When records are due.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    /// As independent producers send: exponential gaps around this many a second.
    Poisson(f64),
    /// So many at once, this far apart.
    Burst(usize, Duration),
}

const PATTERNS: [(&str, Pattern); 5] = [
    ("1,000/s", Pattern::Poisson(1e3)),
    ("5,000/s", Pattern::Poisson(5e3)),
    ("20,000/s", Pattern::Poisson(20e3)),
    ("bursts of 10 every 10 ms", Pattern::Burst(10, Duration::from_millis(10))),
    ("bursts of 200 every 50 ms", Pattern::Burst(200, Duration::from_millis(50))),
];

/// Each pattern for `span`: from when a record was due until it was acknowledged, p50 and p99 in microseconds.
///
/// # Errors
/// The engine's.
pub fn round(
    engine: &Engine,
    shard: ShardId,
    span: Duration,
) -> Result<Vec<(String, f64)>, Failure> {
    let mut row = Vec::new();
    for (name, pattern) in PATTERNS {
        let latency = play(engine, shard, pattern, span)?;
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let us = latency.value_at_quantile(quantile) as f64 / 1e3;
            row.push((format!("records of 1 KiB, {name}, {label} us"), us));
        }
    }
    Ok(row)
}

fn play(
    engine: &Engine,
    shard: ShardId,
    pattern: Pattern,
    span: Duration,
) -> Result<Histogram<u64>, Failure> {
    let batch = lone_batch()?;
    let latency = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let mut random = fastrand::Rng::with_seed(7);
    let begun = Instant::now();
    let mut due = begun;
    let mut last = None;
    while due.duration_since(begun) < span {
        let (count, gap) = match pattern {
            Pattern::Poisson(rate) => {
                (1, Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate))
            }
            Pattern::Burst(count, every) => (count, every),
        };
        due += gap;
        // The last stretch awake: a sleep ends too late by more than what is measured.
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            match left.checked_sub(Duration::from_micros(150)) {
                Some(long) => std::thread::sleep(long),
                None => std::hint::spin_loop(),
            }
        }
        for _ in 1..count {
            let latency = Arc::clone(&latency);
            engine.append_then(shard, batch.clone(), move |_| note(&latency, due))?;
        }
        let latency = Arc::clone(&latency);
        let (tell, told) = std::sync::mpsc::channel();
        engine.append_then(shard, batch.clone(), move |stored| {
            note(&latency, due);
            // Only the last one's answer is waited for.
            let _ = tell.send(stored);
        })?;
        last = Some(told);
    }
    if let Some(last) = last {
        last.recv()??;
    }
    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(latency.clone())
}

fn note(latency: &Mutex<Histogram<u64>>, due: Instant) {
    let mut latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
    // Beyond what it holds is as good as its end.
    latency.saturating_record(due.elapsed().as_nanos() as u64);
}
