//! The command line: what can be typed. Each subcommand has a file with two steps: its arguments become a plan
//! (wrong usage ends here), and the plan is carried out.

mod child;
pub mod config;
pub mod demo;
pub mod dlq;
pub mod doctor;
pub mod group;
pub mod inspect;
pub mod load;
pub mod plan;
pub mod probe;
pub mod put;
pub mod quota;
pub mod record;
pub mod replay;
pub mod serve;
pub mod stream;
pub mod tail;
pub mod top;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use highwater_client::{Client, ClientOptions, RetryPolicy};
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::units;

/// Durable streams of records, and a console that shows them live.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 success, 1 failed, 2 wrong usage, 5 no valid measurement\n\
    (load compare: 0 not worse, 3 worse, 4 cannot tell).\n\
    Every option can also be set by an environment variable or in highwater.toml; see `highwater config print`.")]
pub struct Cli {
    /// The configuration file, instead of HIGHWATER_CONFIG or the first of
    /// ./highwater.toml, the user's and the system's
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(display_order = 1000)]
    pub config: Option<std::path::PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server
    Serve(serve::ServeArgs),
    /// Create, change, describe, reshard, trim or delete streams
    Stream(stream::StreamArgs),
    /// List, describe, reset or delete consumer groups
    Group(group::GroupArgs),
    /// Dead letters: list, show, give again or give up
    Dlq(dlq::DlqArgs),
    /// Bound what clients of a name may do
    Quota(quota::QuotaArgs),
    /// Store records from a file or standard input
    Put(put::PutArgs),
    /// Read records
    Tail(tail::TailArgs),
    /// Give a recorded stream again, at the pace it was recorded or faster
    Replay(replay::ReplayArgs),
    /// Generate load and measure
    Load(load::LoadArgs),
    /// Turn measured runs into a capacity plan
    Plan(Box<plan::PlanArgs>),
    /// Measure what this machine's device, memory and loopback can do by themselves
    Probe(probe::ProbeArgs),
    /// Look for what on this machine keeps a server from being fast or safe
    Doctor(doctor::DoctorArgs),
    /// Watch a server: TPS, propagation delay and backlog, live
    Top(top::TopArgs),
    /// Keep the last hours of a server's figures in a file, to be replayed
    Record(record::RecordArgs),
    /// See it all at once: a server, load and the console in one process
    Demo(demo::DemoArgs),
    /// Verify a data directory offline, read-only
    Inspect(inspect::InspectArgs),
    /// Show every setting and where it comes from
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    Completions(config::CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(config::ManArgs),
}

/// Which server.
#[derive(Debug, Args)]
pub struct Target {
    /// The server
    #[arg(short, long, env = "HIGHWATER_TARGET", default_value = "127.0.0.1:7411")]
    #[arg(value_name = "HOST:PORT", value_parser = units::target)]
    pub target: String,
    /// Who is calling, for the server's log and quotas [default: highwater and its version]
    #[arg(long, env = "HIGHWATER_CLIENT_NAME", value_name = "NAME")]
    pub client_name: Option<String>,
}

/// The client name of these commands if none is given.
const CLIENT_NAME: &str = concat!("highwater ", env!("CARGO_PKG_VERSION"));

impl Target {
    /// A connection to it.
    pub async fn connect(&self) -> Result<Client, Failure> {
        self.connect_for(RetryPolicy::default().deadline).await
    }

    /// A connection to it whose operations try again for `deadline` at most.
    pub async fn connect_for(&self, deadline: Duration) -> Result<Client, Failure> {
        let defaults = ClientOptions::default();
        let options = ClientOptions {
            name: self.client_name.clone().unwrap_or_else(|| CLIENT_NAME.to_owned()),
            request_timeout: defaults.request_timeout.min(deadline),
            retry: RetryPolicy { deadline, ..defaults.retry },
            ..defaults
        };
        Client::connect(&self.target, options).await.map_err(Failure::failed)
    }
}

/// A runtime on the current thread, as every command uses it.
pub fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::doing("cannot start the runtime", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_client_command_takes_a_target() {
        for command in [
            "put s",
            "tail s",
            "replay s",
            "stream list",
            "group list",
            "dlq list",
            "quota list",
            "load run",
            "top",
        ] {
            let words = command.split(' ').chain(["-t", "h:1"]);
            assert!(
                Cli::try_parse_from(["highwater"].into_iter().chain(words)).is_ok(),
                "{command}"
            );
        }
    }
}
