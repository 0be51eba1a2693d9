//! The commands that would answer what is not measured, word by word, for the target and the settings of what is.

use super::demand::Demand;
use super::evidence::{Evidence, Source, SourceKind};
use crate::LoadOptions;
use crate::report::quoted;
use crate::workload::Workload;

/// What commands have in common.
#[derive(Clone, Debug)]
pub struct Commands {
    target: String,
    /// Settings that differ from the defaults, by flag.
    settings: Vec<(&'static str, String)>,
    shards: u32,
    /// Groups of what was measured.
    measured_groups: usize,
    rate: f64,
    /// Groups that are asked for.
    groups: u32,
    slo: String,
    embedded: bool,
}

impl Commands {
    /// Those for the load of `evidence`, or the defaults if none has one.
    pub fn of(evidence: &Evidence, demand: &Demand) -> Commands {
        let loads = evidence.sources.iter().filter(|source| source.load.is_some());
        // A search says most about what is meant.
        let source = loads.max_by_key(|source| source.kind == SourceKind::Search);
        let recorded = evidence.sources.iter().find(|source| source.kind == SourceKind::Recording);
        let target = source.or(recorded).map_or("", |source| source.target.as_str());
        let target = if target.is_empty() { DEFAULT_TARGET } else { target };
        let load = source.and_then(|source| source.load.as_deref());
        let mut slo: Vec<&str> = source.map_or_else(Vec::new, |s| after(&s.command, "--slo"));
        // A maximum bounds a run, and nothing that can be searched for.
        slo.retain(|bound| !bound.contains("max="));
        if slo.is_empty() {
            slo.push("p99=10ms");
        }
        Commands {
            target: target.to_owned(),
            settings: source.map_or_else(|| recorded_size(evidence), settings),
            shards: load.map_or(1, |load| load.shards),
            measured_groups: load.map_or(1, |load| load.groups),
            rate: demand.rate,
            groups: demand.groups.max(1),
            slo: slo.iter().map(|bound| format!(" --slo {bound}")).collect(),
            embedded: target.starts_with("embedded"),
        }
    }

    /// What the machine sustains.
    pub fn search(&self) -> String {
        let what = format!("search{} --groups {} --shards {}", self.slo, self.groups, self.shards);
        self.load(&what, "search")
    }

    /// How it scales.
    pub fn sweep_shards(&self) -> String {
        let what = format!("sweep --vary shards=1,2,4,8,12,16{}", self.slo);
        self.load(&(what + &self.as_measured()), "sweep-shards")
    }

    /// What durability costs.
    pub fn sweep_ack(&self) -> String {
        let what = format!(
            "sweep --vary ack=durable,written -r {} --shards {}",
            self.round(),
            self.shards
        );
        self.load(&(what + &self.as_measured()), "sweep-ack")
    }

    /// Which batch and linger.
    pub fn sweep_batch(&self) -> String {
        let what = format!(
            "sweep --vary batch=16KiB,64KiB,256KiB --vary linger=0us,200us,1ms,5ms -r {} --shards {}",
            self.round(),
            self.shards
        );
        self.load(&(what + &self.as_measured()), "sweep-batch")
    }

    /// How a group catches up. At the rate in question, an outage long enough to be read from the device.
    pub fn backlog(&self) -> String {
        let groups = self.groups.max(2);
        let what = format!(
            "backlog -r {} --outage 60s --groups {groups} --shards {}",
            self.round(),
            self.shards
        );
        self.load(&what, "backlog")
    }

    /// How many groups can follow.
    pub fn groups(&self) -> String {
        let what =
            format!("run -r {} --groups {} --shards {}", self.round(), self.groups, self.shards);
        self.load(&what, "run-groups")
    }

    /// What the machine delivers under overload.
    pub fn saturate(&self) -> String {
        let what = format!("run -r max -d 30s --shards {}", self.shards);
        self.load(&(what + &self.as_measured()), "run-max")
    }

    /// What the server's cores do meanwhile.
    pub fn record(&self) -> String {
        // An engine within the generator's process answers nobody.
        let (target, when) = match self.embedded {
            true => (DEFAULT_TARGET, "of a server, while it is loaded"),
            false => (self.target.as_str(), "while the load runs"),
        };
        format!("highwater record -t {target} -o load.rec --duration 60s  # {when}")
    }

    /// What the machine could do.
    pub fn probe(&self) -> String {
        let dir = self.target.strip_prefix("embedded:").unwrap_or("./data");
        format!("highwater probe {dir} --json >probe.json  # where the server's data is")
    }

    /// As many groups as in what was measured: with others it is another setup.
    fn as_measured(&self) -> String {
        match self.measured_groups {
            1 => String::new(),
            groups => format!(" --groups {groups}"),
        }
    }

    fn load(&self, what: &str, output: &str) -> String {
        let mut command = format!("highwater load {what} -t {}", self.target);
        let varied =
            |flag: &str| what.contains(&format!("--vary {}=", flag.trim_start_matches('-')));
        // As fast as it goes, nothing is scheduled.
        let unscheduled = |flag: &str| flag == "--arrival" && what.contains("-r max");
        let settings = self.settings.iter();
        for (flag, value) in settings.filter(|(flag, _)| !varied(flag) && !unscheduled(flag)) {
            command += &format!(" {flag} {}", quoted(value));
        }
        format!("{command} -o {output}")
    }

    fn round(&self) -> String {
        if self.rate < 1.0 { format!("{}", self.rate) } else { format!("{:.0}", self.rate) }
    }
}

/// Where a server listens unless it is told otherwise.
const DEFAULT_TARGET: &str = "127.0.0.1:7411";

/// The size of the records that were recorded, where no load says it.
fn recorded_size(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let framed = evidence.recorded.iter().find_map(|(_, r)| r.batch_bytes_per_record());
    let payload = framed.map(|bytes| (bytes - super::facts::LEAST_FRAMING).round());
    payload
        .filter(|bytes| *bytes >= 32.0)
        .map(|bytes| ("--size", bytes.to_string()))
        .into_iter()
        .collect()
}

/// What follows each `flag` in a command.
fn after<'a>(command: &'a [String], flag: &str) -> Vec<&'a str> {
    let pairs = command.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1].as_str()).collect()
}

/// Settings of the records, the producers and the generator where they are not the default: all that makes a
/// measurement another one, by the words it was asked for with.
fn settings(source: &Source) -> Vec<(&'static str, String)> {
    let Some(load) = &source.load else { return Vec::new() };
    let d = LoadOptions::default();
    let differs = [
        ("-w", load.workload != d.workload && !matches!(load.workload, Workload::Fixed { .. })),
        ("--size", load.workload != d.workload),
        ("--keys", load.keys.count != d.keys.count),
        ("--key-distribution", load.keys.distribution != d.keys.distribution),
        ("--arrival", load.arrival != d.arrival && load.profile == d.profile),
        ("--ack", load.ack != d.ack),
        ("--streams", load.streams != d.streams),
        ("--producers", load.producers != d.producers),
        ("--batch", load.batch_bytes != d.batch_bytes),
        ("--linger", load.linger != d.linger),
        ("--inflight", load.inflight != d.inflight),
        ("--connections", load.connections != d.connections),
        ("--compression", load.compression != d.compression),
        ("--cores", load.cores != d.cores),
        ("--engine-cores", load.engine_cores != d.engine_cores),
    ];
    let mut settings = Vec::new();
    for (flag, _) in differs.into_iter().filter(|(_, differs)| *differs) {
        match (after(&source.command, flag).last(), &load.workload) {
            (Some(value), _) => settings.push((flag, (*value).to_owned())),
            (None, Workload::Fixed { size }) if flag == "--size" => {
                settings.push((flag, size.to_string()));
            }
            _ => {}
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_anything_the_defaults_are_proposed() {
        let commands =
            Commands::of(&Evidence::default(), &Demand { groups: 3, ..Demand::of(400e3) });
        assert_eq!(
            commands.search(),
            "highwater load search --slo p99=10ms --groups 3 --shards 1 -t 127.0.0.1:7411 -o search"
        );
        let backlog = commands.backlog();
        assert!(backlog.contains("-r 400000 --outage 60s --groups 3"), "{backlog}");
    }
}
