//! What every peer agrees upon, with the indexes that make asking cheap.
//!
//! Jobs, nodes, settings and the records beside them are the truth; the fields marked as derived
//! follow from them and are rebuilt from a snapshot. Jobs are written by `insert`, `change` and
//! `remove` alone, so no command can forget an index.

use crate::command::{Submit, TenantKey};
use crate::fair::Fair;
use crate::job::{ArtifactRef, Digest, Job, JobId, Phase};
use crate::keys::{KeyRecord, Keys};
use crate::lease::Lease;
use crate::limits;
use crate::queue::{Ageing, Queue};
use crate::reply::LogIndex;
use crate::roster::{Node, NodeId};
use crate::settings::{Settings, SettingsRecord};
use crate::trail::TrailRecord;
use bytes::Bytes;
use imbl::{OrdMap, OrdSet, Vector};
use std::sync::Arc;

/// The replicated state. A clone costs O(1) and shares its structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) applied: LogIndex,
    pub(crate) jobs: OrdMap<JobId, Arc<Job>>,
    pub(crate) nodes: OrdMap<NodeId, Node>,
    pub(crate) submit_sequence: u64,
    pub(crate) forgotten: u64,
    pub(crate) features: FeatureLevel,
    pub(crate) assigned: u64,
    // Its counts are derived.
    pub(crate) fair: Fair,
    // Those of jobs that are remembered are derived.
    pub(crate) keys: Keys,
    pub(crate) settings: Settings,
    pub(crate) marked: LogIndex,
    pub(crate) trail: Vector<Arc<TrailRecord>>,
    // Derived.
    pub(crate) queue: Queue,
    pub(crate) leases: OrdSet<(NodeId, JobId)>,
    pub(crate) ended: Ended,
    pub(crate) artifacts: OrdSet<(Digest, JobId)>,
    pub(crate) deadlines: OrdSet<(u64, JobId)>,
    pub(crate) bytes: JobBytes,
}

/// What the jobs take, as `Job::bytes` counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobBytes {
    pub(crate) unfinished: u64,
    pub(crate) ended: u64,
}

impl JobBytes {
    pub(crate) fn of(&mut self, phase: &Phase) -> &mut u64 {
        if phase.is_terminal() { &mut self.ended } else { &mut self.unfinished }
    }
}

/// What every peer of the cluster understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FeatureLevel(pub(crate) u32);

impl Default for FeatureLevel {
    fn default() -> FeatureLevel {
        FeatureLevel(limits::FEATURES_FIRST)
    }
}

/// The jobs that have ended, each phase in the order in which its jobs did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) succeeded: OrdSet<(LogIndex, JobId)>,
    pub(crate) failed: OrdSet<(LogIndex, JobId)>,
    pub(crate) cancelled: OrdSet<(LogIndex, JobId)>,
}

impl Ended {
    pub(crate) fn len(&self) -> usize {
        self.succeeded.len() + self.failed.len() + self.cancelled.len()
    }

    pub(crate) fn of(&self, phase: &Phase) -> Option<&OrdSet<(LogIndex, JobId)>> {
        match phase {
            Phase::Queued | Phase::Leased(_) => None,
            Phase::Succeeded => Some(&self.succeeded),
            Phase::Failed => Some(&self.failed),
            Phase::Cancelled => Some(&self.cancelled),
        }
    }

    fn of_mut(&mut self, phase: &Phase) -> Option<&mut OrdSet<(LogIndex, JobId)>> {
        match phase {
            Phase::Queued | Phase::Leased(_) => None,
            Phase::Succeeded => Some(&mut self.succeeded),
            Phase::Failed => Some(&mut self.failed),
            Phase::Cancelled => Some(&mut self.cancelled),
        }
    }

    /// Walks all in the order in which they ended.
    fn oldest(&self) -> impl Iterator<Item = &JobId> {
        let mut phases =
            [&self.succeeded, &self.failed, &self.cancelled].map(|set| set.iter().peekable());
        std::iter::from_fn(move || {
            let heads = phases.iter_mut().enumerate();
            let (_, at) = heads.filter_map(|(at, it)| it.peek().map(|head| (*head, at))).min()?;
            phases[at].next().map(|(_, job)| job)
        })
    }
}

/// What is known about a tenant that has unfinished jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantStats<'a> {
    /// Its name.
    pub tenant: &'a str,
    /// Its jobs that wait, those in back-off too.
    pub queued: usize,
    /// Its jobs that are worked on.
    pub leased: usize,
    /// Its share of the slots.
    pub weight: u64,
}

/// What is known about the jobs of a priority that wait, those in back-off too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorityStats {
    /// 0..=9.
    pub priority: u8,
    /// How many there are.
    pub queued: usize,
    /// When the oldest was submitted, by the wall clock of its peer; 0 where none waits.
    pub oldest_ms: u64,
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

    /// Returns a job as it is held: a job that has changed since is another one.
    pub fn job_shared(&self, job: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&job)
    }

    /// Walks all jobs by their ids.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.jobs.iter().map(|(id, job)| (id, job.as_ref()))
    }

    /// Walks the jobs that wait for a slot, in serving order: as each would be served, if no other
    /// came. Jobs in back-off are left out.
    pub fn queued(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.queue.serving(self.ageing()).map(|id| {
            let (id, job) = self.jobs.get_key_value(&id).expect("an index names jobs that exist");
            (id, job.as_ref())
        })
    }

    /// Counts the jobs that are served before this one, so 0 is next; `None` unless it waits for a
    /// slot.
    ///
    /// Exact for the first of the queue and near enough beyond; its cost is some hundreds of steps
    /// at a full queue: see `Queue::rank`.
    pub fn position(&self, job: JobId) -> Option<usize> {
        let job = self.job(job)?;
        let waits = job.phase == Phase::Queued && !job.is_delayed();
        waits.then(|| self.queue.rank(job, self.ageing()))
    }

    /// Walks the jobs in back-off with the time of its end in milliseconds, the earliest first.
    pub fn delayed(&self) -> impl Iterator<Item = (JobId, u64)> {
        self.queue.delayed()
    }

    /// Walks the unfinished jobs that have a deadline with that in milliseconds, the earliest
    /// first.
    pub fn deadlines(&self) -> impl Iterator<Item = (JobId, u64)> {
        self.deadlines.iter().map(|(deadline_ms, job)| (*job, *deadline_ms))
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
        self.ended.oldest().map(|id| (id, self.indexed(id)))
    }

    /// Walks the succeeded jobs in the order in which they ended.
    pub fn succeeded(&self) -> impl DoubleEndedIterator<Item = (&JobId, &Job)> {
        self.ended.succeeded.iter().map(|(_, id)| (id, self.indexed(id)))
    }

    /// Walks the failed jobs in the order in which they ended.
    pub fn failed(&self) -> impl DoubleEndedIterator<Item = (&JobId, &Job)> {
        self.ended.failed.iter().map(|(_, id)| (id, self.indexed(id)))
    }

    /// Walks the cancelled jobs in the order in which they ended.
    pub fn cancelled(&self) -> impl DoubleEndedIterator<Item = (&JobId, &Job)> {
        self.ended.cancelled.iter().map(|(_, id)| (id, self.indexed(id)))
    }

    /// Returns the feature level: what every peer of the cluster understands.
    pub fn features(&self) -> u32 {
        self.features.0
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns how often the settings were changed.
    pub fn settings_version(&self) -> u64 {
        self.settings.version()
    }

    /// Walks the versions of the settings that are remembered, oldest first.
    pub fn settings_history(&self) -> impl DoubleEndedIterator<Item = &SettingsRecord> {
        self.settings.history()
    }

    /// Says whether no job is given out.
    pub fn paused(&self) -> bool {
        self.settings.queue_paused()
    }

    /// Walks the administrative acts that are remembered, oldest first.
    pub fn trail(&self) -> impl DoubleEndedIterator<Item = &TrailRecord> {
        self.trail.iter().map(Arc::as_ref)
    }

    /// Returns the index of the last mark; 0 before the first.
    pub fn marked(&self) -> LogIndex {
        self.marked
    }

    /// Walks the tenants that have unfinished jobs, by name.
    pub fn tenants(&self) -> impl Iterator<Item = TenantStats<'_>> {
        let active = self.fair.tenants.iter().filter(|(_, tenant)| !tenant.is_idle());
        active.map(|(name, tenant)| TenantStats {
            tenant: name,
            queued: tenant.queued,
            leased: tenant.leased,
            weight: self.settings.queue_weight(name),
        })
    }

    /// Counts the unfinished jobs of a tenant.
    pub fn tenant_jobs_count(&self, tenant: &str) -> usize {
        self.fair.tenants.get(tenant).map_or(0, |tenant| tenant.queued + tenant.leased)
    }

    /// Walks the priorities, highest first.
    pub fn priorities(&self) -> impl Iterator<Item = PriorityStats> {
        (0..=limits::PRIORITY_MAX).rev().map(|priority| {
            let oldest = self.queue.oldest_of(priority).map(|job| self.indexed(&job));
            let oldest_ms = oldest.map_or(0, |job| job.submit.submitted_ms);
            PriorityStats { priority, queued: self.queue.len_of(priority), oldest_ms }
        })
    }

    /// Walks the idempotency keys of forgotten jobs, those first whose jobs ended first.
    pub fn forgotten_keys(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.forgotten_oldest()
    }

    /// Counts all jobs that are remembered.
    pub fn jobs_count(&self) -> usize {
        self.jobs.len()
    }

    /// Counts the jobs that wait, those in back-off too.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Counts the jobs in back-off.
    pub fn delayed_count(&self) -> usize {
        self.queue.delayed_len()
    }

    /// Counts the leases.
    pub fn leased_count(&self) -> usize {
        self.leases.len()
    }

    /// Counts the leases of one node.
    pub fn leased_count_of(&self, node: NodeId) -> usize {
        self.leases.range((node, JOB_LEAST)..=(node, JOB_MOST)).count()
    }

    /// Bytes of the jobs that have not ended, as `Job::bytes` counts them.
    pub fn unfinished_bytes(&self) -> u64 {
        self.bytes.unfinished
    }

    /// Bytes of the jobs that have ended, as `Job::bytes` counts them.
    pub fn ended_bytes(&self) -> u64 {
        self.bytes.ended
    }

    /// Says whether a `Submit` is a repeat: its job, or one with its key, was accepted before.
    pub fn is_repeat(&self, submit: &Submit) -> bool {
        let is_known = |key| self.keys.owner(&key).is_some() || self.keys.forgotten(&key).is_some();
        self.jobs.contains_key(&submit.job) || TenantKey::of(submit).is_some_and(is_known)
    }

    /// Counts the jobs that have ended.
    pub fn terminal_count(&self) -> usize {
        self.ended.len()
    }

    /// Counts the jobs that have succeeded.
    pub fn succeeded_count(&self) -> usize {
        self.ended.succeeded.len()
    }

    /// Counts the jobs that have failed.
    pub fn failed_count(&self) -> usize {
        self.ended.failed.len()
    }

    /// Counts the jobs that were cancelled.
    pub fn cancelled_count(&self) -> usize {
        self.ended.cancelled.len()
    }

    /// Counts the leases that were granted, ever, from feature level 2 on.
    pub fn assigned_count(&self) -> u64 {
        self.assigned
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

    /// Finds the job that brought a tenant's idempotency key and is remembered.
    pub fn key_owner(&self, tenant: &str, key: &str) -> Option<JobId> {
        self.keys.owner(&TenantKey { tenant: tenant.into(), key: key.into() })
    }

    pub(crate) fn has_level_2(&self) -> bool {
        self.features.0 >= 2
    }

    fn ageing(&self) -> Ageing {
        let jobs = if self.has_level_2() { self.settings.queue_ageing_jobs() } else { 0 };
        Ageing { assigned: self.assigned, jobs }
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
        self.share_texts(&mut job.submit);
        if let Some(key) = TenantKey::of(&job.submit) {
            self.keys.own(key, job.id());
        }
        self.index(&job);
        let before = self.jobs.insert(job.id(), Arc::new(job));
        assert!(before.is_none(), "a job is inserted once");
    }

    /// Inserts all jobs of a snapshot, ascending by id, into a state that has none: index by index
    /// and each in its own order, which is several times as fast as job by job.
    pub(crate) fn insert_all(&mut self, jobs: Vec<Arc<Job>>) {
        assert!(self.jobs.is_empty());
        let mut artifacts = Vec::new();
        let mut keys = Vec::new();
        for job in &jobs {
            keys.extend(TenantKey::of(&job.submit).map(|key| (key, job.id())));
            if job.phase.is_terminal() {
                self.bytes.ended += job.bytes();
                artifacts.extend(job.artifacts.iter().map(|it| (it.digest, job.id())));
            } else {
                self.index(job);
            }
        }
        keys.sort_unstable();
        keys.into_iter().for_each(|(key, job)| self.keys.own(key, job));
        artifacts.sort_unstable();
        self.artifacts.extend(artifacts);
        for phase in [Phase::Succeeded, Phase::Failed, Phase::Cancelled] {
            let of_phase = jobs.iter().filter(|job| job.phase == phase);
            let mut places: Vec<_> = of_phase.map(|job| (job.finished, job.id())).collect();
            places.sort_unstable();
            self.ended.of_mut(&phase).expect("the phase is terminal").extend(places);
        }
        self.jobs.extend(jobs.into_iter().map(|job| (job.id(), job)));
    }

    /// Lets a job share the texts that it has in common with others: a million jobs have few
    /// tenants and kinds.
    fn share_texts(&self, submit: &mut Submit) {
        let newest = self.jobs.get_max().map(|(_, job)| &job.submit);
        if let Some(newest) = newest.filter(|newest| newest.kind == submit.kind) {
            submit.kind = Arc::clone(&newest.kind);
        }
        let known = self.fair.name(&submit.tenant);
        let same = newest.filter(|newest| newest.tenant == submit.tenant);
        if let Some(tenant) = known.or_else(|| same.map(|newest| Arc::clone(&newest.tenant))) {
            submit.tenant = tenant;
        }
    }

    pub(crate) fn change(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let mut job = self.jobs.get(&id).cloned().expect("a job that changes exists");
        self.unindex(&job);
        change(Arc::make_mut(&mut job));
        assert_eq!(job.id(), id);
        self.index(&job);
        self.fair.settle(&job.submit.tenant);
        self.jobs.insert(id, job);
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Arc<Job> {
        let job = self.jobs.remove(&id).expect("a job that is removed exists");
        assert!(job.phase.is_terminal());
        self.unindex(&job);
        if let Some(key) = TenantKey::of(&job.submit) {
            self.keys.disown(&key, id);
        }
        job
    }

    pub(crate) fn note_act(&mut self, record: TrailRecord) {
        self.trail.push_back(Arc::new(record));
        if self.trail.len() > limits::TRAIL_MAX {
            self.trail.pop_front();
        }
    }

    fn index(&mut self, job: &Job) {
        *self.bytes.of(&job.phase) += job.bytes();
        let tenant = &job.submit.tenant;
        match &job.phase {
            Phase::Queued => {
                self.queue.insert(job);
                self.fair.count(tenant, |tenant| tenant.queued += 1);
            }
            Phase::Leased(lease) => {
                self.leases.insert((lease.node, job.id()));
                self.fair.count(tenant, |tenant| tenant.leased += 1);
            }
            phase @ (Phase::Succeeded | Phase::Failed | Phase::Cancelled) => {
                let ended = self.ended.of_mut(phase).expect("the phase is terminal");
                ended.insert((job.finished, job.id()));
                for artifact in &job.artifacts {
                    self.artifacts.insert((artifact.digest, job.id()));
                }
                return;
            }
        }
        if job.submit.deadline_ms > 0 {
            self.deadlines.insert((job.submit.deadline_ms, job.id()));
        }
    }

    fn unindex(&mut self, job: &Job) {
        *self.bytes.of(&job.phase) -= job.bytes();
        let tenant = &job.submit.tenant;
        match &job.phase {
            Phase::Queued => {
                self.queue.remove(job);
                self.fair.count(tenant, |tenant| tenant.queued -= 1);
            }
            Phase::Leased(lease) => {
                let entry = self.leases.remove(&(lease.node, job.id()));
                assert!(entry.is_some(), "a leased job is in the index of leases");
                self.fair.count(tenant, |tenant| tenant.leased -= 1);
            }
            phase @ (Phase::Succeeded | Phase::Failed | Phase::Cancelled) => {
                let ended = self.ended.of_mut(phase).expect("the phase is terminal");
                let entry = ended.remove(&(job.finished, job.id()));
                assert!(entry.is_some(), "a terminal job is in the index of its phase");
                for artifact in &job.artifacts {
                    // Absent for a digest that the job names twice.
                    self.artifacts.remove(&(artifact.digest, job.id()));
                }
            }
        }
        if job.submit.deadline_ms > 0 {
            self.deadlines.remove(&(job.submit.deadline_ms, job.id()));
        }
    }
}
