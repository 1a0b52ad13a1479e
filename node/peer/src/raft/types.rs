//! openraft's types as this cluster uses them.
//!
//! Leader ids are openraft's default, `leader_id_adv`: more than one leader may be elected in a term, told apart by
//! its node. So nothing may be fenced by a term; tokens are log indexes.

use atelier_state::{Command, Reply};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

openraft::declare_raft_types!(
    /// What an entry holds, what applying it answers, and how nodes are named.
    pub(super) TypeConfig:
        D = Commands,
        R = Vec<Reply>,
        NodeId = u64,
        Node = String,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Membership = openraft::Membership<u64, String>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, bytes::Bytes>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type Raft = openraft::Raft<TypeConfig, super::apply::StateMachine>;

/// Commands that were proposed together. A clone is cheap: entries are handed to each follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commands(Arc<[Command]>);

impl Commands {
    /// Makes them one payload.
    pub(super) fn new(commands: Vec<Command>) -> Commands {
        Commands(commands.into())
    }
}

impl Deref for Commands {
    type Target = [Command];

    fn deref(&self) -> &[Command] {
        &self.0
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}
