//! What a leader proposes at feature level 2, and what an operator asks for, by the plan.

use super::plant::Plant;
use super::scene::Scene;
use atelier_state::{
    Author, Command, RaiseFeatures, Release, SetSettings, SettingChange, SettingValue, State,
    limits,
};

/// Decides what is due.
pub(crate) fn decide(scene: &Scene, state: &State) -> Vec<Command> {
    let (now_ms, shape) = (scene.now_ms(), &scene.shape);
    if shape.raise_ms == 0 || now_ms < shape.raise_ms {
        return Vec::new();
    }
    if state.features() < 2 {
        return vec![Command::RaiseFeatures(RaiseFeatures { level: 2 })];
    }
    let mut commands: Vec<Command> = settings(scene, state).into_iter().collect();
    let wall_ms = scene.agenda.wall_ms();
    let due = state.delayed().take_while(|(_, retry_at_ms)| *retry_at_ms <= wall_ms);
    let jobs: Vec<_> = due.map(|(job, _)| job).take(limits::RELEASE_JOBS_MAX).collect();
    if !jobs.is_empty() && !scene.is_planted(Plant::NeverRelease) {
        commands.push(Command::Release(Release { jobs }));
    }
    commands
}

fn settings(scene: &Scene, state: &State) -> Option<Command> {
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
