//! Several workloads side by side, one chosen at random for each record.

use std::sync::Arc;

use super::alias::Alias;
use super::keys::KeyTable;
use super::{Draw, Material, Source, Writer};

/// The parts, and how often each comes. The keys of a part follow those of the parts before it.
#[derive(Debug)]
pub(super) struct Mixed {
    choice: Arc<Alias>,
    /// Number of the part's first key, and the part.
    parts: Vec<(u32, Arc<Material>)>,
}

impl Mixed {
    pub fn new(choice: Alias, parts: Vec<Material>) -> Mixed {
        let mut first = 0;
        let place = |part: Material| {
            let begin = first;
            first += part.key_count();
            (begin, Arc::new(part))
        };
        Mixed { choice: Arc::new(choice), parts: parts.into_iter().map(place).collect() }
    }

    pub fn keys(&self) -> KeyTable {
        let mut table = KeyTable::default();
        for (_, part) in &self.parts {
            (0..part.key_count()).for_each(|index| table.push(part.key(index)));
        }
        table
    }

    pub fn source(&self, producer: u32, producers: u32, seed: u64) -> MixedSource {
        let sources = self.parts.iter().zip(1..).map(|((first, part), number)| {
            // Parts of the same kind must not draw the same.
            (*first, part.source(producer, producers, crate::schedule::mix(seed, number)))
        });
        MixedSource { choice: Arc::clone(&self.choice), sources: sources.collect() }
    }

    pub fn writers(&self, seed: u64) -> Vec<(u32, Writer)> {
        self.parts.iter().map(|(first, part)| (*first, part.writer(seed))).collect()
    }
}

/// One producer's.
#[derive(Debug)]
pub(super) struct MixedSource {
    choice: Arc<Alias>,
    sources: Vec<(u32, Source)>,
}

impl MixedSource {
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Draw {
        let (first, source) = &mut self.sources[self.choice.draw(random) as usize];
        let draw = source.next();
        Draw { key: draw.key + *first, ..draw }
    }
}
