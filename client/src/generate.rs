//! Submits a job, waits for its end and fetches what was drawn.

use crate::client::Client;
use crate::error::{Error, GenerateError};
use crate::types::{Accepted, Artifact, Event, Job, JobId, Phase, Submission};

/// A job that succeeded, with its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// How it was accepted.
    pub accepted: Accepted,
    /// The job at its end; [`Job::node`] drew it.
    pub job: Job,
    /// One for each artifact, in order.
    pub images: Vec<Image>,
}

/// Bytes that were found to be what their digest names.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Their name.
    pub artifact: Artifact,
    /// The encoded picture.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Submits a job, tells of each change, and returns its pictures.
    ///
    /// submit → watch → fetch. May be called again with the same submission after any error or
    /// when dropped: it is one job, and a finished one is only fetched.
    ///
    /// # Errors
    /// - [`GenerateError::Submit`]: as [`Client::submit`].
    /// - [`GenerateError::Watch`], [`GenerateError::Fetch`]: the job is accepted; call again.
    /// - [`GenerateError::Failed`], [`GenerateError::Cancelled`]: it is over without a picture.
    ///
    /// # Cancel safety
    /// When dropped the job goes on in the cluster; call again, or cancel the job.
    pub async fn generate(
        &self,
        submission: &Submission,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Generated, GenerateError> {
        let accepted = self.submit(submission).await.map_err(GenerateError::Submit)?;
        let job = self.finish(accepted.job, &mut on_event).await?;
        let images = self.fetch(&job).await?;
        Ok(Generated { accepted, job, images })
    }

    /// Waits for the end of an accepted job, and tells of each change meanwhile.
    ///
    /// # Errors
    /// As [`Client::generate`], without those of submit and fetch.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn finish(
        &self,
        job: JobId,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Job, GenerateError> {
        let mut watch = self.watch(job).known();
        while let Some(event) = watch.next().await {
            let event = event.map_err(|source| GenerateError::Watch { job, source })?;
            on_event(&event);
            match event.job.phase {
                Phase::Queued | Phase::Leased => {}
                Phase::Succeeded => return Ok(event.job),
                Phase::Failed => return Err(GenerateError::Failed(Box::new(event.job))),
                Phase::Cancelled => return Err(GenerateError::Cancelled(Box::new(event.job))),
            }
        }
        let what = "expected a terminal event, got the end of the watch".to_owned();
        Err(GenerateError::Watch { job, source: Error::Malformed { what } })
    }

    /// Fetches all pictures of a job that succeeded.
    ///
    /// # Errors
    /// [`GenerateError::Fetch`], as [`Client::artifact`].
    ///
    /// # Cancel safety
    /// Changes nothing; what came is thrown away.
    pub async fn fetch(&self, job: &Job) -> Result<Vec<Image>, GenerateError> {
        let mut images = Vec::with_capacity(job.artifacts.len());
        for artifact in &job.artifacts {
            let bytes = self
                .artifact(artifact)
                .await
                .map_err(|source| GenerateError::Fetch { job: job.job, source })?;
            images.push(Image { artifact: artifact.clone(), bytes });
        }
        Ok(images)
    }
}
