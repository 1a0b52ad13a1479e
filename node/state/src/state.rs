//! What every peer agrees upon, with the indexes that make asking cheap.
//!
//! Jobs and nodes are the truth; the other fields follow from them and are rebuilt from a snapshot.
//! Jobs are written by `insert`, `change` and `remove` alone, so no command can forget an index.

use crate::command::Submit;
use crate::job::{ArtifactRef, Digest, Job, JobId, Phase};
use crate::lease::Lease;
use crate::queue::{Place, Queue};
use crate::reply::LogIndex;
use crate::roster::{Node, NodeId};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// The replicated state. A clone costs O(1) and shares its structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) applied: LogIndex,
    pub(crate) jobs: OrdMap<JobId, Arc<Job>>,
    pub(crate) nodes: OrdMap<NodeId, Node>,
    pub(crate) submit_sequence: u64,
    pub(crate) forgotten: u64,
    // Derived.
    pub(crate) queue: Queue,
    pub(crate) leases: OrdSet<(NodeId, JobId)>,
    pub(crate) terminal: OrdSet<(LogIndex, JobId)>,
    pub(crate) artifacts: OrdSet<(Digest, JobId)>,
    pub(crate) keys: OrdMap<TenantKey, JobId>,
}

/// An idempotency key in its tenant's scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TenantKey {
    pub(crate) tenant: Arc<str>,
    pub(crate) key: Arc<str>,
}

impl TenantKey {
    pub(crate) fn of(submit: &Submit) -> Option<TenantKey> {
        let key = submit.idempotency_key.as_deref()?;
        Some(TenantKey { tenant: submit.tenant.as_str().into(), key: key.into() })
    }
}

const JOB_LEAST: JobId = JobId(0);
const JOB_MOST: JobId = JobId(u128::MAX);

/// What may be asked.
impl State {
    /// Makes the state before the first entry.
    pub fn new() -> State {
        State::default()
    }

    /// Returns the index of the last entry that was applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Returns a job, unless it was never accepted or is forgotten.
    pub fn job(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job).map(Arc::as_ref)
    }

    /// Walks all jobs by their ids.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (id, job.as_ref()))
    }

    /// Walks the jobs that wait, in serving order.
    pub fn queued(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.queue.iter().map(|(_, id)| (id, self.indexed(id)))
    }

    /// Counts the jobs that are served before this one, so 0 is next; `None` unless it waits.
    ///
    /// Its cost is a few hundred steps at a full queue: see `Queue::rank`.
    pub fn position(&self, job: JobId) -> Option<usize> {
        let job = self.job(job)?;
        match job.phase {
            Phase::Queued => Some(self.queue.rank(Place::of(job))),
            _ => None,
        }
    }

    /// Walks the leases by node, then job.
    pub fn leases(&self) -> impl Iterator<Item = (JobId, &Lease)> {
        self.leases.iter().map(|(_, job)| (*job, self.indexed_lease(job)))
    }

    /// Walks the leases of one node by job.
    pub fn leases_of(&self, node: NodeId) -> impl Iterator<Item = (JobId, &Lease)> {
        let range = (node, JOB_LEAST)..=(node, JOB_MOST);
        self.leases.range(range).map(|(_, job)| (*job, self.indexed_lease(job)))
    }

    /// Returns a node of the roster.
    pub fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// Walks the roster by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Walks the terminal jobs in the order in which they ended.
    pub fn terminal_oldest(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.terminal.iter().map(|(_, id)| (id, self.indexed(id)))
    }

    /// Counts all jobs that are remembered.
    pub fn jobs_count(&self) -> usize {
        self.jobs.len()
    }

    /// Counts the jobs that wait.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Counts the leases.
    pub fn leased_count(&self) -> usize {
        self.leases.len()
    }

    /// Counts the leases of one node.
    pub fn leased_count_of(&self, node: NodeId) -> usize {
        self.leases.range((node, JOB_LEAST)..=(node, JOB_MOST)).count()
    }

    /// Counts the jobs that have ended.
    pub fn terminal_count(&self) -> usize {
        self.terminal.len()
    }

    /// Counts the jobs that were forgotten, ever.
    pub fn forgotten_count(&self) -> u64 {
        self.forgotten
    }

    /// Finds who holds an artifact, as the job with the largest id tells; nobody refers to it when
    /// there is none, and its bytes may be collected.
    pub fn artifact_holders(&self, digest: &Digest) -> Option<&ArtifactRef> {
        self.artifact_refs(digest).next()
    }

    /// Walks every job's account of an artifact, largest job id first. Equal bytes may result from
    /// several jobs, and the holders may differ.
    pub fn artifact_refs(&self, digest: &Digest) -> impl Iterator<Item = &ArtifactRef> {
        let digest = *digest;
        self.artifacts.range((digest, JOB_LEAST)..=(digest, JOB_MOST)).rev().map(move |(_, job)| {
            let mut artifacts = self.indexed(job).artifacts.iter();
            artifacts.find(|artifact| artifact.digest == digest).expect("the index names its job")
        })
    }

    /// Walks the digests of all artifacts that a job refers to, in order, without repeats.
    pub fn artifact_digests(&self) -> impl Iterator<Item = &Digest> {
        let mut last = None;
        self.artifacts.iter().map(|(digest, _)| digest).filter(move |digest| {
            let new = last != Some(*digest);
            last = Some(*digest);
            new
        })
    }

    /// Finds the job that brought a tenant's idempotency key.
    pub fn key_owner(&self, tenant: &str, key: &str) -> Option<JobId> {
        self.keys.get(&TenantKey { tenant: tenant.into(), key: key.into() }).copied()
    }

    fn indexed(&self, job: &JobId) -> &Job {
        self.job(*job).expect("an index names jobs that exist")
    }

    fn indexed_lease(&self, job: &JobId) -> &Lease {
        self.indexed(job).lease().expect("the index of leases names leased jobs")
    }
}

/// What `apply` may write.
impl State {
    /// Notes that entries up to this one are applied; for entries without a command.
    ///
    /// # Panics
    /// When the index goes down: the log was replayed, which the caller must not do.
    pub fn mark_applied(&mut self, index: LogIndex) {
        assert!(index >= self.applied, "applied index {} after {}", index.0, self.applied.0);
        self.applied = index;
    }

    pub(crate) fn insert(&mut self, mut job: Job) {
        // Decoded parameters are a slice of their entry or snapshot; without a copy they would keep
        // all of it.
        job.submit.parameters = Bytes::copy_from_slice(&job.submit.parameters);
        if let Some(key) = TenantKey::of(&job.submit) {
            self.keys.insert(key, job.id());
        }
        self.index(&job);
        let before = self.jobs.insert(job.id(), Arc::new(job));
        assert!(before.is_none(), "a job is inserted once");
    }

    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let mut job = self.jobs.get(&id).cloned().expect("a job that changes exists");
        self.unindex(&job);
        change(Arc::make_mut(&mut job));
        assert_eq!(job.id(), id);
        self.index(&job);
        self.jobs.insert(id, job);
    }

    pub(crate) fn remove(&mut self, id: JobId) {
        let job = self.jobs.remove(&id).expect("a job that is removed exists");
        assert!(job.phase.is_terminal());
        self.unindex(&job);
        if let Some(key) = TenantKey::of(&job.submit) {
            let owner = self.keys.remove(&key);
            assert_eq!(owner, Some(id), "a key leads to the job that brought it");
        }
    }

    fn index(&mut self, job: &Job) {
        match &job.phase {
            Phase::Queued => self.queue.insert(Place::of(job), job.id()),
            Phase::Leased(lease) => {
                self.leases.insert((lease.node, job.id()));
            }
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => {
                self.terminal.insert((job.finished, job.id()));
                for artifact in &job.artifacts {
                    self.artifacts.insert((artifact.digest, job.id()));
                }
            }
        }
    }

    fn unindex(&mut self, job: &Job) {
        match &job.phase {
            Phase::Queued => self.queue.remove(Place::of(job)),
            Phase::Leased(lease) => {
                let entry = self.leases.remove(&(lease.node, job.id()));
                assert!(entry.is_some(), "a leased job is in the index of leases");
            }
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => {
                let entry = self.terminal.remove(&(job.finished, job.id()));
                assert!(entry.is_some(), "a terminal job is in the index of terminal jobs");
                for artifact in &job.artifacts {
                    // Absent for a digest that the job names twice.
                    self.artifacts.remove(&(artifact.digest, job.id()));
                }
            }
        }
    }
}
