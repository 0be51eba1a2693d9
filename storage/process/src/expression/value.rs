//! Values: what a record is made of and what comes of an expression.

use std::ops::Deref;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};

/// A text, borrowed where that is possible.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// From the record or the expression.
    Borrowed(&'a str),
    /// Made on the way.
    Shared(Rc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text::Shared(text.into())
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is never negative; of JSON those beyond [`Value::Int`].
    UInt(u64),
    /// A number.
    Double(f64),
    /// Text.
    Text(Text<'a>),
    /// Bytes that are no text.
    Bytes(&'a [u8]),
    /// A moment, nanoseconds since 1970 UTC.
    Time(i128),
    /// A span of time, nanoseconds.
    Span(i128),
    /// Values in order.
    List(Rc<Vec<Value<'a>>>),
    /// Values by key, in the order of the document; of equal keys the last counts.
    Map(Rc<Vec<(Value<'a>, Value<'a>)>>),
}

impl<'a> Value<'a> {
    /// Borrowed text.
    pub fn text(text: &'a str) -> Value<'a> {
        Value::Text(Text::Borrowed(text))
    }

    /// The number it is, if it is one.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Value::Int(n) => Some(n as f64),
            Value::UInt(n) => Some(n as f64),
            Value::Double(n) => Some(n),
            _ => None,
        }
    }

    /// The moment it is, in nanoseconds since 1970 UTC: a time, a text as RFC 3339 has it, or a number of seconds since
    /// 1970. `None` for anything else, and for what lies before 1970 or beyond 2554.
    pub fn moment(&self) -> Option<u64> {
        let ns = match self {
            Value::Time(ns) => *ns,
            Value::Text(text) => text.parse::<Timestamp>().ok()?.as_nanosecond(),
            Value::Int(seconds) => i128::from(*seconds) * 1_000_000_000,
            Value::UInt(seconds) => i128::from(*seconds) * 1_000_000_000,
            Value::Double(seconds) if seconds.is_finite() => (seconds * 1e9) as i128,
            _ => return None,
        };
        u64::try_from(ns).ok()
    }

    /// As JSON: times and spans as text, bytes as a list of numbers, numbers that JSON does not have as null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) => (*n).into(),
            Value::UInt(n) => (*n).into(),
            Value::Double(n) => (*n).into(),
            Value::Text(text) => Json::from(&**text),
            Value::Bytes(bytes) => Json::from(bytes.to_vec()),
            Value::Time(_) | Value::Span(_) => Json::from(self.words()),
            Value::List(list) => list.iter().map(Value::to_json).collect(),
            Value::Map(map) => {
                Json::Object(map.iter().map(|(k, v)| (k.words(), v.to_json())).collect())
            }
        }
    }

    /// As text: text as it is, everything else as JSON would have it.
    pub fn words(&self) -> String {
        match self {
            Value::Text(text) => text.to_string(),
            Value::Time(ns) => rfc3339(*ns),
            Value::Span(ns) => {
                let span = i64::try_from(*ns).map(SignedDuration::from_nanos);
                span.map_or_else(|_| format!("{ns}ns"), |span| format!("{span:#}"))
            }
            other => other.to_json().to_string(),
        }
    }
}

/// A moment as RFC 3339; beyond the calendar as its nanoseconds.
pub(super) fn rfc3339(ns: i128) -> String {
    Timestamp::from_nanosecond(ns).map_or_else(|_| ns.to_string(), |time| time.to_string())
}
