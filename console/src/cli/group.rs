//! `highwater group`: consumer groups, how far behind they are, and their positions set or forgotten.

mod describe;
mod reset;
mod set;

use clap::{Args, Subcommand};
use highwater_wire::{GroupName, StreamName};

use super::Target;
use crate::failure::Failure;
use crate::output;

/// `highwater group`.
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// List groups with their backlog
    List(describe::ListArgs),
    /// Describe a group, shard by shard: position, backlog, rates, and when it is empty or lost
    Describe(describe::DescribeArgs),
    /// Say how records are delivered: by positions, or record by record with attempts and dead letters
    Set(set::SetArgs),
    /// Set positions, forwards or back
    Reset(reset::ResetArgs),
    /// Forget the positions of a group
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The group
    group: GroupName,
    /// Only in this stream [default: in all]
    #[arg(long, value_name = "STREAM")]
    stream: Option<StreamName>,
    #[command(flatten)]
    target: Target,
}

/// Carries it out.
pub fn run(args: GroupArgs) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match args.command {
            GroupCommand::List(args) => describe::list(args).await,
            GroupCommand::Describe(args) => describe::describe(args).await,
            GroupCommand::Set(args) => set::run(args).await,
            GroupCommand::Reset(args) => reset::run(args).await,
            GroupCommand::Delete(args) => delete(args).await,
        }
    })
}

/// The name, or none for all.
fn named(stream: Option<&StreamName>) -> &str {
    stream.map_or("", StreamName::as_str)
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    client
        .delete_group(args.group.as_str(), named(args.stream.as_ref()))
        .await
        .map_err(|e| Failure::doing(format!("cannot delete group {}", args.group), e))?;
    output::line(format!("deleted group {}", args.group))
}
