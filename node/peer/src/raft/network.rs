//! What this node says to the others: openraft's network over tonic.
//!
//! Three connections go to each peer: votes and heartbeats, entries, snapshots. So a snapshot or a follower that
//! stalls never holds up a heartbeat. Every call has a deadline. A peer that does not answer is `Unreachable`, which
//! makes openraft wait before it tries again; every other failure is `Network`, tried again at once.
//!
//! Entries travel on one long stream for each follower. A task of its own takes them from openraft and stops with
//! the replies, since openraft shares what the request stream holds with the stream that comes after it.

use super::codec::{self, DecodeError, SnapshotHead, Target};
use super::disk::{self, Disks};
use super::snapshots::SnapshotData;
use super::types::{Snapshot, TypeConfig, Vote};
use crate::ports::{Dial, Line, Purpose};
use crate::tasks;
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::raft_client::RaftClient;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};

/// Bytes of one message, in both directions and on both sides. An append carries some 4 MiB.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends between openraft and the connection. Filled by replication; at the bound replication waits.
const APPENDS_WAITING_MAX: usize = 4;
/// The longest time from an append to its reply, a slow disk included.
const APPEND_REPLY_MS: u64 = 5_000;
/// The longest time to open the stream of appends.
const APPEND_OPEN_MS: u64 = 2_000;
/// Lines that are kept. Filled by members that come and go; at the bound all are dropped and made anew.
const LINES_MAX: usize = 256;

/// Makes the connections to peers, and keeps the lines for those that openraft makes later.
pub(super) struct NetworkFactory {
    cluster: String,
    dial: Arc<dyn Dial>,
    disks: Disks,
    lines: BTreeMap<(String, Purpose), Line>,
}

/// One peer. Votes go over the connection of heartbeats, whatever else this one is for.
pub(super) struct Network {
    target: Target,
    // A node with another disk than this one refuses. It may be promoted, and so learned, after this was made.
    disks: Disks,
    heartbeats: bool,
    client: Client,
    election: Client,
}

type Client = Result<RaftClient<Line>, String>;

impl NetworkFactory {
    pub(super) fn new(cluster: String, dial: Arc<dyn Dial>, disks: Disks) -> NetworkFactory {
        NetworkFactory { cluster, dial, disks, lines: BTreeMap::new() }
    }

    fn network(&mut self, to: u64, member: &str, purpose: Purpose) -> Network {
        let address = disk::address_of(member);
        self.disks.learn(to, disk::disk_of(member));
        Network {
            target: Target { cluster: self.cluster.clone(), to },
            disks: self.disks.clone(),
            heartbeats: purpose == Purpose::Election,
            client: self.client(address, purpose),
            election: self.client(address, Purpose::Election),
        }
    }

    fn client(&mut self, address: &str, purpose: Purpose) -> Client {
        let client = RaftClient::new(self.line(address, purpose)?);
        Ok(client
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn line(&mut self, address: &str, purpose: Purpose) -> Result<Line, String> {
        let key = (address.to_owned(), purpose);
        if let Some(line) = self.lines.get(&key) {
            return Ok(line.clone());
        }
        let line = self.dial.line(address, purpose).map_err(|error| error.to_string())?;
        if self.lines.len() >= LINES_MAX {
            self.lines.clear();
        }
        self.lines.insert(key, line.clone());
        Ok(line)
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &String) -> Network {
        self.network(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &String) -> Network {
        self.network(target, node, Purpose::Election)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &String) -> Network {
        self.network(target, node, Purpose::Snapshot)
    }
}

impl Network {
    fn meant<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        disk::mean(&mut request, self.disks.of(self.target.to));
        request
    }

    /// Puts the deadline on the wire too, so that the peer gives up with us.
    fn timed<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = self.meant(message);
        request.set_timeout(deadline);
        request
    }

    async fn heartbeat(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = reachable(&self.client)?;
        let request = codec::append_request_to_proto(&self.target, request);
        let reply =
            within(deadline, |deadline| client.heartbeat(self.timed(request, deadline))).await?;
        codec::append_reply_from_proto(reply.into_inner()).map_err(undecodable)
    }

    async fn append<S>(
        &mut self,
        mut input: S,
    ) -> Result<BoxStream<'static, AppendItem>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut client = reachable(&self.client)?;
        // openraft waits inside its stream of requests after a failure. Without asking it first, a peer that
        // refuses connections would be called again at once, for ever.
        let Some(first) = input.next().await else { return Ok(Box::pin(stream::empty())) };
        let (sender, receiver) = mpsc::channel(APPENDS_WAITING_MAX);
        let (target, sent) = (self.target.clone(), Arc::new(AtomicU64::new(0)));
        let counter = sent.clone();
        let pump = AbortOnDropHandle::new(tasks::spawn(async move {
            let mut input = stream::iter([first]).chain(input);
            while let Some(request) = input.next().await {
                counter.fetch_add(1, Ordering::Relaxed);
                if sender.send(codec::append_request_to_proto(&target, &request)).await.is_err() {
                    break;
                }
            }
        }));
        let deadline = Duration::from_millis(APPEND_OPEN_MS);
        let requests = self.meant(ReceiverStream::new(receiver));
        let replies = within(deadline, |_| client.append(requests)).await?.into_inner();
        Ok(Box::pin(Replies { replies, sent, received: 0, _pump: pump }.into_stream()))
    }

    async fn vote_call(
        &self,
        request: &VoteRequest<TypeConfig>,
        option: &RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = reachable(&self.election)?;
        let request = codec::vote_request_to_proto(&self.target, request);
        let reply = within(option.hard_ttl(), |deadline| async move {
            let request = self.timed(request, deadline);
            if pre_vote { client.pre_vote(request).await } else { client.vote(request).await }
        });
        codec::vote_reply_from_proto(reply.await?.into_inner()).map_err(undecodable)
    }
}

type AppendItem = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// The replies to a stream of appends. Dropping them stops the requests.
struct Replies {
    replies: tonic::Streaming<pb::AppendReply>,
    sent: Arc<AtomicU64>,
    received: u64,
    _pump: AbortOnDropHandle<()>,
}

impl Replies {
    /// Gives the replies, and ends after the first that is not a success.
    fn into_stream(self) -> impl Stream<Item = AppendItem> {
        stream::unfold(Some(self), |this| async move {
            let mut this = this?;
            let item = this.next().await?;
            let goes_on = matches!(item, Ok(Ok(_)));
            Some((item, goes_on.then_some(this)))
        })
    }

    async fn next(&mut self) -> Option<AppendItem> {
        let wait = Duration::from_millis(APPEND_REPLY_MS);
        let reply = loop {
            match tokio::time::timeout(wait, self.replies.message()).await {
                Ok(reply) => break reply,
                // Nothing is asked, so no reply is late.
                Err(_) if self.sent.load(Ordering::Relaxed) == self.received => {}
                Err(_) => {
                    let reason = format!("no reply to an append within {APPEND_REPLY_MS} ms");
                    return Some(Err(NetworkError::from_string(reason).into()));
                }
            }
        };
        self.received += 1;
        match reply {
            Ok(Some(reply)) => Some(codec::append_reply_from_proto(reply).map_err(undecodable)),
            Ok(None) => None,
            Err(status) => Some(Err(status_error(&status))),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let result = self.heartbeat(&request, option.hard_ttl()).await?;
        Ok(match result {
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendItem>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if !self.heartbeats {
                let replies: BoxStream<'s, AppendItem> = self.append(input).await?;
                return Ok(replies);
            }
            // openraft sends one heartbeat a stream.
            let Some(request) = input.next().await else {
                let none: BoxStream<'s, AppendItem> = Box::pin(stream::empty());
                return Ok(none);
            };
            let reply = self.heartbeat(&request, option.hard_ttl()).await?;
            let one: BoxStream<'s, AppendItem> = Box::pin(stream::iter([Ok(reply)]));
            Ok(one)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(&request, &option, false).await
    }

    // A failure must stay one: openraft counts only what the peer itself grants, and the default of this method
    // grants without asking.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote_call(&request, &option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = reachable(&self.client)?;
        let data = snapshot.snapshot;
        let head = SnapshotHead { vote, meta: snapshot.meta, bytes: data.len() };
        let head = codec::snapshot_head_to_proto(&self.target, &head);
        // Nothing is read before there is a connection: a peer that is gone for good is asked again and again.
        let chunks = self.meant(Chunks { head: Some(head), parts: data.parts() });
        let call = within(option.hard_ttl(), |_| client.install_snapshot(chunks));
        let reply = tokio::select! {
            reply = call => reply?.into_inner(),
            closed = cancel => return Err(closed.into()),
        };
        let vote = reply.vote.ok_or_else(|| NetworkError::from_string("a reply without a vote"))?;
        Ok(SnapshotResponse::new(codec::vote_from_proto(vote)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = reachable(&self.election)?;
        let request = codec::transfer_request_to_proto(&self.target, &request);
        within(option.hard_ttl(), |deadline| client.transfer_leader(self.timed(request, deadline)))
            .await?;
        Ok(Ok(()))
    }
}

/// A snapshot as it goes over the wire: its head, then its bytes.
struct Chunks {
    head: Option<pb::SnapshotChunk>,
    parts: futures_util::stream::BoxStream<'static, Bytes>,
}

impl Stream for Chunks {
    type Item = pb::SnapshotChunk;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<pb::SnapshotChunk>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(head));
        }
        let chunk = |data| pb::SnapshotChunk { data, ..pb::SnapshotChunk::default() };
        self.parts.poll_next_unpin(context).map(|data| data.map(chunk))
    }
}

fn reachable(client: &Client) -> Result<RaftClient<Line>, RPCError<TypeConfig>> {
    client.clone().map_err(|reason| Unreachable::from_string(reason).into())
}

async fn within<T, F>(
    deadline: Duration,
    call: impl FnOnce(Duration) -> F,
) -> Result<T, RPCError<TypeConfig>>
where
    F: Future<Output = Result<T, Status>>,
{
    match tokio::time::timeout(deadline, call(deadline)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(status)) => Err(status_error(&status)),
        Err(_) => Err(NetworkError::from_string(format!("no answer within {deadline:?}")).into()),
    }
}

fn status_error(status: &Status) -> RPCError<TypeConfig> {
    match status.code() {
        // Who refuses us will do so for a while: a node with another disk, or of another cluster.
        Code::Unavailable | Code::FailedPrecondition => {
            Unreachable::new(&AnyError::error(status)).into()
        }
        _ => NetworkError::new(&AnyError::error(status)).into(),
    }
}

fn undecodable(error: DecodeError) -> RPCError<TypeConfig> {
    NetworkError::new(&error).into()
}
