//! A JSON payload as values: only the fields that are wanted, borrowed where that is possible, every value counted.

use std::fmt;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::value::{Text, Value};
use super::{EvalError, MAX_JSON, Wanted};

/// The values of `payload` that are wanted; each takes one of `steps`.
pub(super) fn read<'a>(
    payload: &'a [u8],
    wanted: &Wanted,
    steps: &mut u64,
) -> Result<Value<'a>, EvalError> {
    if payload.len() > MAX_JSON {
        return Err(EvalError::TooLarge);
    }
    // Passing over what is not wanted costs as well.
    let cost = payload.len() as u64 / 64;
    *steps = steps.checked_sub(cost).ok_or(EvalError::TooExpensive)?;
    let mut reader = serde_json::Deserializer::from_slice(payload);
    let mut spent = false;
    let fields = (!wanted.all).then_some(wanted);
    let seed = Build { steps, spent: &mut spent, fields };
    match seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) if spent => Err(EvalError::TooExpensive),
        Err(_) => Err(EvalError::NotJson),
    }
}

struct Build<'s> {
    steps: &'s mut u64,
    /// They did not suffice.
    spent: &'s mut bool,
    /// Only these fields of an object; `None` for all.
    fields: Option<&'s Wanted>,
}

impl Build<'_> {
    fn step<E: Error>(&mut self) -> Result<(), E> {
        match self.steps.checked_sub(1) {
            Some(left) => {
                *self.steps = left;
                Ok(())
            }
            None => {
                *self.spent = true;
                Err(E::custom("too many values"))
            }
        }
    }

    /// For a value inside of this one.
    fn inner(&mut self) -> Build<'_> {
        Build { steps: self.steps, spent: self.spent, fields: None }
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<Value<'de>, D::Error> {
        self.step()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Double(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::text(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Text::Shared(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut list = Vec::new();
        if self.fields.is_some() {
            // Of what is no object no field is there.
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::List(Rc::default()));
        }
        while let Some(value) = seq.next_element_seed(self.inner())? {
            list.push(value);
        }
        Ok(Value::List(Rc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(self.inner())? {
            let wanted = match (&key, self.fields) {
                (Value::Text(name), Some(wanted)) => wanted.fields.contains(&**name),
                _ => true,
            };
            if wanted {
                entries.push((key, map.next_value_seed(self.inner())?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Map(Rc::new(entries)))
    }
}
