//! Fetches artifacts, and gives out only bytes that are what their name says; sends pictures to begin from.

use atelier_proto::client::v1 as wire;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, timeout};
use tonic::{Request, Status};

use crate::budget::{Budget, Class, Failure, Kind};
use crate::choice::Wish;
use crate::client::Client;
use crate::convert;
use crate::error::{ArtifactError, Error};
use crate::pool::Endpoint;
use crate::types::Artifact;

/// Bytes of one message of a picture that is sent.
const CHUNK_BYTES: usize = 256 * 1024;

/// What one endpoint gave.
enum Got {
    Bytes(Vec<u8>),
    /// Not what was asked for; another endpoint may have a sound copy.
    Unsound(ArtifactError),
    Failure(Failure),
}

impl Client {
    /// Fetches an artifact from whichever peer has it, and checks its length and BLAKE3 digest.
    ///
    /// A peer without it, with a damaged copy or with a failing disk makes the others be asked.
    ///
    /// # Errors
    /// - [`ArtifactError::Digest`], [`ArtifactError::Length`]: no peer has a sound copy.
    /// - [`ArtifactError::Call`] with [`crate::Error::NotFound`]: no peer has it, or not any more.
    /// - [`ArtifactError::Call`] with another: as for any read.
    ///
    /// # Cancel safety
    /// Changes nothing; what came is thrown away.
    pub async fn artifact(&self, wanted: &Artifact) -> Result<Vec<u8>, ArtifactError> {
        let mut budget = Budget::new(Kind::Read, self.options(), Instant::now());
        let mut endpoint = self.pool().choose(Wish::Any, Instant::now());
        let mut refused: Vec<String> = Vec::new();
        loop {
            let refusal = match self.fetch_once(&budget, &endpoint, wanted).await {
                Got::Bytes(bytes) => return Ok(bytes),
                Got::Unsound(error) => error,
                Got::Failure(failure) if failure.class == Class::Final => {
                    ArtifactError::Call(failure.into_error())
                }
                Got::Failure(failure) => {
                    endpoint = self.go_on(&mut budget, failure, endpoint).await?;
                    continue;
                }
            };
            // Each endpoint may refuse once: a copy is not mended by asking for it again.
            refused.push(endpoint.address);
            let all = self.pool().endpoints();
            match all.into_iter().find(|other| !refused.contains(&other.address)) {
                Some(other) => endpoint = other,
                None => return Err(refusal),
            }
        }
    }

    /// Sends a picture that jobs may begin from, and names it: a PNG, JPEG or WebP of at most 64 MiB and 4,096 pixels a
    /// side. It is kept, as a PNG, as long as a job names it, and for ten minutes where none does.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: it is no such picture.
    /// - [`Error::Unavailable`] and [`Error::UnknownChange`]: send it again; it is kept once.
    ///
    /// # Cancel safety
    /// When dropped it may be kept for ten minutes.
    pub async fn put_artifact(&self, picture: impl Into<Bytes>) -> Result<Artifact, Error> {
        let mut rest: Bytes = picture.into();
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(CHUNK_BYTES));
            chunks.push(wire::ArtifactChunk { data });
        }
        let reply = self
            .call(Kind::Repeatable("send the picture"), chunks, |mut rpc, request| async move {
                rpc.put_artifact(request.map(stream::iter)).await
            })
            .await?;
        convert::artifact(reply)
    }

    async fn fetch_once(&self, budget: &Budget, endpoint: &Endpoint, wanted: &Artifact) -> Got {
        match self.stream(budget, endpoint, wanted).await {
            Ok(bytes) => check(bytes, endpoint, wanted),
            Err(failure) => Got::Failure(failure),
        }
    }

    /// Reads at most one byte more than is wanted: enough to know that it is too long.
    async fn stream(
        &self,
        budget: &Budget,
        endpoint: &Endpoint,
        wanted: &Artifact,
    ) -> Result<Vec<u8>, Failure> {
        let address = endpoint.address.as_str();
        let failed = |status: Status| Failure::new(address, &status);
        let late = || Failure::timeout(address, self.options().attempt_timeout);
        let mut request = Request::new(wire::GetArtifactRequest { digest: wanted.digest.clone() });
        request.set_timeout(budget.left(Instant::now()));
        let _under_way = self.pool().begin(address);
        let mut rpc = Self::rpc(endpoint);
        let opened = timeout(budget.attempt(Instant::now()), rpc.get_artifact(request)).await;
        let mut chunks = opened.map_err(|_| late())?.map_err(failed)?.into_inner();
        let mut bytes = Vec::new();
        loop {
            let next = timeout(budget.attempt(Instant::now()), chunks.message()).await;
            let Some(chunk) = next.map_err(|_| late())?.map_err(failed)? else { break };
            bytes.extend_from_slice(&chunk.data);
            if bytes.len() as u64 > wanted.bytes {
                break;
            }
        }
        Ok(bytes)
    }
}

fn check(bytes: Vec<u8>, endpoint: &Endpoint, wanted: &Artifact) -> Got {
    let address = endpoint.address.clone();
    let digest = wanted.digest.clone();
    if bytes.len() as u64 != wanted.bytes {
        let (expected, got) = (wanted.bytes, bytes.len() as u64);
        return Got::Unsound(ArtifactError::Length { digest, expected, got, address });
    }
    let got = blake3::hash(&bytes).to_hex().to_string();
    if got != digest {
        return Got::Unsound(ArtifactError::Digest { digest, got, address });
    }
    Got::Bytes(bytes)
}
