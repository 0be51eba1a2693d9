//! `put --follow`: files that grow and are rotated, line by line, as a log agent does. At least once: a place is kept in
//! the state file only when everything before it is stored, so a crash repeats what was stored since, and loses nothing.

mod files;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_client::wire::ErrorCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::dead::DeadLetters;
use super::shape::{Unfit, shape};
use super::stored::{Awaited, Progress, Stored};
use super::{GRACE, PutArgs, RECEIPTS, open, send};
use crate::failure::{Failure, chain};
use crate::signals::Stop;
use crate::when::now_ns;
use files::{Lines, Place};
use state::{Kept, State, StateFile};

/// How often places are kept.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// First and longest wait while the server is away.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// Files on their way into a stream.
struct Agent<'a> {
    args: &'a PutArgs,
    paths: Arc<[PathBuf]>,
    /// By path: everything before is stored.
    places: Vec<Option<Place>>,
    state: StateFile,
    /// Places changed since they were kept.
    changed: bool,
    /// Of other files, kept as they were.
    others: Vec<Kept>,
    stored: Stored,
}

/// Why a session with the server ended.
enum Ended {
    /// It was asked for.
    Stopped,
    /// The server is away, or refuses for now; whether anything was stored before.
    Lost { reason: String, moved: bool },
    /// It makes no sense to try again.
    Failed(Failure),
}

/// Carries it out, until it is stopped.
pub async fn follow(args: &PutArgs, stop: &Stop) -> Result<(), Failure> {
    let state = args.state.clone().unwrap_or_else(|| format!("{}.follow.json", args.stream).into());
    let mut agent = Agent::new(args, state)?;
    let mut wait = BACK_OFF[0];
    let mut connected = false;
    loop {
        let ended = agent.session(stop, &mut connected).await;
        agent.keep()?;
        match ended {
            Ended::Stopped => return agent.stored.report(&args.stream),
            Ended::Failed(failure) => return Err(failure),
            Ended::Lost { reason, moved } => {
                if moved {
                    wait = BACK_OFF[0];
                }
                note!("{reason}; trying again in {} ms", wait.as_millis());
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stop.wait() => return agent.stored.report(&args.stream),
                }
                wait = (wait * 2).min(BACK_OFF[1]);
            }
        }
    }
}

impl<'a> Agent<'a> {
    fn new(args: &'a PutArgs, state: PathBuf) -> Result<Agent<'a>, Failure> {
        let (state, known) = StateFile::open(state)?;
        let ours = known.stream.is_empty() || known.stream == args.stream.as_str();
        if known.version > 1 || !ours {
            let what = format!(
                "state file {} is of version {} and for stream {:?}; give another with --state",
                state.path().display(),
                known.version,
                known.stream
            );
            return Err(Failure::Failed(what));
        }
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let paths: Arc<[PathBuf]> = args.follow.iter().map(absolute).collect();
        let place = |path: &PathBuf| known.files.iter().find(|k| k.path == *path).map(|k| k.place);
        let places = paths.iter().map(place).collect();
        let others = known.files.into_iter().filter(|kept| !paths.contains(&kept.path)).collect();
        let stored = Stored::default();
        Ok(Agent { args, paths, places, state, changed: false, others, stored })
    }

    /// Sends until something ends it.
    async fn session(&mut self, stop: &Stop, connected: &mut bool) -> Ended {
        let opened = tokio::select! {
            opened = open(self.args) => opened,
            () = stop.wait() => return Ended::Stopped,
        };
        let (client, producer) = match opened {
            Ok(opened) => opened,
            // What is wrong from the start is a mistake, not an outage; that the server is not there yet is none.
            Err(failure) if !*connected && self.missing().await => return Ended::Failed(failure),
            Err(failure) => return Ended::Lost { reason: failure.to_string(), moved: false },
        };
        *connected = true;
        let limit = self.args.format.line_limit(client.info().max_record) as usize;
        let feed = files::start(Arc::clone(&self.paths), self.places.clone(), limit);
        let mut feed = match feed {
            Ok(feed) => feed,
            Err(failure) => return Ended::Failed(failure),
        };
        let (expect, receipts) = mpsc::channel(RECEIPTS);
        let progress = Progress::default();
        let halt = Stop::new();
        let (args, paths) = (self.args, Arc::clone(&self.paths));
        let mut dead = DeadLetters::new(&client, &args.stream, args.format);
        let sending = async {
            let all = async {
                while let Some(lines) = feed.recv().await {
                    send_lines(args, &paths, &lines, &producer, &mut dead, &progress, &expect)
                        .await?;
                }
                Err("reading the files ended".to_owned())
            };
            let sent = tokio::select! {
                sent = all => sent,
                () = stop.wait() => Ok(()),
                () = halt.wait() => Ok(()),
                reason = progress.watch(args.timeout, || producer.held_up_by()) => Err(reason),
            };
            // What was sent is waited for, but not for ever.
            drop(expect);
            sent
        };
        let before = self.stored.total();
        let (sent, settled) = {
            let settling = async {
                let settled = self.settle(receipts, &progress, stop).await;
                // What follows may be stored; it is sent again.
                halt.request();
                settled
            };
            tokio::join!(sending, settling)
        };
        let moved = self.stored.total() > before;
        match settled.and(sent) {
            Ok(()) => Ended::Stopped,
            Err(reason) => Ended::Lost { reason, moved },
        }
    }

    /// Whether the server is there and says that there is no such stream.
    async fn missing(&self) -> bool {
        match self.args.target.connect_for(Duration::from_secs(1)).await {
            Ok(client) => {
                let described = client.describe_stream(self.args.stream.as_str()).await;
                described.is_err_and(|e| e.code() == Some(ErrorCode::UnknownStream))
            }
            Err(_) => false,
        }
    }

    /// Takes acknowledgements in order, and keeps the places up to which everything is stored.
    async fn settle(
        &mut self,
        mut receipts: mpsc::Receiver<(Awaited, usize, Place)>,
        progress: &Progress,
        stop: &Stop,
    ) -> Result<(), String> {
        let mut keep_at = Instant::now() + KEEP_EVERY;
        let late = async {
            stop.wait().await;
            sleep(GRACE).await;
        };
        tokio::pin!(late);
        loop {
            let next = tokio::select! {
                next = receipts.recv() => next,
                () = tokio::time::sleep_until(keep_at), if self.changed => {
                    self.keep().map_err(|e| e.to_string())?;
                    keep_at = Instant::now() + KEEP_EVERY;
                    continue;
                }
            };
            let Some((awaited, file, place)) = next else { return Ok(()) };
            let taken = tokio::select! {
                taken = self.stored.take(awaited) => taken,
                () = &mut late => return Err("gave up waiting".to_owned()),
            };
            progress.settled();
            taken?;
            if let Some(known) = self.places.get_mut(file) {
                *known = Some(place);
                self.changed = true;
            }
            if Instant::now() >= keep_at {
                self.keep().map_err(|e| e.to_string())?;
                keep_at = Instant::now() + KEEP_EVERY;
            }
        }
    }

    /// Writes the state file, if places have changed.
    fn keep(&mut self) -> Result<(), Failure> {
        if !self.changed {
            return Ok(());
        }
        let followed = self.paths.iter().zip(&self.places);
        let kept = followed
            .filter_map(|(path, place)| Some(Kept { path: path.clone(), place: (*place)? }));
        let others = self.others.iter().map(|k| Kept { path: k.path.clone(), place: k.place });
        let state = State {
            version: 1,
            stream: self.args.stream.to_string(),
            files: kept.chain(others).collect(),
        };
        self.state.write(&state)?;
        // Not before: what could not be written is still to be kept.
        self.changed = false;
        Ok(())
    }
}

/// Sends lines of one file.
async fn send_lines(
    args: &PutArgs,
    paths: &[PathBuf],
    lines: &Lines,
    producer: &highwater_client::Producer,
    dead: &mut DeadLetters<'_>,
    progress: &Progress,
    expect: &mpsc::Sender<(Awaited, usize, Place)>,
) -> Result<(), String> {
    let name = paths.get(lines.file).map(|path| path.to_string_lossy()).unwrap_or_default();
    let now_ns = now_ns();
    for piece in lines.pieces() {
        let blank = piece.bytes.iter().all(u8::is_ascii_whitespace);
        if args.format.skips_empty() && blank && piece.cut.is_none() {
            continue;
        }
        let shaped = match piece.cut {
            Some(bytes) => Err(Unfit::TooLong { bytes }),
            None => shape(args.format, args.key.as_ref(), piece.bytes, now_ns),
        };
        let sent = match shaped {
            Ok(shaped) => {
                let sent = send(producer, &shaped, true).await;
                sent.map_err(|e| format!("line {}: {}", piece.number, chain(&e)))?
            }
            Err(unfit) => Err(unfit),
        };
        let (receipt, unfit) = match sent {
            Ok(receipt) => (receipt, None),
            Err(unfit) => {
                let letter = dead.send(&unfit, &name, piece.number, piece.bytes).await?;
                (letter, Some(unfit.to_string()))
            }
        };
        progress.sent();
        let awaited = Awaited { receipt, bytes: piece.bytes.len(), line: piece.number, unfit };
        if expect.send((awaited, lines.file, piece.place)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn args(words: &[&str]) -> PutArgs {
        let parser = PutArgs::augment_args(clap::Command::new("put").no_binary_name(true));
        PutArgs::from_arg_matches(&parser.try_get_matches_from(words).unwrap()).unwrap()
    }

    /// A failure to keep places was taken for having kept them: the agent then ended well, and the lines came again.
    #[test]
    fn places_that_could_not_be_kept_are_still_to_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let args = args(&["logs", "--follow", "/var/log/a"]);
        let mut agent = Agent::new(&args, path.clone()).unwrap();
        agent.keep().unwrap();
        agent.places[0] = Some(Place { offset: 7, line: 2, ..Place::default() });
        agent.changed = true;
        // In the way of what it is called until it is whole.
        let obstacle = dir.path().join("state.new");
        fs::create_dir(&obstacle).unwrap();
        for _ in 0..2 {
            let failed = agent.keep().unwrap_err().to_string();
            assert!(failed.contains("state file"), "{failed}");
        }
        fs::remove_dir(&obstacle).unwrap();
        agent.keep().unwrap();
        drop(agent);
        let (_file, kept) = StateFile::open(path).unwrap();
        assert_eq!(
            (kept.files[0].path.as_path(), kept.files[0].place.offset),
            (Path::new("/var/log/a"), 7)
        );
    }
}
