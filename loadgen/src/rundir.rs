//! The directory of a run: what was measured second by second while it goes on, the report at its end.
//!
//! | file | what |
//! | --- | --- |
//! | `run.json` | the [`Report`](crate::Report) |
//! | `samples.jsonl` | a [`Progress`](crate::Progress) a line, one each second |
//! | `latency.hlog` | histograms by second, see [`crate::hlog`] |
//! | `report.md`, `report.html` | the same for people |
//!
//! Samples and histograms are written as they come, so that a run that is killed leaves what it had; the
//! rest appears whole or not at all. A directory that cannot be written to does not stop the run: the
//! first failure is kept, nothing more is written second by second, and [`RunDir::finish`] tells of it.

mod read;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

pub(crate) use read::read_samples;
pub use read::{RunFiles, RunReadError, read_run};

use crate::environment::{Place, lint_place};
use crate::hlog::{EncodeError, Encoder};
use crate::{Observer, Report, Tick};

const RUN: &str = "run.json";
const SAMPLES: &str = "samples.jsonl";
const LOG: &str = "latency.hlog";
const MARKDOWN: &str = "report.md";
const HTML: &str = "report.html";
/// Everything a run leaves.
const FILES: [&str; 5] = [RUN, SAMPLES, LOG, MARKDOWN, HTML];
/// What a file is called until it is whole.
const UNFINISHED: &str = "unfinished";

/// Why a run directory could not be made, or not be filled.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// There is something else at the path.
    #[error("{path} exists and is no directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// There are files that a run does not leave: they would be mixed with ours.
    #[error("{path} is not empty and no earlier run's directory: it has {found:?}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// Another process writes a run there.
    #[error("{path}: another run is being written there")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A sample or the report cannot be written as JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A histogram cannot be written.
    #[error("{path}: {source}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EncodeError,
    },
    /// What was written cannot be read back for the reports.
    #[error(transparent)]
    Read(#[from] RunReadError),
}

/// A run directory while its run goes on.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    samples: Output,
    log: Output,
    /// Whether what an earlier run left is gone.
    begun: bool,
    encoder: Option<Encoder>,
    /// The first failure; from then on nothing is written second by second.
    failed: Option<RunDirError>,
}

impl RunDir {
    /// Makes the directory `path`, and those above it, or takes over that of an earlier run, whose files go
    /// with the first second of the new one. Refuses a directory with anything else in it, and one that another run is writing to.
    pub fn create(path: &Path) -> Result<RunDir, RunDirError> {
        match fs::create_dir_all(path) {
            Err(_) if path.symlink_metadata().is_ok() && !path.is_dir() => {
                return Err(RunDirError::NotADirectory { path: path.to_owned() });
            }
            made => made.map_err(refused("make", path))?,
        }
        for entry in fs::read_dir(path).map_err(refused("list", path))? {
            let name = entry.map_err(refused("list", path))?.file_name();
            let name = name.to_string_lossy();
            let whole =
                name.strip_suffix(UNFINISHED).map_or(&*name, |stem| stem.trim_end_matches('.'));
            if !FILES.contains(&whole) {
                let found = name.into_owned();
                return Err(RunDirError::NotEmpty { path: path.to_owned(), found });
            }
        }
        let samples = Output::open(path.join(SAMPLES))?;
        match samples.file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(RunDirError::InUse { path: path.to_owned() });
            }
            // Some network file systems have no locks; then nobody can tell.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let log = Output::open(path.join(LOG))?;
        let path = path.to_owned();
        Ok(RunDir { path, samples, log, begun: false, encoder: None, failed: None })
    }

    /// Before anything new is written: an earlier report must not stand beside new samples. Not sooner: a run
    /// that never began must not cost the one before it.
    fn begin(&mut self) -> Result<(), RunDirError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        for name in [RUN, MARKDOWN, HTML] {
            let old = self.path.join(name);
            match fs::remove_file(&old) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(refused("remove", &old)(error));
                }
                _ => {}
            }
        }
        for output in [&mut self.samples, &mut self.log] {
            output.cut(0).map_err(refused("empty", &output.path))?;
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to a report where the run directory lies, and what is to be said against that.
    pub fn describe(&self, report: &mut Report) {
        let place = Place::of(&self.path);
        if let Some(lint) = lint_place(&place).filter(|lint| !report.lints.contains(lint)) {
            report.lints.push(lint);
        }
        report.environment.run_dir = Some(place);
    }

    /// Writes the report in all its forms. The first failure of the whole run, if there was one; whatever
    /// could be written is there all the same.
    pub fn finish(mut self, report: &Report) -> Result<(), RunDirError> {
        if self.failed.is_none() {
            self.failed = self.begin().err();
        }
        let mut report = report.clone();
        if report.environment.run_dir.is_none() {
            self.describe(&mut report);
        }
        let written = write_report(&self.path, &report).and_then(|()| rebuild(&self.path));
        self.failed.map_or(written, Err)
    }

    fn write(&mut self, tick: &Tick<'_>) -> Result<(), RunDirError> {
        self.begin()?;
        let path = &self.samples.path;
        let mut line = serde_json::to_vec(tick.progress)
            .map_err(|source| RunDirError::Json { path: path.clone(), source })?;
        line.push(b'\n');
        self.samples.append(&line)?;

        let mut lines = Vec::new();
        let encoder = self.encoder.get_or_insert_with(|| Encoder::new(tick.start_ns, &mut lines));
        for (name, histogram) in tick.histograms {
            encoder
                .interval(name, tick.start_ns, tick.end_ns, histogram, &mut lines)
                .map_err(|source| RunDirError::Encode { path: self.log.path.clone(), source })?;
        }
        self.log.append(&lines)
    }
}

impl Observer for RunDir {
    fn tick(&mut self, tick: &Tick<'_>) {
        if self.failed.is_none() {
            self.failed = self.write(tick).err();
        }
    }
}

/// Writes `report.md` and `report.html` of the run in the directory `path` anew from its other files.
pub fn rebuild(path: &Path) -> Result<(), RunDirError> {
    let (markdown, html) = crate::report::write_reports(&read_run(path)?);
    write_whole(&path.join(MARKDOWN), markdown.as_bytes())?;
    write_whole(&path.join(HTML), html.as_bytes())
}

fn write_report(dir: &Path, report: &Report) -> Result<(), RunDirError> {
    let path = dir.join(RUN);
    let mut json = serde_json::to_vec_pretty(report)
        .map_err(|source| RunDirError::Json { path: path.clone(), source })?;
    json.push(b'\n');
    write_whole(&path, &json)
}

/// Writes a file that appears only once it is whole and on disk; until then it is `path` with `.unfinished` behind it.
///
/// # Errors
/// What the system refused, as [`RunDirError::Io`]; what was at `path` before is there still.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".");
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&unfinished, path)
    });
    written.map_err(|error| {
        // The error that is told is the first one.
        let _already_failed = fs::remove_file(&unfinished);
        refused("write", path)(error)
    })
}

fn refused(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError::Io { doing, path, source }
}

/// A file that grows by whole lines.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Output {
    /// With what is in it already.
    fn open(path: PathBuf) -> Result<Output, RunDirError> {
        // Not emptied before it is known that no other run writes it; appending, so that cutting is all
        // it takes to go back.
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Output { file: file.map_err(refused("open", &path))?, path, len: 0 })
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), RunDirError> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.len += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line is worse than none; readers bear it should this fail too.
                let _already_failed = self.cut(self.len);
                Err(refused("write", &self.path)(error))
            }
        }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.len = len;
        if self.file.metadata()?.len() > len { self.file.set_len(len) } else { Ok(()) }
    }
}
