//! Calls of operators: about the lead, about members, and about one peer alone.

use atelier_proto::client::v1 as wire;

use crate::budget::Kind;
use crate::client::Client;
use crate::convert::{self, operations};
use crate::error::Error;
use crate::types::{Examination, MarkDigest, Member, MemberUpdate, NodeId, Replacement, Snapshot};

impl Client {
    /// Takes a voter's vote away; it goes on as a learner.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such member.
    /// - [`Error::Conflict`]: it is the last voter, or another change is under way.
    /// - [`Error::UnknownChange`]: list the members to see its role.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn demote_member(&self, node: NodeId) -> Result<Member, Error> {
        let request = wire::DemoteMemberRequest { node };
        let reply = self
            .call(Kind::Change("demote the member"), request, |mut rpc, request| async move {
                rpc.demote_member(request).await
            })
            .await?;
        convert::member(reply)
    }

    /// Puts a new member into another's place, by one change once it has caught up. Give it time:
    /// the newcomer's process may have to be started first. A repeat goes on where the first
    /// stopped.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such member.
    /// - [`Error::Conflict`]: the newcomer has not caught up, or another change is under way.
    /// - [`Error::UnknownChange`]: list the members, and repeat where they are not as they should.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn replace_member(
        &self,
        node: NodeId,
        replacement: &Replacement,
        why: &str,
    ) -> Result<Member, Error> {
        let request = operations::replace_member(node, replacement, why);
        let reply = self
            .call(Kind::Change("replace the member"), request, |mut rpc, request| async move {
                rpc.replace_member(request).await
            })
            .await?;
        convert::member(reply)
    }

    /// Changes what the cluster knows of a member: whether it drains, and its labels. A repeat does
    /// no harm.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such member.
    /// - [`Error::Conflict`]: not every peer understands this yet; upgrade them all first.
    /// - [`Error::UnknownChange`]: repeat it.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn set_member(&self, node: NodeId, update: &MemberUpdate) -> Result<Member, Error> {
        let request = operations::set_member(node, update);
        let reply = self
            .call(Kind::Change("change the member"), request, |mut rpc, request| async move {
                rpc.set_member(request).await
            })
            .await?;
        convert::member(reply)
    }

    /// Hands the lead over, to the voter that has come furthest where none is named, and returns
    /// who leads then.
    ///
    /// # Errors
    /// - [`Error::Conflict`]: it is no voter, lags, or there is no other one.
    /// - [`Error::UnknownChange`]: ask for the status to learn who leads.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: ask for the status.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, Error> {
        let request = wire::TransferLeaderRequest { node: to.unwrap_or(0) };
        let reply = self
            .call(Kind::Change("hand the lead over"), request, |mut rpc, request| async move {
                rpc.transfer_leader(request).await
            })
            .await?;
        Ok(reply.leader)
    }

    /// Makes the peer that answers take a snapshot. Connect to that peer alone to choose it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when it does not answer.
    ///
    /// # Cancel safety
    /// When dropped the snapshot is taken all the same.
    pub async fn take_snapshot(&self) -> Result<Snapshot, Error> {
        let reply = self
            .call(Kind::Local, wire::TakeSnapshotRequest {}, |mut rpc, request| async move {
                rpc.take_snapshot(request).await
            })
            .await?;
        Ok(Snapshot { log_index: reply.log_index, bytes: reply.bytes })
    }

    /// Puts a mark into the log, at which the peers' states can be compared; returns its index.
    ///
    /// # Errors
    /// As [`Client::transfer_leader`]; a mark too many does no harm.
    ///
    /// # Cancel safety
    /// When dropped there may be a mark that nobody asks for.
    pub async fn place_mark(&self) -> Result<u64, Error> {
        let reply = self
            .call(Kind::Read, wire::PlaceMarkRequest {}, |mut rpc, request| async move {
                rpc.place_mark(request).await
            })
            .await?;
        Ok(reply.log_index)
    }

    /// Asks the peer that answers for the digest of its state at a mark; it waits until it has
    /// come that far. Connect to that peer alone to choose it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it came past the mark by a snapshot, or too many were placed since:
    /// place another one.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn digest_at(&self, log_index: u64) -> Result<MarkDigest, Error> {
        let request = wire::DigestAtRequest { log_index };
        let reply =
            self.call(Kind::Local, request, |mut rpc, request| async move {
                rpc.digest_at(request).await
            })
            .await?;
        Ok(MarkDigest { node: reply.node, state_digest: reply.state_digest })
    }

    /// Asks the peer that answers what it finds out about itself and its way to the others. Connect
    /// to that peer alone to choose it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when it does not answer.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn examine(&self) -> Result<Examination, Error> {
        let reply = self
            .call(Kind::Local, wire::ExamineRequest {}, |mut rpc, request| async move {
                rpc.examine(request).await
            })
            .await?;
        operations::examination(reply)
    }
}
