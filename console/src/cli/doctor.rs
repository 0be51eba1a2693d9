//! `highwater doctor`: what about this machine keeps a server from being as fast or as safe as it could be.

use std::path::PathBuf;

use clap::Args;
use highwater_loadgen::doctor::{Check, Diagnosis, Verdict, diagnose};

use crate::failure::Failure;
use crate::units::{self, Cores};
use crate::{human, output};

/// `highwater doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed, and nothing is measured: `highwater probe` does that. Exit code 1 if a server would not \
    start, or would lose what it acknowledged; else 0."
)]
pub struct DoctorArgs {
    /// Where a server keeps its data, or will
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// CPUs of the server's cores, as `serve --cores` [default: not looked at]
    #[arg(long, value_name = "LIST", value_parser = units::cores)]
    cores: Option<Cores>,
    /// Only what is not as it should be
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// As JSON: checks[].{name,verdict,found,costs,set}
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let cores = args.cores.as_ref().map_or(&[][..], |cores| &cores.0);
    let diagnosis = diagnose(&args.dir, cores);
    if args.json {
        output::json(&diagnosis)?;
    } else {
        output::text(text(&diagnosis, args.quiet))?;
    }
    if diagnosis.worst() == Verdict::Bad { Err(Failure::Unhealthy) } else { Ok(()) }
}

/// Columns of what is printed, and where what is said of a check begins.
const WIDTH: usize = 100;
const INDENT: usize = 23;

fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Bad => "!!",
        Verdict::Warning => "! ",
        Verdict::Note => "i ",
        Verdict::Good => "  ",
        Verdict::Unknown => "? ",
    }
}

fn text(diagnosis: &Diagnosis, quiet: bool) -> String {
    let mut lines = Vec::new();
    let shown = |check: &&Check| !quiet || check.verdict < Verdict::Good;
    for check in diagnosis.checks.iter().filter(shown) {
        let mut head =
            format!("{} {:<width$}", mark(check.verdict), check.name, width = INDENT - 3);
        let costs = Some(&check.costs).filter(|costs| !costs.is_empty());
        let set = Some(&check.set).filter(|set| !set.is_empty()).map(|set| format!("set: {set}"));
        for part in std::iter::once(check.found.clone()).chain(costs.cloned()).chain(set) {
            for line in human::wrap(&part, WIDTH - INDENT) {
                lines.push(format!("{head}{line}"));
                head = " ".repeat(INDENT);
            }
        }
    }
    let count = |verdict| diagnosis.checks.iter().filter(|check| check.verdict == verdict).count();
    lines.push(format!(
        "\n{} bad, {}, {}, {} good, {} not told",
        count(Verdict::Bad),
        human::plural(count(Verdict::Warning), "warning"),
        human::plural(count(Verdict::Note), "note"),
        count(Verdict::Good),
        count(Verdict::Unknown),
    ));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_with_its_cost_and_its_remedy() {
        let check = |name, verdict, costs: &str, set: &str| Check {
            name,
            verdict,
            found: "found".into(),
            costs: costs.into(),
            set: set.into(),
        };
        let checks = vec![
            check("governor", Verdict::Warning, "dear", "it"),
            check("smt", Verdict::Good, "", ""),
        ];
        let all = text(&Diagnosis { checks: checks.clone() }, false);
        let indent = " ".repeat(INDENT);
        assert_eq!(
            all,
            format!(
                "!  governor            found\n{indent}dear\n{indent}set: it\n   smt                 found\n\n\
                 0 bad, 1 warning, 0 notes, 1 good, 0 not told\n"
            )
        );
        assert!(!text(&Diagnosis { checks }, true).contains("smt"));
    }
}
