//! Evaluates a tree for a record, within a bound of steps.

use std::cmp::Ordering;
use std::rc::Rc;

use super::compile::{Compare, Loop, Node, Op, Part};
use super::functions::{self, Function};
use super::number::{arithmetic, order, same_number};
use super::value::{Text, Value};
use super::{EvalError, MAX_STEPS, Record, json};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// The value of `root`.
pub(super) fn evaluate<'a>(root: &'a Node, record: &Record<'a>) -> Evaluated<'a> {
    Evaluation { record, steps: MAX_STEPS, locals: Vec::new() }.node(root)
}

struct Evaluation<'r, 'a> {
    record: &'r Record<'a>,
    /// Left.
    steps: u64,
    /// Variables of the comprehensions around: what has been gathered (which may be an error that later elements
    /// make good) and the element.
    locals: Vec<Evaluated<'a>>,
}

impl<'a> Evaluation<'_, 'a> {
    fn spend(&mut self, steps: u64) -> Result<(), EvalError> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(EvalError::TooExpensive)
            }
        }
    }

    fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.spend(1)?;
        match node {
            Node::Literal(literal) => Ok(literal.value()),
            Node::Part(part) => self.part(*part),
            Node::Local(place) => {
                self.locals.get(*place).cloned().unwrap_or(Err(EvalError::WrongType))
            }
            Node::Select(of, field) => {
                let of = self.node(of)?;
                self.field(&of, field)?.ok_or(EvalError::MissingField)
            }
            Node::Has(of, field) => {
                let of = self.node(of)?;
                Ok(Value::Bool(self.field(&of, field)?.is_some()))
            }
            Node::Index(both) => self.index(both),
            Node::Not(of) => self.truth(of).map(|truth| Value::Bool(!truth)),
            Node::Negate(of) => match self.node(of)? {
                Value::Int(n) => n.checked_neg().map(Value::Int).ok_or(EvalError::Overflow),
                Value::Double(n) => Ok(Value::Double(-n)),
                Value::Span(ns) => Ok(Value::Span(-ns)),
                _ => Err(EvalError::WrongType),
            },
            Node::NotFalse(of) => match self.truth(of) {
                Err(EvalError::TooExpensive) => Err(EvalError::TooExpensive),
                Err(_) => Ok(Value::Bool(true)),
                Ok(truth) => Ok(Value::Bool(truth)),
            },
            Node::And(both) => self.logic(both, false),
            Node::Or(both) => self.logic(both, true),
            Node::If(three) => {
                let [condition, yes, no] = &**three;
                if self.truth(condition)? { self.node(yes) } else { self.node(no) }
            }
            Node::Equal(both, expected) => {
                let (left, right) = self.both(both)?;
                Ok(Value::Bool(self.equal(&left, &right)? == *expected))
            }
            Node::Order(compare, both) => {
                let (left, right) = self.both(both)?;
                self.spend(bytes_of(&left).min(bytes_of(&right)) / 64)?;
                let order = order(&left, &right)?;
                Ok(Value::Bool(match compare {
                    Compare::Less => order == Some(Ordering::Less),
                    Compare::LessEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Compare::Greater => order == Some(Ordering::Greater),
                    Compare::GreaterEqual => {
                        matches!(order, Some(Ordering::Greater | Ordering::Equal))
                    }
                }))
            }
            Node::In(both) => self.contained(both),
            Node::Arithmetic(op, both) => {
                let (left, right) = self.both(both)?;
                self.calculate(*op, left, right)
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Matches(text, pattern) => match self.node(text)? {
                Value::Text(text) => {
                    self.spend(text.len() as u64 / 64)?;
                    Ok(Value::Bool(pattern.is_match(&text)))
                }
                _ => Err(EvalError::WrongType),
            },
            Node::List(elements) => {
                let list = elements.iter().map(|element| self.node(element));
                Ok(Value::List(Rc::new(list.collect::<Result<_, _>>()?)))
            }
            Node::Map(entries) => {
                let mut map = Vec::new();
                for (key, value) in entries {
                    map.push((self.node(key)?, self.node(value)?));
                }
                Ok(Value::Map(Rc::new(map)))
            }
            Node::Append(place, elements) => self.append(*place, elements),
            Node::Loop(each) => self.each(each),
        }
    }

    fn part(&mut self, part: Part) -> Evaluated<'a> {
        let record = self.record;
        let view = &record.view;
        Ok(match part {
            Part::Key => text_or_bytes(view.key),
            Part::Headers => {
                self.spend(view.raw_headers.len() as u64 / 64)?;
                let entries = view.headers().map(|h| (Value::text(h.name), text_or_bytes(h.value)));
                Value::Map(Rc::new(entries.collect()))
            }
            Part::Timestamp => Value::Time(view.timestamp_ns.into()),
            Part::Arrival => Value::Time(record.arrival_ns.into()),
            Part::Size => Value::Int(i64::try_from(view.payload.len()).unwrap_or(i64::MAX)),
            Part::Seq => match i64::try_from(view.sequence) {
                Ok(sequence) => Value::Int(sequence),
                Err(_) => Value::UInt(view.sequence),
            },
            Part::Json => {
                let read = || json::read(view.payload, record.wanted, &mut self.steps);
                return record.json.get_or_init(read).clone();
            }
            Part::Payload => match std::str::from_utf8(view.payload) {
                Ok(text) => Value::text(text),
                Err(_) => return Err(EvalError::NotJson),
            },
        })
    }

    /// A field of an object, if it is there.
    fn field(&mut self, of: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, EvalError> {
        let Value::Map(map) = of else { return Err(EvalError::WrongType) };
        self.spend(map.len() as u64 / 8)?;
        let named = |key: &Value<'_>| matches!(key, Value::Text(name) if **name == *field);
        Ok(map.iter().rev().find(|(key, _)| named(key)).map(|(_, value)| value.clone()))
    }

    fn index(&mut self, both: &'a [Node; 2]) -> Evaluated<'a> {
        let (of, index) = self.both(both)?;
        match (&of, &index) {
            (Value::Map(_), Value::Text(field)) => {
                self.field(&of, field)?.ok_or(EvalError::MissingField)
            }
            (Value::Map(map), key) => {
                for (candidate, value) in map.iter().rev() {
                    if self.equal(candidate, key)? {
                        return Ok(value.clone());
                    }
                }
                Err(EvalError::MissingField)
            }
            (Value::List(list), Value::Int(index)) => {
                let element = usize::try_from(*index).ok().and_then(|index| list.get(index));
                element.cloned().ok_or(EvalError::OutOfRange)
            }
            _ => Err(EvalError::WrongType),
        }
    }

    fn both(&mut self, both: &'a [Node; 2]) -> Result<(Value<'a>, Value<'a>), EvalError> {
        let [left, right] = both;
        Ok((self.node(left)?, self.node(right)?))
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, EvalError> {
        match self.node(node)? {
            Value::Bool(truth) => Ok(truth),
            _ => Err(EvalError::WrongType),
        }
    }

    /// `&&` and `||`: whichever side says `decisive` decides, whatever is wrong with the other.
    fn logic(&mut self, both: &'a [Node; 2], decisive: bool) -> Evaluated<'a> {
        let [left, right] = both;
        let left = self.truth(left);
        if left == Ok(decisive) {
            return Ok(Value::Bool(decisive));
        }
        let right = self.truth(right);
        // What is spent stays spent.
        if self.steps == 0 {
            return Err(EvalError::TooExpensive);
        }
        match (left, right) {
            (_, Ok(right)) if right == decisive => Ok(Value::Bool(decisive)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(_), Ok(right)) => Ok(Value::Bool(right)),
        }
    }

    fn equal(&mut self, left: &Value<'a>, right: &Value<'a>) -> Result<bool, EvalError> {
        self.spend(1)?;
        if let Some(same) = same_number(left, right) {
            return Ok(same);
        }
        Ok(match (left, right) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(l), Value::Bool(r)) => l == r,
            (Value::Text(l), Value::Text(r)) => {
                self.spend(l.len().min(r.len()) as u64 / 64)?;
                **l == **r
            }
            (Value::Bytes(l), Value::Bytes(r)) => l == r,
            (Value::Time(l), Value::Time(r)) | (Value::Span(l), Value::Span(r)) => l == r,
            (Value::List(l), Value::List(r)) => {
                if l.len() != r.len() {
                    return Ok(false);
                }
                for (l, r) in l.iter().zip(r.iter()) {
                    if !self.equal(l, r)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(l), Value::Map(r)) => {
                if l.len() != r.len() {
                    return Ok(false);
                }
                for (key, value) in l.iter() {
                    let mut found = None;
                    for (candidate, other) in r.iter().rev() {
                        if self.equal(candidate, key)? {
                            found = Some(other);
                            break;
                        }
                    }
                    match found {
                        Some(other) if self.equal(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            // Values of different types are different.
            _ => false,
        })
    }

    fn contained(&mut self, both: &'a [Node; 2]) -> Evaluated<'a> {
        let (element, of) = self.both(both)?;
        let mut found = false;
        match &of {
            Value::List(list) => {
                for candidate in list.iter() {
                    found = found || self.equal(candidate, &element)?;
                }
            }
            Value::Map(map) => {
                for (candidate, _) in map.iter() {
                    found = found || self.equal(candidate, &element)?;
                }
            }
            _ => return Err(EvalError::WrongType),
        }
        Ok(Value::Bool(found))
    }

    fn calculate(&mut self, op: Op, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
        match (op, &left, &right) {
            (Op::Add, Value::Text(l), Value::Text(r)) => {
                self.spend((l.len() + r.len()) as u64 / 64)?;
                Ok(Value::Text(Text::from([&**l, &**r].concat())))
            }
            (Op::Add, Value::List(l), Value::List(r)) => {
                self.spend((l.len() + r.len()) as u64)?;
                Ok(Value::List(Rc::new(l.iter().chain(r.iter()).cloned().collect())))
            }
            _ => arithmetic(op, &left, &right),
        }
    }

    fn call(&mut self, function: Function, arguments: &'a [Node]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let value = self.node(argument)?;
            self.spend(bytes_of(&value) / 64)?;
            values.push(value);
        }
        functions::call(function, &values)
    }

    fn append(&mut self, place: usize, elements: &'a [Node]) -> Evaluated<'a> {
        let mut new = Vec::with_capacity(elements.len());
        for element in elements {
            new.push(self.node(element)?);
        }
        // Taken out, so that nobody else has it and it grows in its place.
        let list = self.locals.get_mut(place).ok_or(EvalError::WrongType)?;
        let Value::List(mut list) = std::mem::replace(list, Ok(Value::Null))? else {
            return Err(EvalError::WrongType);
        };
        Rc::make_mut(&mut list).append(&mut new);
        Ok(Value::List(list))
    }

    fn each(&mut self, each: &'a Loop) -> Evaluated<'a> {
        let range = self.node(&each.range)?;
        let elements: Rc<Vec<Value<'a>>> = match range {
            Value::List(list) => list,
            // Of a map its keys.
            Value::Map(map) => {
                self.spend(map.len() as u64)?;
                Rc::new(map.iter().map(|(key, _)| key.clone()).collect())
            }
            _ => return Err(EvalError::WrongType),
        };
        let start = self.node(&each.start);
        let place = self.locals.len();
        self.locals.push(start);
        for element in elements.iter() {
            let go_on = {
                self.locals.push(Ok(element.clone()));
                let go_on = each.always || matches!(self.node(&each.condition)?, Value::Bool(true));
                if go_on {
                    let step = self.node(&each.step);
                    let fatal = matches!(step, Err(EvalError::TooExpensive));
                    if fatal || (each.always && step.is_err()) {
                        return step;
                    }
                    if let Some(gathered) = self.locals.get_mut(place) {
                        *gathered = step;
                    }
                }
                self.locals.truncate(place + 1);
                go_on
            };
            if !go_on {
                break;
            }
        }
        let result = self.node(&each.result);
        self.locals.truncate(place);
        result
    }
}

fn text_or_bytes(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::text)
}

/// Bytes that looking at it means looking at.
fn bytes_of(value: &Value<'_>) -> u64 {
    match value {
        Value::Text(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        _ => 0,
    }
}
