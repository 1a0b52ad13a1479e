//! Whether a leader with its quorum answers the peer that is to be asked.
//!
//! A peer that is cut off from the majority, or was removed and runs on, tells reads what it has,
//! however old, and holds changes until their time is over. So it is asked first how it stands,
//! which also tells where the others are; what it is not fit for goes to another one.

use atelier_proto::client::v1 as wire;
use tokio::time::{Instant, timeout};

use crate::budget::{Budget, Failure};
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pool::Endpoint;
use crate::types::{Member, Role};

use std::time::Duration;

/// A peer that reaches no leader says so within half a second.
const STANDING_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    /// An endpoint that a leader answers, where the options want that: this one, or the first of
    /// the others. Asks until the budget is spent, since an election may be under way.
    pub(crate) async fn confirmed(
        &self,
        mut endpoint: Endpoint,
        budget: &mut Budget,
    ) -> Result<Endpoint, Error> {
        if !self.options().leader_confirmed || !budget.wants_leader() {
            return Ok(endpoint);
        }
        loop {
            let allowed = budget.attempt(Instant::now()).min(STANDING_TIMEOUT);
            let failure = match self.standing(&endpoint, allowed).await {
                Ok(()) => return Ok(endpoint),
                Err(failure) => failure,
            };
            endpoint = self.go_on(budget, failure, endpoint).await?;
        }
    }

    async fn standing(&self, endpoint: &Endpoint, allowed: Duration) -> Result<(), Failure> {
        let members = self.members_of(endpoint, allowed).await?;
        let Some(why) = unconfirmed(&members) else { return Ok(()) };
        let leader = members.iter().find(|member| member.leader && !member.alive);
        Err(Failure::unled(&endpoint.address, why, leader.map(|leader| leader.address.clone())))
    }

    /// Asks one endpoint who is there, and learns it. A failure of this never changed anything.
    pub(crate) async fn members_of(
        &self,
        endpoint: &Endpoint,
        allowed: Duration,
    ) -> Result<Vec<Member>, Failure> {
        let address = &endpoint.address;
        let mut rpc = Self::rpc(endpoint);
        let failed = match timeout(allowed, rpc.list_members(wire::ListMembersRequest {})).await {
            Ok(Ok(reply)) => match convert::members(reply.into_inner().members) {
                Ok(members) => {
                    self.pool().seen(address, Instant::now());
                    self.meet(&members);
                    return Ok(members);
                }
                Err(error) => Failure::new(address, &tonic::Status::internal(error.to_string())),
            },
            Ok(Err(status)) => Failure::new(address, &status),
            Err(_) => Failure::timeout(address, allowed),
        };
        Err(failed.of_a_question())
    }
}

/// Why no leader confirms what a peer with these members has; `None` where one does.
fn unconfirmed(members: &[Member]) -> Option<String> {
    let voters = members.iter().filter(|member| member.role == Role::Voter);
    let (total, alive) = (voters.clone().count(), voters.filter(|voter| voter.alive).count());
    let quorum = total / 2 + 1;
    match members.iter().find(|member| member.leader) {
        _ if members.is_empty() => Some("it belongs to no cluster yet".to_owned()),
        None => Some("it knows no leader".to_owned()),
        Some(leader) if !leader.alive => {
            Some(format!("it does not reach the leader, node {}", leader.node))
        }
        Some(leader) if alive < quorum => Some(format!(
            "node {} leads no quorum: {alive} of {total} voters answer it, and {quorum} are needed",
            leader.node
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::member_for_tests as member;

    #[test]
    fn what_a_peer_has_is_confirmed_by_a_leader_with_its_quorum() {
        let told = |alive: [bool; 3], leader: Option<usize>| {
            let mut members = Vec::new();
            for (at, alive) in alive.into_iter().enumerate() {
                members.push(Member { alive, leader: leader == Some(at), ..member(at as u64 + 1) });
            }
            unconfirmed(&members)
        };
        assert_eq!(told([true, true, true], Some(0)), None);
        assert_eq!(told([true, false, true], Some(0)), None);
        assert_eq!(told([true, true, true], None).as_deref(), Some("it knows no leader"));
        assert_eq!(
            told([false, true, false], Some(0)).as_deref(),
            Some("it does not reach the leader, node 1")
        );
        assert_eq!(
            told([true, false, false], Some(0)).as_deref(),
            Some("node 1 leads no quorum: 1 of 3 voters answer it, and 2 are needed")
        );
        assert!(unconfirmed(&[]).is_some());
        assert_eq!(unconfirmed(&[Member { leader: true, ..member(1) }]), None);
    }
}
