//! The roster: who may hold leases.

use crate::command::{AllocateNode, RegisterNode, RemoveNode, SetNode};
use crate::job::{JobId, Phase};
use crate::limits;
use crate::mutants::{self, Mutant};
use crate::reply::{LogIndex, Refusal, Reply};
use crate::roster::{Node, NodeId};
use crate::state::State;
use crate::trail::TrailRecord;

impl State {
    pub(super) fn allocate_node(
        &mut self,
        index: LogIndex,
        allocate: &AllocateNode,
    ) -> Result<Reply, Refusal> {
        let node = match mutants::is(Mutant::MemberIdReused) {
            true => (1..=index.0).map(NodeId).find(|node| self.node(*node).is_none()),
            false => None,
        };
        let node = node.unwrap_or(NodeId(index.0));
        if node.0 == 0 || self.node(node).is_some() {
            return Err(Refusal::Invalid(format!(
                "node: expected an id that is free, got {node}, the index of this entry; try again"
            )));
        }
        self.check_roster_room()?;
        let address = allocate.address.clone();
        self.nodes.insert(node, Node { address, ..Node::default() });
        assert!(self.nodes.len() <= limits::NODES_MAX);
        Ok(Reply::NodeAllocated { node })
    }

    pub(super) fn register_node(&mut self, register: &RegisterNode) -> Result<Reply, Refusal> {
        let known = self.node(register.node);
        match known {
            None => self.check_roster_room()?,
            Some(known) if register.incarnation < known.incarnation => {
                return Err(Refusal::StaleIncarnation(known.incarnation));
            }
            Some(_) => {}
        }
        let is_restarted = known.is_some_and(|known| register.incarnation > known.incarnation);
        // What operators said about it holds over its restarts.
        let node = Node {
            address: register.address.clone(),
            incarnation: register.incarnation,
            slots: register.slots,
            class: register.class.clone(),
            model: register.model.clone(),
            witness: register.witness,
            draining: known.is_some_and(|known| known.draining),
            labels: known.map(|known| known.labels.clone()).unwrap_or_default(),
        };
        assert!(node.is_registered());
        if is_restarted {
            self.revoke_leases_of(register.node);
        }
        self.nodes.insert(register.node, node);
        assert!(self.nodes.len() <= limits::NODES_MAX);
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(
        &mut self,
        index: LogIndex,
        remove: &RemoveNode,
    ) -> Result<Reply, Refusal> {
        if self.node(remove.node).is_none() {
            return Err(Refusal::UnknownNode);
        }
        self.revoke_leases_of(remove.node);
        self.nodes.remove(&remove.node);
        if self.has_level_2() {
            let act = format!("remove node {}", remove.node);
            self.note_act(TrailRecord { index, act, author: remove.author.clone() });
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_node(&mut self, index: LogIndex, set: &SetNode) -> Result<Reply, Refusal> {
        let mut node = self.node(set.node).cloned().ok_or(Refusal::UnknownNode)?;
        node.draining = set.draining.unwrap_or(node.draining);
        set.labels_removed.iter().for_each(|label| drop(node.labels.remove(label)));
        node.labels.extend(set.labels_set.clone());
        let (most, labels) = (limits::LABELS_MAX, node.labels.len());
        if labels > most {
            let text = format!("labels: expected at most {most} on a node, got {labels}");
            return Err(Refusal::Invalid(text));
        }
        self.nodes.insert(set.node, node);
        self.note_act(TrailRecord { index, act: act_of(set), author: set.author.clone() });
        Ok(Reply::Done)
    }

    fn revoke_leases_of(&mut self, node: NodeId) {
        let jobs: Vec<JobId> = self.leases_of(node).map(|(job, _)| job).collect();
        assert!(jobs.len() <= limits::SLOTS_MAX as usize);
        for job in jobs {
            self.change(job, |job| job.phase = Phase::Queued);
        }
        assert_eq!(self.leased_count_of(node), 0);
    }

    fn check_roster_room(&self) -> Result<(), Refusal> {
        if self.nodes.len() >= limits::NODES_MAX { Err(Refusal::RosterFull) } else { Ok(()) }
    }
}

fn act_of(set: &SetNode) -> String {
    let draining = set.draining.map(|it| if it { "drain" } else { "resume" }.to_owned());
    let removed = set.labels_removed.iter().map(|label| format!("take away label {label}"));
    let added = set.labels_set.iter().map(|(label, value)| format!("set label {label}={value}"));
    let acts: Vec<String> = draining.into_iter().chain(removed).chain(added).collect();
    let mut act = format!("node {}: {}", set.node, acts.join(", "));
    act.truncate(act.floor_char_boundary(limits::TEXT_BYTES_MAX));
    act
}
