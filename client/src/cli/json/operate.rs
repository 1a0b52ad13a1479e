//! The queue, the settings and their history, as programs read them.

use atelier_client::{
    Author, JobId, Phase, QueueStats, Setting, SettingChange, SettingValue, SettingsVersion,
    TrailRecord,
};
use serde::Serialize;

use super::{filled, rfc3339};

#[derive(Debug, Serialize)]
pub(in crate::cli) struct QueueView {
    queued: u64,
    delayed: u64,
    leased: u64,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    forgotten: u64,
    paused: bool,
    jobs_max: u64,
    tenant_jobs_max: Option<u64>,
    priorities: Vec<PriorityView>,
    tenants: Vec<TenantView>,
}

#[derive(Debug, Serialize)]
struct PriorityView {
    priority: u32,
    queued: u64,
    oldest: Option<String>,
}

#[derive(Debug, Serialize)]
struct TenantView {
    tenant: String,
    queued: u64,
    leased: u64,
    weight: u64,
}

/// A job that a purge leaves.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct NotPurgedView {
    pub(in crate::cli) job: String,
    /// Null where nobody knows the job.
    pub(in crate::cli) phase: Option<&'static str>,
}

impl NotPurgedView {
    pub(in crate::cli) fn unknown(job: JobId) -> Self {
        Self { job: job.to_string(), phase: None }
    }

    pub(in crate::cli) fn unfinished(job: JobId, phase: Phase) -> Self {
        Self { job: job.to_string(), phase: Some(phase.word()) }
    }

    /// The reason in words.
    pub(in crate::cli) fn told(&self) -> String {
        match self.phase {
            None => format!("{}: there is no such job", self.job),
            Some(phase) => {
                format!("{}: it is {phase}, and only what is over is forgotten", self.job)
            }
        }
    }
}

/// A value as JSON has it: a number, true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum ValueView {
    Number(u64),
    Flag(bool),
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct SettingView {
    key: String,
    value: ValueView,
    default: ValueView,
    least: u64,
    most: u64,
    unit: Option<String>,
    about: String,
    version: Option<u64>,
}

/// A setting that changes, or differs.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct SettingDifference {
    key: String,
    before: ValueView,
    after: ValueView,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct VersionView {
    version: u64,
    before: Vec<ChangeView>,
    after: Vec<ChangeView>,
    author: AuthorView,
}

/// A null is the default.
#[derive(Debug, Serialize)]
struct ChangeView {
    key: String,
    value: Option<ValueView>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct AuthorView {
    pub(in crate::cli) who: Option<String>,
    pub(in crate::cli) why: Option<String>,
    at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct TrailView {
    log_index: u64,
    act: String,
    author: AuthorView,
}

impl From<&QueueStats> for QueueView {
    fn from(stats: &QueueStats) -> Self {
        let priorities = stats.priorities.iter().map(|of| PriorityView {
            priority: of.priority,
            queued: of.queued,
            oldest: of.oldest_ms.map(rfc3339),
        });
        let tenants = stats.tenants.iter().map(|of| TenantView {
            tenant: of.tenant.clone(),
            queued: of.queued,
            leased: of.leased,
            weight: of.weight,
        });
        Self {
            queued: stats.queued,
            delayed: stats.delayed,
            leased: stats.leased,
            succeeded: stats.succeeded,
            failed: stats.failed,
            cancelled: stats.cancelled,
            forgotten: stats.forgotten,
            paused: stats.paused,
            jobs_max: stats.jobs_max,
            tenant_jobs_max: stats.tenant_jobs_max,
            priorities: priorities.collect(),
            tenants: tenants.collect(),
        }
    }
}

impl From<SettingValue> for ValueView {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Number(number) => Self::Number(number),
            SettingValue::Flag(flag) => Self::Flag(flag),
        }
    }
}

impl ValueView {
    fn word(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl From<&Setting> for SettingView {
    fn from(setting: &Setting) -> Self {
        Self {
            key: setting.key.clone(),
            value: setting.value.into(),
            default: setting.default.into(),
            least: setting.least,
            most: setting.most,
            unit: filled(&setting.unit),
            about: setting.about.clone(),
            version: setting.version,
        }
    }
}

impl SettingDifference {
    pub(in crate::cli) fn new(key: &str, before: SettingValue, after: SettingValue) -> Self {
        Self { key: key.to_owned(), before: before.into(), after: after.into() }
    }

    /// The cells of a table: key, before, after.
    pub(in crate::cli) fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.before.word(), self.after.word()]
    }
}

impl From<&SettingsVersion> for VersionView {
    fn from(version: &SettingsVersion) -> Self {
        let change = |change: &SettingChange| ChangeView {
            key: change.key.clone(),
            value: change.value.map(ValueView::from),
        };
        Self {
            version: version.version,
            before: version.before.iter().map(change).collect(),
            after: version.after.iter().map(change).collect(),
            author: (&version.author).into(),
        }
    }
}

impl From<&Author> for AuthorView {
    fn from(author: &Author) -> Self {
        let at = (author.at_ms > 0).then(|| rfc3339(author.at_ms));
        Self { who: filled(&author.who), why: filled(&author.why), at }
    }
}

impl From<&TrailRecord> for TrailView {
    fn from(record: &TrailRecord) -> Self {
        let (log_index, act) = (record.log_index, record.act.clone());
        Self { log_index, act, author: (&record.author).into() }
    }
}
