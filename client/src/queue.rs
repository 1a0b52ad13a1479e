//! Calls about many jobs at once: batches, dead letters, purges, statistics.

use atelier_proto::client::v1 as wire;

use crate::budget::Kind;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::types::{Accepted, Author, BatchOutcome, JobId, Phase, Purged, QueueStats, Submission};

/// Jobs that one batch may hold; more are refused.
pub const BATCH_JOBS_MAX: usize = 1_000;

impl Client {
    /// Submits up to [`BATCH_JOBS_MAX`] jobs by one call; each has its own outcome, in order.
    ///
    /// Repeats under the same ids until it is answered, so each job is accepted once at most. One
    /// that is refused leaves the others as they are.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: too many jobs; nothing was submitted.
    /// - [`Error::UnknownChange`]: any of them may be accepted; submit the same values again.
    /// - [`Error::Unavailable`]: certainly none is accepted; try later.
    ///
    /// # Cancel safety
    /// When dropped the outcomes are unknown: submit the same values again.
    pub async fn submit_batch(
        &self,
        submissions: &[Submission],
    ) -> Result<Vec<BatchOutcome>, Error> {
        let got = submissions.len();
        if got > BATCH_JOBS_MAX {
            let message =
                format!("{got} jobs in a batch, expected at most {BATCH_JOBS_MAX}; split it");
            return Err(Error::Invalid { message });
        }
        let jobs = submissions.iter().map(convert::submit_request).collect();
        let request = wire::SubmitBatchRequest { jobs };
        let reply = self
            .call(Kind::Repeatable("submit the batch"), request, |mut rpc, request| async move {
                rpc.submit_batch(request).await
            })
            .await?;
        convert::batch_outcomes(submissions, reply)
    }

    /// Submits a failed job again as a new one. A repeat answers the same new job.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such job.
    /// - [`Error::Conflict`]: it has not failed.
    /// - [`Error::Full`]: the queue was full until the deadline.
    /// - [`Error::UnknownChange`]: it may be submitted; retry again.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: retry again.
    pub async fn retry(&self, job: JobId) -> Result<Accepted, Error> {
        let request = wire::RetryJobRequest { job_id: job.to_string() };
        let reply = self
            .call(Kind::Repeatable("retry the job"), request, |mut rpc, request| async move {
                rpc.retry_job(request).await
            })
            .await?;
        convert::accepted(&reply)
    }

    /// Forgets jobs that are over, by their ids; at most 1,000. Those that are not over, or not
    /// known, are left alone and not counted.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: too many.
    /// - [`Error::UnknownChange`]: they may be forgotten; purge them again.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: purge them again.
    pub async fn purge(&self, jobs: &[JobId], author: &Author) -> Result<Purged, Error> {
        let job_ids = jobs.iter().map(JobId::to_string).collect();
        let author = Some(convert::author_to_wire(author));
        self.do_purge(wire::PurgeJobsRequest { job_ids, phases: Vec::new(), limit: 0, author })
            .await
    }

    /// Forgets jobs of terminal phases, oldest first, at most `limit` (0 is 1,000, the most).
    ///
    /// # Errors
    /// As [`Client::purge`].
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown; what is left can be listed.
    pub async fn purge_phases(
        &self,
        phases: &[Phase],
        limit: u32,
        author: &Author,
    ) -> Result<Purged, Error> {
        let phases = phases.iter().map(|phase| convert::phase_to_wire(*phase).into()).collect();
        let author = Some(convert::author_to_wire(author));
        self.do_purge(wire::PurgeJobsRequest { job_ids: Vec::new(), phases, limit, author }).await
    }

    async fn do_purge(&self, request: wire::PurgeJobsRequest) -> Result<Purged, Error> {
        let reply = self
            .call(Kind::Repeatable("purge jobs"), request, |mut rpc, request| async move {
                rpc.purge_jobs(request).await
            })
            .await?;
        Ok(convert::purged(reply))
    }

    /// Tells how full the queue is and who fills it, as the peer that answers sees it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when no peer answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn queue_stats(&self) -> Result<QueueStats, Error> {
        let request = wire::QueueStatsRequest {};
        let reply =
            self.call(Kind::Read, request, |mut rpc, request| async move {
                rpc.queue_stats(request).await
            })
            .await?;
        Ok(convert::queue_stats(reply))
    }
}
