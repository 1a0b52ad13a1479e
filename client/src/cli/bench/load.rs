//! Closed loops: so many clients, each with one call under way, and what their calls took.
//!
//! Knows nothing of what is called, so that the benchmark measures other systems by the same loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// A bucket is this small a share of its value: what is told of a time is right to 1 in 64.
const SUB_BUCKETS: u64 = 64;
/// Powers of two above [`SUB_BUCKETS`] microseconds: an hour and more, the longest call.
const DOUBLINGS: usize = 28;
/// Different errors that are told apart; filled by a system that puts numbers into its errors.
/// Further ones are counted together.
const ERRORS_MAX: usize = 16;

/// When a client stops calling.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// After so many calls of each client.
    Calls(u64),
    /// After so much time.
    Time(Duration),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Calls that were answered.
    pub(crate) done: u64,
    /// From the first call to the last answer.
    pub(crate) elapsed: Duration,
    /// What each call that was answered took.
    pub(crate) times: Times,
    /// Calls that failed, by their text.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Figures {
    /// Calls that were answered, a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Calls that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Runs one loop for each client and returns when the last has ended.
pub(crate) async fn run<C, F>(
    clients: &[Arc<C>],
    limit: Limit,
    call: impl Fn(Arc<C>) -> F + Clone + Send + 'static,
) -> Figures
where
    C: Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let begun = Instant::now();
    let loops: Vec<_> = clients
        .iter()
        .map(|client| tokio::spawn(one_client(client.clone(), limit, begun, call.clone())))
        .collect();
    gather(begun, loops).await
}

/// What one loop has counted.
pub(crate) type Counted = (Times, BTreeMap<String, u64>);

/// Waits for the loops, and puts together what they have counted.
pub(crate) async fn gather(begun: Instant, loops: Vec<JoinHandle<Counted>>) -> Figures {
    let (mut times, mut errors) = (Times::default(), BTreeMap::new());
    for one in loops {
        match one.await {
            Ok((its_times, its_errors)) => {
                times.merge(&its_times);
                for (text, count) in its_errors {
                    count_error(&mut errors, text, count);
                }
            }
            Err(panic) => count_error(&mut errors, panic.to_string(), 1),
        }
    }
    Figures { done: times.count, elapsed: begun.elapsed(), times, errors }
}

async fn one_client<C, F>(
    client: Arc<C>,
    limit: Limit,
    begun: Instant,
    call: impl Fn(Arc<C>) -> F,
) -> Counted
where
    F: Future<Output = Result<(), String>>,
{
    let (mut times, mut errors) = (Times::default(), BTreeMap::new());
    let mut calls = 0;
    loop {
        let over = match limit {
            Limit::Calls(most) => calls == most,
            Limit::Time(most) => begun.elapsed() >= most,
        };
        if over {
            return (times, errors);
        }
        calls += 1;
        let start = Instant::now();
        match call(client.clone()).await {
            Ok(()) => times.record(start.elapsed()),
            Err(error) => count_error(&mut errors, error, 1),
        }
    }
}

/// Counts calls that failed with one text.
pub(crate) fn count_error(errors: &mut BTreeMap<String, u64>, text: String, count: u64) {
    let known = errors.contains_key(&text) || errors.len() < ERRORS_MAX;
    let text = if known { text } else { "other errors".to_owned() };
    *errors.entry(text).or_default() += count;
}

/// Times in buckets: a bound on memory, however long a run takes.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let buckets = vec![0; SUB_BUCKETS as usize * (DOUBLINGS + 1)];
        Self { buckets, count: 0, max: Duration::ZERO }
    }
}

impl Times {
    /// Counts a call that was answered.
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[bucket_of(micros).min(last)] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    fn merge(&mut self, other: &Times) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The time that this share of the calls did not exceed; zero when there was none.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return Duration::from_micros(ceiling_of(bucket)).min(self.max);
            }
        }
        self.max
    }

    /// The longest, exactly.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }
}

/// Linear up to [`SUB_BUCKETS`], then as many buckets for each doubling.
fn bucket_of(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return micros as usize;
    }
    let doubling = micros.ilog2() - SUB_BUCKETS.ilog2();
    let within = (micros >> doubling) - SUB_BUCKETS;
    (u64::from(doubling + 1) * SUB_BUCKETS + within) as usize
}

/// The largest value of a bucket.
fn ceiling_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let (doubling, within) = (bucket / SUB_BUCKETS - 1, bucket % SUB_BUCKETS);
    ((SUB_BUCKETS + within + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_bucket_holds_its_value_to_one_in_sixty_four() {
        for micros in (0..5_000).chain((5_000..100_000_000).step_by(9_973)) {
            let ceiling = ceiling_of(bucket_of(micros));
            assert!(ceiling >= micros, "{micros} is above the ceiling {ceiling}");
            assert!(ceiling - micros <= micros / SUB_BUCKETS, "{micros} is told as {ceiling}");
        }
    }

    #[test]
    fn shares_are_told_of_the_times_that_were_recorded() {
        let mut times = Times::default();
        for micros in 1..=1_000 {
            times.record(Duration::from_micros(micros));
        }
        let at = |share| times.at(share).as_micros();
        assert!((500..=508).contains(&at(0.5)), "{}", at(0.5));
        assert!((990..=1_000).contains(&at(0.99)), "{}", at(0.99));
        assert_eq!((at(1.0), times.max().as_micros()), (1_000, 1_000));
        assert_eq!(Times::default().at(0.5), Duration::ZERO);
    }

    #[tokio::test]
    async fn every_client_makes_its_calls_and_failures_are_no_times() {
        let served = Arc::new(AtomicU64::new(0));
        let counter = served.clone();
        let clients: Vec<_> = (0..8).map(Arc::new).collect();
        let figures =
            run(&clients, Limit::Calls(10), move |_| {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                async move {
                    if number.is_multiple_of(4) { Err("no leader".to_owned()) } else { Ok(()) }
                }
            })
            .await;
        assert_eq!(served.load(Ordering::Relaxed), 80);
        assert_eq!((figures.done, figures.failed()), (60, 20));
        assert_eq!(figures.errors["no leader"], 20);
    }

    #[tokio::test]
    async fn a_run_by_time_ends() {
        let limit = Limit::Time(Duration::from_millis(20));
        let call = |_| async {
            tokio::task::yield_now().await;
            Ok(())
        };
        let figures = run(&[Arc::new(()), Arc::new(())], limit, call).await;
        assert!(figures.done > 0 && figures.elapsed >= Duration::from_millis(20));
    }
}
