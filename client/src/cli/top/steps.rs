//! Follows the steps of running jobs: they go round the log, so only a watch tells them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atelier_client::{Client, Job, JobId, Progress};
use tokio::task::{AbortHandle, JoinSet};

/// One watch for each running job; as many as a reading has running jobs at most.
pub(super) struct Steps {
    client: Client,
    /// Dropped, they end.
    watches: JoinSet<()>,
    followed: BTreeMap<JobId, AbortHandle>,
    newest: Newest,
}

/// The newest step of each job that has told one.
#[derive(Clone, Default)]
struct Newest(Arc<Mutex<BTreeMap<JobId, Progress>>>);

impl Newest {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Progress>> {
        // One insertion or removal at a time, so a panic cannot have left it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    pub(super) fn new(client: Client) -> Self {
        let (watches, followed, newest) = Default::default();
        Self { client, watches, followed, newest }
    }

    /// Follows these jobs, and no other any longer. A watch that has failed is begun anew.
    pub(super) fn follow(&mut self, running: &[Job]) {
        while self.watches.try_join_next().is_some() {}
        let runs = |id: &JobId| running.iter().any(|job| job.job == *id);
        self.followed.retain(|id, watch| {
            let keep = runs(id) && !watch.is_finished();
            if !keep {
                watch.abort();
            }
            keep
        });
        self.newest.lock().retain(|id, _| runs(id));
        for job in running.iter().map(|job| job.job) {
            let begin =
                || self.watches.spawn(follow(self.client.clone(), job, self.newest.clone()));
            self.followed.entry(job).or_insert_with(begin);
        }
    }

    /// The newest step of each job that has told one.
    pub(super) fn newest(&self) -> BTreeMap<JobId, Progress> {
        self.newest.lock().clone()
    }
}

async fn follow(client: Client, job: JobId, newest: Newest) {
    let mut watch = client.watch(job);
    while let Some(Ok(event)) = watch.next().await {
        if let Some(progress) = event.progress {
            newest.lock().insert(job, progress);
        }
    }
}
