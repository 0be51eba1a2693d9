//! Files that grow and are rotated, read line by line: several of them, each from where it was left.
//!
//! A file is known by device and inode, and by a fingerprint of its first bytes, since inodes are used again. At the end
//! of a file it is looked whether its name means another file by now (rotated by renaming: the old one is read to its
//! end first, and so is one that was renamed while nobody looked) or whether it has become shorter (rotated by copying and
//! truncating: it is read from its beginning).

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use highwater_client::wire::crc32c;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// How often files without news are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A renamed file that gets nothing more for so many looks is at its end: its writer has turned to the new one.
const STILL: u32 = 5;

/// Bytes read at once.
const READ: usize = 64 << 10;

/// Of a line that is longer than a record may be, so much is kept for the dead letter.
const KEPT: usize = 65_000;

/// Bytes at the beginning by which a file is recognised.
const FINGERPRINT: usize = 1024;

/// Chunks that wait to be sent.
const WAITING: usize = 4;

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// CRC32C of so many bytes at its beginning.
    fingerprint: u32,
    fingerprint_bytes: u64,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which file.
    #[serde(flatten)]
    pub identity: Identity,
    /// Everything before this byte is done.
    pub offset: u64,
    /// The line there, from 1.
    pub line: u64,
}

/// Lines of one file.
#[derive(Debug)]
pub struct Lines {
    /// Which of the paths.
    pub file: usize,
    /// The file they are of.
    pub identity: Identity,
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    start: usize,
    end: usize,
    place: u64,
    number: u64,
    /// Its length, if it is longer than a record may be and was cut.
    cut: Option<u64>,
}

/// A line.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Without its newline.
    pub bytes: &'a [u8],
    /// Its number, from 1.
    pub number: u64,
    /// Where its file goes on.
    pub place: Place,
    /// Its length, if it is longer than a record may be and was cut.
    pub cut: Option<u64>,
}

impl Lines {
    /// The lines, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.lines.iter().map(|line| Piece {
            bytes: self.bytes.get(line.start..line.end).unwrap_or_default(),
            number: line.number,
            place: Place { identity: self.identity, offset: line.place, line: line.number + 1 },
            cut: line.cut,
        })
    }
}

/// Lines as they come.
pub type Feed = mpsc::Receiver<Lines>;

/// Reads `paths` on a thread of its own, each from its place if there is one; lines have `limit` bytes at most. It goes
/// on until nobody listens any more.
pub fn start(
    paths: Arc<[PathBuf]>,
    places: Vec<Option<Place>>,
    limit: usize,
) -> Result<Feed, Failure> {
    let (sender, feed) = mpsc::channel(WAITING);
    let read = move || {
        let followed = paths.iter().zip(places).enumerate();
        let mut followed: Vec<Followed> = followed
            .map(|(file, (path, place))| Followed::new(file, path.clone(), place, limit))
            .collect();
        while !sender.is_closed() {
            let mut news = false;
            for file in &mut followed {
                match file.look() {
                    Ok(Some(lines)) => {
                        news = true;
                        if !lines.lines.is_empty() && sender.blocking_send(lines).is_err() {
                            return;
                        }
                    }
                    Ok(None) => file.trouble = None,
                    // It may pass: permissions are mended, file systems mounted. Said once.
                    Err(error) => file.say(&error),
                }
            }
            if !news {
                thread::sleep(LOOK);
            }
        }
    };
    thread::Builder::new()
        .name("follow".into())
        .spawn(read)
        .map_err(|e| Failure::doing("cannot start a thread", e))?;
    Ok(feed)
}

/// One path.
struct Followed {
    file: usize,
    path: PathBuf,
    limit: usize,
    /// Where to go on, until it is open.
    place: Option<Place>,
    open: Option<Open>,
    trouble: Option<String>,
}

struct Open {
    file: File,
    identity: Identity,
    /// Of the next byte to read.
    offset: u64,
    line: u64,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
    /// Bytes of that line that were passed over: it is too long.
    passed_over: u64,
    /// Looks since something came, once it has been renamed.
    still: u32,
}

impl Followed {
    fn new(file: usize, path: PathBuf, place: Option<Place>, limit: usize) -> Followed {
        Followed { file, path, limit, place, open: None, trouble: None }
    }

    fn say(&mut self, error: &io::Error) {
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            note!("{}: {trouble}; trying again", self.path.display());
            self.trouble = Some(trouble);
        }
    }

    /// The next lines; `None` if there is nothing now. Lines may be empty: then there is more.
    fn look(&mut self) -> io::Result<Option<Lines>> {
        if self.open.is_none() {
            self.open = open(&self.path, self.place)?;
            // Not before: the file may be away, or closed to us, for a moment only.
            if self.open.is_some() {
                self.place = None;
            }
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        let mut bytes = vec![0; READ];
        let read = open.file.read(&mut bytes)?;
        bytes.truncate(read);
        if read > 0 {
            open.still = 0;
            open.grown()?;
            return Ok(Some(open.cut(self.file, &bytes, self.limit)));
        }
        let there = match fs::metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match there {
            Some(there) if is(&there, &open.identity) => {
                if there.len() < open.offset {
                    note!("{}: became shorter; reading it from its beginning", self.path.display());
                    *open = Open::at(File::open(&self.path)?, Place::default())?;
                    return Ok(Some(Lines::empty(self.file, open.identity)));
                }
                Ok(None)
            }
            // Gone, and nothing in its place yet: its writer may still have it open.
            None => Ok(None),
            Some(_) => {
                open.still += 1;
                if open.still < STILL {
                    return Ok(None);
                }
                let last = open.rest(self.file);
                self.open = None;
                Ok(Some(last))
            }
        }
    }
}

/// Opens what is to be read next at `path`; `None` if there is nothing.
fn open(path: &Path, place: Option<Place>) -> io::Result<Option<Open>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(place) = place else { return Open::at(file, Place::default()).map(Some) };
    if same(&file, &place)? {
        return Open::at(file, place).map(Some);
    }
    // Renamed while nobody looked: it lies beside, as a rule.
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.metadata().is_ok_and(|metadata| is(&metadata, &place.identity))
            && let Ok(old) = File::open(entry.path())
            && same(&old, &place)?
        {
            note!("{}: goes on in {}", path.display(), entry.path().display());
            return Open::at(old, place).map(Some);
        }
    }
    note!(
        "{}: another file than before, and the old one is not beside it: what was not read of it is lost to us",
        path.display()
    );
    Open::at(file, Place::default()).map(Some)
}

fn is(metadata: &Metadata, identity: &Identity) -> bool {
    (metadata.dev(), metadata.ino()) == (identity.device, identity.inode)
}

/// Whether `place` is in this file.
fn same(file: &File, place: &Place) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let identity = &place.identity;
    Ok(is(&metadata, identity)
        && metadata.len() >= place.offset
        && fingerprint(file, identity.fingerprint_bytes)?
            == (identity.fingerprint, identity.fingerprint_bytes))
}

/// CRC32C of the first `bytes` bytes, and how many of them there are.
fn fingerprint(file: &File, bytes: u64) -> io::Result<(u32, u64)> {
    let mut head = vec![0; usize::try_from(bytes).unwrap_or(FINGERPRINT).min(FINGERPRINT)];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    head.truncate(filled);
    Ok((crc32c(&head), filled as u64))
}

impl Open {
    fn at(mut file: File, place: Place) -> io::Result<Open> {
        let metadata = file.metadata()?;
        let (fingerprint, fingerprint_bytes) = fingerprint(&file, FINGERPRINT as u64)?;
        file.seek(SeekFrom::Start(place.offset))?;
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            fingerprint,
            fingerprint_bytes,
        };
        let line = place.line.max(1);
        let offset = place.offset;
        let (partial, passed_over, still) = (Vec::new(), 0, 0);
        Ok(Open { file, identity, offset, line, partial, passed_over, still })
    }

    /// A short file is recognised by more when there is more.
    fn grown(&mut self) -> io::Result<()> {
        if self.identity.fingerprint_bytes < FINGERPRINT as u64 {
            let (crc, bytes) = fingerprint(&self.file, FINGERPRINT as u64)?;
            (self.identity.fingerprint, self.identity.fingerprint_bytes) = (crc, bytes);
        }
        Ok(())
    }

    /// The lines that end within `bytes`, which were read next.
    fn cut(&mut self, file: usize, bytes: &[u8], limit: usize) -> Lines {
        let mut lines = Lines::empty(file, self.identity);
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.offset += part.len() as u64;
            let (part, ends) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            let room =
                if self.passed_over > 0 { 0 } else { limit.saturating_sub(self.partial.len()) };
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            self.passed_over += (part.len() - part.len().min(room)) as u64;
            if self.passed_over > 0 && self.partial.len() > KEPT {
                self.passed_over += (self.partial.len() - KEPT) as u64;
                self.partial.truncate(KEPT);
            }
            if ends {
                self.push(&mut lines);
            }
        }
        lines
    }

    /// What is left without a newline, of a file that gets nothing more.
    fn rest(&mut self, file: usize) -> Lines {
        let mut lines = Lines::empty(file, self.identity);
        if !self.partial.is_empty() {
            self.push(&mut lines);
        }
        lines
    }

    fn push(&mut self, lines: &mut Lines) {
        let start = lines.bytes.len();
        lines.bytes.append(&mut self.partial);
        let end = lines.bytes.len();
        let passed_over = std::mem::take(&mut self.passed_over);
        let cut = (passed_over > 0).then(|| (end - start) as u64 + passed_over);
        lines.lines.push(Line { start, end, place: self.offset, number: self.line, cut });
        self.line += 1;
    }
}

impl Lines {
    fn empty(file: usize, identity: Identity) -> Lines {
        Lines { file, identity, bytes: Vec::new(), lines: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// What is read of `followed` until there is nothing more.
    fn drain(followed: &mut Followed) -> Vec<(u64, String, Option<u64>, Place)> {
        let mut all = Vec::new();
        let mut nothing = 0;
        while nothing <= STILL {
            match followed.look().unwrap() {
                None => nothing += 1,
                Some(lines) => all.extend(lines.pieces().map(|piece| {
                    let text = String::from_utf8(piece.bytes.to_vec()).unwrap();
                    (piece.number, text, piece.cut, piece.place)
                })),
            }
        }
        all
    }

    fn texts(lines: &[(u64, String, Option<u64>, Place)]) -> Vec<&str> {
        lines.iter().map(|line| line.1.as_str()).collect()
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_file_that_grows_is_renamed_truncated_and_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut followed = Followed::new(0, path.clone(), None, 100);
        assert!(drain(&mut followed).is_empty(), "not there yet");
        append(&path, "one\ntwo\nthr");
        let lines = drain(&mut followed);
        assert_eq!(texts(&lines), ["one", "two"]);
        assert_eq!((lines[1].0, lines[1].3.offset, lines[1].3.line), (2, 8, 3));
        append(&path, "ee\n\nfour");
        assert_eq!(texts(&drain(&mut followed)), ["three", ""]);
        // Renamed: it is finished, with what has no newline, and then the new one begins.
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&dir.path().join("log.1"), "teen");
        append(&path, "new\n");
        let lines = drain(&mut followed);
        assert_eq!(texts(&lines), ["fourteen", "new"]);
        assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), [5, 1]);
        let place = lines[1].3;
        // Copied and truncated.
        fs::write(&path, "n2\n").unwrap();
        assert_eq!(texts(&drain(&mut followed)), ["n2"]);
        // Somebody else goes on from the place before: the file is another one by now, though of the same inode.
        let mut other = Followed::new(0, path.clone(), Some(place), 100);
        assert_eq!(texts(&drain(&mut other)), ["n2"]);
    }

    #[test]
    fn a_place_is_found_again_also_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "one\ntwo\n");
        let lines = drain(&mut Followed::new(0, path.clone(), None, 100));
        append(&path, "three\n");
        let again = drain(&mut Followed::new(0, path.clone(), Some(lines[0].3), 100));
        assert_eq!(texts(&again), ["two", "three"]);
        assert_eq!(again[0].0, 2, "lines are counted on");
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        append(&path, "four\n");
        let again = drain(&mut Followed::new(0, path.clone(), Some(lines[1].3), 100));
        assert_eq!(texts(&again), ["three", "four"]);
        fs::remove_file(dir.path().join("log.1")).unwrap();
        let again = drain(&mut Followed::new(0, path, Some(lines[1].3), 100));
        assert_eq!(texts(&again), ["four"]);
    }

    /// It was read from its beginning, and so was what had taken its name, once the first look had found nothing.
    #[test]
    fn a_place_outlasts_looks_at_what_cannot_be_opened_or_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        append(&path, "one\ntwo\n");
        let place = drain(&mut Followed::new(0, path.clone(), None, 100))[0].3;
        fs::rename(&path, &old).unwrap();
        // A link to itself: nobody can open that, whatever his permissions.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let mut followed = Followed::new(0, path.clone(), Some(place), 100);
        followed.look().unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(drain(&mut followed).is_empty(), "between its renaming and the new one");
        append(&path, "three\n");
        assert_eq!(texts(&drain(&mut followed)), ["two", "three"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(300_000);
        append(&path, &format!("{}\n{long}\nok\n", "y".repeat(10)));
        let lines = drain(&mut Followed::new(0, path, None, 10));
        assert_eq!(
            lines.iter().map(|line| line.2).collect::<Vec<_>>(),
            [None, Some(300_000), None]
        );
        assert_eq!((lines[1].1.len(), lines[2].1.as_str()), (10, "ok"));
        assert_eq!(lines[2].3.offset, 11 + 300_001 + 3);
    }
}
