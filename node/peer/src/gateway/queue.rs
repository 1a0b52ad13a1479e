//! Calls about many jobs: batches, dead letters, purges, statistics.

use super::convert;
use super::error::{not_proposed, refused};
use super::submit::Room;
use super::{Gateway, deadline_of, not_found};
use crate::proposer::ProposeFailure;
use atelier_proto::client::v1 as wire;
use atelier_state::limits::FORGET_JOBS_MAX;
use atelier_state::{Command, Forget, JobId, LogIndex, Phase, Reply, State};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

impl Gateway {
    /// Accepts many jobs; each has its own outcome, and one that is refused leaves the others.
    pub(super) async fn do_submit_batch(
        &self,
        request: Request<wire::SubmitBatchRequest>,
    ) -> Result<wire::SubmitBatchReply, Status> {
        self.check_stays()?;
        let (metadata, _, request) = request.into_parts();
        convert::check_batch(&request)?;
        let mut jobs = Vec::with_capacity(request.jobs.len());
        for mut job in request.jobs {
            let fits = self.fit_submission(&mut job).await;
            jobs.push((job, fits));
        }
        let deadline = self.settle(deadline_of(&metadata)).await;
        let no_metadata = MetadataMap::new();
        let state = self.view().state;
        let mut room = Room::beside(&state, self.unfinished_bytes_max);
        let (mut commands, mut outcomes, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (job, fits)) in jobs.into_iter().enumerate() {
            // Metadata is of the call, not of one of its jobs.
            let submit = fits.and_then(|()| {
                convert::submit(job, &no_metadata, self.stamp(&state)).map_err(Status::from)
            });
            let submit = submit.and_then(|submit| room.take(&state, &submit).map(|()| submit));
            match submit {
                Ok(submit) => {
                    places.push((place, submit.job));
                    commands.push(Command::Submit(submit));
                    outcomes.push(None);
                }
                Err(status) => {
                    self.count_submitted(Err(&status));
                    outcomes.push(Some(convert::batch_refused(&status)));
                }
            }
        }
        // Of a great queue a copy is cheap, and still it keeps what is dropped meanwhile.
        drop(state);
        let answers = self.proposer.propose_all(commands, deadline).await;
        for ((place, job), answer) in places.into_iter().zip(answers) {
            outcomes[place] = Some(self.outcome(job, answer));
        }
        let outcomes = outcomes.into_iter().flatten().collect();
        Ok(wire::SubmitBatchReply { outcomes })
    }

    fn outcome(
        &self,
        job: JobId,
        answer: Result<(LogIndex, Reply), ProposeFailure>,
    ) -> wire::BatchOutcome {
        let result = match answer {
            Ok((_, Reply::Submitted { job, duplicate, log_index })) => {
                self.acknowledged.fetch_max(log_index.0, Ordering::Relaxed);
                let (job_id, log_index) = (job.to_string(), log_index.0);
                Ok(wire::SubmitReply { job_id, duplicate, log_index })
            }
            Ok((_, Reply::Refused(refusal))) => Err(refused(&refusal)),
            Ok((_, other)) => {
                Err(Status::internal(format!("expected an accepted job, got {other:?}")))
            }
            Err(failure) => {
                let leader = self.leader.address();
                Err(not_proposed(&failure, &format!("job {job}"), leader.as_deref()))
            }
        };
        self.count_submitted(result.as_ref().map(|reply| reply.duplicate));
        match result {
            Ok(reply) => convert::batch_accepted(reply),
            Err(status) => convert::batch_refused(&status),
        }
    }

    /// Submits a failed job again. A key of its own makes a repeat the same new job.
    pub(super) async fn do_retry_job(
        &self,
        request: Request<wire::RetryJobRequest>,
    ) -> Result<wire::SubmitReply, Status> {
        self.check_stays()?;
        let deadline = self.settle(deadline_of(request.metadata())).await;
        let failed = convert::job_id(&request.get_ref().job_id)?;
        let view = self.find(failed).await?;
        let job = view.state.job(failed).ok_or_else(|| not_found(failed))?;
        if job.phase != Phase::Failed {
            let phase = job.phase.name();
            let text = format!("job {failed} is {phase}, and only a failed job is retried");
            return Err(Status::failed_precondition(text));
        }
        // Told without a proposal: whoever retries all that failed names most of them again.
        if let Some(first) = convert::retried(&view.state, job) {
            let (job_id, log_index) = (first.id().to_string(), first.accepted.0);
            return Ok(wire::SubmitReply { job_id, duplicate: true, log_index });
        }
        let submit = convert::retry(job, self.stamp(&view.state));
        Room::beside(&view.state, self.unfinished_bytes_max).take(&view.state, &submit)?;
        drop(view);
        let what = format!("retrying job {failed}");
        let (_, reply) = self.propose(Command::Submit(submit), deadline, &what).await?;
        self.submitted(reply)
    }

    /// Forgets jobs that have ended, slice by slice, so that others get their turns between.
    pub(super) async fn do_purge_jobs(
        &self,
        request: Request<wire::PurgeJobsRequest>,
    ) -> Result<wire::PurgeJobsReply, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |request| request.author.clone());
        let wanted = convert::purge(request.get_ref())?;
        self.catch_up(LogIndex(self.acknowledged.load(Ordering::Relaxed))).await;
        let jobs = wanted.jobs(&self.view().state);
        let mut purged = 0;
        for slice in jobs.chunks(FORGET_JOBS_MAX) {
            purged += self.forget(slice, deadline).await?;
        }
        let (who, why) = (author.who, author.why);
        tracing::info!(jobs = purged, who, why, "jobs purged");
        let left = wanted.left(&self.view().state);
        Ok(wire::PurgeJobsReply { purged, left })
    }

    async fn forget(&self, jobs: &[JobId], deadline: Duration) -> Result<u32, Status> {
        let command = Command::Forget(Forget { jobs: jobs.to_vec() });
        let known = |state: &State| jobs.iter().filter(|job| state.job(**job).is_some()).count();
        let before = known(&self.view().state);
        let (index, _) = self.propose(command, deadline, "purging jobs").await?;
        self.catch_up(index).await;
        let gone = before.saturating_sub(known(&self.view().state));
        Ok(u32::try_from(gone).expect("a slice is small"))
    }

    pub(super) async fn do_queue_stats(&self) -> wire::QueueStatsReply {
        self.catch_up(LogIndex(self.acknowledged.load(Ordering::Relaxed))).await;
        convert::queue_stats(&self.view().state)
    }
}
