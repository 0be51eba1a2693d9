//! What is done with records on their way in and out: log lines become JSON and JSON the same lines again
//! ([`lines`]), whole records lines of JSON and back ([`record_line`]), expressions say something about a record
//! ([`Expression`], [`Filter`]), and windows count what came within a span of time ([`window`]).
//!
//! Everything here is pure: no clock, no randomness, no file, no socket. What costs time or memory has a bound, given
//! beside it. Nothing that came from outside can make it panic.

pub mod expression;
pub mod lines;
pub mod record_line;
pub mod window;

pub use expression::{CompileError, EvalError, Expression, Filter, Record, Value, Wanted};
