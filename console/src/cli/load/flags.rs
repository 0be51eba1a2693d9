//! What can be asked of a run, and the options it comes to: the generator's defaults, over these a workload file,
//! over that what is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use highwater_loadgen::schedule::{Burst, Profile, TraceSpec};
use highwater_loadgen::workload::{KeyDistribution, Material};
use highwater_loadgen::{Arrival, LoadOptions, Rate, Scenario, WarmUpRule, WorkloadFile};
use highwater_wire::{Compression, StreamName};

use super::slo::{self, Slo};
use super::words::{LoadTarget, PayloadSize, WorkloadName, load_target, warmup};
use super::{file, refusal, trace};
use crate::cli::stream::Ack;
use crate::failure::Failure;
use crate::units::{self, Cores};

/// What is loaded, and how hard.
#[derive(Debug, Default, Args)]
pub struct LoadFlags {
    #[command(flatten)]
    pub rate: RateFlags,
    #[command(flatten, next_help_heading = "Records")]
    pub records: RecordFlags,
    #[command(flatten, next_help_heading = "Streams and consumers")]
    pub streams: StreamFlags,
    #[command(flatten, next_help_heading = "Producers")]
    pub producers: ProducerFlags,
    #[command(flatten, next_help_heading = "The run")]
    pub run: RunFlags,
}

#[derive(Debug, Default, Args)]
pub struct RateFlags {
    /// A server, the engine in this process, or nothing at all [default: 127.0.0.1:7411]
    #[arg(short, long, env = "HIGHWATER_TARGET")]
    #[arg(value_name = "HOST:PORT|embedded[:DIR]|null", value_parser = load_target)]
    target: Option<LoadTarget>,
    /// Records a second in total, or max to saturate [default: 10k]
    #[arg(short, long, value_name = "RATE|max", value_parser = units::rate, allow_hyphen_values = true)]
    rate: Option<units::Rate>,
    /// How long to measure [default: 10s]
    #[arg(short, long, value_parser = units::duration)]
    duration: Option<Duration>,
    /// Before it, not measured: until rate and latency are steady, at most so long; or just so long
    /// [default: steady:30s]
    #[arg(long, value_name = "steady[:DURATION]|DURATION", value_parser = warmup)]
    warmup: Option<WarmUpRule>,
}

#[derive(Debug, Default, Args)]
pub struct RecordFlags {
    /// What records are: apache-log or apache-log:FILE, iot, clickstream, video, mixed ..., or a workload file (.toml),
    /// over which flags count [default: filler of one size]
    #[arg(short, long, value_name = "NAME|FILE.toml")]
    workload: Option<WorkloadName>,
    /// Payload of a record [default: 1KiB]
    #[arg(long, value_name = "BYTES|A..B|lognormal:MEDIAN[,SIGMA]")]
    size: Option<PayloadSize>,
    /// Different keys [default: 10000]
    #[arg(long, value_name = "N")]
    keys: Option<u32>,
    /// How often each key comes [default: uniform]
    #[arg(long, value_name = "uniform|zipf[:1.1]|hot[:50%]|round-robin")]
    key_distribution: Option<KeyDistribution>,
}

#[derive(Debug, Default, Args)]
pub struct StreamFlags {
    /// The stream; created if missing [default: load- and a random number]
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Streams; more than one are NAME-0, NAME-1 ... [default: 1]
    #[arg(long, value_name = "N")]
    streams: Option<u32>,
    /// Shards of a stream created [default: 1]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Acknowledgement of a stream created [default: durable]
    #[arg(long, value_enum)]
    ack: Option<Ack>,
    /// Bytes kept of a stream created [default: 4GiB]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    retention_bytes: Option<u64>,
    /// Remove the stream after the run, if it held nothing before
    #[arg(long)]
    delete_stream: bool,
    /// Consumer groups, each of which reads everything [default: 1; backlog: 2]
    #[arg(long, value_name = "N")]
    groups: Option<usize>,
    /// Consumers of all groups; 0 for none, then nothing is checked [default: one per group and shard]
    #[arg(long, value_name = "N")]
    consumers: Option<usize>,
}

#[derive(Debug, Default, Args)]
pub struct ProducerFlags {
    /// Producers, each with its own order [default: 1]
    #[arg(long, value_name = "N")]
    producers: Option<usize>,
    /// Closed loop instead: N callers with one record outstanding each
    #[arg(long, value_name = "N")]
    #[arg(conflicts_with_all = ["producers", "batch", "linger", "inflight"])]
    clients: Option<usize>,
    /// A batch is sent at this size [default: 256KiB]
    #[arg(long, value_name = "BYTES", value_parser = units::size)]
    batch: Option<u64>,
    /// ... or this long after its first record [default: 200us]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    linger: Option<Duration>,
    /// Batches not yet acknowledged, per producer and shard [default: 16]
    #[arg(long, value_name = "N")]
    inflight: Option<usize>,
    /// Connections to each core of the server, per worker [default: 1]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Compress batches, as a client of a server does [default: none]
    #[arg(long, value_name = "none|lz4|zstd")]
    compression: Option<Compression>,
    /// Greet the server by this name, whose quota then counts [default: highwater-loadgen]
    #[arg(long, env = "HIGHWATER_CLIENT_NAME", value_name = "NAME")]
    client_name: Option<String>,
    /// Name the producers to the server: NAME-0, NAME-1 ..., one for each producer and shard. A later run of the same
    /// name fences this one off
    #[arg(long, value_name = "NAME")]
    producer: Option<String>,
}

#[derive(Debug, Default, Args)]
pub struct RunFlags {
    /// Pin the generator's workers to these CPUs [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = units::cores)]
    cores: Option<Cores>,
    /// Pin the embedded engine's threads to these CPUs [default: one, the last that is not in --cores]
    #[arg(long, value_name = "LIST", value_parser = units::cores)]
    engine_cores: Option<Cores>,
    /// Wait awake for this long before a record is due [default: 60us]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    spin: Option<Duration>,
    /// Seed of arrivals, keys and payloads [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The target may be killed and come back: wait for it
    #[arg(long)]
    tolerate_restart: bool,
    /// A target that answers nothing for so long ends the run [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    target_timeout: Option<Duration>,
    /// Longest wait at the end for acknowledgements and consumers [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    drain_timeout: Option<Duration>,
    /// A run is void if the generator itself acts later than this at p99 [default: 1ms, or a tenth of the tightest
    /// --slo where that is less]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    late_bound: Option<Duration>,
    /// ... or if the hypervisor gives more of the machine's CPU time to others [default: 2%]
    #[arg(long, value_name = "PERCENT", value_parser = units::share)]
    steal_bound: Option<f64>,
    /// A bound that decides the exit code: 0 met, 1 not met, 5 no valid measurement. p50 to p99.99 or max of
    /// response, or of another latency (propagation.p99=20ms); may be given several times
    #[arg(long, value_name = "p99=10ms")]
    slo: Vec<Slo>,
}

/// How arrivals are spaced, and how their rate runs.
#[derive(Debug, Default, Args)]
pub struct ArrivalFlags {
    /// How records are spaced. poisson goes with --peak and with --trace as well [default: constant]
    #[arg(long, value_enum)]
    arrival: Option<Spacing>,
    #[command(flatten)]
    burst: BurstFlags,
    /// Follow this file of rates, of times, or of records as `replay --to FILE` keeps them: these are sent as well, with
    /// their keys and payloads, unless --workload or --size say otherwise, for as long as they last unless --duration does
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["rate", "peak", "on", "every"])]
    trace: Option<PathBuf>,
    /// Keep the records of this stream of the target in NAME.trace.jsonl first, and follow that
    #[arg(long, value_name = "NAME")]
    #[arg(conflicts_with_all = ["trace", "rate", "peak", "on", "every"])]
    trace_stream: Option<StreamName>,
    /// How much faster than the file says [default: 1x]
    #[arg(long, visible_alias = "trace-speed", value_name = "FACTOR", value_parser = units::factor)]
    speed: Option<f64>,
}

/// How bursts come.
#[derive(Clone, Debug, Default, Args)]
pub struct BurstFlags {
    /// Rate of a burst, as a multiple of --rate [default: 2.5x]
    #[arg(long, value_name = "FACTOR", value_parser = units::factor)]
    peak: Option<f64>,
    /// Length of a burst [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    on: Option<Duration>,
    /// From one burst to the next [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    every: Option<Duration>,
}

/// How records are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spacing {
    /// Evenly
    Constant,
    /// As independent producers behave
    Poisson,
    /// Evenly, with bursts
    Burst,
    /// Evenly along a file
    Trace,
}

impl BurstFlags {
    fn given(&self) -> bool {
        self.peak.is_some() || self.on.is_some() || self.every.is_some()
    }

    /// What was typed over what there is.
    pub fn over(&self, there: &Profile) -> Burst {
        let mut burst = match there {
            Profile::Burst(burst) => *burst,
            _ => Burst::default(),
        };
        set(&mut burst.peak, self.peak);
        set(&mut burst.on, self.on);
        set(&mut burst.every, self.every);
        burst
    }
}

impl ArrivalFlags {
    /// Spaced like this, at a steady rate.
    pub fn spaced(spacing: super::burst::BurstSpacing) -> ArrivalFlags {
        let arrival = match Arrival::from(spacing) {
            Arrival::Constant => Spacing::Constant,
            Arrival::Poisson => Spacing::Poisson,
        };
        ArrivalFlags { arrival: Some(arrival), ..ArrivalFlags::default() }
    }

    fn given(&self) -> bool {
        let traced = self.trace.is_some() || self.trace_stream.is_some();
        self.arrival.is_some() || traced || self.burst.given()
    }

    /// Changes spacing and profile as typed.
    fn apply(&self, options: &mut LoadOptions) -> Result<(), Failure> {
        let spacing = match self.arrival {
            None => None,
            Some(Spacing::Poisson) => Some(Arrival::Poisson),
            Some(_) => Some(Arrival::Constant),
        };
        set(&mut options.arrival, spacing);
        let usage = |what: &str| Err(Failure::Usage(what.to_owned()));
        let trace = match &self.trace_stream {
            Some(stream) => Some(trace::keep(stream, options)?),
            None => self.trace.clone(),
        };
        if trace.is_none() && self.speed.is_some() {
            return usage("--speed needs --trace FILE or --trace-stream NAME");
        }
        match (trace, self.arrival) {
            (Some(_), Some(Spacing::Burst)) => {
                return usage("--arrival burst with --trace: the file says how the rate runs");
            }
            (None, Some(Spacing::Trace)) if !matches!(options.profile, Profile::Trace(_)) => {
                return usage("--arrival trace needs a file: --trace FILE");
            }
            (None, Some(Spacing::Trace)) if self.burst.given() => {
                return usage(
                    "--arrival trace with --peak, --on or --every: the file says how the rate runs",
                );
            }
            (Some(file), _) => {
                let speed = self.speed.unwrap_or(1.0);
                options.profile = Profile::Trace(TraceSpec { file, speed });
            }
            (None, Some(Spacing::Constant)) if self.burst.given() => {
                return usage(
                    "--arrival constant with --peak, --on or --every: write --arrival burst",
                );
            }
            (None, Some(Spacing::Constant)) => options.profile = Profile::Flat,
            (None, arrival) if self.burst.given() || arrival == Some(Spacing::Burst) => {
                options.profile = Profile::Burst(self.burst.over(&options.profile));
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// What a run is to find out, with the flags only it has.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// `load run`, and `load check`.
    Run(&'a ArrivalFlags),
    /// `load burst`: always bursts.
    Burst(Option<super::burst::BurstSpacing>, &'a BurstFlags),
    /// `load backlog`.
    Backlog(&'a ArrivalFlags, super::backlog::OutageFlags),
}

/// A run that was asked for and can be.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub options: LoadOptions,
    /// The workload as typed, if it was.
    pub workload: Option<WorkloadName>,
    /// The bounds to meet.
    pub slo: Vec<Slo>,
}

impl LoadFlags {
    /// The measured window as typed, if it was.
    pub fn duration(&self) -> Option<Duration> {
        self.rate.duration
    }

    /// Whether a rate was typed.
    pub fn has_rate(&self) -> bool {
        self.rate.rate.is_some()
    }

    /// The seed as typed, if it was.
    pub fn seed(&self) -> Option<u64> {
        self.run.seed
    }

    /// Nothing but a workload.
    pub fn of_workload(workload: WorkloadName) -> LoadFlags {
        let records = RecordFlags { workload: Some(workload), ..RecordFlags::default() };
        LoadFlags { records, ..LoadFlags::default() }
    }

    /// Options that are random because nobody typed them.
    pub fn by_chance(&self) -> Vec<&'static str> {
        let stream = self.streams.stream.is_none().then_some("stream");
        let seed = self.run.seed.is_none().then_some("seed");
        stream.into_iter().chain(seed).collect()
    }

    /// Where trials warm up as they must.
    pub fn refuse_warmup(&self) -> Result<(), Failure> {
        match self.rate.warmup {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(
                "--warmup: a search warms up by itself, within its --budget".to_owned(),
            )),
        }
    }

    /// All layers together, checked; files named are read.
    pub fn request(&self, kind: Kind<'_>) -> Result<Request, Failure> {
        self.request_with(kind, None)
    }

    /// The same with further flags over those typed.
    pub fn request_with(
        &self,
        kind: Kind<'_>,
        over: Option<&LoadFlags>,
    ) -> Result<Request, Failure> {
        let mut options = LoadOptions::default();
        if let Kind::Backlog(..) = kind {
            options.groups = 2;
        }
        let mut said = WorkloadFile::default();
        let workload = over.and_then(|over| over.records.workload.as_ref());
        let workload = workload.or(self.records.workload.as_ref());
        match workload {
            None => {}
            Some(WorkloadName::File(path)) => said = file::apply(path, &mut options)?,
            Some(WorkloadName::Named(_, workload)) => options.workload = workload.clone(),
        }
        self.apply(&mut options)?;
        if let Some(over) = over {
            // Of these the target may come from the environment, which is no reason to leave the one typed.
            let target = options.target.clone();
            over.apply(&mut options)?;
            options.target = target;
        }
        match kind {
            Kind::Run(arrival) => arrival.apply(&mut options)?,
            Kind::Burst(spacing, burst) => {
                set(&mut options.arrival, spacing.map(Arrival::from));
                let burst = burst.over(&options.profile);
                // Long enough to show some, unless it was said how long.
                if self.rate.duration.or(said.duration).is_none() {
                    options.duration = burst.every.saturating_mul(3);
                }
                options.profile = Profile::Burst(burst);
                options.scenario = Scenario::Burst;
            }
            Kind::Backlog(arrival, outage) => {
                arrival.apply(&mut options)?;
                options.scenario = outage.over(&said).scenario();
            }
        }
        trace::follow(
            &mut options,
            self.sends(&said, workload),
            self.rate.duration.or(said.duration),
        )?;
        if let Kind::Run(arrival) = kind
            && !arrival.given()
            && said.arrival.is_none()
            && said.profile.is_none()
        {
            usual_profile(&mut options)?;
        }
        match self.run.late_bound {
            Some(bound) => options.late_bound = bound,
            None => slo::tighten(&mut options.late_bound, &self.run.slo),
        }
        refusal::check(&options)?;
        let (workload, slo) = (workload.cloned(), self.run.slo.clone());
        Ok(Request { options, workload, slo })
    }

    /// What of records was said, by a flag or a file.
    fn sends(&self, said: &WorkloadFile, workload: Option<&WorkloadName>) -> trace::Sends {
        let records = &self.records;
        let named = matches!(workload, Some(WorkloadName::Named(..)));
        if named || said.workload.is_some() || records.size.is_some() {
            return trace::Sends::Records;
        }
        let keys = records.keys.is_some() || records.key_distribution.is_some();
        if keys { trace::Sends::Keys } else { trace::Sends::Nothing }
    }

    fn apply(&self, options: &mut LoadOptions) -> Result<(), Failure> {
        let (rate, records, streams) = (&self.rate, &self.records, &self.streams);
        set(
            &mut options.rate,
            rate.rate.map(|rate| match rate {
                units::Rate::Max => Rate::Max,
                units::Rate::PerSecond(rate) => Rate::PerSecond(rate),
            }),
        );
        set(&mut options.target, rate.target.as_ref().map(ToString::to_string));
        set(&mut options.duration, rate.duration);
        set(&mut options.warmup, rate.warmup);
        if let Some(size) = records.size {
            if let Some(WorkloadName::Named(name, _)) = &records.workload {
                let what =
                    format!("--size with --workload {name}: its records have their own sizes");
                return Err(Failure::Usage(what));
            }
            options.workload = size.workload();
        }
        let typed = [
            ("--keys", records.keys.is_some()),
            ("--key-distribution", records.key_distribution.is_some()),
        ];
        if let Some((flag, _)) = typed.into_iter().find(|(_, typed)| *typed)
            && options.workload.brings_keys()
        {
            let name = options.workload.name();
            let what = format!("{flag} with workload {name}: its records have their own keys");
            return Err(Failure::Usage(what));
        }
        set(&mut options.keys.count, records.keys);
        set(&mut options.keys.distribution, records.key_distribution);
        set(&mut options.stream, streams.stream.clone());
        set(&mut options.streams, streams.streams);
        set(&mut options.shards, streams.shards);
        set(&mut options.ack, streams.ack.map(Into::into));
        set(&mut options.retention_bytes, streams.retention_bytes);
        options.delete_stream |= streams.delete_stream;
        set(&mut options.groups, streams.groups);
        if streams.consumers.is_some() {
            options.consumers = streams.consumers;
        }
        self.producers.apply(options);
        self.run.apply(options);
        Ok(())
    }
}

/// Some workloads come in bursts unless something else is asked for; only a rate can.
fn usual_profile(options: &mut LoadOptions) -> Result<(), Failure> {
    if options.profile == Profile::Flat && options.rate != Rate::Max && options.clients.is_none() {
        let material = Material::prepare(&options.workload, &options.keys, options.seed);
        set(
            &mut options.profile,
            material.map_err(|e| refusal::failure(e.into()))?.default_profile(),
        );
    }
    Ok(())
}

impl ProducerFlags {
    fn apply(&self, options: &mut LoadOptions) {
        set(&mut options.producers, self.producers);
        if self.clients.is_some() {
            options.clients = self.clients;
        }
        let batch = self.batch.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        set(&mut options.batch_bytes, batch);
        set(&mut options.linger, self.linger);
        set(&mut options.inflight, self.inflight);
        set(&mut options.connections, self.connections);
        set(&mut options.compression, self.compression);
        set(&mut options.client_name, self.client_name.clone());
        options.producer = self.producer.clone().or_else(|| options.producer.take());
    }
}

impl RunFlags {
    fn apply(&self, options: &mut LoadOptions) {
        let list = |cores: &Option<Cores>| cores.clone().map(|cores| cores.0);
        set(&mut options.cores, list(&self.cores));
        set(&mut options.engine_cores, list(&self.engine_cores));
        set(&mut options.spin, self.spin);
        set(&mut options.seed, self.seed);
        options.tolerate_restart |= self.tolerate_restart;
        set(&mut options.target_timeout, self.target_timeout);
        set(&mut options.drain_timeout, self.drain_timeout);
        set(&mut options.steal_bound, self.steal_bound);
    }
}

fn set<T>(field: &mut T, typed: Option<T>) {
    if let Some(value) = typed {
        *field = value;
    }
}
