//! Records that commands and snapshots share: authors, settings.

use super::DecodeError;
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::setting_value::Value;
use atelier_state::{Author, SettingChange, SettingValue};

pub(super) fn author_to_proto(author: &Author) -> pb::Author {
    pb::Author { who: author.who.clone(), why: author.why.clone(), at_ms: author.at_ms }
}

pub(super) fn author_from_proto(author: Option<pb::Author>) -> Author {
    let pb::Author { who, why, at_ms } = author.unwrap_or_default();
    Author { who, why, at_ms }
}

pub(super) fn change_to_proto(change: &SettingChange) -> pb::SettingChange {
    let value = change.value.map(value_to_proto);
    pb::SettingChange { key: change.key.clone(), value, version: 0 }
}

pub(super) fn change_from_proto(change: pb::SettingChange) -> Result<SettingChange, DecodeError> {
    let value = change.value.map(value_from_proto).transpose()?;
    Ok(SettingChange { key: change.key, value })
}

pub(super) fn value_to_proto(value: SettingValue) -> pb::SettingValue {
    let value = match value {
        SettingValue::Number(number) => Value::Number(number),
        SettingValue::Flag(flag) => Value::Flag(flag),
    };
    pb::SettingValue { value: Some(value) }
}

pub(super) fn value_from_proto(value: pb::SettingValue) -> Result<SettingValue, DecodeError> {
    match value.value {
        Some(Value::Number(number)) => Ok(SettingValue::Number(number)),
        Some(Value::Flag(flag)) => Ok(SettingValue::Flag(flag)),
        None => Err(DecodeError::missing("setting.value")),
    }
}
