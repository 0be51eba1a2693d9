//! The state file of `put --follow`: how far each file is. It is replaced whole or not at all, and one agent has it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::Place;
use crate::failure::{Failure, chain};

/// What it holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Of this file's form.
    pub version: u32,
    /// The stream.
    pub stream: String,
    pub files: Vec<Kept>,
}

/// A file, and how far it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    pub path: PathBuf,
    #[serde(flatten)]
    pub place: Place,
}

/// The file, which is this process's for as long as the value lives.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What lies at `path`, locked.
    locked: File,
}

impl StateFile {
    /// Takes the file at `path`, made empty if there is none, and reads it.
    pub fn open(path: PathBuf) -> Result<(StateFile, State), Failure> {
        let failed = |e: &dyn std::error::Error| {
            Failure::Failed(format!("state file {}: {}", path.display(), chain(e)))
        };
        let Some(mut locked) = take(&path).map_err(|e| failed(&e))? else {
            return Err(Failure::Failed(format!(
                "state file {}: another put --follow has it; give another with --state",
                path.display()
            )));
        };
        let mut bytes = Vec::new();
        locked.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
        let state = match bytes.is_empty() {
            true => State::default(),
            false => serde_json::from_slice(&bytes).map_err(|e| failed(&e))?,
        };
        Ok((StateFile { path, locked }, state))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts `state` in the place of what it holds, durably.
    pub fn write(&mut self, state: &State) -> Result<(), Failure> {
        let bytes = serde_json::to_vec_pretty(state)?;
        self.replace(&bytes)
            .map_err(|e| Failure::doing(format!("state file {}", self.path.display()), e))
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Behind the whole name: what comes after its last dot may be all that two agents' differ in.
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::options().write(true).create(true).truncate(false).open(&new)?;
        // Before it has the name by which others look for it.
        if !ours(&file) {
            let text = format!("{} is another put --follow's state file", new.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.locked = file;
        Ok(())
    }
}

/// Opens and locks what lies at `path`; `None` if another process has.
fn take(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if !ours(&file) {
            return Ok(None);
        }
        // One that was replaced in between is not the one that others look at.
        let (locked, there) = (file.metadata()?, fs::metadata(path)?);
        if (locked.dev(), locked.ino()) == (there.dev(), there.ino()) {
            return Ok(Some(file));
        }
    }
}

/// Locks a file, unless another process has. Some network file systems have no locks; then nobody can tell.
fn ours(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `path` holds for stream `logs`, with a file that is so far.
    fn state(path: &str, offset: u64) -> State {
        let place = Place { offset, line: 2, ..Place::default() };
        State { version: 1, stream: "logs".into(), files: vec![Kept { path: path.into(), place }] }
    }

    #[test]
    fn it_is_kept_whole_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs.follow.json");
        let (mut file, first) = StateFile::open(path.clone()).unwrap();
        assert_eq!((first.version, first.files.len()), (0, 0));
        for offset in [5, 7] {
            file.write(&state("/var/log/a", offset)).unwrap();
        }
        drop(file);
        let (_file, back) = StateFile::open(path).unwrap();
        assert_eq!((back.version, back.stream.as_str()), (1, "logs"));
        assert_eq!(back.files[0].path, Path::new("/var/log/a"));
        assert_eq!((back.files[0].place.offset, back.files[0].place.line), (7, 2));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    /// Both were written as `hw.new`, and one called so was written in its place.
    #[test]
    fn names_that_differ_behind_the_last_dot_are_not_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (mut a, _) = StateFile::open(path("hw.a")).unwrap();
        let (_new, _) = StateFile::open(path("hw.new")).unwrap();
        fs::write(path("hw.new"), "of somebody else").unwrap();
        a.write(&state("/var/log/a", 1)).unwrap();
        assert_eq!(fs::read(path("hw.new")).unwrap(), b"of somebody else");
    }

    #[test]
    fn a_state_file_called_like_a_temporary_one_of_another_is_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (mut a, _) = StateFile::open(dir.path().join("x")).unwrap();
        let (mut b, _) = StateFile::open(dir.path().join("x.new")).unwrap();
        b.write(&state("/var/log/b", 1)).unwrap();
        let refused = a.write(&state("/var/log/a", 1)).unwrap_err().to_string();
        assert!(refused.contains("is another put --follow's state file"), "{refused}");
        assert!(!fs::read(dir.path().join("x.new")).unwrap().is_empty());
    }

    #[test]
    fn one_agent_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (mut file, _) = StateFile::open(path.clone()).unwrap();
        for round in 0..2 {
            let refused = StateFile::open(path.clone()).map(drop).unwrap_err().to_string();
            assert!(refused.contains("another put --follow has it"), "{round}: {refused}");
            // It is another file by then.
            file.write(&state("/var/log/a", 1)).unwrap();
        }
        drop(file);
        assert_eq!(StateFile::open(path).unwrap().1.files.len(), 1);
    }
}
