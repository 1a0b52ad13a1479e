//! How long each stage of a job took. Pure: the moments come in.
//!
//! The worker tells what it spent in each stage; what else passed between submission and result went to the
//! queue, the log and the storing of the picture.

use std::time::Duration;

use atelier_client::{Event, Progress};
use tokio::time::Instant;

use super::json::Seconds;

const ROWS: usize = 5;

/// Books time to the stage that took it.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    submitted: Instant,
    ended: Option<Instant>,
    fetched: Instant,
    /// The newest word of the attempt that counts.
    worker: Option<Progress>,
}

impl Timeline {
    /// Begins when the job is submitted.
    pub(super) fn new(now: Instant) -> Self {
        Self { submitted: now, ended: None, fetched: now, worker: None }
    }

    /// Takes note of an event.
    pub(super) fn observe(&mut self, event: &Event, now: Instant) {
        // What a lost attempt spent was waited for like the queue.
        let counts = |progress: &&Progress| progress.token == event.job.token;
        self.worker = event.progress.as_ref().filter(counts).cloned();
        self.ended = event.job.phase.is_terminal().then_some(now);
        self.fetched = now;
    }

    /// Ends the book.
    pub(super) fn finish(mut self, now: Instant) -> Self {
        self.fetched = now;
        self
    }

    fn stages(&self) -> [Duration; ROWS] {
        let ended = self.ended.unwrap_or(self.fetched);
        let worker = self.worker.as_ref();
        let [encode, denoise, decode] =
            worker.map_or([Duration::ZERO; 3], |spent| [spent.encode, spent.denoise, spent.decode]);
        let waited = ended.saturating_duration_since(self.submitted);
        let queue = waited.saturating_sub(encode + denoise + decode);
        [queue, encode, denoise, decode, self.fetched.saturating_duration_since(ended)]
    }

    pub(super) fn seconds(&self) -> Seconds {
        let [queue, encode, denoise, decode, fetch] = self.stages().map(rounded);
        let total = rounded(self.stages().iter().sum());
        Seconds { queue, encode, denoise, decode, fetch, total }
    }

    /// Stage by stage, with the words for a person.
    pub(super) fn rows(&self) -> [(&'static str, Duration); ROWS] {
        let [queue, encode, denoise, decode, fetch] = self.stages();
        [
            ("queue, log, storing", queue),
            ("encode the prompt", encode),
            ("denoise", denoise),
            ("decode", decode),
            ("fetch", fetch),
        ]
    }
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}
