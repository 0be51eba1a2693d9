//! Session windows: of one key, until nothing came for a while.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::aggregate::Sample;
use super::{Fate, Group, Room, Row};

/// Sessions by key.
#[derive(Debug)]
pub(super) struct Sessions {
    gap: u64,
    /// Of each key those under way, by start; no two are within a gap of each other.
    keys: HashMap<Rc<str>, Vec<Session>>,
    /// When a session ends if nothing more comes, and whose it is. There may be more entries than sessions.
    ends: BTreeSet<(u64, Rc<str>)>,
    /// Nothing older is expected.
    watermark: u64,
}

#[derive(Debug)]
struct Session {
    start: u64,
    last: u64,
    group: Group,
}

impl Sessions {
    pub fn new(gap: u64) -> Sessions {
        Sessions { gap, keys: HashMap::new(), ends: BTreeSet::new(), watermark: 0 }
    }

    pub fn oldest_ns(&self) -> Option<u64> {
        // Of each key they are in order.
        self.keys.values().filter_map(|sessions| sessions.first()).map(|first| first.start).min()
    }

    pub fn observe(
        &mut self,
        at_ns: u64,
        key: &str,
        samples: &[Sample],
        room: &mut Room<'_>,
    ) -> Fate {
        let end = at_ns.saturating_add(self.gap);
        let found = self.keys.get_key_value(key).map(|(key, _)| Rc::clone(key));
        let near = |session: &Session| {
            at_ns.saturating_add(self.gap) >= session.start
                && at_ns <= session.last.saturating_add(self.gap)
        };
        let mut sessions = found.as_ref().and_then(|key| self.keys.get_mut(key));
        let first = sessions.as_ref().and_then(|all| all.iter().position(near));
        let (Some(sessions), Some(first)) = (sessions.as_mut(), first) else {
            // It would be one of its own.
            if end <= self.watermark {
                return Fate::Late;
            }
            let Some(group) = room.group(key, samples) else { return Fate::Dropped };
            let key: Rc<str> = found.unwrap_or_else(|| key.into());
            let all = self.keys.entry(Rc::clone(&key)).or_default();
            let place = all.partition_point(|session| session.start < at_ns);
            all.insert(place, Session { start: at_ns, last: at_ns, group });
            self.ends.insert((end, key));
            return Fate::Counted;
        };
        let session = &mut sessions[first];
        if !room.add(&mut session.group, samples) {
            return Fate::Dropped;
        }
        session.start = session.start.min(at_ns);
        let before = session.last;
        session.last = session.last.max(at_ns);
        // It may have closed the gap to the next.
        if sessions.get(first + 1).is_some_and(|next| next.start <= end) {
            let next = sessions.remove(first + 1);
            room.gone(key, &next.group);
            let session = &mut sessions[first];
            session.last = session.last.max(next.last);
            let bytes = session.group.bytes();
            session.group.merge(&next.group);
            *room.bytes = (*room.bytes + session.group.bytes()).saturating_sub(bytes);
        }
        let last = sessions[first].last;
        if last != before
            && let Some(key) = found
        {
            self.ends.remove(&(before.saturating_add(self.gap), Rc::clone(&key)));
            self.ends.insert((last.saturating_add(self.gap), key));
        }
        Fate::Counted
    }

    pub fn advance(&mut self, watermark_ns: u64, room: &mut Room<'_>, out: &mut Vec<Row>) {
        self.watermark = self.watermark.max(watermark_ns);
        while let Some((end, _)) = self.ends.first() {
            if *end > watermark_ns {
                break;
            }
            let Some((end, key)) = self.ends.pop_first() else { break };
            let Some(sessions) = self.keys.get_mut(&key) else { continue };
            let over = sessions.iter().position(|s| s.last.saturating_add(self.gap) <= end);
            if let Some(over) = over {
                let session = sessions.remove(over);
                room.gone(&key, &session.group);
                out.push(Row {
                    start_ns: session.start,
                    end_ns: session.last,
                    outcomes: session.group.outcomes(session.last - session.start),
                    key: Some(Rc::clone(&key)),
                });
            }
            if sessions.is_empty() {
                self.keys.remove(&key);
            }
        }
    }
}
