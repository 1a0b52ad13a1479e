//! Reading the JSON object of a request, field by field, and every fault of it at once.
//!
//! Clients of these dialects write numbers as integers, floats or text, and leave a field open by
//! `null` as well as by leaving it out; all of that is taken.

use super::error::{Fault, Problem};
use serde_json::{Map, Value};

/// The fields of one request.
pub(super) struct Fields {
    fields: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Fields {
    /// Reads a body; an empty one is an object without fields.
    ///
    /// # Errors
    /// Says where the JSON breaks off, or what came instead of an object.
    pub(super) fn read(body: &[u8]) -> Result<Fields, Problem> {
        let fault = |message: String, kind| {
            Err(Problem::invalid(vec![Fault { field: String::new(), message, kind }]))
        };
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Fields { fields: Map::new(), faults: Vec::new() });
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields { fields, faults: Vec::new() }),
            Ok(other) => {
                let (got, hint) = (kind_of(&other), "send fields in braces, {\"prompt\": …}");
                fault(format!("body: expected a JSON object, got {got}; {hint}"), "dict_type")
            }
            Err(error) => {
                let hint = "send JSON in UTF-8, such as {\"prompt\": \"a cat\"}";
                fault(format!("body: expected JSON, got {error}; {hint}"), "json_invalid")
            }
        }
    }

    /// Fields that came in another form.
    pub(super) fn of(fields: Map<String, Value>) -> Fields {
        Fields { fields, faults: Vec::new() }
    }

    /// The body as it came, but for what was taken out of it.
    pub(super) fn echo(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => {
                let got = kind_of(other);
                self.fault(name, format!("{name}: expected a text, got {got}"), "string_type");
                None
            }
        }
    }

    /// A text, taken out of the fields: it is long, and not to be held longer than needed.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                let got = kind_of(&other);
                self.fault(name, format!("{name}: expected a text, got {got}"), "string_type");
                None
            }
        }
    }

    /// A value, taken out of the fields; the field is then left open.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.get_mut(name).map(Value::take)
    }

    pub(super) fn float(&mut self, name: &str) -> Option<f64> {
        let value = self.fields.get(name)?;
        let number = match value {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => {
                text.trim().parse().ok().filter(|number: &f64| number.is_finite())
            }
            other => other.as_f64(),
        };
        if number.is_none() {
            let message = format!("{name}: expected a number, got {value}");
            self.fault(name, message, "float_type");
        }
        number
    }

    /// A whole number that is not negative.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.fields.get(name)?;
        if matches!(value, Value::Null) || value.as_str() == Some("") {
            return None;
        }
        let number = whole(value);
        if number.is_none() {
            let message = format!("{name}: expected a whole number from 0 on, got {value}");
            self.fault(name, message, "int_type");
        }
        number
    }

    /// A whole number of 32 bits that is not negative.
    pub(super) fn small(&mut self, name: &str) -> Option<u32> {
        let number = self.number(name)?;
        let small = u32::try_from(number).ok();
        if small.is_none() {
            let message = format!("{name}: expected at most {}, got {number}", u32::MAX);
            self.fault(name, message, "int_type");
        }
        small
    }

    /// A seed; none, -1 and nothing leave it to chance.
    pub(super) fn seed(&mut self, name: &str) -> Option<u64> {
        let is_open = |value: &Value| value.as_f64() == Some(-1.0) || value.as_str() == Some("-1");
        if self.fields.get(name).is_some_and(is_open) { None } else { self.number(name) }
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.fields.get(name)? {
            Value::Null => None,
            Value::Bool(flag) => Some(*flag),
            other => {
                let message = format!("{name}: expected true or false, got {other}");
                self.fault(name, message, "bool_type");
                None
            }
        }
    }

    /// Yes or no as some clients write it: true, or a number other than 0.
    pub(super) fn flag_or_number(&mut self, name: &str) -> bool {
        match self.fields.get(name) {
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            _ => self.flag(name).unwrap_or(false),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn fault(&mut self, field: &str, message: String, kind: &'static str) {
        self.faults.push(Fault { field: field.to_owned(), message, kind });
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// With every fault.
    pub(super) fn end(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            // Beyond 2^53 a float names no whole number of its own.
            let is_whole = float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float);
            is_whole.then_some(float as u64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::read(text.as_bytes()).expect("an object")
    }

    #[test]
    fn numbers_come_in_the_shapes_that_clients_write() {
        let mut read = fields(r#"{"a": 7, "b": 7.0, "c": "7", "d": null, "e": "", "s": -1}"#);
        let numbers: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| read.number(name)).into();
        assert_eq!(numbers, [Some(7), Some(7), Some(7), None, None, None]);
        assert_eq!((read.seed("s"), read.seed("a")), (None, Some(7)));
        assert!(read.end().is_ok());
    }

    #[test]
    fn every_fault_is_told_with_what_came() {
        let mut read = fields(r#"{"prompt": 3, "steps": 1.5, "n": -2, "stream": "yes"}"#);
        let _ = (read.text("prompt"), read.number("steps"), read.number("n"), read.flag("stream"));
        let problem = read.end().expect_err("four faults");
        assert_eq!(problem.faults.len(), 4);
        assert!(problem.message.contains("prompt: expected a text, got a number"));
        assert!(problem.message.contains("steps: expected a whole number from 0 on, got 1.5"));
    }

    #[test]
    fn what_is_no_object_is_told() {
        let refused = |text: &str| Fields::read(text.as_bytes()).err().expect("refused").message;
        assert!(refused("[1]").contains("expected a JSON object, got a list"));
        assert!(refused("{\"prompt\": ").contains("expected JSON, got EOF"));
        assert!(Fields::read(b" \n").is_ok());
    }
}
