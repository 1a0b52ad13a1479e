//! The canonical text: one event a line, each a JSON object.
//!
//! ```text
//! {"place":0,"at_us":1000,"process":0,"session":1,"type":"invoke","key":"job/7","f":"submit","value":{…}}
//! {"place":1,"at_us":4000,"process":0,"session":1,"type":"ok","key":"job/7","f":"submit","value":{…},"index":12}
//! ```
//!
//! `type` is Jepsen's: `invoke`, then `ok`, `fail` (certainly not done) or `info` (nobody knows). An
//! operation that never returned has its first line alone.

use super::{Answer, Call, Key, Moment, Operation, Outcome, Server};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// An event of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its place in the history, from 0.
    pub place: u64,
    /// Microseconds since the world began.
    pub at_us: u64,
    /// Who asks, one thing at a time.
    pub process: u64,
    /// Whom the process belongs to.
    pub session: u64,
    /// The process of the product that all of it went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// Which event it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is about.
    pub key: String,
    /// What was asked.
    pub f: String,
    /// The argument of an `invoke`, the answer of an `ok`.
    #[serde(default)]
    pub value: Value,
    /// The log index that an answer carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Why it was refused, or is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is asked.
    Invoke,
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Nobody knows.
    Info,
}

/// Why a text is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinesError {
    /// Which line, from 1.
    pub line: usize,
    /// Expected and got.
    pub reason: String,
}

impl fmt::Display for LinesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the history: {}", self.line, self.reason)
    }
}

impl std::error::Error for LinesError {}

/// Puts the events of a history into their order.
pub fn events(history: &[Operation]) -> Vec<Line> {
    let mut events: Vec<Line> = history.iter().flat_map(events_of).collect();
    events.sort_by_key(|event| event.place);
    events
}

/// Writes a history, each line with its end.
pub fn write(history: &[Operation]) -> String {
    let line = |event: &Line| serde_json::to_string(event).expect("an event is plain data") + "\n";
    events(history).iter().map(line).collect()
}

/// Reads a history that [`write`] wrote.
///
/// # Errors
/// Names the first line that is none, or that does not fit to those before it.
pub fn read(text: &str) -> Result<Vec<Operation>, LinesError> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, text) in text.lines().enumerate() {
        let wrong = |reason: String| LinesError { line: at + 1, reason };
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if line.kind == Kind::Invoke {
            let operation = invoked(&line).map_err(wrong)?;
            if open.insert(line.process, operations.len()).is_some() {
                return Err(wrong(format!("process {} asks two things at a time", line.process)));
            }
            operations.push(operation);
        } else {
            let asked = open.remove(&line.process);
            let asked = asked.ok_or_else(|| wrong("an answer to nothing".to_owned()))?;
            let operation = &mut operations[asked];
            operation.outcome = outcome_of(&line).map_err(wrong)?;
            operation.returned = Some(Moment { place: line.place, at_us: line.at_us });
        }
    }
    Ok(operations)
}

fn events_of(operation: &Operation) -> Vec<Line> {
    let asked = serde_json::to_value(&operation.call).expect("a call is plain data");
    let called = Line {
        place: operation.called.place,
        at_us: operation.called.at_us,
        process: operation.process,
        session: operation.session,
        server: operation.server,
        kind: Kind::Invoke,
        key: operation.key.to_string(),
        f: operation.call.name().to_owned(),
        value: asked.get("value").cloned().unwrap_or(Value::Null),
        index: None,
        error: None,
    };
    let Some(returned) = operation.returned else { return vec![called] };
    let told = |answer: &Answer| serde_json::to_value(answer).expect("an answer is plain data");
    let (kind, value, index, error) = match &operation.outcome {
        Outcome::Ok { answer, index } => (Kind::Ok, told(answer), *index, None),
        Outcome::Refused(why) => (Kind::Fail, Value::Null, None, Some(why.clone())),
        Outcome::Unknown(why) => (Kind::Info, Value::Null, None, Some(why.clone())),
    };
    let Moment { place, at_us } = returned;
    let answered = Line { place, at_us, kind, value, index, error, ..called.clone() };
    vec![called, answered]
}

fn invoked(line: &Line) -> Result<Operation, String> {
    let call = match &line.value {
        Value::Null => serde_json::json!({ "f": line.f }),
        value => serde_json::json!({ "f": line.f, "value": value }),
    };
    let call: Call = serde_json::from_value(call).map_err(|error| error.to_string())?;
    Ok(Operation {
        process: line.process,
        session: line.session,
        server: line.server,
        called: Moment { place: line.place, at_us: line.at_us },
        returned: None,
        key: key_of(&line.key)?,
        call,
        outcome: Outcome::Unknown("no answer by the end of the run".to_owned()),
    })
}

fn outcome_of(line: &Line) -> Result<Outcome, String> {
    let why = || line.error.clone().unwrap_or_default();
    Ok(match line.kind {
        Kind::Ok => {
            let answer = serde_json::from_value(line.value.clone());
            Outcome::Ok { answer: answer.map_err(|error| error.to_string())?, index: line.index }
        }
        Kind::Fail => Outcome::Refused(why()),
        Kind::Info => Outcome::Unknown(why()),
        Kind::Invoke => return Err("an invoke answers nothing".to_owned()),
    })
}

fn key_of(text: &str) -> Result<Key, String> {
    let job = text.strip_prefix("job/").and_then(|job| job.parse().ok());
    match (text, job) {
        ("settings", _) => Ok(Key::Settings),
        (_, Some(job)) => Ok(Key::Job(job)),
        _ => Err(format!("{text} is neither settings nor a job")),
    }
}
