//! `highwater dlq`: dead letters, of groups and of `put`: what they are, given again, given up.

mod letter;
mod list;
mod purge;
mod redrive;
mod show;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use highwater_client::Client;
use highwater_wire::{StreamDescription, StreamName};

use crate::failure::Failure;

/// `highwater dlq`.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List the streams that dead letters are kept in: how many, since when, and why
    List(list::ListArgs),
    /// Show dead letters: why, after how many attempts, and where they come from
    Show(show::ShowArgs),
    /// Give dead letters to their group again, or copy them into a stream
    Redrive(redrive::RedriveArgs),
    /// Give dead letters up
    Purge(purge::PurgeArgs),
}

/// Carries it out.
pub fn run(args: DlqArgs) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match args.command {
            DlqCommand::List(args) => list::run(args).await,
            DlqCommand::Show(args) => show::run(args).await,
            DlqCommand::Redrive(args) => redrive::run(args).await,
            DlqCommand::Purge(args) => purge::run(args).await,
        }
    })
}

/// How the streams that dead letters go to are called, unless a group says otherwise.
const ENDING: &str = ".dead";

/// A stream of dead letters.
#[derive(Debug)]
struct Dead {
    stream: StreamDescription,
    /// The groups whose dead letters go there.
    groups: Vec<String>,
}

impl Dead {
    fn name(&self) -> &str {
        &self.stream.name
    }
}

/// All streams of dead letters that are there.
async fn all(client: &Client) -> Result<Vec<Dead>, Failure> {
    let listing = |e| Failure::doing("cannot list streams and groups", e);
    let streams = client.list_streams().await.map_err(listing)?;
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for group in client.list_groups("").await.map_err(listing)? {
        if let Some(delivery) = group.delivery {
            let names = groups.entry(delivery.dead_letters).or_default();
            if !names.contains(&group.group) {
                names.push(group.group);
            }
        }
    }
    let dead = streams.into_iter().filter_map(|stream| {
        let groups = groups.remove(&stream.name);
        let known = groups.is_some() || stream.name.ends_with(ENDING);
        known.then(|| Dead { stream, groups: groups.unwrap_or_default() })
    });
    Ok(dead.collect())
}

/// The streams of dead letters that `name` means: the one of this name, or those of the group of this name (and then
/// only the letters of that group are meant).
async fn named(client: &Client, name: &str) -> Result<(Vec<Dead>, Option<String>), Failure> {
    find(client, name).await?.ok_or_else(|| {
        Failure::Failed(format!(
            "there is no stream of dead letters called {name}, nor a group of this name that has one; \
             `highwater dlq list` shows all"
        ))
    })
}

/// The same; `None` if there is no such stream or group.
async fn find(client: &Client, name: &str) -> Result<Option<(Vec<Dead>, Option<String>)>, Failure> {
    let all = all(client).await?;
    let (own, others): (Vec<Dead>, Vec<Dead>) = all.into_iter().partition(|d| d.name() == name);
    if !own.is_empty() {
        return Ok(Some((own, None)));
    }
    // A group that was set to positions since, or deleted, may have left some.
    let left = |dead: &Dead| dead.name().ends_with(&format!(".{name}{ENDING}"));
    let of_group = |dead: &Dead| dead.groups.iter().any(|group| group == name) || left(dead);
    let of_group: Vec<Dead> = others.into_iter().filter(of_group).collect();
    Ok((!of_group.is_empty()).then(|| (of_group, Some(name.to_owned()))))
}

/// A stream or a group: names of both have the same form.
type Name = StreamName;
