//! Which member is to read which shard: what nobody reads goes to whoever has least to do, and shards change hands only
//! where that makes the load more even. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A shard that can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub shard: u32,
    /// Records that come in, a second.
    pub rate: f64,
    /// Who reads it, or will.
    pub owner: Option<u64>,
    /// It is changing hands: it is not moved again before that is done.
    pub moving: bool,
}

/// Rates alone are no guide: an idle shard costs its reader something too, and may not stay idle. So half of a shard's
/// weight is that it is one, half its part of the records. Loads that differ by less than this are even.
const EVEN: f64 = 0.5;

/// The shards whose owner is to be another than now, with that owner. Without `moves` only those that have none.
pub(super) fn assign(members: &[u64], places: &[Place], moves: bool) -> Vec<(u32, u64)> {
    if members.is_empty() {
        return Vec::new();
    }
    let all: f64 = places.iter().map(|place| place.rate.max(0.0)).sum();
    let weigh = |place: &Place| {
        let part = if all > 0.0 { place.rate.max(0.0) / all } else { 1.0 / places.len() as f64 };
        0.5 + 0.5 * part * places.len() as f64
    };
    // By member: what it has to do.
    let mut loads: Vec<f64> = vec![0.0; members.len()];
    let mut owned: Vec<Vec<(f64, u32)>> = vec![Vec::new(); members.len()];
    let mut free: Vec<(f64, u32)> = Vec::new();
    for place in places {
        let weight = weigh(place);
        match place.owner.and_then(|owner| members.iter().position(|m| *m == owner)) {
            Some(at) => {
                loads[at] += weight;
                if !place.moving {
                    owned[at].push((weight, place.shard));
                }
            }
            None => free.push((weight, place.shard)),
        }
    }
    let heavy_first = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    free.sort_by(heavy_first);
    let mut changes = BTreeMap::new();
    for (weight, shard) in free {
        let to = least(&loads);
        loads[to] += weight;
        // Where it comes to now may be moved below like any other, or the next call would move it.
        owned[to].push((weight, shard));
        changes.insert(shard, members[to]);
    }
    // Each move makes the difference of two members smaller by a fixed least amount, so there is an end to it.
    for _ in 0..if moves { 4 * places.len() } else { 0 } {
        let (from, to) = (most(&loads, &owned), least(&loads));
        let difference = loads[from] - loads[to];
        let after = |weight: f64| (difference - 2.0 * weight).abs();
        let best = owned[from]
            .iter()
            .copied()
            .min_by(|a, b| after(a.0).total_cmp(&after(b.0)).then(a.1.cmp(&b.1)));
        let Some((weight, shard)) = best.filter(|(weight, _)| after(*weight) + EVEN < difference)
        else {
            break;
        };
        owned[from].retain(|(_, owned)| *owned != shard);
        loads[from] -= weight;
        loads[to] += weight;
        owned[to].push((weight, shard));
        changes.insert(shard, members[to]);
    }
    changes.into_iter().collect()
}

fn least(loads: &[f64]) -> usize {
    let order = |a: &usize, b: &usize| loads[*a].total_cmp(&loads[*b]).then(a.cmp(b));
    (0..loads.len()).min_by(order).unwrap_or(0)
}

/// The one with most to do among those who have something that can be moved.
fn most(loads: &[f64], owned: &[Vec<(f64, u32)>]) -> usize {
    let order = |a: &usize, b: &usize| match (owned[*a].is_empty(), owned[*b].is_empty()) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => loads[*a].total_cmp(&loads[*b]).then(b.cmp(a)),
    };
    (0..loads.len()).max_by(order).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(shard: u32, rate: f64, owner: u64) -> Place {
        Place { shard, rate, owner: (owner > 0).then_some(owner), moving: false }
    }

    fn counts(members: &[u64], places: &[Place], changes: &[(u32, u64)]) -> Vec<usize> {
        let owner = |place: &Place| {
            changes.iter().find(|(s, _)| *s == place.shard).map(|(_, to)| *to).or(place.owner)
        };
        let of = |member: &u64| places.iter().filter(|p| owner(p) == Some(*member)).count();
        members.iter().map(of).collect()
    }

    #[test]
    fn shards_are_shared_out_with_few_moves() {
        // Owners of eight shards (0: nobody), members, how many each has then, how many of those owned moved.
        type Row = ([u64; 8], &'static [u64], &'static [usize], usize);
        let table: [Row; 6] = [
            ([0; 8], &[1], &[8], 0),
            ([0; 8], &[1, 2, 3], &[3, 3, 2], 0),
            ([1; 8], &[1, 2], &[4, 4], 4),
            ([1, 1, 1, 1, 2, 2, 2, 2], &[1, 2, 3], &[3, 3, 2], 2),
            ([1, 1, 1, 2, 2, 2, 3, 3], &[1, 2], &[4, 4], 0),
            ([1, 1, 2, 2, 3, 3, 4, 4], &[1, 2, 3, 4], &[2, 2, 2, 2], 0),
        ];
        for (owners, members, wanted, moved) in table {
            let places: Vec<Place> =
                owners.iter().zip(0..).map(|(owner, shard)| place(shard, 10.0, *owner)).collect();
            let changes = assign(members, &places, true);
            assert_eq!(counts(members, &places, &changes), wanted, "{owners:?} {members:?}");
            let were_owned = |shard: u32| {
                places[shard as usize].owner.is_some_and(|owner| members.contains(&owner))
            };
            let moves = changes.iter().filter(|(shard, _)| were_owned(*shard)).count();
            assert_eq!(moves, moved, "{owners:?} {members:?}");
        }
    }

    #[test]
    fn a_busy_shard_counts_for_more() {
        // Shard 0 has nearly all the load: its reader has little besides.
        let places: Vec<Place> =
            (0..8).map(|shard| place(shard, if shard == 0 { 7_000.0 } else { 1.0 }, 0)).collect();
        let changes = assign(&[1, 2], &places, true);
        assert_eq!(counts(&[1, 2], &places, &changes), [1, 7]);
        assert_eq!(assign(&[1, 2], &places, false), changes, "nothing has to be moved");
    }

    #[test]
    fn what_changes_hands_is_left_alone() {
        let mut places: Vec<Place> = (0..4).map(|shard| place(shard, 1.0, 1)).collect();
        places.iter_mut().for_each(|place| place.moving = true);
        assert_eq!(assign(&[1, 2], &places, true), []);
    }

    proptest! {
        #[test]
        fn everything_is_read_evenly_and_then_nothing_moves(
            owners in prop::collection::vec(0u64..6, 1..40), members in 1u64..6,
        ) {
            let members: Vec<u64> = (1..=members).collect();
            let mut places: Vec<Place> =
                owners.iter().zip(0..).map(|(owner, shard)| place(shard, 1.0, *owner)).collect();
            let changes = assign(&members, &places, true);
            let counts = counts(&members, &places, &changes);
            prop_assert_eq!(counts.iter().sum::<usize>(), places.len());
            let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            prop_assert!(most - least <= 1, "{:?}", counts);
            for (shard, to) in changes {
                places[shard as usize].owner = Some(to);
            }
            prop_assert_eq!(assign(&members, &places, true), vec![]);
        }

        #[test]
        fn no_rates_make_it_go_round(
            owned in prop::collection::vec((0u64..4, 0.0..1e9f64), 1..30), members in 1u64..4,
        ) {
            let members: Vec<u64> = (1..=members).collect();
            let places = owned.iter().zip(0..);
            let mut places: Vec<Place> =
                places.map(|((owner, rate), shard)| place(shard, *rate, *owner)).collect();
            for (shard, to) in assign(&members, &places, true) {
                places[shard as usize].owner = Some(to);
            }
            prop_assert!(places.iter().all(|place| place.owner.is_some()));
            prop_assert_eq!(assign(&members, &places, true), vec![]);
        }
    }
}
