//! Settings, their history and the trail between the wire and the state.

use super::Invalid;
use atelier_proto::client::v1 as wire;
use atelier_state::limits::SETTINGS_CHANGES_MAX;
use atelier_state::settings::check;
use atelier_state::{
    Author, Setting, SettingChange, SettingValue, SettingsRecord, State, TrailRecord,
};
use std::collections::BTreeMap;

/// Reads changes of settings and checks each against the table.
///
/// # Errors
/// [`Invalid`] with every fault.
pub(crate) fn setting_changes(
    changes: Vec<wire::SettingChange>,
) -> Result<Vec<SettingChange>, Invalid> {
    let got = changes.len();
    if !(1..=SETTINGS_CHANGES_MAX).contains(&got) {
        let expected = format!("expected 1 to {SETTINGS_CHANGES_MAX} changes, got {got}");
        return Err(Invalid(vec![expected]));
    }
    let changes: Vec<SettingChange> = changes.into_iter().map(setting_change).collect();
    let mut faults: Vec<String> = changes.iter().filter_map(|change| check(change).err()).collect();
    for (place, change) in changes.iter().enumerate() {
        if changes[..place].iter().any(|earlier| earlier.key == change.key) {
            faults.push(format!("{}: expected one change of a setting, got two", change.key));
        }
    }
    if faults.is_empty() { Ok(changes) } else { Err(Invalid(faults)) }
}

/// Refuses labels that no terminal shows as they are.
///
/// # Errors
/// Names what came.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let is_plain = |text: &String| !text.chars().any(char::is_control);
    let faults: Vec<String> = labels
        .iter()
        .filter(|(key, value)| !is_plain(key) || !is_plain(value))
        .map(|(key, value)| format!("label {key:?}: expected no control characters, got {value:?}"))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Invalid(faults)) }
}

fn setting_change(change: wire::SettingChange) -> SettingChange {
    let value = change.value.and_then(|value| value.value).map(|value| match value {
        wire::setting_value::Value::Number(number) => SettingValue::Number(number),
        wire::setting_value::Value::Flag(flag) => SettingValue::Flag(flag),
    });
    SettingChange { key: change.key, value }
}

fn value(value: SettingValue) -> wire::SettingValue {
    let value = match value {
        SettingValue::Number(number) => wire::setting_value::Value::Number(number),
        SettingValue::Flag(flag) => wire::setting_value::Value::Flag(flag),
    };
    wire::SettingValue { value: Some(value) }
}

fn change(change: &SettingChange) -> wire::SettingChange {
    wire::SettingChange { key: change.key.clone(), value: change.value.map(value) }
}

pub(crate) fn settings(state: &State) -> wire::SettingsReply {
    let settings = state.settings();
    wire::SettingsReply {
        version: settings.version(),
        settings: settings.iter().map(setting).collect(),
    }
}

fn setting(setting: Setting) -> wire::Setting {
    let Setting { key, value: held, field, version } = setting;
    wire::Setting {
        key: key.to_string(),
        value: Some(value(held)),
        default: Some(value(field.default)),
        least: field.least,
        most: field.most,
        unit: field.unit.to_owned(),
        about: field.about.to_owned(),
        version,
    }
}

/// The versions that are remembered, newest first.
pub(crate) fn settings_history(state: &State) -> wire::SettingsHistoryReply {
    let versions = state.settings_history().rev().map(settings_version).collect();
    wire::SettingsHistoryReply { versions }
}

fn settings_version(record: &SettingsRecord) -> wire::SettingsVersion {
    wire::SettingsVersion {
        version: record.version,
        before: record.before.iter().map(change).collect(),
        after: record.after.iter().map(change).collect(),
        author: Some(author(&record.author)),
    }
}

/// The acts that are remembered, newest first; 0 for all.
pub(crate) fn trail(state: &State, limit: u32) -> wire::TrailReply {
    let most = if limit == 0 { usize::MAX } else { limit as usize };
    wire::TrailReply { records: state.trail().rev().take(most).map(trail_record).collect() }
}

fn trail_record(record: &TrailRecord) -> wire::TrailRecord {
    wire::TrailRecord {
        log_index: record.index.0,
        act: record.act.clone(),
        author: Some(author(&record.author)),
    }
}

fn author(author: &Author) -> wire::Author {
    let Author { who, why, at_ms } = author.clone();
    wire::Author { who, why, at_ms }
}
