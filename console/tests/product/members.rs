//! Members of a consumer group: shards shared out, handed over, taken over, and nothing lost on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use highwater_client::{Client, ClientOptions, GroupConsumer, GroupEvent, GroupOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Server, refused, scratch, until};

/// `tail --group g --follow` as a process, its output in files.
struct Member {
    child: Child,
    name: String,
    out: PathBuf,
}

impl Member {
    fn start(server: &Server, dir: &Path, name: &str, args: &[&str]) -> Member {
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let out = file("out");
        let args = [&["tail", "s", "--group", "g", "--follow", "--format", "json"], args].concat();
        let child = server
            .command(&args)
            .args(["--client-name", name])
            .stdout(File::options().create(true).append(true).open(&out).unwrap())
            .stderr(File::create(file("err")).unwrap())
            .spawn()
            .unwrap();
        Member { child, name: name.to_owned(), out }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// SIGTERM: it commits and leaves.
    fn leave(&mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status} {}", self.name, self.said());
    }

    /// kill -9.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.out.with_extension("err")).unwrap()
    }

    /// Every record it printed: shard, sequence number, payload.
    fn printed(&self) -> Vec<(u64, u64, String)> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        // Killed, it may have left half a line.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let record = |line: &str| {
            let record: Value = serde_json::from_str(line).ok()?;
            let number = |field: &str| record[field].as_u64();
            Some((number("shard")?, number("sequence")?, record["payload"].as_str()?.to_owned()))
        };
        whole.lines().filter_map(record).collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shards(server: &Server) -> Vec<Value> {
    let described = server.run(&["group", "describe", "g", "--json"]);
    // Before the first has joined there is no such group.
    if !described.status.success() {
        return Vec::new();
    }
    let described: Value = serde_json::from_slice(&described.stdout).unwrap();
    described["shards"].as_array().unwrap().clone()
}

/// The shards that a member holds, with their positions.
fn held(server: &Server, name: &str) -> BTreeMap<u64, u64> {
    let ours = |shard: &&Value| {
        shard["owner"].as_str().is_some_and(|owner| owner.split(' ').next() == Some(name))
    };
    let shards = shards(server);
    let number = |shard: &Value, field: &str| shard[field].as_u64().unwrap();
    shards.iter().filter(ours).map(|s| (number(s, "shard"), number(s, "position"))).collect()
}

/// Every shard has an owner, and each of these has some.
fn shared_out(server: &Server, names: &[&str]) -> bool {
    let shards = shards(server);
    let owners: BTreeSet<&str> = shards
        .iter()
        .filter_map(|shard| shard["owner"].as_str().and_then(|owner| owner.split(' ').next()))
        .collect();
    !shards.is_empty()
        && shards.iter().all(|shard| shard["owner"].is_string())
        && names.iter().all(|name| owners.contains(name))
}

fn all_read(server: &Server) -> bool {
    shards(server).iter().all(|shard| shard["backlog_records"] == 0)
}

/// Lines of JSON: 40 keys, each with numbers of its own from 0.
fn numbered(range: std::ops::Range<u64>) -> Vec<u8> {
    let line = |n: u64| format!("{{\"key\":\"k{}\",\"n\":{}}}\n", n % 40, n / 40);
    range.map(line).collect::<String>().into_bytes()
}

#[test]
fn four_members_over_eight_shards_lose_nothing_whatever_happens_to_them() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 8);
    let session = ["--session-timeout", "1s"];
    let start = |name| Member::start(&server, dir.path(), name, &session);
    let mut put = server
        .command(&["put", "s", "--format", "json", "--key", "key"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = put.stdin.take().unwrap();
    let mut sent = 0;
    let mut feed = || {
        stdin.write_all(&numbered(sent..sent + 2_000)).unwrap();
        sent += 2_000;
        sent
    };
    let mut members = vec![start("m0"), start("m1")];
    until(|| feed() > 0 && shared_out(&server, &["m0", "m1"]));
    members.extend([start("m2"), start("m3")]);
    until(|| feed() > 0 && shared_out(&server, &["m0", "m1", "m2", "m3"]));
    // What may come twice: by shard, from which sequence number on.
    let mut twice: HashMap<u64, u64> = HashMap::new();
    let mut in_doubt = |held: BTreeMap<u64, u64>| {
        for (shard, position) in held {
            let from = twice.entry(shard).or_insert(position);
            *from = position.min(*from);
        }
    };
    // One is killed. It may have printed what it has not committed.
    members[0].kill();
    let killed = Instant::now();
    in_doubt(held(&server, "m0"));
    until(|| feed() > 0 && shared_out(&server, &["m1"]) && held(&server, "m0").is_empty());
    // The session's time and a second would do; the machine may be busy.
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    members.push(start("m4"));
    until(|| feed() > 0 && shared_out(&server, &["m1", "m2", "m3", "m4"]));
    // One stands still past its session, and goes on as if nothing had been.
    members[1].signal(Signal::STOP);
    in_doubt(held(&server, "m1"));
    until(|| feed() > 0 && held(&server, "m1").is_empty() && shared_out(&server, &["m2"]));
    members[1].signal(Signal::CONT);
    until(|| feed() > 0 && shared_out(&server, &["m1", "m2", "m3", "m4"]));
    assert!(members[1].said().contains("has gone to another member"), "{}", members[1].said());
    // One leaves as it should, and nothing of that is seen.
    members[2].leave();
    until(|| feed() > 0 && shared_out(&server, &["m1", "m3", "m4"]));
    drop(stdin);
    assert!(put.wait().unwrap().success());
    until(|| all_read(&server));
    members[1].leave();
    members[3].leave();
    members[4].leave();
    let mut seen: HashMap<(u64, u64), (u32, String)> = HashMap::new();
    for (shard, sequence, payload) in members.iter().flat_map(Member::printed) {
        let (times, first) = seen.entry((shard, sequence)).or_insert((0, payload.clone()));
        assert_eq!(*first, payload);
        *times += 1;
    }
    let payloads: BTreeSet<&str> = seen.values().map(|(_, payload)| payload.trim()).collect();
    let wanted = String::from_utf8(numbered(0..sent)).unwrap();
    let lost: Vec<&str> = wanted.lines().filter(|line| !payloads.contains(line)).collect();
    assert!(lost.is_empty(), "{} of {sent} are lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert_eq!(payloads.len() as u64, sent);
    let duplicates = seen.iter().filter(|(_, (times, _))| *times > 1);
    let mut counted = 0;
    for ((shard, sequence), (times, _)) in duplicates {
        let from = twice.get(shard).copied().unwrap_or(u64::MAX);
        assert!(*sequence >= from, "shard {shard} record {sequence} came {times} times");
        counted += times - 1;
    }
    println!("{counted} of {sent} records came twice");
    // A group without members may be set back by hand, one with members not.
    let last = start("m5");
    until(|| shared_out(&server, &["m5"]));
    for refusal in [&["group", "reset", "g", "--to", "oldest"][..], &["group", "delete", "g"]] {
        let done = server.run(refusal);
        assert!(
            !done.status.success(),
            "{refusal:?} {done:?} {:?} {:?}",
            shards(&server),
            last.said()
        );
        refused(&done, 1, &["active members"]);
    }
    drop(last);
}

#[test]
fn a_named_member_comes_back_to_its_shards_before_its_session_is_over() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 4);
    let start = |name| {
        Member::start(&server, dir.path(), name, &["--member", name, "--session-timeout", "5min"])
    };
    let (mut one, mut two) = (start("one"), start("two"));
    until(|| shared_out(&server, &["one", "two"]));
    let keys = |held: BTreeMap<u64, u64>| held.into_keys().collect::<Vec<_>>();
    let before = keys(held(&server, "one"));
    assert_eq!(before.len(), 2);
    one.kill();
    assert!(
        server
            .put("s", &numbered(0..1_000), &["--format", "json", "--key", "key"])
            .status
            .success()
    );
    let mut one = start("one");
    // Long before the session would be over.
    until(|| all_read(&server));
    assert_eq!(keys(held(&server, "one")), before);
    two.leave();
    assert_eq!(keys(held(&server, "two")).len(), 2, "they are kept for it");
    one.leave();
}

#[test]
fn children_are_read_after_their_parents() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 2);
    let put = |range| {
        let put = server.put("s", &numbered(range), &["--format", "json", "--key", "key"]);
        assert!(put.status.success());
    };
    put(0..2_000);
    for shards in ["5", "3"] {
        server.ok(&["stream", "reshard", "s", "--shards", shards]);
        let from = if shards == "5" { 2_000 } else { 4_000 };
        put(from..from + 2_000);
    }
    // All at once by one member, which ends when it has read everything.
    let read = String::from_utf8(server.ok(&["tail", "s", "--group", "g"])).unwrap();
    let mut next: HashMap<String, u64> = HashMap::new();
    for line in read.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let at = next.entry(record["key"].as_str().unwrap().to_owned()).or_default();
        assert_eq!(record["n"].as_u64(), Some(*at), "{record}");
        *at += 1;
    }
    assert!(next.len() == 40 && next.values().all(|n| *n == 150), "{next:?}");
    assert_eq!(server.ok(&["tail", "s", "--group", "g"]), b"");
}

/// A member of its own client, which commits when it is told to.
async fn join(addr: &str, name: &str) -> GroupConsumer {
    let client = Client::connect(addr, ClientOptions::default()).await.unwrap();
    let options = GroupOptions {
        name: Some(name.to_owned()),
        session_timeout: Duration::from_millis(300),
        ..GroupOptions::default()
    };
    client.group_consumer("g", "s", options).await.unwrap()
}

/// Reads until it has records; where they end.
async fn read(consumer: &mut GroupConsumer) -> u64 {
    loop {
        match consumer.next().await.unwrap() {
            Some(GroupEvent::Records { delivery, .. }) => return delivery.next,
            event => assert!(event.is_some()),
        }
    }
}

#[test]
fn a_zombies_commit_is_refused() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"));
    server.create("s", 1);
    assert!(server.put("s", &numbered(0..100), &[]).status.success());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (taken_over, wait) = channel();
    let zombie = runtime();
    let mut consumer = zombie.block_on(join(&server.addr, "zombie"));
    zombie.block_on(read(&mut consumer));
    // Nothing of the zombie's runtime runs from here on: no heartbeat.
    let addr = server.addr.clone();
    let heir = std::thread::spawn(move || {
        runtime().block_on(async {
            let mut consumer = join(&addr, "heir").await;
            let next = read(&mut consumer).await;
            consumer.done(0, next);
            consumer.commit().await.unwrap();
            taken_over.send(next).unwrap();
            // It stays until the zombie has tried.
            while let Ok(Ok(Some(_))) =
                tokio::time::timeout(Duration::from_secs(2), consumer.next()).await
            {}
        });
    });
    let position = wait.recv().unwrap();
    zombie.block_on(async {
        consumer.done(0, 1);
        consumer.commit().await.unwrap();
        let event = consumer.next().await.unwrap();
        assert!(matches!(event, Some(GroupEvent::Lost { shard: 0 })), "{event:?}");
    });
    assert_eq!(shards(&server)[0]["position"], position, "the heir's, not the zombie's");
    heir.join().unwrap();
}
