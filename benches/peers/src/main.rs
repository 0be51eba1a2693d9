//! Highwater beside its rivals: the same load, the same generator and the same checks on each of them, in turn.
//!
//! Starts them all with data on one file system, lets one at a time go on, and prints a table (Markdown) with
//! versions, settings, medians and ratios. `benches/peers.sh` builds what is needed and calls it.

mod rivals;
mod rounds;
mod server;
mod table;
mod target;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum as _};
use highwater_loadgen::Stop;
use rivals::{Contender, Durability, Place, System};
use rounds::{Rounds, Shape};
use table::Table;

/// Whatever ends this early.
type Failure = Box<dyn std::error::Error>;

/// The same load on Highwater and on other stream stores, in turn.
#[derive(Parser)]
struct Args {
    /// Which to compare with, each at equal durability and at its default; and with those that --kafka and --iggy name
    #[arg(long, value_delimiter = ',', default_value = "nats,redis,rabbitmq")]
    rivals: Vec<System>,
    /// Where to write the table, besides standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where to write every run's report, a JSON object a line
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: Place,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let stop = Stop::new();
    let asked = stop.clone();
    let mut signals = signal_hook::iterator::Signals::new(signal_hook::consts::TERM_SIGNALS)?;
    std::thread::spawn(move || signals.forever().for_each(|_| asked.request()));

    let data = tempfile::Builder::new().prefix("peers-").tempdir_in(&args.place.dir)?;
    let data = data.path().canonicalize()?;
    let (systems, absent) = start(&args, &data)?;
    let mut rounds = Rounds::new(&args.shape, &systems, stop);
    let ended = rounds.all();
    if let Some(path) = &args.reports {
        let mut file = std::fs::File::create(path)?;
        for run in &rounds.runs {
            let name = &systems[run.system].name;
            let line = serde_json::json!({"system": name, "load": run.load.to_string(), "round": run.round, "report": run.report});
            writeln!(file, "{line}")?;
        }
    }
    // However it ended: what was measured by then is worth a table.
    let mut markdown = Table {
        shape: &args.shape,
        place: &args.place,
        systems: &systems,
        absent: &absent,
        rounds: &rounds,
    }
    .markdown();
    if let Err(why) = &ended {
        markdown.push_str(&format!("\nEnded early: {why}\n"));
    }
    print!("{markdown}");
    if let Some(path) = &args.out {
        std::fs::write(path, markdown)?;
    }
    ended
}

/// What is not measured, and why.
type Absent = Vec<(String, String)>;

/// Starts Highwater and whichever of the others can be: one that does not start is told of, and left out.
fn start(args: &Args, data: &Path) -> Result<(Vec<Contender>, Absent), Failure> {
    let mut systems = vec![rivals::highwater(&args.place, data)?];
    let mut absent = Vec::new();
    for &system in System::value_variants() {
        if !args.wants(system) {
            absent.push((system.name().to_owned(), system.left_out().to_owned()));
            continue;
        }
        for durability in [Durability::Synced, Durability::Default] {
            match system.start(&args.place, data, durability) {
                Ok(contender) => systems.push(contender),
                Err(why) => {
                    let name = format!("{}, {durability}", system.name());
                    eprintln!("{name}: {why}");
                    absent.push((name, why.to_string()));
                }
            }
        }
    }
    Ok((systems, absent))
}

impl Args {
    /// Those among `--rivals`, and those that were named.
    fn wants(&self, system: System) -> bool {
        let named = match system {
            System::Kafka => self.place.kafka.is_some(),
            System::Iggy => self.place.iggy.is_some(),
            System::Nats | System::Redis | System::Rabbitmq => false,
        };
        named || self.rivals.contains(&system)
    }
}
