//! A recorded stream as the trace of a run: kept in a file, and followed with its records.

use std::path::PathBuf;
use std::time::Duration;

use highwater_loadgen::schedule::Profile;
use highwater_loadgen::{LoadError, LoadOptions, Workload, has_records};
use highwater_wire::StreamName;

use super::refusal;
use crate::cli::{self, Target, replay};
use crate::failure::Failure;
use crate::human::counted;
use crate::units;

/// What was said of the records to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    /// Nothing.
    Nothing,
    /// Only their keys.
    Keys,
    /// What they are.
    Records,
}

/// Keeps the records of `stream`, which is on the server that `options` loads, in a file in the current directory: a run
/// can be repeated by it when the stream has gone on.
pub fn keep(stream: &StreamName, options: &LoadOptions) -> Result<PathBuf, Failure> {
    if units::target(&options.target).is_err() || options.target.starts_with("embedded:") {
        let what = format!(
            "--trace-stream {stream} is read from the target, and {} is no server: keep it with `highwater replay {stream} \
             --speed max --to FILE` and give --trace FILE",
            options.target
        );
        return Err(Failure::Usage(what));
    }
    let path = PathBuf::from(format!("{stream}.trace.jsonl"));
    let (target, client_name) = (options.target.clone(), Some(options.client_name.clone()));
    let records = cli::runtime()?.block_on(async {
        let client = Target { target, client_name }.connect().await?;
        replay::keep(&client, stream.as_str(), &path).await
    })?;
    note!("kept {} of {stream} in {}", counted(records, "record"), path.display());
    Ok(path)
}

/// If the trace is a file of records: they are what is sent, unless something else was said to be, and as long as the
/// trace is, unless a `duration` was said.
pub fn follow(
    options: &mut LoadOptions,
    said: Sends,
    duration: Option<Duration>,
) -> Result<(), Failure> {
    let Profile::Trace(trace) = &options.profile else { return Ok(()) };
    let failed = |e: LoadError| refusal::failure(e);
    let file = trace.file.clone();
    if !has_records(&file).map_err(|e| failed(LoadError::Schedule(e.into())))? {
        return Ok(());
    }
    if duration.is_none() {
        let prepared = options.profile.prepare().map_err(|e| failed(e.into()))?;
        // The last is due at the very end.
        let length = prepared.length().unwrap_or_default().as_millis() + 1;
        options.duration = Duration::from_millis(u64::try_from(length).unwrap_or(u64::MAX));
    }
    match said {
        Sends::Nothing => options.workload = Workload::Recorded { file },
        Sends::Keys => {
            let what = "--keys and --key-distribution with a trace of records, which have their own: give --size too to \
                        follow only their times";
            return Err(Failure::Usage(what.to_owned()));
        }
        Sends::Records => {}
    }
    Ok(())
}
