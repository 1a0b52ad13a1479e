//! What the others say to this node: the gRPC service in front of openraft.
//!
//! Each request names the cluster and the node that it is meant for. One that reached the wrong node is refused:
//! a vote that another node gave in its place could elect two leaders.

use super::codec::{self, DecodeError, SnapshotHead};
use super::disk::OwnDisk;
use super::network::MESSAGE_BYTES_MAX;
use super::snapshots::{Received, SnapshotData};
use super::status::Heard;
use super::types::{Raft, Snapshot, TypeConfig};
use crate::tasks;
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::raft_server::{self, RaftServer};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of the largest snapshot that is accepted; a larger one is refused. Filled by jobs that are remembered.
const SNAPSHOT_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// The longest time between two messages of a snapshot.
const SNAPSHOT_IDLE_MS: u64 = 30_000;

/// Answers the other peers.
pub struct RaftService {
    raft: Raft,
    cluster: String,
    disk: OwnDisk,
    heard: Heard,
}

impl RaftService {
    pub(super) fn server(
        raft: Raft,
        cluster: String,
        disk: OwnDisk,
        heard: Heard,
    ) -> RaftServer<RaftService> {
        RaftServer::new(RaftService { raft, cluster, disk, heard })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn check_target(&self, cluster: &str, to: u64) -> Result<(), Status> {
        self.check_cluster(cluster)?;
        check_node(self.disk.node, to)
    }

    fn check_disk(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.disk.check(metadata, || self.is_blank())
    }

    /// Whether this node has never held an entry, be it of a log that a snapshot has taken the place of.
    fn is_blank(&self) -> bool {
        self.raft.metrics().borrow_watched().last_log_index.is_none()
    }

    fn check_cluster(&self, cluster: &str) -> Result<(), Status> {
        check_cluster(&self.cluster, cluster)
    }
}

fn check_cluster(own: &str, cluster: &str) -> Result<(), Status> {
    if cluster != own {
        let reason = format!("the request is for cluster `{cluster}`, this node is of `{own}`");
        return Err(Status::failed_precondition(reason));
    }
    Ok(())
}

fn check_node(own: u64, to: u64) -> Result<(), Status> {
    if to != own {
        let reason = format!("the request is for node {to}, this is node {own}");
        return Err(Status::failed_precondition(reason));
    }
    Ok(())
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.check_disk(request.metadata())?;
        let request = request.into_inner();
        self.check_target(&request.cluster, request.to)?;
        let request = codec::vote_request_from_proto(request).map_err(invalid)?;
        let reply = self.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(codec::vote_reply_to_proto(&reply)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        self.check_disk(request.metadata())?;
        let request = request.into_inner();
        self.check_target(&request.cluster, request.to)?;
        let request = codec::vote_request_from_proto(request).map_err(invalid)?;
        let reply = self.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(codec::vote_reply_to_proto(&reply)))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.check_disk(request.metadata())?;
        let refusal = Arc::new(Mutex::new(None));
        let requests =
            accepted(request.into_inner(), (self.cluster.clone(), self.disk.node), refusal.clone());
        let replies = self.raft.stream_append(requests).map(|reply| match reply {
            Ok(result) => Ok(codec::append_reply_to_proto(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        // The stream of requests ends at the first that is refused; the last word says why.
        let last = stream::once(async move {
            refusal.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err)
        });
        let replies = replies.chain(last.filter_map(std::future::ready));
        Ok(Response::new(replies.boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        self.check_disk(request.metadata())?;
        let request = request.into_inner();
        self.check_target(&request.cluster, request.to)?;
        let request = codec::append_request_from_proto(request).map_err(invalid)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let committed = request.leader_commit.map_or(0, |id| id.index());
        let reply = self.raft.append_entries(request).await.map_err(stopped)?;
        if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
            self.heard.now(committed);
        }
        let result = match reply {
            AppendEntriesResponse::Success => Ok(last),
            AppendEntriesResponse::PartialSuccess(matched) => Ok(matched),
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            AppendEntriesResponse::Conflict => {
                let prev =
                    prev.ok_or_else(|| Status::internal("nothing conflicts with nothing"))?;
                // openraft's leader names here what this node has acknowledged to it as being on its disk.
                let held = self.raft.metrics().borrow_watched().last_log_index;
                self.disk.went_back(prev.index(), held.unwrap_or(0));
                Err(StreamAppendError::Conflict(prev))
            }
        };
        Ok(Response::new(codec::append_reply_to_proto(&result)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        self.check_disk(request.metadata())?;
        let mut chunks = request.into_inner();
        let head = next_chunk(&mut chunks).await?;
        let head = head.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))?;
        self.check_target(&head.cluster, head.to)?;
        let head = codec::snapshot_head_from_proto(head).map_err(invalid)?;
        let data = receive(&head, &mut chunks).await?;
        let snapshot = SnapshotData::Received(Box::new(check_snapshot(data).await?));
        let snapshot = Snapshot { meta: head.meta, snapshot };
        let reply = self.raft.install_full_snapshot(head.vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::SnapshotReply { vote: Some(codec::vote_to_proto(&reply.vote)) }))
    }

    async fn disk(
        &self,
        request: Request<pb::DiskRequest>,
    ) -> Result<Response<pb::DiskReply>, Status> {
        let request = request.into_inner();
        self.check_target(&request.cluster, request.to)?;
        let blank = !self.raft.is_initialized().await.map_err(stopped)?;
        Ok(Response::new(pb::DiskReply {
            disk: Bytes::copy_from_slice(self.disk.id.as_bytes()),
            blank,
        }))
    }

    // It goes to every voter: one takes over, the others stop waiting for the old leader's lease.
    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        self.check_disk(request.metadata())?;
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        let request = codec::transfer_request_from_proto(request).map_err(invalid)?;
        let outcome = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        outcome.map_err(|refused| Status::aborted(refused.to_string()))?;
        Ok(Response::new(pb::TransferLeaderReply {}))
    }
}

/// Gives the requests up to the first that is not for this node or cannot be read, and notes why that one is refused.
fn accepted(
    requests: Streaming<pb::AppendRequest>,
    (cluster, node): (String, u64),
    refusal: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    let check = move |request: pb::AppendRequest| {
        check_cluster(&cluster, &request.cluster)?;
        check_node(node, request.to)?;
        codec::append_request_from_proto(request).map_err(invalid)
    };
    requests.map(move |request| request.and_then(&check)).scan((), move |(), request| {
        let request = request.map_err(|status: Status| {
            tracing::debug!(%status, "a stream of appends ends");
            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        });
        std::future::ready(request.ok())
    })
}

async fn receive(
    head: &SnapshotHead,
    chunks: &mut Streaming<pb::SnapshotChunk>,
) -> Result<Bytes, Status> {
    if head.bytes > SNAPSHOT_BYTES_MAX {
        let reason = format!("{} bytes of snapshot, more than {SNAPSHOT_BYTES_MAX}", head.bytes);
        return Err(Status::resource_exhausted(reason));
    }
    let mut data = BytesMut::with_capacity(head.bytes as usize);
    while let Some(chunk) = next_chunk(chunks).await? {
        if data.len() as u64 + chunk.data.len() as u64 > head.bytes {
            return Err(Status::invalid_argument("more bytes of snapshot than announced"));
        }
        data.put(chunk.data);
    }
    if data.len() as u64 != head.bytes {
        let reason =
            format!("{} bytes of snapshot where {} were announced", data.len(), head.bytes);
        return Err(Status::invalid_argument(reason));
    }
    Ok(data.freeze())
}

/// Refuses a snapshot that cannot be installed: one that fails to be would stop the node.
async fn check_snapshot(data: Bytes) -> Result<Received, Status> {
    let check = move || Received::decode(data).map_err(invalid);
    let checked = tasks::blocking(check).await;
    checked.unwrap_or_else(|error| Err(Status::internal(error.to_string())))
}

async fn next_chunk(
    chunks: &mut Streaming<pb::SnapshotChunk>,
) -> Result<Option<pb::SnapshotChunk>, Status> {
    let wait = Duration::from_millis(SNAPSHOT_IDLE_MS);
    tokio::time::timeout(wait, chunks.message())
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the snapshot stopped coming")))
}

fn invalid(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this node takes no part any more: {error}"))
}
