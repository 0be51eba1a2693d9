//! Every workload: records that hold what was drawn, prove themselves, and are the seed's.

use std::collections::HashMap;

use highwater_wire::{BatchView, Limits, ProducerStamp};

use super::*;
use crate::proof::{Verdict, verify};

const NAMES: [&str; 8] = [
    "fixed:100",
    "uniform:32..300",
    "lognormal:300,1",
    "apache-log",
    "iot:100",
    "clickstream:500",
    "video:5",
    "mixed",
];

fn material(name: &str, seed: u64) -> Arc<Material> {
    let keys = Keys { count: 50, ..Keys::default() };
    Arc::new(Material::prepare(&name.parse().unwrap(), &keys, seed).unwrap())
}

/// The first records of a producer: draw, key, payload.
fn records(material: &Arc<Material>, count: u64) -> Vec<(Draw, Vec<u8>, Vec<u8>)> {
    let mut source = material.source(1, 3, 7);
    let mut writer = material.writer(7);
    let mut batch = BatchBuilder::default();
    let mut made = Vec::new();
    for sequence in 0..count {
        let draw = source.next();
        let intended_ns = 1_795_391_478_000_000_000 + sequence * 999_999_937;
        let proof = Proof { producer: 1, run: 77, sequence, intended_ns };
        batch.clear();
        writer.push(&mut batch, &draw, &proof).unwrap();
        let bytes = batch.finish(ProducerStamp::default());
        let view = BatchView::parse(bytes).unwrap();
        view.check(&Limits::for_record(material.max_record() as u32)).unwrap();
        let record = view.records().next().unwrap();
        assert_eq!(verify(&record, 77), Verdict::Own(proof));
        assert_eq!(record.key, material.key(draw.key));
        assert_eq!(record.payload.len(), draw.len as usize, "the length that was drawn");
        assert!(record.payload.len() <= material.max_payload());
        assert_eq!(record.timestamp_ns, intended_ns);
        made.push((draw, record.key.to_vec(), record.payload.to_vec()));
    }
    made
}

#[test]
fn records_are_what_was_drawn_and_prove_themselves() {
    for name in NAMES {
        let material = material(name, 5);
        let made = records(&material, 3_000);
        assert!(made.iter().all(|(draw, ..)| draw.key < material.key_count()));
        let mean = made.iter().map(|(draw, ..)| f64::from(draw.len)).sum::<f64>() / 3_000.0;
        let ratio = mean / material.mean_payload();
        assert!((0.85..1.15).contains(&ratio), "{name}: {mean} of {}", material.mean_payload());
    }
}

#[test]
fn the_seed_decides_everything() {
    for name in NAMES {
        let of = |seed| records(&material(name, seed), 50);
        assert_eq!(of(5), of(5), "{name}");
        assert_ne!(of(5), of(6), "{name}");
    }
}

#[test]
fn text_is_valid_json_and_its_key_is_in_it() {
    for (name, field, required) in [
        ("iot:100", "deviceid", &["ts", "temp", "humidity", "battery"][..]),
        ("iot:1", "deviceid", &[]),
        ("clickstream:500", "user", &["session", "step", "ts", "action", "page", "referrer"]),
        ("clickstream:1", "user", &[]),
    ] {
        for (_, key, payload) in records(&material(name, 3), 5_000) {
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(json[field].as_str().map(str::as_bytes), Some(&key[..]));
            assert!(required.iter().all(|name| !json[name].is_null()), "{json}");
            assert!(json["ts"].as_str().unwrap().starts_with("2026-1"), "{json}");
            if name.starts_with("iot") {
                let figure = |name: &str| json[name].as_f64().unwrap();
                assert!((-20.0..62.0).contains(&figure("temp")), "{json}");
                assert!((0.0..=100.0).contains(&figure("humidity")), "{json}");
                assert!((20.0..=100.0).contains(&figure("battery")), "{json}");
            }
        }
    }
}

#[test]
fn generated_log_lines_carry_their_records_time() {
    let made = records(&material("apache-log", 3), 100);
    for (_, key, payload) in made {
        let line = String::from_utf8(payload).unwrap();
        assert!(line.as_bytes().starts_with(&key));
        assert!(
            line.contains(" - - [23/Nov/2026:") || line.contains(" - - [22/Nov/2026:"),
            "{line}"
        );
    }
}

#[test]
fn a_key_with_an_order_belongs_to_one_producer_and_keeps_it() {
    for name in ["iot:100", "clickstream:500", "video:12"] {
        let material = material(name, 5);
        let mut owner = HashMap::new();
        for producer in 0..4 {
            let mut source = material.source(producer, 4, 9);
            (0..5_000).for_each(|_| {
                assert_eq!(*owner.entry(source.next().key).or_insert(producer), producer);
            });
        }
    }
    // Fragments count up, camera by camera.
    let mut source = material("video:7", 5).source(1, 3, 9);
    let mut next = HashMap::new();
    for _ in 0..1_000 {
        let draw = source.next();
        let fragment = next.entry(draw.key).or_insert(0);
        assert_eq!((draw.shape, draw.key % 3), (*fragment, 1));
        *fragment += 1;
    }
}

#[test]
fn sessions_go_step_by_step_and_end() {
    let mut last: HashMap<Vec<u8>, (String, u64, String)> = HashMap::new();
    let mut sessions = 0;
    for (_, user, payload) in records(&material("clickstream:20", 5), 5_000) {
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        let (session, step, page) = (text("session"), json["step"].as_u64().unwrap(), text("page"));
        match last.get(&user) {
            Some((before, steps, from)) if *before == session => {
                assert_eq!((step, &text("referrer")), (steps + 1, from));
            }
            _ => {
                assert_eq!(step, 1);
                sessions += 1;
            }
        }
        last.insert(user, (session, step, page));
    }
    assert!((500..3_000).contains(&sessions), "{sessions}");
}

#[test]
fn video_has_large_key_frames_among_smaller_fragments() {
    let mut source = material("video:1", 5).source(0, 1, 9);
    let sizes: Vec<u32> = (0..12_000).map(|_| source.next().len).collect();
    assert!(sizes.iter().all(|size| (16 << 10..1 << 20).contains(size)));
    let mean = |phase: usize| {
        let group = sizes.iter().skip(phase).step_by(12);
        group.map(|size| f64::from(*size)).sum::<f64>() / 1_000.0
    };
    let mut means: Vec<f64> = (0..12).map(mean).collect();
    means.sort_by(f64::total_cmp);
    assert!(means[11] > 5.0 * means[10] && means[10] < 1.2 * means[0], "{means:?}");
}

#[test]
fn parts_of_a_mixture_come_by_their_weight() {
    let material = material("mixed:iot=3,video=1", 5);
    let mut source = material.source(0, 1, 9);
    let cameras = 16;
    let of_video = (0..40_000).filter(|_| {
        let draw = source.next();
        assert!(draw.key < material.key_count());
        draw.key >= material.key_count() - cameras
    });
    let count = of_video.count();
    assert!((9_700..10_300).contains(&count), "{count}");
}

#[test]
fn fleets_report_in_bursts_and_others_as_they_are_told() {
    assert!(matches!(material("iot:5", 1).default_profile(), Some(Profile::Burst(_))));
    assert_eq!(material("fixed:100", 1).default_profile(), None);
    assert!(Profile::Burst(Iot::profile()).prepare().is_ok());
}

#[test]
fn more_producers_than_keys_share_them() {
    for name in ["iot:3", "clickstream:3", "video:3"] {
        let material = material(name, 5);
        for producer in 0..10 {
            let mut source = material.source(producer, 10, 9);
            (0..50).for_each(|_| assert_eq!(source.next().key, producer % 3));
        }
    }
}
