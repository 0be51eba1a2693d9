//! What cannot be asked for: the flag, its value and the limit; exit code 2.

use highwater_loadgen::schedule::ScheduleError;
use highwater_loadgen::workload::{Material, WorkloadError};
use highwater_loadgen::{LoadError, LoadOptions};

use crate::failure::{self, Failure};

/// Whether a run could be: everything that can be known before anything is tried.
pub fn check(options: &LoadOptions) -> Result<(), Failure> {
    options.validate().map_err(failure)?;
    if let Some(consumers @ 1..) = options.consumers
        && consumers < options.groups
    {
        let groups = options.groups;
        let what = format!("--consumers is {consumers}: {groups} groups need at least one each");
        return Err(Failure::Usage(what));
    }
    options.profile.prepare().map_err(|e| failure(e.into()))?;
    let material = Material::prepare(&options.workload, &options.keys, options.seed);
    material.map_err(|e| failure(e.into()))?;
    #[cfg(target_os = "linux")]
    for (flag, cores) in [("--cores", &options.cores), ("--engine-cores", &options.engine_cores)] {
        let usable =
            highwater_ring::usable_cpus().map_err(|e| Failure::doing("cannot pin threads", e))?;
        if let Some(cpu) = cores.iter().find(|cpu| !usable.contains(cpu)) {
            let list: Vec<String> = usable.iter().map(ToString::to_string).collect();
            let what =
                format!("{flag}: CPU {cpu} is not available; available: {}", list.join(", "));
            return Err(Failure::Usage(what));
        }
    }
    Ok(())
}

/// A run that could not be: what was asked for was wrong, or it failed.
pub fn failure(error: LoadError) -> Failure {
    let text = failure::chain(&error);
    match (error.usage(), at_fault(&error).and_then(flag)) {
        (true, Some(flag)) => Failure::Usage(format!("{flag}: {text}")),
        (true, None) => Failure::Usage(text),
        (false, _) => Failure::Failed(text),
    }
}

/// The field to blame: the innermost that has a name.
fn at_fault(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Workload(WorkloadError::Field { field, .. })
        | LoadError::Schedule(ScheduleError::Field { field, .. }) => Some(field),
        LoadError::RecordTooLarge { .. } => Some("payload"),
        // What is wrong with the trace file itself.
        LoadError::Schedule(_) => Some("trace"),
        other => other.field(),
    }
}

/// The flag for a field of the options.
fn flag(field: &str) -> Option<&'static str> {
    Some(match field {
        "rate" => "--rate",
        "duration" => "--duration",
        "warmup" => "--warmup",
        "workload" => "--workload",
        // It may be either that says so.
        "payload" => "--size or --workload",
        "size" | "least size" | "most size" | "median size" | "sigma" => "--size",
        "keys" => "--keys",
        "zipf exponent" | "hot share" => "--key-distribution",
        "peak" => "--peak",
        "on" => "--on",
        "every" => "--every",
        "trace" => "--trace",
        "speed" => "--speed",
        "stream" => "--stream",
        "streams" => "--streams",
        "shards" => "--shards",
        "groups" => "--groups",
        "consumers" => "--consumers",
        "producers" => "--producers",
        "clients" => "--clients",
        "batch_bytes" => "--batch",
        "linger" => "--linger",
        "inflight" => "--inflight",
        "connections" => "--connections",
        "compression" => "--compression",
        "client_name" => "--client-name",
        "producer" => "--producer",
        "cores" => "--cores",
        "engine_cores" => "--engine-cores",
        "arrival" | "profile" => "--arrival",
        "outage" => "--outage",
        "drain_limit" => "--drain-limit",
        "paused_groups" => "--paused-groups",
        "spin" => "--spin",
        "target" => "--target",
        "target_timeout" => "--target-timeout",
        "drain_timeout" => "--drain-timeout",
        "late_bound" => "--late-bound",
        "retention_bytes" => "--retention-bytes",
        _ => return None,
    })
}
