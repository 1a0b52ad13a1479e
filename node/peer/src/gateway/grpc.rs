//! The service `atelier.client.v1.Atelier`: each call validates, asks, and converts.

use super::convert;
use super::error::{refused, unavailable};
use super::wait::Waits;
use super::watch::Watch;
use super::{CATCH_UP_MAX, Gateway, deadline_of};
use crate::artifacts::FetchError;
use crate::tasks;
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use atelier_state::{Cancel, Command, JobId, LogIndex, Phase, Refusal};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status, Streaming};

/// Bytes of one chunk of an artifact: small enough that other streams of the connection get a turn.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is told to whoever asks later why a job was cancelled.
const CANCEL_REASON: &str = "cancelled by a client";

#[tonic::async_trait]
impl Atelier for Gateway {
    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<wire::SubmitReply>, Status> {
        let result = self.measured("Submit", self.do_submit(request)).await;
        self.count_submitted(result.as_ref().map(|reply| reply.get_ref().duplicate));
        result
    }

    type WatchStream = BoxStream<'static, Result<wire::JobEvent, Status>>;

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.measured("Watch", async {
            let wire::WatchRequest { job_id, after_index, previews } = request.get_ref();
            let job = convert::job_id(job_id)?;
            self.reach(LogIndex(*after_index)).await?;
            let found = self.find(job).await?;
            let watch = Watch {
                job,
                sight: self.lookout.watch(job, &found),
                previews: *previews,
                view: self.log.view(),
                raft: self.log.status(),
                draining: self.draining.clone(),
                progress: self.progress.clone(),
                clock: Arc::clone(&self.clock),
            };
            Ok(watch.events().boxed())
        })
        .await
    }

    type AwaitStream = BoxStream<'static, Result<wire::AwaitReply, Status>>;

    async fn r#await(
        &self,
        request: Request<Streaming<wire::AwaitRequest>>,
    ) -> Result<Response<Self::AwaitStream>, Status> {
        self.measured("Await", async {
            Ok(self.waits(request.into_inner().boxed()).answers().boxed())
        })
        .await
    }

    async fn get_job(
        &self,
        request: Request<wire::GetJobRequest>,
    ) -> Result<Response<wire::Job>, Status> {
        self.measured("GetJob", async {
            self.check_fresh(request.metadata())?;
            self.job(&request.get_ref().job_id).await
        })
        .await
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsReply>, Status> {
        let state = self.view().state;
        self.measured("ListJobs", async {
            self.check_fresh(request.metadata())?;
            beside(move || convert::list_jobs(&state, request.get_ref()))
                .await?
                .map_err(Status::from)
        })
        .await
    }

    async fn cancel_job(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Result<Response<wire::Job>, Status> {
        self.measured("CancelJob", self.do_cancel(request)).await
    }

    type GetArtifactStream = BoxStream<'static, Result<wire::ArtifactChunk, Status>>;

    async fn get_artifact(
        &self,
        request: Request<wire::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        self.measured("GetArtifact", async {
            let bytes = self.artifact(&request.get_ref().digest).await?;
            Ok(chunks(bytes).boxed())
        })
        .await
    }

    async fn put_artifact(
        &self,
        request: Request<tonic::Streaming<wire::ArtifactChunk>>,
    ) -> Result<Response<wire::Artifact>, Status> {
        self.measured("PutArtifact", self.do_put_artifact(request.into_inner())).await
    }

    async fn status(
        &self,
        _request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusReply>, Status> {
        self.measured("Status", self.do_status()).await
    }

    async fn list_members(
        &self,
        _request: Request<wire::ListMembersRequest>,
    ) -> Result<Response<wire::ListMembersReply>, Status> {
        let list = async { Ok(wire::ListMembersReply { members: self.do_list_members().await }) };
        self.measured("ListMembers", list).await
    }

    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |_| None);
        let added = self.do_add_member(&request.get_ref().address, author, deadline);
        self.measured("AddMember", added).await
    }

    async fn promote_member(
        &self,
        request: Request<wire::PromoteMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |_| None);
        let promoted = self.do_promote_member(request.get_ref().node, author, deadline);
        self.measured("PromoteMember", promoted).await
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |request| request.author.clone());
        let node = request.get_ref().node;
        self.measured("RemoveMember", async {
            self.do_remove_member(node, author, deadline).await?;
            Ok(wire::RemoveMemberReply {})
        })
        .await
    }

    async fn submit_batch(
        &self,
        request: Request<wire::SubmitBatchRequest>,
    ) -> Result<Response<wire::SubmitBatchReply>, Status> {
        self.measured("SubmitBatch", self.do_submit_batch(request)).await
    }

    async fn retry_job(
        &self,
        request: Request<wire::RetryJobRequest>,
    ) -> Result<Response<wire::SubmitReply>, Status> {
        self.measured("RetryJob", self.do_retry_job(request)).await
    }

    async fn purge_jobs(
        &self,
        request: Request<wire::PurgeJobsRequest>,
    ) -> Result<Response<wire::PurgeJobsReply>, Status> {
        self.measured("PurgeJobs", self.do_purge_jobs(request)).await
    }

    async fn queue_stats(
        &self,
        request: Request<wire::QueueStatsRequest>,
    ) -> Result<Response<wire::QueueStatsReply>, Status> {
        self.measured("QueueStats", async {
            self.check_fresh(request.metadata())?;
            Ok(self.do_queue_stats().await)
        })
        .await
    }

    async fn get_settings(
        &self,
        request: Request<wire::GetSettingsRequest>,
    ) -> Result<Response<wire::SettingsReply>, Status> {
        self.measured("GetSettings", async {
            self.check_fresh(request.metadata())?;
            Ok(self.do_get_settings().await)
        })
        .await
    }

    async fn set_settings(
        &self,
        request: Request<wire::SetSettingsRequest>,
    ) -> Result<Response<wire::SettingsReply>, Status> {
        self.measured("SetSettings", self.do_set_settings(request)).await
    }

    async fn settings_history(
        &self,
        request: Request<wire::SettingsHistoryRequest>,
    ) -> Result<Response<wire::SettingsHistoryReply>, Status> {
        self.measured("SettingsHistory", async {
            self.check_fresh(request.metadata())?;
            Ok(self.do_settings_history())
        })
        .await
    }

    async fn demote_member(
        &self,
        request: Request<wire::DemoteMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |_| None);
        let demoted = self.do_demote_member(request.get_ref().node, author, deadline);
        self.measured("DemoteMember", demoted).await
    }

    async fn replace_member(
        &self,
        request: Request<wire::ReplaceMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |request| request.author.clone());
        let replaced = self.do_replace_member(request.into_inner(), author, deadline);
        self.measured("ReplaceMember", replaced).await
    }

    async fn set_member(
        &self,
        request: Request<wire::SetMemberRequest>,
    ) -> Result<Response<wire::Member>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |request| request.author.clone());
        let set = self.do_set_member(request.into_inner(), author, deadline);
        self.measured("SetMember", set).await
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let author = self.author(&request, |_| None);
        let transferred = self.do_transfer_leader(request.get_ref().node, author, deadline);
        self.measured("TransferLeader", transferred).await
    }

    async fn take_snapshot(
        &self,
        _request: Request<wire::TakeSnapshotRequest>,
    ) -> Result<Response<wire::TakeSnapshotReply>, Status> {
        self.measured("TakeSnapshot", self.do_take_snapshot()).await
    }

    async fn place_mark(
        &self,
        request: Request<wire::PlaceMarkRequest>,
    ) -> Result<Response<wire::PlaceMarkReply>, Status> {
        let deadline = deadline_of(request.metadata());
        self.measured("PlaceMark", self.do_place_mark(deadline)).await
    }

    async fn digest_at(
        &self,
        request: Request<wire::DigestAtRequest>,
    ) -> Result<Response<wire::DigestAtReply>, Status> {
        let deadline = deadline_of(request.metadata());
        let digest = self.do_digest_at(request.get_ref().log_index, deadline);
        self.measured("DigestAt", digest).await
    }

    async fn trail(
        &self,
        request: Request<wire::TrailRequest>,
    ) -> Result<Response<wire::TrailReply>, Status> {
        self.measured("Trail", async {
            self.check_fresh(request.metadata())?;
            Ok(self.do_trail(request.get_ref().limit))
        })
        .await
    }

    async fn examine(
        &self,
        _request: Request<wire::ExamineRequest>,
    ) -> Result<Response<wire::ExamineReply>, Status> {
        self.measured("Examine", async { Ok(self.do_examine().await) }).await
    }
}

impl Gateway {
    async fn measured<T>(
        &self,
        api: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let begun = self.clock.now();
        let result = call.await;
        let outcome = result.as_ref().map_or_else(|status| name_of(status.code()), |_| "ok");
        self.metrics.called(api, outcome, self.clock.now().saturating_sub(begun));
        if let Err(status) = &result {
            tracing::debug!(api, outcome, reason = status.message(), "call not served");
        }
        result.map(Response::new)
    }

    /// Waits for the jobs that a stream names.
    pub(super) fn waits(
        &self,
        requests: BoxStream<'static, Result<wire::AwaitRequest, Status>>,
    ) -> Waits {
        Waits {
            requests,
            lookout: self.lookout.clone(),
            view: self.log.view(),
            raft: self.log.status(),
            draining: self.draining.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    async fn job(&self, id: &str) -> Result<wire::Job, Status> {
        let job = convert::job_id(id)?;
        let view = self.find(job).await?;
        let found = view.state.job(job).ok_or_else(|| super::not_found(job))?;
        Ok(convert::job(found, convert::position(&view.state, job)))
    }

    /// Cancels a job; one that was cancelled already answers as the first time.
    async fn do_cancel(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Result<wire::Job, Status> {
        let deadline = deadline_of(request.metadata());
        let job = convert::job_id(&request.get_ref().job_id)?;
        let view = self.find(job).await?;
        let phase = view.state.job(job).map(|job| &job.phase);
        if phase != Some(&Phase::Cancelled) {
            if phase.is_some_and(Phase::is_terminal) {
                return Err(refused(&Refusal::Terminal));
            }
            let deadline = self.settle(deadline).await;
            let (reason, finished_ms) = (CANCEL_REASON.to_owned(), self.clock.wall_ms());
            let cancel = Command::Cancel(Cancel { job, reason, finished_ms });
            let what = format!("cancelling job {job}");
            match self.propose(cancel, deadline, &what).await {
                Ok((index, _)) => self.show(index, &what).await?,
                // The proposer repeats itself: the first answer may have been lost.
                Err(refused) if !self.is_cancelled(job).await => return Err(refused),
                Err(_) => {}
            }
            tracing::info!(%job, "job cancelled");
        }
        self.job(&request.get_ref().job_id).await
    }

    /// Says whether a job is cancelled, as the leader knows it; no where none answers.
    async fn is_cancelled(&self, job: JobId) -> bool {
        let Ok(last) = self.leader.last_index(CATCH_UP_MAX).await else { return false };
        self.catch_up(last).await;
        self.view().state.job(job).is_some_and(|job| job.phase == Phase::Cancelled)
    }

    pub(super) async fn artifact(&self, digest: &str) -> Result<Bytes, Status> {
        let digest = convert::digest(digest)?;
        self.artifacts.fetch(digest).await.map_err(|error| match error {
            FetchError::NotFound(_) => Status::not_found(error.to_string()),
            FetchError::Unavailable { .. } => unavailable(error.to_string(), None),
        })
    }

    async fn do_status(&self) -> Result<wire::StatusReply, Status> {
        let opinions = self.opinions().await;
        let (view, raft) = (self.view(), self.raft_status());
        let members = convert::members(&raft, &view.state, &opinions);
        let state = view.state.clone();
        let digest = beside(move || state.digest()).await?;
        Ok(wire::StatusReply {
            features: view.state.features(),
            settings_version: view.state.settings_version(),
            paused: view.state.paused(),
            cluster: self.cluster(),
            node: raft.node.0,
            leader: raft.leader.map_or(0, |leader| leader.0),
            term: raft.term,
            last_log_index: raft.last_log.0,
            commit_index: raft.committed.0,
            applied_index: view.applied.0,
            queued: view.state.queued_count() as u64,
            leased: view.state.leased_count() as u64,
            terminal: view.state.terminal_count() as u64,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_digest: digest.to_string(),
            members,
        })
    }
}

/// Walks every job on a thread of its own, so that the loops of this runtime get their turns.
pub(super) async fn beside<T: Send + 'static>(
    walk: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let walked = tasks::blocking(walk).await;
    walked.map_err(|error| Status::internal(format!("walking the state: {error}")))
}

fn chunks(bytes: Bytes) -> impl futures_util::Stream<Item = Result<wire::ArtifactChunk, Status>> {
    stream::unfold(bytes, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let data = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some((Ok(wire::ArtifactChunk { data }), rest))
    })
}

/// The code's name in the metrics' words.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::FailedPrecondition => "failed_precondition",
        Code::AlreadyExists => "already_exists",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        _ => "internal",
    }
}
