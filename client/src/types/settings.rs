//! The settings of the cluster, and who changed what.

use std::fmt;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingValue {
    /// A whole number in the setting's unit.
    Number(u64),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(out),
            Self::Flag(flag) => flag.fmt(out),
        }
    }
}

/// One setting of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, such as `queue.jobs_max`.
    pub key: String,
    /// What holds.
    pub value: SettingValue,
    /// What would hold if nobody had set it.
    pub default: SettingValue,
    /// The least number it takes; 0 for a flag.
    pub least: u64,
    /// The largest number it takes; 1 for a flag.
    pub most: u64,
    /// Such as `jobs` or `ms`; empty for none.
    pub unit: String,
    /// What it does.
    pub about: String,
    /// The version that set it last; `None` when it was never set.
    pub version: Option<u64>,
}

/// All settings at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Rises by one with every change; show it to change only what was seen.
    pub version: u64,
    /// By key.
    pub settings: Vec<Setting>,
}

/// A setting to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// Its name.
    pub key: String,
    /// `None` for the default.
    pub value: Option<SettingValue>,
}

/// Who asks for an administrative change, and why. For whoever reads it later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// Empty for the address that the peer sees.
    pub who: String,
    /// The reason; may be empty.
    pub why: String,
    /// When, milliseconds since 1970 by the accepting peer's clock; 0 in a request.
    pub at_ms: u64,
}

/// One change of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsVersion {
    /// The version that it made.
    pub version: u64,
    /// What held before, for the keys that it changed; `None` for a default.
    pub before: Vec<SettingChange>,
    /// What held after it.
    pub after: Vec<SettingChange>,
    /// Whose change it was.
    pub author: Author,
}

/// An administrative act that the cluster remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailRecord {
    /// Where in the log it stands.
    pub log_index: u64,
    /// What was done, in one line.
    pub act: String,
    /// Who did it, and why.
    pub author: Author,
}
