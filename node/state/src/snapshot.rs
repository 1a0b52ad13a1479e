//! The state as plain data: what a snapshot must hold, and nothing that follows from it.

use crate::audit::{self, Invariant, Violation};
use crate::fair::{PRIORITIES, Tenant};
use crate::job::{Job, JobId, Phase};
use crate::keys::KeyRecord;
use crate::limits::{FEATURES, FEATURES_FIRST, PRIORITY_MAX};
use crate::mutants::{self, Mutant};
use crate::reply::LogIndex;
use crate::roster::{Node, NodeId};
use crate::settings::{self, SettingChange, SettingValue, Settings, SettingsRecord};
use crate::state::{FeatureLevel, State};
use crate::trail::TrailRecord;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A state without its indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Index of the last entry that was applied.
    pub applied: LogIndex,
    /// By id, ascending.
    pub jobs: Vec<Arc<Job>>,
    /// By id, ascending.
    pub nodes: Vec<(NodeId, Node)>,
    /// How many jobs were accepted, ever: the sequence of the newest one.
    pub submit_sequence: u64,
    /// How many jobs were forgotten, ever.
    pub forgotten: u64,
    /// The feature level. At 1, all that follows is as in an empty state.
    pub features: u32,
    /// How many leases were granted, ever.
    pub assigned: u64,
    /// Of the fair share, one a priority.
    pub virtual_times: [u64; PRIORITIES],
    /// Of the fair share, one a priority, by tenant, ascending; those without a tag are left out.
    pub finish_tags: Vec<(Arc<str>, [u64; PRIORITIES])>,
    /// Of forgotten jobs, by key, ascending.
    pub keys: Vec<Arc<KeyRecord>>,
    /// How often the settings were changed.
    pub settings_version: u64,
    /// What differs from the default, by key, ascending, with the version that set it.
    pub settings: Vec<(Arc<str>, SettingValue, u64)>,
    /// Versions of the settings, oldest first.
    pub settings_history: Vec<SettingsRecord>,
    /// Index of the last mark.
    pub marked: LogIndex,
    /// Administrative acts, oldest first.
    pub trail: Vec<TrailRecord>,
}

/// Why data is not a state. Nothing is repaired: fetch the snapshot anew from another peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not in ascending order, or twice.
    #[error("snapshot has job {0} out of order or twice")]
    JobOrder(JobId),
    /// Not in ascending order, or twice.
    #[error("snapshot has node {0} out of order or twice")]
    NodeOrder(NodeId),
    /// Not in ascending order, or twice.
    #[error("snapshot has a record of the {0} out of order or twice")]
    RecordOrder(&'static str),
    /// Of a cluster that all understand more.
    #[error("snapshot is of feature level {0}, not 1..={FEATURES}; upgrade this node")]
    Features(u32),
    /// Breaks an invariant.
    #[error("snapshot breaks an invariant: {0}")]
    Violation(#[from] Violation),
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        State::new().to_snapshot()
    }
}

impl State {
    /// Copies the state out; jobs are shared. Take a clone of the state first where `apply` must
    /// not wait: that costs O(1).
    pub fn to_snapshot(&self) -> Snapshot {
        let tagged = self.fair.tenants.iter().filter(|(_, it)| it.finish_tags != [0; PRIORITIES]);
        Snapshot {
            applied: self.applied,
            jobs: self.jobs.values().map(Arc::clone).collect(),
            nodes: self.nodes().map(|(id, node)| (id, node.clone())).collect(),
            submit_sequence: self.submit_sequence,
            forgotten: self.forgotten,
            features: self.features.0,
            assigned: self.assigned,
            virtual_times: self.fair.virtual_times,
            finish_tags: tagged.map(|(name, it)| (Arc::clone(name), it.finish_tags)).collect(),
            keys: self.keys.forgotten.values().map(Arc::clone).collect(),
            settings_version: self.settings.version(),
            settings: self
                .settings
                .stored()
                .map(|(key, value, version)| (Arc::clone(key), value, version))
                .collect(),
            settings_history: self.settings_history().cloned().collect(),
            marked: self.marked,
            trail: self.trail().cloned().collect(),
        }
    }

    /// Rebuilds a state with all its indexes.
    ///
    /// # Errors
    /// When the data breaks an order or an invariant; then it was not made by `to_snapshot`.
    pub fn from_snapshot(snapshot: Snapshot) -> Result<State, SnapshotError> {
        let Snapshot { features, jobs, nodes, .. } = &snapshot;
        if !(FEATURES_FIRST..=FEATURES).contains(features) {
            return Err(SnapshotError::Features(*features));
        }
        if let Some(pair) = jobs.windows(2).find(|pair| pair[0].id() >= pair[1].id()) {
            return Err(SnapshotError::JobOrder(pair[1].id()));
        }
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(SnapshotError::NodeOrder(pair[1].0));
        }
        let mut state = State {
            applied: snapshot.applied,
            submit_sequence: snapshot.submit_sequence,
            forgotten: snapshot.forgotten,
            features: FeatureLevel(snapshot.features),
            assigned: snapshot.assigned,
            marked: snapshot.marked,
            settings: settings_of(&snapshot)?,
            trail: snapshot.trail.into_iter().map(Arc::new).collect(),
            nodes: snapshot.nodes.into_iter().collect(),
            ..State::default()
        };
        state.restore_fair(snapshot.virtual_times, snapshot.finish_tags)?;
        state.restore_keys(snapshot.keys)?;
        state.restore_jobs(snapshot.jobs)?;
        audit::check_records(&state)?;
        Ok(state)
    }

    fn restore_fair(
        &mut self,
        virtual_times: [u64; PRIORITIES],
        finish_tags: Vec<(Arc<str>, [u64; PRIORITIES])>,
    ) -> Result<(), SnapshotError> {
        if !finish_tags.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(SnapshotError::RecordOrder("tenants"));
        }
        self.fair.virtual_times = virtual_times;
        let tenant = |finish_tags| Tenant { finish_tags, ..Tenant::default() };
        self.fair.tenants =
            finish_tags.into_iter().map(|(name, tags)| (name, tenant(tags))).collect();
        Ok(())
    }

    fn restore_keys(&mut self, keys: Vec<Arc<KeyRecord>>) -> Result<(), SnapshotError> {
        if !keys.is_sorted_by(|one, next| one.key < next.key) {
            return Err(SnapshotError::RecordOrder("idempotency keys"));
        }
        let keys = keys.into_iter().filter(|_| !mutants::is(Mutant::KeyForgottenAtSnapshot));
        keys.for_each(|record| self.keys.insert_forgotten(record));
        Ok(())
    }

    fn restore_jobs(&mut self, jobs: Vec<Arc<Job>>) -> Result<(), SnapshotError> {
        let mut texts: BTreeSet<Arc<str>> = self.fair.tenants.keys().map(Arc::clone).collect();
        let mut share = |text: &mut Arc<str>| match texts.get(text) {
            Some(known) => *text = Arc::clone(known),
            None => drop(texts.insert(Arc::clone(text))),
        };
        let mut own = Vec::with_capacity(jobs.len());
        for mut job in jobs {
            let id = job.id();
            if job.submit.priority > PRIORITY_MAX {
                let detail = format!("job {id} has priority {}", job.submit.priority);
                return Err(Violation { invariant: Invariant::S6, detail }.into());
            }
            if mutants::is(Mutant::AgeingResetAtFailover) && job.phase == Phase::Queued {
                Arc::make_mut(&mut job).stamp = self.assigned;
            }
            if mutants::is(Mutant::SnapshotMissesField) {
                Arc::make_mut(&mut job).retry_at_ms = 0;
            }
            let submit = &mut Arc::make_mut(&mut job).submit;
            share(&mut submit.tenant);
            share(&mut submit.kind);
            // Decoded parameters are a slice of the snapshot; without a copy they would keep all of
            // it.
            submit.parameters = Bytes::copy_from_slice(&submit.parameters);
            own.push(job);
        }
        self.insert_all(own);
        Ok(())
    }
}

fn settings_of(snapshot: &Snapshot) -> Result<Settings, SnapshotError> {
    let Snapshot { settings, settings_history, settings_version, .. } = snapshot;
    if !settings.is_sorted_by(|one, next| one.0 < next.0) {
        return Err(SnapshotError::RecordOrder("settings"));
    }
    for (key, value, _) in settings {
        let change = SettingChange { key: key.to_string(), value: Some(*value) };
        let found = settings::check(&change);
        found.map_err(|detail| Violation { invariant: Invariant::S6, detail })?;
    }
    Ok(Settings::restore(*settings_version, settings.clone(), settings_history.clone()))
}
