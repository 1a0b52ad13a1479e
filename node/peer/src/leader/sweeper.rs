//! Takes nodes out of the roster that are members no more.
//!
//! Whoever removes a member takes it out of both, and may die between the two; and a peer that was
//! removed and has not heard of it may register once more. A node registers as a member only, so one
//! that is registered and no member was one. What is not registered may be on its way in.

use crate::view::View;
use atelier_state::Author;
use atelier_state::command::{Command, RemoveNode};
use atelier_state::roster::NodeId;
use std::collections::BTreeSet;

/// Removals of one round; further ones wait for the next.
pub(super) const ROUND_MAX: usize = 4;

/// Returns a RemoveNode for each registered node that is no member; none while the members are not
/// known.
pub(super) fn sweep(view: &View, members: &BTreeSet<NodeId>) -> Vec<Command> {
    if members.is_empty() {
        return Vec::new();
    }
    let registered = view.state.nodes().filter(|(_, node)| node.is_registered());
    let strangers = registered.map(|(node, _)| node).filter(|node| !members.contains(node));
    let remove = |node| Command::RemoveNode(RemoveNode { node, author: Author::default() });
    strangers.take(ROUND_MAX).map(remove).collect()
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
        assert_eq!(sweep(&view, &BTreeSet::new()), [], "the members are not known");
        let swept = sweep(&view, &BTreeSet::from([NodeId(1)]));
        let author = Author::default();
        assert_eq!(swept, [Command::RemoveNode(RemoveNode { node: NodeId(2), author })]);
    }
}
