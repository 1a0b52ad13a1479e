//! The same composition with a simulated world.
//!
//! ```text
//!   seed ──► Plan ──► rig ──► history ──► checkers ──► verdict
//!            data      │      data          │            │
//!                      ├─ world: time, randomness,       └─► timeline, one command to reproduce
//!                      │  disks, engines
//!                      └─ the product: state, deciding code
//! ```
//!
//! Owns plans, worlds, histories and what must hold in them. It must not know how the product does
//! what it does beyond its ports and its pure parts. One seed gives one run, on every machine: no
//! module here asks the system for time, randomness or threads, but for `process`, which runs the real
//! program; only `main` looks at a watch.
//!
//! The first rig, `core`, drives the real state and the real deciding code of the leader over a
//! perfect log. `cluster` has Raft below, `wire` connections besides, and `process` processes; they share
//! plans and clients, and all share histories and checkers.

#![forbid(unsafe_code)]

pub mod checkers;
pub mod cluster;
pub mod core;
pub mod coverage;
pub mod history;
pub mod mutants;
pub mod operations;
pub mod page;
pub mod panics;
pub mod plan;
pub mod process;
pub mod scenario;
pub mod shrink;
pub mod timeline;
pub mod wire;
pub mod world;
