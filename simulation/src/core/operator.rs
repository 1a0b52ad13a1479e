//! What an operator asks for, by the plan.

use super::scene::Scene;
use atelier_state::{Author, Command, SetSettings, SettingChange, SettingValue, State};

/// Decides what is due; before level 2 there are no settings.
pub(crate) fn decide(scene: &Scene, state: &State) -> Option<Command> {
    if state.features() < 2 {
        return None;
    }
    let (now_ms, shape) = (scene.now_ms(), &scene.shape);
    let wants_pause = shape.pause_ms > 0 && (shape.pause_ms..shape.resume_ms).contains(&now_ms);
    let ageing = shape.ageing_jobs;
    let (key, value) = if ageing > 0 && state.settings().queue_ageing_jobs() != ageing {
        ("queue.ageing_jobs", SettingValue::Number(ageing))
    } else if wants_pause != state.paused() {
        ("queue.paused", SettingValue::Flag(wants_pause))
    } else {
        return None;
    };
    let changes = vec![SettingChange { key: key.to_owned(), value: Some(value) }];
    let (expected_version, author) = (state.settings_version(), Author::default());
    Some(Command::SetSettings(SetSettings { expected_version, changes, author }))
}
