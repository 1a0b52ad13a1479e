//! One attempt: draw, keep the pictures, say so in the log.
//!
//! Owns the way from a lease to its end. Whatever happens, the attempt ends in one of four ways:
//! Complete, Fail, Revoke, or nothing, when the lease has ended by itself. It must not decide
//! whether its answer counts: the token does.

use super::Assignment;
use crate::artifacts::{Artifacts, KeepError};
use crate::ports::Clock;
use crate::ports::engine::{
    DrawRequest, ENGINE_EVENTS_MAX, Engine, EngineError, EngineEvent, Picture,
};
use crate::progress::ProgressBoard;
use crate::proposer::{ProposeFailure, Proposer};
use atelier_state::command::{Command, Complete, Fail, Revoke};
use atelier_state::job::ArtifactRef;
use atelier_state::lease::RevokeReason;
use atelier_state::reply::{Refusal, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Before an answer that did not reach the log is proposed again.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct AttemptParts {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) proposer: Proposer,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) board: Arc<ProgressBoard>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Works on a lease to its end. `stop` says that the lease is gone: then nothing is proposed any
/// more. `answers` is set once there are pictures.
pub(super) async fn run(
    parts: AttemptParts,
    assignment: Assignment,
    work: u64,
    stop: CancellationToken,
    answers: Arc<AtomicBool>,
) {
    let begun = parts.clock.now();
    let drawn = draw(&parts, &assignment, work, stop.clone()).await;
    answers.store(drawn.is_ok(), Ordering::SeqCst);
    let Some(answer) = answer_to(&parts, &assignment, drawn, &stop).await else { return };
    let elapsed_ms = (parts.clock.now() - begun).as_millis();
    let verdict = conclude(&parts, answer, &stop).await;
    let verdict = match verdict {
        // An answer that breaks a limit would break it again.
        Some(Reply::Refused(Refusal::Invalid(reason))) => {
            let fail = fail(&parts, &assignment, &format!("result was refused: {reason}"), true);
            conclude(&parts, fail, &stop).await
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
    work: u64,
    stop: CancellationToken,
) -> Result<Vec<Picture>, EngineError> {
    let progress = parts.board.begin(assignment.job, assignment.token);
    let (events, mut told) = mpsc::channel(ENGINE_EVENTS_MAX);
    let request = DrawRequest {
        work,
        kind: assignment.kind.clone(),
        parameters: assignment.parameters.clone(),
    };
    let publish = |EngineEvent::Step(step)| {
        tracing::trace!(stage = step.stage, step = step.step, steps = step.steps, "step");
        progress.publish(step);
    };
    let mut drawn = parts.engine.draw(request, events, stop);
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = told.recv() => publish(event),
            result = &mut drawn => break result,
        }
    };
    // The last step and the result may have come together.
    while let Ok(event) = told.try_recv() {
        publish(event);
    }
    result
}

/// Turns what the engine answered into what the log shall hear; nothing where the lease is gone.
async fn answer_to(
    parts: &AttemptParts,
    assignment: &Assignment,
    drawn: Result<Vec<Picture>, EngineError>,
    stop: &CancellationToken,
) -> Option<Command> {
    let error = match drawn {
        Ok(pictures) => {
            let kept = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                kept = keep(parts, pictures) => kept,
            };
            match kept {
                Ok(artifacts) => return Some(complete(parts, assignment, artifacts)),
                Err(error) => {
                    tracing::warn!(%error, "pictures were not kept");
                    let permanent = matches!(error, KeepError::TooLarge(_));
                    return Some(fail(parts, assignment, &error.to_string(), permanent));
                }
            }
        }
        Err(error) => error,
    };
    match error {
        EngineError::Stopped => {
            tracing::info!("attempt was stopped");
            None
        }
        EngineError::Unfit(reason) => {
            tracing::warn!(reason, "engine is unfit, the lease goes back");
            let (job, token) = (assignment.job, assignment.token);
            Some(Command::Revoke(Revoke { job, token, reason: RevokeReason::Drained }))
        }
        error @ EngineError::Refused(_) => {
            tracing::warn!(%error, "attempt failed for good");
            Some(fail(parts, assignment, &error.to_string(), true))
        }
        error @ (EngineError::Crashed(_) | EngineError::Failed(_)) => {
            tracing::warn!(%error, "attempt failed");
            Some(fail(parts, assignment, &error.to_string(), false))
        }
    }
}

async fn keep(parts: &AttemptParts, pictures: Vec<Picture>) -> Result<Vec<ArtifactRef>, KeepError> {
    let mut artifacts = Vec::with_capacity(pictures.len());
    for Picture { media_type, data } in pictures {
        let bytes = u64::try_from(data.len()).expect("a usize fits");
        let kept = parts.artifacts.keep(data).await?;
        let (digest, holders) = (kept.digest, kept.holders);
        artifacts.push(ArtifactRef { digest, bytes, media_type, holders });
    }
    Ok(artifacts)
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
