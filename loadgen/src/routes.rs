//! Where records go: a table from a record's key to its shard, made once before the run.

use std::sync::Arc;

use highwater_wire::StreamDescription;

use crate::LoadError;
use crate::target::Link;
use crate::workload::{Draw, Material};

/// The places of the shards of one stream.
#[derive(Clone, Debug)]
struct Route {
    /// Place of its first shard.
    first: u32,
    /// Index of the shard by key; empty: the stream has one shard, and nothing is hashed.
    by_key: Arc<[u16]>,
}

/// Where records go.
#[derive(Clone, Debug)]
pub struct Routes(Arc<[Route]>);

impl Routes {
    /// Asks `link` for the shard of every key of `material`, for each of `streams`.
    pub fn survey<L: Link>(
        link: &L,
        streams: &[StreamDescription],
        material: &Material,
    ) -> Result<Routes, LoadError> {
        let mut routes: Vec<Route> = Vec::with_capacity(streams.len());
        let mut first = 0;
        for (index, stream) in streams.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| (&streams[before], &routes[before]));
            let by_key = match before {
                _ if stream.shards.len() == 1 => Arc::default(),
                Some((other, route)) if same_ranges(other, stream) => Arc::clone(&route.by_key),
                _ => table(link, stream, material)?,
            };
            routes.push(Route { first, by_key });
            first += stream.shards.len() as u32;
        }
        Ok(Routes(routes.into()))
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.0.len()
    }

    /// The place of a record that goes to this stream.
    #[inline]
    pub fn place(&self, stream: usize, draw: &Draw) -> usize {
        let route = &self.0[stream];
        let shard = route.by_key.get(draw.key as usize).copied().unwrap_or(0);
        route.first as usize + usize::from(shard)
    }
}

fn same_ranges(a: &StreamDescription, b: &StreamDescription) -> bool {
    let ranges = |s: &StreamDescription| -> Vec<_> {
        s.shards.iter().map(|s| (s.hash_start, s.hash_end)).collect()
    };
    ranges(a) == ranges(b)
}

fn table<L: Link>(
    link: &L,
    stream: &StreamDescription,
    material: &Material,
) -> Result<Arc<[u16]>, LoadError> {
    let shards = stream.shards.len();
    (0..material.key_count())
        .map(|index| {
            let key = material.key(index);
            let shard = link.shard_of(stream, key).filter(|shard| *shard < shards);
            shard.and_then(|shard| u16::try_from(shard).ok()).ok_or_else(|| LoadError::NoShard {
                stream: stream.name.clone(),
                key: String::from_utf8_lossy(key).into_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use highwater_wire::{AckMode, Limits, StreamConfig, hash_key};

    use super::*;
    use crate::target::{
        LaneOptions, Null, NullLink, NullOutcomes, NullSink, NullSource, Refusal, Target,
    };
    use crate::workload::{Keys, Workload};

    /// Counts how often it is asked where a key belongs.
    struct Asked(NullLink, Cell<usize>);

    impl Link for Asked {
        type Sink = NullSink;
        type Outcomes = NullOutcomes;
        type Source = NullSource;

        fn server(&self) -> String {
            self.0.server()
        }

        fn limits(&self) -> Limits {
            self.0.limits()
        }

        async fn stream(
            &self,
            name: &str,
            config: &StreamConfig,
        ) -> Result<StreamDescription, Refusal> {
            self.0.stream(name, config).await
        }

        fn shard_of(&self, stream: &StreamDescription, key: &[u8]) -> Option<usize> {
            self.1.set(self.1.get() + 1);
            self.0.shard_of(stream, key)
        }

        async fn high_water(&self, stream: &StreamDescription, shard: u32) -> Result<u64, Refusal> {
            self.0.high_water(stream, shard).await
        }

        async fn sink(
            &self,
            stream: &StreamDescription,
            shard: u32,
            lane: LaneOptions,
        ) -> Result<(NullSink, NullOutcomes), Refusal> {
            self.0.sink(stream, shard, lane).await
        }

        async fn source(
            &self,
            stream: &StreamDescription,
            shard: u32,
            from: u64,
        ) -> Result<NullSource, Refusal> {
            self.0.source(stream, shard, from).await
        }
    }

    fn link() -> Asked {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Asked(runtime.block_on(Null::default().link()).unwrap(), Cell::new(0))
    }

    fn stream(shards: u32) -> StreamDescription {
        let (retention_ms, retention_bytes, ack) = (0, 0, AckMode::Durable);
        let config =
            StreamConfig { shards, retention_ms, retention_bytes, ack, ..StreamConfig::default() };
        StreamDescription::evenly("s", 1, config)
    }

    fn material() -> Material {
        let keys = Keys { count: 100, ..Keys::default() };
        Material::prepare(&Workload::Fixed { size: 100 }, &keys, 1).unwrap()
    }

    #[test]
    fn a_key_is_hashed_once_and_for_one_shard_never() {
        let (link, material) = (link(), material());
        let draw = |key| Draw { key, ..Draw::default() };
        let single = Routes::survey(&link, &[stream(1), stream(1)], &material).unwrap();
        assert_eq!((link.1.get(), single.place(0, &draw(5)), single.place(1, &draw(9))), (0, 0, 1));

        let streams = [stream(4), stream(4), stream(1), stream(3)];
        let routes = Routes::survey(&link, &streams, &material).unwrap();
        // Two streams with the same ranges share one table.
        assert_eq!(link.1.get(), 200);
        for key in 0..100 {
            let hash = hash_key(material.key(key));
            for (index, first) in [(0, 0), (1, 4), (2, 8), (3, 9)] {
                let shard = &streams[index].shards[routes.place(index, &draw(key)) - first];
                assert!((shard.hash_start..=shard.hash_end).contains(&hash));
            }
        }
        assert_eq!((link.1.get(), routes.streams()), (200, 4));
    }

    #[test]
    fn a_key_without_a_shard_is_named() {
        let mut holed = stream(2);
        holed.shards.pop();
        holed.shards.push(holed.shards[0].clone());
        let refused = Routes::survey(&link(), &[holed], &material()).unwrap_err();
        assert!(matches!(refused, LoadError::NoShard { .. }), "{refused}");
    }
}
