//! What records are made of: keys, sizes and contents.
//!
//! A [`Workload`] is what was asked for; [`Material`] is what it takes, made once and shared by all
//! threads. Each producer has a [`Source`] that says what its next record is (a [`Draw`], a few bytes), and
//! each worker thread a [`Writer`] that turns a draw into the record, with its [`Proof`], when it is time.
//! The same seed gives the same records. Neither allocates.
//!
//! Where the order of records has a meaning (a camera's fragments, a user's session, a device's readings) a
//! key belongs to one producer; only if there are more producers than keys do some share one, each with a
//! sequence of its own.

mod alias;
mod apache;
mod clickstream;
mod iot;
mod keys;
mod mixed;
mod name;
mod opaque;
mod owned;
mod recorded;
mod sizes;
#[cfg(test)]
mod tests;
mod text;
mod video;

use std::path::PathBuf;
use std::sync::Arc;

use highwater_wire::{BatchBuilder, BatchError, MAX_RECORD_CEILING};
use serde::{Deserialize, Serialize};

use alias::Alias;
use apache::{Lines, LinesSource};
use clickstream::{ClickSource, Clickstream};
use iot::{Iot, IotSource};
use keys::KeyTable;
pub use keys::{KeyDistribution, Keys};
use mixed::{Mixed, MixedSource};
use opaque::{Filler, Opaque, OpaqueSource};
use sizes::Sizes;
use text::Clock;
use video::{Video, VideoSource};

use crate::proof::{PROOF_HEADER_LEN, PROOF_LEN, Proof};
use crate::schedule::{Profile, mix};

/// What records are made of. `docs/load.md` describes each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Workload {
    /// Random bytes, always as many.
    Fixed {
        /// Payload bytes: 32 to 10 MiB.
        size: usize,
    },
    /// Random bytes, all sizes equally likely.
    Uniform {
        /// Smallest payload in bytes, at least 32.
        least: usize,
        /// Largest, at most 10 MiB.
        most: usize,
    },
    /// Random bytes, sizes lognormally distributed.
    #[serde(rename = "lognormal")]
    LogNormal {
        /// Half of the payloads have fewer bytes.
        median: usize,
        /// Standard deviation of the sizes' logarithm: more than 0, at most 5.
        sigma: f64,
        /// Cut off above this: at most 10 MiB.
        most: usize,
    },
    /// Lines of an Apache access log in the combined format, keyed by client.
    ApacheLog {
        /// Taken from this file, in order, again and again; generated if there is none.
        #[serde(default)]
        file: Option<PathBuf>,
    },
    /// The records of a file, with their keys and payloads, in the order they arrived, again and again.
    Recorded {
        /// As `replay --to FILE` writes it.
        file: PathBuf,
    },
    /// A fleet of devices that report readings as JSON, keyed by device; in bursts, if nothing else is
    /// asked for.
    Iot {
        /// How many devices, 1 to 4 Mi.
        devices: u32,
    },
    /// Page views of users as JSON, keyed by user; users' shares follow Zipf's law.
    Clickstream {
        /// How many users, 1 to 4 Mi.
        users: u32,
    },
    /// Fragments of 16 KiB to 1 MiB, keyed by camera and in each camera's order.
    Video {
        /// How many cameras, 1 to 65,536.
        cameras: u32,
    },
    /// Several of the others side by side, chosen at random for each record.
    Mixed {
        /// Which; 1 to 16.
        parts: Vec<Part>,
    },
}

/// A part of a mixed workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its share of the records, in proportion to the other parts': more than 0.
    pub weight: f64,
    /// What it is; not itself mixed.
    pub workload: Workload,
}

/// Why a workload cannot be produced.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A field out of its range.
    #[error("{field} is {value}; it must be {limit}")]
    Field {
        /// Which.
        field: &'static str,
        /// What was asked.
        value: String,
        /// What is allowed.
        limit: String,
    },
    /// A name that is not known.
    #[error("{what} {value:?} is not known; write {known}")]
    Unknown {
        /// What was to be named.
        what: &'static str,
        /// What was written.
        value: String,
        /// What there is.
        known: &'static str,
    },
    /// A name that is not known, but one like it.
    #[error("workload {value:?} is not known; did you mean {nearest}?")]
    Misspelt {
        /// What was written.
        value: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// A log file cannot be read.
    #[error("log {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of records cannot be followed.
    #[error(transparent)]
    Recording(#[from] crate::RecordingError),
    /// A log file has a line that is none.
    #[error("log {}, line {line}: must be {limit}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is allowed.
        limit: &'static str,
    },
}

/// `value` must be `least` to `most`.
fn between(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), WorkloadError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let (value, limit) = (value.to_string(), format!("{least} to {most}"));
    Err(WorkloadError::Field { field, value, limit })
}

impl Default for Workload {
    fn default() -> Workload {
        Workload::Fixed { size: 1 << 10 }
    }
}

impl Workload {
    /// Whether all its records have keys of its own: then [`Keys`] say nothing.
    pub fn brings_keys(&self) -> bool {
        match self {
            Workload::Fixed { .. } | Workload::Uniform { .. } | Workload::LogNormal { .. } => false,
            Workload::ApacheLog { .. }
            | Workload::Recorded { .. }
            | Workload::Iot { .. }
            | Workload::Clickstream { .. }
            | Workload::Video { .. } => true,
            Workload::Mixed { parts } => parts.iter().all(|part| part.workload.brings_keys()),
        }
    }

    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Workload::Fixed { .. } => "fixed",
            Workload::Uniform { .. } => "uniform",
            Workload::LogNormal { .. } => "lognormal",
            Workload::ApacheLog { .. } => "apache-log",
            Workload::Recorded { .. } => "recorded",
            Workload::Iot { .. } => "iot",
            Workload::Clickstream { .. } => "clickstream",
            Workload::Video { .. } => "video",
            Workload::Mixed { .. } => "mixed",
        }
    }

    /// Whether every field is in its range.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        let size = |field, bytes: usize, least: usize| {
            between(field, bytes as u64, least as u64, u64::from(MAX_RECORD_CEILING))
        };
        match self {
            Workload::Fixed { size: bytes } => size("size", *bytes, PROOF_LEN),
            Workload::Uniform { least, most } => {
                size("least size", *least, PROOF_LEN)?;
                size("most size", *most, *least)
            }
            Workload::LogNormal { median, sigma, most } => {
                size("median size", *median, PROOF_LEN)?;
                size("most size", *most, *median)?;
                if *sigma > 0.0 && *sigma <= 5.0 {
                    return Ok(());
                }
                Err(WorkloadError::Field {
                    field: "sigma",
                    value: sigma.to_string(),
                    limit: "more than 0 and at most 5".to_owned(),
                })
            }
            Workload::ApacheLog { .. } | Workload::Recorded { .. } => Ok(()),
            Workload::Iot { devices } => between("devices", u64::from(*devices), 1, MAX_OWNERS),
            Workload::Clickstream { users } => between("users", u64::from(*users), 1, MAX_OWNERS),
            Workload::Video { cameras } => between("cameras", u64::from(*cameras), 1, 1 << 16),
            Workload::Mixed { parts } => {
                between("parts of a mixed workload", parts.len() as u64, 1, 16)?;
                for Part { weight, workload } in parts {
                    if !(*weight > 0.0 && *weight <= 1e9) {
                        return Err(WorkloadError::Field {
                            field: "weight",
                            value: weight.to_string(),
                            limit: "more than 0 and at most 1000000000".to_owned(),
                        });
                    }
                    if let Workload::Mixed { .. } = workload {
                        return Err(WorkloadError::Field {
                            field: "part of a mixed workload",
                            value: "mixed".to_owned(),
                            limit: "another workload".to_owned(),
                        });
                    }
                    workload.validate()?;
                }
                Ok(())
            }
        }
    }
}

/// Most devices or users: each has a place in a producer's memory.
const MAX_OWNERS: u64 = 4 << 20;

/// What the records of a workload are made of.
#[derive(Debug)]
pub struct Material {
    name: &'static str,
    keys: KeyTable,
    /// Largest payload in bytes.
    most: usize,
    mean: f64,
    /// Encoded headers of each record, in bytes.
    headers: usize,
    profile: Option<Profile>,
    /// The records begin anew with the measured window.
    with_window: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Opaque(Opaque, Filler),
    Video(Arc<Video>, Filler),
    Lines(Arc<Lines>),
    Iot(Arc<Iot>),
    Clicks(Arc<Clickstream>),
    Mixed(Mixed),
}

/// Parts of the seed, so that nothing shares random numbers.
const KEY_SEED: u64 = u64::MAX - 1;
const FILLER_SEED: u64 = u64::MAX - 2;
const SOURCE_SEED: u64 = u64::MAX - 3;
const CONTENT_SEED: u64 = u64::MAX - 4;

impl Material {
    /// Makes what `workload` needs. `keys` are for workloads that bring none of their own.
    pub fn prepare(workload: &Workload, keys: &Keys, seed: u64) -> Result<Material, WorkloadError> {
        workload.validate()?;
        let name = workload.name();
        let content = mix(seed, CONTENT_SEED);
        let filler = |most| Filler::new(most, mix(seed, FILLER_SEED));
        let material = |keys, most, mean, headers, kind| Material {
            name,
            keys,
            most,
            mean,
            headers,
            profile: None,
            with_window: false,
            kind,
        };
        let opaque = |sizes: Sizes| {
            let (most, mean) = (sizes.most() as usize, sizes.mean());
            let filler = match sizes {
                Sizes::Fixed(_) => Filler::of_one_length(most, mix(seed, FILLER_SEED)),
                _ => filler(most),
            };
            let kind = Kind::Opaque(Opaque::new(sizes, keys)?, filler);
            let keys = KeyTable::hexadecimal(keys.count, mix(seed, KEY_SEED));
            Ok(material(keys, most, mean, 0, kind))
        };
        Ok(match workload {
            Workload::Fixed { size } => return opaque(Sizes::Fixed(*size as u32)),
            Workload::Uniform { least, most } => return opaque(Sizes::uniform(*least, *most)),
            Workload::LogNormal { median, sigma, most } => {
                return opaque(Sizes::log_normal(PROOF_LEN, *median, *sigma, *most));
            }
            Workload::ApacheLog { file } => {
                let (lines, keys) = match file {
                    Some(file) => Lines::read(file)?,
                    None => Lines::generate(content),
                };
                let (most, mean) = (lines.most(), lines.mean());
                material(keys, most, mean, PROOF_HEADER_LEN, Kind::Lines(Arc::new(lines)))
            }
            Workload::Recorded { file } => {
                let (lines, keys) = Lines::recorded(file)?;
                let (most, mean) = (lines.most(), lines.mean());
                let kind = Kind::Lines(Arc::new(lines));
                let material = material(keys, most, mean, PROOF_HEADER_LEN, kind);
                Material { with_window: true, ..material }
            }
            Workload::Iot { devices } => {
                let iot = Iot::new(*devices, content);
                let (keys, most, mean) = (iot.keys(), iot.most(), iot.mean());
                let profile = Some(Profile::Burst(Iot::profile()));
                let kind = Kind::Iot(Arc::new(iot));
                Material { profile, ..material(keys, most, mean, PROOF_HEADER_LEN, kind) }
            }
            Workload::Clickstream { users } => {
                let clicks = Clickstream::new(*users, content);
                let (keys, most, mean) = (clicks.keys(), clicks.most(), clicks.mean());
                material(keys, most, mean, PROOF_HEADER_LEN, Kind::Clicks(Arc::new(clicks)))
            }
            Workload::Video { cameras } => {
                let video = Video::new(*cameras, content);
                let (keys, most, mean) = (video.keys(), video.most(), video.mean());
                material(keys, most, mean, 0, Kind::Video(Arc::new(video), filler(most)))
            }
            Workload::Mixed { parts } => {
                let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
                // Valid weights can always be drawn from.
                let choice =
                    Alias::new(&weights).unwrap_or_else(|| Alias::evenly(parts.len() as u32));
                let total: f64 = weights.iter().sum();
                let parts = parts
                    .iter()
                    .zip(0..)
                    .map(|(part, number)| {
                        Material::prepare(&part.workload, keys, mix(seed, number))
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let most = parts.iter().map(Material::max_payload).max().unwrap_or(0);
                let means = parts.iter().zip(&weights).map(|(part, weight)| part.mean * weight);
                let mean = means.sum::<f64>() / total;
                let headers = parts.iter().map(|part| part.headers).max().unwrap_or(0);
                let mixed = Mixed::new(choice, parts);
                material(mixed.keys(), most, mean, headers, Kind::Mixed(mixed))
            }
        })
    }

    /// The workload's name, as on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many partition keys there are: [`Draw::key`] is below it.
    pub fn key_count(&self) -> u32 {
        self.keys.count()
    }

    /// A partition key.
    ///
    /// # Panics
    /// If `index` is not below [`Material::key_count`].
    #[inline]
    pub fn key(&self, index: u32) -> &[u8] {
        self.keys.key(index)
    }

    /// Largest payload in bytes.
    pub fn max_payload(&self) -> usize {
        self.most
    }

    /// Largest key, headers and payload together, in bytes: what a server's limit of a record counts.
    pub fn max_record(&self) -> usize {
        self.keys.longest() + self.headers + self.most
    }

    /// Mean payload in bytes.
    pub fn mean_payload(&self) -> f64 {
        self.mean
    }

    /// How the rate runs over time if nothing was asked for; `None`: as it likes.
    pub fn default_profile(&self) -> Option<Profile> {
        self.profile.clone()
    }

    /// Whether the records begin anew with the measured window: those of a recording belong to its times.
    pub fn begins_with_window(&self) -> bool {
        self.with_window
    }

    /// The records of producer `producer` of `producers`, from the first on.
    pub fn source(self: &Arc<Self>, producer: u32, producers: u32, seed: u64) -> Source {
        let random = fastrand::Rng::with_seed(mix(mix(seed, SOURCE_SEED), u64::from(producer)));
        let (one, of) = (producer, producers);
        let kind = match &self.kind {
            Kind::Opaque(opaque, _) => SourceKind::Opaque(opaque.source(one, of)),
            Kind::Video(video, _) => SourceKind::Video(video.source(one, of)),
            Kind::Lines(lines) => SourceKind::Lines(Arc::clone(lines), lines.source(one, of)),
            Kind::Iot(iot) => SourceKind::Iot(iot.source(one, of)),
            Kind::Clicks(clicks) => SourceKind::Clicks(clicks.source(one, of)),
            Kind::Mixed(mixed) => SourceKind::Mixed(mixed.source(one, of, seed)),
        };
        Source { random, kind }
    }

    /// A writer of records. `seed` only moves where their filler begins.
    pub fn writer(self: &Arc<Self>, seed: u64) -> Writer {
        let parts = match &self.kind {
            Kind::Mixed(mixed) => mixed.writers(seed),
            _ => Vec::new(),
        };
        Writer {
            material: Arc::clone(self),
            slice: (seed % 4096) as usize,
            text: Vec::with_capacity(if self.headers > 0 { self.most } else { 0 }),
            clock: Clock::new(),
            parts,
        }
    }
}

/// What a record is, before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// Its partition key, as [`Material::key`] knows it.
    pub key: u32,
    /// Bytes of its payload, exactly.
    pub len: u32,
    /// What else the writer needs to know; means nothing to others.
    pub shape: u32,
}

/// One producer's records, in order.
#[derive(Debug)]
pub struct Source {
    random: fastrand::Rng,
    kind: SourceKind,
}

#[derive(Debug)]
enum SourceKind {
    Opaque(OpaqueSource),
    Video(VideoSource),
    Lines(Arc<Lines>, LinesSource),
    Iot(IotSource),
    Clicks(ClickSource),
    Mixed(MixedSource),
}

impl Source {
    /// What the next record is.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "it never ends: there is no Option to it")]
    pub fn next(&mut self) -> Draw {
        let random = &mut self.random;
        match &mut self.kind {
            SourceKind::Opaque(source) => source.next(random),
            SourceKind::Video(source) => source.next(random),
            SourceKind::Lines(lines, source) => lines.draw(source),
            SourceKind::Iot(source) => source.next(random),
            SourceKind::Clicks(source) => source.next(random),
            SourceKind::Mixed(source) => source.next(random),
        }
    }
}

/// Makes records; one per worker thread.
#[derive(Debug)]
pub struct Writer {
    material: Arc<Material>,
    /// Number of the last record's slice of the filler.
    slice: usize,
    /// Where text is put together.
    text: Vec<u8>,
    clock: Clock,
    /// Of a mixed workload: the number of each part's first key, and its writer.
    parts: Vec<(u32, Writer)>,
}

impl Writer {
    /// Adds the record of `draw` to `batch`, with its proof and checksum.
    ///
    /// # Panics
    /// If `draw` is of another material.
    #[inline]
    pub fn push(
        &mut self,
        batch: &mut BatchBuilder,
        draw: &Draw,
        proof: &Proof,
    ) -> Result<(), BatchError> {
        let Writer { material, slice, text, clock, parts } = self;
        let key = material.key(draw.key);
        match &material.kind {
            Kind::Opaque(_, filler) | Kind::Video(_, filler) => {
                filler.push(batch, key, draw.len as usize, proof, slice)
            }
            Kind::Lines(lines) => lines.push(batch, key, draw, proof, clock),
            Kind::Iot(iot) => iot.push(batch, key, draw, proof, text, clock),
            Kind::Clicks(clicks) => clicks.push(batch, key, draw, proof, text, clock),
            Kind::Mixed(_) => {
                let part = parts.partition_point(|(first, _)| *first <= draw.key) - 1;
                let (first, writer) = &mut parts[part];
                writer.push(batch, &Draw { key: draw.key - *first, ..*draw }, proof)
            }
        }
    }
}
