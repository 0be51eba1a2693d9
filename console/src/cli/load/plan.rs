//! `--dry-run`: what a run would do, and how long it would take.

use std::time::Duration;

use highwater_loadgen::workload::Material;
use highwater_loadgen::{LoadOptions, Rate, Scenario, WarmUpRule};

use super::flags::Request;
use super::{echo, refusal};
use crate::failure::Failure;
use crate::human;

/// As a few lines.
pub fn text(request: &Request) -> Result<String, Failure> {
    let o = &request.options;
    let material =
        Material::prepare(&o.workload, &o.keys, o.seed).map_err(|e| refusal::failure(e.into()))?;
    let mut text = format!("{}\n\n", echo::line(&echo::words(request)));
    let mut row = |name: &str, value: String| text += &format!("{name:<10}{value}\n");
    row("target", o.target.clone());
    let streams = human::plural(o.streams as usize, "stream");
    let shards = human::plural(o.shards as usize, "shard");
    row("streams", format!("{streams} of {shards} each if created here, acknowledged {}", o.ack));
    row(
        "producers",
        match o.clients {
            Some(clients) => {
                format!("{}, each with one record outstanding", human::plural(clients, "client"))
            }
            None => format!("{}, {} batches in flight per shard", o.producers, o.inflight),
        },
    );
    row(
        "consumers",
        match o.consumers {
            Some(0) => "none: nothing is checked".to_owned(),
            Some(n) => format!("{n} in {}", human::plural(o.groups, "group")),
            None => format!("one per shard in {}", human::plural(o.groups, "group")),
        },
    );
    let mean = material.mean_payload();
    row(
        "records",
        format!(
            "{}, payloads of {} in the mean, at most {}, {} keys",
            material.name(),
            human::binary(mean as u64),
            human::binary(material.max_payload() as u64),
            human::grouped(u64::from(material.key_count())),
        ),
    );
    row("rate", rate(o, mean)?);
    row("time", time(o));
    text += "\nDry run: nothing was sent.\n";
    Ok(text)
}

fn rate(o: &LoadOptions, mean_payload: f64) -> Result<String, Failure> {
    let Rate::PerSecond(base) = o.rate else {
        return Ok("as fast as the target takes them".to_owned());
    };
    let mean = o.profile.prepare().map_err(|e| refusal::failure(e.into()))?.mean_rate(base);
    let records = mean * o.duration.as_secs_f64();
    Ok(format!(
        "{}/s in the mean, {}/s: {} in the measured window, {}",
        human::count(mean),
        human::bytes(mean * mean_payload),
        human::counted(records as u64, "record"),
        human::bytes(records * mean_payload),
    ))
}

/// Each part, and the whole at most.
fn time(o: &LoadOptions) -> String {
    let span = |time: Duration| humantime::format_duration(time).to_string();
    let warmup = match o.warmup {
        WarmUpRule::Fixed(time) => format!("{} warm-up", span(time)),
        WarmUpRule::Steady { most } => format!("warm-up until steady, at most {}", span(most)),
    };
    let mut parts = vec![warmup, format!("{} measured", span(o.duration))];
    let mut most = o.warmup.most().saturating_add(o.duration);
    if let Scenario::Backlog { outage, drain_limit, .. } = o.scenario {
        parts.push(format!("{} outage", span(outage)));
        parts.push(format!("catching up, at most {}", span(drain_limit)));
        most = most.saturating_add(outage).saturating_add(drain_limit);
    }
    format!(
        "{}: at most {}, and up to {} to drain",
        parts.join(", "),
        span(most),
        span(o.drain_timeout.saturating_mul(2))
    )
}
