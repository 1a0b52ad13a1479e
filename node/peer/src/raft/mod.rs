//! The replicated log: everything that knows openraft, and nothing else that does.
//!
//! ```text
//!                    loops ──► ports::Log ──► RaftNode ── members: who belongs to it
//!                                               │ confluence: proposals that meet share an entry
//!      the others ──► service ──► openraft ◄────┤──── status: metrics as a RaftStatus
//!                                  │  │  │
//!            network ◄─────────────┘  │  └──────► apply ──► State::apply ──► view
//!               │                log_storage        │
//!            ports::Dial              │          snapshots
//!                                     └──► storage ◄┘
//!            codec: protobuf ◄─► the types of all of them
//! ```
//!
//! It owns one node's part in Raft: its runtime, its log, its state machine, its connections. It must not know what a
//! command means, who proposes and why. Invariants:
//! - openraft's own encodings reach neither disk nor wire; `codec` says what does, and golden files guard it;
//! - an entry is acknowledged when it is durable, and applied in the order of the log, once;
//! - after a failure of the disk the node takes no part any more until it is restarted;
//! - a node whose disk was emptied or exchanged neither votes nor appends under its old id;
//! - nothing is fenced by a term: leader ids are openraft's default, and a term may have several leaders.

pub mod codec;

mod apply;
mod confluence;
mod disk;
mod handover;
#[cfg(test)]
mod log_model;
mod log_storage;
mod members;
mod network;
mod node;
mod options;
mod recover;
mod runtime;
mod service;
mod snapshots;
mod status;
#[cfg(test)]
mod suite;
mod types;

pub use handover::{SnapshotError, TransferError};
pub use members::{ChangeMembersError, InitializeClusterError};
pub use node::{RaftNode, StartError};
pub use options::RaftOptions;
pub use recover::{RecoverError, Recovered, Recovery, base_of, generation_of, recover};
pub use service::RaftService;
