//! What one command may have done beside jobs and nodes: the order, keys, settings, the trail.

use super::Step;
use crate::audit::{Invariant, Violation, ensure};
use crate::command::{Command, Submit, TenantKey};
use crate::fair::{PRIORITIES, Tags};
use crate::job::{Job, JobId, Phase};
use crate::keys::request_digest;
use crate::limits;
use crate::reply::Reply;
use crate::settings::SettingValue;
use crate::state::State;
use imbl::ordmap::DiffItem;
use std::collections::BTreeMap;

/// Says whether nothing changed but jobs, nodes and what is derived from them.
pub(super) fn is_same(before: &State, after: &State) -> bool {
    before.features == after.features
        && before.assigned == after.assigned
        && before.fair.virtual_times == after.fair.virtual_times
        && tags_changed(before, after).is_empty()
        && before.keys.forgotten.diff(&after.keys.forgotten).next().is_none()
        && before.settings == after.settings
        && before.marked == after.marked
        && before.trail == after.trail
}

/// Finds the tenants whose finish tags changed: before and after, zeros for one that is not there.
fn tags_changed(before: &State, after: &State) -> BTreeMap<String, (Tags, Tags)> {
    let none = [0; PRIORITIES];
    let changes = before.fair.tenants.diff(&after.fair.tenants).map(|item| match item {
        DiffItem::Add(name, new) => (name.to_string(), (none, new.finish_tags)),
        DiffItem::Update { old, new } => {
            (old.0.to_string(), (old.1.finish_tags, new.1.finish_tags))
        }
        DiffItem::Remove(name, old) => (name.to_string(), (old.finish_tags, none)),
    });
    changes.filter(|(_, (old, new))| old != new).collect()
}

impl Step<'_> {
    /// Checks a job's back-off: only a failure begins one, and within what the settings allow.
    pub(super) fn check_backoff(&self, old: &Job, new: &Job) -> Result<(), Violation> {
        let id = old.id();
        if let Command::Fail(fail) = self.command
            && new.phase == Phase::Queued
        {
            let most = self.before.settings.jobs_backoff_ms_max() * 12 / 10;
            let waits = new.retry_at_ms.saturating_sub(fail.finished_ms);
            let base = self.before.settings.jobs_backoff_ms_base();
            let is_asked = self.before.features.0 >= 2 && base > 0;
            ensure(new.is_delayed() == is_asked && waits <= most, Invariant::S9, || {
                format!("job {id} waits for {waits} ms, at most {most}")
            })?;
            let failed = new.attempts.last();
            let is_whole = failed.is_some_and(|it| it.token == fail.token);
            return ensure(is_whole || self.before.features.0 < 2, Invariant::S1, || {
                format!("job {id} failed under {}, and keeps {failed:?}", fail.token)
            });
        }
        ensure(!new.is_delayed(), Invariant::S9, || format!("job {id} waits without a failure"))
    }

    /// Checks what moved in the order of serving.
    pub(super) fn check_order(&self) -> Result<(), Violation> {
        let (before, after) = (self.before, self.after);
        let (mut assigned, mut times) = (before.assigned, before.fair.virtual_times);
        if let (Command::Assign(assign), Reply::Assigned { .. }) = (self.command, self.reply)
            && before.features.0 >= 2
            && let Some(job) = before.job(assign.job)
        {
            assigned += 1;
            let time = &mut times[usize::from(job.submit.priority)];
            *time = job.tag.max(*time);
        }
        let same_times = after.fair.virtual_times == times && after.assigned == assigned;
        ensure(same_times, Invariant::S9, || {
            let (found, leases) = (after.fair.virtual_times, after.assigned);
            format!("virtual times {found:?} after {leases} leases, expected {times:?}, {assigned}")
        })?;
        let mut changed = tags_changed(before, after);
        if let Some(submit) = self.accepted().filter(|_| before.features.0 >= 2) {
            let own = changed.remove(submit.tenant.as_ref()).map(|(_, new)| new);
            self.check_tag(submit, own)?;
        }
        // Others may be dropped alone, which forgives what they owe: when they have nothing left.
        let is_dropped = |(name, (_, new)): (&String, &(Tags, Tags))| {
            *new == [0; PRIORITIES] && after.tenant_jobs_count(name) == 0
        };
        ensure(changed.iter().all(is_dropped), Invariant::S9, || {
            format!("shares changed by {:?}: {changed:?}", self.command)
        })
    }

    /// Computes an accepted job's place anew.
    fn check_tag(&self, submit: &Submit, own: Option<Tags>) -> Result<(), Violation> {
        let class = usize::from(submit.priority);
        let known = self.before.fair.tenants.get(&submit.tenant);
        let old = known.map_or([0; PRIORITIES], |tenant| tenant.finish_tags);
        let start = old[class].max(self.before.fair.virtual_times[class]);
        let weight = match self.before.settings.get(&format!("queue.weight.{}", submit.tenant)) {
            Some(SettingValue::Number(weight)) => weight,
            _ => 1,
        };
        let mut expected = old;
        expected[class] = start.saturating_add(u64::from(submit.cost) * 1_000_000 / weight);
        let job = self.after.job(submit.job);
        let is_placed = job
            .is_some_and(|job| job.tag == start && job.stamp == self.before.assigned)
            && own == Some(expected);
        ensure(is_placed, Invariant::S9, || {
            format!("job {} starts at {:?}, expected {start}", submit.job, job.map(|job| job.tag))
        })
    }

    fn accepted(&self) -> Option<&Submit> {
        match (self.command, self.reply) {
            (Command::Submit(submit), Reply::Submitted { duplicate: false, .. }) => Some(submit),
            _ => None,
        }
    }

    /// Checks that keys of forgotten jobs come with those and go when it was asked for.
    pub(super) fn check_keys(&self) -> Result<(), Violation> {
        let (before, after) = (&self.before.keys, &self.after.keys);
        for item in before.forgotten.diff(&after.forgotten) {
            let (key, is_allowed) = match (item, self.command) {
                (DiffItem::Add(key, record), Command::Forget(forget)) => {
                    (key, forget.jobs.contains(&record.job))
                }
                (DiffItem::Remove(key, _), Command::ForgetKeys(forget)) => {
                    (key, forget.keys.contains(key))
                }
                (DiffItem::Remove(key, _), Command::Forget(_)) => {
                    (key, after.forgotten.len() == limits::KEYS_MAX)
                }
                (DiffItem::Add(key, _) | DiffItem::Remove(key, _), _) => (key, false),
                (DiffItem::Update { old, .. }, _) => (old.0, false),
            };
            ensure(is_allowed, Invariant::S2, || format!("key {key:?} by {:?}", self.command))?;
        }
        let Command::Forget(forget) = self.command else { return Ok(()) };
        let is_full = after.forgotten.len() == limits::KEYS_MAX;
        if self.before.features.0 < 2 || is_full {
            return Ok(());
        }
        for job in forget.jobs.iter().filter_map(|job| self.before.job(*job)) {
            let Some(key) = TenantKey::of(&job.submit) else { continue };
            let is_kept = self.after.job(job.id()).is_some()
                || after.forgotten(&key).is_some_and(|record| {
                    let request = request_digest(&job.submit);
                    record.job == job.id()
                        && record.request == request
                        && record.finished_ms == job.finished_ms
                });
            ensure(is_kept, Invariant::S2, || format!("key {key:?} went with its job"))?;
        }
        Ok(())
    }

    /// Checks settings, feature level, mark and trail: each has one command that may change it.
    pub(super) fn check_records(&self) -> Result<(), Violation> {
        let (before, after) = (self.before, self.after);
        let may_set = matches!(self.command, Command::SetSettings(_));
        ensure(may_set || before.settings == after.settings, Invariant::S8, || {
            format!("the settings changed by {:?}", self.command)
        })?;
        let may_raise = matches!(self.command, Command::RaiseFeatures(_));
        let is_risen = may_raise && after.features > before.features;
        ensure(is_risen || before.features == after.features, Invariant::S8, || {
            format!("feature level {} after {}", after.features.0, before.features.0)
        })?;
        let may_mark = matches!(self.command, Command::Mark);
        ensure(may_mark || before.marked == after.marked, Invariant::S8, || {
            format!("marked by {:?}", self.command)
        })?;
        let may_act = may_set
            || is_risen
            || matches!(
                self.command,
                Command::SetNode(_) | Command::RemoveNode(_) | Command::NoteAct(_)
            );
        ensure(may_act || before.trail == after.trail, Invariant::S8, || {
            format!("the trail changed by {:?}", self.command)
        })
    }

    /// Says whether a submit was answered with the job that its key led to before that was
    /// forgotten.
    pub(super) fn is_forgotten_answer(&self, submit: &Submit, answer: JobId) -> bool {
        let key = TenantKey::of(submit);
        let record = key.and_then(|key| self.before.keys.forgotten(&key).cloned());
        record.is_some_and(|it| it.job == answer && it.request == request_digest(submit))
    }

    /// Says whether what a command of feature level 2 asks for has come about.
    pub(super) fn came_about_rest(&self) -> bool {
        let (before, after) = (self.before, self.after);
        let is_noted = after.trail().next_back().is_some_and(|it| it.index == after.applied);
        match self.command {
            Command::Release(release) => {
                let mut jobs = release.jobs.iter().filter_map(|job| after.job(*job));
                jobs.all(|job| !job.is_delayed())
            }
            Command::Expire(expire) => {
                after.job(expire.job).is_some_and(|job| job.phase == Phase::Failed)
            }
            Command::ForgetKeys(forget) => {
                forget.keys.iter().all(|key| after.keys.forgotten(key).is_none())
            }
            Command::SetSettings(set) => {
                let is_set = set.changes.iter().all(|change| {
                    let stored = after.settings.get(&change.key);
                    change.value.is_none() || change.value == stored
                });
                let version = before.settings.version() + 1;
                is_set && is_noted && after.settings.version() == version
            }
            Command::SetNode(set) => after.node(set.node).is_some_and(|node| {
                let is_drained = set.draining.is_none_or(|draining| node.draining == draining);
                let mut labels = set.labels_set.iter();
                is_drained
                    && is_noted
                    && labels.all(|(it, value)| node.labels.get(it) == Some(value))
            }),
            Command::RaiseFeatures(raise) => after.features.0 >= raise.level,
            Command::Mark => after.marked == after.applied,
            Command::NoteAct(note) => {
                let last = after.trail().next_back();
                is_noted && last.is_some_and(|it| it.act == note.act && it.author == note.author)
            }
            _ => false,
        }
    }
}
