//! `highwater quota`: what all connections of a client name may do together.

use clap::{Args, Subcommand};
use highwater_wire::{ClientQuota, Quota};

use super::Target;
use crate::failure::Failure;
use crate::output;
use crate::policy::{self, RatesIn};

/// `highwater quota`.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    #[command(subcommand)]
    command: QuotaCommand,
}

#[derive(Debug, Subcommand)]
enum QuotaCommand {
    /// Bound all connections that give this client name, over all streams
    Set(SetArgs),
    /// List the client names that are bounded
    List(ListArgs),
    /// Lift a client name's bounds
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The name, as given with --client-name
    name: String,
    /// Records and bytes a second they may append, such as 1000rec/s,1MB/s [default: no bound]
    #[arg(long = "in", value_name = "RATES", value_parser = policy::rates_in, allow_hyphen_values = true)]
    into: Option<RatesIn>,
    /// Bytes a second they may read, such as 2MB/s [default: no bound]
    #[arg(long = "out", value_name = "RATE", value_parser = policy::rate_out, allow_hyphen_values = true)]
    out: Option<u64>,
    /// How long the rates may be saved up while little comes [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = policy::burst)]
    burst: Option<u32>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The name
    name: String,
    #[command(flatten)]
    target: Target,
}

/// Carries it out.
pub fn run(args: QuotaArgs) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        match args.command {
            QuotaCommand::Set(args) => set(args).await,
            QuotaCommand::List(args) => list(args).await,
            QuotaCommand::Delete(args) => delete(args).await,
        }
    })
}

impl SetArgs {
    fn quota(&self) -> Quota {
        let RatesIn { records, bytes } = self.into.unwrap_or_default();
        Quota {
            records_in: records,
            bytes_in: bytes,
            bytes_out: self.out.unwrap_or(0),
            burst_ms: self.burst.unwrap_or(0),
        }
    }
}

async fn set(args: SetArgs) -> Result<(), Failure> {
    let quota = args.quota();
    if (quota.records_in, quota.bytes_in, quota.bytes_out) == (0, 0, 0) {
        let what = "no bound is given: name --in or --out with more than 0, or use quota delete";
        return Err(Failure::Usage(what.to_owned()));
    }
    let client = args.target.connect().await?;
    client
        .set_client_quota(&args.name, quota)
        .await
        .map_err(|e| Failure::doing(format!("cannot set the quota of client {}", args.name), e))?;
    output::line(format!("client {}: {}", args.name, policy::quota_text(&quota)))
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = args.target.connect().await?;
    let quotas =
        client.client_quotas().await.map_err(|e| Failure::doing("cannot list quotas", e))?;
    if args.json {
        return output::json(&quotas);
    }
    let row = |of: &ClientQuota| vec![of.client.clone(), policy::quota_text(&of.quota)];
    let rows: Vec<_> = quotas.iter().map(row).collect();
    output::table(&["client", "quota"], &rows)
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let name = &args.name;
    let cannot = |e| Failure::doing(format!("cannot delete the quota of client {name}"), e);
    let client = args.target.connect().await?;
    let known = client.client_quotas().await.map_err(cannot)?;
    if !known.iter().any(|of| of.client == *name) {
        return Err(Failure::Failed(format!("client {name} has no quota")));
    }
    client.set_client_quota(name, Quota::default()).await.map_err(cannot)?;
    output::line(format!("client {name}: no quota"))
}
