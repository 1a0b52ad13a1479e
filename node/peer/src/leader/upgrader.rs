//! Raises the feature level once every member understands the next.
//!
//! A level is raised by the log and never lowered. A member that has not been heard of holds it
//! back: an old process would stop at a command that it does not know.

use crate::liveness::Liveness;
use crate::view::View;
use atelier_state::command::{Command, RaiseFeatures};
use atelier_state::limits::FEATURES;
use atelier_state::roster::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

/// Returns a RaiseFeatures when all members, learners too, understand a higher level than the
/// cluster has.
pub fn raise(
    now: Duration,
    view: &View,
    liveness: &Liveness,
    members: &BTreeSet<NodeId>,
) -> Option<Command> {
    let present = view.state.features();
    if present >= FEATURES || members.is_empty() {
        return None;
    }
    let understood: Option<Vec<u32>> =
        members.iter().map(|node| liveness.features(now, *node)).collect();
    let level = understood?.into_iter().min()?.min(FEATURES);
    (level > present).then_some(Command::RaiseFeatures(RaiseFeatures { level }))
}
