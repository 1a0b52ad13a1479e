//! The settings as one copy of them would be: a version that rises by one, and values.
//!
//! All settings are one register with compare-and-set, since they have one version.

use super::wgl;
use crate::operations::{Answer, Call, Operation, Outcome};
use std::collections::BTreeMap;

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Model;

/// How the settings are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settings {
    /// How often they were changed.
    pub version: u64,
    /// Those that were changed.
    pub values: BTreeMap<String, u64>,
}

impl wgl::Model for Model {
    type State = Settings;

    fn initial(&self) -> Settings {
        Settings::default()
    }

    fn step(&self, state: &Settings, operation: &Operation) -> Option<Settings> {
        match (&operation.call, &operation.outcome) {
            // What it shows of them is a read of its own, after the change.
            (Call::Set { expected, name, value }, Outcome::Ok { .. } | Outcome::Unknown(_)) => {
                set(state, *expected, (name, *value)).filter(|_| shows_change(operation))
            }
            (Call::Set { expected, .. }, Outcome::Refused(why)) => {
                let is_true = why != "StaleVersion" || state.version != *expected;
                is_true.then(|| state.clone())
            }
            (Call::ReadSettings, Outcome::Ok { answer, .. }) => {
                let Answer::Settings { version, values } = answer else { return None };
                let is_it = *version == state.version && *values == state.values;
                is_it.then(|| state.clone())
            }
            _ => None,
        }
    }

    fn is_from_the_past(&self, operation: &Operation) -> bool {
        operation.call == Call::ReadSettings
    }
}

/// Says whether a change shows settings that contain it, where it shows any.
pub fn shows_change(operation: &Operation) -> bool {
    match (&operation.call, operation.answer()) {
        (Call::Set { expected, .. }, Some(Answer::Settings { version, .. })) => version > expected,
        _ => true,
    }
}

/// Changes a setting, if the version is the expected one.
pub fn set(state: &Settings, expected: u64, (name, value): (&str, u64)) -> Option<Settings> {
    let mut values = state.values.clone();
    values.insert(name.to_owned(), value);
    (state.version == expected).then_some(Settings { version: expected + 1, values })
}
