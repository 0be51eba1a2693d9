//! The disk inside tokio-uring, as the server uses it: the event descriptor in `AsyncFd`, the waker from
//! another thread, and a just-written buffer sent without a copy.

use std::path::Path;

use highwater_ring::{
    AlignedBuf, BufferPool, Completion, Disk, DiskEvent, Done, Files, FilesOptions, Op, OpenMode,
    OsFiles, SendBuf, UringDisk, UringOptions,
};

#[allow(clippy::unwrap_used, reason = "a test")]
async fn turn(disk: &mut UringDisk, event: &DiskEvent, out: &mut Vec<Completion>) {
    event.wait().await.unwrap();
    disk.reap(out);
}

#[test]
fn writes_wakes_and_sends() {
    let dir = tempfile::tempdir().unwrap();
    let files = OsFiles::open(dir.path(), FilesOptions { allow_buffered: true }).unwrap();
    files.create(Path::new("log"), 1 << 20, true).unwrap();
    let pool = BufferPool::new(4 << 20, 0).unwrap();
    let ring = tokio_uring::uring_builder();
    tokio_uring::builder().entries(64).uring_builder(&ring).start(async {
        let mut disk = UringDisk::new(&pool, None, UringOptions::default()).unwrap();
        let file = disk
            .register_file(files.open_file(Path::new("log"), OpenMode::Write).unwrap())
            .unwrap();
        let event = disk.event().unwrap();
        let mut out = Vec::new();
        let mut last = AlignedBuf::alloc(4096).freeze();
        for i in 0..200u64 {
            let mut buf = pool.take(16384).unwrap();
            buf.fill(i as u8);
            let buf = buf.freeze();
            last = buf.clone();
            let op = Op::Write { file, offset: (i % 32) * 16384, buf, len: 16384, durable: true };
            disk.submit(i, op);
            disk.flush().unwrap();
            while out.len() as u64 <= i {
                turn(&mut disk, &event, &mut out).await;
            }
        }
        assert!(out.iter().all(|c| matches!(c.result, Ok(Done::Written))));

        // Several at a time, reaped only on events.
        let (mut sent, mut done) = (0u64, Vec::new());
        while done.len() < 2000 {
            while disk.in_flight() < 8 && sent < 2000 {
                let (buf, offset) = (last.clone(), (sent % 32) * 16384);
                let durable = sent % 3 > 0;
                disk.submit(sent, Op::Write { file, offset, buf, len: 16384, durable });
                disk.flush().unwrap();
                sent += 1;
            }
            turn(&mut disk, &event, &mut done).await; // hangs here if an event is lost
        }
        assert!(done.iter().all(|c| matches!(c.result, Ok(Done::Written))));

        let waker = disk.waker();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for i in 0..100 {
                sender.send(i).unwrap();
                waker.wake();
            }
        });
        let mut got = 0;
        while got < 100 {
            turn(&mut disk, &event, &mut out).await; // hangs here if a wake is lost
            got += receiver.try_iter().count();
        }
        thread.join().unwrap();

        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let (a, mut b) = (tokio_uring::net::UnixStream::from_std(a), b);
        let parts = vec![SendBuf::from(b"head".to_vec()), SendBuf::shared(last.clone(), 100, 1100)];
        let (sent, _) = a.writev(parts).await;
        assert_eq!(sent.unwrap(), 1004);
        let mut got = [0; 1004];
        std::io::Read::read_exact(&mut b, &mut got).unwrap();
        assert_eq!(&got[..4], b"head");
        assert!(got[4..].iter().all(|&b| b == 199));
    });
}
