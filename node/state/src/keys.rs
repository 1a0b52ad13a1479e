//! Idempotency keys: which job each leads to, and those that outlive their jobs.

use crate::command::{Submit, TenantKey};
use crate::job::{Digest, Job, JobId};
use crate::limits::KEYS_MAX;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// The key of a job that is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRecord {
    /// Whose key it is, and the key.
    pub key: TenantKey,
    /// The job that it led to.
    pub job: JobId,
    /// What the job asked for: `request_digest`.
    pub request: Digest,
    /// When the job ended, wall clock in milliseconds.
    pub finished_ms: u64,
}

/// Returns the digest of what a submit asks for, whoever asks: kind and parameters.
pub(crate) fn request_digest(submit: &Submit) -> Digest {
    let mut hasher = blake3::Hasher::new();
    // The length keeps kind and parameters apart.
    hasher.update(&u64::try_from(submit.kind.len()).expect("a usize fits").to_le_bytes());
    hasher.update(submit.kind.as_bytes());
    hasher.update(&submit.parameters);
    Digest(*hasher.finalize().as_bytes())
}

/// All keys. Clones share their structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    // Derived: of the jobs that are remembered.
    pub(crate) owners: OrdMap<TenantKey, JobId>,
    pub(crate) forgotten: OrdMap<TenantKey, Arc<KeyRecord>>,
    // Derived: by the time of their jobs' ends.
    pub(crate) oldest: OrdSet<(u64, TenantKey)>,
}

impl Keys {
    pub(crate) fn owner(&self, key: &TenantKey) -> Option<JobId> {
        self.owners.get(key).copied()
    }

    pub(crate) fn forgotten(&self, key: &TenantKey) -> Option<&KeyRecord> {
        self.forgotten.get(key).map(Arc::as_ref)
    }

    pub(crate) fn forgotten_oldest(&self) -> impl Iterator<Item = &KeyRecord> {
        self.oldest.iter().map(|(_, key)| self.forgotten(key).expect("the index names records"))
    }

    /// Notes the job that brought a key. That no other one did is the caller's to know; in a
    /// snapshot the audit finds it.
    pub(crate) fn own(&mut self, key: TenantKey, job: JobId) {
        self.owners.insert(key, job);
    }

    pub(crate) fn disown(&mut self, key: &TenantKey, job: JobId) {
        let owner = self.owners.remove(key);
        assert_eq!(owner, Some(job), "a key leads to the job that brought it");
    }

    /// Remembers the key of a job that is forgotten; at the bound the oldest makes room.
    pub(crate) fn remember(&mut self, job: &Job) {
        let Some(key) = TenantKey::of(&job.submit) else { return };
        let (request, finished_ms) = (request_digest(&job.submit), job.finished_ms);
        let record = KeyRecord { key, job: job.id(), request, finished_ms };
        self.insert_forgotten(Arc::new(record));
        if self.forgotten.len() > KEYS_MAX {
            let oldest = self.oldest.get_min().map(|(_, key)| key.clone());
            self.forget(&oldest.expect("there are some"));
        }
        assert!(self.forgotten.len() <= KEYS_MAX);
    }

    pub(crate) fn insert_forgotten(&mut self, record: Arc<KeyRecord>) {
        let key = record.key.clone();
        self.forget(&key);
        self.oldest.insert((record.finished_ms, key.clone()));
        self.forgotten.insert(key, record);
    }

    /// Drops the key of a forgotten job, if there is one.
    pub(crate) fn forget(&mut self, key: &TenantKey) {
        if let Some(record) = self.forgotten.remove(key) {
            let entry = self.oldest.remove(&(record.finished_ms, key.clone()));
            assert!(entry.is_some(), "the index names each record");
        }
    }
}
