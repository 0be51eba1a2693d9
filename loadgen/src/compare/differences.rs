//! In what two runs differ beside what is compared: then the difference is not the engine's alone.

use serde::Serialize;
use serde_json::Value;

use crate::{Environment, Place, Report};

/// Options that may differ: they name a place, or say how long, not what is done.
const FREE: [&str; 15] = [
    "target",
    "stream",
    "client_name",
    "producer",
    "seed",
    "duration_s",
    "warmup",
    "retention_bytes",
    "delete_stream",
    "commit",
    "drain_timeout_s",
    "target_timeout_s",
    "tolerate_restart",
    "late_bound_us",
    "steal_bound",
];

/// One field in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field, as in `run.json`.
    pub field: String,
    /// Its value in A, as JSON writes it.
    pub a: String,
    /// In B.
    pub b: String,
}

/// `field is X in A and Y in B; ...`.
pub(super) fn words(differences: &[Difference]) -> String {
    let words: Vec<String> = differences
        .iter()
        .map(|d| format!("{} is {} in A and {} in B", d.field, d.a, d.b))
        .collect();
    words.join("; ")
}

/// All of them. What a run only happened to meet (steal, load, how full the disk was) is none, nor are the
/// releases: to compare these is the point.
pub(super) fn between(a: &Report, b: &Report) -> Vec<Difference> {
    let (a, b) = (fields(a), fields(b));
    let mut found = Vec::new();
    for (field, of_a) in &a {
        let of_b =
            b.iter().find(|(name, _)| name == field).map_or(&Value::Null, |(_, value)| value);
        found.extend(difference(field, of_a, of_b));
    }
    for (field, of_b) in b.iter().filter(|(field, _)| a.iter().all(|(name, _)| name != field)) {
        found.extend(difference(field, &Value::Null, of_b));
    }
    found
}

fn difference(field: &str, a: &Value, b: &Value) -> Option<Difference> {
    let word = |value: &Value| match value {
        Value::Null => "not known".to_owned(),
        value => value.to_string(),
    };
    (a != b).then(|| Difference { field: field.to_owned(), a: word(a), b: word(b) })
}

fn fields(report: &Report) -> Vec<(String, Value)> {
    let mut fields = vec![
        ("mode".to_owned(), json(report.mode)),
        ("target kind".to_owned(), json(target_kind(&report.target))),
        ("ack".to_owned(), json(&report.ack)),
        ("shards".to_owned(), json(report.shards)),
        ("workers".to_owned(), json(report.workers)),
    ];
    if let Value::Object(options) = json(&report.options) {
        // Those of the stream as it is are above: an existing one keeps its own.
        let free = |name: &str| FREE.contains(&name) || matches!(name, "ack" | "shards");
        let of_options = options.into_iter().filter(|(name, _)| !free(name));
        fields.extend(of_options.map(|(name, value)| (format!("options.{name}"), value)));
    }
    fields.extend(machine_fields(&report.environment));
    fields
}

/// Whether records went over a network, stayed in the process, or went nowhere.
pub(crate) fn target_kind(target: &str) -> &str {
    match target.split(':').next() {
        Some(kind @ ("embedded" | "null")) => kind,
        _ => "server",
    }
}

/// What a machine and its disk are, by the names of `run.json`.
pub(crate) fn machine_fields(e: &Environment) -> Vec<(String, Value)> {
    let mut fields: Vec<(String, Value)> = [
        ("debug_build", json(e.debug_build)),
        ("kernel", json(&e.kernel)),
        ("kernel_options", json(&e.kernel_options)),
        ("virtualisation", json(&e.virtualisation)),
        ("cpu_model", json(&e.cpu_model)),
        ("cpus", json(e.cpus)),
        ("cpus_isolated", json(&e.cpus_isolated)),
        ("smt", json(e.smt)),
        ("governors", json(&e.governors)),
        ("turbo", json(e.turbo)),
        ("numa_nodes", json(e.numa_nodes)),
        ("clock_source", json(&e.clock_source)),
        ("huge_pages", json(&e.huge_pages)),
        ("swap in use", json(e.swap_used_bytes.map(|bytes| bytes > 0))),
        ("cpu_quota", json(e.cpu_quota)),
        ("memory_quota_bytes", json(e.memory_quota_bytes)),
        ("memlock_bytes", json(e.memlock_bytes)),
    ]
    .map(|(name, value)| (format!("environment.{name}"), value))
    .into();
    if let Some(place) = &e.data_dir {
        fields.extend(disk(place));
    }
    fields
}

fn disk(place: &Place) -> impl Iterator<Item = (String, Value)> {
    [
        ("file_system", json(&place.file_system)),
        ("mount_options", json(&place.mount_options)),
        ("device", json(&place.device)),
        ("model", json(&place.model)),
        ("write_cache", json(&place.write_cache)),
        ("scheduler", json(&place.scheduler)),
    ]
    .into_iter()
    .map(|(name, value)| (format!("environment.data_dir.{name}"), value))
}

/// What cannot be written as JSON is not known, on both sides.
fn json(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
