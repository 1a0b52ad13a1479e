//! What may be asked of the state: the closed list of commands.

use crate::job::{ArtifactRef, JobId};
use crate::lease::{FencingToken, RevokeReason};
use crate::limits::FEATURES_FIRST;
use crate::roster::NodeId;
use crate::settings::SettingChange;
use crate::trail::Author;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One command of a log entry. `State::apply` answers each with a `Reply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accepts a job.
    Submit(Submit),
    /// Leases a queued job to a node; the log index becomes the fencing token.
    Assign(Assign),
    /// Names the result of a leased job.
    Complete(Complete),
    /// Records a failed attempt; the job is queued again or, after `attempts_max`, failed.
    Fail(Fail),
    /// Takes a lease back without counting an attempt.
    Revoke(Revoke),
    /// Cancels a job that is not terminal.
    Cancel(Cancel),
    /// Drops terminal jobs.
    Forget(Forget),
    /// Reserves a node id, the log index, for a node that will listen at an address.
    AllocateNode(AllocateNode),
    /// Announces a node's process. A new incarnation revokes the leases of the one before.
    RegisterNode(RegisterNode),
    /// Drops a node from the roster and revokes its leases.
    RemoveNode(RemoveNode),
    /// Ends the back-off of jobs. From here on feature level 2.
    Release(Release),
    /// Fails a job whose deadline has passed.
    Expire(Expire),
    /// Drops idempotency keys whose jobs are forgotten.
    ForgetKeys(ForgetKeys),
    /// Changes the settings, all or nothing.
    SetSettings(SetSettings),
    /// Notes what operators say about a node.
    SetNode(SetNode),
    /// Raises the feature level.
    RaiseFeatures(RaiseFeatures),
    /// Notes this index as the last mark.
    Mark,
    /// Notes an administrative act that was done round the log. From here on feature level 3.
    NoteAct(NoteAct),
}

/// Accepts a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Submit {
    /// Made by the client, so that a repeat is recognised.
    pub job: JobId,
    /// Whose job it is.
    pub tenant: Arc<str>,
    /// Scoped to the tenant.
    pub idempotency_key: Option<Arc<str>>,
    /// 0..=9, 9 is served first.
    pub priority: u8,
    /// For example `text_to_image/v1`; says who understands the parameters.
    pub kind: Arc<str>,
    /// Understood by gateway and engine alone.
    pub parameters: Bytes,
    /// W3C trace context, empty when there is none.
    pub traceparent: String,
    /// Wall clock of the accepting peer in milliseconds, for display only.
    pub submitted_ms: u64,
    /// Failed attempts after which the job is failed.
    pub attempts_max: u32,
    /// Wall clock in milliseconds at which the leader gives the job up; 0: never.
    pub deadline_ms: u64,
    /// Seconds after which the leader ends an attempt; 0: never.
    pub max_runtime_s: u32,
    /// What the job weighs in the fair share, in pictures; at least 1.
    pub cost: u32,
    /// The failed job that this one repeats.
    pub retry_of: Option<JobId>,
}

/// Leases a queued job to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// The queued job.
    pub job: JobId,
    /// The worker.
    pub node: NodeId,
    /// The worker's process as the scheduler knew it.
    pub incarnation: u64,
}

/// Names the result of a leased job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// The pictures, in order of image index.
    pub artifacts: Vec<ArtifactRef>,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Records a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// What went wrong; cut to `ERROR_BYTES_MAX`.
    pub error: String,
    /// Another attempt would fail in the same way.
    pub permanent: bool,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Takes a lease back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// The leased job.
    pub job: JobId,
    /// The lease's token.
    pub token: FencingToken,
    /// Why.
    pub reason: RevokeReason,
}

/// Cancels a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The job.
    pub job: JobId,
    /// For whoever asks later; cut to `ERROR_BYTES_MAX`.
    pub reason: String,
    /// Wall clock in milliseconds, for display only.
    pub finished_ms: u64,
}

/// Drops terminal jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget {
    /// At most `FORGET_JOBS_MAX`; those that are not terminal are left alone.
    pub jobs: Vec<JobId>,
}

/// Reserves a node id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateNode {
    /// Where its gRPC will listen, `http://host:port`.
    pub address: String,
}

/// Announces a node's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterNode {
    /// The node.
    pub node: NodeId,
    /// Where its gRPC listens, `http://host:port`.
    pub address: String,
    /// Rises with each start of the process.
    pub incarnation: u64,
    /// Jobs it may draw at a time; 0 while no engine is ready.
    pub slots: u32,
    /// Determinism class of its engine.
    pub class: String,
    /// Name and digest of its model.
    pub model: String,
    /// It votes, and never has an engine.
    pub witness: bool,
}

/// Drops a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// The node.
    pub node: NodeId,
    /// Who asked; the default where nobody is known.
    pub author: Author,
}

/// Ends the back-off of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// At most `RELEASE_JOBS_MAX`; those that do not wait for a retry are left alone.
    pub jobs: Vec<JobId>,
}

/// Fails a job whose deadline has passed, whatever it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expire {
    /// The job; it must have a deadline.
    pub job: JobId,
    /// Wall clock in milliseconds, not before the deadline.
    pub finished_ms: u64,
}

/// An idempotency key in its tenant's scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantKey {
    /// Whose key it is.
    pub tenant: Arc<str>,
    /// The key.
    pub key: Arc<str>,
}

/// Drops idempotency keys whose jobs are forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetKeys {
    /// At most `FORGET_KEYS_MAX`; those of jobs that are remembered are left alone.
    pub keys: Vec<TenantKey>,
}

/// Changes the settings, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSettings {
    /// The version that the changes were made for; another one is refused.
    pub expected_version: u64,
    /// At least one and at most `SETTINGS_CHANGES_MAX`, no key twice.
    pub changes: Vec<SettingChange>,
    /// Who asked.
    pub author: Author,
}

/// What operators say about a node. What is not named stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetNode {
    /// The node.
    pub node: NodeId,
    /// Whether it gets no new jobs.
    pub draining: Option<bool>,
    /// Labels to be set. `region` and `zone` have a meaning.
    pub labels_set: BTreeMap<String, String>,
    /// Labels to be taken away, before others are set.
    pub labels_removed: Vec<String>,
    /// Who asked.
    pub author: Author,
}

/// Raises the feature level: from here on, commands of that level may be proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaiseFeatures {
    /// At most `FEATURES`; one that is not above the present level changes nothing.
    pub level: u32,
}

/// Notes an administrative act: one of the membership or of the lead, which Raft itself carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteAct {
    /// What was done, in one line.
    pub act: String,
    /// Who asked.
    pub author: Author,
}

impl Command {
    /// Returns the feature level that a cluster must have for this command to be proposed: what
    /// every peer must understand. `RaiseFeatures` goes before the level, and counts as 2.
    pub fn features(&self) -> u32 {
        let level = |is_first| if is_first { FEATURES_FIRST } else { 2 };
        match self {
            Command::Submit(submit) => level(submit.is_of_first_level()),
            Command::RegisterNode(register) => level(!register.witness),
            Command::RemoveNode(remove) => level(remove.author == Author::default()),
            Command::Assign(_)
            | Command::Complete(_)
            | Command::Fail(_)
            | Command::Revoke(_)
            | Command::Cancel(_)
            | Command::Forget(_)
            | Command::AllocateNode(_) => FEATURES_FIRST,
            Command::Release(_)
            | Command::Expire(_)
            | Command::ForgetKeys(_)
            | Command::SetSettings(_)
            | Command::SetNode(_)
            | Command::RaiseFeatures(_)
            | Command::Mark => 2,
            Command::NoteAct(_) => 3,
        }
    }
}

impl Submit {
    /// Bytes of all its texts.
    pub fn text_bytes(&self) -> usize {
        let key = self.idempotency_key.as_ref().map_or(0, |key| key.len());
        let names = self.tenant.len() + key + self.kind.len() + self.traceparent.len();
        names + self.parameters.len()
    }

    fn is_of_first_level(&self) -> bool {
        let has_times = self.deadline_ms > 0 || self.max_runtime_s > 0;
        !has_times && self.cost == 1 && self.retry_of.is_none()
    }
}

impl TenantKey {
    /// Returns the key of a submit that has one.
    pub fn of(submit: &Submit) -> Option<TenantKey> {
        let key = submit.idempotency_key.as_ref()?;
        Some(TenantKey { tenant: Arc::clone(&submit.tenant), key: Arc::clone(key) })
    }
}
