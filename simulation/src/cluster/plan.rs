//! What a run of whole peers is to be: sizes, wishes and faults, all of it data.
//!
//! As in the core rig a run takes the plan and nothing else; its seed decides latencies alone.

use super::deeds::{self, Deed};
use crate::world::{Damage, Rng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole run as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Sizes and times.
    pub shape: Shape,
    /// What clients ask, by time.
    pub wishes: Vec<Wish>,
    /// What clients do besides, by time.
    #[serde(default)]
    pub deeds: Vec<Deed>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
    /// What the operator does, by time, one after another.
    #[serde(default)]
    pub acts: Vec<Act>,
}

/// Sizes and times of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Decides every latency of the run.
    pub seed: u64,
    /// Peers at the beginning, named from 1; all vote.
    pub peers: u64,
    /// Machines that stand by, numbered after the peers; none runs until the operator lets it join.
    #[serde(default)]
    pub spares: u64,
    /// Clients, each with the addresses of all peers.
    pub clients: u64,
    /// Time of one denoise step.
    pub step_ms: u64,
    /// Time after which silence is judged.
    pub lease_ms: u64,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Denoise steps between checkpoints; 0: none, as steps are quick.
    pub checkpoint_steps: u32,
    /// Classes of engines, by turns over the machines: each computes otherwise. 0 and 1: all are the same.
    #[serde(default)]
    pub classes: u64,
    /// When all faults are over.
    pub heal_ms: u64,
    /// Time from then on, after which everything must have come to rest.
    pub settle_ms: u64,
}

/// A job that a client wants drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// When.
    pub at_ms: u64,
    /// Who, from 0.
    pub client: u64,
    /// Its number in this run, from 1.
    pub job: u64,
    /// When its client calls it off, after it was accepted; 0: never.
    pub cancel_ms: u64,
}

/// Something that the operator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When, at the earliest.
    pub at_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: ActKind,
}

/// The acts of an operator; machines are named by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum ActKind {
    /// Hands the lead over.
    Transfer {
        /// To whom.
        to: u64,
    },
    /// Puts a spare machine into a peer's place.
    Replace {
        /// The peer.
        leaves: u64,
        /// The spare.
        comes: u64,
    },
    /// Lets a spare machine join, and gives it a vote.
    Add {
        /// The spare.
        comes: u64,
    },
    /// Takes a peer out.
    Remove {
        /// The peer.
        leaves: u64,
    },
    /// Takes a peer's vote away.
    Demote {
        /// Whose.
        peer: u64,
    },
    /// Gives a vote back.
    Promote {
        /// Whose.
        peer: u64,
    },
    /// Lets a peer have no new jobs, or jobs again.
    Drain {
        /// Which.
        peer: u64,
        /// Whether it drains.
        draining: bool,
    },
}

impl ActKind {
    /// Returns the word for the kind.
    pub fn name(&self) -> &'static str {
        match self {
            ActKind::Transfer { .. } => "transfer",
            ActKind::Replace { .. } => "replace",
            ActKind::Add { .. } => "add",
            ActKind::Remove { .. } => "remove",
            ActKind::Demote { .. } => "demote",
            ActKind::Promote { .. } => "promote",
            ActKind::Drain { draining: true, .. } => "drain",
            ActKind::Drain { draining: false, .. } => "resume",
        }
    }

    /// The spare that joins by it.
    pub fn comes(&self) -> Option<u64> {
        match *self {
            ActKind::Replace { comes, .. } | ActKind::Add { comes } => Some(comes),
            _ => None,
        }
    }

    /// The peer that leaves by it.
    pub fn leaves(&self) -> Option<u64> {
        match *self {
            ActKind::Replace { leaves, .. } | ActKind::Remove { leaves } => Some(leaves),
            _ => None,
        }
    }

    /// Whether a machine comes or leaves by it.
    pub fn moves(&self, machine: u64) -> bool {
        self.comes() == Some(machine) || self.leaves() == Some(machine)
    }
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    /// A peer loses its power, and whatever its disk had not synced; it starts at the end.
    Crash {
        /// Which.
        peer: u64,
    },
    /// Every peer loses its power at once.
    PowerCut,
    /// A peer stands still, and goes on at the end as if nothing had been.
    Pause {
        /// Which.
        peer: u64,
    },
    /// A peer and everybody else do not hear one another.
    Isolate {
        /// Which.
        peer: u64,
    },
    /// One peer is not heard by another, which it hears.
    OneWay {
        /// Who is not heard.
        from: u64,
        /// By whom.
        to: u64,
    },
    /// All hear one peer, and nobody else.
    Bridge {
        /// Which.
        peer: u64,
    },
    /// Every frame takes up to so much longer.
    SlowLinks {
        /// How much.
        by_ms: u64,
    },
    /// Every sync of a peer's disk takes so much longer.
    SlowDisk {
        /// Whose.
        peer: u64,
        /// How much.
        by_ms: u64,
    },
    /// A peer's disk fails its writes; the peer is started anew at the end, with a disk that works.
    DiskFailure {
        /// Whose.
        peer: u64,
    },
    /// A peer loses its power, and an entry of its log was written wrong. It must not start from that; the disk is
    /// mended at the end.
    Damage {
        /// Whose.
        peer: u64,
        /// How.
        how: Damage,
    },
    /// At the end a peer has the disk that it had at the beginning, until it is found out. In plans that are written
    /// by hand alone: who was acknowledged what by such a peer depends on who leads.
    OldDisk {
        /// Whose.
        peer: u64,
    },
    /// A peer's wall clock is wrong.
    Skew {
        /// Whose.
        peer: u64,
        /// By how much.
        by_ms: i64,
    },
}

impl FaultKind {
    /// Returns the word for the kind.
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::Crash { .. } => "crash",
            FaultKind::PowerCut => "power cut",
            FaultKind::Pause { .. } => "pause",
            FaultKind::Isolate { .. } => "isolated peer",
            FaultKind::OneWay { .. } => "one-way partition",
            FaultKind::Bridge { .. } => "bridge",
            FaultKind::SlowLinks { .. } => "slow links",
            FaultKind::SlowDisk { .. } => "slow disk",
            FaultKind::DiskFailure { .. } => "disk failure",
            FaultKind::Damage { how, .. } => how.name(),
            FaultKind::OldDisk { .. } => "older copy of a disk",
            FaultKind::Skew { .. } => "clock skew",
        }
    }
}

const KINDS: u64 = 10;
/// Machines that stand by: one to replace a peer with, one to add.
const SPARES: u64 = 2;

impl Plan {
    /// The plan of a seed for a rig that has no operator, and not every kind of fault.
    pub fn limited_to(seed: u64, can_be: impl Fn(&FaultKind) -> bool) -> Plan {
        let mut plan = Plan::of(seed);
        plan.acts.clear();
        plan.shape.spares = 0;
        plan.faults.retain(|fault| can_be(&fault.kind));
        plan
    }

    /// How many faults there are of each kind.
    pub fn faults_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for fault in &self.faults {
            *kinds.entry(fault.kind.name()).or_default() += 1;
        }
        kinds
    }

    /// Draws the plan of a seed: every kind of fault is in or out, so that some runs see one kind
    /// alone and some see many together.
    pub fn of(seed: u64) -> Plan {
        let rng = &mut Rng::of(seed, "cluster plan");
        let heal_ms = rng.between(15_000..=45_000);
        let shape = Shape {
            seed,
            peers: if rng.chance(75) { 3 } else { 5 },
            spares: SPARES,
            clients: rng.between(1..=4),
            step_ms: rng.between(20..=300),
            lease_ms: rng.between(1_000..=3_000),
            snapshot_entries: if rng.chance(50) { rng.between(10..=60) } else { 10_000 },
            checkpoint_steps: if rng.chance(70) { rng.between(1..=3) as u32 } else { 0 },
            // From numbers of their own: all else stays what it was.
            classes: if Rng::of(seed, "cluster classes").chance(30) { 2 } else { 1 },
            heal_ms,
            settle_ms: 120_000,
        };
        let mut wishes: Vec<Wish> = (1..=rng.between(5..=40))
            .map(|job| Wish {
                at_ms: 1_000 + rng.below(heal_ms * 9 / 10 - 1_000),
                client: rng.below(shape.clients),
                job,
                cancel_ms: if rng.chance(10) { 1 + rng.below(3_000) } else { 0 },
            })
            .collect();
        wishes.sort_by_key(|wish| wish.at_ms);
        let mut faults = faults(rng, &shape);
        faults.extend(damage(&mut Rng::of(seed, "cluster damage"), &shape));
        faults.sort_by_key(|fault| fault.at_ms);
        let deeds = deeds::draw(&shape, wishes.len() as u64);
        let acts = acts(&mut Rng::of(seed, "cluster operator"), &shape);
        Plan { shape, wishes, deeds, faults, acts }
    }
}

fn faults(rng: &mut Rng, shape: &Shape) -> Vec<Fault> {
    let mut drawn = Vec::new();
    for kind in 0..KINDS {
        if rng.chance(50) {
            continue;
        }
        for _ in 0..rng.between(1..=3) {
            let kind = kind_of(rng, shape, kind);
            let latest = shape.heal_ms - 1_000;
            let for_ms = rng.between(50..=8_000).min(latest - 2_000);
            let at_ms = rng.between(2_000..=latest - for_ms);
            drawn.push(Fault { at_ms, for_ms, kind });
        }
    }
    drawn.sort_by_key(|fault| fault.at_ms);
    drawn
}

/// Draws writes that went wrong; in most of the runs none.
fn damage(rng: &mut Rng, shape: &Shape) -> Option<Fault> {
    if !rng.chance(30) {
        return None;
    }
    let (peer, how) = (rng.between(1..=shape.peers), *rng.pick(&Damage::ALL));
    let latest = shape.heal_ms - 1_000;
    let for_ms = rng.between(500..=6_000).min(latest - 2_000);
    let at_ms = rng.between(2_000..=latest - for_ms);
    Some(Fault { at_ms, for_ms, kind: FaultKind::Damage { peer, how } })
}

/// Draws what the operator does; in half of the runs nothing.
fn acts(rng: &mut Rng, shape: &Shape) -> Vec<Act> {
    let mut drawn = Vec::new();
    if rng.chance(50) {
        return drawn;
    }
    let (replacement, newcomer) = (shape.peers + 1, shape.peers + 2);
    let replaced = rng.between(1..=shape.peers);
    let other = 1 + replaced % shape.peers;
    let at = |rng: &mut Rng| rng.between(2_000..=shape.heal_ms - 1_000);
    let mut pair = |rng: &mut Rng, first: ActKind, second: ActKind| {
        let (one, two) = (at(rng), at(rng));
        drawn.push(Act { at_ms: one.min(two), kind: first });
        drawn.push(Act { at_ms: one.max(two), kind: second });
    };
    if rng.chance(50) {
        let to = |rng: &mut Rng| ActKind::Transfer { to: rng.between(1..=shape.peers) };
        let (first, second) = (to(rng), to(rng));
        pair(rng, first, second);
    }
    if rng.chance(50) {
        let first = ActKind::Replace { leaves: replaced, comes: replacement };
        pair(rng, first, ActKind::Transfer { to: replacement });
    }
    if rng.chance(40) {
        pair(rng, ActKind::Add { comes: newcomer }, ActKind::Remove { leaves: other });
    }
    if rng.chance(30) {
        pair(rng, ActKind::Demote { peer: other }, ActKind::Promote { peer: other });
    }
    if rng.chance(40) {
        let drain = |draining| ActKind::Drain { peer: other, draining };
        pair(rng, drain(true), drain(false));
    }
    drawn.sort_by_key(|act| act.at_ms);
    drawn
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn kind_of(rng: &mut Rng, shape: &Shape, kind: u64) -> FaultKind {
    let peer = rng.between(1..=shape.peers);
    match kind {
        0 => FaultKind::Crash { peer },
        1 => FaultKind::PowerCut,
        2 => FaultKind::Pause { peer },
        3 => FaultKind::Isolate { peer },
        4 => FaultKind::OneWay { from: peer, to: 1 + peer % shape.peers },
        5 => FaultKind::Bridge { peer },
        6 => FaultKind::SlowLinks { by_ms: rng.between(5..=400) },
        7 => FaultKind::SlowDisk { peer, by_ms: rng.between(5..=800) },
        8 => FaultKind::DiskFailure { peer },
        _ => {
            // Longer than anything is kept: a clock that counted would forget a history.
            let by_ms = i64::try_from(rng.between(1..=30 * DAY_MS)).expect("a month fits");
            // One peer's alone: what most clocks say is the time.
            let peer = 1 + shape.seed % shape.peers;
            FaultKind::Skew { peer, by_ms: if rng.chance(50) { by_ms } else { -by_ms } }
        }
    }
}
