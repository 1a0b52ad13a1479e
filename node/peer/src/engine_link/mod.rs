//! The pipe between a peer and the process that owns a device: engine.v1 frames over stdin and
//! stdout.
//!
//! ```text
//!   peer: ChildEngine ── Draw, Stop ──────────────────────► serve: engine (blocking thread)
//!            ▲                                                  │
//!            └──── Loading, Ready, Step, Checkpoint, Picture, Done
//! ```
//!
//! Owns the frames ([`frame`]), the peer's side ([`child`]) and the engine's side ([`serve`]). It
//! must not know jobs, leases or peers. A CUDA fault, a hang or a torn frame ends the child process
//! alone; the peer's side answers `Crashed` and starts another.

pub mod child;
pub mod frame;
mod patience;
mod process;
pub mod serve;

pub use child::{ChildEngine, ChildSettings};
pub use serve::{DrawFailure, DrawOrder, DrawSource, EngineServer, ServeError, Teller, Told};
