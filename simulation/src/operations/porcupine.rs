//! A history as a Go program reads it for Porcupine: one JSON object a line, each a whole operation
//! with the fields of `porcupine.Operation`.
//!
//! ```text
//! {"ClientId":0,"Key":"job/7","Input":{"f":"submit","value":{…}},"Call":0,"Output":{"type":"ok",…},"Return":1}
//! ```
//!
//! `Call` and `Return` are places, which order events more finely than their times. As Porcupine wants
//! it, an operation whose outcome is unknown returns at the end of time, with an output that its model
//! must accept in every state, and its client asks nothing afterwards.

use super::lines::Kind;
use super::{Operation, Outcome};
use serde_json::{Value, json};

/// When an operation returns of which nobody knows the outcome: Go's `math.MaxInt64`.
pub const NEVER: i64 = i64::MAX;

/// Writes a history, each line with its end.
pub fn write(history: &[Operation]) -> String {
    history.iter().map(|operation| line(operation).to_string() + "\n").collect()
}

fn line(operation: &Operation) -> Value {
    let (kind, answer, error) = match &operation.outcome {
        Outcome::Ok { answer, .. } => (Kind::Ok, Some(answer), None),
        Outcome::Refused(why) => (Kind::Fail, None, Some(why)),
        Outcome::Unknown(why) => (Kind::Info, None, Some(why)),
    };
    let returned = operation.returned.filter(|_| kind != Kind::Info);
    let place = |place: u64| i64::try_from(place).expect("a history is short");
    json!({
        "ClientId": operation.process,
        "Key": operation.key.to_string(),
        "Input": operation.call,
        "Call": place(operation.called.place),
        "Output": { "type": kind, "value": answer, "index": operation.index(), "error": error },
        "Return": returned.map_or(NEVER, |returned| place(returned.place)),
    })
}
