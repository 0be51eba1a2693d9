//! One trial from beginning to end: set up, start the workers, watch, drain, judge.

mod account;
mod crew;
mod due;
mod goal;
mod judge;
mod orders;
mod patience;
mod recovery;
mod session;
mod setup;
mod stop;
mod totals;
mod trial;
pub(crate) mod void;
mod watcher;

pub use goal::Goal;
pub use orders::{Halt, Orders};
pub use session::Session;
pub use stop::Stop;
pub use void::DOUBT_MAX;

use crate::target::Target;
use crate::{LoadError, LoadOptions, Observer, Report};

/// Runs one trial against what `options.target` names (`host:port` of a Highwater server, on Linux
/// `embedded[:DIR]` for the engine in this process, or `null[:...]`, see [`crate::Null`]) and reports. Blocks; tells `observer` once a second, on this thread. After
/// [`Stop::request`] no more records are made; what was sent is still drained and reported, with
/// `interrupted` set.
///
/// Once the first record is due, the target can no longer make this fail: refusals, failures and losses
/// are in the report, and so is the reason why a run ended early.
pub fn run(
    options: LoadOptions,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Report, LoadError> {
    let session = Session::open(&options)?;
    let mut report = session.run(options, observer, stop)?;
    // The figures stand, whatever becomes of the directory.
    report.notes.extend(session.close());
    Ok(report)
}

/// [`run`] on any target; `options.target` is then only a name.
pub fn run_on<T: Target>(
    target: T,
    options: LoadOptions,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<Report, LoadError> {
    options.validate()?;
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(LoadError::InsideRuntime);
    }
    trial::conduct(&target, options, observer, stop)
}
