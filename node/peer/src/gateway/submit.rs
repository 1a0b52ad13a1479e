//! Accepting one job, and what all ways of accepting jobs share.

use super::convert::{self, Stamp};
use super::error::{bytes_full, unavailable};
use super::{Gateway, deadline_of};
use atelier_proto::client::v1 as wire;
use atelier_state::{Command, Reply, State, Submit};
use std::time::Duration;
use tonic::{Code, Request, Status};

/// From this feature level on the state has settings, deadlines and costs.
const SETTINGS_LEVEL: u32 = 2;

impl Gateway {
    pub(super) async fn do_submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<wire::SubmitReply, Status> {
        self.check_stays()?;
        let (metadata, _, mut request) = request.into_parts();
        self.fit_submission(&mut request).await?;
        let deadline = self.settle(deadline_of(&metadata)).await;
        let state = self.view().state;
        let submit = convert::submit(request, &metadata, self.stamp(&state))?;
        Room::beside(&state, self.unfinished_bytes_max).take(&state, &submit)?;
        drop(state);
        let what = format!("job {}", submit.job);
        let (_, reply) = self.propose(Command::Submit(submit), deadline, &what).await?;
        self.submitted(reply)
    }

    /// Makes the picture that a submission begins from fit for it.
    ///
    /// # Errors
    /// As [`Gateway::fit`].
    pub(super) async fn fit_submission(
        &self,
        request: &mut wire::SubmitRequest,
    ) -> Result<(), Status> {
        match &mut request.parameters {
            Some(wire::submit_request::Parameters::TextToImage(asked)) => self.fit(asked).await,
            None => Ok(()),
        }
    }

    /// Reads the reply to a Submit that was not refused.
    pub(super) fn submitted(&self, reply: Reply) -> Result<wire::SubmitReply, Status> {
        match reply {
            Reply::Submitted { job, duplicate, log_index } => {
                tracing::debug!(%job, duplicate, index = log_index.0, "job accepted");
                let (job_id, log_index) = (job.to_string(), log_index.0);
                Ok(wire::SubmitReply { job_id, duplicate, log_index })
            }
            other => Err(Status::internal(format!("expected an accepted job, got {other:?}"))),
        }
    }

    /// Counts what came of a submission: whether it was a duplicate, or why it was refused.
    pub(super) fn count_submitted(&self, duplicate: Result<bool, &Status>) {
        self.metrics.submitted(match duplicate {
            Ok(true) => "duplicate",
            Ok(false) => "accepted",
            Err(status) => match status.code() {
                Code::Unavailable => "unavailable",
                Code::DeadlineExceeded => "unknown",
                _ => "refused",
            },
        });
    }

    /// What this peer and the settings, as they are at this moment, add to a submission.
    pub(super) fn stamp(&self, state: &State) -> Stamp {
        let settings = state.settings();
        let has_settings = state.features() >= SETTINGS_LEVEL;
        Stamp {
            job: self.new_job_id(),
            now_ms: self.clock.wall_ms(),
            attempts_max: match has_settings {
                true => settings.jobs_attempts_max(),
                false => self.attempts_max,
            },
            deadline_s: if has_settings { settings.jobs_deadline_s() } else { 0 },
            max_runtime_s: if has_settings { settings.jobs_max_runtime_s() } else { 0 },
            has_costs: has_settings,
        }
    }

    /// Waits until stamps may be made, and says what is left of the time that a call has.
    pub(super) async fn settle(&self, deadline: Duration) -> Duration {
        let begun = self.clock.now();
        self.clock.settled().await;
        deadline.saturating_sub(self.clock.now().saturating_sub(begun))
    }

    /// Refuses new jobs while this peer leaves.
    pub(super) fn check_stays(&self) -> Result<(), Status> {
        if *self.draining.borrow() {
            let text = "this peer is leaving; submit the job to another peer";
            return Err(unavailable(text, self.leader.address().as_deref()));
        }
        Ok(())
    }
}

/// Refuses what an engine of an earlier version would draw otherwise, until all are of today's.
pub(super) fn level_needed(state: &State, level: u32, what: &str) -> Result<(), Status> {
    let has = state.features();
    if has >= level {
        return Ok(());
    }
    let text = format!(
        "{what} needs a cluster of feature level {level}, this one has {has}; it rises by itself once every member runs \
         a version that knows it"
    );
    Err(Status::failed_precondition(text))
}

/// What is left for further jobs beside the unfinished ones.
pub(super) struct Room {
    bytes: u64,
    bytes_max: u64,
}

impl Room {
    pub(super) fn beside(state: &State, bytes_max: u64) -> Room {
        Room { bytes: state.unfinished_bytes(), bytes_max }
    }

    /// Takes what a job needs; a repeat of one that has room needs none. Jobs of calls side by side are not seen
    /// here: they pass the bound by what waits for the log at most.
    ///
    /// # Errors
    /// Says what the bound is, and when to try again.
    pub(super) fn take(&mut self, state: &State, submit: &Submit) -> Result<(), Status> {
        if state.is_repeat(submit) {
            return Ok(());
        }
        if self.bytes >= self.bytes_max {
            return Err(bytes_full(self.bytes, self.bytes_max));
        }
        self.bytes += submit.text_bytes() as u64;
        Ok(())
    }
}
