//! Expressions over a record, in the Common Expression Language (CEL, <https://cel.dev>): what a filter asks, what a
//! window counts and by what.
//!
//! The crate `cel` reads the language; what it read is checked and turned into a tree of our own (`compile.rs`), which
//! is evaluated here (`eval.rs`). Its own interpreter is not used, for three reasons that matter where anybody may send
//! an expression and every record meets it: it has no bound on the work and memory of one evaluation, it compiles a
//! pattern anew for each record, and it wants the whole payload as owned values. Here every step, every byte copied and
//! every JSON value read counts against [`MAX_STEPS`], patterns are compiled once, names that do not exist are
//! found when the expression is given and not when the first record comes, and of a JSON payload only the fields that
//! the expression names are made into values, without a copy where that is possible.
//!
//! Where the language leaves something open or is impractical for records, `docs/consuming.md` says what happens here;
//! the tests next door have the table.

mod compile;
mod eval;
mod functions;
mod json;
mod number;
pub(crate) mod scan;
mod syntax;
mod value;

use std::cell::OnceCell;
use std::collections::BTreeSet;

use highwater_wire::RecordView;

pub use value::{Text, Value};

use compile::Tree;

/// Longest expression, in bytes.
pub const MAX_SOURCE: usize = 4096;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 48;
/// Most operations, names and constants in one expression.
pub const MAX_NODES: usize = 1024;
/// Steps that one evaluation may take: nodes evaluated, list elements passed, JSON values read, and one for each 64
/// bytes compared, searched or copied.
pub const MAX_STEPS: u64 = 100_000;
/// Largest payload that is read as JSON, in bytes.
pub const MAX_JSON: usize = 1 << 20;

/// Why an expression is not accepted. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Too long.
    #[error("expression of {bytes} bytes; the limit is {MAX_SOURCE}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nested too deeply.
    #[error("expression is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Too many operations.
    #[error("expression has more than {MAX_NODES} operations, names and constants")]
    TooLarge,
    /// Not in the language.
    #[error("column {column}: {message}")]
    Syntax {
        /// Where.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// No such name.
    #[error(
        "column {column}: there is no {name:?} here; there are key, headers, timestamp, arrival, size, seq, json \
         and payload"
    )]
    UnknownName {
        /// Where.
        column: usize,
        /// The name.
        name: String,
    },
    /// No such function.
    #[error("column {column}: there is no function {name:?}; docs/consuming.md lists them")]
    UnknownFunction {
        /// Where.
        column: usize,
        /// Its name.
        name: String,
    },
    /// The function takes another number of arguments.
    #[error("column {column}: {name}() takes {expected} arguments, not {found}")]
    Arguments {
        /// Where.
        column: usize,
        /// Its name.
        name: String,
        /// How many it takes, what it is called on included.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A pattern that is none, is too large, or is not known beforehand.
    #[error("column {column}: the pattern of matches() {message}")]
    Pattern {
        /// Where.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A part of the language that records have no use for.
    #[error("{what} cannot be used here")]
    Unsupported {
        /// Which.
        what: &'static str,
    },
    /// A filter that can be neither true nor false.
    #[error("a filter has to be true or false, and this is {what}")]
    NotTruth {
        /// What it is.
        what: &'static str,
    },
}

impl CompileError {
    /// Where, if it is about one place.
    pub fn column(&self) -> Option<usize> {
        match self {
            CompileError::Syntax { column, .. }
            | CompileError::UnknownName { column, .. }
            | CompileError::UnknownFunction { column, .. }
            | CompileError::Arguments { column, .. }
            | CompileError::Pattern { column, .. } => Some(*column),
            CompileError::TooLong { .. }
            | CompileError::TooDeep
            | CompileError::TooLarge
            | CompileError::Unsupported { .. }
            | CompileError::NotTruth { .. } => None,
        }
    }
}

macro_rules! eval_errors {
    ($( $(#[doc = $doc:literal])* $name:ident = $words:literal; )*) => {
        /// Why an expression has no value for a record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        pub enum EvalError { $( $(#[doc = $doc])* #[error($words)] $name, )* }

        impl EvalError {
            /// All of them.
            pub const ALL: &[EvalError] = &[ $( EvalError::$name, )* ];

            /// Its place among them, and in [`highwater_wire::UNANSWERED`].
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
}

eval_errors! {
    /// A field that is not there.
    MissingField = "missing field";
    /// A value of a type that the operation does not take.
    WrongType = "wrong type";
    /// An integer divided by zero, or the remainder of that.
    DivisionByZero = "division by zero";
    /// A result outside of its type's range.
    Overflow = "overflow";
    /// An index outside of its list.
    OutOfRange = "index out of range";
    /// A text that is no number, time or duration.
    NotConvertible = "not convertible";
    /// `json` of a payload that is not JSON, or `payload` of one that is not text.
    NotJson = "payload not JSON or text";
    /// `json` of a payload that is too large to be read.
    TooLarge = "payload too large";
    /// More steps than one evaluation may take.
    TooExpensive = "too expensive";
}

/// An expression, compiled. It may be used from any thread.
#[derive(Debug)]
pub struct Expression {
    source: String,
    tree: Tree,
    wanted: Wanted,
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn compile(source: &str) -> Result<Expression, CompileError> {
        let tree = compile::compile(source)?;
        let mut wanted = Wanted::default();
        tree.root.wants(&mut wanted);
        Ok(Expression { source: source.to_owned(), tree, wanted })
    }

    /// As it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it reads of a JSON payload.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Memory that it takes at most while so many `threads` use it, in bytes: the tree, its patterns, and what each thread
    /// keeps of those.
    pub fn memory(&self, threads: usize) -> usize {
        self.tree.memory(threads)
    }

    /// Its value for a record, which has to have been made for it (see [`Record::new`]).
    ///
    /// # Errors
    /// See [`EvalError`]. None of them says anything about other records.
    pub fn value<'a>(&'a self, record: &Record<'a>) -> Result<Value<'a>, EvalError> {
        eval::evaluate(&self.tree.root, record)
    }
}

/// An expression that is true or false.
#[derive(Debug)]
pub struct Filter(Expression);

impl Filter {
    /// Compiles `source`; refuses what can be seen to be neither true nor false.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn compile(source: &str) -> Result<Filter, CompileError> {
        let expression = Expression::compile(source)?;
        match expression.tree.root.other_than_truth() {
            Some(what) => Err(CompileError::NotTruth { what }),
            None => Ok(Filter(expression)),
        }
    }

    /// The expression.
    pub fn expression(&self) -> &Expression {
        &self.0
    }

    /// Whether `record` matches.
    ///
    /// # Errors
    /// Where neither can be said, [`EvalError::WrongType`] for a value that is no truth value included. Such a record
    /// does not match; callers count it.
    pub fn matches<'a>(&'a self, record: &Record<'a>) -> Result<bool, EvalError> {
        match self.0.value(record)? {
            Value::Bool(matches) => Ok(matches),
            _ => Err(EvalError::WrongType),
        }
    }
}

/// Which fields of a JSON payload have to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The document as such: all of it.
    all: bool,
    /// Fields of the object at the top.
    fields: BTreeSet<String>,
}

impl Wanted {
    /// What all of `expressions` want.
    pub fn of<'a>(expressions: impl IntoIterator<Item = &'a Expression>) -> Wanted {
        let mut wanted = Wanted::default();
        for expression in expressions {
            wanted.all |= expression.wanted.all;
            wanted.fields.extend(expression.wanted.fields.iter().cloned());
        }
        wanted
    }
}

/// A record as expressions see it. Its payload is read as JSON when the first asks for that, once for all of them.
#[derive(Debug)]
pub struct Record<'a> {
    view: RecordView<'a>,
    arrival_ns: u64,
    wanted: &'a Wanted,
    json: OnceCell<Result<Value<'a>, EvalError>>,
}

impl<'a> Record<'a> {
    /// A record that reached the server at `arrival_ns`, nanoseconds since 1970 UTC, for expressions that want no more
    /// than `wanted`.
    pub fn new(view: RecordView<'a>, arrival_ns: u64, wanted: &'a Wanted) -> Record<'a> {
        Record { view, arrival_ns, wanted, json: OnceCell::new() }
    }
}

#[cfg(test)]
mod tests;
