//! Names of streams, consumer groups and producers.

use std::fmt;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty; use 1 to 128 of a-z A-Z 0-9 . _ -")]
    Empty,
    /// Too long.
    #[error("the name is {0} characters long; the limit is 128")]
    TooLong(usize),
    /// A character outside the set.
    #[error("the name contains {0:?}; use a-z A-Z 0-9 . _ -")]
    Character(char),
    /// `.` and `..` would be directories.
    #[error("the name {0:?} is reserved")]
    Reserved(String),
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let chars = name.chars().count();
    if chars > 128 {
        return Err(NameError::TooLong(chars));
    }
    if let Some(odd) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        return Err(NameError::Character(odd));
    }
    if name == "." || name == ".." {
        return Err(NameError::Reserved(name.to_owned()));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `name`.
            pub fn new(name: &str) -> Result<$name, NameError> {
                check(name).map(|()| $name(name.to_owned()))
            }
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<$name, NameError> {
                $name::new(name)
            }
        }
    };
}

name_type!(
    /// A stream's name: 1 to 128 of `a-z A-Z 0-9 . _ -`, as in Kinesis.
    StreamName
);
name_type!(
    /// A consumer group's name; the same rules.
    GroupName
);
name_type!(
    /// A named producer's name; the same rules.
    ProducerName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_for_length_and_characters() {
        assert!(StreamName::new("clicks.v2_eu-west").is_ok());
        assert_eq!(StreamName::new(""), Err(NameError::Empty));
        assert_eq!(StreamName::new(&"x".repeat(129)), Err(NameError::TooLong(129)));
        assert_eq!(StreamName::new("a/b"), Err(NameError::Character('/')));
        assert_eq!(StreamName::new("naïve"), Err(NameError::Character('ï')));
        assert_eq!(StreamName::new(".."), Err(NameError::Reserved("..".into())));
    }
}
