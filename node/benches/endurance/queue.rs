//! The cluster's queue as the parts use it: clients, settings, filling, and waiting until it has
//! come so far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atelier_client::{
    Author, BATCH_JOBS_MAX, BatchOutcome, Client, Error, Options, QueueStats, SettingChange,
    SettingValue, Submission, TextToImage,
};

use crate::peer::OWN;
use crate::support::{Cluster, PATIENCE, patient};

/// Bytes of a job's prompt.
pub(crate) const BYTES: usize = 256;
/// Batches that are under way at a time while a queue is filled.
const FILLERS: u64 = 4;
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(5);
/// How long the queue may stand still before a run is given up.
const STILL_MAX: Duration = PATIENCE;

/// A small job.
pub(crate) fn job() -> Submission {
    Submission::new(TextToImage::new("x".repeat(BYTES)))
}

/// A small job whose picture is no other job's.
pub(crate) fn own(number: u64) -> Submission {
    Submission::new(TextToImage { seed: number, ..TextToImage::new(format!("{OWN:<BYTES$}")) })
}

/// So many clients, each with connections of its own.
pub(crate) async fn clients(cluster: &Cluster, count: usize) -> Vec<Arc<Client>> {
    cluster.leader().await;
    (0..count).map(|_| Arc::new(cluster.client())).collect()
}

/// A client of one peer alone that waits for an answer, however long the peer works on it.
pub(crate) fn one_peer(cluster: &Cluster, id: u64) -> Client {
    let options = Options { attempt_timeout: PATIENCE, learn_members: false, ..patient() };
    Client::connect([cluster.address(id)], options).expect("an address is well formed")
}

/// Submits one small job.
pub(crate) async fn submit(client: Arc<Client>) -> Result<(), String> {
    client.submit(&job()).await.map(drop).map_err(|error| error.to_string())
}

/// Changes settings, once the cluster has them.
pub(crate) async fn set(client: &Client, settings: &[(&str, SettingValue)]) {
    let change = |(key, value): &(&str, SettingValue)| SettingChange {
        key: (*key).to_owned(),
        value: Some(*value),
    };
    let changes: Vec<SettingChange> = settings.iter().map(change).collect();
    let start = Instant::now();
    loop {
        match client.set_settings(None, &changes, &Author::default()).await {
            Ok(_) => return,
            Err(error @ Error::Conflict { .. }) => {
                assert!(start.elapsed() < PATIENCE, "no settings: {error}");
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A setting's number.
pub(crate) const fn number(number: u64) -> SettingValue {
    SettingValue::Number(number)
}

/// Whether jobs are given out.
pub(crate) async fn pause(client: &Client, paused: bool) {
    set(client, &[("queue.paused", SettingValue::Flag(paused))]).await;
}

/// Submits so many jobs in batches, and never more than so many at a time that wait.
pub(crate) async fn fill(
    client: &Client,
    jobs: u64,
    waiting_max: u64,
    make: impl Fn(u64) -> Submission,
) {
    let batch = BATCH_JOBS_MAX as u64;
    let mut left = jobs;
    while left > 0 {
        room(client, waiting_max.saturating_sub(FILLERS * batch)).await;
        let mut batches = tokio::task::JoinSet::new();
        for _ in 0..FILLERS {
            let count = left.min(batch);
            let wanted: Vec<Submission> = (left - count..left).map(&make).collect();
            left -= count;
            let client = client.clone();
            batches.spawn(async move { accepted(client.submit_batch(&wanted).await) });
        }
        batches.join_all().await;
    }
}

/// Every job of a batch must have been accepted.
pub(crate) fn accepted(outcomes: Result<Vec<BatchOutcome>, Error>) {
    for outcome in outcomes.expect("the batch is answered") {
        assert!(matches!(outcome, BatchOutcome::Accepted(_)), "{outcome:?}");
    }
}

async fn room(client: &Client, waiting_max: u64) {
    until(client, "there is no room", |stats| stats.queued <= waiting_max).await;
}

/// Waits until nothing waits and nothing is drawn.
pub(crate) async fn drained(client: &Client) {
    until(client, "not drained", |stats| stats.queued + stats.leased == 0).await;
}

/// Jobs that have ended, ever.
pub(crate) fn ended(stats: &QueueStats) -> u64 {
    stats.succeeded + stats.failed + stats.cancelled + stats.forgotten
}

/// Waits until the queue is as wanted, for as long as it moves.
pub(crate) async fn until(client: &Client, otherwise: &str, wanted: impl Fn(&QueueStats) -> bool) {
    let (mut moved, mut last) = (Instant::now(), None);
    loop {
        let stats = client.queue_stats().await.expect("some peer answers");
        if wanted(&stats) {
            return;
        }
        if last != Some(ended(&stats)) {
            (moved, last) = (Instant::now(), Some(ended(&stats)));
        }
        assert!(moved.elapsed() < STILL_MAX, "{otherwise}, and nothing moves: {stats:?}");
        tokio::time::sleep(LOOK).await;
    }
}
