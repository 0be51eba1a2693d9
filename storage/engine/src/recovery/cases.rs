//! Torn tail or damage? The decision at the first place of a log that does not hold the next block, as a
//! table of named cases. It changes nothing and reads nothing: evidence in, case out.

/// What the place where block *k* should begin looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No block of this use of the file: zeros, the file's end, or bytes of an earlier use.
    Stale,
    /// A block header of this generation with a wrong checksum, number or chain.
    BadHeader,
    /// The header of block *k* is sound, its body is not.
    BadBody,
}

/// Everything the decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What is there.
    pub place: Place,
    /// Whether something says that block *k* was durable: a later valid block or segment header with
    /// `committed` ≥ *k*, or the checkpoint.
    pub claimed: bool,
    /// Whether valid blocks of this log, or a segment that follows it, lie behind the place.
    pub followed: bool,
}

/// The cases. Every combination of evidence is exactly one of them (see the test).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Nothing was being written: the log ends here.
    CleanEnd,
    /// *k* never arrived, later groups that were in flight with it did. None of them can have been
    /// acknowledged (the mark moves in order), so all go.
    LostInFlight,
    /// *k* arrived in part, as did later groups in flight with it. All go.
    TornInFlight,
    /// *k* is the last thing written and arrived in part. Nothing says that it was durable; nothing proves
    /// that it was not, if the machine died within the checkpoint's delay. It goes, and is reported.
    TornLast,
    /// *k* was durable and its place holds nothing of it: a write was lost or went elsewhere.
    LostWrite,
    /// *k* was durable and its header is damaged.
    DamagedHeader,
    /// *k* was durable and its body is damaged.
    DamagedBody,
}

impl Case {
    /// The table.
    pub fn of(evidence: Evidence) -> Case {
        let Evidence { place, claimed, followed } = evidence;
        match (place, claimed, followed) {
            //  place              claimed  followed
            (Place::Stale, false, false) => Case::CleanEnd,
            (Place::Stale, false, true) => Case::LostInFlight,
            (Place::BadHeader, false, true) => Case::TornInFlight,
            (Place::BadBody, false, true) => Case::TornInFlight,
            (Place::BadHeader, false, false) => Case::TornLast,
            (Place::BadBody, false, false) => Case::TornLast,
            (Place::Stale, true, _) => Case::LostWrite,
            (Place::BadHeader, true, _) => Case::DamagedHeader,
            (Place::BadBody, true, _) => Case::DamagedBody,
        }
    }

    /// Whether durable data is damaged: the shard stops. Otherwise the log is cut here.
    pub fn is_damage(self) -> bool {
        matches!(self, Case::LostWrite | Case::DamagedHeader | Case::DamagedBody)
    }

    /// Whether an operator should hear of it although nothing acknowledged is known to be lost.
    pub fn is_ambiguous(self) -> bool {
        self == Case::TornLast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_one_case_and_no_claim_is_ever_cut() {
        for place in [Place::Stale, Place::BadHeader, Place::BadBody] {
            for claimed in [false, true] {
                for followed in [false, true] {
                    let case = Case::of(Evidence { place, claimed, followed });
                    assert_eq!(case.is_damage(), claimed, "{place:?} {claimed} {followed}");
                    assert_eq!(
                        case == Case::CleanEnd,
                        place == Place::Stale && !claimed && !followed
                    );
                    assert_eq!(case.is_ambiguous(), place != Place::Stale && !claimed && !followed);
                }
            }
        }
    }
}
