//! Checkpoints on the way between peers: one message each, with a digest that whoever receives it
//! checks.

use super::{Checkpoint, Checkpoints};
use crate::artifacts::digest_of;
use crate::ports::engine::Point;
use crate::ports::{DialError, Purpose};
use atelier_proto::peer::v1 as pb;
use atelier_state::job::{ArtifactRef, Digest, JobId};
use atelier_state::lease::FencingToken;
use atelier_state::limits::{ARTIFACTS_MAX, HOLDERS_MAX, TEXT_BYTES_MAX};
use atelier_state::roster::NodeId;
use bytes::Bytes;
use std::time::Duration;
use tonic::Status;

/// Bytes of the latents of one checkpoint: twice what the largest picture has.
const LATENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one message between peers: the largest is a checkpoint.
pub const MESSAGE_BYTES_MAX: usize = LATENT_BYTES_MAX + 64 * 1024;

/// Why a message is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A part is not as it must be.
    #[error("checkpoint: {0}")]
    Malformed(String),
    /// It was damaged on its way, or where it lay.
    #[error("checkpoint has another digest than it says")]
    Digest,
}

/// Why a peer could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(#[from] Box<Status>),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Message(#[from] CheckpointError),
}

impl Checkpoints {
    /// Makes the message of a checkpoint.
    pub async fn message(&self, checkpoint: &Checkpoint) -> pb::Checkpoint {
        let Checkpoint { job, token, class, order, point, pictures } = checkpoint.clone();
        let Point { image, step, latents } = point;
        let message = pb::Checkpoint {
            job: Bytes::copy_from_slice(&job.to_bytes()),
            token: token.0,
            class,
            order: Bytes::copy_from_slice(&order.0),
            image,
            step,
            latents,
            pictures: pictures.iter().map(artifact_to_wire).collect(),
            digest: Bytes::new(),
        };
        let digest = Bytes::copy_from_slice(&digest_of_message(&message).await.0);
        pb::Checkpoint { digest, ..message }
    }

    /// Reads a message, and checks everything that can be checked without an engine.
    ///
    /// # Errors
    /// As [`CheckpointError`] tells.
    pub async fn read(&self, message: pb::Checkpoint) -> Result<Checkpoint, CheckpointError> {
        if digest_of_message(&message).await.0 != *message.digest {
            return Err(CheckpointError::Digest);
        }
        let malformed = |what: String| CheckpointError::Malformed(what);
        if message.latents.len() > LATENT_BYTES_MAX || message.class.len() > TEXT_BYTES_MAX {
            let (latents, class) = (message.latents.len(), message.class.len());
            return Err(malformed(format!("{latents} bytes of latents, {class} of class")));
        }
        if message.pictures.len() != message.image as usize
            || message.image as usize > ARTIFACTS_MAX
        {
            let (pictures, image) = (message.pictures.len(), message.image);
            return Err(malformed(format!("{pictures} pictures before image {image}")));
        }
        let job = <[u8; 16]>::try_from(&message.job[..])
            .map_err(|_| malformed("its job id has not 16 bytes".to_owned()))?;
        let point = Point { image: message.image, step: message.step, latents: message.latents };
        let pictures = message.pictures.into_iter().map(artifact_from_wire);
        Ok(Checkpoint {
            job: JobId::from_bytes(job),
            token: FencingToken(message.token),
            class: message.class,
            order: digest_from_wire(&message.order)?,
            point,
            pictures: pictures.collect::<Result<_, _>>()?,
        })
    }

    /// Sends a checkpoint to one peer, which holds it when this returns.
    pub(super) async fn offer(
        &self,
        address: &str,
        checkpoint: pb::Checkpoint,
    ) -> Result<(), CallError> {
        let mut peer = self.parts.lines.peer(address, Purpose::Artifact)?;
        let within = self.patience(checkpoint.latents.len());
        let cluster = self.settings.cluster.clone();
        let request = pb::PutCheckpointRequest { cluster, checkpoint: Some(checkpoint) };
        tokio::select! {
            biased;
            reply = peer.put_checkpoint(request) => {
                reply.map(drop).map_err(|status| Box::new(status).into())
            }
            () = self.parts.clock.sleep(within) => Err(CallError::Late(within)),
        }
    }

    /// Asks one peer for its checkpoint of a job; whoever calls bounds the time.
    pub(super) async fn fetch(
        &self,
        address: &str,
        job: JobId,
    ) -> Result<Option<Checkpoint>, CallError> {
        let mut peer = self.parts.lines.peer(address, Purpose::Artifact)?;
        let cluster = self.settings.cluster.clone();
        let job = Bytes::copy_from_slice(&job.to_bytes());
        let request = pb::FetchCheckpointRequest { cluster, job };
        let reply = peer.fetch_checkpoint(request).await.map_err(Box::new)?;
        match reply.into_inner().checkpoint {
            Some(message) => Ok(Some(self.read(message).await?)),
            None => Ok(None),
        }
    }

    fn patience(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).expect("a usize fits");
        self.settings.call + Duration::from_millis(bytes * 1000 / self.settings.bytes_per_second)
    }
}

/// Hashes every field but the digest itself, each after its length.
async fn digest_of_message(message: &pb::Checkpoint) -> Digest {
    let pb::Checkpoint { job, token, class, order, image, step, latents, pictures, digest: _ } =
        message;
    let mut hasher = blake3::Hasher::new();
    let mut take = |part: &[u8]| {
        hasher.update(&u64::try_from(part.len()).expect("a usize fits").to_le_bytes());
        hasher.update(part);
    };
    take(job);
    take(&token.to_le_bytes());
    take(class.as_bytes());
    take(order);
    take(&image.to_le_bytes());
    take(&step.to_le_bytes());
    take(&digest_of(latents).await.0);
    for picture in pictures {
        take(&picture.digest);
        take(&picture.bytes.to_le_bytes());
        take(picture.media_type.as_bytes());
        picture.holders.iter().for_each(|holder| take(&holder.to_le_bytes()));
    }
    Digest(*hasher.finalize().as_bytes())
}

fn artifact_to_wire(artifact: &ArtifactRef) -> pb::ArtifactRef {
    pb::ArtifactRef {
        digest: Bytes::copy_from_slice(&artifact.digest.0),
        bytes: artifact.bytes,
        media_type: artifact.media_type.clone(),
        holders: artifact.holders.iter().map(|node| node.0).collect(),
    }
}

fn artifact_from_wire(artifact: pb::ArtifactRef) -> Result<ArtifactRef, CheckpointError> {
    let pb::ArtifactRef { digest, bytes, media_type, holders } = artifact;
    if holders.len() > HOLDERS_MAX || media_type.len() > TEXT_BYTES_MAX {
        let (holders, type_bytes) = (holders.len(), media_type.len());
        let text = format!("a picture with {holders} holders and {type_bytes} bytes of type");
        return Err(CheckpointError::Malformed(text));
    }
    let digest = digest_from_wire(&digest)?;
    Ok(ArtifactRef {
        digest,
        bytes,
        media_type,
        holders: holders.into_iter().map(NodeId).collect(),
    })
}

fn digest_from_wire(bytes: &[u8]) -> Result<Digest, CheckpointError> {
    let got = bytes.len();
    let bytes = bytes.try_into().map_err(|_| {
        CheckpointError::Malformed(format!("a digest of it has {got} bytes, expected 32"))
    })?;
    Ok(Digest(bytes))
}
