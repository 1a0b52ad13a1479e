//! Entropy that a seed decides.

use super::Rng;
use atelier_peer::ports::Entropy;
use std::sync::{Mutex, PoisonError};

/// The entropy of one simulated process.
#[derive(Debug)]
pub struct SimulatedEntropy {
    rng: Mutex<Rng>,
}

impl SimulatedEntropy {
    /// Makes the source of a seed.
    pub fn new(seed: u64) -> SimulatedEntropy {
        SimulatedEntropy { rng: Mutex::new(Rng::of(seed, "entropy")) }
    }
}

impl Entropy for SimulatedEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}
