//! Tells a waiting person where the job is: one live line on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use atelier_client::{Event, NodeId, Phase, Stage};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{note, plain};

/// How often the live line moves while nothing happens.
const TICK: Duration = Duration::from_millis(120);

/// Where the words go.
pub(super) struct Progress {
    narrator: Narrator,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // A fixed template of known keys; without it the bar would only look plainer.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { narrator: Narrator::default(), bar }
    }

    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(plain(text)),
            None => note(text),
        }
    }

    /// Says something that stays to be read.
    pub(super) fn remark(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(plain(text)),
            None => note(text),
        }
    }

    pub(super) fn tell(&mut self, event: &Event) {
        for line in self.narrator.tell(event).iter().map(|line| plain(line)) {
            match &self.bar {
                // A move is worth a line that stays; the rest lives in one line.
                Some(bar) if line.starts_with("moved") => bar.println(line),
                Some(bar) => bar.set_message(line),
                None => note(&line),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Turns events into words; says nothing twice.
#[derive(Debug, Default)]
struct Narrator {
    last: String,
    node: Option<NodeId>,
}

impl Narrator {
    fn tell(&mut self, event: &Event) -> Vec<String> {
        let mut lines = Vec::new();
        let job = &event.job;
        if let (Phase::Leased, Some(node)) = (job.phase, job.node) {
            if let Some(before) = self.node.filter(|before| *before != node) {
                lines.push(format!("moved from peer {before} to peer {node}"));
            }
            self.node = Some(node);
        }
        let line = match job.phase {
            Phase::Queued => match job.position {
                Some(position) => format!("queued at position {position}"),
                None => "queued".to_owned(),
            },
            Phase::Leased => self.drawing(event),
            Phase::Succeeded => "done".to_owned(),
            Phase::Failed => "failed".to_owned(),
            Phase::Cancelled => "cancelled".to_owned(),
        };
        if line != self.last {
            self.last.clone_from(&line);
            lines.push(line);
        }
        lines
    }

    fn drawing(&self, event: &Event) -> String {
        let peer = match event.job.node {
            Some(node) => format!("on peer {node}"),
            None => "on a peer".to_owned(),
        };
        let Some(at) = event.progress.as_ref().filter(|at| at.token == event.job.token) else {
            return peer;
        };
        let images = event.job.parameters.as_ref().map_or(1, |parameters| parameters.images);
        let image = match images {
            0 | 1 => String::new(),
            _ => format!("image {} of {images}, ", at.image + 1),
        };
        match &at.stage {
            Stage::Denoise => format!("{peer}, {image}step {} of {}", at.step, at.steps),
            stage => format!("{peer}, {image}{}", stage.word()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use atelier_client::{Job, JobId, Progress as At};

    fn event(phase: Phase, node: u64, position: u64, at: Option<(Stage, u32)>) -> Event {
        let job = Job {
            job: JobId::from_parts(1, 1),
            phase,
            tenant: "default".into(),
            priority: 5,
            submitted_ms: 1,
            finished_ms: None,
            log_index: 1,
            attempts: 0,
            leases: 1,
            node: (node > 0).then_some(node),
            token: node,
            position: (position > 0).then_some(position),
            error: String::new(),
            artifacts: Vec::new(),
            failed_attempts: Vec::new(),
            retry_at_ms: None,
            deadline_ms: None,
            max_runtime_s: None,
            retry_of: None,
            parameters: None,
        };
        let progress = at.map(|(stage, step)| At {
            node,
            token: node,
            stage,
            step,
            steps: 8,
            image: 0,
            encode: Duration::ZERO,
            denoise: Duration::ZERO,
            decode: Duration::ZERO,
        });
        Event { job, log_index: 1, progress, preview: None }
    }

    #[test]
    fn a_job_that_moves_is_told_as_one_story() {
        let mut narrator = Narrator::default();
        let told: Vec<String> = [
            event(Phase::Queued, 0, 3, None),
            event(Phase::Queued, 0, 1, None),
            event(Phase::Leased, 2, 0, None),
            event(Phase::Leased, 2, 0, Some((Stage::Encode, 0))),
            event(Phase::Leased, 2, 0, Some((Stage::Denoise, 5))),
            event(Phase::Leased, 2, 0, Some((Stage::Denoise, 5))),
            event(Phase::Queued, 0, 1, None),
            event(Phase::Leased, 3, 0, None),
            event(Phase::Leased, 3, 0, Some((Stage::Decode, 8))),
            event(Phase::Succeeded, 3, 0, None),
        ]
        .iter()
        .flat_map(|event| narrator.tell(event))
        .collect();
        assert_eq!(
            told,
            [
                "queued at position 3",
                "queued at position 1",
                "on peer 2",
                "on peer 2, encode",
                "on peer 2, step 5 of 8",
                "queued at position 1",
                "moved from peer 2 to peer 3",
                "on peer 3",
                "on peer 3, decode",
                "done",
            ]
        );
    }
}
