//! The functions of the language that records have a use for.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::EvalError;
use super::value::{Text, Value};

macro_rules! functions {
    ($( $name:ident = $written:literal, $arguments:literal; )*) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Function { $( $name, )* }

        impl Function {
            /// The function of this name, and how many arguments it takes, what it is called on included.
            pub fn named(name: &str) -> Option<(Function, usize)> {
                match name { $( $written => Some((Function::$name, $arguments)), )* _ => None }
            }
        }
    };
}

functions! {
    Size = "size", 1;
    Contains = "contains", 2;
    StartsWith = "startsWith", 2;
    EndsWith = "endsWith", 2;
    ToInt = "int", 1;
    ToUInt = "uint", 1;
    ToDouble = "double", 1;
    ToText = "string", 1;
    ToBool = "bool", 1;
    ToTime = "timestamp", 1;
    ToSpan = "duration", 1;
    Year = "getFullYear", 1;
    Month = "getMonth", 1;
    DayOfYear = "getDayOfYear", 1;
    DayOfMonth = "getDayOfMonth", 1;
    Date = "getDate", 1;
    DayOfWeek = "getDayOfWeek", 1;
    Hours = "getHours", 1;
    Minutes = "getMinutes", 1;
    Seconds = "getSeconds", 1;
    Milliseconds = "getMilliseconds", 1;
}

/// Calls `function` with as many arguments as it takes.
pub(super) fn call<'a>(function: Function, of: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let first = of.first().ok_or(EvalError::WrongType)?;
    match function {
        Function::Size => size(first),
        Function::Contains => texts(of).map(|(whole, part)| Value::Bool(whole.contains(part))),
        Function::StartsWith => texts(of).map(|(whole, part)| Value::Bool(whole.starts_with(part))),
        Function::EndsWith => texts(of).map(|(whole, part)| Value::Bool(whole.ends_with(part))),
        Function::ToInt => to_int(first),
        Function::ToUInt => to_uint(first),
        Function::ToDouble => match first {
            Value::Text(text) => parsed(text).map(Value::Double),
            other => other.number().map(Value::Double).ok_or(EvalError::WrongType),
        },
        Function::ToText => match first {
            Value::Text(_) => Ok(first.clone()),
            Value::Bytes(bytes) => {
                std::str::from_utf8(bytes).map(Value::text).map_err(|_| EvalError::NotConvertible)
            }
            Value::Null | Value::List(_) | Value::Map(_) => Err(EvalError::WrongType),
            other => Ok(Value::Text(Text::from(other.words()))),
        },
        Function::ToBool => match first {
            Value::Bool(_) => Ok(first.clone()),
            Value::Text(text) => parsed(text).map(Value::Bool),
            _ => Err(EvalError::WrongType),
        },
        Function::ToTime => match first {
            Value::Time(_) => Ok(first.clone()),
            Value::Text(text) => parsed::<Timestamp>(text).map(|t| Value::Time(t.as_nanosecond())),
            Value::Int(seconds) => Ok(Value::Time(i128::from(*seconds) * 1_000_000_000)),
            _ => Err(EvalError::WrongType),
        },
        Function::ToSpan => match first {
            Value::Span(_) => Ok(first.clone()),
            Value::Text(text) => {
                parsed::<SignedDuration>(text).map(|span| Value::Span(span.as_nanos()))
            }
            _ => Err(EvalError::WrongType),
        },
        part => match *first {
            Value::Time(ns) => part_of_time(part, ns),
            Value::Span(ns) => part_of_span(part, ns),
            _ => Err(EvalError::WrongType),
        },
    }
}

fn texts<'v>(of: &'v [Value<'_>]) -> Result<(&'v str, &'v str), EvalError> {
    match of {
        [Value::Text(whole), Value::Text(part)] => Ok((whole, part)),
        _ => Err(EvalError::WrongType),
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, EvalError> {
    text.parse().map_err(|_| EvalError::NotConvertible)
}

/// Characters of a text, bytes of bytes, entries of lists and maps.
fn size<'a>(of: &Value<'_>) -> Result<Value<'a>, EvalError> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(EvalError::WrongType),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn to_int<'a>(of: &Value<'_>) -> Result<Value<'a>, EvalError> {
    let int = match of {
        Value::Int(n) => *n,
        Value::UInt(n) => i64::try_from(*n).map_err(|_| EvalError::Overflow)?,
        // Towards zero; both bounds are exact as doubles.
        Value::Double(n)
            if *n >= -9_223_372_036_854_775_808.0 && *n < 9_223_372_036_854_775_808.0 =>
        {
            *n as i64
        }
        Value::Double(_) => return Err(EvalError::Overflow),
        Value::Text(text) => parsed(text)?,
        Value::Time(ns) => {
            i64::try_from(ns.div_euclid(1_000_000_000)).map_err(|_| EvalError::Overflow)?
        }
        _ => return Err(EvalError::WrongType),
    };
    Ok(Value::Int(int))
}

fn to_uint<'a>(of: &Value<'_>) -> Result<Value<'a>, EvalError> {
    let uint = match of {
        Value::UInt(n) => *n,
        Value::Int(n) => u64::try_from(*n).map_err(|_| EvalError::Overflow)?,
        Value::Double(n) if *n > -1.0 && *n < 18_446_744_073_709_551_616.0 => *n as u64,
        Value::Double(_) => return Err(EvalError::Overflow),
        Value::Text(text) => parsed(text)?,
        _ => return Err(EvalError::WrongType),
    };
    Ok(Value::UInt(uint))
}

/// In UTC. Months, days of the year and days of the month (but not the date) count from 0, as the language has it.
fn part_of_time<'a>(part: Function, ns: i128) -> Result<Value<'a>, EvalError> {
    let time = Timestamp::from_nanosecond(ns).map_err(|_| EvalError::Overflow)?;
    let time: Zoned = time.to_zoned(TimeZone::UTC);
    let part: i64 = match part {
        Function::Year => time.year().into(),
        Function::Month => i64::from(time.month()) - 1,
        Function::DayOfYear => i64::from(time.day_of_year()) - 1,
        Function::DayOfMonth => i64::from(time.day()) - 1,
        Function::Date => time.day().into(),
        Function::DayOfWeek => time.weekday().to_sunday_zero_offset().into(),
        Function::Hours => time.hour().into(),
        Function::Minutes => time.minute().into(),
        Function::Seconds => time.second().into(),
        Function::Milliseconds => time.millisecond().into(),
        _ => return Err(EvalError::WrongType),
    };
    Ok(Value::Int(part))
}

/// Whole units of all of it; of milliseconds those beyond the seconds.
fn part_of_span<'a>(part: Function, ns: i128) -> Result<Value<'a>, EvalError> {
    let second = 1_000_000_000;
    let part = match part {
        Function::Hours => ns / (3600 * second),
        Function::Minutes => ns / (60 * second),
        Function::Seconds => ns / second,
        Function::Milliseconds => ns % second / 1_000_000,
        _ => return Err(EvalError::WrongType),
    };
    i64::try_from(part).map(Value::Int).map_err(|_| EvalError::Overflow)
}
