//! What the cluster says at one moment, and what changed since the moment before.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use atelier_client::{Client, Job, JobId, JobPage, Phase, Progress, QueueStats, Survey};
use tokio::time::Instant;

use crate::cli::json::{QueueView, RatesView, RunningView, TopView};
use crate::cli::status;

/// Jobs that are shown with their steps; of more only the count is told.
pub(super) const RUNNING_MAX: u32 = 32;

/// What the cluster said at one moment.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// The same moment by this machine's clock, milliseconds since 1970.
    pub(super) wall_ms: u64,
    pub(super) survey: Survey,
    /// `None` where nobody told.
    pub(super) queue: Option<QueueStats>,
    /// Jobs that are being drawn, at most [`RUNNING_MAX`] of them.
    pub(super) running: JobPage,
}

impl Reading {
    /// Asks all peers how they are, and one of them for the queue and the running jobs.
    pub(super) async fn take(client: &Client) -> Self {
        let survey = client.survey().await;
        let at = Instant::now();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall_ms = u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let none = JobPage { jobs: Vec::new(), total: 0, next: None };
        if survey.statuses().next().is_none() {
            return Self { at, wall_ms, survey, queue: None, running: none };
        }
        let running = client.jobs(&[Phase::Leased], RUNNING_MAX);
        let (queue, running) = tokio::join!(client.queue_stats(), running);
        Self { at, wall_ms, survey, queue: queue.ok(), running: running.unwrap_or(none) }
    }

    /// Whether anybody answered.
    pub(super) fn is_answered(&self) -> bool {
        self.survey.statuses().next().is_some()
    }

    /// How far any peer knows the log to be committed.
    pub(super) fn committed(&self) -> u64 {
        self.survey.statuses().map(|status| status.commit_index).max().unwrap_or(0)
    }

    /// Jobs that ended, ever: the forgotten ones had ended too.
    fn ended(&self) -> Option<u64> {
        let queue = self.queue.as_ref()?;
        Some(queue.succeeded + queue.failed + queue.cancelled + queue.forgotten)
    }

    /// Jobs that were accepted, ever.
    fn accepted(&self) -> Option<u64> {
        let queue = self.queue.as_ref()?;
        Some(self.ended()? + queue.queued + queue.leased)
    }
}

/// What changed between two readings, a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) between: Duration,
    pub(super) accepted: f64,
    pub(super) ended: f64,
    /// Of the log.
    pub(super) entries: f64,
}

impl Rates {
    /// `None` where a reading lacks the numbers. A peer that lags behind the one which told before
    /// has counted less: that is no change, not a negative one.
    pub(super) fn between(before: &Reading, now: &Reading) -> Option<Self> {
        let between = now.at.saturating_duration_since(before.at);
        let rate = |before: u64, now: u64| {
            now.saturating_sub(before) as f64 / between.as_secs_f64().max(1e-3)
        };
        Some(Self {
            between,
            accepted: rate(before.accepted()?, now.accepted()?),
            ended: rate(before.ended()?, now.ended()?),
            entries: rate(before.committed(), now.committed()),
        })
    }
}

/// What is shown: a reading, and what is known besides.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) reading: &'a Reading,
    pub(super) rates: Option<Rates>,
    /// The newest step of each running job, as far as it is told.
    pub(super) steps: BTreeMap<JobId, Progress>,
    /// Nobody has answered for so long, since the reading; `None` while somebody does.
    pub(super) silence: Option<Duration>,
}

impl Snapshot<'_> {
    /// The newest step of the attempt that draws a job now; one of an earlier attempt says nothing.
    pub(super) fn step(&self, job: &Job) -> Option<&Progress> {
        self.steps.get(&job.job).filter(|at| at.token == job.token)
    }

    pub(super) fn view(&self) -> TopView {
        let status = status::view(&self.reading.survey);
        let running =
            self.reading.running.jobs.iter().map(|job| RunningView {
                job: job.into(),
                progress: self.step(job).map(Into::into),
            });
        TopView {
            stale: status.leader.is_none(),
            status,
            queue: self.reading.queue.as_ref().map(QueueView::from),
            running: running.collect(),
            running_total: self.reading.running.total,
            rates: self.rates.map(|rates| RatesView {
                seconds: rates.between.as_secs_f64(),
                accepted_per_second: rates.accepted,
                ended_per_second: rates.ended,
                entries_per_second: rates.entries,
            }),
        }
    }
}
