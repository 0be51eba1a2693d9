//! Whether everything a plan is made from was measured in one place: figures of different machines do not add up.

use serde::Serialize;

use super::evidence::{Source, SourceKind};
use crate::compare::{machine_fields, target_kind};

/// A field in which two sources differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mixed {
    /// The field, as in `run.json`.
    pub field: String,
    /// A source.
    pub a: String,
    /// Its value there.
    pub of_a: String,
    /// Another.
    pub b: String,
    /// Its value there.
    pub of_b: String,
}

impl std::fmt::Display for Mixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mixed { field, a, of_a, b, of_b } = self;
        write!(f, "{field} is {of_a} in {a} and {of_b} in {b}")
    }
}

/// What belongs to the process that measured, or to a moment, and not to the machine.
const PASSING: [&str; 3] =
    ["environment.swap in use", "environment.memlock_bytes", "environment.huge_pages"];

/// Every difference to the first source that knows its machine. Recordings do not know theirs.
pub fn mixed(sources: &[Source]) -> Vec<Mixed> {
    let mut found = Vec::new();
    let mut known = sources.iter().filter(|source| source.environment.is_some());
    let Some(first) = known.next() else { return found };
    let of_first = fields(first);
    for other in known {
        for (field, of_b) in fields(other) {
            let of_a = of_first.iter().find(|(name, _)| *name == field).map(|(_, value)| value);
            if let Some(of_a) = of_a.filter(|of_a| **of_a != of_b) {
                found.push(Mixed {
                    field,
                    a: first.name.clone(),
                    of_a: of_a.clone(),
                    b: other.name.clone(),
                    of_b,
                });
            }
        }
    }
    found
}

/// Those of one source; only what is told by both is compared.
fn fields(source: &Source) -> Vec<(String, String)> {
    let machine = source.environment.iter().flat_map(machine_fields);
    let mut fields: Vec<(String, String)> = machine
        .filter(|(name, _)| !PASSING.contains(&name.as_str()))
        .map(|(name, value)| {
            (name, if value.is_null() { "not known".to_owned() } else { value.to_string() })
        })
        .collect();
    // What a probe is made of has no target, and its own build does not slow the device.
    if source.kind == SourceKind::Probe {
        fields.retain(|(name, _)| name != "environment.debug_build" && !name.contains("data_dir"));
    } else {
        let kind = target_kind(&source.target);
        fields.push(("target kind".to_owned(), kind.to_owned()));
        if kind == "server" {
            fields.push(("target host".to_owned(), host(&source.target).to_owned()));
        }
        if !source.server.is_empty() {
            fields.push(("server release".to_owned(), source.server.clone()));
        }
    }
    fields
}

/// The host of a server's address. Ports change with every start of a server that is given none.
pub(super) fn host(target: &str) -> &str {
    let host = match target.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => target
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':'))
            .map_or(target, |(host, _)| host),
    };
    // By whatever name, it is the machine itself.
    match host {
        "localhost" | "::1" => "127.0.0.1",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Environment;

    fn source(name: &str, target: &str, environment: Option<Environment>) -> Source {
        Source {
            name: name.into(),
            kind: SourceKind::Run,
            schema: String::new(),
            target: target.into(),
            server: String::new(),
            began_ns: 0,
            counted: 1,
            void: vec![],
            command: vec![],
            lints: vec![],
            environment,
            load: None,
        }
    }

    fn machine(cpus: usize, kernel: &str) -> Option<Environment> {
        let load_average = Some(cpus as f64);
        Some(Environment { cpus, kernel: kernel.into(), load_average, ..Environment::default() })
    }

    #[test]
    fn machines_that_differ_are_named_with_both_values() {
        let sources = [
            source("live.rec", "h:1", None),
            source("a", "h:1", machine(2, "linux 6.1")),
            source("b", "h:1", machine(2, "linux 6.1")),
            source("c", "h:1", machine(4, "linux 6.1")),
            source("d", "embedded", machine(2, "linux 6.2")),
        ];
        assert_eq!(mixed(&sources[..3]), []);
        let found: Vec<String> = mixed(&sources).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "environment.cpus is 2 in a and 4 in c",
                "environment.kernel is \"linux 6.1\" in a and \"linux 6.2\" in d",
                "target kind is server in a and embedded in d",
            ]
        );
    }

    #[test]
    fn servers_that_differ_are_named_and_ports_are_none() {
        let at = |name: &str, target: &str, server: &str| Source {
            server: server.into(),
            ..source(name, target, machine(2, "linux 6.1"))
        };
        let first = at("a", "127.0.0.1:7411", "0.1.0");
        for (target, server, expected) in [
            ("localhost:1", "0.1.0", vec![]),
            ("[::1]:42857", "0.1.0", vec![]),
            ("127.0.0.1:2", "", vec![]),
            ("10.0.0.5:7411", "0.1.0", vec!["target host is 127.0.0.1 in a and 10.0.0.5 in b"]),
            ("127.0.0.1:7411", "0.2.0", vec!["server release is 0.1.0 in a and 0.2.0 in b"]),
            ("embedded:/d", "0.1.0", vec!["target kind is server in a and embedded in b"]),
        ] {
            let found = mixed(&[first.clone(), at("b", target, server)]);
            let words: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(words, expected, "{target} {server}");
        }
        let embedded = [at("a", "embedded:/d", "0.1.0"), at("b", "embedded:/e", "0.1.0")];
        assert_eq!(mixed(&embedded), []);
    }

    #[test]
    fn a_probe_has_no_target_to_differ_in() {
        let mut probe = source("p.json", "/data", machine(2, "linux 6.1"));
        probe.kind = SourceKind::Probe;
        probe.environment.as_mut().unwrap().debug_build = true;
        assert_eq!(mixed(&[source("a", "h:1", machine(2, "linux 6.1")), probe]), []);
    }
}
