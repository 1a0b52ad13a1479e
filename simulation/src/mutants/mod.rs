//! Proof that the rigs would find bugs: some are planted in the product, one at a time, and each must be
//! found.
//!
//! Owns the [`catalogue`] and the hunt. The bugs are in the product's own code, behind its feature `mutants`
//! (`node/state/src/mutants.rs`); what ships refuses to be built with it. A bug that is not found says that
//! a fault, a workload or a property is missing here.

pub mod catalogue;
#[cfg(feature = "mutants")]
mod hunt;

pub use catalogue::{Bug, CATALOGUE, Entry};
#[cfg(feature = "mutants")]
pub use hunt::{Found, Planted, hunt};
