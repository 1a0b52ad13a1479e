//! The outside world on one page: whatever a peer may touch, as traits.
//!
//! ```text
//!   loops ──► Clock · Entropy · Dial · Engine · Log        raft ──► Store · Dial
//!               │                                             │
//!       real.rs, storage/, raft/            simulation: a world of its own behind the same traits
//! ```
//!
//! It must not know who stands behind a trait. Each port has a contract test in [`contract`] that the real and the
//! simulated one both pass; a promise that no test holds is written as such.

pub mod clock;
pub mod contract;
pub mod dial;
pub mod engine;
pub mod entropy;
pub mod log;
pub mod members;
pub mod shelf;
pub mod store;
pub mod upkeep;

pub use clock::Clock;
pub use dial::{Dial, DialError, Line, LineError, Purpose};
pub use entropy::Entropy;
pub use log::{Log, ProposeError, Proposed, RaftStatus};
pub use store::{Batch, Store, StoreError, Tree};
