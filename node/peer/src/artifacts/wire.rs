//! Artifacts on the way between peers: chunks of a stream, hashed by whoever receives them.

use super::{ARTIFACT_BYTES_MAX, Artifacts, Candidate, digest_of};
use crate::ports::{DialError, Purpose};
use atelier_proto::peer::v1::{FetchArtifactRequest, PutArtifactChunk};
use atelier_state::job::Digest;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use std::time::Duration;
use tonic::{Code, Status};

/// Bytes of one chunk; well below what a message may have.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Why a peer could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(#[from] Box<Status>),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("its bytes have another digest")]
    Corrupt,
    #[error("its bytes are more than {ARTIFACT_BYTES_MAX}")]
    TooLarge,
}

/// Cuts bytes into chunks without copying them; no bytes are one empty chunk.
pub(crate) fn chunks_of(bytes: Bytes) -> impl Iterator<Item = Bytes> + Send + 'static {
    let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
    (0..count).map(move |number| {
        let start = number * CHUNK_BYTES;
        bytes.slice(start..bytes.len().min(start + CHUNK_BYTES))
    })
}

impl Artifacts {
    /// Sends an artifact to one peer, which has it on disk when this returns.
    pub(super) async fn send(
        &self,
        to: &Candidate,
        digest: Digest,
        bytes: &Bytes,
    ) -> Result<(), CallError> {
        let mut peer = self.parts.lines.peer(&to.address, Purpose::Artifact)?;
        let cluster = self.settings.cluster.clone();
        let mut name = Some((cluster, Bytes::copy_from_slice(&digest.0)));
        let chunks = chunks_of(bytes.clone()).map(move |data| {
            // The first chunk says whose bytes these are.
            let (cluster, digest) = name.take().unwrap_or_default();
            PutArtifactChunk { digest, data, cluster }
        });
        let within = self.patience(bytes.len());
        tokio::select! {
            biased;
            reply = peer.put_artifact(stream::iter(chunks)) => {
                reply.map(drop).map_err(|status| Box::new(status).into())
            }
            () = self.parts.clock.sleep(within) => Err(CallError::Late(within)),
        }
    }

    /// Fetches an artifact from one peer; none when that does not have it.
    pub(super) async fn receive(
        &self,
        from: &Candidate,
        digest: Digest,
    ) -> Result<Option<Bytes>, CallError> {
        let mut peer = self.parts.lines.peer(&from.address, Purpose::Artifact)?;
        let cluster = self.settings.cluster.clone();
        let digest_bytes = Bytes::copy_from_slice(&digest.0);
        let request = FetchArtifactRequest { digest: digest_bytes, cluster };
        let fetched = async {
            let head = tokio::select! {
                biased;
                head = peer.get_artifact(request) => head,
                () = self.parts.clock.sleep(self.settings.call) => {
                    return Err(CallError::Late(self.settings.call));
                }
            };
            let mut chunks = match head {
                Ok(reply) => reply.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(CallError::from(Box::new(status))),
            };
            let mut bytes = BytesMut::new();
            loop {
                // Each chunk has its own time: an artifact's length is not known beforehand.
                let within = self.patience(CHUNK_BYTES);
                let chunk = tokio::select! {
                    biased;
                    chunk = chunks.message() => chunk.map_err(Box::new)?,
                    () = self.parts.clock.sleep(within) => return Err(CallError::Late(within)),
                };
                let Some(chunk) = chunk else { return Ok(Some(bytes.freeze())) };
                if bytes.len() + chunk.data.len() > ARTIFACT_BYTES_MAX {
                    return Err(CallError::TooLarge);
                }
                bytes.extend_from_slice(&chunk.data);
            }
        };
        // The whole has the time of the largest artifact.
        let within = self.patience(ARTIFACT_BYTES_MAX);
        let bytes = tokio::select! {
            biased;
            bytes = fetched => bytes?,
            () = self.parts.clock.sleep(within) => return Err(CallError::Late(within)),
        };
        let Some(bytes) = bytes else { return Ok(None) };
        if digest_of(&bytes).await == digest { Ok(Some(bytes)) } else { Err(CallError::Corrupt) }
    }

    fn patience(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).expect("a usize fits");
        self.settings.call + Duration::from_secs(bytes / self.settings.bytes_per_second)
    }
}
