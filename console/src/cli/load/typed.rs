//! Which of some flags were typed: those that a command would ignore are refused, where the same from the environment or
//! from the configuration file is for whoever has a use for it.

use std::ops::Deref;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// Flags, and the names of those that were typed.
#[derive(Debug)]
pub struct Typed<T> {
    flags: T,
    names: Vec<String>,
}

impl<T> Typed<T> {
    /// As they are typed (`--rate`), in the order of the help.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl<T> Deref for Typed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.flags
    }
}

impl<T: Args> Typed<T> {
    /// What of `T` was typed.
    fn typed(matches: &ArgMatches) -> Vec<String> {
        let flags = T::augment_args(Command::new("flags"));
        let typed = flags.get_arguments().filter(|flag| {
            matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
        });
        typed.filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect()
    }
}

impl<T: Args> FromArgMatches for Typed<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Typed<T>, Error> {
        Typed::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Typed<T>, Error> {
        // First: whatever is taken out of the matches is no longer known to be there.
        let names = Typed::<T>::typed(matches);
        Ok(Typed { flags: T::from_arg_matches_mut(matches)?, names })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.names.extend(Typed::<T>::typed(matches));
        self.flags.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Typed<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}
