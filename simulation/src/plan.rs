//! What a run is to be: its size, its requests and its faults, all of it data.
//!
//! Owns the way from a seed to a plan, and the plan's text: one JSON object a line. A run takes a
//! plan and nothing else; its seed is in the plan and decides the latencies alone. So a plan can be
//! printed, cut down by hand and replayed, and a stored plan keeps its meaning when the drawing of
//! plans changes.

mod draw;

use crate::world::Drawing;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A whole run as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Sizes and times.
    pub shape: Shape,
    /// What clients ask, by time.
    pub requests: Vec<Request>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
}

/// Sizes and times of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Decides every latency of the run.
    pub seed: u64,
    /// Nodes, named from 1.
    pub workers: u64,
    /// Jobs that a worker draws at a time.
    pub slots: u32,
    /// Time after which silence is judged.
    pub lease_ms: u64,
    /// Time of one denoise step.
    pub step_ms: u64,
    /// Terminal jobs that the janitor keeps.
    pub jobs_kept: usize,
    /// When all faults are over.
    pub heal_ms: u64,
    /// Time from then on, after which everything must have come to rest.
    pub settle_ms: u64,
    /// From when on every process understands feature level 2; 0: never.
    #[serde(default)]
    pub raise_ms: u64,
    /// The setting `queue.ageing_jobs` from then on; 0: its default.
    #[serde(default)]
    pub ageing_jobs: u64,
    /// When an operator pauses the queue, at feature level 2; 0: never.
    #[serde(default)]
    pub pause_ms: u64,
    /// When it is resumed.
    #[serde(default)]
    pub resume_ms: u64,
}

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// When.
    pub at_ms: u64,
    /// Who.
    pub client: u32,
    /// What.
    pub ask: Ask,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Submit a job. The same wish again is a repeat; another job with the same key is a duplicate
    /// where the drawing is the same, and a conflict where it is another.
    Submit(Wish),
    /// Cancel a job.
    Cancel {
        /// Which.
        job: u32,
    },
    /// Look at a job in the view of a node, which may be late.
    Read {
        /// Which.
        job: u32,
        /// Where.
        node: u64,
    },
}

/// A job as a client wishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Its number in this run, from 1; decides its id.
    pub job: u32,
    /// Its idempotency key.
    pub key: Option<String>,
    /// 0..=9.
    pub priority: u8,
    /// Failed attempts after which it is failed.
    pub attempts_max: u32,
    /// Its parameters.
    pub drawing: Drawing,
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub kind: FaultKind,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    /// A worker's process dies and starts anew at the end, as another incarnation.
    WorkerCrash {
        /// Whose.
        node: u64,
    },
    /// A worker stands still, and goes on at the end as if nothing had been.
    WorkerPause {
        /// Which.
        node: u64,
    },
    /// A worker's signs of life are lost.
    BeatLoss {
        /// Whose.
        node: u64,
    },
    /// A worker sees each view so much later.
    SlowView {
        /// Which.
        node: u64,
        /// How much.
        by_ms: u64,
    },
    /// The leader's memory is gone; the next one begins at the end.
    LeaderChange,
    /// Whatever a worker's engine draws at the beginning is lost, and the engine starts anew.
    EngineCrash {
        /// Whose.
        node: u64,
    },
    /// Whatever a worker's engine draws at the beginning never ends; the watchdog kills the engine.
    EngineHang {
        /// Whose.
        node: u64,
    },
    /// A worker's engine gives up. Its process starts anew at the end.
    EngineUnfit {
        /// Whose.
        node: u64,
    },
    /// Proposals take so much longer to reach the log, each up to that.
    SlowProposals {
        /// How much at most.
        by_ms: u64,
    },
    /// Half of the proposals arrive a second time, up to so much later.
    DoubleProposals {
        /// How much at most.
        by_ms: u64,
    },
    /// A third of the proposals never arrive.
    ProposalLoss,
    /// Half of the answers are lost, so that the proposer tries again.
    AnswerLoss,
}

/// Why a text is not a plan.
#[derive(Debug)]
pub struct PlanError {
    line: usize,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Shape(Shape),
    Request(Request),
    Fault(Fault),
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn of(seed: u64) -> Plan {
        draw::plan(seed)
    }

    /// Writes the plan, a JSON object a line: the shape, then requests, then faults.
    pub fn to_lines(&self) -> String {
        let shape = std::iter::once(Line::Shape(self.shape.clone()));
        let requests = self.requests.iter().cloned().map(Line::Request);
        let faults = self.faults.iter().cloned().map(Line::Fault);
        let mut text = String::new();
        for line in shape.chain(requests).chain(faults) {
            text += &serde_json::to_string(&line).expect("a plan is plain data");
            text.push('\n');
        }
        text
    }

    /// Reads a plan; empty lines are passed over.
    ///
    /// # Errors
    /// When a line is none of a plan's, or there is no shape.
    pub fn from_lines(text: &str) -> Result<Plan, PlanError> {
        let (mut shape, mut requests, mut faults) = (None, Vec::new(), Vec::new());
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let read = serde_json::from_str(line);
            match read.map_err(|e| PlanError { line: at + 1, reason: e.to_string() })? {
                Line::Shape(it) => shape = Some(it),
                Line::Request(it) => requests.push(it),
                Line::Fault(it) => faults.push(it),
            }
        }
        let missing = || PlanError { line: 1, reason: "expected a line with the shape".to_owned() };
        Ok(Plan { shape: shape.ok_or_else(missing)?, requests, faults })
    }
}

impl FaultKind {
    /// Returns the node that it befalls; none when it befalls all.
    pub fn node(&self) -> Option<u64> {
        use FaultKind::*;
        match *self {
            WorkerCrash { node }
            | WorkerPause { node }
            | BeatLoss { node }
            | SlowView { node, .. }
            | EngineCrash { node }
            | EngineHang { node }
            | EngineUnfit { node } => Some(node),
            LeaderChange
            | SlowProposals { .. }
            | DoubleProposals { .. }
            | ProposalLoss
            | AnswerLoss => None,
        }
    }

    /// Returns the word for the kind.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::WorkerCrash { .. } => "worker crash",
            FaultKind::WorkerPause { .. } => "worker pause",
            FaultKind::BeatLoss { .. } => "beat loss",
            FaultKind::SlowView { .. } => "slow view",
            FaultKind::LeaderChange => "leader change",
            FaultKind::EngineCrash { .. } => "engine crash",
            FaultKind::EngineHang { .. } => "engine hang",
            FaultKind::EngineUnfit { .. } => "engine unfit",
            FaultKind::SlowProposals { .. } => "slow proposals",
            FaultKind::DoubleProposals { .. } => "double proposals",
            FaultKind::ProposalLoss => "proposal loss",
            FaultKind::AnswerLoss => "answer loss",
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the plan: {}", self.line, self.reason)
    }
}

impl std::error::Error for PlanError {}
