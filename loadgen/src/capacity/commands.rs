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
    /// Records per second to measure at.
    rate: f64,
    /// Less than is asked for, as that would be overload.
    capped: bool,
    /// Groups that are asked for.
    groups: u32,
    slo: String,
    embedded: bool,
}

impl Commands {
    /// Those for the load of the source `from`, or of another in `evidence`, or the defaults if none has one. At the
    /// demand, or at `most` records per second if that is less.
    pub fn of(
        evidence: &Evidence,
        demand: &Demand,
        from: Option<&str>,
        most: Option<f64>,
    ) -> Commands {
        let loads = evidence.sources.iter().filter(|source| source.load.is_some());
        // What the plan rests on says most about what is meant, itself or as a part of a sweep, and then a search.
        let named = |source: &Source| {
            let rest = from.and_then(|from| from.strip_prefix(source.name.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' ']))
        };
        let source = loads.max_by_key(|s| (named(s), s.kind == SourceKind::Search));
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
            rate: most.map_or(demand.rate, |most| demand.rate.min(most)),
            capped: most.is_some_and(|most| most < demand.rate),
            groups: demand.groups.max(1),
            slo: slo.iter().map(|bound| format!(" --slo {bound}")).collect(),
            embedded: target.starts_with("embedded"),
        }
    }

    /// The rate at which is measured, in records per second, if that is less than what is asked for.
    pub fn capped(&self) -> Option<f64> {
        self.capped.then_some(self.rate)
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
        // So many hold for as many groups and shards as they were with; none read nothing.
        let mut words = what.split(' ').skip_while(|word| *word != "--groups");
        let groups = words.nth(1).map_or(Some(1), |word| word.parse().ok());
        let as_many = groups == Some(self.measured_groups) && !what.contains("--vary shards=");
        let unread =
            what.starts_with("search") || what.starts_with("sweep") || what.contains("-r max");
        let consumers = |flag: &str, value: &str| {
            flag != "--consumers" || if value == "0" { unread } else { as_many }
        };
        let settings = self.settings.iter();
        for (flag, value) in settings
            .filter(|(flag, value)| !varied(flag) && !unscheduled(flag) && consumers(flag, value))
        {
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
        // Whose quota counts.
        ("--client-name", load.client_name != d.client_name),
        ("--consumers", load.consumers != d.consumers),
        ("--cores", load.cores != d.cores),
        ("--engine-cores", load.engine_cores != d.engine_cores),
        ("--spin", load.spin != d.spin),
        // Without these, what was measured on a machine with others on it would be void.
        ("--late-bound", load.late_bound != d.late_bound),
        ("--steal-bound", load.steal_bound != d.steal_bound),
    ];
    // A closed loop has no rate that could be asked for: its callers are none of the settings.
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
        let commands = Commands::of(
            &Evidence::default(),
            &Demand { groups: 3, ..Demand::of(400e3) },
            None,
            None,
        );
        assert_eq!(
            commands.search(),
            "highwater load search --slo p99=10ms --groups 3 --shards 1 -t 127.0.0.1:7411 -o search"
        );
        let backlog = commands.backlog();
        assert!(backlog.contains("-r 400000 --outage 60s --groups 3"), "{backlog}");
    }

    fn searched(name: &str, words: &str, change: impl FnOnce(&mut LoadOptions)) -> Source {
        let mut load = LoadOptions::default();
        change(&mut load);
        Source {
            command: words.split(' ').map(str::to_owned).collect(),
            load: Some(Box::new(load)),
            ..crate::capacity::tests::source(name, SourceKind::Search)
        }
    }

    /// What made the trials valid, and whose quota counted, holds for what is run beside them.
    #[test]
    fn bounds_and_names_of_the_trials_are_kept() {
        let words = "highwater load search --late-bound 10ms --steal-bound 0.15 --client-name shop --consumers 2 \
                     --spin 0us --groups 2 --slo p99=50ms";
        let source = searched("s", words, |load| {
            load.late_bound = std::time::Duration::from_millis(10);
            load.steal_bound = 0.15;
            load.client_name = "shop".into();
            (load.groups, load.consumers) = (2, Some(2));
            load.spin = std::time::Duration::ZERO;
        });
        let evidence = Evidence { sources: vec![source], ..Evidence::default() };
        let demand = Demand { groups: 2, ..Demand::of(1e3) };
        let commands = Commands::of(&evidence, &demand, None, None);
        for command in [commands.backlog(), commands.sweep_ack(), commands.saturate()] {
            let settings = " --client-name shop --consumers 2 --spin 0us --late-bound 10ms --steal-bound 0.15 ";
            assert!(command.contains(settings), "{command}");
        }
        // As many consumers are too many or too few elsewhere.
        let others = Demand { groups: 3, ..demand };
        let commands_of_three = Commands::of(&evidence, &others, None, None);
        for command in [commands.sweep_shards(), commands_of_three.backlog()] {
            assert!(!command.contains("--consumers"), "{command}");
            assert!(command.contains("--late-bound 10ms"), "{command}");
        }
    }

    /// Proposals are those of what the plan rests on, and no more than can be served.
    #[test]
    fn proposals_are_of_the_search_that_counts_and_no_overload() {
        let sources = ["p99=10ms", "p99=500ms"]
            .map(|slo| searched(slo, &format!("highwater load search --slo {slo}"), |_| ()));
        let evidence = Evidence { sources: sources.into(), ..Evidence::default() };
        for (from, slo) in [
            ("p99=10ms", "p99=10ms"),
            ("p99=500ms", "p99=500ms"),
            ("p99=10ms/points/1", "p99=10ms"),
        ] {
            let commands = Commands::of(&evidence, &Demand::of(20e3), Some(from), Some(14e3));
            assert!(commands.search().contains(&format!("--slo {slo} ")), "{from}");
            assert!(commands.backlog().contains("-r 14000 "), "{}", commands.backlog());
            assert_eq!(commands.capped(), Some(14e3));
        }
        let commands = Commands::of(&evidence, &Demand::of(10e3), None, Some(14e3));
        assert!(commands.backlog().contains("-r 10000 ") && commands.capped().is_none());
    }
}
