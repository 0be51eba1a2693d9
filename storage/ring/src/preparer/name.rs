//! Names of the files in the pool: `<capacity>-<number>.<state>`, both hexadecimal.

/// What a file of the pool is, as its name ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Written, to be used.
    Ready,
    /// Being filled with zeroes.
    Part,
    /// Being removed.
    Gone,
}

impl State {
    pub(super) fn ending(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Part => "part",
            State::Gone => "gone",
        }
    }
}

/// Capacity, number and state from the name of a pool file.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64, State)> {
    let (stem, ending) = name.split_once('.')?;
    let (capacity, number) = stem.split_once('-')?;
    let state =
        [State::Ready, State::Part, State::Gone].into_iter().find(|s| s.ending() == ending)?;
    Some((u64::from_str_radix(capacity, 16).ok()?, u64::from_str_radix(number, 16).ok()?, state))
}
