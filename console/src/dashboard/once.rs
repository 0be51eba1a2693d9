//! One measurement as text or JSON, and the line a second of a demo without a terminal.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::figures::{Figures, Tail};
use super::model::Picture;
use crate::human;

/// `top --once --json`. The names are stable.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// False on a volatile file system.
    durable: bool,
    tps_in: f64,
    tps_out: f64,
    bytes_in_per_s: f64,
    bytes_out_per_s: f64,
    propagation_us: Micros,
    durable_write_us: Micros,
    groups: Vec<Group>,
    cores: Vec<Core>,
    span_s: f64,
    sample_age_s: f64,
}

#[derive(Debug, Serialize)]
struct Micros {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    stream: String,
    backlog_records: u64,
    backlog_bytes: u64,
    backlog_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Core {
    core: u32,
    busy: f64,
}

impl From<Tail> for Micros {
    fn from(tail: Tail) -> Micros {
        let us = |ns| ns as f64 / 1e3;
        Micros {
            count: tail.count,
            p50: us(tail.p50),
            p99: us(tail.p99),
            p999: us(tail.p999),
            max: us(tail.max),
        }
    }
}

impl Measurement {
    /// Of `figures`, `age` after they were taken, of a server that is `durable` or not.
    pub fn new(figures: &Figures, durable: bool, age: Duration) -> Measurement {
        Measurement {
            durable,
            tps_in: figures.into.records,
            tps_out: figures.out.records,
            bytes_in_per_s: figures.into.bytes,
            bytes_out_per_s: figures.out.bytes,
            propagation_us: figures.propagation.into(),
            durable_write_us: figures.write.into(),
            groups: figures.groups.iter().map(Group::from).collect(),
            cores: figures.cores.iter().map(|c| Core { core: c.core, busy: c.busy }).collect(),
            span_s: figures.span.as_secs_f64(),
            sample_age_s: age.as_secs_f64(),
        }
    }
}

impl From<&super::figures::GroupFigures> for Group {
    fn from(group: &super::figures::GroupFigures) -> Group {
        Group {
            name: group.group.clone(),
            stream: group.stream.clone(),
            backlog_records: group.records,
            backlog_bytes: group.bytes,
            backlog_seconds: group.age.as_secs_f64(),
        }
    }
}

/// `figures` as text.
pub fn write_text(figures: &Figures, age: Duration, out: &mut impl Write) -> io::Result<()> {
    let flow = |f: super::figures::Flow| {
        format!("{} records/s  {}/s", human::count(f.records), human::bytes(f.bytes))
    };
    writeln!(out, "TPS in       {}", flow(figures.into))?;
    writeln!(out, "TPS out      {}", flow(figures.out))?;
    writeln!(out, "propagation  {}", tail(figures.propagation))?;
    writeln!(out, "write        {}", tail(figures.write))?;
    for core in &figures.cores {
        writeln!(out, "core {:<7} {:.0} % busy", core.core, core.busy * 100.0)?;
    }
    for group in &figures.groups {
        writeln!(
            out,
            "backlog      {} on {}: {} records  {}  {:.3} s",
            group.group,
            group.stream,
            human::grouped(group.records),
            human::bytes(group.bytes as f64),
            group.age.as_secs_f64()
        )?;
    }
    let (span, age) = (figures.span.as_secs_f64(), age.as_secs_f64());
    writeln!(out, "over {span:.2} s, {age:.2} s old")
}

/// `p50 … p99 … p99.9 … max …`, or a dash when nothing was counted.
pub fn tail(tail: Tail) -> String {
    if tail.count == 0 {
        return "-".to_owned();
    }
    format!(
        "p50 {}  p99 {}  p99.9 {}  max {}",
        human::nanos(tail.p50),
        human::nanos(tail.p99),
        human::nanos(tail.p999),
        human::nanos(tail.max)
    )
}

/// The last sample in one line; `None` before there is one.
pub fn line(picture: &Picture) -> Option<String> {
    let figures = picture.figures.as_ref()?;
    let delay = &figures.propagation;
    let backlog = figures.groups.iter().map(|g| g.records).sum::<u64>();
    let age = figures.groups.first().map_or(Duration::ZERO, |g| g.age);
    Some(format!(
        "{}  in {:>6}/s {:>8}/s  out {:>6}/s {:>8}/s  propagation p50 {} p99 {} p99.9 {}  backlog {} records {}",
        human::clock(figures.at_ns),
        human::count(figures.into.records),
        human::bytes(figures.into.bytes),
        human::count(figures.out.records),
        human::bytes(figures.out.bytes),
        human::nanos(delay.p50),
        human::nanos(delay.p99),
        human::nanos(delay.p999),
        human::grouped(backlog),
        human::nanos(age.as_nanos() as u64),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::{figures, fixture, model::Model};

    #[test]
    fn json_and_text_say_the_same() {
        let figures = figures::between(&fixture::snapshot(10), &fixture::snapshot(12)).unwrap();
        let age = Duration::from_millis(300);
        let json = serde_json::to_value(Measurement::new(&figures, false, age)).unwrap();
        assert_eq!(json["durable"], false);
        assert_eq!(json["tps_in"], 20_000.0);
        assert_eq!(json["bytes_out_per_s"], 40_000.0 * 512.0);
        assert_eq!(json["propagation_us"]["p99"], 3_900.0);
        assert_eq!(json["groups"][0]["name"], "audit");
        assert_eq!(json["groups"][0]["backlog_records"], 12_001);
        assert_eq!(json["groups"][0]["backlog_seconds"], 14.4);
        assert_eq!(json["sample_age_s"], 0.3);
        let mut text = Vec::new();
        write_text(&figures, age, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("DURABLE"), "{text}");
        assert!(text.contains("TPS in       20.0k records/s  10.2 MB/s"), "{text}");
        assert!(text.contains("audit on orders: 12,001 records"), "{text}");
    }

    #[test]
    fn a_line_a_second() {
        let mut model = Model::new("test", false);
        model.take(Box::new(fixture::snapshot(1)));
        assert_eq!(line(model.picture()), None);
        model.take(Box::new(fixture::snapshot(2)));
        let line = line(model.picture()).unwrap();
        assert!(line.contains("in  20.0k/s") && line.contains("p99 3.90 ms"), "{line}");
    }
}
