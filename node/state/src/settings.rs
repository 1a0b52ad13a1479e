//! The settings of the cluster: one table, which says everything about each.
//!
//! They are part of the state, so every peer has the same ones from the same entry on. What equals
//! its default is not stored. They must not name what differs between peers: that is each peer's
//! configuration.

use crate::limits;
use crate::trail::Author;
use imbl::{OrdMap, Vector};
use std::fmt;
use std::sync::Arc;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettingValue {
    /// A number in the field's unit.
    Number(u64),
    /// On or off.
    Flag(bool),
}

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SettingChange {
    /// Which one: a key of the table, or `queue.weight.<tenant>`.
    pub key: String,
    /// The new value; none: back to the default.
    pub value: Option<SettingValue>,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub key: &'static str,
    /// Its value where nobody has set another.
    pub default: SettingValue,
    /// Least number; 0 for a flag.
    pub least: u64,
    /// Largest number; 1 for a flag.
    pub most: u64,
    /// What the number counts; empty for a flag.
    pub unit: &'static str,
    /// What it does and why one would change it.
    pub about: &'static str,
}

/// What is known about a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its full name.
    pub key: Arc<str>,
    /// Its value.
    pub value: SettingValue,
    /// Its row of the table.
    pub field: &'static Field,
    /// The version that set it; 0 where it has its default.
    pub version: u64,
}

/// One version of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SettingsRecord {
    /// Its number.
    pub version: u64,
    /// What the changed settings were before; none: the default.
    pub before: Vec<SettingChange>,
    /// What they are since.
    pub after: Vec<SettingChange>,
    /// Who asked.
    pub author: Author,
}

/// What the keys of tenants' weights begin with.
pub const WEIGHT_PREFIX: &str = "queue.weight.";

const DAY_S: u64 = 24 * 60 * 60;

const fn number(
    key: &'static str,
    default: u64,
    range: (u64, u64),
    unit: &'static str,
    about: &'static str,
) -> Field {
    let default = SettingValue::Number(default);
    Field { key, default, least: range.0, most: range.1, unit, about }
}

const JOBS_MAX: Field = number(
    "queue.jobs_max",
    100_000,
    (1, limits::QUEUE_JOBS_MAX as u64),
    "jobs",
    "jobs that may wait; further ones are refused with a time to retry",
);
const TENANT_JOBS_MAX: Field = number(
    "queue.tenant_jobs_max",
    0,
    (0, limits::QUEUE_JOBS_MAX as u64),
    "jobs",
    "unfinished jobs that one tenant may have; 0: no bound of its own",
);
const PAUSED: Field = Field {
    key: "queue.paused",
    default: SettingValue::Flag(false),
    least: 0,
    most: 1,
    unit: "",
    about: "no job is given out; jobs are accepted, and those that run go on",
};
const AGEING_JOBS: Field = number(
    "queue.ageing_jobs",
    1_000,
    (0, 1_000_000),
    "leases",
    "leases after which a waiting job counts as one of the next priority; 0: it never does",
);
const BACKOFF_MS_BASE: Field = number(
    "jobs.backoff_ms_base",
    1_000,
    (0, 3_600_000),
    "ms",
    "wait after the first failed attempt, doubled after each further one; 0: none",
);
const BACKOFF_MS_MAX: Field = number(
    "jobs.backoff_ms_max",
    60_000,
    (1, DAY_S * 1_000),
    "ms",
    "longest wait after a failed attempt, before a fifth is added or taken by chance",
);
const DEADLINE_S: Field = number(
    "jobs.deadline_s",
    0,
    (0, 365 * DAY_S),
    "s",
    "time from acceptance after which an unfinished job is failed, where it names none; 0: none",
);
const MAX_RUNTIME_S: Field = number(
    "jobs.max_runtime_s",
    0,
    (0, DAY_S),
    "s",
    "time after which an attempt is ended, where the job names none; 0: none",
);
const ATTEMPTS_MAX: Field = number(
    "jobs.attempts_max",
    3,
    (1, limits::ATTEMPTS_MAX as u64),
    "attempts",
    "failed attempts after which a job is failed",
);
const RETENTION_JOBS: Field = number(
    "retention.jobs",
    20_000,
    (0, limits::JOBS_KEPT_MAX as u64),
    "jobs",
    "jobs that have ended and are remembered; the oldest above, or above 1 GiB, are forgotten",
);
const RETENTION_AGE_S: Field = number(
    "retention.age_s",
    7 * DAY_S,
    (60, 3_650 * DAY_S),
    "s",
    "time after its end for which a job is remembered",
);
const WEIGHT: Field = number(
    "queue.weight.<tenant>",
    1,
    (1, 100),
    "shares",
    "the tenant's share of the slots, compared with the others of the same priority",
);

/// The table, without the weights of tenants.
pub const FIELDS: [Field; 11] = [
    JOBS_MAX,
    TENANT_JOBS_MAX,
    PAUSED,
    AGEING_JOBS,
    BACKOFF_MS_BASE,
    BACKOFF_MS_MAX,
    DEADLINE_S,
    MAX_RUNTIME_S,
    ATTEMPTS_MAX,
    RETENTION_JOBS,
    RETENTION_AGE_S,
];

static WEIGHT_FIELD: Field = WEIGHT;
static FIELDS_TABLE: [Field; 11] = FIELDS;

/// Finds the row of a key; tenants' weights share one.
pub fn field(key: &str) -> Option<&'static Field> {
    match key.strip_prefix(WEIGHT_PREFIX) {
        Some(tenant) if (1..=limits::NAME_BYTES_MAX).contains(&tenant.len()) => Some(&WEIGHT_FIELD),
        Some(_) => None,
        None => FIELDS_TABLE.iter().find(|field| field.key == key),
    }
}

/// Checks a change against the table.
///
/// # Errors
/// The text names the key, what was expected and what came.
pub fn check(change: &SettingChange) -> Result<(), String> {
    // A key that came from outside may be huge.
    let key = &change.key[..change.key.floor_char_boundary(limits::NAME_BYTES_MAX)];
    let field = field(&change.key)
        .ok_or_else(|| format!("{key}: expected a setting, got an unknown one; list them first"))?;
    match (field.default, change.value) {
        (_, None) | (SettingValue::Flag(_), Some(SettingValue::Flag(_))) => Ok(()),
        (SettingValue::Number(_), Some(SettingValue::Number(number))) => {
            let (least, most, unit) = (field.least, field.most, field.unit);
            if (least..=most).contains(&number) {
                Ok(())
            } else {
                Err(format!("{key}: expected {least} to {most} {unit}, got {number}"))
            }
        }
        (SettingValue::Number(_), Some(SettingValue::Flag(flag))) => {
            Err(format!("{key}: expected a number, got {flag}"))
        }
        (SettingValue::Flag(_), Some(SettingValue::Number(number))) => {
            Err(format!("{key}: expected true or false, got {number}"))
        }
    }
}

/// The settings and their history. A clone costs O(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    version: u64,
    // What differs from the default, each with the version that set it.
    values: OrdMap<Arc<str>, (SettingValue, u64)>,
    history: Vector<Arc<SettingsRecord>>,
}

/// What may be asked.
impl Settings {
    /// Returns how often the settings were changed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the value of a setting; none for one that does not exist.
    pub fn get(&self, key: &str) -> Option<SettingValue> {
        let field = field(key)?;
        Some(self.values.get(key).map_or(field.default, |(value, _)| *value))
    }

    /// Walks all settings by key, and every weight that was given to a tenant.
    pub fn iter(&self) -> impl Iterator<Item = Setting> {
        let mut all: OrdMap<Arc<str>, &'static Field> =
            FIELDS_TABLE.iter().map(|field| (Arc::from(field.key), field)).collect();
        for key in self.values.keys() {
            all.insert(Arc::clone(key), field(key).expect("what is stored was checked"));
        }
        all.into_iter().map(|(key, field)| {
            let (value, version) = self.values.get(&key).copied().unwrap_or((field.default, 0));
            Setting { key, value, field, version }
        })
    }

    /// Walks the versions that are remembered, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &SettingsRecord> {
        self.history.iter().map(Arc::as_ref)
    }

    /// Returns how many jobs may wait.
    pub fn queue_jobs_max(&self) -> usize {
        self.size(&JOBS_MAX)
    }

    /// Returns how many unfinished jobs a tenant may have; 0: no bound.
    pub fn queue_tenant_jobs_max(&self) -> usize {
        self.size(&TENANT_JOBS_MAX)
    }

    /// Says whether no job is given out.
    pub fn queue_paused(&self) -> bool {
        self.values.get(PAUSED.key).is_some_and(|(value, _)| *value == SettingValue::Flag(true))
    }

    /// Returns the leases after which a job counts as one of the next priority; 0: never.
    pub fn queue_ageing_jobs(&self) -> u64 {
        self.number(&AGEING_JOBS)
    }

    /// Returns a tenant's weight in the fair share.
    pub fn queue_weight(&self, tenant: &str) -> u64 {
        // Most clusters set no weight; then no text is made.
        if self.values.is_empty() {
            return 1;
        }
        match self.values.get(format!("{WEIGHT_PREFIX}{tenant}").as_str()) {
            Some((SettingValue::Number(weight), _)) => *weight,
            _ => 1,
        }
    }

    /// Returns the wait after a first failed attempt; 0: none.
    pub fn jobs_backoff_ms_base(&self) -> u64 {
        self.number(&BACKOFF_MS_BASE)
    }

    /// Returns the longest wait after a failed attempt, without its jitter.
    pub fn jobs_backoff_ms_max(&self) -> u64 {
        self.number(&BACKOFF_MS_MAX)
    }

    /// Returns the deadline of jobs that name none; 0: none.
    pub fn jobs_deadline_s(&self) -> u64 {
        self.number(&DEADLINE_S)
    }

    /// Returns the longest attempt of jobs that name none; 0: none.
    pub fn jobs_max_runtime_s(&self) -> u32 {
        u32::try_from(self.number(&MAX_RUNTIME_S)).expect("a day in seconds fits")
    }

    /// Returns the failed attempts after which a job is failed.
    pub fn jobs_attempts_max(&self) -> u32 {
        u32::try_from(self.number(&ATTEMPTS_MAX)).expect("attempts are few")
    }

    /// Returns how many ended jobs are remembered.
    pub fn retention_jobs(&self) -> usize {
        self.size(&RETENTION_JOBS)
    }

    /// Returns for how long an ended job is remembered.
    pub fn retention_age_s(&self) -> u64 {
        self.number(&RETENTION_AGE_S)
    }

    fn number(&self, field: &Field) -> u64 {
        let stored = self.values.get(field.key).map_or(field.default, |(value, _)| *value);
        match stored {
            SettingValue::Number(number) => number,
            SettingValue::Flag(_) => unreachable!("a number was checked to be one"),
        }
    }

    fn size(&self, field: &Field) -> usize {
        usize::try_from(self.number(field)).expect("a setting is within its limit")
    }
}

/// What `apply` may write.
impl Settings {
    /// Makes the next version. The changes were checked against the table.
    ///
    /// # Errors
    /// When too many tenants would have a weight; the text says so.
    pub(crate) fn change(
        &mut self,
        changes: &[SettingChange],
        author: &Author,
    ) -> Result<(), String> {
        let version = self.version + 1;
        let mut values = self.values.clone();
        let mut before = Vec::new();
        for change in changes {
            assert!(check(change).is_ok(), "a change is checked before it is made");
            let old = values.get(change.key.as_str()).map(|(value, _)| *value);
            before.push(SettingChange { key: change.key.clone(), value: old });
            let default = field(&change.key).expect("it was checked").default;
            match change.value.filter(|value| *value != default) {
                Some(value) => {
                    values.insert(change.key.as_str().into(), (value, version));
                }
                None => {
                    values.remove(change.key.as_str());
                }
            }
        }
        let weights = values.keys().filter(|key| key.starts_with(WEIGHT_PREFIX)).count();
        if weights > limits::WEIGHTS_MAX {
            let most = limits::WEIGHTS_MAX;
            return Err(format!("changes: expected weights of at most {most} tenants in all"));
        }
        let (after, author) = (changes.to_vec(), author.clone());
        self.history.push_back(Arc::new(SettingsRecord { version, before, after, author }));
        if self.history.len() > limits::SETTINGS_HISTORY_MAX {
            self.history.pop_front();
        }
        (self.version, self.values) = (version, values);
        Ok(())
    }

    /// Puts together what a snapshot holds; the audit judges it.
    pub(crate) fn restore(
        version: u64,
        values: Vec<(Arc<str>, SettingValue, u64)>,
        history: Vec<SettingsRecord>,
    ) -> Settings {
        let values = values.into_iter().map(|(key, value, set)| (key, (value, set))).collect();
        Settings { version, values, history: history.into_iter().map(Arc::new).collect() }
    }

    /// Walks what differs from the default, by key, with the version that set it.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&Arc<str>, SettingValue, u64)> {
        self.values.iter().map(|(key, (value, version))| (key, *value, *version))
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Number(number) => number.fmt(f),
            SettingValue::Flag(flag) => flag.fmt(f),
        }
    }
}
