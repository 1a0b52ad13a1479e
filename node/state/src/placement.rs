//! Which queued job goes to which node. The leader's scheduler asks; `apply` judges the answer
//! anew.

use crate::command::Assign;
use crate::roster::NodeId;
use crate::state::State;
use std::collections::BTreeSet;

/// Suggests leases for the jobs at the head of the queue, at most `limit` of them.
///
/// Jobs go in serving order. Each goes to the alive, registered node with the most free slots, the
/// least id among equals. No node gets more than its free slots, and none that drains or is a
/// witness gets any. While the queue is paused there are none.
pub fn place(state: &State, alive: &BTreeSet<NodeId>, limit: usize) -> Vec<Assign> {
    if state.paused() {
        return Vec::new();
    }
    let mut free = Vec::new();
    for &id in alive {
        let Some(node) = state.node(id).filter(|node| node.is_open()) else { continue };
        let slots = usize::try_from(node.slots).expect("a u32 fits");
        let slots = slots.saturating_sub(state.leased_count_of(id));
        free.push(Free { node: id, incarnation: node.incarnation, slots });
    }
    let slots: usize = free.iter().map(|free| free.slots).sum();
    let mut assigns = Vec::new();
    for (job, _) in state.queued().take(limit.min(slots)) {
        // The last of equals wins: from the back, that is the least id.
        let roomiest = free.iter_mut().rev().max_by_key(|free| free.slots);
        let free = roomiest.expect("there are free slots");
        assert!(free.slots > 0);
        free.slots -= 1;
        assigns.push(Assign { job: *job, node: free.node, incarnation: free.incarnation });
    }
    assert!(assigns.len() <= limit);
    assigns
}

struct Free {
    node: NodeId,
    incarnation: u64,
    slots: usize,
}
