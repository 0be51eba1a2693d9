//! Workload files: what a run is asked to do, in TOML. `docs/load.md` lists every field.
//!
//! A file says what it wants to say; everything it leaves out is [`None`] here, so that flags can be laid
//! over it and defaults under it. The names that OpenMessaging Benchmark's workloads use are taken too
//! where they mean something here.

mod foreign;
mod reader;
mod workload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_wire::{AckMode, Compression, MAX_RECORD_CEILING, MAX_SHARDS_PER_STREAM, StreamName};
use toml::de::{DeTable, DeValue};

use crate::options::RETENTION_LEAST;
use crate::proof::PROOF_LEN;
use crate::schedule::{Burst, Profile, TraceSpec};
use crate::workload::{KeyDistribution, Workload};
use crate::{Arrival, Rate, units};
use foreign::foreign;
use reader::{Reader, decimal, time, whole};
use workload::workload;

/// Why a workload file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{}, line {line}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A field of the wrong type or out of its range.
    #[error("{}, line {line}: {field} is {value}; it must be {limit}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is there.
        value: String,
        /// What is allowed.
        limit: String,
    },
    /// A field that is not known.
    #[error(
        "{}, line {line}: field {field} is not known{}", file.display(),
        nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// The known one most like it.
        nearest: Option<String>,
    },
    /// A field that is known and has no place here.
    #[error("{}, line {line}: {field}: {why}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// Why not.
        why: &'static str,
    },
}

/// How a warm-up ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileWarmUp {
    /// When the run is steady.
    Steady,
    /// By the clock.
    Fixed(Duration),
}

/// What a workload file says; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields are those of the options of a run, under the same names")]
pub struct WorkloadFile {
    pub target: Option<String>,
    pub stream: Option<String>,
    pub streams: Option<u32>,
    pub shards: Option<u32>,
    pub ack: Option<AckMode>,
    pub retention_bytes: Option<u64>,
    pub rate: Option<Rate>,
    pub arrival: Option<Arrival>,
    pub profile: Option<Profile>,
    pub duration: Option<Duration>,
    pub warmup: Option<FileWarmUp>,
    pub workload: Option<Workload>,
    pub keys: Option<u32>,
    pub key_distribution: Option<KeyDistribution>,
    pub producers: Option<usize>,
    pub groups: Option<usize>,
    pub consumers: Option<usize>,
    pub clients: Option<usize>,
    pub batch_bytes: Option<usize>,
    pub linger: Option<Duration>,
    pub inflight: Option<usize>,
    pub connections: Option<usize>,
    pub compression: Option<Compression>,
    pub client_name: Option<String>,
    pub producer: Option<String>,
    pub seed: Option<u64>,
    pub spin: Option<Duration>,
    pub drain_timeout: Option<Duration>,
    pub target_timeout: Option<Duration>,
    pub tolerate_restart: Option<bool>,
    pub outage: Option<Duration>,
    pub drain_limit: Option<Duration>,
    pub paused_groups: Option<u32>,
    /// What was read differently from what its writer may have meant, in sentences.
    pub notes: Vec<String>,
}

/// Every field of the file, the foreign ones last.
const KNOWN: [&str; 52] = [
    "name",
    "target",
    "stream",
    "streams",
    "shards",
    "ack",
    "retention",
    "rate",
    "arrival",
    "burst",
    "trace",
    "duration",
    "warmup",
    "workload",
    "size",
    "keys",
    "key_distribution",
    "producers",
    "groups",
    "consumers",
    "clients",
    "batch",
    "linger",
    "inflight",
    "connections",
    "compression",
    "client_name",
    "producer",
    "seed",
    "spin",
    "drain_timeout",
    "target_timeout",
    "tolerate_restart",
    "outage",
    "drain_limit",
    "paused_groups",
    "topics",
    "partitionsPerTopic",
    "messageSize",
    "producersPerTopic",
    "subscriptionsPerTopic",
    "consumerPerSubscription",
    "producerRate",
    "testDurationMinutes",
    "warmupDurationMinutes",
    "keyDistributor",
    "payloadFile",
    "consumerBacklogSizeGB",
    "useRandomizedPayloads",
    "randomBytesRatio",
    "randomizedPayloadPoolSize",
    "backlogDrainRatio",
];

/// Two names for the same.
const SAME: [(&str, &str); 11] = [
    ("streams", "topics"),
    ("shards", "partitionsPerTopic"),
    ("size", "messageSize"),
    ("workload", "messageSize"),
    ("workload", "size"),
    ("producers", "producersPerTopic"),
    ("groups", "subscriptionsPerTopic"),
    ("consumers", "consumerPerSubscription"),
    ("rate", "producerRate"),
    ("duration", "testDurationMinutes"),
    ("warmup", "warmupDurationMinutes"),
];

/// Largest file.
const MAX_FILE: u64 = 1 << 20;

impl WorkloadFile {
    /// Reads and checks a file. Paths in it are relative to it.
    pub fn read(file: &Path) -> Result<WorkloadFile, FileError> {
        let unreadable = |source| FileError::Read { file: file.to_owned(), source };
        let open = std::fs::File::open(file).map_err(unreadable)?;
        let mut text = String::new();
        let mut limited = std::io::Read::take(open, MAX_FILE + 1);
        std::io::Read::read_to_string(&mut limited, &mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(unreadable(std::io::Error::other("larger than 1 MiB: no workload file")));
        }
        WorkloadFile::parse(file, &text)
    }

    /// Reads `text` as the content of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<WorkloadFile, FileError> {
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            let message = error.message().to_owned();
            FileError::Syntax { file: file.to_owned(), line, message }
        })?;
        let fields = Reader::new(file, text, table.get_ref());
        fields.check(&KNOWN)?;
        for (ours, theirs) in SAME {
            if let (Some(_), Some(value)) = (fields.get(ours), fields.get(theirs)) {
                let both = fields.wrong(theirs, value, format!("left out, for {ours} says it too"));
                return Err(both);
            }
        }
        let mut all = own(&fields)?;
        foreign(&fields, &mut all)?;
        Ok(all)
    }
}

/// The fields of our own names.
fn own(f: &Reader<'_>) -> Result<WorkloadFile, FileError> {
    let size = |field, least, most| Ok(f.count(field, least, most)?.map(|n| n as usize));
    let count = |field, least, most| Ok(f.count(field, least, most)?.map(|n| n as u32));
    f.text("name")?;
    let second = 1.0;
    let micro = 1e-6;
    let most_record = 2 * u64::from(MAX_RECORD_CEILING);
    let mut all = WorkloadFile {
        target: f.text("target")?.map(str::to_owned),
        stream: name(f)?,
        streams: count("streams", 1, 1024)?,
        shards: count("shards", 1, u64::from(MAX_SHARDS_PER_STREAM))?,
        ack: f.number("ack", "\"durable\" or \"written\"".to_owned(), |value| {
            match value.as_str() {
                Some("durable") => Some(AckMode::Durable),
                Some("written") => Some(AckMode::Written),
                _ => None,
            }
        })?,
        retention_bytes: retention(f)?,
        rate: f.number(
            "rate",
            format!("{}, more than 0 and at most 1000000000", units::RATE),
            rate,
        )?,
        arrival: None,
        profile: profile(f)?,
        duration: f.time("duration", second)?,
        warmup: f.number(
            "warmup",
            format!("\"steady\", or {}", units::TIME),
            |value| match value.as_str() {
                Some("steady") => Some(FileWarmUp::Steady),
                _ => time(value, second).map(FileWarmUp::Fixed),
            },
        )?,
        workload: match (f.get("workload"), f.get("size")) {
            (Some(value), _) => Some(workload(f, "workload", value)?),
            (None, Some(_)) => f
                .bytes("size", PROOF_LEN as u64, u64::from(MAX_RECORD_CEILING))?
                .map(|size| Workload::Fixed { size: size as usize }),
            (None, None) => None,
        },
        keys: count("keys", 1, 16 << 20)?,
        key_distribution: match f.text("key_distribution")? {
            Some(text) => Some(text.parse().map_err(|error| named(f, "key_distribution", &error))?),
            None => None,
        },
        producers: size("producers", 1, 4096)?,
        groups: size("groups", 1, 64)?,
        consumers: size("consumers", 0, 1 << 20)?,
        clients: size("clients", 1, 4096)?,
        batch_bytes: f.bytes("batch", 1, most_record)?.map(|n| n as usize),
        linger: f.time("linger", micro)?,
        inflight: size("inflight", 1, 4096)?,
        connections: size("connections", 1, 64)?,
        compression: match f.text("compression")? {
            Some(text) => Some(text.parse().map_err(|error| named(f, "compression", &error))?),
            None => None,
        },
        client_name: f.text("client_name")?.map(str::to_owned),
        producer: f.text("producer")?.map(str::to_owned),
        seed: f.count("seed", 0, (1 << 53) - 1)?,
        spin: f.time("spin", micro)?,
        drain_timeout: f.time("drain_timeout", second)?,
        target_timeout: f.time("target_timeout", second)?,
        tolerate_restart: f.flag("tolerate_restart")?,
        outage: f.time("outage", second)?,
        drain_limit: f.time("drain_limit", second)?,
        paused_groups: count("paused_groups", 1, 63)?,
        notes: Vec::new(),
    };
    arrival(f, &mut all)?;
    Ok(all)
}

/// The error of a value that has a notation of its own.
fn named(f: &Reader<'_>, field: &str, error: &dyn std::fmt::Display) -> FileError {
    let line = f.get(field).map_or(f.first_line(), |value| f.line(value.span().start));
    let message = format!("{field}: {error}");
    FileError::Syntax { file: f.file.to_owned(), line, message }
}

fn name(f: &Reader<'_>) -> Result<Option<String>, FileError> {
    let Some(text) = f.text("stream")? else { return Ok(None) };
    StreamName::new(text).map_err(|error| named(f, "stream", &error))?;
    Ok(Some(text.to_owned()))
}

/// `retention`: what a server keeps, or 0 for no bound.
fn retention(f: &Reader<'_>) -> Result<Option<u64>, FileError> {
    let least = units::size_text(RETENTION_LEAST as usize);
    let limit = format!("{}, {least} at least (two segments), or 0 for no bound", units::SIZE);
    f.number("retention", limit, |value| {
        let bytes = value.as_str().map_or_else(|| whole(value), units::size);
        bytes.filter(|bytes| *bytes == 0 || (RETENTION_LEAST..=1 << 53).contains(bytes))
    })
}

fn rate(value: &DeValue<'_>) -> Option<Rate> {
    let rate = match value.as_str() {
        Some("max") => return Some(Rate::Max),
        Some(text) => units::rate(text)?,
        None => decimal(value)?,
    };
    (rate > 0.0 && rate <= 1e9).then_some(Rate::PerSecond(rate))
}

/// `[burst]` or `[trace]`.
fn profile(f: &Reader<'_>) -> Result<Option<Profile>, FileError> {
    if let (Some(_), Some(trace)) = (f.get("burst"), f.get("trace")) {
        return Err(f.refused("trace", trace, "a run follows either bursts or a trace"));
    }
    let (field, profile) = if let Some(value) = f.get("burst") {
        let table = f.table("burst", value, &["peak", "on", "every"])?;
        let usual = Burst::default();
        let peak = table.number("peak", "a factor such as 2.5 or \"2.5x\"".to_owned(), factor)?;
        let burst = Burst {
            peak: peak.unwrap_or(usual.peak),
            on: table.time("on", 1.0)?.unwrap_or(usual.on),
            every: table.time("every", 1.0)?.unwrap_or(usual.every),
        };
        ("burst", Profile::Burst(burst))
    } else if let Some(value) = f.get("trace") {
        let table = f.table("trace", value, &["file", "speed"])?;
        let Some(path) = table.text("file")? else {
            return Err(f.wrong("trace", value, "a table with file"));
        };
        let speed = table.number("speed", "a factor such as 2 or \"2x\"".to_owned(), factor)?;
        // Read when the run is prepared: a file may be written before its trace is.
        let spec = TraceSpec { file: beside(f.file, path), speed: speed.unwrap_or(1.0) };
        return Ok(Some(Profile::Trace(spec)));
    } else {
        return Ok(None);
    };
    profile.prepare().map_err(|error| named(f, field, &error))?;
    Ok(Some(profile))
}

fn factor(value: &DeValue<'_>) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim_end_matches('x').parse().ok(),
        None => decimal(value),
    }
}

/// `arrival`: the spacing, or the name of a profile.
fn arrival(f: &Reader<'_>, all: &mut WorkloadFile) -> Result<(), FileError> {
    let Some(value) = f.get("arrival") else { return Ok(()) };
    match (value.get_ref().as_str(), &all.profile) {
        (Some("constant"), _) => all.arrival = Some(Arrival::Constant),
        (Some("poisson"), _) => all.arrival = Some(Arrival::Poisson),
        (Some("burst"), None) => all.profile = Some(Profile::Burst(Burst::default())),
        (Some("burst"), Some(Profile::Burst(_))) | (Some("trace"), Some(Profile::Trace(_))) => {}
        (Some("trace"), None) => {
            return Err(f.wrong("arrival", value, "accompanied by a table [trace] with file"));
        }
        _ => {
            let limit = "\"constant\", \"poisson\", \"burst\" or \"trace\"";
            return Err(f.wrong("arrival", value, limit));
        }
    }
    Ok(())
}

/// A path in the file is relative to it.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests;
