//! How long each stage of a job took, as events tell. Pure: the moments come in.

use std::time::Duration;

use atelier_client::{Event, Phase, Stage};
use tokio::time::Instant;

use super::json::Seconds;

/// What the client waits for. The order is that of a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Queue,
    Encode,
    Denoise,
    Decode,
    Fetch,
}

const WAITS: usize = 5;

/// Books time to the stage that was under way when it passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    wait: Wait,
    since: Instant,
    spent: [Duration; WAITS],
}

impl Timeline {
    /// Begins when the job is submitted.
    pub(super) fn new(now: Instant) -> Self {
        Self { wait: Wait::Queue, since: now, spent: [Duration::ZERO; WAITS] }
    }

    /// Takes note of an event. Another attempt goes on with the same book: what the first one
    /// took was waited for all the same.
    pub(super) fn observe(&mut self, event: &Event, now: Instant) {
        let current = event.progress.as_ref().filter(|at| at.token == event.job.token);
        let wait = match (event.job.phase, current.map(|at| &at.stage)) {
            (Phase::Queued, _) => Wait::Queue,
            (Phase::Leased, None | Some(Stage::Encode)) => Wait::Encode,
            (Phase::Leased, Some(Stage::Denoise)) => Wait::Denoise,
            (Phase::Leased, Some(Stage::Decode | Stage::Other(_))) => Wait::Decode,
            (Phase::Succeeded | Phase::Failed | Phase::Cancelled, _) => Wait::Fetch,
        };
        self.pass(now);
        self.wait = wait;
    }

    /// Ends the book.
    pub(super) fn finish(mut self, now: Instant) -> Self {
        self.pass(now);
        self
    }

    fn pass(&mut self, now: Instant) {
        self.spent[self.wait as usize] += now.saturating_duration_since(self.since);
        self.since = now;
    }

    pub(super) fn seconds(&self) -> Seconds {
        let [queue, encode, denoise, decode, fetch] = self.spent.map(rounded);
        let total = rounded(self.spent.iter().sum());
        Seconds { queue, encode, denoise, decode, fetch, total }
    }

    /// Stage by stage, with the words for a person.
    pub(super) fn rows(&self) -> [(&'static str, Duration); WAITS] {
        let [queue, encode, denoise, decode, fetch] = self.spent;
        [
            ("queue", queue),
            ("encode the prompt", encode),
            ("denoise", denoise),
            ("decode and store", decode),
            ("fetch", fetch),
        ]
    }
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}
