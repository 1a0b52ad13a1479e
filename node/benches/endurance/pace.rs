//! An open loop: calls begin when they are due, whether or not the ones before were answered.
//!
//! What a call took is counted from when it was due, so that a system that stalls does not slow its
//! own measurement down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Calls under way. Filled by a cluster that does not answer; at the brim the next call waits, and
/// its time runs all the same.
const CALLS_MAX: usize = 20_000;
/// What the figures are told by.
const WINDOW: Duration = Duration::from_secs(60);

/// Times of calls, every one of them: an hour of a thousand calls a second is 14 MB.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    fn record(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of the calls did not exceed; zero when there was none.
    pub(crate) fn at(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        let time = self.0.get(rank.max(1) - 1).copied().unwrap_or(0);
        Duration::from_micros(time.into())
    }
}

/// What came of the calls that were due in one minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// Of the calls that succeeded.
    pub(crate) times: Latencies,
    /// The others, by what they said.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Window {
    /// Several as one.
    pub(crate) fn joined(windows: &[Window]) -> Window {
        let mut whole = Window::default();
        for window in windows {
            whole.times.0.extend(&window.times.0);
            for (error, count) in &window.errors {
                *whole.errors.entry(error.clone()).or_default() += count;
            }
        }
        whole
    }

    /// How many calls failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// In words.
    pub(crate) fn told(&mut self) -> String {
        let milliseconds = crate::report::milliseconds;
        format!(
            "p50 {}, p99 {}, p99.9 {}, max {}",
            milliseconds(self.times.at(0.5)),
            milliseconds(self.times.at(0.99)),
            milliseconds(self.times.at(0.999)),
            milliseconds(self.times.at(1.0))
        )
    }
}

/// Makes so many calls a second for so many minutes; what came of them is told minute by minute.
pub(crate) async fn open_loop<F>(
    per_second: f64,
    minutes: u64,
    call: impl Fn(u64) -> F,
) -> Vec<Window>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let windows = Arc::new(Mutex::new(vec![Window::default(); minutes as usize]));
    let under_way = Arc::new(Semaphore::new(CALLS_MAX));
    let begun = Instant::now();
    for number in 0..(per_second * 60.0 * minutes as f64) as u64 {
        let due = begun + Duration::from_secs_f64(number as f64 / per_second);
        tokio::time::sleep_until(due.into()).await;
        let permit = under_way.clone().acquire_owned().await.expect("it is never closed");
        let (answer, windows) = (call(number), windows.clone());
        tokio::spawn(async move {
            let answer = answer.await;
            let (time, window) = (due.elapsed(), (due - begun).as_secs() / WINDOW.as_secs());
            let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(()) => windows[window as usize].times.record(time),
                Err(error) => *windows[window as usize].errors.entry(error).or_default() += 1,
            }
            drop(permit);
        });
    }
    // Each call has a deadline of its own.
    let all = u32::try_from(CALLS_MAX).expect("few enough");
    drop(under_way.acquire_many(all).await);
    let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *windows)
}
