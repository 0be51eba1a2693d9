//! The commands that would answer what is not measured, word by word, for the target and the settings of what is.

use super::demand::Demand;
use super::evidence::{Evidence, Source, SourceKind};
use crate::LoadOptions;
use crate::workload::Workload;

/// What commands have in common.
#[derive(Clone, Debug)]
pub struct Commands {
    target: String,
    /// Settings that differ from the defaults.
    settings: String,
    shards: u32,
    rate: f64,
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
        let target = source.or(recorded).map_or("127.0.0.1:7411", |source| source.target.as_str());
        let load = source.and_then(|source| source.load.as_deref());
        let slo = source.and_then(|source| after(&source.command, "--slo"));
        Commands {
            target: target.to_owned(),
            settings: source.map(settings).unwrap_or_default(),
            shards: load.map_or(1, |load| load.shards),
            rate: demand.rate,
            groups: demand.groups.max(1),
            slo: slo.unwrap_or_else(|| "p99=10ms".to_owned()),
            embedded: target.starts_with("embedded"),
        }
    }

    /// What the machine sustains.
    pub fn search(&self) -> String {
        self.load(&format!("search --slo {} --shards {}", self.slo, self.shards), "search")
    }

    /// How it scales.
    pub fn sweep_shards(&self) -> String {
        self.load(
            &format!("sweep --vary shards=1,2,4,8,12,16 --search --slo {}", self.slo),
            "sweep-shards",
        )
    }

    /// What durability costs.
    pub fn sweep_ack(&self) -> String {
        let what = format!(
            "sweep --vary ack=durable,written -r {} --shards {}",
            self.round(),
            self.shards
        );
        self.load(&what, "sweep-ack")
    }

    /// Which batch and linger.
    pub fn sweep_batch(&self) -> String {
        let what = format!(
            "sweep --vary batch=16KiB,64KiB,256KiB --vary linger=0us,200us,1ms,5ms -r {} --shards {}",
            self.round(),
            self.shards
        );
        self.load(&what, "sweep-batch")
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
        self.load(&format!("run -r max -d 30s --shards {}", self.shards), "run-max")
    }

    /// What the server's cores do meanwhile.
    pub fn record(&self) -> String {
        // An engine within the generator's process answers nobody.
        let target = if self.embedded { "127.0.0.1:7411" } else { &self.target };
        format!("highwater record -t {target} -o load.rec --duration 60s    (while the load runs)")
    }

    /// What the machine could do.
    pub fn probe(&self) -> String {
        "highwater probe DIR --json >probe.json    (DIR: the server's data directory's file system)"
            .to_owned()
    }

    fn load(&self, what: &str, output: &str) -> String {
        format!("highwater load {what} -t {}{} -o {output}", self.target, self.settings)
    }

    fn round(&self) -> String {
        if self.rate < 1.0 { format!("{}", self.rate) } else { format!("{:.0}", self.rate) }
    }
}

/// What follows `flag` in a command.
fn after(command: &[String], flag: &str) -> Option<String> {
    let at = command.iter().position(|word| word == flag)?;
    command.get(at + 1).cloned()
}

/// Settings of the records and the producers, where they are not the default.
fn settings(source: &Source) -> String {
    let Some(load) = &source.load else { return String::new() };
    let (mut text, defaults) = (String::new(), LoadOptions::default());
    let mut add = |flag: &str, value: String| text += &format!(" --{flag} {value}");
    match &load.workload {
        workload if *workload == defaults.workload => {}
        Workload::Fixed { size } => add("size", size.to_string()),
        // By the words it was asked for with.
        _ => {
            for flag in ["workload", "size"] {
                if let Some(words) = after(&source.command, &format!("--{flag}")) {
                    add(flag, words);
                }
            }
        }
    }
    if load.producers != defaults.producers {
        add("producers", load.producers.to_string());
    }
    if load.streams != defaults.streams {
        add("streams", load.streams.to_string());
    }
    text
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
            "highwater load search --slo p99=10ms --shards 1 -t 127.0.0.1:7411 -o search"
        );
        let backlog = commands.backlog();
        assert!(backlog.contains("-r 400000 --outage 60s --groups 3"), "{backlog}");
    }
}
