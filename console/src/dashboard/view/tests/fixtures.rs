//! States to draw, made from the made-up server of [`crate::dashboard::fixture`].

use std::time::Duration;

use crate::dashboard::app::{App, Look, Screen};
use crate::dashboard::browse::{Answer, Payload, Record, Records};
use crate::dashboard::fixture;
use crate::dashboard::glyphs::Glyphs;
use crate::dashboard::load::{
    Estimate, LoadEvent, LoadFeed, Percentiles, Plan, Response, Stage, Tick, Trial,
};
use crate::dashboard::player::{Link, Player};
use crate::dashboard::recording::{Head, Recorder, Tape};
use crate::dashboard::source::{Sample, What};
use crate::dashboard::theme::{Palette, Theme};

fn look(color: bool) -> Look {
    let theme = Theme { palette: Palette::Ansi, color };
    Look { theme, glyphs: Glyphs::Braille, slo: Duration::from_millis(10) }
}

fn sample(second: u64) -> Sample {
    let snapshot = fixture::snapshot(second);
    Sample { at: snapshot.taken_ns + 300_000_000, what: What::Snapshot(Box::new(snapshot)) }
}

/// Wherever this runs, the screens are the same.
fn utc(mut app: App) -> App {
    app.zone = jiff::tz::TimeZone::UTC;
    app
}

/// Nothing came yet.
pub fn empty(color: bool) -> App {
    utc(App::new("127.0.0.1:7411", look(color), Player::live()))
}

/// After so many seconds.
pub fn app(seconds: u64, color: bool) -> App {
    let mut app = empty(color);
    for second in 1..=seconds {
        app.player.push(sample(second));
    }
    app.link = Link::Live;
    app.received = Some(Duration::from_secs(seconds));
    app.now = Duration::from_millis(seconds * 1_000 + 300);
    app
}

/// Of a server whose file system is volatile.
pub fn volatile() -> App {
    let mut app = app(0, false);
    for second in 1..4 {
        let mut snapshot = fixture::snapshot(second);
        (snapshot.durable, snapshot.durability) = (false, "tmpfs".into());
        snapshot.groups.clear();
        app.player.push(Sample { at: 0, what: What::Snapshot(Box::new(snapshot)) });
    }
    app
}

/// Of a server one of whose shards is read through a filter.
pub fn filtered() -> App {
    let mut app = app(0, false);
    for second in 1..16 {
        let mut snapshot = fixture::snapshot(second);
        let shard = &mut snapshot.shards[3];
        (shard.filter_looked, shard.filter_matched) = (second * 8_000, second * 40);
        app.player.push(Sample { at: 0, what: What::Snapshot(Box::new(snapshot)) });
    }
    app
}

/// Of a server one of whose shards gets more than its quota.
pub fn beyond_quota(color: bool) -> App {
    let mut app = app(0, color);
    for second in 1..16 {
        let mut snapshot = fixture::snapshot(second);
        let shard = &mut snapshot.shards[3];
        shard.counters.refused = second * 500;
        shard.counters.dropped = second * 20;
        shard.counters.sampled_out = second * 3_000;
        shard.counters.held_bytes = 1 << 20;
        shard.advice = "split at 7f".into();
        let at = snapshot.taken_ns + 300_000_000;
        app.player.push(Sample { at, what: What::Snapshot(Box::new(snapshot)) });
    }
    app.received = Some(Duration::from_secs(15));
    app.now = Duration::from_millis(15_300);
    app
}

/// With a load generator.
pub fn loaded(seconds: u64, color: bool) -> App {
    let mut app = app(seconds, color);
    let mut feed = LoadFeed::default();
    feed.take(LoadEvent::Begins(Plan {
        what: "run".into(),
        words: "poisson 20.0k/s of 512 B into 4 shards".into(),
        slo_us: Some(10_000.0),
        lag_budget_us: Some(200.0),
        budget_s: None,
    }));
    let mut rng = fastrand::Rng::with_seed(3);
    for second in 0..seconds {
        let wave = rng.f64();
        feed.take(LoadEvent::Tick(Tick {
            phase: "measure".into(),
            elapsed_s: second as f64,
            measured_s: second as f64,
            total_s: Some(300.0),
            offered_per_s: Some(20_000.0),
            acked_per_s: 19_500.0 + 1_000.0 * wave,
            acked_bytes_per_s: 10e6,
            consumed_per_s: 19_800.0,
            acked: second * 20_000,
            unsent: 12,
            backlog: 200,
            response: Percentiles {
                count: 20_000,
                p50: 900.0,
                p99: 4_000.0 + 8_000.0 * wave,
                p999: 14_000.0,
                max: 20_000.0,
            },
            propagation: Percentiles {
                count: 20_000,
                p50: 1_100.0,
                p99: 6_000.0,
                p999: 15_000.0,
                max: 21_000.0,
            },
            send_lag: Percentiles { count: 20_000, p50: 2.0, p99: 31.0, p999: 60.0, max: 90.0 },
            ..Tick::default()
        }));
    }
    app.load = Some(feed);
    app
}

/// With a load generator that has just begun, and no server.
pub fn alone() -> App {
    let mut app = App::serverless(look(false));
    let mut feed = LoadFeed::default();
    feed.take(LoadEvent::Begins(Plan { what: "run".into(), ..Plan::default() }));
    app.load = Some(feed);
    app
}

/// With a search for the highest rate.
pub fn searching(seconds: u64, color: bool) -> App {
    let mut app = loaded(seconds, color);
    let feed = app.load.get_or_insert_with(LoadFeed::default);
    feed.plan.what = "search".to_owned();
    feed.plan.budget_s = Some(900.0);
    let left = |words: &str, left_s| LoadEvent::Stage(Stage { words: words.to_owned(), left_s });
    feed.take(left("between trials", Some(312.0)));
    feed.take(left("trial 5, refine: 650,000/s for 16 s", None));
    let curve = (0..30).map(|n| {
        let rate = 300e3 + 18e3 * f64::from(n);
        (rate, 0.0036 / (1.0 - rate / 1e6))
    });
    feed.take(LoadEvent::Response(Response { allowed: 0.01, curve: curve.collect() }));
    for (rate, over, p99_us, kept) in [
        (300e3, 0.0005, 2_100.0, Some(true)),
        (900e3, 0.31, 84_000.0, Some(false)),
        (600e3, 0.004, 7_900.0, Some(true)),
        (700e3, 0.009, 9_700.0, None),
    ] {
        feed.take(LoadEvent::Trial(Trial { rate, over, p99_us, kept }));
    }
    feed.take(LoadEvent::Estimate(Estimate {
        rate: 637e3,
        interval: (571e3, 702e3),
        before: Some((540e3, 730e3)),
        next: Some(650e3),
        planned: Some(48),
    }));
    app
}

/// With a stream open.
pub fn streams(seconds: u64, color: bool) -> App {
    let mut app = app(seconds, color);
    app.screen = Screen::Streams;
    app.browse.open("orders", 1, None);
    let record = |sequence: u64, payload: Payload| Record {
        sequence,
        at_ns: fixture::STARTED + sequence * 1_000_000_000,
        key: format!("user-{}", sequence % 7),
        headers: Vec::new(),
        length: 64,
        payload,
    };
    let records = vec![
        record(
            101,
            Payload::Json(serde_json::json!({"order": 7, "price": 12.5, "items": ["a", "b"]})),
        ),
        record(
            102,
            Payload::Text("2025-10-09T08:53:23Z ERROR payment of order 7 was declined".into()),
        ),
        record(103, Payload::Text("2025-10-09T08:53:24Z WARN retrying".into())),
        record(104, Payload::Bytes(vec![0, 159, 146, 150])),
    ];
    let answer = Records {
        stream: "orders".into(),
        shard: 1,
        oldest: 0,
        high_water: 105,
        until: None,
        records,
    };
    app.browse.take(Answer::Records(answer));
    app
}

/// Of a recording, in the middle of it, with a mark.
pub fn replayed(seconds: u64, color: bool) -> App {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let head = Head::new("127.0.0.1:7411", fixture::STARTED);
    let mut recorder = Recorder::new(&mut file, &head).unwrap();
    (1..=seconds).for_each(|second| recorder.store(&sample(second)).unwrap());
    let player = Player::replay(Tape::open(file.path()).unwrap());
    let mut app = utc(App::new("run-7.rec", look(color), player));
    let minute = Duration::from_secs(60);
    app.player.step(20, minute);
    app.player.mark();
    app.player.step(40, minute);
    app
}
