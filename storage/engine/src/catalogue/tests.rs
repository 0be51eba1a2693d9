//! The catalogue: what is kept is there after reopening, and what was written by earlier releases is read.

use highwater_wire::AckMode;

use super::*;

#[test]
fn what_is_kept_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let config = StreamConfig {
        shards: 2,
        retention_bytes: 5,
        ack: AckMode::Written,
        ..StreamConfig::default()
    };
    let mut c = Catalogue::open(&path).unwrap();
    assert_eq!(c.epoch(), 1);
    let a = c.add_stream("a", config.clone(), 7).unwrap();
    c.commit(&[("g".into(), a.id, 0, 42), ("g".into(), a.id, 1, 43)], &[]).unwrap();
    assert_eq!((c.new_producer().unwrap(), c.new_producer().unwrap()), (1, 2));
    drop(c);
    let mut c = Catalogue::open(&path).unwrap();
    assert_eq!(c.epoch(), 2);
    assert_eq!(c.streams().unwrap()["a"], a);
    assert_eq!(c.positions().unwrap().len(), 2);
    assert!(c.new_producer().unwrap() > 2);
    c.remove_stream("a", a.id).unwrap();
    assert!(c.positions().unwrap().is_empty());
    let b = c.add_stream("a", config, 8).unwrap();
    assert!(b.id > a.id, "numbers are not reused");
}
#[test]
fn a_stream_kept_without_shards_has_those_it_was_created_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let catalogue = Catalogue::open(&path).unwrap();
    // As the first release wrote it.
    let old = br#"{"id":3,"created_ns":7,"config":{"shards":4,"retention_ms":0,
        "retention_bytes":0,"ack":"durable"}}"#;
    let tx = begin(&catalogue.db).unwrap();
    tx.open_table(STREAMS).unwrap().insert("old", old.as_slice()).unwrap();
    tx.commit().unwrap();
    let record = catalogue.streams().unwrap().remove("old").unwrap();
    assert_eq!((record.shards.len(), record.next_shard), (4, 4));
    assert_eq!(record.shards[3].hash_end, u128::MAX);
    let homes: Vec<u32> = record.shards.iter().map(|s| s.home).collect();
    assert_eq!(homes, [3, 4, 5, 6], "where that release placed them, modulo the cores");
}

#[test]
fn a_split_is_kept_and_takes_the_positions_of_shards_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let mut c = Catalogue::open(&path).unwrap();
    let config = StreamConfig { shards: 1, ..StreamConfig::default() };
    let mut record = c.add_stream("a", config, 7).unwrap();
    c.commit(&[("g".into(), record.id, 0, 42)], &[]).unwrap();
    let plan = record.layout().split(0, &[u128::MAX / 3]).unwrap();
    (record.shards, record.next_shard) = plan.apply(record.layout(), 8);
    c.update_stream("a", &record).unwrap();
    drop(c);
    let mut c = Catalogue::open(&path).unwrap();
    assert_eq!(c.streams().unwrap()["a"], record, "hash keys of 128 bits come back whole");
    assert_eq!(c.positions().unwrap().len(), 1);
    record.shards.retain(|s| s.shard != 0);
    c.update_stream("a", &record).unwrap();
    assert_eq!(c.positions().unwrap(), []);
}

#[test]
fn a_name_has_one_id_and_growing_epochs_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let mut c = Catalogue::open(&path).unwrap();
    let first = c.open_producer("p").unwrap();
    let other = c.open_producer("q").unwrap();
    assert_ne!(first.id, other.id);
    drop(c);
    let mut c = Catalogue::open(&path).unwrap();
    let again = c.open_producer("p").unwrap();
    assert_eq!((again.id, again.epoch), (first.id, first.epoch + 1));
    assert_eq!(c.named_producers().unwrap(), [again, other]);
    assert!(c.new_producer().unwrap() > other.id);
}

#[test]
fn client_quotas_are_kept_until_lifted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let mut c = Catalogue::open(&path).unwrap();
    let quota = Quota { records_in: 5, ..Quota::default() };
    c.set_client_quota("loader", quota).unwrap();
    drop(c);
    let mut c = Catalogue::open(&path).unwrap();
    assert_eq!(c.client_quotas().unwrap(), [ClientQuota { client: "loader".into(), quota }]);
    c.set_client_quota("loader", Quota::default()).unwrap();
    assert_eq!(c.client_quotas().unwrap(), []);
}

#[test]
fn what_groups_have_settled_is_kept_until_they_or_their_shards_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.redb");
    let mut c = Catalogue::open(&path).unwrap();
    let config = StreamConfig { shards: 2, ..StreamConfig::default() };
    let mut record = c.add_stream("a", config, 7).unwrap();
    let delivery = DeliveryConfig { attempts: 7, ..DeliveryConfig::default() };
    c.set_delivery("g", record.id, Some(&delivery)).unwrap();
    c.set_delivery("h", record.id, Some(&delivery)).unwrap();
    let kept = |group: &str, shard| {
        let kept = Kept { position: 5, settled: vec![(7, 9)], ..Kept::default() };
        (group.to_owned(), record.id, shard, kept)
    };
    let all = [kept("g", 0), kept("g", 1), kept("h", 0)];
    c.commit(&[("g".into(), record.id, 0, 5)], &all).unwrap();
    drop(c);
    let mut c = Catalogue::open(&path).unwrap();
    let found = c.deliveries().unwrap();
    assert_eq!(found.configs[0], ("g".to_owned(), record.id, delivery));
    assert_eq!((found.configs.len(), found.shards), (2, all.to_vec()));
    record.shards.retain(|s| s.shard != 1);
    c.update_stream("a", &record).unwrap();
    assert_eq!(c.deliveries().unwrap().shards.len(), 2);
    c.set_delivery("h", record.id, None).unwrap();
    let found = c.deliveries().unwrap();
    assert_eq!((found.configs.len(), found.shards), (1, all[..1].to_vec()));
    c.remove_group("g", record.id).unwrap();
    let found = c.deliveries().unwrap();
    assert_eq!((found.configs.len(), found.shards.len()), (0, 0));
    assert!(c.positions().unwrap().is_empty());
}
