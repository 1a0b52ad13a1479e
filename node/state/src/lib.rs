//! The replicated state machine: pure, deterministic, total.
//!
//! ```text
//!   log entry ──► Command ──► apply ──► Reply        apply, the only writer; it asks
//!                               │                    validate before anything else
//!                               ▼
//!   ┌────────────────────────── State ───────────────────────────┐
//!   │ jobs  JobId ─► Job      nodes  NodeId ─► Node    the truth │
//!   │ fair · keys · settings · trail · features        too       │
//!   │ queue · leases · ended · artifacts · deadlines   follow    │
//!   └────────┬─────────────┬─────────────┬───────────────┬───────┘
//!            ▼             ▼             ▼               ▼
//!          view        placement       audit         snapshot
//!         a clone      suggests       proves        and digest
//!
//!   Submit ──► Queued ──Assign──► Leased ──Complete──► Succeeded
//!                ▲                  │ ├──Fail────────► Failed
//!                └──────────────────┘ └──Cancel──────► Cancelled  (from Queued too)
//!          Fail · Revoke · RegisterNode · RemoveNode        only Forget drops these three
//!          after Fail: in back-off until Release            Expire fails what has not ended
//! ```
//!
//! It owns what every peer agrees upon: jobs, leases, nodes, settings. It must not know time, networks,
//! disks, threads or what a job's parameters mean. Same commands in the same order give the same
//! `State::digest` on every machine.

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod apply;
pub mod audit;
pub mod command;
pub mod digest;
mod fair;
pub mod job;
pub mod keys;
pub mod lease;
pub mod limits;
pub mod mutants;
pub mod placement;
mod queue;
pub mod reply;
pub mod roster;
pub mod settings;
pub mod snapshot;
pub mod state;
pub mod trail;
pub mod validate;

pub use audit::{Invariant, Violation};
pub use command::{
    AllocateNode, Assign, Cancel, Command, Complete, Expire, Fail, Forget, ForgetKeys, NoteAct,
    RaiseFeatures, RegisterNode, Release, RemoveNode, Revoke, SetNode, SetSettings, Submit,
    TenantKey,
};
pub use job::{ArtifactRef, Attempt, Digest, DigestError, Job, JobId, JobIdError, Phase};
pub use keys::KeyRecord;
pub use lease::{FencingToken, Lease, RevokeReason};
pub use placement::place;
pub use reply::{LogIndex, Refusal, Reply};
pub use roster::{Node, NodeId};
pub use settings::{Setting, SettingChange, SettingValue, Settings, SettingsRecord};
pub use snapshot::{Snapshot, SnapshotError};
pub use state::{PriorityStats, State, TenantStats};
pub use trail::{Author, TrailRecord};
