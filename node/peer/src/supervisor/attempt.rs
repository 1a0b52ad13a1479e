//! One attempt: draw, keep the pictures, say so in the log.
//!
//! Owns the way from a lease to its end. Whatever happens, the attempt ends in one of four ways:
//! Complete, Fail, Revoke, or nothing, when the lease has ended by itself. It must not decide
//! whether its answer counts: the token does.

use super::Assignment;
use super::courier::Courier;
use crate::artifacts::{Artifacts, KeepError};
use crate::checkpoints::Checkpoints;
use crate::parameters::pictures_of;
use crate::ports::Clock;
use crate::ports::engine::{
    DrawRequest, ENGINE_EVENTS_MAX, Engine, EngineCheckpoint, EngineError, EngineEvent, Picture,
    Pictures,
};
use crate::progress::{ProgressBoard, ProgressWriter};
use crate::proposer::{ProposeFailure, Proposer};
use atelier_state::command::{Command, Complete, Fail, Revoke};
use atelier_state::job::ArtifactRef;
use atelier_state::lease::RevokeReason;
use atelier_state::reply::{Refusal, Reply};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Before an answer that did not reach the log is proposed again.
const RETRY: Duration = Duration::from_millis(200);
/// For an engine to reach its next step boundary, once its job is handed over; then the job goes
/// with the checkpoint of an earlier step.
const BOUNDARY_MAX: Duration = Duration::from_secs(3);

pub(super) struct AttemptParts {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) proposer: Proposer,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) board: Arc<ProgressBoard>,
    pub(super) clock: Arc<dyn Clock>,
    /// The supervisor's name for the work.
    pub(super) work: u64,
    pub(super) checkpoint_steps: u32,
}

/// What a running attempt is told from outside.
#[derive(Clone, Default)]
pub(super) struct Orders {
    /// The lease is gone: nothing is proposed any more.
    pub(super) stop: CancellationToken,
    /// Stop at the next step boundary, leave the checkpoint with another peer and give the lease
    /// back. It comes too late where there are pictures.
    pub(super) hand_over: CancellationToken,
}

/// Works on a lease to its end.
pub(super) async fn run(parts: AttemptParts, assignment: Assignment, orders: Orders) {
    let begun = parts.clock.now();
    let (mut courier, teller) = Courier::new(&parts, &assignment);
    let drawn = draw(&parts, &assignment, &orders, &mut courier, teller).await;
    parts.clock.settled().await;
    let answer = answer_to(&parts, &assignment, drawn, &orders, &mut courier).await;
    let Some(answer) = answer else { return };
    let elapsed_ms = (parts.clock.now() - begun).as_millis();
    let verdict = conclude(&parts, answer, &orders.stop).await;
    let verdict = match verdict {
        // An answer that breaks a limit would break it again.
        Some(Reply::Refused(Refusal::Invalid(reason))) => {
            let fail = fail(&parts, &assignment, &format!("result was refused: {reason}"), true);
            conclude(&parts, fail, &orders.stop).await
        }
        verdict => verdict,
    };
    match verdict {
        Some(Reply::Refused(refusal)) => tracing::info!(%refusal, "answer came too late"),
        Some(_) => tracing::info!(elapsed_ms, "attempt ends"),
        None => tracing::info!("attempt was stopped"),
    }
}

async fn draw(
    parts: &AttemptParts,
    assignment: &Assignment,
    orders: &Orders,
    courier: &mut Courier<'_>,
    teller: watch::Sender<Option<EngineCheckpoint>>,
) -> Result<Vec<Picture>, EngineError> {
    let progress = parts.board.begin(assignment.job, assignment.token);
    let resume = tokio::select! {
        biased;
        () = orders.stop.cancelled() => return Err(EngineError::Stopped),
        () = orders.hand_over.cancelled() => return Err(EngineError::Stopped),
        resume = courier.find() => resume,
    };
    let pictures = tokio::select! {
        biased;
        () = orders.stop.cancelled() => return Err(EngineError::Stopped),
        () = orders.hand_over.cancelled() => return Err(EngineError::Stopped),
        pictures = pictures(parts, assignment) => pictures?,
    };
    let (events, mut told) = mpsc::channel(ENGINE_EVENTS_MAX);
    let request = DrawRequest {
        work: parts.work,
        kind: assignment.kind.clone(),
        parameters: assignment.parameters.clone(),
        pictures,
        checkpoint_steps: parts.checkpoint_steps,
        resume,
    };
    let halt = orders.stop.child_token();
    let mut drawn = parts.engine.draw(request, events, halt.clone());
    let mut carrying = pin!(courier.carry());
    let mut boundary_missed = pin!(async {
        orders.hand_over.cancelled().await;
        halt.cancel();
        parts.clock.sleep(BOUNDARY_MAX).await;
    });
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = told.recv() => take(event, &progress, &teller),
            result = &mut drawn => break result,
            never = &mut carrying => match never {},
            () = &mut boundary_missed => break Err(EngineError::Stopped),
        }
    };
    // The last step and the result may have come together.
    while let Ok(event) = told.try_recv() {
        take(event, &progress, &teller);
    }
    result
}

/// Fetches the pictures that a job begins from.
///
/// # Errors
/// [`EngineError::Failed`] where nobody who answers has one: whoever has it may be back for the next attempt.
async fn pictures(parts: &AttemptParts, assignment: &Assignment) -> Result<Pictures, EngineError> {
    let mut pictures = Pictures::default();
    for digest in pictures_of(&assignment.kind, &assignment.parameters) {
        let fetched = parts.artifacts.fetch(digest).await;
        let missing = |error| EngineError::Failed(format!("a picture to begin from: {error}"));
        pictures.0.insert(digest, fetched.map_err(missing)?);
    }
    Ok(pictures)
}

fn take(
    event: EngineEvent,
    progress: &ProgressWriter,
    teller: &watch::Sender<Option<EngineCheckpoint>>,
) {
    match event {
        EngineEvent::Step(step) => {
            let (image, steps) = (step.image, step.steps);
            tracing::trace!(stage = step.stage, image, step = step.step, steps, "step");
            progress.publish(step);
        }
        EngineEvent::Checkpoint(checkpoint) => {
            teller.send_replace(Some(checkpoint));
        }
    }
}

/// Turns what the engine answered into what the log shall hear; nothing where the lease is gone.
async fn answer_to(
    parts: &AttemptParts,
    assignment: &Assignment,
    drawn: Result<Vec<Picture>, EngineError>,
    orders: &Orders,
    courier: &mut Courier<'_>,
) -> Option<Command> {
    let error = match drawn {
        Ok(pictures) => {
            let kept = tokio::select! {
                biased;
                () = orders.stop.cancelled() => return None,
                kept = courier.finish(pictures) => kept,
            };
            return Some(answer_with(parts, assignment, kept));
        }
        Err(error) => error,
    };
    match error {
        EngineError::Stopped if orders.hand_over.is_cancelled() && !orders.stop.is_cancelled() => {
            tokio::select! {
                biased;
                () = orders.stop.cancelled() => return None,
                () = courier.hand_over() => {}
            }
            Some(revoke(assignment))
        }
        EngineError::Stopped => {
            tracing::info!("attempt was stopped");
            None
        }
        EngineError::Unfit(reason) => {
            tracing::warn!(reason, "engine is unfit, the lease goes back");
            Some(revoke(assignment))
        }
        error @ EngineError::Refused(_) => {
            tracing::warn!(%error, "attempt failed for good");
            Some(fail(parts, assignment, &error.to_string(), true))
        }
        error @ (EngineError::Crashed(_) | EngineError::Failed(_)) => {
            tracing::warn!(%error, "attempt failed");
            // For the next attempt, here or elsewhere.
            courier.settle().await;
            Some(fail(parts, assignment, &error.to_string(), false))
        }
    }
}

fn answer_with(
    parts: &AttemptParts,
    assignment: &Assignment,
    kept: Result<Vec<ArtifactRef>, KeepError>,
) -> Command {
    match kept {
        Ok(artifacts) => complete(parts, assignment, artifacts),
        Err(error) => {
            tracing::warn!(%error, "pictures were not kept");
            let permanent = matches!(error, KeepError::TooLarge(_));
            fail(parts, assignment, &error.to_string(), permanent)
        }
    }
}

/// Proposes the answer until the log has taken or refused it; none when the lease ended first.
async fn conclude(
    parts: &AttemptParts,
    answer: Command,
    stop: &CancellationToken,
) -> Option<Reply> {
    loop {
        let proposed = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            proposed = parts.proposer.propose(answer.clone()) => proposed,
        };
        match proposed {
            Ok((_, reply)) => return Some(reply),
            Err(error @ (ProposeFailure::Refused(_) | ProposeFailure::Stopped(_))) => {
                tracing::error!(%error, "answer cannot be proposed");
                return None;
            }
            // `apply` answers a repeat as it answered the first.
            Err(error) => tracing::warn!(%error, "answer is not in the log yet, tries again"),
        }
        parts.clock.sleep(RETRY).await;
    }
}

fn revoke(assignment: &Assignment) -> Command {
    let (job, token) = (assignment.job, assignment.token);
    Command::Revoke(Revoke { job, token, reason: RevokeReason::Drained })
}

fn complete(parts: &AttemptParts, assignment: &Assignment, artifacts: Vec<ArtifactRef>) -> Command {
    Command::Complete(Complete {
        job: assignment.job,
        token: assignment.token,
        artifacts,
        finished_ms: parts.clock.wall_ms(),
    })
}

fn fail(parts: &AttemptParts, assignment: &Assignment, error: &str, permanent: bool) -> Command {
    Command::Fail(Fail {
        job: assignment.job,
        token: assignment.token,
        error: error[..error.floor_char_boundary(atelier_state::limits::ERROR_BYTES_MAX)]
            .to_owned(),
        permanent,
        finished_ms: parts.clock.wall_ms(),
    })
}
