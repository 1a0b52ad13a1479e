//! openraft's types as this cluster uses them.
//!
//! Leader ids are openraft's default, `leader_id_adv`: more than one leader may be elected in a term, told apart by
//! its node. So nothing may be fenced by a term; tokens are log indexes.

use atelier_state::{Command, Reply};
use bytes::Bytes;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

openraft::declare_raft_types!(
    /// What an entry holds, what applying it answers, and how nodes are named.
    pub(super) TypeConfig:
        D = Commands,
        R = Vec<Reply>,
        NodeId = u64,
        Node = String,
        AsyncRuntime = super::runtime::Runtime,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Membership = openraft::Membership<u64, String>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, super::snapshots::SnapshotData>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type Raft = openraft::Raft<TypeConfig, super::apply::StateMachine>;

/// Commands that were proposed together. A clone is cheap: entries are handed to each follower.
#[derive(Clone, Debug)]
pub(super) struct Commands(Arc<Together>);

#[derive(Debug)]
struct Together {
    commands: Box<[Command]>,
    /// Their bytes, made once for the disk and every follower.
    encoded: OnceLock<Bytes>,
}

impl Commands {
    /// Makes them one payload.
    pub(super) fn new(commands: Vec<Command>) -> Commands {
        Commands(Arc::new(Together { commands: commands.into(), encoded: OnceLock::new() }))
    }

    /// Makes a payload of commands and the bytes that they were read from.
    pub(super) fn read_from(encoded: Bytes, commands: Vec<Command>) -> Commands {
        let encoded = OnceLock::from(encoded);
        Commands(Arc::new(Together { commands: commands.into(), encoded }))
    }

    /// Returns their bytes, made by `encode` where nobody has asked before.
    pub(super) fn encoded(&self, encode: impl FnOnce(&[Command]) -> Bytes) -> Bytes {
        self.0.encoded.get_or_init(|| encode(&self.0.commands)).clone()
    }
}

impl PartialEq for Commands {
    fn eq(&self, other: &Commands) -> bool {
        self.0.commands == other.0.commands
    }
}

impl Eq for Commands {}

impl Deref for Commands {
    type Target = [Command];

    fn deref(&self) -> &[Command] {
        &self.0.commands
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.len())
    }
}
