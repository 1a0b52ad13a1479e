//! Client library of an Atelier cluster: one job id, any peer, the picture in the end.
//!
//! ```text
//!   caller ──► Client ──► generate ──┬─► submit ─┐
//!                │                   ├─► watch ──┤      pool                    any peer
//!                │                   └─► fetch ──┤   ┌───────────┐
//!                └── job jobs cancel members … ──┴──►│ endpoint  │── client.v1 ──► peer 1
//!                                          ▲         │ endpoint  │── client.v1 ──► peer 2
//!                                        budget      │ endpoint  │── client.v1 ──► peer 3
//!                            (when to try again)     └───────────┘
//! ```
//!
//! - The id of a job is made here, before the first attempt, so a repeated submit is the same job.
//! - `pool` knows addresses and holds one lazy channel to each; `choice` says whom to ask first and
//!   `breaker` whom to leave alone; `budget` decides whether and when a call is tried again. All
//!   three do without IO and clock; `client` moves bytes between them.
//! - `watch` outlives the peer that it began on, and never goes backwards.
//! - Bytes are given out only after their BLAKE3 digest and length were found right.
//! - Generated types do not pass `convert`; everything public is in `types`, `options`, `error`.
//!
//! ```no_run
//! # async fn draw() -> Result<(), Box<dyn std::error::Error>> {
//! use atelier_client::{Client, Options, Submission, TextToImage};
//!
//! let client = Client::connect(["127.0.0.1:7861", "127.0.0.1:7871"], Options::default())?;
//! let wanted = Submission::new(TextToImage::new("a cat on a blue background"));
//! let drawn = client.generate(&wanted, |event| eprintln!("{:?}", event.job.phase)).await?;
//! std::fs::write("cat.png", &drawn.images[0].bytes)?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod artifact;
mod breaker;
mod budget;
mod choice;
mod client;
mod convert;
mod error;
mod gather;
mod generate;
mod members;
pub mod mutants;
mod operations;
mod options;
mod pool;
mod queue;
mod settings;
mod standing;
mod survey;
mod types;
mod wait;
mod watch;

pub use atelier_proto::line::{Line, LineError};
pub use client::Client;
pub use error::{ArtifactError, ConnectError, Error, GenerateError, Tried};
pub use generate::{Generated, Image};
pub use options::{Entropy, Options, Tls};
pub use queue::BATCH_JOBS_MAX;
pub use survey::{Answer, Survey};
pub use types::{
    Accepted, Artifact, Author, BatchOutcome, BatchRefusal, Event, Examination, FailedAttempt,
    Finding, FindingLevel, Guidance, Job, JobId, JobPage, MarkDigest, Member, MemberUpdate, NodeId,
    ParseJobIdError, Phase, Preview, PriorityStats, Progress, Purged, QueueStats, RefusalKind,
    Replacement, Role, Setting, SettingChange, SettingValue, Settings, SettingsVersion, Snapshot,
    Source, Stage, Status, Submission, TenantStats, TextToImage, TrailRecord,
};
pub use watch::Watch;
