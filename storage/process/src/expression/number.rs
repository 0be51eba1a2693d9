//! Arithmetic and order of values.

use std::cmp::Ordering;

use super::EvalError;
use super::compile::Op;
use super::value::Value;

/// Of whole numbers of one type; `None` beyond their range.
macro_rules! checked {
    ($op:expr, $left:expr, $right:expr) => {
        match $op {
            Op::Add => $left.checked_add($right),
            Op::Sub => $left.checked_sub($right),
            Op::Mul => $left.checked_mul($right),
            Op::Div => $left.checked_div($right),
            Op::Rem => $left.checked_rem($right),
        }
    };
}

/// `left op right` of numbers, times and spans. A whole number and one with a fraction make one with a fraction.
pub(super) fn arithmetic<'a>(
    op: Op,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Result<Value<'a>, EvalError> {
    use Value::{Double, Int, Span, Time, UInt};
    Ok(match (op, left, right) {
        (Op::Div | Op::Rem, Int(_), Int(0)) | (Op::Div | Op::Rem, UInt(_), UInt(0)) => {
            return Err(EvalError::DivisionByZero);
        }
        (op, &Int(l), &Int(r)) => Int(checked!(op, l, r).ok_or(EvalError::Overflow)?),
        (op, &UInt(l), &UInt(r)) => UInt(checked!(op, l, r).ok_or(EvalError::Overflow)?),
        (Op::Add, &Time(l), &Span(r)) | (Op::Add, &Span(l), &Time(r)) => {
            Time(within(l.checked_add(r))?)
        }
        (Op::Sub, &Time(l), &Span(r)) => Time(within(l.checked_sub(r))?),
        (Op::Sub, &Time(l), &Time(r)) | (Op::Sub, &Span(l), &Span(r)) => {
            Span(within(l.checked_sub(r))?)
        }
        (Op::Add, &Span(l), &Span(r)) => Span(within(l.checked_add(r))?),
        (op, l, r) => {
            let (Some(l), Some(r)) = (l.number(), r.number()) else {
                return Err(EvalError::WrongType);
            };
            // Two whole numbers of different kinds are not mixed up.
            if !matches!((left, right), (Double(_), _) | (_, Double(_))) {
                return Err(EvalError::WrongType);
            }
            Double(match op {
                Op::Add => l + r,
                Op::Sub => l - r,
                Op::Mul => l * r,
                Op::Div => l / r,
                Op::Rem => return Err(EvalError::WrongType),
            })
        }
    })
}

/// Times and spans keep within 292 years of zero either way, ten times over: whatever is added stays exact.
const FARTHEST: i128 = 10 * i64::MAX as i128;

fn within(ns: Option<i128>) -> Result<i128, EvalError> {
    ns.filter(|ns| ns.abs() <= FARTHEST).ok_or(EvalError::Overflow)
}

/// The order of two values; `None` of values that have none (NaN), an error of those that cannot be compared.
pub(super) fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    use Value::{Bool, Bytes, Double, Span, Text, Time};
    Ok(match (left, right) {
        (Bool(l), Bool(r)) => Some(l.cmp(r)),
        (Text(l), Text(r)) => Some(str::cmp(l, r)),
        (Bytes(l), Bytes(r)) => Some(l.cmp(r)),
        (Time(l), Time(r)) | (Span(l), Span(r)) => Some(l.cmp(r)),
        (Double(l), Double(r)) => l.partial_cmp(r),
        (l, &Double(r)) => whole_and_double(whole(l)?, r),
        (&Double(l), r) => whole_and_double(whole(r)?, l).map(Ordering::reverse),
        (l, r) => Some(whole(l)?.cmp(&whole(r)?)),
    })
}

/// Whether two numbers are the same; `None` if not both are numbers.
pub(super) fn same_number(left: &Value<'_>, right: &Value<'_>) -> Option<bool> {
    left.number().and(right.number())?;
    order(left, right).ok().map(|order| order == Some(Ordering::Equal))
}

fn whole(value: &Value<'_>) -> Result<i128, EvalError> {
    match *value {
        Value::Int(n) => Ok(n.into()),
        Value::UInt(n) => Ok(n.into()),
        _ => Err(EvalError::WrongType),
    }
}

/// Exact, also where a double has no place for all digits of a whole number.
fn whole_and_double(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Both whole numbers' ranges lie within; the conversion saturates beyond.
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if floor < double {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}
