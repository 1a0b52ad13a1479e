//! One Raft participant: moves bytes, keeps time, runs loops.
//!
//! ```text
//!   clients ── gRPC, HTTP ──► gateway ──┐                       ┌── gRPC ──► the other peers
//!                                       ▼                       │
//!   engine ◄── engine_link ◄── supervisor ──► proposer ──► raft ┴──► storage ──► disk
//!   (a child process)               ▲            ▲          │
//!                                   │      leader loops     ▼
//!                                   │            ▲       apply: State (crate atelier-state)
//!                                   └────────────┴── view ◄─┘
//!
//!   round the log, never through it: progress · liveness · artifacts · checkpoints
//! ```
//!
//! Whatever a peer touches outside of its memory is behind a trait of [`ports`]; [`real`] and [`storage`]
//! stand behind them here, a simulated world elsewhere. [`peer`] composes it all. Facts go in through
//! `proposer` and the leader's loops, and come out through the view; whoever reads holds no lock that
//! `apply` waits for. It must not know how pictures are drawn.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod checkpoints;
pub mod cluster_time;
pub mod config;
pub mod engine_link;
mod gateway;
pub mod leader;
pub mod lines;
pub mod liveness;
pub mod model_files;
pub mod parameters;
pub mod peer;
pub mod peer_service;
pub mod ports;
pub mod progress;
pub mod proposer;
pub mod raft;
pub mod real;
pub mod storage;
pub mod supervisor;
pub mod tasks;
#[cfg(test)]
mod testing;
pub mod view;

/// Whether bugs are planted in this build; the daemon refuses to be built with them.
pub const MUTANTS: bool = atelier_state::mutants::ARE_IN;
