//! The names of OpenMessaging Benchmark's workloads, where they mean something here.

use highwater_wire::{MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM};

use super::reader::{Reader, decimal, whole};
use super::{FileError, FileWarmUp, WorkloadFile, rate};
use crate::Rate;
use crate::proof::PROOF_LEN;
use crate::workload::{KeyDistribution, Workload};

/// Foreign fields that have no place here, and why.
const REFUSED: [(&str, &str); 3] = [
    ("randomBytesRatio", "payloads are random bytes throughout: nothing here compresses them"),
    ("randomizedPayloadPoolSize", "every payload is made anew; there is no pool"),
    (
        "backlogDrainRatio",
        "a backlog is drained when its groups have caught up; see drain_limit for how long that may take",
    ),
];

/// Lays what they say over what our own names say.
pub(super) fn foreign(f: &Reader<'_>, all: &mut WorkloadFile) -> Result<(), FileError> {
    for (field, why) in REFUSED {
        if let Some(value) = f.get(field) {
            return Err(f.refused(field, value, why));
        }
    }
    if let Some(topics) = f.count("topics", 1, 1024)? {
        all.streams = Some(topics as u32);
    }
    let most = u64::from(MAX_SHARDS_PER_STREAM);
    if let Some(partitions) = f.count("partitionsPerTopic", 1, most)? {
        all.shards = Some(partitions as u32);
    }
    let streams = all.streams.unwrap_or(1) as usize;
    let shards = all.shards.unwrap_or(1) as usize;
    if let Some(bytes) = f.bytes("messageSize", PROOF_LEN as u64, u64::from(MAX_RECORD_CEILING))? {
        all.workload = Some(Workload::Fixed { size: bytes as usize });
    }
    if let Some(each) = f.count("producersPerTopic", 1, 4096)? {
        all.producers = Some(each as usize * streams);
    }
    if let Some(groups) = f.count("subscriptionsPerTopic", 0, 64)? {
        // Without a subscription nothing is read.
        all.groups = Some((groups as usize).max(1));
        if groups == 0 {
            all.consumers = Some(0);
        }
    }
    if let Some(each) = f.count("consumerPerSubscription", 0, 1 << 16)? {
        let each = each as usize;
        if each > shards {
            all.notes.push(format!(
                "consumerPerSubscription is {each}; a group has at most one consumer per shard: {shards}"
            ));
        }
        if all.consumers != Some(0) {
            all.consumers = Some(each.min(shards) * streams * all.groups.unwrap_or(1));
        }
    }
    let limit = "records per second, 0 (as fast as possible) to 1000000000".to_owned();
    let producer_rate = f.number("producerRate", limit, |value| match whole(value) {
        Some(0) => Some(Rate::Max),
        _ => rate(value),
    })?;
    all.rate = producer_rate.or(all.rate);
    all.duration = f.time("testDurationMinutes", 60.0)?.or(all.duration);
    all.warmup = f.time("warmupDurationMinutes", 60.0)?.map(FileWarmUp::Fixed).or(all.warmup);
    let limit = "\"NO_KEY\", \"KEY_ROUND_ROBIN\" or \"RANDOM_NANO\"".to_owned();
    let keys = f.number("keyDistributor", limit, |value| match value.as_str() {
        Some("KEY_ROUND_ROBIN") => Some(KeyDistribution::RoundRobin),
        Some("NO_KEY" | "RANDOM_NANO") => Some(KeyDistribution::Uniform),
        _ => None,
    })?;
    all.key_distribution = all.key_distribution.or(keys);
    if let Some(file) = f.text("payloadFile")? {
        all.notes.push(format!(
            "payloadFile {file:?} is not read: payloads are random bytes of messageSize"
        ));
    }
    if f.flag("useRandomizedPayloads")? == Some(false) {
        all.notes.push("useRandomizedPayloads is false; payloads are random bytes".to_owned());
    }
    if let Some(value) = f.get("consumerBacklogSizeGB") {
        // 0 is what those without a backlog say.
        if decimal(value.get_ref()) != Some(0.0) {
            let why = "a backlog is built for a time, not to a size: use load backlog with outage";
            return Err(f.refused("consumerBacklogSizeGB", value, why));
        }
    }
    Ok(())
}
