//! What all parts of the rig share: time, randomness, faults, the history.

use super::diary::{self, Diary};
use super::event::{Answer, Event, Origin, Proposal};
use super::faults::Faults;
use super::journal::Journal;
use super::names::Names;
use super::plant::Plant;
use crate::history::Fact;
use crate::plan::Shape;
use crate::world::{Agenda, Rng};
use atelier_state::Command;

/// A proposer that has no answer for so long proposes again.
const RETRY_MS: u64 = 1_500;

/// The shared part of a run.
pub(crate) struct Scene {
    pub(crate) shape: Shape,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) diary: Diary,
    pub(crate) names: Names,
    pub(crate) plant: Option<Plant>,
    pub(crate) proposals: u64,
}

impl Scene {
    pub(crate) fn now_ms(&self) -> u64 {
        self.agenda.now_ms()
    }

    pub(crate) fn note(&mut self, fact: Fact) {
        self.journal.note(self.agenda.now_ms(), fact);
    }

    pub(crate) fn is_planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// Sends commands to whoever leads, and returns the proposal's number.
    pub(crate) fn propose(&mut self, origin: Origin, commands: Vec<Command>) -> u64 {
        self.proposals += 1;
        let id = self.proposals;
        let session = match origin {
            Origin::Client(_) | Origin::Nobody => diary::CLIENTS,
            Origin::Worker(process) => diary::WORKERS + process.node,
            Origin::Leader(_) => diary::LEADER,
        };
        self.diary.propose(self.agenda.now_ms(), session, &self.names, (id, &commands));
        self.send(Proposal { id, origin, commands });
        id
    }

    /// Sends a proposal, once more for one that had no answer.
    pub(crate) fn send(&mut self, proposal: Proposal) {
        let now_ms = self.now_ms();
        let mut wait_ms = self.rng.between(1..=5);
        if let Some(by_ms) = self.faults.proposal_delay_ms(now_ms) {
            wait_ms += self.rng.between(0..=by_ms);
        }
        if let Some(by_ms) = self.faults.copy_delay_ms(now_ms)
            && self.rng.chance(50)
        {
            let copy = Proposal { origin: Origin::Nobody, ..proposal.clone() };
            let later_ms = self.rng.between(0..=by_ms);
            self.agenda.after(wait_ms + later_ms, Event::Arrive(copy));
        }
        let (origin, id) = (proposal.origin, proposal.id);
        if !(self.faults.loses_proposals(now_ms) && self.rng.chance(33)) {
            self.agenda.after(wait_ms, Event::Arrive(proposal));
        }
        if matches!(origin, Origin::Client(_) | Origin::Worker(_)) {
            self.agenda.after(RETRY_MS, Event::Retry(origin, id));
        }
    }

    /// Sends an answer back. The leader asks itself, so its answers are not lost.
    pub(crate) fn answer(&mut self, answer: Answer) {
        let loses = self.faults.loses_answers(self.now_ms());
        match answer.origin {
            Origin::Nobody => {}
            Origin::Leader(_) => self.agenda.after(0, Event::Answer(answer)),
            Origin::Client(_) | Origin::Worker(_) => {
                let wait_ms = self.rng.between(1..=5);
                if !(loses && self.rng.chance(50)) {
                    self.agenda.after(wait_ms, Event::Answer(answer));
                }
            }
        }
    }
}
