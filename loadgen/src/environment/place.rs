//! What a directory lies on: file system, device, and how full.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Root;

/// A directory and what holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The directory, as the file system knows it.
    pub path: String,
    /// File system type.
    pub file_system: Option<String>,
    /// Where that is mounted.
    pub mount_point: Option<String>,
    /// Mount options, the file system's own included.
    pub mount_options: Option<String>,
    /// Block device: the whole disk, not the partition. Absent for what is in memory or on a network.
    pub device: Option<String>,
    /// What that is put together from (LVM, RAID, encryption).
    pub members: Vec<String>,
    /// The device's model, or its first member's.
    pub model: Option<String>,
    /// `write back`: the device has a cache that a power cut empties unless it is flushed.
    pub write_cache: Option<String>,
    /// Whether it has to wait for a disk to turn.
    pub rotational: Option<bool>,
    /// The kernel's scheduler for it.
    pub scheduler: Option<String>,
    /// Size of the file system, in bytes.
    pub size_bytes: Option<u64>,
    /// Share of it that is in use, 0 to 1.
    pub fill: Option<f64>,
}

impl Place {
    /// Of `path` on this machine; of the nearest directory above if it does not exist (yet).
    pub(crate) fn of(path: &Path) -> Place {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let there = path.ancestors().find_map(|path| path.canonicalize().ok());
        let mut place = Place::below(Root::system(), &there.unwrap_or_else(|| path.clone()));
        place.path = path.display().to_string();
        place
    }

    /// Of an existing `path`, as the files below `root` describe it.
    pub(super) fn below(root: Root<'_>, path: &Path) -> Place {
        let mut place = Place { path: path.display().to_string(), ..Place::default() };
        let mounts = root.text("proc/self/mountinfo").unwrap_or_default();
        if let Some(mount) = Mount::holding(&mounts, path) {
            place.device(root, &mount);
            place.file_system = Some(mount.file_system);
            place.mount_point = Some(mount.point.display().to_string());
            place.mount_options = Some(mount.options);
        }
        if let Ok(space) = rustix::fs::statvfs(path) {
            // As `df` counts: what only root may use is neither free nor in use.
            let used = space.f_blocks.saturating_sub(space.f_bfree);
            let usable = used.saturating_add(space.f_bavail);
            place.size_bytes = Some(space.f_blocks.saturating_mul(space.f_frsize));
            place.fill = (usable > 0).then(|| used as f64 / usable as f64);
        }
        place
    }

    fn device(&mut self, root: Root<'_>, mount: &Mount) {
        // btrfs and others have a number of their own; the source then names the device.
        let named = Path::new(&mount.source).strip_prefix("/dev").ok().and_then(Path::file_name);
        let by_name = || disk(root, &Path::new("sys/class/block").join(named?));
        let found = disk(root, &Path::new("sys/dev/block").join(&mount.number)).or_else(by_name);
        let Some((name, dir)) = found else {
            return;
        };
        let here = Root(&dir);
        let members = here.names("slaves").into_iter();
        let members: Vec<_> =
            members.filter_map(|member| disk(here, &Path::new("slaves").join(member))).collect();
        self.model = here
            .word("device/model")
            .or_else(|| members.iter().find_map(|(_, dir)| Root(dir).word("device/model")));
        self.members = members.into_iter().map(|(name, _)| name).collect();
        self.write_cache = here.word("queue/write_cache");
        self.rotational = here.number::<u8>("queue/rotational").map(|turns| turns != 0);
        self.scheduler = here.choice("queue/scheduler");
        self.device = Some(name);
    }
}

/// The whole disk behind a block device's entry: its name and directory.
fn disk(root: Root<'_>, entry: &Path) -> Option<(String, PathBuf)> {
    let mut dir = root.path(entry).canonicalize().ok()?;
    if dir.join("partition").exists() {
        dir.pop();
    }
    let name = dir.file_name()?.to_str()?.to_owned();
    Some((name, dir))
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq)]
struct Mount {
    number: String,
    point: PathBuf,
    options: String,
    file_system: String,
    source: OsString,
}

impl Mount {
    /// The one that `path` lies on: the longest that leads to it, and of several there the last.
    fn holding(mounts: &str, path: &Path) -> Option<Mount> {
        let all = mounts.lines().filter_map(Mount::parse);
        all.filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.components().count())
    }

    fn parse(line: &str) -> Option<Mount> {
        // 36 35 98:0 /below /mounted/at rw,noatime optional:1 fields:2 - ext4 /dev/sda1 rw,discard
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let (number, _, point, options) =
            (mount.next()?, mount.next()?, mount.next()?, mount.next()?);
        let mut own = file_system.split(' ');
        let (file_system, source, super_options) = (own.next()?, own.next()?, own.next()?);
        let mut all: Vec<&str> = options.split(',').collect();
        for option in super_options.split(',') {
            // A mount may be read-only where its file system is not.
            if !all.contains(&option) && !matches!(option, "rw" | "ro" | "") {
                all.push(option);
            }
        }
        Some(Mount {
            number: number.to_owned(),
            point: PathBuf::from(unescape(point)),
            options: all.join(","),
            file_system: file_system.to_owned(),
            source: unescape(source),
        })
    }
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 0 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw,discard
28 27 0:30 /@home /home rw,relatime shared:2 master:3 - btrfs /dev/mapper/pool rw,space_cache=v2
29 27 8:16 / /mnt/a\\040b rw - xfs /dev/sdb rw
30 27 0:31 / /home ro - tmpfs tmpfs rw
no mount at all
";

    #[test]
    fn the_longest_mount_that_leads_to_a_path_holds_it_and_the_last_hides_the_first() {
        let at = |path: &str| Mount::holding(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(
            (at("/var/lib").number, at("/var/lib").options),
            s("254:1", "rw,noatime,discard")
        );
        assert_eq!((at("/home/x").file_system, at("/home/x").options), s("tmpfs", "ro"));
        assert_eq!(at("/homes").point, Path::new("/"));
        assert_eq!(at("/mnt/a b/c").file_system, "xfs");
        assert_eq!(Mount::holding("", Path::new("/")), None);
    }

    fn s(a: &str, b: &str) -> (String, String) {
        (a.to_owned(), b.to_owned())
    }

    #[test]
    fn octal_digits_are_read_and_other_backslashes_left() {
        assert_eq!(unescape(r"a\040b\134c"), OsStr::new(r"a b\c"));
        assert_eq!(unescape(r"a\04"), OsStr::new(r"a\04"));
        assert_eq!(unescape(r"\999"), OsStr::from_bytes(br"\999"));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_where_its_parent_is() {
        let dir = tempfile::tempdir().unwrap();
        let (here, later) = (Place::of(dir.path()), Place::of(&dir.path().join("a/b")));
        assert!(later.path.ends_with("/a/b"), "{}", later.path);
        assert_eq!(later.size_bytes, here.size_bytes);
        assert_eq!(later.mount_point, here.mount_point);
        assert!(here.fill.is_some_and(|fill| (0.0..=1.0).contains(&fill)), "{here:?}");
    }
}
