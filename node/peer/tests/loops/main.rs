//! The loops of a peer with a perfect log: workers, leader, proposer, artifacts, progress, engine
//! link.
#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod artifacts;
mod engine_link;
mod fake_engine;
mod progress;
mod proposer;
mod resume;
mod service;
mod support;
mod worker;
