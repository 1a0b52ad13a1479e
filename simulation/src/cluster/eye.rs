//! Shows the eye of `checkers::raft` what happens: disks when they sync, peers when their status or
//! their view changes.
//!
//! Whoever looks at a process is no part of it, so a peer that stands still or dies is seen as it was
//! last. A violation is kept until the rig asks for it.

use super::chronicle::{Chronicle, Event};
use super::decode;
use crate::checkers::raft::{Eye, Glance};
use crate::world::SimulatedDisk;
use atelier_peer::peer::Peer;
use atelier_peer::ports::{Batch, Log, RaftStatus, Tree};
use atelier_peer::view::View;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The eye of a run. Clones are the same.
#[derive(Clone)]
pub(crate) struct Onlooker {
    looking: Arc<Mutex<Looking>>,
    chronicle: Chronicle,
}

#[derive(Default)]
struct Looking {
    eye: Eye,
    /// The nodes of machines, where they are others than the machines' numbers: a newcomer is given its id.
    nodes: BTreeMap<u64, u64>,
    glances: Vec<Glance>,
    broken: Option<(&'static str, String)>,
}

impl Onlooker {
    pub(crate) fn new(chronicle: Chronicle) -> Onlooker {
        Onlooker { looking: Arc::default(), chronicle }
    }

    /// Shows it something; after a violation it looks away.
    pub(crate) fn see(&self, glance: Glance) {
        let looking = &mut *self.looking();
        if looking.broken.is_none() {
            looking.broken = looking.eye.see(&glance).err();
            looking.glances.push(glance);
        }
    }

    /// Up to where a machine's log is in its snapshot.
    pub(crate) fn purged(&self, machine: u64) -> u64 {
        let node = self.node_of(machine);
        self.looking().eye.purged(node)
    }

    /// Notes something for people.
    pub(crate) fn tell(&self, event: Event) {
        self.chronicle.note(event);
    }

    /// Notes a property that is broken and that no glance shows.
    pub(crate) fn accuse(&self, property: &'static str, detail: String) {
        self.looking().broken.get_or_insert((property, detail));
    }

    /// Looks at what a machine's disk makes durable.
    pub(crate) fn watch_disk(&self, machine: u64, disk: &SimulatedDisk) {
        let onlooker = self.clone();
        disk.on_sync(move |tree: Tree, batches: &[Batch]| {
            let changes: Vec<_> = match tree {
                Tree::Log => batches.iter().flat_map(decode::changes).collect(),
                Tree::State => Vec::new(),
            };
            if !changes.is_empty() {
                // A newcomer writes its first entry after it was given its id.
                let peer = onlooker.node_of(machine);
                onlooker.see(Glance::Synced { peer, changes });
            }
        });
    }

    /// Notes which node a machine is. An id is given once, whatever became of whoever had it.
    fn name(&self, machine: u64, id: u64) {
        let looking = &mut *self.looking();
        let other = looking.nodes.iter().find(|(other, known)| **other != machine && **known == id);
        if let Some((other, _)) = other {
            let detail = format!("machine {machine} is node {id}, and so was machine {other}");
            looking.broken.get_or_insert(("member ids", detail));
        }
        looking.nodes.insert(machine, id);
    }

    /// The machine that is a node; a peer of the first day has its machine's number.
    pub(crate) fn machine_of(&self, node: u64) -> u64 {
        let looking = self.looking();
        let mut known = looking.nodes.iter();
        known.find(|(_, id)| **id == node).map_or(node, |(machine, _)| *machine)
    }

    fn node_of(&self, machine: u64) -> u64 {
        self.looking().nodes.get(&machine).copied().unwrap_or(machine)
    }

    /// Looks at a process for as long as it publishes anything. Call it before anybody can reach the process.
    pub(crate) fn watch_process(&self, (machine, life): (u64, u64), peer: &Peer) {
        let id = peer.raft().status().borrow().node.0;
        self.name(machine, id);
        let (onlooker, mut status, mut view) =
            (self.clone(), peer.raft().status(), peer.raft().view());
        // What there is already counts as a change.
        view.mark_changed();
        status.mark_changed();
        let mut reigned = None;
        tokio::spawn(async move {
            loop {
                let changed = tokio::select! {
                    biased;
                    changed = view.changed() => changed.map(|()| {
                        onlooker.see_view(id, life, &view.borrow_and_update().clone());
                    }),
                    changed = status.changed() => changed.map(|()| {
                        let now = status.borrow();
                        let reign = now.is_leader.then_some(now.term);
                        drop(now);
                        if reign != reigned {
                            onlooker.tell_reign(machine, reign);
                            reigned = reign;
                        }
                        onlooker.see_status(id, life, &status.borrow_and_update().clone());
                    }),
                };
                if changed.is_err() {
                    return;
                }
            }
        });
    }

    fn tell_reign(&self, machine: u64, term: Option<u64>) {
        self.chronicle.note(Event::Follows { machine });
        if let Some(term) = term {
            self.chronicle.note(Event::Leads { machine, term });
        }
    }

    fn see_view(&self, peer: u64, life: u64, view: &View) {
        let (index, digest) = (view.applied.0, view.state.digest().to_string());
        self.see(Glance::Applied { peer, life, index, digest });
    }

    fn see_status(&self, peer: u64, life: u64, status: &RaftStatus) {
        let glance = Glance::Status {
            peer,
            life,
            term: status.term,
            leads: status.is_leader,
            last: status.last_log.0,
            // What its log does not reach it has only heard of.
            committed: status.committed.min(status.last_log).0,
            voters: status.voters.iter().map(|voter| voter.0).collect(),
        };
        self.see(glance);
    }

    /// Returns the first property that was broken, and how.
    ///
    /// # Errors
    /// That.
    pub(crate) fn verdict(&self) -> Result<(), (&'static str, String)> {
        self.looking().broken.clone().map_or(Ok(()), Err)
    }

    /// The highest index that any peer knew as committed.
    pub(crate) fn committed(&self) -> u64 {
        self.looking().eye.committed()
    }

    /// Hands over everything that was seen.
    pub(crate) fn glances(&self) -> Vec<Glance> {
        std::mem::take(&mut self.looking().glances)
    }

    fn looking(&self) -> MutexGuard<'_, Looking> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
