//! Takes nodes out of the roster that are members no more.
//!
//! Whoever removes a member takes it out of both, and may die between the two; and a peer that was
//! removed and has not heard of it may register once more. A node registers as a member only, so one
//! that is registered and no member was one. What is not registered may be on its way in.

use crate::view::View;
use atelier_state::Author;
use atelier_state::command::{Command, RemoveNode};
use atelier_state::roster::{Node, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Removals of one round; further ones wait for the next.
pub(super) const ROUND_MAX: usize = 4;

/// The sweeper of one leadership.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    // Since when a node of the roster was seen to be no member; bounded by the roster.
    since: BTreeMap<NodeId, Duration>,
}

impl Sweeper {
    /// Returns a RemoveNode for each registered node that has been no member for a lease's time; none
    /// while the members are not known. The members are told apart from the view, and may be behind it
    /// for a moment: a newcomer that has just registered must not go.
    pub(super) fn decide(
        &mut self,
        now: Duration,
        view: &View,
        members: &BTreeSet<NodeId>,
        lease: Duration,
    ) -> Vec<Command> {
        let is_stranger = |node: NodeId| {
            let known = view.state.node(node);
            !members.is_empty()
                && !members.contains(&node)
                && known.is_some_and(Node::is_registered)
        };
        self.since.retain(|node, _| is_stranger(*node));
        for (node, _) in view.state.nodes().filter(|(node, _)| is_stranger(*node)) {
            self.since.entry(node).or_insert(now);
        }
        let due = self.since.iter().filter(|(_, since)| now.saturating_sub(**since) > lease);
        let remove = |node| Command::RemoveNode(RemoveNode { node, author: Author::default() });
        due.take(ROUND_MAX).map(|(node, _)| remove(*node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_state::{AllocateNode, LogIndex, RegisterNode};

    #[test]
    fn who_registered_and_is_no_member_goes_and_who_is_on_its_way_in_stays() {
        let mut view = View::default();
        let register = |node| {
            Command::RegisterNode(RegisterNode {
                node: NodeId(node),
                address: format!("http://127.0.0.1:{node}"),
                incarnation: 1,
                slots: 1,
                class: String::new(),
                model: String::new(),
                witness: false,
            })
        };
        let allocate = AllocateNode { address: "http://127.0.0.1:9".to_owned() };
        let commands = [register(1), register(2), Command::AllocateNode(allocate)];
        for (index, command) in (1..).zip(&commands) {
            view.state.apply(LogIndex(index), command);
        }
        assert_eq!(view.state.nodes().count(), 3);
        let (mut sweeper, lease) = (Sweeper::default(), Duration::from_secs(2));
        let mut swept = |second, members: &[u64]| {
            let members = members.iter().copied().map(NodeId).collect();
            sweeper.decide(Duration::from_secs(second), &view, &members, lease)
        };
        assert_eq!(swept(0, &[1]), [], "the members may be behind the view");
        assert_eq!(swept(1, &[1, 2]), [], "they were");
        assert_eq!((swept(2, &[1]), swept(4, &[1])), (vec![], vec![]));
        let author = Author::default();
        assert_eq!(swept(5, &[1]), [Command::RemoveNode(RemoveNode { node: NodeId(2), author })]);
        assert_eq!(swept(6, &[]), [], "the members are not known");
    }
}
