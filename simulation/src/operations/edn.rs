//! A history as Jepsen writes it: a vector of maps in EDN, which Knossos and Elle read.
//!
//! ```text
//! [{:index 0, :time 1000000, :type :invoke, :process 0, :f :submit, :key "job/7", :value {…}}
//!  {:index 1, :time 4000000, :type :ok, :process 0, :f :submit, :key "job/7", :value {…}, :log-index 12}]
//! ```
//!
//! Times are nanoseconds, as Jepsen's. A process that got no answer has no second map, which Jepsen
//! reads as one that is still under way.

use super::Operation;
use super::lines::{Kind, Line, events};
use serde_json::Value;
use std::fmt::Write;

/// Writes a history.
pub fn write(history: &[Operation]) -> String {
    let maps: Vec<String> = events(history).iter().map(map).collect();
    format!("[{}]\n", maps.join("\n "))
}

fn map(event: &Line) -> String {
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let Line { place, at_us, process, f, .. } = event;
    let time_ns = at_us * 1_000;
    let (f, key) = (f.replace('_', "-"), string(&event.key));
    let mut text = format!(
        "{{:index {place}, :time {time_ns}, :type :{kind}, :process {process}, :f :{f}, :key {key}, :value {}",
        value(&event.value)
    );
    let mut add = |text_of: String| text.push_str(&text_of);
    event.index.iter().for_each(|index| add(format!(", :log-index {index}")));
    event.error.iter().for_each(|error| add(format!(", :error {}", string(error))));
    text + "}"
}

/// JSON's values in EDN: names of fields become keywords, whatever else keeps its kind.
fn value(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => string(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(self::value).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let field =
                |(name, it): (&String, &Value)| format!("{} {}", name_of(name), self::value(it));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A keyword where the name may be one, else a string: `queue.weight.a/b` would be a namespace.
fn name_of(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && name.chars().all(is_plain) {
        format!(":{}", name.replace('_', "-"))
    } else {
        string(name)
    }
}

/// EDN knows five escapes; other control characters are written as they are.
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c => write!(quoted, "{c}").expect("a text grows"),
        }
    }
    quoted + "\""
}
