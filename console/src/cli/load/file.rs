//! A workload file as a layer: over the defaults, under what is typed.

use std::path::Path;

use highwater_loadgen::{FileWarmUp, LoadOptions, WarmUpRule, WorkloadFile};

use crate::failure::Failure;

/// Reads a file and lays it over `options`. What it says of outages is for who asks for one.
pub fn apply(path: &Path, options: &mut LoadOptions) -> Result<WorkloadFile, Failure> {
    let file = WorkloadFile::read(path)
        .map_err(|e| Failure::Usage(format!("--workload: {}", crate::failure::chain(&e))))?;
    for note in &file.notes {
        note!("{}: {note}", path.display());
    }
    let WorkloadFile { keys, key_distribution, warmup, consumers, clients, .. } = file;
    let o = options;
    lay(&mut o.target, &file.target);
    lay(&mut o.stream, &file.stream);
    lay(&mut o.streams, &file.streams);
    lay(&mut o.shards, &file.shards);
    lay(&mut o.ack, &file.ack);
    lay(&mut o.retention_bytes, &file.retention_bytes);
    lay(&mut o.rate, &file.rate);
    lay(&mut o.arrival, &file.arrival);
    lay(&mut o.profile, &file.profile);
    lay(&mut o.duration, &file.duration);
    lay(&mut o.workload, &file.workload);
    lay(&mut o.keys.count, &keys);
    lay(&mut o.keys.distribution, &key_distribution);
    lay(&mut o.producers, &file.producers);
    lay(&mut o.groups, &file.groups);
    lay(&mut o.batch_bytes, &file.batch_bytes);
    lay(&mut o.linger, &file.linger);
    lay(&mut o.inflight, &file.inflight);
    lay(&mut o.connections, &file.connections);
    lay(&mut o.compression, &file.compression);
    lay(&mut o.client_name, &file.client_name);
    o.producer = file.producer.clone().or_else(|| o.producer.take());
    lay(&mut o.seed, &file.seed);
    lay(&mut o.spin, &file.spin);
    lay(&mut o.drain_timeout, &file.drain_timeout);
    lay(&mut o.target_timeout, &file.target_timeout);
    lay(&mut o.tolerate_restart, &file.tolerate_restart);
    o.consumers = consumers.or(o.consumers);
    o.clients = clients.or(o.clients);
    match warmup {
        None => {}
        Some(FileWarmUp::Steady) => o.warmup = LoadOptions::default().warmup,
        Some(FileWarmUp::Fixed(time)) => o.warmup = WarmUpRule::Fixed(time),
    }
    super::words::load_target(&o.target)
        .map_err(|e| Failure::Usage(format!("{}: target {:?}: {e}", path.display(), o.target)))?;
    Ok(file)
}

fn lay<T: Clone>(field: &mut T, said: &Option<T>) {
    if let Some(value) = said {
        field.clone_from(value);
    }
}
