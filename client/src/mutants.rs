//! Bugs of a client that are planted on purpose, to prove that the simulation would find them.
//!
//! Without the feature `mutants` each is a constant `false`. See `simulation/src/mutants/catalogue.rs`.

/// Whether this build has them; the command line asserts that it has not.
pub const ARE_IN: bool = cfg!(feature = "mutants");

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A submission that is tried again is another job.
    RetryWithNewId = 1,
    /// An outcome that nobody knows is told as a failure.
    UnknownToldAsFailed,
}

#[cfg(feature = "mutants")]
mod planted {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    /// Plants a bug in this process, or none.
    pub fn plant(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::SeqCst);
    }

    /// Says whether this bug is on.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u8
    }
}

#[cfg(not(feature = "mutants"))]
mod planted {
    /// No bug is on.
    #[must_use]
    pub const fn is(_mutant: super::Mutant) -> bool {
        false
    }
}

pub use planted::*;
