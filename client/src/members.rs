//! Calls about the members of the cluster.

use atelier_proto::client::v1 as wire;

use crate::budget::Kind;
use crate::client::{Client, Rpc};
use crate::convert;
use crate::error::Error;
use crate::types::{Member, NodeId};

impl Client {
    /// Lists the members as the peer that answers knows them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when no peer answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        self.members_as(Kind::Read).await
    }

    pub(crate) async fn members_as(&self, kind: Kind) -> Result<Vec<Member>, Error> {
        let request = wire::ListMembersRequest {};
        let send = |mut rpc: Rpc, request| async move { rpc.list_members(request).await };
        convert::members(self.call(kind, request, send).await?.members)
    }

    /// Adds a learner at an address under a new id; its process is to be started with that id.
    ///
    /// # Errors
    /// - [`Error::Conflict`]: the address is taken, or another change of members is under way.
    /// - [`Error::UnknownChange`]: list the members before adding again, or there may be two.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn add_member(&self, address: &str) -> Result<Member, Error> {
        let request = wire::AddMemberRequest { address: address.to_owned() };
        let reply = self
            .call(Kind::Change("add the member"), request, |mut rpc, request| async move {
                rpc.add_member(request).await
            })
            .await?;
        convert::member(reply)
    }

    /// Makes a learner that has caught up a voter.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such member.
    /// - [`Error::Conflict`]: it lags, votes already, or another change is under way.
    /// - [`Error::UnknownChange`]: list the members to see its role.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn promote_member(&self, node: NodeId) -> Result<Member, Error> {
        let request = wire::PromoteMemberRequest { node };
        let reply = self
            .call(Kind::Change("promote the member"), request, |mut rpc, request| async move {
                rpc.promote_member(request).await
            })
            .await?;
        convert::member(reply)
    }

    /// Removes a member; `why` is for whoever reads the cluster's trail later, and may be empty.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such member.
    /// - [`Error::Conflict`]: the rest would have no quorum, or another change is under way.
    /// - [`Error::UnknownChange`]: list the members to see whether it is gone.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: list the members.
    pub async fn remove_member(&self, node: NodeId, why: &str) -> Result<(), Error> {
        let request = convert::operations::remove_member(node, why);
        self.call(Kind::Change("remove the member"), request, |mut rpc, request| async move {
            rpc.remove_member(request).await
        })
        .await?;
        Ok(())
    }
}
