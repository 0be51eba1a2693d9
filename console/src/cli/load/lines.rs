//! Progress as lines, one a second.

use highwater_loadgen::{Observer, Phase, Progress, Tick};

use crate::human;

/// Tells of each interval on standard error.
pub struct Lines;

impl Observer for Lines {
    fn tick(&mut self, tick: &Tick<'_>) {
        note!("{}", line(tick.progress));
    }
}

/// One interval.
pub fn line(p: &Progress) -> String {
    let phase = match p.phase {
        Phase::Warmup => "warm-up",
        Phase::Measure => "measure",
        Phase::Outage => "outage",
        Phase::Catchup => "catch-up",
        Phase::Drain => "drain",
    };
    let us = |us: f64| human::nanos((us * 1e3) as u64);
    // Where nothing is read there is no propagation.
    let (name, delay) = match p.propagation.count {
        0 => ("response", &p.response),
        _ => ("propagation", &p.propagation),
    };
    let mut line = format!(
        "{:>4}s {phase:<8}  in {:>6}/s {:>8}/s  out {:>6}/s {:>8}/s  {name} p50 {} p99 {} p99.9 {}  backlog {}",
        p.elapsed_s.round(),
        human::count(p.acked_per_s),
        human::bytes(p.acked_bytes_per_s),
        human::count(p.consumed_per_s),
        human::bytes(p.consumed_bytes_per_s),
        us(delay.p50),
        us(delay.p99),
        us(delay.p999),
        human::grouped(p.backlog),
    );
    for (name, count) in [("unsent", p.unsent), ("refused", p.refused), ("errors", p.errors)] {
        if count > 0 {
            line += &format!("  {name} {}", human::grouped(count));
        }
    }
    line
}
