//! The dashboard: a player of snapshots. `source` brings them, `model` keeps what they say, `update` changes the
//! model, `view` draws it, `term` is the terminal. `figures`, `watch` and `once` are plain functions between.

pub mod figures;
#[cfg(test)]
mod fixture;
mod keys;
pub mod model;
pub mod once;
pub mod source;
mod term;
pub mod update;
mod view;
pub mod watch;

use std::io::IsTerminal as _;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::failure::Failure;
use crate::signals::Stop;
use model::Model;
use source::{Live, Reading};
use update::Msg;

/// Messages that wait to be shown: a burst of keys and a few snapshots.
const INBOX: usize = 64;

/// Shows `target` until a key or `stop` ends it; gives what was seen.
pub fn run(target: &str, stop: &Stop) -> Result<Model, Failure> {
    let mut model = Model::new(target, color_wanted());
    let (outbox, inbox) = sync_channel(INBOX);
    let readings = outbox.clone();
    let (name, done) = (target.to_owned(), Stop::new());
    let sink = move |reading: Reading| readings.send(Msg::Reading(reading)).is_ok();
    source::spawn(move || Live::new(name), done.clone(), sink)?;
    forward(stop.clone(), outbox.clone())?;
    let result = term::run(&mut model, &inbox, &outbox);
    done.request();
    result.map(|()| model)
}

/// Whether there is a terminal to draw on and to read keys from.
pub fn possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// `NO_COLOR`, set and not empty, is respected; see <https://no-color.org>.
fn color_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Turns a request to stop into a message.
fn forward(stop: Stop, outbox: SyncSender<Msg>) -> Result<(), Failure> {
    let runtime = crate::cli::runtime()?;
    let wait = move || {
        runtime.block_on(stop.wait());
        // The dashboard may have ended by itself.
        let _ = outbox.send(Msg::Quit);
    };
    thread::Builder::new()
        .name("stop".into())
        .spawn(wait)
        .map(drop)
        .map_err(|e| Failure::doing("cannot start a thread", e))
}
