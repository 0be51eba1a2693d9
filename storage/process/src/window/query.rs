//! What is asked of windows, as it is typed: `max(json.temp), p99(json.ms) by json.deviceid`.

use crate::expression::scan::outside_texts;
use crate::expression::{CompileError, EvalError, Expression, Record, Value, Wanted};

use super::aggregate::{Aggregate, MAX_TOP, Sample};

/// Most aggregates of one query.
pub const MAX_AGGREGATES: usize = 16;

/// Why a query is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not an aggregate.
    #[error(
        "{text:?} is no aggregate; write count(), rate(), sum(E), min(E), max(E), mean(E), p99(E), distinct(E) or \
         top(E, N)"
    )]
    Unknown {
        /// As typed.
        text: String,
    },
    /// It needs something to look at.
    #[error("{name}() needs an expression, like {name}(json.temp)")]
    NoArgument {
        /// The aggregate.
        name: String,
    },
    /// A number that is out of range.
    #[error("{what} is {found:?}; it has to be from {least} to {most}")]
    Range {
        /// Which.
        what: &'static str,
        /// As typed.
        found: String,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// An expression that does not compile.
    #[error("in {text:?}: {error}")]
    Expression {
        /// The expression.
        text: String,
        /// What is wrong.
        error: CompileError,
    },
    /// A key twice.
    #[error("there is a key in the aggregates ({0:?}) and one beside them; give one")]
    TwoKeys(String),
    /// Too many aggregates.
    #[error("{0} aggregates; the limit is {MAX_AGGREGATES}")]
    TooMany(usize),
}

/// What is asked.
#[derive(Debug)]
pub struct Query {
    asked: Vec<Asked>,
    by: Option<Expression>,
    time: Option<Expression>,
    wanted: Wanted,
}

#[derive(Debug)]
struct Asked {
    label: String,
    aggregate: Aggregate,
    of: Option<Expression>,
}

/// What a record has for a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Its own time, nanoseconds since 1970 UTC, where one was asked for.
    pub at_ns: Option<u64>,
    /// Its key, as JSON, where one was asked for.
    pub key: Option<String>,
    /// By aggregate.
    pub samples: Vec<Sample>,
    /// Why aggregates have nothing of it.
    pub errors: Vec<EvalError>,
}

impl Query {
    /// Reads `aggregates` (separated by commas, with `by KEY` behind them where there is no `by`; empty for a count), the
    /// key, and where a record has its time.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(
        aggregates: &str,
        by: Option<&str>,
        time: Option<&str>,
    ) -> Result<Query, QueryError> {
        let (list, inside) = match last_word(aggregates, "by") {
            Some((list, key)) => (list, Some(key)),
            None => (aggregates, None),
        };
        let by = match (by, inside) {
            (Some(_), Some(inside)) => return Err(QueryError::TwoKeys(inside.trim().to_owned())),
            (by, inside) => by.or(inside),
        };
        let mut asked = Vec::new();
        if list.trim().is_empty() {
            asked.push(Asked { label: "count()".into(), aggregate: Aggregate::Count, of: None });
        } else {
            for text in split(list, ',') {
                asked.push(Asked::parse(text.trim())?);
            }
        }
        if asked.len() > MAX_AGGREGATES {
            return Err(QueryError::TooMany(asked.len()));
        }
        let by = by.map(|by| compiled(by.trim())).transpose()?;
        let time = time.map(compiled).transpose()?;
        let of = asked.iter().filter_map(|asked| asked.of.as_ref());
        let wanted = Wanted::of(of.chain(&by).chain(&time));
        Ok(Query { asked, by, time, wanted })
    }

    /// What it reads of a JSON payload.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What windows have to find out.
    pub fn aggregates(&self) -> Vec<Aggregate> {
        self.asked.iter().map(|asked| asked.aggregate).collect()
    }

    /// The aggregates as they are typed.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(|asked| asked.label.as_str())
    }

    /// Whether there is a key.
    pub fn keyed(&self) -> bool {
        self.by.is_some()
    }

    /// Whether records have a time of their own.
    pub fn timed(&self) -> bool {
        self.time.is_some()
    }

    /// What `record` has, made with what this query [wants](Self::wanted).
    ///
    /// # Errors
    /// When its key or its time cannot be told: it is in no window then.
    pub fn samples<'a>(&'a self, record: &Record<'a>) -> Result<Samples, EvalError> {
        let moment = |value: Value<'_>| value.moment().ok_or(EvalError::NotConvertible);
        let at_ns =
            self.time.as_ref().map(|time| time.value(record).and_then(moment)).transpose()?;
        let json = |value: Value<'_>| value.to_json().to_string();
        let key = self.by.as_ref().map(|by| by.value(record).map(json)).transpose()?;
        let mut errors = Vec::new();
        let mut sample = |asked: &'a Asked| match asked.sample(record) {
            Ok(sample) => sample,
            Err(error) => {
                errors.push(error);
                Sample::Nothing
            }
        };
        let samples = self.asked.iter().map(&mut sample).collect();
        Ok(Samples { at_ns, key, samples, errors })
    }
}

impl Asked {
    fn parse(text: &str) -> Result<Asked, QueryError> {
        let unknown = || QueryError::Unknown { text: text.to_owned() };
        let (name, rest) = text.split_once('(').ok_or_else(unknown)?;
        let inside = rest.trim_end().strip_suffix(')').ok_or_else(unknown)?;
        let mut arguments: Vec<&str> = split(inside, ',').collect();
        let number = if arguments.len() > 1 { arguments.pop().map(str::trim) } else { None };
        let of = arguments.join(",");
        let of = Some(of.trim()).filter(|of| !of.is_empty());
        let name = name.trim();
        let aggregate = match (name, number) {
            ("count", None) => Aggregate::Count,
            ("rate", None) => Aggregate::Rate,
            ("sum", None) => Aggregate::Sum,
            ("min", None) => Aggregate::Min,
            ("max", None) => Aggregate::Max,
            ("mean", None) => Aggregate::Mean,
            ("distinct", None) => Aggregate::Distinct,
            ("percentile", Some(percent)) => percentile(percent)?,
            ("top", number) => top(number.unwrap_or("10"))?,
            (name, None) => match name.strip_prefix('p') {
                Some(percent) if percent.starts_with(|c: char| c.is_ascii_digit()) => {
                    percentile(percent)?
                }
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        };
        let of = of.map(compiled).transpose()?;
        if of.is_none() && !matches!(aggregate, Aggregate::Count | Aggregate::Rate) {
            return Err(QueryError::NoArgument { name: name.to_owned() });
        }
        Ok(Asked { label: text.to_owned(), aggregate, of })
    }

    fn sample<'a>(&'a self, record: &Record<'a>) -> Result<Sample, EvalError> {
        let Some(of) = &self.of else { return Ok(Sample::Here) };
        let value = of.value(record)?;
        match (self.aggregate, &value) {
            (Aggregate::Count | Aggregate::Rate, Value::Bool(true)) => Ok(Sample::Here),
            (Aggregate::Count | Aggregate::Rate, Value::Bool(false)) => Ok(Sample::Nothing),
            (Aggregate::Count | Aggregate::Rate, _) => Err(EvalError::WrongType),
            (Aggregate::Distinct | Aggregate::Top(_), value) => {
                Ok(Sample::Value(value.to_json().to_string()))
            }
            // Nothing is nothing, not zero.
            (_, Value::Null) => Ok(Sample::Nothing),
            (_, value) => value.number().map(Sample::Number).ok_or(EvalError::WrongType),
        }
    }
}

fn compiled(text: &str) -> Result<Expression, QueryError> {
    Expression::compile(text)
        .map_err(|error| QueryError::Expression { text: text.to_owned(), error })
}

fn percentile(percent: &str) -> Result<Aggregate, QueryError> {
    let number: Option<f64> = percent.parse().ok().filter(|n| (0.0..=100.0).contains(n));
    let out = QueryError::Range {
        what: "the percentile",
        found: percent.to_owned(),
        least: 0,
        most: 100,
    };
    number.map(|number| Aggregate::Percentile(number / 100.0)).ok_or(out)
}

fn top(number: &str) -> Result<Aggregate, QueryError> {
    let k: Option<usize> = number.parse().ok().filter(|k| (1..=MAX_TOP).contains(k));
    let most = MAX_TOP as u32;
    let what = "the number of values of top()";
    k.map(Aggregate::Top).ok_or(QueryError::Range {
        what,
        found: number.to_owned(),
        least: 1,
        most,
    })
}

/// Where each character of `text` stands that is in no bracket and no quoted text.
fn outside(text: &str) -> impl Iterator<Item = (usize, char)> {
    outside_texts(text).filter(|(_, _, depth)| *depth == 0).map(|(at, c, _)| (at, c))
}

/// Splits at `separator` where it is in no bracket and no quoted text.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let cuts: Vec<usize> =
        outside(text).filter(|(_, c)| *c == separator).map(|(at, _)| at).collect();
    let starts = std::iter::once(0).chain(cuts.clone().into_iter().map(|at| at + 1));
    let ends = cuts.into_iter().chain(std::iter::once(text.len()));
    starts.zip(ends).map(|(start, end)| &text[start..end])
}

/// What is before and behind the last `word` that stands by itself, in no bracket and no quoted text.
fn last_word<'t>(text: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let alone = |at: usize| {
        let (before, behind) = (&text[..at], &text[at..]);
        let behind = behind.strip_prefix(word)?;
        let sides = before.is_empty() || before.ends_with([' ', ')', '\t', '\n']);
        (sides && behind.starts_with([' ', '\t', '\n'])).then_some((before, behind))
    };
    outside(text).filter_map(|(at, _)| alone(at)).last()
}
