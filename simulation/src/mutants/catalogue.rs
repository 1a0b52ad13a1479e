//! Every bug that is planted: what it models, and which world can show it.

use crate::scenario::World;
use atelier_client::mutants::Mutant as Clients;
use atelier_state::mutants::Mutant;

/// A bug, by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the state, in a peer, or in the simulated disk where it is the disk's.
    Product(Mutant),
    /// In the client library.
    Client(Clients),
}

/// A row of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it models.
    pub models: &'static str,
    /// Which rig can show it.
    pub world: World,
    /// What is planted.
    pub bug: Bug,
}

const fn row(name: &'static str, world: World, bug: Bug, models: &'static str) -> Entry {
    Entry { name, models, world, bug }
}

/// The catalogue.
#[rustfmt::skip]
pub const CATALOGUE: [Entry; 34] = [
    row("lease-without-fencing", World::Core, Bug::Product(Mutant::LeaseWithoutFencing),
        "any token of a job is listened to, so a worker that was given up still decides"),
    row("late-completion-accepted", World::Core, Bug::Product(Mutant::LateCompletionAccepted),
        "a result is accepted after its lease was taken back"),
    row("revoke-with-old-token", World::Core, Bug::Product(Mutant::RevokeWithOldToken),
        "a revocation of an earlier lease ends the one that lives"),
    row("leased-twice", World::Core, Bug::Product(Mutant::LeasedTwice),
        "a job that is leased is leased again"),
    row("lease-to-old-process", World::Core, Bug::Product(Mutant::LeaseToOldProcess),
        "a lease is granted to a process that is gone"),
    row("slots-ignored", World::Core, Bug::Product(Mutant::SlotsIgnored),
        "a node is given more leases than it has slots"),
    row("pause-ignored", World::Core, Bug::Product(Mutant::PauseIgnored),
        "jobs are given out while the queue is paused"),
    row("cancel-overwrites-result", World::Core, Bug::Product(Mutant::CancelOverwritesResult),
        "a cancel that comes too late replaces the result"),
    row("key-forgotten-at-snapshot", World::Core, Bug::Product(Mutant::KeyForgottenAtSnapshot),
        "the idempotency keys of forgotten jobs do not survive a snapshot"),
    row("snapshot-misses-field", World::Core, Bug::Product(Mutant::SnapshotMissesField),
        "a snapshot lacks the field that tells of a job's back-off"),
    row("ageing-reset-at-failover", World::Core, Bug::Product(Mutant::AgeingResetAtFailover),
        "with a new leader every waiting job is as young as the newest"),
    row("settings-overwritten", World::Cluster, Bug::Product(Mutant::SettingsOverwritten),
        "settings are changed without comparing the version that was read"),
    row("clock-read-in-apply", World::Cluster, Bug::Product(Mutant::ClockReadInApply),
        "apply asks a clock, which shows each peer another time"),
    row("map-order-in-apply", World::Cluster, Bug::Product(Mutant::MapOrderInApply),
        "apply walks a hash map, whose order is another one in each process"),
    row("member-id-reused", World::Cluster, Bug::Product(Mutant::MemberIdReused),
        "a newcomer is given the id of a member that was removed"),
    row("acknowledged-before-commit", World::Cluster, Bug::Product(Mutant::AcknowledgedBeforeCommit),
        "a submission is answered when the leader has it, before a quorum does"),
    row("acknowledged-before-fsync", World::Cluster, Bug::Product(Mutant::AcknowledgedBeforeFsync),
        "an entry counts as durable before the disk was synced"),
    row("flush-without-fdatasync", World::Cluster, Bug::Product(Mutant::FlushWithoutFdatasync),
        "a flush returns without a sync, as sled's own does"),
    row("vote-not-persisted", World::Cluster, Bug::Product(Mutant::VoteNotPersisted),
        "a promised vote is kept in memory alone"),
    row("truncation-not-persisted", World::Cluster, Bug::Product(Mutant::TruncationNotPersisted),
        "entries that a new leader has replaced stay on the disk"),
    row("write-error-ignored", World::Cluster, Bug::Product(Mutant::WriteErrorIgnored),
        "an entry that the disk has refused counts as written"),
    row("applied-twice-after-restart", World::Cluster, Bug::Product(Mutant::AppliedTwiceAfterRestart),
        "the applied index is older than the data beside it, so entries are applied again"),
    row("applied-index-apart", World::Cluster, Bug::Product(Mutant::AppliedIndexApart),
        "a snapshot's index is not that of its data, as where both are not written in one batch"),
    row("snapshot-drops-membership", World::Cluster, Bug::Product(Mutant::SnapshotDropsMembership),
        "a snapshot does not say who the members are"),
    row("stale-read-of-deposed-leader", World::Cluster, Bug::Product(Mutant::StaleReadOfDeposedLeader),
        "a leader that no quorum answers says what exists"),
    row("follower-read-without-index", World::Cluster, Bug::Product(Mutant::FollowerReadWithoutIndex),
        "a follower says that a job does not exist without asking how far the leader is"),
    row("removed-member-counts", World::Cluster, Bug::Product(Mutant::RemovedMemberCounts),
        "a member that was removed goes on voting"),
    row("lost-wakeup", World::Cluster, Bug::Product(Mutant::LostWakeup),
        "a worker that was woken by a new view does not look at it"),
    row("foreign-checkpoint", World::Cluster, Bug::Product(Mutant::ForeignCheckpoint),
        "an engine goes on from a checkpoint of another class"),
    row("resumed-one-step-later", World::Cluster, Bug::Product(Mutant::ResumedOneStepLater),
        "a step is left out where an attempt goes on from a checkpoint"),
    row("artifact-before-its-copy", World::Cluster, Bug::Product(Mutant::ArtifactBeforeItsCopy),
        "a picture is named in the log before its copy is made"),
    row("own-clock-counts", World::Cluster, Bug::Product(Mutant::OwnClockCounts),
        "a leader judges ages by its own clock, however wrong"),
    row("retry-with-new-id", World::Cluster, Bug::Client(Clients::RetryWithNewId),
        "a submission that is tried again is another job"),
    row("unknown-told-as-failed", World::Cluster, Bug::Client(Clients::UnknownToldAsFailed),
        "a client says that a job was not accepted where nobody knows"),
];
