//! Tumbling and sliding windows: spans of one step each, of which a window has several.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::aggregate::Sample;
use super::{Fate, Group, Groups, Room, Row};

/// Panes by number: the one from `every` * number on.
#[derive(Debug)]
pub(super) struct Panes {
    every: u64,
    /// Panes of a window.
    span: u64,
    panes: BTreeMap<u64, Groups>,
    /// Windows that end by the end of so many panes (from 1970 on) are closed.
    closed: u64,
}

impl Panes {
    pub fn new(size: u64, every: u64) -> Panes {
        Panes { every, span: size / every, panes: BTreeMap::new(), closed: 0 }
    }

    pub fn oldest_ns(&self) -> Option<u64> {
        self.panes.first_key_value().map(|(number, _)| number.saturating_mul(self.every))
    }

    pub fn observe(
        &mut self,
        at_ns: u64,
        key: &str,
        samples: &[Sample],
        room: &mut Room<'_>,
    ) -> Fate {
        let number = at_ns / self.every;
        // The last window that has this pane ends so many panes later.
        if number.saturating_add(self.span) <= self.closed {
            return Fate::Late;
        }
        if let Some(group) = self.panes.get_mut(&number).and_then(|groups| groups.get_mut(key)) {
            return if room.add(group, samples) { Fate::Counted } else { Fate::Dropped };
        }
        let Some(group) = room.group(key, samples) else { return Fate::Dropped };
        self.panes.entry(number).or_default().insert(key.into(), group);
        Fate::Counted
    }

    pub fn advance(&mut self, watermark_ns: u64, room: &mut Room<'_>, out: &mut Vec<Row>) {
        let whole = watermark_ns / self.every;
        // From window to window that has anything, however far apart they are.
        while let Some((&first, _)) = self.panes.first_key_value() {
            let end = first.max(self.closed).saturating_add(1);
            // At the very end there is no time for whole windows any more: all that have anything are closed.
            let last =
                if watermark_ns == u64::MAX { first.saturating_add(self.span) } else { whole };
            if end > last {
                break;
            }
            self.close(end, out);
            self.closed = end;
            while let Some(oldest) = self.panes.first_entry() {
                if oldest.key().saturating_add(self.span) > end {
                    break;
                }
                oldest.remove().iter().for_each(|(key, group)| room.gone(key, group));
            }
        }
        if watermark_ns < u64::MAX {
            self.closed = self.closed.max(whole);
        }
    }

    /// The rows of the window that ends with pane `end - 1`, by key.
    fn close(&self, end: u64, out: &mut Vec<Row>) {
        let start = end.saturating_sub(self.span);
        let mut merged: HashMap<&Rc<str>, Cow<'_, Group>> = HashMap::new();
        for groups in self.panes.range(start..end).map(|(_, groups)| groups) {
            for (key, group) in groups {
                match merged.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(Cow::Borrowed(group));
                    }
                    Entry::Occupied(mut entry) => entry.get_mut().to_mut().merge(group),
                }
            }
        }
        let span_ns = self.span * self.every;
        let mut rows: Vec<_> = merged.into_iter().collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        out.extend(rows.into_iter().map(|(key, group)| Row {
            start_ns: start.saturating_mul(self.every),
            end_ns: end.saturating_mul(self.every),
            key: Some(Rc::clone(key)),
            outcomes: group.outcomes(span_ns),
        }));
    }
}
