//! Filters that a core has compiled, by their text: those in use, and some that may be used again. Bounded in number and
//! bytes.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_wire::{ErrorCode, WireError};

use super::{Program, Waiter};
use crate::options::bounds::{FILTERS, RETRY_MS};

/// What is known of a filter.
#[derive(Debug)]
pub(crate) enum Known {
    /// It is compiled.
    Ready(Arc<Program>),
    /// It is to be compiled: for whoever asks now, and whoever waits for it by then.
    Compile(Arc<str>),
    /// It is being compiled.
    Waits,
}

#[derive(Debug)]
enum Entry {
    Ready { program: Arc<Program>, used: u64 },
    Compiling(Vec<Waiter>),
}

/// The filters of a core.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Bytes they may take.
    most: usize,
    bytes: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// Counts what is asked.
    now: u64,
}

impl Programs {
    /// None yet, of `most` bytes.
    pub fn new(most: usize) -> Programs {
        Programs { most, bytes: 0, entries: HashMap::new(), now: 0 }
    }

    /// Asks for the filter of this text.
    ///
    /// # Errors
    /// Too many are in use.
    pub fn ask(&mut self, source: &str) -> Result<Known, WireError> {
        self.now += 1;
        match self.entries.get_mut(source) {
            Some(Entry::Ready { program, used }) => {
                *used = self.now;
                return Ok(Known::Ready(Arc::clone(program)));
            }
            Some(Entry::Compiling(_)) => return Ok(Known::Waits),
            None => {}
        }
        if self.entries.len() >= FILTERS && !self.forget_one() {
            let message = format!("{FILTERS} different filters are in use on this core");
            return Err(WireError::new(ErrorCode::OutOfMemory, message).retry_after(RETRY_MS));
        }
        let source: Arc<str> = source.into();
        self.entries.insert(Arc::clone(&source), Entry::Compiling(Vec::new()));
        Ok(Known::Compile(source))
    }

    /// Somebody waits for a filter that is being compiled.
    pub fn wait(&mut self, source: &str, waiter: Waiter) {
        if let Some(Entry::Compiling(waiters)) = self.entries.get_mut(source) {
            waiters.push(waiter);
        }
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        let waiters = self.entries.values().map(|entry| match entry {
            Entry::Compiling(waiters) => waiters.len(),
            Entry::Ready { .. } => 0,
        });
        waiters.sum()
    }

    /// A filter was compiled: who waits for it, and what they get.
    pub fn compiled(
        &mut self,
        source: &Arc<str>,
        result: Result<Arc<Program>, String>,
    ) -> (Vec<Waiter>, Result<Arc<Program>, WireError>) {
        let waiters = match self.entries.remove(source) {
            Some(Entry::Compiling(waiters)) => waiters,
            _ => Vec::new(),
        };
        let result = result
            .map_err(|message| WireError::new(ErrorCode::InvalidFilter, message))
            .and_then(|program| self.keep(source, program));
        (waiters, result)
    }

    fn keep(
        &mut self,
        source: &Arc<str>,
        program: Arc<Program>,
    ) -> Result<Arc<Program>, WireError> {
        while self.bytes + program.memory > self.most {
            if !self.forget_one() {
                let (bytes, used, most) = (program.memory, self.bytes, self.most);
                let message = format!(
                    "this filter may take {bytes} bytes and those in use on this core {used}; the limit is {most}"
                );
                return Err(WireError::new(ErrorCode::OutOfMemory, message).retry_after(RETRY_MS));
            }
        }
        self.bytes += program.memory;
        let entry = Entry::Ready { program: Arc::clone(&program), used: self.now };
        self.entries.insert(Arc::clone(source), entry);
        Ok(program)
    }

    /// Forgets what was not used for longest of those that nobody uses.
    fn forget_one(&mut self) -> bool {
        let idle = |(source, entry): (&Arc<str>, &Entry)| match entry {
            Entry::Ready { program, used } if Arc::strong_count(program) == 1 => {
                Some((*used, Arc::clone(source)))
            }
            _ => None,
        };
        let Some((_, source)) = self.entries.iter().filter_map(idle).min() else { return false };
        if let Some(Entry::Ready { program, .. }) = self.entries.remove(&source) {
            self.bytes -= program.memory;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Wanted;
    use crate::request::Fetch;
    use highwater_wire::ShardId;

    fn waiter(correlation: u64) -> Waiter {
        let fetch =
            Fetch { from: 0, max_bytes: 1, min_bytes: 0, wait_ms: 0, lease: 0, filtered: true };
        let wanted = Wanted::Fetch { shard: ShardId { stream: 1, shard: 0 }, fetch };
        Waiter { connection: 1, correlation, wanted }
    }

    fn compiled(source: &str) -> Result<Arc<Program>, String> {
        Program::compile(source, 1).map(Arc::new)
    }

    #[test]
    fn a_filter_is_compiled_once_for_all_who_want_it() {
        let mut programs = Programs::new(1 << 20);
        let Ok(Known::Compile(source)) = programs.ask("size > 1") else { panic!() };
        programs.wait(&source, waiter(7));
        assert!(matches!(programs.ask("size > 1"), Ok(Known::Waits)));
        programs.wait("size > 1", waiter(8));
        assert_eq!(programs.waiting(), 2);
        let (waiters, result) = programs.compiled(&source, compiled(&source));
        assert_eq!(waiters.iter().map(|w| w.correlation).collect::<Vec<_>>(), [7, 8]);
        let Ok(Known::Ready(again)) = programs.ask("size > 1") else { panic!() };
        assert!(Arc::ptr_eq(&again, &result.unwrap()));
        // One that is none is asked for again.
        let Ok(Known::Compile(wrong)) = programs.ask("size >") else { panic!() };
        let (_, result) = programs.compiled(&wrong, compiled(&wrong));
        assert_eq!(result.unwrap_err().code, ErrorCode::InvalidFilter);
        assert!(matches!(programs.ask("size >"), Ok(Known::Compile(_))));
    }

    #[test]
    fn what_nobody_uses_makes_room_and_what_is_in_use_does_not() {
        let one = compiled("size > 10").unwrap().memory;
        let mut programs = Programs::new(2 * one);
        let make = |programs: &mut Programs, n: u32| {
            let Ok(Known::Compile(source)) = programs.ask(&format!("size > {n}")) else { panic!() };
            programs.compiled(&source, compiled(&source)).1
        };
        let first = make(&mut programs, 10).unwrap();
        make(&mut programs, 11).unwrap();
        make(&mut programs, 12).unwrap();
        assert!(matches!(programs.ask("size > 11"), Ok(Known::Compile(_))), "forgotten");
        assert!(matches!(programs.ask("size > 10"), Ok(Known::Ready(_))), "in use");
        let second = make(&mut programs, 13).unwrap();
        let refused = make(&mut programs, 14).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::OutOfMemory, RETRY_MS));
        drop((first, second));
        make(&mut programs, 14).unwrap();
        assert!(programs.bytes <= programs.most);
    }

    #[test]
    fn different_filters_are_bounded() {
        let mut programs = Programs::new(usize::MAX);
        for n in 0..FILTERS {
            assert!(matches!(programs.ask(&format!("size > {n}")), Ok(Known::Compile(_))));
        }
        assert_eq!(programs.ask("size > -1").unwrap_err().code, ErrorCode::OutOfMemory);
    }
}
