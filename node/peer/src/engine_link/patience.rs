//! How long a child at work may be silent, by what its own steps have taken. Decides, and moves
//! nothing.
//!
//! Between two steps of denoising nothing new is done, so the slowest one so far tells what to
//! expect. Before the first two, and in stages that come once an image, only the settings tell.

use super::child::ChildSettings;
use atelier_proto::engine::v1::Step;
use std::time::Duration;
use tokio::time::Instant;

/// The silence that one piece of work is allowed.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    silence: Duration,
    floor: Duration,
    steps: u32,
    slowest: Option<Duration>,
    /// The last step of denoising; none where another stage follows.
    last: Option<(Instant, u32, u32)>,
}

impl Patience {
    pub(super) fn new(settings: &ChildSettings) -> Patience {
        let ChildSettings { silence, silence_floor, silence_steps, .. } = *settings;
        Patience { silence, floor: silence_floor, steps: silence_steps, slowest: None, last: None }
    }

    /// Returns the silence that is allowed from the last frame on.
    pub(super) fn silence(&self) -> Duration {
        match (self.last, self.slowest) {
            (Some(_), Some(slowest)) => {
                slowest.saturating_mul(self.steps).max(self.floor).min(self.silence)
            }
            _ => self.silence,
        }
    }

    /// Notes a step.
    pub(super) fn told(&mut self, step: &Step, now: Instant) {
        let denoises = step.stage == "denoise";
        if let Some((at, image, before)) = self.last
            && denoises
            && (step.image, step.step) == (image, before.saturating_add(1))
        {
            let took = now.saturating_duration_since(at);
            self.slowest = Some(self.slowest.map_or(took, |slowest| slowest.max(took)));
        }
        let another_follows = denoises && step.step < step.steps;
        self.last = another_follows.then_some((now, step.image, step.step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(120);

    fn patience() -> Patience {
        let settings = ChildSettings {
            silence: SILENCE,
            silence_floor: Duration::from_secs(10),
            silence_steps: 30,
            ..ChildSettings::default()
        };
        Patience::new(&settings)
    }

    fn step(stage: &str, step: u32) -> Step {
        Step { stage: stage.to_owned(), step, steps: 8, ..Step::default() }
    }

    /// Tells steps so many milliseconds apart; returns the silence in seconds after each.
    fn silences(told: &[(&str, u32, u64)]) -> Vec<u64> {
        let (mut patience, mut now) = (patience(), Instant::now());
        let mut after = |(stage, number, ms): &(&str, u32, u64)| {
            now += Duration::from_millis(*ms);
            patience.told(&step(stage, *number), now);
            patience.silence().as_secs()
        };
        told.iter().map(&mut after).collect()
    }

    #[test]
    fn the_slowest_step_tells_within_the_bounds() {
        let told = [
            ("encode", 1, 9_000),
            ("denoise", 1, 9_000),
            ("denoise", 2, 1_000),
            ("denoise", 3, 100),
            ("denoise", 4, 2_000),
            ("denoise", 5, 60_000),
        ];
        assert_eq!(silences(&told), [120, 120, 30, 30, 60, 120]);
        assert_eq!(silences(&[("denoise", 1, 5), ("denoise", 2, 5)]), [120, 10], "the floor");
    }

    #[test]
    fn a_stage_that_comes_once_has_the_whole_time() {
        let told = [("denoise", 6, 100), ("denoise", 7, 100), ("denoise", 8, 100)];
        assert_eq!(silences(&told), [120, 10, 120], "decoding follows the last step");
    }

    #[test]
    fn the_step_at_which_work_is_resumed_costs_nothing_and_tells_nothing() {
        let told = [("encode", 1, 100), ("denoise", 3, 0), ("denoise", 4, 40_000)];
        assert_eq!(silences(&told), [120, 120, 120]);
    }
}
