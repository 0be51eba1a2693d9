//! All settings of a run, those not typed included, as a command that can be copied.

use std::time::Duration;

use highwater_loadgen::LoadOptions;

/// The command for `options`.
pub fn command(options: &LoadOptions) -> String {
    let mut line = "highwater load run".to_owned();
    let mut add = |flag: &str, value: String| line += &format!(" {flag} {value}");
    add("-t", options.target.clone());
    add("-r", options.rate.to_string());
    add("-d", duration(options.duration));
    add("--warmup", duration(options.warmup));
    add("--size", options.record_size.to_string());
    add("--producers", options.producers.to_string());
    if let Some(consumers) = options.consumers {
        add("--consumers", consumers.to_string());
    }
    add("--stream", options.stream.clone());
    add("--shards", options.shards.to_string());
    add("--ack", options.ack.to_string());
    add("--retention-bytes", options.retention_bytes.to_string());
    add("--arrival", options.arrival.to_string());
    if let Some(clients) = options.clients {
        add("--clients", clients.to_string());
    }
    add("--batch", options.batch_bytes.to_string());
    add("--linger", duration(options.linger));
    add("--inflight", options.inflight.to_string());
    add("--connections", options.connections.to_string());
    if !options.cores.is_empty() {
        add("--cores", crate::units::Cores(options.cores.clone()).to_string());
    }
    add("--seed", options.seed.to_string());
    add("--spin", duration(options.spin));
    add("--drain-timeout", duration(options.drain_timeout));
    line
}

/// Without spaces, so that it needs no quotes.
fn duration(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}
