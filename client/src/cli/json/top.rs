//! One reading of the whole cluster, as programs read it.

use serde::Serialize;

use super::{JobView, ProgressView, QueueView, StatusView};

#[derive(Debug, Serialize)]
pub(in crate::cli) struct TopView {
    #[serde(flatten)]
    pub(in crate::cli) status: StatusView,
    /// Nobody leads: all of this is what the peers last knew.
    pub(in crate::cli) stale: bool,
    /// Null where nobody told.
    pub(in crate::cli) queue: Option<QueueView>,
    /// Jobs that are being drawn, newest first; not all of them where there are many.
    pub(in crate::cli) running: Vec<RunningView>,
    pub(in crate::cli) running_total: u64,
    /// Null where there is only one reading.
    pub(in crate::cli) rates: Option<RatesView>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct RunningView {
    #[serde(flatten)]
    pub(in crate::cli) job: JobView,
    /// Null before an attempt's first step.
    pub(in crate::cli) progress: Option<ProgressView>,
}

/// What changed between two readings, a second.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct RatesView {
    /// Between the readings.
    pub(in crate::cli) seconds: f64,
    pub(in crate::cli) accepted_per_second: f64,
    pub(in crate::cli) ended_per_second: f64,
    pub(in crate::cli) entries_per_second: f64,
}
