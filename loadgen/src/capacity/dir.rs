//! The directory of a plan: `plan.json`, `report.md`, `report.html`.

use std::fs;
use std::path::{Path, PathBuf};

use super::pages::document;
use super::plan::Plan;
use crate::report::{html, markdown};
use crate::{RunDirError, write_whole};

/// What a plan leaves.
const FILES: [&str; 3] = ["plan.json", "report.md", "report.html"];

/// Why a plan could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PlanDirError {
    /// There are files that a plan does not leave: an earlier run's report would be overwritten.
    #[error("{path} is not empty and no earlier plan's directory: it has {found:?}")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A name in it.
        found: String,
    },
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// It cannot be written as JSON.
    #[error("plan.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A file could not be written whole.
    #[error(transparent)]
    Write(#[from] RunDirError),
}

/// Writes `plan` into the directory `path`, which is made, or is that of an earlier plan. Gives the files' paths.
///
/// # Errors
/// When there is something else at `path`, or the system refuses.
pub fn write_plan(path: &Path, plan: &Plan) -> Result<Vec<PathBuf>, PlanDirError> {
    let io = |doing| move |source| PlanDirError::Io { doing, path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io("make"))?;
    for entry in fs::read_dir(path).map_err(io("list"))? {
        let found = entry.map_err(io("list"))?.file_name().to_string_lossy().into_owned();
        if !FILES.contains(&found.as_str()) {
            return Err(PlanDirError::NotEmpty { path: path.to_owned(), found });
        }
    }
    let document = document(plan);
    let mut json = serde_json::to_vec_pretty(plan)?;
    json.push(b'\n');
    let texts =
        [json, markdown::markdown(&document).into_bytes(), html::html(&document).into_bytes()];
    let mut written = Vec::new();
    for (name, text) in FILES.iter().zip(texts) {
        let file = path.join(name);
        write_whole(&file, &text)?;
        written.push(file);
    }
    Ok(written)
}
