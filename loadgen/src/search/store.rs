//! The directory of a search or a sweep: read to go on, written whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::conduct::SearchRequest;
use super::file::{SEARCH_FILE, SEARCH_SCHEMA, SWEEP_FILE, SWEEP_SCHEMA, SearchFile, SweepFile};
use crate::rundir::{RunDirError, write_whole};

/// Held while somebody writes there.
const LOCK: &str = "lock";
const MARKDOWN: &str = "report.md";
const HTML: &str = "report.html";
/// A file of thousands of trials is some megabytes.
const LONGEST: u64 = 256 << 20;

/// Why what is kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is something else at the path.
    #[error("{path} exists and is no directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// There are files of something else.
    #[error("{path} is not empty and has no {file}: it has {found:?}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What would make it ours.
        file: &'static str,
        /// A name in it.
        found: String,
    },
    /// Another process writes there.
    #[error("{path}: another search or sweep is being written there")]
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
    /// It was written by a program that means something else by it.
    #[error("{path}: schema {found:?}; this program reads {expected:?}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says it is; empty if it does not say.
        found: String,
        /// What is read.
        expected: &'static str,
    },
    /// It is not the JSON it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// What is kept there was asked something else.
    #[error(
        "{path} goes on only as it began: {field} was {was} there and is {is} now; use another directory, or say the same"
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// Which option, as in the file.
        field: String,
        /// Its value there.
        was: String,
        /// Its value now.
        is: String,
    },
    /// A file or report could not be written.
    #[error(transparent)]
    Write(#[from] RunDirError),
}

/// A directory that is ours for now.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// For a search.
    ///
    /// # Errors
    /// A path that is no directory, is used by another process, or has files of something else.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Store::holding(path, SEARCH_FILE)
    }

    /// For a sweep.
    ///
    /// # Errors
    /// The same.
    pub fn open_sweep(path: &Path) -> Result<Store, StoreError> {
        Store::holding(path, SWEEP_FILE)
    }

    fn holding(path: &Path, file: &'static str) -> Result<Store, StoreError> {
        let io = |doing| {
            let path = path.to_owned();
            move |source| StoreError::Io { doing, path, source }
        };
        match fs::create_dir_all(path) {
            Err(_) if path.symlink_metadata().is_ok() && !path.is_dir() => {
                return Err(StoreError::NotADirectory { path: path.to_owned() });
            }
            made => made.map_err(io("make"))?,
        }
        if !path.join(file).exists() {
            for entry in fs::read_dir(path).map_err(io("list"))? {
                let name = entry.map_err(io("list"))?.file_name();
                if name != LOCK {
                    let found = name.to_string_lossy().into_owned();
                    return Err(StoreError::NotEmpty { path: path.to_owned(), file, found });
                }
            }
        }
        let lock = OpenOptions::new().create(true).append(true).open(path.join(LOCK));
        let lock = lock.map_err(io("open"))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.to_owned() });
            }
            // Some network file systems have no locks; then nobody can tell.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        Ok(Store { path: path.to_owned(), _lock: lock })
    }

    /// A path in it.
    pub fn below(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The search that is kept there, if it is the one that is asked for; `None` if none is.
    ///
    /// # Errors
    /// A file that cannot be read, or was asked something else.
    pub fn resume(&self, request: &SearchRequest) -> Result<Option<SearchFile>, StoreError> {
        let path = self.below(SEARCH_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let file = read_search(&self.path)?;
        let mut free = request.by_chance.clone();
        // The window of trials is among the settings.
        free.extend(["rate", "duration_s"]);
        same(&path, "load", &file.load, &request.load, &free)?;
        let free: &[&str] = if request.by_chance.contains(&"seed") { &["seed"] } else { &[] };
        same(&path, "settings", &file.settings, &request.settings, free)?;
        Ok(Some(file))
    }

    /// Writes `search.json`.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write(&self, file: &SearchFile) -> Result<(), StoreError> {
        self.write_json(SEARCH_FILE, file)
    }

    /// Writes `sweep.json`.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_sweep(&self, file: &SweepFile) -> Result<(), StoreError> {
        self.write_json(SWEEP_FILE, file)
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let path = self.below(name);
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|source| StoreError::Json { path: path.clone(), source })?;
        json.push(b'\n');
        Ok(write_whole(&path, &json)?)
    }

    /// Writes the reports of a search.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_reports(&self, file: &SearchFile) -> Result<(), StoreError> {
        let (markdown, html) = crate::report::search_reports(file);
        self.write_texts(&markdown, &html)
    }

    /// Writes the reports of a sweep.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_sweep_reports(&self, file: &SweepFile) -> Result<(), StoreError> {
        let (markdown, html) = crate::report::sweep_reports(file);
        self.write_texts(&markdown, &html)
    }

    fn write_texts(&self, markdown: &str, html: &str) -> Result<(), StoreError> {
        write_whole(&self.below(MARKDOWN), markdown.as_bytes())?;
        Ok(write_whole(&self.below(HTML), html.as_bytes())?)
    }
}

/// The first field in which what is kept at `path` differs from what is asked, but for those that are `free`.
///
/// # Errors
/// That field, with both values.
pub(super) fn same(
    path: &Path,
    what: &str,
    kept: &impl Serialize,
    asked: &impl Serialize,
    free: &[&str],
) -> Result<(), StoreError> {
    let json = |value: Result<Value, _>| value.unwrap_or(Value::Null);
    let (kept, asked) = (json(serde_json::to_value(kept)), json(serde_json::to_value(asked)));
    let (Value::Object(kept), Value::Object(asked)) = (kept, asked) else { return Ok(()) };
    for (field, was) in &kept {
        let is = asked.get(field).unwrap_or(&Value::Null);
        if !alike(was, is) && !free.contains(&field.as_str()) {
            return Err(StoreError::Differs {
                path: path.to_owned(),
                field: format!("{what}.{field}"),
                was: was.to_string(),
                is: is.to_string(),
            });
        }
    }
    Ok(())
}

/// Numbers that went through text may differ in their last digit.
fn alike(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
        _ => a == b,
    }
}

/// Reads the search kept in the directory `path`, finished or not.
///
/// # Errors
/// A file that is not there, of another schema, or damaged.
pub fn read_search(path: &Path) -> Result<SearchFile, StoreError> {
    read(&path.join(SEARCH_FILE), SEARCH_SCHEMA)
}

/// Reads the sweep kept in the directory `path`, finished or not.
///
/// # Errors
/// A file that is not there, of another schema, or damaged.
pub fn read_sweep(path: &Path) -> Result<SweepFile, StoreError> {
    read(&path.join(SWEEP_FILE), SWEEP_SCHEMA)
}

/// Writes the reports of the search kept in the directory `path` again, finished or not.
///
/// # Errors
/// As [`read_search`]; a search that is under way there; a report that cannot be written.
pub fn rebuild_search(path: &Path) -> Result<SearchFile, StoreError> {
    let file = read_search(path)?;
    Store::open(path)?.write_reports(&file)?;
    Ok(file)
}

/// Writes the reports of the sweep kept in the directory `path` again, finished or not.
///
/// # Errors
/// As [`rebuild_search`].
pub fn rebuild_sweep(path: &Path) -> Result<SweepFile, StoreError> {
    let file = read_sweep(path)?;
    Store::open_sweep(path)?.write_sweep_reports(&file)?;
    Ok(file)
}

fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, StoreError> {
    let io = |source| StoreError::Io { doing: "read", path: path.to_owned(), source };
    let json = |source| StoreError::Json { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > LONGEST {
        return Err(io(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("longer than {LONGEST} bytes"),
        )));
    }
    // First what it is, then what it says: another schema is better told than a missing field.
    let any: Value = serde_json::from_slice(&text).map_err(json)?;
    let found = any.get("schema").and_then(Value::as_str).unwrap_or_default();
    if found != expected {
        let found = found.to_owned();
        return Err(StoreError::Schema { path: path.to_owned(), found, expected });
    }
    serde_json::from_slice(&text).map_err(json)
}
