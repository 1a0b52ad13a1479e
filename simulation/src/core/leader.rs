//! The leader's loop, modelled after `atelier_peer::leader`; what it decides with is the real code.
//!
//! One round is decided, proposed and applied before the next is decided, unless it takes longer
//! than the leader waits. A leadership that ends takes its memory along.

use super::event::{Event, Origin, Proposal};
use super::operator;
use super::plant::Plant;
use super::scene::Scene;
use crate::history::Fact;
use atelier_peer::leader::{Deciders, Moment};
use atelier_peer::liveness::{Beat, Liveness};
use atelier_peer::view::View;
use atelier_state::{Command, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// The leader waits so long for its own proposal, as in the product.
const PROPOSAL_WAIT_MS: u64 = 1_000;

/// Whoever leads, and what has arrived there.
#[derive(Default)]
pub(crate) struct Leader {
    term: u64,
    leading: Option<Leadership>,
    inbox: Vec<Proposal>,
    is_tick_planned: bool,
}

struct Leadership {
    liveness: Liveness,
    deciders: Deciders,
    // The round under way, and when it is no longer waited for.
    round: Option<(u64, u64)>,
}

impl Leader {
    /// Begins a leadership.
    pub(crate) fn begin(&mut self, scene: &mut Scene) {
        self.term += 1;
        scene.note(Fact::Leads { term: self.term });
        let mut liveness = Liveness::new(Duration::from_millis(scene.shape.lease_ms));
        liveness.lead(scene.agenda.now());
        self.leading = Some(Leadership {
            liveness,
            deciders: Deciders::keeping(scene.shape.jobs_kept),
            round: None,
        });
        if !self.inbox.is_empty() {
            scene.agenda.after(0, Event::Flush);
        }
    }

    /// Ends a leadership. What had arrived and was not committed may be in the next leader's log.
    pub(crate) fn end(&mut self, scene: &mut Scene) {
        self.leading = None;
        self.inbox.retain(|_| scene.rng.chance(50));
    }

    /// Takes a proposal in; where nobody leads, it comes again a little later.
    pub(crate) fn arrive(&mut self, scene: &mut Scene, proposal: Proposal) {
        let of_this_term = match proposal.origin {
            Origin::Leader(term) => term == self.term,
            Origin::Client(_) | Origin::Worker(_) | Origin::Nobody => true,
        };
        if self.leading.is_none() {
            // A leader's own proposal ends with its leadership.
            if !matches!(proposal.origin, Origin::Leader(_)) {
                let wait_ms = scene.rng.between(50..=200);
                scene.agenda.after(wait_ms, Event::Arrive(proposal));
            }
        } else if of_this_term {
            if self.inbox.is_empty() {
                let wait_ms = scene.rng.between(0..=3);
                scene.agenda.after(wait_ms, Event::Flush);
            }
            self.inbox.push(proposal);
        }
    }

    /// Hands over what is to become the next entry.
    pub(crate) fn take_inbox(&mut self) -> Vec<Proposal> {
        if self.leading.is_none() { Vec::new() } else { std::mem::take(&mut self.inbox) }
    }

    /// Hears a sign of life. Says whether the node was not alive before, so that a round is due.
    pub(crate) fn hear(&mut self, scene: &Scene, beat: Beat) -> bool {
        let is_deaf = scene.is_planted(Plant::DeafLeader) && self.term > 1;
        let Some(leading) = self.leading.as_mut().filter(|_| !is_deaf) else { return false };
        let now = scene.agenda.now();
        let node = beat.node;
        let was_alive = leading.liveness.is_alive(now, node);
        leading.liveness.beat(now, beat);
        !was_alive
    }

    /// Learns that its round is applied.
    pub(crate) fn round_applied(&mut self, id: u64) {
        if let Some(leading) = &mut self.leading
            && leading.round.is_some_and(|(round, _)| round == id)
        {
            leading.round = None;
        }
    }

    /// Notes that the planned tick has come.
    pub(crate) fn ticked(&mut self) {
        self.is_tick_planned = false;
    }

    /// Decides a round, unless one is under way. While there is work, looks again every tick.
    pub(crate) fn wake(&mut self, scene: &mut Scene, view: &View) {
        let now_ms = scene.now_ms();
        let Some(leading) = &mut self.leading else { return };
        let has_work = view.state.queued_count() > 0 || view.state.leased_count() > 0;
        if has_work && !self.is_tick_planned {
            self.is_tick_planned = true;
            scene.agenda.after(scene.shape.lease_ms / 8, Event::LeaderTick);
        }
        if leading.round.is_some_and(|(_, until_ms)| now_ms < until_ms) {
            return;
        }
        // An operator's settings go first, so that what was decided without them meets them.
        let mut commands: Vec<Command> = operator::decide(scene, &view.state).into_iter().collect();
        let mut decided = leading.decide(scene.agenda.now(), view);
        if scene.is_planted(Plant::NeverRelease) {
            decided.retain(|command| !matches!(command, Command::Release(_)));
        }
        commands.extend(decided);
        if !commands.is_empty() {
            let id = scene.propose(Origin::Leader(self.term), commands);
            leading.round = Some((id, now_ms + PROPOSAL_WAIT_MS));
        }
    }
}

impl Leadership {
    fn decide(&mut self, now: Duration, view: &View) -> Vec<Command> {
        // The wall clock of this world begins with it.
        let wall_ms = u64::try_from(now.as_millis()).expect("a world is short");
        let members: BTreeSet<NodeId> = view.state.nodes().map(|(node, _)| node).collect();
        let at = Moment { now, wall_ms, is_agreed: true };
        self.deciders.decide(at, view, &self.liveness, &members)
    }
}
