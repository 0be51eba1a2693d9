//! Workload files, right and wrong.

use super::*;
use crate::workload::Part;

fn parse(text: &str) -> Result<WorkloadFile, FileError> {
    WorkloadFile::parse(Path::new("dir/w.toml"), text)
}

#[test]
fn nothing_said_is_nothing_asked() {
    assert_eq!(parse("# nothing\n").unwrap(), WorkloadFile::default());
}

#[test]
fn every_field_is_taken() {
    let text = r#"
name = "everything"
target = "127.0.0.1:7411"
stream = "clicks"
streams = 2
shards = 4
ack = "written"
retention = "1GiB"
rate = "20k"
arrival = "poisson"
duration = "1m"
warmup = "steady"
keys = 500
key_distribution = "zipf:1.1"
producers = 8
groups = 2
consumers = 16
batch = "64KiB"
linger = "1ms"
inflight = 4
connections = 2
compression = "lz4"
client_name = "shop"
producer = "till"
seed = 7
spin = 50
drain_timeout = 20
target_timeout = 5.5
tolerate_restart = true
outage = "30s"
drain_limit = "5m"
paused_groups = 1

[burst]
peak = "3x"
on = 2
every = "8s"

[workload]
name = "mixed"
[[workload.parts]]
name = "iot"
devices = 50
weight = 3
[[workload.parts]]
name = "apache-log"
file = "access.log"
"#;
    let all = parse(text).unwrap();
    let part = |weight, workload| Part { weight, workload };
    let seconds = Duration::from_secs;
    let wanted = WorkloadFile {
        target: Some("127.0.0.1:7411".into()),
        stream: Some("clicks".into()),
        streams: Some(2),
        shards: Some(4),
        ack: Some(AckMode::Written),
        retention_bytes: Some(1 << 30),
        rate: Some(Rate::PerSecond(20_000.0)),
        arrival: Some(Arrival::Poisson),
        profile: Some(Profile::Burst(Burst { peak: 3.0, on: seconds(2), every: seconds(8) })),
        duration: Some(seconds(60)),
        warmup: Some(FileWarmUp::Steady),
        workload: Some(Workload::Mixed {
            parts: vec![
                part(3.0, Workload::Iot { devices: 50 }),
                part(1.0, Workload::ApacheLog { file: Some("dir/access.log".into()) }),
            ],
        }),
        keys: Some(500),
        key_distribution: Some(KeyDistribution::Zipf { exponent: 1.1 }),
        producers: Some(8),
        groups: Some(2),
        consumers: Some(16),
        clients: None,
        batch_bytes: Some(64 << 10),
        linger: Some(Duration::from_millis(1)),
        inflight: Some(4),
        connections: Some(2),
        compression: Some(Compression::Lz4),
        client_name: Some("shop".into()),
        producer: Some("till".into()),
        seed: Some(7),
        spin: Some(Duration::from_micros(50)),
        drain_timeout: Some(seconds(20)),
        target_timeout: Some(Duration::from_millis(5_500)),
        tolerate_restart: Some(true),
        outage: Some(seconds(30)),
        drain_limit: Some(seconds(300)),
        paused_groups: Some(1),
        notes: Vec::new(),
    };
    assert_eq!(all, wanted);
}

#[test]
fn other_benchmarks_words_are_understood() {
    let text = r#"
name = "2 topics, 16 partitions, 1kb"
topics = 2
partitionsPerTopic = 16
messageSize = 1024
payloadFile = "payload/payload-1Kb.data"
keyDistributor = "KEY_ROUND_ROBIN"
subscriptionsPerTopic = 3
consumerPerSubscription = 32
producersPerTopic = 4
producerRate = 50000
consumerBacklogSizeGB = 0
testDurationMinutes = 15
warmupDurationMinutes = 1
"#;
    let all = parse(text).unwrap();
    assert_eq!((all.streams, all.shards, all.producers), (Some(2), Some(16), Some(8)));
    assert_eq!((all.groups, all.consumers), (Some(3), Some(16 * 2 * 3)));
    assert_eq!(all.rate, Some(Rate::PerSecond(50_000.0)));
    assert_eq!(all.duration, Some(Duration::from_secs(900)));
    assert_eq!(all.warmup, Some(FileWarmUp::Fixed(Duration::from_secs(60))));
    assert_eq!(all.workload, Some(Workload::Fixed { size: 1024 }));
    assert_eq!(all.key_distribution, Some(KeyDistribution::RoundRobin));
    assert_eq!(all.notes.len(), 2, "{:?}", all.notes);
    assert_eq!(parse("producerRate = 0").unwrap().rate, Some(Rate::Max));
    assert_eq!(parse("subscriptionsPerTopic = 0").unwrap().consumers, Some(0));
}

#[test]
fn what_is_wrong_is_named_with_file_line_field_value_and_limit() {
    for (text, wanted) in [
        ("\nrate = 0", "dir/w.toml, line 2: rate is 0; it must be a rate such as"),
        ("rate = \"fast\"", "line 1: rate is \"fast\""),
        ("rate = -5", "rate is -5"),
        ("streams = 2000", "streams is 2000; it must be a whole number, 1 to 1024"),
        ("streams = \"two\"", "streams is \"two\""),
        ("\n\ndurations = 5", "line 3: field durations is not known; did you mean duration?"),
        (
            "\nretention = \"7MiB\"",
            "line 2: retention is \"7MiB\"; it must be a size such as 100, 64KiB or 10MB, 8MiB at least",
        ),
        ("retention = 1", "retention is 1; it must be"),
        ("xyzzy = 5", "line 1: field xyzzy is not known"),
        ("partitions_per_topic = 5", "did you mean partitionsPerTopic?"),
        ("duration = \"10\"", "duration is \"10\"; it must be a number of seconds, or a time"),
        ("duration = 1e300", "up to 366 days"),
        ("ack = \"maybe\"", "it must be \"durable\" or \"written\""),
        ("stream = \"a/b\"", "line 1: stream: the name contains '/'"),
        (
            "streams = 1\ntopics = 2",
            "line 2: topics is 2; it must be left out, for streams says it",
        ),
        ("size = 10", "size is 10"),
        ("size = 100\nworkload = \"iot\"", "size is 100; it must be left out"),
        (
            "workload = \"iott\"",
            "line 1: workload: workload \"iott\" is not known; did you mean iot?",
        ),
        ("workload = 5", "workload is 5; it must be a workload's name"),
        (
            "[workload]\nname = \"iot\"\ndevice = 5",
            "line 3: field device is not known; did you mean devices?",
        ),
        ("[workload]\nname = \"iot\"\nweight = 5", "line 3: field weight is not known"),
        ("[workload]\nname = \"video\"\ncameras = 0", "line 3: cameras is 0"),
        ("[workload]\nname = \"uniform\"\nleast = 500\nmost = 100", "most size is 100"),
        ("[burst]\npeak = 0.5", "line 1: burst: peak is 0.5; it must be more than 1"),
        ("[burst]\npeek = 2", "did you mean peak?"),
        ("[trace]\nspeed = 2", "trace"),
        ("arrival = \"trace\"", "[trace] with file"),
        ("arrival = \"uniform\"", "arrival is \"uniform\""),
        ("[burst]\n[trace]\nfile = \"a\"", "either bursts or a trace"),
        ("randomBytesRatio = 0.5", "randomBytesRatio: payloads are random bytes throughout"),
        ("consumerBacklogSizeGB = 10", "use load backlog with outage"),
        ("keyDistributor = \"SOME\"", "\"NO_KEY\", \"KEY_ROUND_ROBIN\""),
        ("key_distribution = \"normal\"", "key distribution \"normal\" is not known"),
        ("rate = ", "line 1: "),
        ("rate = 1\nrate = 2", "line 2: "),
    ] {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.starts_with("dir/w.toml, line ") && said.contains(wanted), "{text:?}: {said}");
    }
    for (text, kept) in [("retention = 0", 0), ("retention = \"8MiB\"", 8 << 20)] {
        assert_eq!(parse(text).unwrap().retention_bytes, Some(kept), "{text}");
    }
    let said = WorkloadFile::read(Path::new("/nonexistent/w.toml")).unwrap_err().to_string();
    assert!(said.contains("/nonexistent/w.toml"), "{said}");
}

#[test]
fn the_documented_example_is_one() {
    let docs = include_str!("../../../docs/load.md");
    let mut examples = 0;
    for block in docs.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        examples += 1;
    }
    assert!(examples >= 2, "{examples}");
    for field in KNOWN {
        assert!(docs.contains(&format!("`{field}`")), "{field} is not documented");
    }
}
