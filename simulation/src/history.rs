//! What happened in a run, as plain data: the only thing that checkers see.
//!
//! Jobs are named by their numbers in the plan. A record's text is one JSON object a line, so a
//! history can be stored, searched and judged again by other means.

use crate::plan::FaultKind;
use serde::{Deserialize, Serialize};

/// One fact with its place and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the history, from 0.
    pub i: usize,
    /// When.
    pub at_ms: u64,
    /// What.
    pub fact: Fact,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A command of an entry was applied.
    Applied {
        /// Of the entry.
        index: u64,
        /// As it was proposed.
        command: Asked,
        /// As it was answered.
        reply: Answered,
    },
    /// A lease ended because its node was registered anew or removed.
    LeaseLost {
        /// Whose lease.
        job: u32,
        /// Which.
        token: u64,
    },
    /// A job was dropped from the state.
    Forgotten {
        /// Which.
        job: u32,
        /// The phase that it had.
        phase: String,
    },
    /// A client got its answer.
    Told {
        /// Who.
        client: u32,
        /// What it had asked.
        command: Asked,
        /// What it was told.
        reply: Answered,
    },
    /// A client looked at a job.
    Read {
        /// Who.
        client: u32,
        /// In whose view.
        node: u64,
        /// At which job.
        job: u32,
        /// None where the view does not have the job.
        phase: Option<String>,
        /// Digests.
        artifacts: Vec<String>,
    },
    /// A worker began to draw.
    Began {
        /// Who.
        node: u64,
        /// Which of its processes.
        incarnation: u64,
        /// What.
        job: u32,
        /// Under which lease.
        token: u64,
    },
    /// A worker's draw ended: `drawn`, `refused`, `crashed` or `stopped`.
    Ended {
        /// Who.
        node: u64,
        /// What.
        job: u32,
        /// Under which lease.
        token: u64,
        /// How.
        how: String,
    },
    /// A worker's process started.
    Started {
        /// Whose.
        node: u64,
        /// Which.
        incarnation: u64,
    },
    /// A worker's process died.
    Died {
        /// Whose.
        node: u64,
    },
    /// A leadership began.
    Leads {
        /// Which.
        term: u64,
    },
    /// A fault began.
    Fault {
        /// What.
        #[serde(flatten)]
        kind: FaultKind,
        /// How long it lasts.
        for_ms: u64,
    },
    /// How the queue stands, before and after the state went through a snapshot.
    Order {
        /// It is the snapshot's.
        restored: bool,
        /// The jobs that wait for a slot, in serving order.
        jobs: Vec<u32>,
        /// The jobs in back-off, by its end.
        delayed: Vec<u32>,
    },
    /// All faults are over.
    Healed,
    /// A fresh job is submitted, to see that the cluster works.
    Probed {
        /// Its number.
        job: u32,
    },
    /// How a job stands at the end.
    Final {
        /// Which.
        job: u32,
        /// Its phase.
        phase: String,
        /// Of its last lease, 0 where there was none.
        token: u64,
        /// Digests.
        artifacts: Vec<String>,
    },
    /// The run is over; all `Final` came before.
    Over,
}

/// A command as the history tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// `Submit`.
    Submit {
        /// Which job.
        job: u32,
        /// Its idempotency key.
        key: Option<String>,
        /// Its parameters, JSON themselves.
        parameters: String,
    },
    /// `Assign`.
    Assign {
        /// Which job.
        job: u32,
        /// To whom.
        node: u64,
        /// To which of its processes.
        incarnation: u64,
    },
    /// `Complete`.
    Complete {
        /// Which job.
        job: u32,
        /// Under which lease.
        token: u64,
        /// Digests.
        artifacts: Vec<String>,
    },
    /// `Fail`.
    Fail {
        /// Which job.
        job: u32,
        /// Under which lease.
        token: u64,
        /// Another attempt would fail too.
        permanent: bool,
    },
    /// `Revoke`.
    Revoke {
        /// Which job.
        job: u32,
        /// Which lease.
        token: u64,
    },
    /// `Cancel`.
    Cancel {
        /// Which job.
        job: u32,
    },
    /// `Forget`.
    Forget {
        /// Which jobs.
        jobs: Vec<u32>,
    },
    /// `RegisterNode`.
    Register {
        /// Which node.
        node: u64,
        /// Which of its processes.
        incarnation: u64,
        /// Jobs it may draw at a time.
        slots: u32,
    },
    /// `Release`.
    Release {
        /// Which jobs.
        jobs: Vec<u32>,
    },
    /// `RaiseFeatures`.
    Raise {
        /// To which level.
        level: u32,
    },
    /// `SetSettings`.
    Set {
        /// `key=value`, each.
        changes: Vec<String>,
    },
    /// A command that no rig proposes yet.
    Other(String),
}

/// A reply as the history tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// `Submitted`.
    Submitted {
        /// The job that holds.
        job: u32,
        /// It had been accepted before.
        duplicate: bool,
    },
    /// `Assigned`.
    Assigned {
        /// The new lease's.
        token: u64,
    },
    /// `Done`.
    Done,
    /// `Refused`, and why.
    Refused(String),
}

impl Record {
    /// Writes the record as a line of JSON, without its end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a record is plain data")
    }
}

impl Fact {
    /// Names the jobs that it is about.
    pub fn jobs(&self) -> Vec<u32> {
        match self {
            Fact::Applied { command, reply, .. } | Fact::Told { command, reply, .. } => {
                let mut jobs = command.jobs();
                if let Answered::Submitted { job, .. } = reply {
                    jobs.push(*job);
                }
                jobs
            }
            Fact::LeaseLost { job, .. }
            | Fact::Forgotten { job, .. }
            | Fact::Read { job, .. }
            | Fact::Began { job, .. }
            | Fact::Ended { job, .. }
            | Fact::Probed { job }
            | Fact::Final { job, .. } => vec![*job],
            Fact::Started { .. }
            | Fact::Died { .. }
            | Fact::Leads { .. }
            | Fact::Order { .. }
            | Fact::Fault { .. }
            | Fact::Healed
            | Fact::Over => Vec::new(),
        }
    }
}

impl Asked {
    /// Names the jobs that it is about.
    pub fn jobs(&self) -> Vec<u32> {
        match self {
            Asked::Submit { job, .. }
            | Asked::Assign { job, .. }
            | Asked::Complete { job, .. }
            | Asked::Fail { job, .. }
            | Asked::Revoke { job, .. }
            | Asked::Cancel { job } => vec![*job],
            Asked::Forget { jobs } | Asked::Release { jobs } => jobs.clone(),
            Asked::Register { .. } | Asked::Raise { .. } | Asked::Set { .. } | Asked::Other(_) => {
                Vec::new()
            }
        }
    }
}
