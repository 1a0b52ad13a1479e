//! Settings, their history and the trail.

use atelier_proto::client::v1 as wire;

use super::{malformed, some};
use crate::error::Error;
use crate::types::{
    Author, Setting, SettingChange, SettingValue, Settings, SettingsVersion, TrailRecord,
};

pub(crate) fn author_to_wire(author: &Author) -> wire::Author {
    let Author { who, why, at_ms } = author.clone();
    wire::Author { who, why, at_ms }
}

fn author(author: Option<wire::Author>) -> Author {
    let wire::Author { who, why, at_ms } = author.unwrap_or_default();
    Author { who, why, at_ms }
}

pub(crate) fn change_to_wire(change: &SettingChange) -> wire::SettingChange {
    let value = change.value.map(|value| match value {
        SettingValue::Number(number) => wire::setting_value::Value::Number(number),
        SettingValue::Flag(flag) => wire::setting_value::Value::Flag(flag),
    });
    let value = value.map(|value| wire::SettingValue { value: Some(value) });
    wire::SettingChange { key: change.key.clone(), value }
}

fn change(change: wire::SettingChange) -> Result<SettingChange, Error> {
    let wire::SettingChange { key, value } = change;
    let value = value.map(|value| setting_value(&key, Some(value))).transpose()?;
    Ok(SettingChange { key, value })
}

fn setting_value(key: &str, value: Option<wire::SettingValue>) -> Result<SettingValue, Error> {
    match value.and_then(|value| value.value) {
        Some(wire::setting_value::Value::Number(number)) => Ok(SettingValue::Number(number)),
        Some(wire::setting_value::Value::Flag(flag)) => Ok(SettingValue::Flag(flag)),
        None => Err(malformed(format!("expected a value of {key}, got none"))),
    }
}

pub(crate) fn settings(reply: wire::SettingsReply) -> Result<Settings, Error> {
    let settings = reply.settings.into_iter().map(setting).collect::<Result<_, _>>()?;
    Ok(Settings { version: reply.version, settings })
}

fn setting(setting: wire::Setting) -> Result<Setting, Error> {
    Ok(Setting {
        value: setting_value(&setting.key, setting.value)?,
        default: setting_value(&setting.key, setting.default)?,
        key: setting.key,
        least: setting.least,
        most: setting.most,
        unit: setting.unit,
        about: setting.about,
        version: some(setting.version),
    })
}

pub(crate) fn history(reply: wire::SettingsHistoryReply) -> Result<Vec<SettingsVersion>, Error> {
    reply.versions.into_iter().map(settings_version).collect()
}

fn settings_version(version: wire::SettingsVersion) -> Result<SettingsVersion, Error> {
    let changes =
        |list: Vec<wire::SettingChange>| list.into_iter().map(change).collect::<Result<_, Error>>();
    Ok(SettingsVersion {
        version: version.version,
        before: changes(version.before)?,
        after: changes(version.after)?,
        author: author(version.author),
    })
}

pub(crate) fn trail(reply: wire::TrailReply) -> Vec<TrailRecord> {
    let record = |record: wire::TrailRecord| {
        let wire::TrailRecord { log_index, act, author: by } = record;
        TrailRecord { log_index, act, author: author(by) }
    };
    reply.records.into_iter().map(record).collect()
}
