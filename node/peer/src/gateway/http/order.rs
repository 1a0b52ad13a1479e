//! One call for pictures, from its order to its pictures, through the gateway's own functions.
//!
//! A call is held over an election and over a worker's death, because submitting and watching are.
//! A client that leaves takes its job along, unless it asked for the job alone; since clients that
//! lost their connection repeat the call at once, the job is given a moment first.

use super::Front;
use super::call::Call;
use super::error::Problem;
use crate::gateway::Gateway;
use crate::tasks;
use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_server::Atelier;
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::{Code, Request, Status};

/// Seeds that chance draws are below this: what every client of these dialects can write.
const SEEDS: u64 = 4_294_967_294;
/// The longest that a call is held for its pictures; then it is told the job, which goes on.
const HELD_MAX: Duration = Duration::from_secs(600);
/// Between a client's leaving and its job's end: a repeat of the call takes the job over.
const LEFT_MAX: Duration = Duration::from_secs(3);
/// How often a job whose client left is cancelled, while nobody knows it or nobody leads: with the pauses longer
/// than a submission is held.
const CANCELS_MAX: u32 = 12;
/// Before a peer that lags, or a holder that does not answer, is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// Questions for one picture; with the pauses about ten seconds, which is longer than an election.
const FETCHES_MAX: u32 = 40;

/// A call for pictures, in the words of all dialects.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    pub(super) prompt: String,
    /// 0: the model's default.
    pub(super) width: u32,
    /// 0: the model's default.
    pub(super) height: u32,
    /// 0: the model's default.
    pub(super) steps: u32,
    /// None: by chance; where the order has a key, by the key, so that a repeat is the same order.
    pub(super) seed: Option<u64>,
    pub(super) images: u32,
    pub(super) job_id: String,
    pub(super) key: Option<String>,
    pub(super) tenant: String,
    pub(super) priority: Option<u64>,
    pub(super) deadline_s: u32,
    pub(super) max_runtime_s: u32,
    pub(super) guidance: Option<wire::Guidance>,
    pub(super) source: Option<wire::Source>,
}

/// How many calls wait for a job at this peer.
#[derive(Debug, Default)]
pub(super) struct Holders {
    // As many as there are open calls, which are bounded.
    waiting: Mutex<BTreeMap<String, usize>>,
}

/// One call that waits for a job.
pub(super) struct Holder {
    front: Front,
    job_id: String,
    /// The job ends with its last waiting call.
    cancels: bool,
}

impl Front {
    /// As [`Front::submit`], for a client that waits: one that leaves before its job is accepted takes it along
    /// as well.
    ///
    /// # Errors
    /// As the gateway refuses.
    pub(super) async fn submit_held(
        &self,
        call: &Call,
        order: Order,
    ) -> Result<wire::SubmitReply, Problem> {
        let job_id = self.gateway.new_job_id().to_string();
        let mut holder = self.holder(&job_id, true);
        let accepted = self.submit(call, Order { job_id, ..order }).await;
        holder.told();
        accepted
    }

    /// Accepts an order; the call is held while there is no leader.
    ///
    /// # Errors
    /// As the gateway refuses.
    pub(super) async fn submit(
        &self,
        call: &Call,
        order: Order,
    ) -> Result<wire::SubmitReply, Problem> {
        let images = order.images.max(1);
        let seed = order.seed.unwrap_or_else(|| self.seed(&order));
        let Order { prompt, width, height, steps, guidance, source, .. } = order;
        let picture =
            wire::TextToImage { prompt, width, height, steps, seed, images, guidance, source };
        // 255 is above every priority, so that it is refused with the range.
        let priority = order.priority.map_or(0, |asked| asked.min(255) as u32 + 1);
        let request = wire::SubmitRequest {
            job_id: order.job_id,
            tenant: order.tenant,
            idempotency_key: order.key.unwrap_or_default(),
            priority,
            traceparent: call.traceparent(),
            deadline_s: order.deadline_s,
            max_runtime_s: order.max_runtime_s,
            parameters: Some(wire::submit_request::Parameters::TextToImage(picture)),
        };
        Ok(Atelier::submit(&*self.gateway, Request::new(request)).await?.into_inner())
    }

    fn seed(&self, order: &Order) -> u64 {
        let name = order.key.as_deref().filter(|key| !key.is_empty()).unwrap_or(&order.job_id);
        let mut bytes = [0; 8];
        if name.is_empty() {
            self.gateway.entropy.fill(&mut bytes);
        } else {
            bytes.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..8]);
        }
        u64::from_be_bytes(bytes) % SEEDS
    }

    /// Notes that a call waits for a job; the job is cancelled when the last such call is dropped
    /// before its end, where that is asked for.
    pub(super) fn holder(&self, job_id: &str, cancels: bool) -> Holder {
        *self.holders.lock().entry(job_id.to_owned()).or_default() += 1;
        Holder { front: self.clone(), job_id: job_id.to_owned(), cancels }
    }

    /// Waits for the end of a job, over elections and changes of the worker.
    ///
    /// # Errors
    /// When the job ended without pictures, when this peer leaves, and after [`HELD_MAX`].
    ///
    /// # Cancel safety
    /// A call that is dropped takes its job along, as its holder says.
    pub(super) async fn wait(
        &self,
        accepted: &wire::SubmitReply,
        cancels: bool,
    ) -> Result<wire::Job, Problem> {
        let mut holder = self.holder(&accepted.job_id, cancels);
        let ended = tokio::select! {
            ended = self.ended(accepted) => ended,
            () = self.gateway.clock.sleep(HELD_MAX) => {
                let text = format!(
                    "job {} has not ended within {} s; it goes on: GET /api/v1/jobs/{}",
                    accepted.job_id, HELD_MAX.as_secs(), accepted.job_id,
                );
                Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", text))
            }
        };
        holder.told();
        drop(holder);
        succeeded(ended?)
    }

    async fn ended(&self, accepted: &wire::SubmitReply) -> Result<wire::Job, Problem> {
        loop {
            let request = wire::WatchRequest {
                job_id: accepted.job_id.clone(),
                after_index: accepted.log_index,
                previews: false,
            };
            match last_of(&self.gateway, request).await {
                Ok(job) => return Ok(job),
                Err(status) if status.code() == Code::Unavailable && !self.is_leaving() => {
                    self.gateway.clock.sleep(AGAIN).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Cancels the job of a client that left. It may still be on its way into the log.
    async fn call_off(&self, job_id: &str) {
        for _ in 0..CANCELS_MAX {
            let request = wire::CancelJobRequest { job_id: job_id.to_owned() };
            match self.gateway.cancel_job(Request::new(request)).await {
                Ok(_) => {
                    tracing::info!(job = job_id, "its client left, so the job is cancelled");
                    return;
                }
                Err(status) if matches!(status.code(), Code::Unavailable | Code::NotFound) => {
                    self.gateway.clock.sleep(LEFT_MAX).await;
                }
                Err(status) => {
                    tracing::debug!(job = job_id, reason = status.message(), "not cancelled");
                    return;
                }
            }
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        *self.gateway.draining.borrow()
    }

    /// The pictures of a job that succeeded, in order.
    ///
    /// # Errors
    /// When no peer that answers has one.
    pub(super) async fn pictures(&self, job: &wire::Job) -> Result<Vec<Bytes>, Problem> {
        let mut pictures = Vec::new();
        for artifact in &job.artifacts {
            pictures.push(self.picture(&artifact.digest).await?);
        }
        Ok(pictures)
    }

    /// The bytes of an artifact, from whichever peer has them; one that died may be back soon.
    ///
    /// # Errors
    /// When no peer that answers has them.
    pub(super) async fn picture(&self, digest: &str) -> Result<Bytes, Problem> {
        let mut left = FETCHES_MAX;
        loop {
            left -= 1;
            match self.gateway.artifact(digest).await {
                Err(status) if status.code() == Code::Unavailable && left > 0 => {
                    self.gateway.clock.sleep(AGAIN).await;
                }
                other => return Ok(other?),
            }
        }
    }

    /// What the roster or this peer's engine calls the model that drew, or will draw, a job.
    pub(super) fn model(&self, node: u64) -> String {
        let view = self.gateway.view();
        let drew = view.state.node(atelier_state::NodeId(node)).map(|node| node.model.clone());
        let own = || self.engine().map(|info| info.model);
        let any = || view.state.nodes().map(|(_, node)| node.model.clone()).find(|m| !m.is_empty());
        drew.filter(|model| !model.is_empty()).or_else(own).or_else(any).unwrap_or_default()
    }

    /// Guidance, where the model takes it: one that was distilled does better without.
    pub(super) fn guidance(&self, scale: f64, negative_prompt: &str) -> Option<wire::Guidance> {
        let is_guided = self.engine().is_some_and(|info| info.guided);
        let negative_prompt = negative_prompt.to_owned();
        let guidance = wire::Guidance { scale: scale as f32, negative_prompt };
        (is_guided && scale > 0.0).then_some(guidance)
    }

    /// What this peer's engine says of itself, where it can draw.
    pub(super) fn engine(&self) -> Option<crate::ports::engine::EngineInfo> {
        let state = self.probes.health.engine.as_ref()?.borrow().clone();
        match state {
            crate::ports::engine::EngineState::Ready(info) => Some(info),
            _ => None,
        }
    }
}

/// Follows a job to its end.
async fn last_of(gateway: &Gateway, request: wire::WatchRequest) -> Result<wire::Job, Status> {
    let mut events = gateway.watch(Request::new(request)).await?.into_inner();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = event?.job;
    }
    last.ok_or_else(|| Status::internal("expected a watch to end with its job, got nothing"))
}

/// A job that ended well.
///
/// # Errors
/// Says how it ended instead.
pub(super) fn succeeded(job: wire::Job) -> Result<wire::Job, Problem> {
    let id = &job.job_id;
    match job.phase() {
        wire::Phase::Succeeded => Ok(job),
        wire::Phase::Cancelled => {
            let text = format!("job {id} was cancelled: {}", job.error);
            Err(Problem::ended(StatusCode::CONFLICT, "cancelled", text))
        }
        _ => {
            let text = format!("job {id} failed: {}", job.error);
            Err(Problem::ended(StatusCode::INTERNAL_SERVER_ERROR, "job_failed", text))
        }
    }
}

impl Holders {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call less; says whether it was the last one.
    fn leave(&self, job_id: &str) -> bool {
        let mut waiting = self.lock();
        let left = waiting.get(job_id).copied().unwrap_or(1) - 1;
        if left == 0 {
            waiting.remove(job_id);
        } else {
            waiting.insert(job_id.to_owned(), left);
        }
        left == 0
    }
}

impl Holder {
    /// The client was told how it went, so its leaving means nothing more.
    pub(super) fn told(&mut self) {
        self.cancels = false;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let was_last = self.front.holders.leave(&self.job_id);
        // Where the peer leaves its clients are sent elsewhere, and find their jobs there.
        if !was_last || !self.cancels || self.front.is_leaving() {
            return;
        }
        let (front, job_id) = (self.front.clone(), self.job_id.clone());
        tasks::spawn(async move {
            front.gateway.clock.sleep(LEFT_MAX).await;
            if front.holders.lock().contains_key(&job_id) || front.is_leaving() {
                return;
            }
            front.call_off(&job_id).await;
        });
    }
}
