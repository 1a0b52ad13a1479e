//! Everything that can happen in the core rig.

use crate::world::Course;
use atelier_peer::liveness::Beat;
use atelier_peer::view::View;
use atelier_state::{Command, FencingToken, JobId, Reply};

/// One attempt: a job under a lease.
pub(crate) type Attempt = (JobId, FencingToken);

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client's request is due; its place in the plan.
    Request(usize),
    /// A fault begins; its place in the plan.
    FaultBegins(usize),
    /// A fault ends.
    FaultEnds(usize),
    /// All faults are over.
    Heal,
    /// Everything should have come to rest.
    Deadline,
    /// A proposal reaches whoever leads.
    Arrive(Proposal),
    /// What has arrived is committed as one entry, and applied.
    Flush,
    /// A proposer gets its answer.
    Answer(Answer),
    /// A proposer had no answer for long.
    Retry(Origin, u64),
    /// A worker sees a view.
    View(u64, Box<View>),
    /// A worker gives a sign of life.
    Beat(Process),
    /// The leader hears one.
    Heard(Beat),
    /// The leader looks again.
    LeaderTick,
    /// A draw ends.
    Drawn(Process, Attempt, u64, Course),
    /// A worker's engine has loaded its model.
    Loaded(Process, u64),
}

/// One process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) node: u64,
    pub(crate) incarnation: u64,
}

/// Who proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client, by the place of its request.
    Client(usize),
    /// A worker's process.
    Worker(Process),
    /// A leadership, by its term.
    Leader(u64),
    /// Nobody that waits: a copy that the network made.
    Nobody,
}

/// Commands on their way to the log.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    pub(crate) commands: Vec<Command>,
}

/// Replies on their way back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    pub(crate) index: u64,
    pub(crate) replies: Vec<Reply>,
}

impl Event {
    /// Returns the node whose process must run for this to happen.
    pub(crate) fn node(&self) -> Option<u64> {
        match self {
            Event::View(node, _) => Some(*node),
            Event::Beat(process) | Event::Drawn(process, ..) | Event::Loaded(process, _) => {
                Some(process.node)
            }
            Event::Answer(Answer { origin, .. }) | Event::Retry(origin, _) => match origin {
                Origin::Worker(process) => Some(process.node),
                Origin::Client(_) | Origin::Leader(_) | Origin::Nobody => None,
            },
            Event::Request(_)
            | Event::FaultBegins(_)
            | Event::FaultEnds(_)
            | Event::Heal
            | Event::Deadline
            | Event::Arrive(_)
            | Event::Flush
            | Event::Heard(_)
            | Event::LeaderTick => None,
        }
    }
}
