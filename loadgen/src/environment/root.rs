//! Reading small files of `/proc` and `/sys`, below a root that tests can choose.

use std::path::{Path, PathBuf};

/// The directory that holds `proc` and `sys`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root<'a>(pub &'a Path);

impl Root<'static> {
    /// This machine's.
    pub fn system() -> Root<'static> {
        Root(Path::new("/"))
    }
}

impl Root<'_> {
    /// A path below it; `path` is relative.
    pub fn path(self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text; `None` if it cannot be read.
    pub fn text(self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// A file's text without blanks around it; `None` if nothing is left.
    pub fn word(self, path: impl AsRef<Path>) -> Option<String> {
        self.text(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A file's number.
    pub fn number<T: std::str::FromStr>(self, path: impl AsRef<Path>) -> Option<T> {
        self.word(path)?.parse().ok()
    }

    /// The choice in brackets of a file like `always [madvise] never`; the whole text without brackets.
    pub fn choice(self, path: impl AsRef<Path>) -> Option<String> {
        let word = self.word(path)?;
        let chosen = word.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Some(chosen.map_or(word.as_str(), |(choice, _)| choice).to_owned())
    }

    /// Names in a directory, sorted; none if it cannot be read.
    pub fn names(self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Entries of a directory that are `stem` and a number, in the order of the numbers.
    pub fn numbered(self, path: impl AsRef<Path>, stem: &str) -> Vec<String> {
        let of = |name: &String| name.strip_prefix(stem)?.parse::<u32>().ok();
        let mut names = self.names(path);
        names.retain(|name| of(name).is_some());
        names.sort_by_key(of);
        names
    }
}
