//! Bugs that are planted on purpose, to prove that the simulation would find them.
//!
//! Each is one line at the place that it spoils: `mutants::is(Mutant::…)`. Without the feature `mutants`
//! that is a constant `false`, and nothing of it is left. The simulation alone asks for the feature and
//! says which bug is on, one at a time in a process; the programs that ship refuse to be built with it.
//! What each models, and who must find it, tells `simulation/src/mutants/catalogue.rs`.

/// Whether this build has them. A program that ships asserts that it has not.
pub const ARE_IN: bool = cfg!(feature = "mutants");

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the catalogue of the simulation tells what each models")]
pub enum Mutant {
    LeaseWithoutFencing = 1,
    LateCompletionAccepted,
    RevokeWithOldToken,
    LeasedTwice,
    LeaseToOldProcess,
    SlotsIgnored,
    PauseIgnored,
    CancelOverwritesResult,
    SettingsOverwritten,
    KeyForgottenAtSnapshot,
    SnapshotMissesField,
    AgeingResetAtFailover,
    ClockReadInApply,
    MapOrderInApply,
    MemberIdReused,
    AcknowledgedBeforeCommit,
    AcknowledgedBeforeFsync,
    FlushWithoutFdatasync,
    VoteNotPersisted,
    TruncationNotPersisted,
    WriteErrorIgnored,
    AppliedTwiceAfterRestart,
    AppliedIndexApart,
    SnapshotDropsMembership,
    StaleReadOfDeposedLeader,
    FollowerReadWithoutIndex,
    RemovedMemberCounts,
    LostWakeup,
    ForeignCheckpoint,
    ResumedOneStepLater,
    ArtifactBeforeItsCopy,
    OwnClockCounts,
}

#[cfg(feature = "mutants")]
mod planted {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    static ACTIVE: AtomicU8 = AtomicU8::new(0);
    static READINGS: AtomicU64 = AtomicU64::new(0);

    /// Plants a bug in this process, or none; what stands for clock and chance begins anew.
    pub fn plant(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::SeqCst);
        READINGS.store(0, Ordering::SeqCst);
    }

    /// Says whether this bug is on.
    pub fn is(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u8
    }

    /// What a clock would show instead of what was agreed upon: each reading is later than the one
    /// before, whoever reads.
    pub fn clock_ms(agreed_ms: u64) -> u64 {
        match is(Mutant::ClockReadInApply) {
            true => agreed_ms + READINGS.fetch_add(1, Ordering::Relaxed),
            false => agreed_ms,
        }
    }

    /// The order in which a hash map might tell these: another one in each process.
    pub fn in_map_order<T>(items: &mut [T]) {
        let is_other = READINGS.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        if is(Mutant::MapOrderInApply) && is_other {
            items.reverse();
        }
    }
}

#[cfg(not(feature = "mutants"))]
mod planted {
    /// No bug is on.
    #[inline]
    #[must_use]
    pub const fn is(_mutant: super::Mutant) -> bool {
        false
    }

    /// What was agreed upon.
    #[inline]
    #[must_use]
    pub const fn clock_ms(agreed_ms: u64) -> u64 {
        agreed_ms
    }

    /// Leaves them as they are.
    #[inline]
    pub const fn in_map_order<T>(_items: &mut [T]) {}
}

pub use planted::*;
