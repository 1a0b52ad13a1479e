//! What the cluster keeps beside jobs and nodes: settings, feature level, keys, marks.

use crate::command::{ForgetKeys, NoteAct, RaiseFeatures, SetSettings};
use crate::limits;
use crate::mutants::{self, Mutant};
use crate::reply::{LogIndex, Refusal, Reply};
use crate::settings::SettingChange;
use crate::state::{FeatureLevel, State};
use crate::trail::{Author, TrailRecord};

impl State {
    pub(super) fn forget_keys(&mut self, forget: &ForgetKeys) -> Reply {
        assert!(forget.keys.len() <= limits::FORGET_KEYS_MAX);
        forget.keys.iter().for_each(|key| self.keys.forget(key));
        Reply::Done
    }

    pub(super) fn set_settings(
        &mut self,
        index: LogIndex,
        set: &SetSettings,
    ) -> Result<Reply, Refusal> {
        let version = self.settings.version();
        if set.expected_version != version && !mutants::is(Mutant::SettingsOverwritten) {
            return Err(Refusal::StaleVersion(version));
        }
        self.settings.change(&set.changes, &set.author).map_err(Refusal::Invalid)?;
        assert_eq!(self.settings.version(), version + 1);
        let act = act_of(&set.changes);
        self.note_act(TrailRecord { index, act, author: set.author.clone() });
        Ok(Reply::Done)
    }

    pub(super) fn raise_features(
        &mut self,
        index: LogIndex,
        raise: RaiseFeatures,
    ) -> Result<Reply, Refusal> {
        if raise.level > limits::FEATURES {
            // No decoder lets it come so far.
            return Err(Refusal::Unsupported(limits::FEATURES));
        }
        if raise.level > self.features.0 {
            self.features = FeatureLevel(raise.level);
            let act = format!("raise the feature level to {}", raise.level);
            self.note_act(TrailRecord { index, act, author: Author::default() });
        }
        Ok(Reply::Done)
    }

    pub(super) fn note(&mut self, index: LogIndex, note: &NoteAct) -> Reply {
        let (act, author) = (note.act.clone(), note.author.clone());
        self.note_act(TrailRecord { index, act, author });
        Reply::Done
    }

    pub(super) fn mark(&mut self, index: LogIndex) -> Reply {
        self.marked = index;
        Reply::Done
    }
}

fn act_of(changes: &[SettingChange]) -> String {
    let changes: Vec<String> = changes
        .iter()
        .map(|change| match change.value {
            Some(value) => format!("{}={value}", change.key),
            None => format!("{}=default", change.key),
        })
        .collect();
    let mut act = format!("set {}", changes.join(", "));
    act.truncate(act.floor_char_boundary(limits::TEXT_BYTES_MAX));
    act
}
