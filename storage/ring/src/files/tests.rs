//! Tests of the real files, in a temporary directory.

use super::*;

fn files() -> (tempfile::TempDir, OsFiles) {
    let dir = tempfile::tempdir().unwrap();
    let files = OsFiles::open(dir.path(), FilesOptions { allow_buffered: true }).unwrap();
    (dir, files)
}

fn p(path: &str) -> &Path {
    Path::new(path)
}

#[test]
fn round_trip_and_names() {
    let (_dir, files) = files();
    assert_eq!(files.list(p("a/b")).unwrap(), Vec::<String>::new());
    files.create_dir(p("a/b")).unwrap();
    files.create_dir(p("a/b")).unwrap();
    files.create(p("a/b/2"), 16384, false).unwrap();
    files.create(p("a/b/1"), 16384, true).unwrap();
    let again = files.create(p("a/b/1"), 16384, true).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(files.list(p("a/b")).unwrap(), ["1", "2"]);
    assert_eq!(files.len(p("a/b/1")).unwrap(), 16384);
    assert!(files.is_written(p("a/b/1")).unwrap());

    let mut buf = AlignedBuf::alloc(8192);
    buf.fill(9);
    files.write_at(p("a/b/1"), 4096, &buf, 8192).unwrap();
    assert!(files.write_at(p("a/b/1"), 100, &buf, 4096).is_err());
    assert!(files.write_at(p("a/b/1"), 0, &buf, 8193).is_err());
    files.settle(p("a/b/1")).unwrap();
    let mut back = AlignedBuf::alloc(32768);
    assert_eq!(files.read_at(p("a/b/1"), 0, &mut back).unwrap(), 16384);
    assert!(back[..4096].iter().all(|&b| b == 0));
    assert!(back[4096..12288].iter().all(|&b| b == 9));
    assert_eq!(files.len(p("a/b/1")).unwrap(), 16384, "settling keeps the size");

    files.rename(p("a/b/1"), p("a/one")).unwrap();
    assert_eq!(files.list(p("a")).unwrap(), ["b", "one"]);
    files.remove(p("a/one")).unwrap();
    files.remove(p("a/one")).unwrap();
    files.remove_dir(p("a")).unwrap();
    files.remove_dir(p("a")).unwrap();
    assert_eq!(files.list(p("")).unwrap(), Vec::<String>::new());
    let (free, total) = files.space().unwrap();
    assert!(free > 0 && free <= total);
}

#[test]
fn relaxed_writes_fill_an_allocated_file() {
    let (_dir, files) = files();
    files.create(p("x"), 3 << 20, false).unwrap();
    let zeros = AlignedBuf::alloc(1 << 20);
    for i in 0..3 {
        files.write_at_relaxed(p("x"), i << 20, &zeros, 1 << 20).unwrap();
    }
    files.settle(p("x")).unwrap();
    assert!(files.is_written(p("x")).unwrap());
}

#[test]
fn paths_stay_inside() {
    let (_dir, files) = files();
    for path in ["../x", "/etc/passwd", "a/../../x", ""] {
        assert!(files.create(p(path), 4096, false).is_err(), "{path}");
        assert!(files.len(p(path)).is_err(), "{path}");
        assert!(files.remove(p(path)).is_err(), "{path}");
    }
}

#[test]
fn one_holder_of_the_lock() {
    let (_dir, files) = files();
    let lock = files.open_lock().unwrap();
    match files.open_lock() {
        Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(lock);
    files.open_lock().unwrap();
}

#[test]
fn memory_file_systems_are_told() {
    let dir = tempfile::tempdir_in("/dev/shm");
    let Ok(dir) = dir else { return };
    let files = OsFiles::open(dir.path(), FilesOptions { allow_buffered: true }).unwrap();
    assert!(files.volatile() || files.filesystem() != "tmpfs");
}
