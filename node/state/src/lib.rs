//! The replicated state machine: pure, deterministic, total.
//!
//! ```text
//!   log entry ──► Command ──► apply ──► Reply        apply, the only writer; it asks
//!                               │                    validate before anything else
//!                               ▼
//!   ┌────────────────────────── State ───────────────────────────┐
//!   │ jobs  JobId ─► Job      nodes  NodeId ─► Node    the truth │
//!   │ queue · leases · terminal · artifacts · keys     follow    │
//!   └────────┬─────────────┬─────────────┬───────────────┬───────┘
//!            ▼             ▼             ▼               ▼
//!          view        placement       audit         snapshot
//!         a clone      suggests       proves        and digest
//!
//!   Submit ──► Queued ──Assign──► Leased ──Complete──► Succeeded
//!                ▲                  │ ├──Fail────────► Failed
//!                └──────────────────┘ └──Cancel──────► Cancelled  (from Queued too)
//!          Fail · Revoke · RegisterNode · RemoveNode        only Forget drops these three
//! ```
//!
//! It owns what every peer agrees upon: jobs, leases, nodes. It must not know time, networks,
//! disks, threads or what a job's parameters mean. Same commands in the same order give the same
//! `State::digest` on every machine.

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod apply;
pub mod audit;
pub mod command;
pub mod digest;
pub mod job;
pub mod lease;
pub mod limits;
pub mod placement;
mod queue;
pub mod reply;
pub mod roster;
pub mod snapshot;
pub mod state;
pub mod validate;

pub use audit::{Invariant, Violation};
pub use command::{
    AllocateNode, Assign, Cancel, Command, Complete, Fail, Forget, RegisterNode, RemoveNode,
    Revoke, Submit,
};
pub use job::{ArtifactRef, Digest, DigestError, Job, JobId, JobIdError, Phase};
pub use lease::{FencingToken, Lease, RevokeReason};
pub use placement::place;
pub use reply::{LogIndex, Refusal, Reply};
pub use roster::{Node, NodeId};
pub use snapshot::{Snapshot, SnapshotError};
pub use state::State;
