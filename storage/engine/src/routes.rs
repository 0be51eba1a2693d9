//! Which core owns which shard. Nearly all lie where a rule puts them; those that a split or merge placed
//! otherwise are listed.

use std::collections::HashMap;

use highwater_wire::ShardId;

use crate::layout::first_home;

/// The way from a shard to its core.
#[derive(Clone, Debug)]
pub struct Routes {
    cores: usize,
    /// Homes that are not the rule's.
    placed: HashMap<ShardId, u32>,
}

impl Routes {
    /// By the rule alone, for `cores`.
    pub fn new(cores: usize) -> Routes {
        Routes { cores: cores.max(1), placed: HashMap::new() }
    }

    /// Notes where a shard lies.
    pub fn place(&mut self, shard: ShardId, home: u32) {
        if home == first_home(shard) {
            self.placed.remove(&shard);
        } else {
            self.placed.insert(shard, home);
        }
    }

    /// A shard is no more.
    pub fn forget(&mut self, shard: ShardId) {
        self.placed.remove(&shard);
    }

    /// The core that owns a shard. (For one that does not exist: some core, which will say so.)
    pub fn core_of(&self, shard: ShardId) -> usize {
        let placed = if self.placed.is_empty() { None } else { self.placed.get(&shard) };
        placed.copied().unwrap_or_else(|| first_home(shard)) as usize % self.cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_and_what_differs_from_it() {
        let shard = |shard| ShardId { stream: 5, shard };
        let mut routes = Routes::new(4);
        assert_eq!((routes.core_of(shard(0)), routes.core_of(shard(3))), (1, 0));
        routes.place(shard(3), 2);
        routes.place(shard(0), 5);
        assert_eq!((routes.core_of(shard(0)), routes.core_of(shard(3))), (1, 2));
        assert_eq!(routes.placed.len(), 1, "what the rule says is not listed");
        routes.forget(shard(3));
        assert_eq!(routes.core_of(shard(3)), 0);
    }
}
