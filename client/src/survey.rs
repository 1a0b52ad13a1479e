//! Asks every peer how it is, and puts the answers side by side.

use std::time::Duration;

use atelier_proto::client::v1 as wire;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::budget::Failure;
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Tried};
use crate::pool::Endpoint;
use crate::types::{Member, NodeId, Status};

/// A peer that is well answers a status in a millisecond; more than this is an answer as well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What one address said.
#[derive(Debug)]
pub struct Answer {
    /// Who was asked.
    pub address: String,
    /// What it said.
    pub status: Result<Status, Error>,
}

/// What all of them said.
#[derive(Debug)]
pub struct Survey {
    /// One for each address asked, given endpoints first, then members learned from them.
    pub answers: Vec<Answer>,
    /// The members, as the peer with the newest state knows them; empty when none answered.
    pub members: Vec<Member>,
}

impl Survey {
    /// The peers' own accounts.
    pub fn statuses(&self) -> impl Iterator<Item = &Status> {
        self.answers.iter().filter_map(|answer| answer.status.as_ref().ok())
    }

    /// The account of one peer of itself, if it answered.
    pub fn of(&self, node: NodeId) -> Option<&Status> {
        self.statuses().find(|status| status.node == node)
    }

    /// Who leads, as the peer with the highest term says that knows one.
    pub fn leader(&self) -> Option<NodeId> {
        let leads = |status: &&Status| status.leader.is_some();
        self.statuses().filter(leads).max_by_key(|status| status.term)?.leader
    }

    /// Whether peers at an equal applied index have an equal state: `None` when no two of them
    /// stand at the same index, so that nothing can be said.
    pub fn consistent(&self) -> Option<bool> {
        let all: Vec<_> = self.statuses().filter(|one| !one.state_digest.is_empty()).collect();
        let mut verdict = None;
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                if one.node != other.node && one.applied_index == other.applied_index {
                    let equal = one.state_digest == other.state_digest;
                    verdict = Some(verdict.unwrap_or(true) && equal);
                }
            }
        }
        verdict
    }
}

impl Client {
    /// Asks every endpoint that this client knows, and every member that they name.
    ///
    /// Never fails: a peer that does not answer is an answer too.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn survey(&self) -> Survey {
        let mut answers =
            join_all(self.pool().endpoints().iter().map(|endpoint| self.ask(endpoint))).await;
        let newest = answers
            .iter()
            .filter_map(|answer| answer.status.as_ref().ok())
            // Who is alive is the leader's opinion, so its own account is worth most.
            .max_by_key(|status| {
                (status.term, status.leader == Some(status.node), status.applied_index)
            });
        let members = newest.map(|status| status.members.clone()).unwrap_or_default();
        // By id and not by address: an endpoint may go by another name than its member does.
        let answered: Vec<NodeId> = answers
            .iter()
            .filter_map(|answer| answer.status.as_ref().ok())
            .map(|status| status.node)
            .collect();
        let rest: Vec<Endpoint> = members
            .iter()
            .filter(|member| !answered.contains(&member.node))
            .filter_map(|member| self.pool().learn(&member.address))
            .filter(|endpoint| answers.iter().all(|answer| answer.address != endpoint.address))
            .collect();
        answers.extend(join_all(rest.iter().map(|endpoint| self.ask(endpoint))).await);
        Survey { answers, members }
    }

    /// Asks one peer. Whether it answers is booked: calls that come after know whom to leave alone.
    async fn ask(&self, endpoint: &Endpoint) -> Answer {
        let address = endpoint.address.clone();
        let mut rpc = Self::rpc(endpoint);
        let failure = match timeout(ANSWER_TIMEOUT, rpc.status(wire::StatusRequest {})).await {
            Ok(Ok(reply)) => {
                self.pool().seen(&address, Instant::now());
                return Answer { address, status: convert::status(reply.into_inner()) };
            }
            Ok(Err(status)) => Failure::new(&address, &status),
            Err(_) => Failure::timeout(&address, ANSWER_TIMEOUT),
        };
        self.book(&failure);
        let tried = vec![Tried { address: address.clone(), why: failure.message }];
        Answer { address, status: Err(Error::Unavailable { tried, leader: failure.leader }) }
    }
}
