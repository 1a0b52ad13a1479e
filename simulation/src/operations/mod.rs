//! What clients asked and were told, in the words of the field: each operation is invoked and, with
//! luck, returns.
//!
//! Both rigs write this one format, so that one set of checkers reads it, and somebody else's can:
//! [`lines`] is the canonical text, [`edn`] what Knossos and Elle read, [`porcupine`] what a Go
//! program with Porcupine reads. Beside it each rig has a trace of its own; this is what is seen from
//! outside. The order of two events is that of their places, never that of their times alone.

pub mod edn;
pub mod lines;
pub mod porcupine;
mod recorder;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

pub use recorder::{Recorder, Ticket};

/// A place in a history, and its virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// How many events came before.
    pub place: u64,
    /// Microseconds since the world began.
    pub at_us: u64,
}

/// One operation of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asks. A process asks one thing at a time, and never again after an unknown outcome.
    pub process: u64,
    /// The client, the watch or the part of the rig that the process belongs to.
    pub session: u64,
    /// The process of the product that all of it went to; none where it could go anywhere.
    pub server: Option<Server>,
    /// When it was asked.
    pub called: Moment,
    /// When the answer came; none where none came.
    pub returned: Option<Moment>,
    /// What it is about.
    pub key: Key,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// One life of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// Which peer.
    pub peer: u64,
    /// Which of its processes, from 1.
    pub life: u64,
}

/// An object that operations are about. Each is linearizable on its own, so each is checked alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A job, by its number in the plan.
    Job(u64),
    /// The settings, all together: their version is one.
    Settings,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "snake_case")]
pub enum Call {
    /// Accept the job.
    Submit {
        /// Its idempotency key.
        key: Option<String>,
        /// Failed attempts after which it is failed.
        attempts_max: u32,
    },
    /// Call the job off.
    Cancel,
    /// Tell how the job is. May be answered from the past.
    Read,
    /// Tell the next change of the job.
    Watch,
    /// Give the job to a worker.
    Lease {
        /// Which.
        node: u64,
    },
    /// Accept the worker's result.
    Complete {
        /// Under which lease.
        token: u64,
        /// Digests of the pictures.
        result: Vec<String>,
    },
    /// Count a failed attempt.
    Fail {
        /// Under which lease.
        token: u64,
        /// Another attempt would fail too.
        permanent: bool,
    },
    /// End a lease.
    Revoke {
        /// Which.
        token: u64,
    },
    /// A lease ends since its worker begins anew or leaves.
    Lose {
        /// Which.
        token: u64,
    },
    /// Drop the job, which has ended.
    Forget,
    /// Tell all settings. May be answered from the past.
    ReadSettings,
    /// Change one setting by compare-and-set.
    Set {
        /// The version that must hold before.
        expected: u64,
        /// Which setting.
        name: String,
        /// Its new value.
        value: u64,
    },
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok {
        /// As it was answered.
        answer: Answer,
        /// The log index that the answer carries, where it carries one.
        index: Option<u64>,
    },
    /// It was certainly not done, and why.
    Refused(String),
    /// Nobody knows, and why; the process never asks again.
    Unknown(String),
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To a submission.
    Submitted {
        /// The job that holds: another one where the idempotency key was known.
        job: u64,
        /// It had been accepted before.
        duplicate: bool,
    },
    /// To a lease.
    Leased {
        /// Its fencing token.
        token: u64,
    },
    /// To whatever has nothing to tell.
    Done,
    /// To whoever asks for the job.
    Job(Seen),
    /// To whoever asks for a job that is not there.
    NoJob,
    /// To whatever is about settings.
    Settings {
        /// Rises by one with each change.
        version: u64,
        /// Those that any operation changes.
        values: BTreeMap<String, u64>,
    },
}

/// A job as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// Where it stands.
    pub phase: Phase,
    /// Of the current or last lease; 0 for none.
    pub token: u64,
    /// How often it was leased.
    pub leases: u32,
    /// Failed attempts.
    pub attempts: u32,
    /// Digests of the pictures.
    pub result: Vec<String>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits.
    Queued,
    /// Is worked on.
    Leased,
    /// Has its pictures.
    Succeeded,
    /// Was given up.
    Failed,
    /// Was called off.
    Cancelled,
}

impl Phase {
    /// Reads the product's word for a phase.
    pub fn of(word: &str) -> Option<Phase> {
        Some(match word {
            "queued" => Phase::Queued,
            "leased" => Phase::Leased,
            "succeeded" => Phase::Succeeded,
            "failed" => Phase::Failed,
            "cancelled" => Phase::Cancelled,
            _ => return None,
        })
    }

    /// Says whether it never changes.
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed | Phase::Cancelled)
    }
}

impl Operation {
    /// Returns the answer, where there is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok { answer, .. } => Some(answer),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Returns the log index that the answer carries.
    pub fn index(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Ok { index, .. } => *index,
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Returns the job that was shown.
    pub fn seen(&self) -> Option<&Seen> {
        match self.answer() {
            Some(Answer::Job(seen)) => Some(seen),
            _ => None,
        }
    }

    /// Says whether it returned before another was called.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.returned.is_some_and(|returned| returned.place < other.called.place)
    }
}

impl Call {
    /// Returns the word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Call::Submit { .. } => "submit",
            Call::Cancel => "cancel",
            Call::Read => "read",
            Call::Watch => "watch",
            Call::Lease { .. } => "lease",
            Call::Complete { .. } => "complete",
            Call::Fail { .. } => "fail",
            Call::Revoke { .. } => "revoke",
            Call::Lose { .. } => "lose",
            Call::Forget => "forget",
            Call::ReadSettings => "read_settings",
            Call::Set { .. } => "set",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Job(job) => write!(f, "job/{job}"),
            Key::Settings => f.write_str("settings"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, call) = (self.key, serde_json::to_string(&self.call).map_err(|_| fmt::Error)?);
        write!(f, "process {} asked {call} of {key} at {} us", self.process, self.called.at_us)?;
        match &self.outcome {
            Outcome::Ok { answer, index } => {
                write!(f, " and was told {answer:?}")?;
                index.map_or(Ok(()), |index| write!(f, " at index {index}"))
            }
            Outcome::Refused(why) => write!(f, " and was refused: {why}"),
            Outcome::Unknown(why) => write!(f, ", and nobody knows what came of it: {why}"),
        }
    }
}
