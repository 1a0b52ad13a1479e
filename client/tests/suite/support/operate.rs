//! The queue and the settings of a scripted cluster.

use std::collections::BTreeMap;

use atelier_proto::client::v1 as wire;
use tonic::{Code, Status};

use super::{World, finished};

/// A prompt of a batch of which nobody knows what became.
pub(super) const UNKNOWN: &str = "of unknown outcome";
/// The moment of every change.
const AT_MS: u64 = 1_795_290_570_000;

/// Settings that differ from their defaults, and how they came to.
#[derive(Default)]
pub(crate) struct Settings {
    version: u64,
    values: BTreeMap<String, (wire::SettingValue, u64)>,
    history: Vec<wire::SettingsVersion>,
}

fn value(value: wire::setting_value::Value) -> Option<wire::SettingValue> {
    Some(wire::SettingValue { value: Some(value) })
}

fn number(of: u64) -> Option<wire::SettingValue> {
    value(wire::setting_value::Value::Number(of))
}

impl Settings {
    pub(super) fn get(&self) -> wire::SettingsReply {
        let setting = |key: &str, default, most, unit: &str, about: &str| wire::Setting {
            key: key.to_owned(),
            value: self.values.get(key).map_or(default, |(value, _)| Some(*value)),
            default,
            least: 0,
            most,
            unit: unit.to_owned(),
            about: about.to_owned(),
            version: self.values.get(key).map_or(0, |(_, version)| *version),
        };
        let flag = value(wire::setting_value::Value::Flag(false));
        let settings = vec![
            setting("jobs.attempts_max", number(3), 10, "attempts", "attempts of a job"),
            setting("queue.jobs_max", number(100_000), 100_000, "jobs", "jobs that may wait"),
            setting("queue.paused", flag, 1, "", "gives out nothing"),
            setting("queue.tenant_jobs_max", number(0), 100_000, "jobs", "jobs of one tenant"),
        ];
        wire::SettingsReply { version: self.version, settings }
    }

    pub(super) fn set(
        &mut self,
        request: wire::SetSettingsRequest,
    ) -> Result<wire::SettingsReply, Status> {
        if request.expected_version.is_some_and(|expected| expected != self.version) {
            let text = format!("the settings have version {} by now", self.version);
            return Err(Status::failed_precondition(text));
        }
        self.version += 1;
        let before = request.changes.iter().map(|change| {
            let value = self.values.get(&change.key).map(|(value, _)| *value);
            wire::SettingChange { key: change.key.clone(), value }
        });
        let before = before.collect();
        for change in &request.changes {
            match change.value {
                Some(value) => self.values.insert(change.key.clone(), (value, self.version)),
                None => self.values.remove(&change.key),
            };
        }
        let author = wire::Author { at_ms: AT_MS, ..request.author.unwrap_or_default() };
        let (version, after, author) = (self.version, request.changes, Some(author));
        self.history.insert(0, wire::SettingsVersion { version, before, after, author });
        Ok(self.get())
    }

    pub(super) fn history(&self) -> wire::SettingsHistoryReply {
        wire::SettingsHistoryReply { versions: self.history.clone() }
    }

    pub(super) fn paused(&self) -> bool {
        let paused = value(wire::setting_value::Value::Flag(true));
        self.values.get("queue.paused").map(|(value, _)| *value) == paused
    }

    pub(super) fn trail(&self) -> wire::TrailReply {
        let record = |version: &wire::SettingsVersion| wire::TrailRecord {
            log_index: 10 + version.version,
            act: format!("settings: version {}", version.version),
            author: version.author.clone(),
        };
        wire::TrailReply { records: self.history.iter().map(record).collect() }
    }
}

impl World {
    /// Whether a peer knows no leader.
    pub(super) fn is_leaderless(&self, node: u64) -> bool {
        self.leaderless || self.cut_off.contains(&node)
    }

    /// The members as a peer sees them.
    pub(super) fn seen_by(&self, node: u64) -> Vec<wire::Member> {
        let mut members = self.members.clone();
        if self.cut_off.contains(&node) {
            for member in &mut members {
                (member.leader, member.alive) = (false, member.node == node);
            }
        }
        members
    }

    pub(super) fn drain(&mut self, node: u64, draining: Option<bool>) {
        let known = self.members.iter_mut().filter(|member| member.node == node);
        known.for_each(|member| member.draining = draining.unwrap_or(member.draining));
    }

    /// Retries under the id that follows.
    pub(super) fn retry(&mut self, id: &str) -> Result<wire::SubmitReply, Status> {
        let failed = self.jobs.get(id).ok_or_else(|| Status::not_found(format!("no job {id}")))?;
        let mut job = wire::Job { retry_of: id.to_owned(), ..failed.clone() };
        job.phase = wire::Phase::Queued.into();
        job.job_id = format!("{}Z", &id[..id.len() - 1]);
        let job_id = job.job_id.clone();
        let duplicate = self.jobs.insert(job_id.clone(), job).is_some();
        Ok(wire::SubmitReply { job_id, duplicate, log_index: 9 })
    }

    pub(super) fn list(&self, request: wire::ListJobsRequest) -> wire::ListJobsReply {
        let wire::ListJobsRequest { phases, limit, after } = request;
        // The phase in which a job ends is told before it has ended, but for those that failed.
        let failed = i32::from(wire::Phase::Failed);
        let some_failed = self.jobs.values().any(|job| job.phase == failed);
        let told_apart = phases == [failed] && some_failed;
        let is_asked = |job: &&wire::Job| !told_apart || job.phase == failed;
        let all: Vec<_> = self.jobs.values().rev().filter(is_asked).cloned().collect();
        let total = all.len() as u64;
        let behind = all.into_iter().filter(|job| after.is_empty() || job.job_id < after);
        let limit = if limit == 0 { 100 } else { limit as usize };
        let mut jobs: Vec<_> = behind.take(limit + 1).collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let next = jobs.last().filter(|_| more).map(|job| job.job_id.clone()).unwrap_or_default();
        wire::ListJobsReply { jobs, total, next }
    }

    pub(super) fn purge(&mut self, request: &wire::PurgeJobsRequest) -> wire::PurgeJobsReply {
        let before = self.jobs.len();
        match request.job_ids.as_slice() {
            [] => self.jobs.clear(),
            ids => self.jobs.retain(|id, _| !ids.contains(id)),
        }
        let left = self.jobs.len();
        wire::PurgeJobsReply { purged: (before - left) as u32, left: left as u64 }
    }

    pub(super) fn queue_stats(&self) -> wire::QueueStatsReply {
        let tenant = |tenant: &str, queued, weight| wire::TenantStats {
            tenant: tenant.to_owned(),
            queued,
            leased: 1,
            weight,
        };
        let priority =
            |priority, queued, oldest_ms| wire::PriorityStats { priority, queued, oldest_ms };
        wire::QueueStatsReply {
            queued: 5,
            delayed: 1,
            leased: 2,
            succeeded: 7,
            failed: 3,
            cancelled: 1,
            forgotten: 40,
            paused: self.settings.paused(),
            priorities: vec![priority(4, 3, 1_795_290_563_000), priority(9, 2, 0)],
            tenants: vec![tenant("default", 4, 1), tenant("studio", 1, 10)],
            jobs_max: 100_000,
            tenant_jobs_max: 0,
        }
    }

    /// What a failed job shows of its attempts.
    pub(super) fn job(&self, id: &str) -> Option<wire::Job> {
        let end = self.end.unwrap_or(wire::Phase::Succeeded);
        let mut job = finished(self.jobs.get(id)?, end);
        if end == wire::Phase::Failed {
            let attempt = |token, error: &str| wire::FailedAttempt {
                node: 2,
                token,
                error: error.to_owned(),
                failed_ms: AT_MS,
            };
            job.failed_attempts =
                vec![attempt(5, "the engine died"), attempt(7, "the engine ran out of memory")];
            (job.deadline_ms, job.max_runtime_s) = (AT_MS + 1_000, 60);
        }
        Some(job)
    }
}

/// The outcome of one job of a batch; a prompt of nothing is refused.
pub(super) fn outcome(accepted: Result<wire::SubmitReply, &str>) -> wire::BatchOutcome {
    let outcome = match accepted {
        Ok(reply) => wire::batch_outcome::Outcome::Accepted(reply),
        Err(message) => wire::batch_outcome::Outcome::Refused(wire::BatchRefusal {
            code: match message {
                UNKNOWN => Code::DeadlineExceeded as u32,
                _ => Code::InvalidArgument as u32,
            },
            message: message.to_owned(),
        }),
    };
    wire::BatchOutcome { outcome: Some(outcome) }
}
