//! The outside world, made of a seed: the ports of a peer, behind which there is no machine.
//!
//! Owns time, randomness, disks and engines of a simulated cluster. It must not know what a checker
//! demands. Nothing here asks the system for anything, and nothing iterates in an order that a hash
//! decides: the same seed gives the same world, on every machine.

mod agenda;
mod clock;
mod damage;
mod engine;
mod entropy;
mod rng;
mod store;

pub use agenda::Agenda;
pub use clock::SimulatedClock;
pub use damage::{Damage, Image};
pub use engine::{Course, Drawing, Nature, drawn, ends};
pub use entropy::SimulatedEntropy;
pub use rng::Rng;
pub use store::{SimulatedDisk, SimulatedStore};
