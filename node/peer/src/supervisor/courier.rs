//! What an attempt has reached, on its way: from an earlier attempt to the engine, and from the
//! engine to where it outlives this peer.
//!
//! Owns the pictures that are finished before the job is. Nothing here can fail an attempt: what
//! is lost, foreign or damaged is drawn again.

use super::Assignment;
use super::attempt::AttemptParts;
use crate::artifacts::KeepError;
use crate::checkpoints::{Checkpoint, order_digest};
use crate::ports::engine::{EngineCheckpoint, EngineState, Picture, Resume};
use atelier_state::job::ArtifactRef;
use atelier_state::mutants::{self, Mutant};
use std::convert::Infallible;
use tokio::sync::watch;

/// Carries the checkpoints and the pictures of one attempt.
pub(super) struct Courier<'a> {
    parts: &'a AttemptParts,
    assignment: &'a Assignment,
    // The newest replaces one that was not yet carried.
    told: watch::Receiver<Option<EngineCheckpoint>>,
    /// Of image 0 and on.
    kept: Vec<ArtifactRef>,
    /// The first image that this attempt draws.
    first: u32,
}

impl<'a> Courier<'a> {
    /// Makes the courier of an attempt, and the end at which it is told.
    pub(super) fn new(
        parts: &'a AttemptParts,
        assignment: &'a Assignment,
    ) -> (Courier<'a>, watch::Sender<Option<EngineCheckpoint>>) {
        let (teller, told) = watch::channel(None);
        (Courier { parts, assignment, told, kept: Vec::new(), first: 0 }, teller)
    }

    /// Looks for where an earlier attempt stood; none means to begin with the first step.
    pub(super) async fn find(&mut self) -> Option<Resume> {
        if !self.assignment.is_repeated {
            return None;
        }
        let mut state = self.parts.engine.ready();
        let ready = state.wait_for(|state| !matches!(state, EngineState::Loading { .. })).await;
        let EngineState::Ready(info) = ready.ok()?.clone() else { return None };
        let Assignment { job, kind, parameters, .. } = self.assignment;
        let order = order_digest(kind, parameters, &info.model);
        let Some(found) = self.parts.checkpoints.newest(*job, &info.class, order).await else {
            tracing::info!("no checkpoint is found, begins anew");
            return None;
        };
        let (image, step) = (found.point.image, found.point.step);
        // The pictures move here, so that the result has as many copies as any other.
        for picture in &found.pictures {
            let bytes = match self.parts.artifacts.fetch(picture.digest).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "a finished picture is lost, begins anew");
                    self.kept.clear();
                    return None;
                }
            };
            let (media_type, data) = (picture.media_type.clone(), bytes);
            let picture = Picture { image: self.kept_count(), media_type, data };
            if let Err(error) = self.keep(picture).await {
                tracing::warn!(%error, "a finished picture is not kept, begins anew");
                self.kept.clear();
                return None;
            }
        }
        tracing::info!(image, step, from = %found.token, "goes on from a checkpoint");
        self.first = image;
        let mut point = found.point.clone();
        point.step += u32::from(mutants::is(Mutant::ResumedOneStepLater));
        // A second copy, should the peer that held it die as well before the next one is made.
        self.parts.checkpoints.put(found);
        Some(Resume { class: info.class, model: info.model, point })
    }

    /// Carries each checkpoint that is told, or the newest of several.
    ///
    /// # Cancel safety
    /// What was under way may be lost; [`Courier::settle`] mends that.
    pub(super) async fn carry(&mut self) -> Infallible {
        loop {
            if self.told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(checkpoint) = self.settle().await {
                self.parts.checkpoints.send(&checkpoint).await;
            }
        }
    }

    /// Holds the newest checkpoint here, with the pictures that are finished.
    pub(super) async fn settle(&mut self) -> Option<Checkpoint> {
        let told = self.told.borrow_and_update().clone()?;
        let EngineCheckpoint { class, model, point, pictures } = told;
        if let Err(error) = self.keep_all(pictures).await {
            tracing::warn!(%error, "a checkpoint is not kept");
            return None;
        }
        let pictures = self.kept.get(..usize::try_from(point.image).expect("a u32 fits"))?.to_vec();
        let Assignment { job, token, kind, parameters, .. } = self.assignment;
        let order = order_digest(kind, parameters, &model);
        let checkpoint = Checkpoint { job: *job, token: *token, class, order, point, pictures };
        self.parts.checkpoints.put(checkpoint.clone());
        Some(checkpoint)
    }

    /// Gives the newest checkpoint to another peer, for a job that this one will not finish.
    pub(super) async fn hand_over(&mut self) {
        let Some(checkpoint) = self.settle().await else { return };
        let (image, step) = (checkpoint.point.image, checkpoint.point.step);
        match self.parts.checkpoints.send(&checkpoint).await {
            Some(peer) => tracing::info!(%peer, image, step, "checkpoint handed over"),
            None => tracing::warn!(image, step, "no peer takes the checkpoint"),
        }
    }

    /// Keeps the pictures of a finished drawing, and names those of the whole job.
    pub(super) async fn finish(
        &mut self,
        pictures: Vec<Picture>,
    ) -> Result<Vec<ArtifactRef>, KeepError> {
        self.keep_all(pictures).await?;
        Ok(std::mem::take(&mut self.kept))
    }

    /// Keeps those pictures, in order from the first one of this drawing, that are not kept yet.
    async fn keep_all(&mut self, pictures: Vec<Picture>) -> Result<(), KeepError> {
        let begun_at = pictures.first().map_or(self.first, |picture| picture.image);
        if begun_at < self.first {
            // The engine has become another one since it was asked, and did not go on.
            self.kept.truncate(usize::try_from(begun_at).expect("a u32 fits"));
            self.first = begun_at;
        }
        for picture in pictures {
            if picture.image == self.kept_count() {
                self.keep(picture).await?;
            }
        }
        Ok(())
    }

    async fn keep(&mut self, picture: Picture) -> Result<(), KeepError> {
        let Picture { image: _, media_type, data } = picture;
        let bytes = u64::try_from(data.len()).expect("a usize fits");
        let kept = self.parts.artifacts.keep(data).await?;
        let (digest, holders) = (kept.digest, kept.holders);
        self.kept.push(ArtifactRef { digest, bytes, media_type, holders });
        Ok(())
    }

    fn kept_count(&self) -> u32 {
        u32::try_from(self.kept.len()).expect("bounded by the images of a job")
    }
}
