//! What one call of the benchmark is, and how many jobs came of all of them.

use std::sync::atomic::{AtomicU64, Ordering};

use atelier_client::{BatchOutcome, Client, Submission, TextToImage};

/// Whose the jobs of a benchmark are, so that they are known for what they are.
const TENANT: &str = "bench";

/// What one call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A job is accepted.
    Submit,
    /// A job is accepted, drawn and seen to end.
    Cycle,
    /// So many jobs are accepted, as one batch.
    Batch(u32),
}

impl What {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Cycle => "cycle",
            Self::Batch(_) => "batch",
        }
    }
}

/// Makes calls, and counts the jobs that the cluster took.
#[derive(Debug)]
pub(super) struct Calls {
    what: What,
    /// Of each job's prompt.
    bytes: usize,
    jobs: AtomicU64,
}

impl Calls {
    pub(super) fn new(what: What, bytes: usize) -> Self {
        Self { what, bytes, jobs: AtomicU64::new(0) }
    }

    /// Jobs that were accepted so far.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Makes one call. A batch of which any job is refused has failed, and the others count.
    pub(super) async fn make(&self, client: &Client) -> Result<(), String> {
        if let What::Batch(jobs) = self.what {
            return self.batch(client, jobs).await;
        }
        let accepted = client.submit(&self.wanted()).await.map_err(|error| error.to_string())?;
        self.jobs.fetch_add(1, Ordering::Relaxed);
        if self.what == What::Cycle {
            client.finish(accepted.job, |_| ()).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn batch(&self, client: &Client, jobs: u32) -> Result<(), String> {
        let wanted: Vec<_> = (0..jobs).map(|_| self.wanted()).collect();
        let outcomes = client.submit_batch(&wanted).await.map_err(|error| error.to_string())?;
        let mut refused = Vec::new();
        for outcome in outcomes {
            match outcome {
                BatchOutcome::Accepted(_) => drop(self.jobs.fetch_add(1, Ordering::Relaxed)),
                BatchOutcome::Refused(refusal) => refused.push(refusal.message),
            }
        }
        refused.into_iter().next().map_or(Ok(()), Err)
    }

    fn wanted(&self) -> Submission {
        let mut wanted = Submission::new(TextToImage::new("x".repeat(self.bytes)));
        wanted.tenant = TENANT.to_owned();
        wanted
    }
}
