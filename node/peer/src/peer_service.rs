//! What this peer answers to other peers: the tonic service `Peer`.
//!
//! Owns the rim: names are checked, messages are read and written, and the rest is handed on. Every
//! request names its cluster, so that a peer of another one that dials a wrong address does no
//! harm. Only the leader takes proposals, beats, changes of membership and questions for its
//! opinion; others answer FAILED_PRECONDITION with the leader's address in the metadata
//! `atelier-leader`.

use crate::artifacts::{ARTIFACT_BYTES_MAX, Artifacts, KeepError, chunks_of};
use crate::checkpoints::{Checkpoints, MESSAGE_BYTES_MAX};
use crate::liveness::{BEAT_LEASES_MAX, Beat, LivenessTable};
use crate::ports::members::{Members, MembersError};
use crate::ports::{Clock, Log, ProposeError, RaftStatus};
use crate::progress::{ProgressBoard, step_to_wire};
use crate::raft::codec::{command_from_proto, reply_to_proto};
use crate::view::View;
use atelier_proto::peer::v1::change_members_request::Change;
use atelier_proto::peer::v1::peer_server::{Peer, PeerServer};
use atelier_proto::peer::v1::{
    BeatReply, BeatRequest, ChangeMembersReply, ChangeMembersRequest, FetchArtifactChunk,
    FetchArtifactRequest, FetchCheckpointReply, FetchCheckpointRequest, GreetReply, GreetRequest,
    JoinReply, JoinRequest, LivenessReply, LivenessRequest, PeerLiveness, ProgressReply,
    ProposeReply, ProposeRequest, PutArtifactChunk, PutArtifactReply, PutCheckpointReply,
    PutCheckpointRequest, RunningLease, WatchProgressRequest,
};
use atelier_state::LogIndex;
use atelier_state::job::{Digest, JobId};
use atelier_state::lease::FencingToken;
use atelier_state::limits::{self, ENTRY_COMMANDS_MAX};
use atelier_state::roster::NodeId;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Code, Request, Response, Status, Streaming};

/// Metadata that names the leader's address.
pub const LEADER_METADATA: &str = "atelier-leader";
/// Proposals of other peers under way. Filled while the log is slow; at the brim
/// RESOURCE_EXHAUSTED, and the other peer tries again.
const PROPOSALS_IN_FLIGHT_MAX: usize = 256;
/// Artifacts that arrive at a time, each held in memory. At the brim RESOURCE_EXHAUSTED, and the
/// other peer asks somebody else.
const ARRIVALS_MAX: usize = 8;
/// Artifacts that leave at a time, each held in memory. At the brim RESOURCE_EXHAUSTED.
const DEPARTURES_MAX: usize = 16;
/// For the next chunk of an arriving artifact.
const CHUNK_WAIT: Duration = Duration::from_secs(10);

/// What the service hands on to.
#[derive(Clone)]
pub struct PeerServiceParts {
    /// Name of this cluster.
    pub cluster: String,
    /// Takes proposals.
    pub log: Arc<dyn Log>,
    /// Takes changes of membership.
    pub members: Arc<dyn Members>,
    /// Takes beats.
    pub liveness: Arc<LivenessTable>,
    /// Knows the steps of what runs here.
    pub board: Arc<ProgressBoard>,
    /// Keeps artifacts.
    pub artifacts: Arc<Artifacts>,
    /// Holds checkpoints.
    pub checkpoints: Arc<Checkpoints>,
    /// Lets newcomers in; none where there is no token.
    pub door: Option<Arc<dyn Door>>,
    /// Tells when a beat came.
    pub clock: Arc<dyn Clock>,
}

/// Lets newcomers into the cluster.
pub trait Door: Send + Sync + 'static {
    /// Adds a peer as a learner, if it has the cluster's token, and answers its id.
    ///
    /// # Errors
    /// UNAUTHENTICATED for another token; else as adding a member.
    fn let_in<'a>(
        &'a self,
        token: &'a str,
        address: &'a str,
    ) -> BoxFuture<'a, Result<NodeId, Status>>;
}

/// The service. Mount it with [`PeerService::server`].
pub struct PeerService {
    parts: PeerServiceParts,
    proposals: Semaphore,
    arrivals: Semaphore,
    departures: Arc<Semaphore>,
}

impl PeerService {
    /// Makes the service.
    pub fn new(parts: PeerServiceParts) -> PeerService {
        PeerService {
            parts,
            proposals: Semaphore::new(PROPOSALS_IN_FLIGHT_MAX),
            arrivals: Semaphore::new(ARRIVALS_MAX),
            departures: Arc::new(Semaphore::new(DEPARTURES_MAX)),
        }
    }

    /// Makes the service ready to be mounted, for messages of the size that peers send.
    pub fn server(self) -> PeerServer<PeerService> {
        PeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn check_cluster(&self, cluster: &str) -> Result<(), Status> {
        if cluster == self.parts.cluster {
            return Ok(());
        }
        // Not FAILED_PRECONDITION: nobody else of this cluster would answer otherwise.
        Err(Status::permission_denied(format!(
            "this peer belongs to cluster {:?}, the request to {cluster:?}",
            self.parts.cluster
        )))
    }

    fn check_leads(&self) -> Result<(), Status> {
        let status = self.parts.log.status();
        let status = status.borrow();
        if status.is_leader { Ok(()) } else { Err(not_leader(leader_of(&status))) }
    }

    async fn collect_chunks(
        &self,
        mut chunks: Streaming<PutArtifactChunk>,
    ) -> Result<(Digest, Bytes), Status> {
        let mut digest = None;
        let mut bytes = BytesMut::new();
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.message() => chunk?,
                () = self.parts.clock.sleep(CHUNK_WAIT) => {
                    return Err(Status::deadline_exceeded("the next chunk did not come in time"));
                }
            };
            let Some(chunk) = chunk else { break };
            if digest.is_none() {
                self.check_cluster(&chunk.cluster)?;
                digest = Some(read_digest(&chunk.digest)?);
            }
            if bytes.len() + chunk.data.len() > ARTIFACT_BYTES_MAX {
                return Err(Status::invalid_argument(format!(
                    "artifact has more than {ARTIFACT_BYTES_MAX} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk.data);
        }
        let digest = digest.ok_or_else(|| Status::invalid_argument("no chunk came"))?;
        Ok((digest, bytes.freeze()))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReply>, Status> {
        let ProposeRequest { cluster, commands } = request.into_inner();
        self.check_cluster(&cluster)?;
        self.check_leads()?;
        if commands.is_empty() || commands.len() > ENTRY_COMMANDS_MAX {
            let got = commands.len();
            return Err(Status::invalid_argument(format!(
                "{got} commands, expected 1 to {ENTRY_COMMANDS_MAX}"
            )));
        }
        let _permit = permit(&self.proposals, "proposals")?;
        let commands: Result<Vec<_>, _> = commands.into_iter().map(command_from_proto).collect();
        let commands = commands.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let proposed = self.parts.log.propose(commands).await.map_err(propose_status)?;
        let replies = proposed.replies.iter().map(reply_to_proto).collect();
        Ok(Response::new(ProposeReply { log_index: proposed.log_index.0, replies }))
    }

    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatReply>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        self.check_leads()?;
        let (clock, liveness) = (&self.parts.clock, &self.parts.liveness);
        liveness.beat(clock.now(), read_beat(request)?);
        let knows = liveness.time().is_agreed();
        Ok(Response::new(BeatReply { wall_ms: if knows { clock.wall_ms() } else { 0 } }))
    }

    type WatchProgressStream = BoxStream<'static, Result<ProgressReply, Status>>;

    async fn watch_progress(
        &self,
        request: Request<WatchProgressRequest>,
    ) -> Result<Response<Self::WatchProgressStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        let (job, token) = (read_job(&request.job)?, FencingToken(request.token));
        let steps = self.parts.board.watch(job, token, request.previews);
        let steps = steps.ok_or_else(|| Status::not_found("this attempt does not run here"))?;
        Ok(Response::new(steps.map(|step| Ok(step_to_wire(step))).boxed()))
    }

    async fn put_artifact(
        &self,
        request: Request<Streaming<PutArtifactChunk>>,
    ) -> Result<Response<PutArtifactReply>, Status> {
        let _permit = permit(&self.arrivals, "arriving artifacts")?;
        let (digest, bytes) = self.collect_chunks(request.into_inner()).await?;
        match self.parts.artifacts.put_as(digest, bytes).await {
            Ok(()) => Ok(Response::new(PutArtifactReply {})),
            Err(error @ (KeepError::TooLarge(_) | KeepError::Digest { .. })) => {
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(error @ KeepError::Shelf(_)) => Err(Status::unavailable(error.to_string())),
        }
    }

    type GetArtifactStream = BoxStream<'static, Result<FetchArtifactChunk, Status>>;

    async fn get_artifact(
        &self,
        request: Request<FetchArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        let digest = read_digest(&request.digest)?;
        let permit = self.departures.clone().try_acquire_owned();
        let permit = permit.map_err(|_| exhausted("departing artifacts"))?;
        let bytes = match self.parts.artifacts.here(digest).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(Status::not_found("this peer does not have the artifact")),
            Err(error) => return Err(Status::data_loss(error.to_string())),
        };
        let chunks = chunks_of(bytes).map(move |data| {
            // The permit lives as long as the bytes.
            let _held = &permit;
            Ok(FetchArtifactChunk { data })
        });
        Ok(Response::new(stream::iter(chunks).boxed()))
    }

    async fn put_checkpoint(
        &self,
        request: Request<PutCheckpointRequest>,
    ) -> Result<Response<PutCheckpointReply>, Status> {
        let PutCheckpointRequest { cluster, checkpoint } = request.into_inner();
        self.check_cluster(&cluster)?;
        let message = checkpoint.ok_or_else(|| Status::invalid_argument("no checkpoint came"))?;
        let read = self.parts.checkpoints.read(message).await;
        let checkpoint = read.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.parts.checkpoints.put(checkpoint);
        Ok(Response::new(PutCheckpointReply {}))
    }

    async fn fetch_checkpoint(
        &self,
        request: Request<FetchCheckpointRequest>,
    ) -> Result<Response<FetchCheckpointReply>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster)?;
        let checkpoint = match self.parts.checkpoints.here(read_job(&request.job)?) {
            Some(checkpoint) => Some(self.parts.checkpoints.message(&checkpoint).await),
            None => None,
        };
        Ok(Response::new(FetchCheckpointReply { checkpoint }))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersReply>, Status> {
        let ChangeMembersRequest { cluster, change } = request.into_inner();
        self.check_cluster(&cluster)?;
        self.check_leads()?;
        let members = &self.parts.members;
        let changed = match change {
            Some(Change::AddLearner(learner)) => {
                members.add_learner(NodeId(learner.node), learner.address).await
            }
            Some(Change::Promote(node)) => members.promote(NodeId(node)).await,
            Some(Change::Remove(node)) => members.remove(NodeId(node)).await,
            Some(Change::Demote(node)) => members.demote(NodeId(node)).await,
            Some(Change::Replace(swap)) => {
                members.replace(NodeId(swap.leaves), NodeId(swap.comes)).await
            }
            Some(Change::TransferLeader(to)) => {
                let avoided = self.parts.log.view().borrow().unfit_to_lead();
                members.transfer((to != 0).then_some(NodeId(to)), avoided).await
            }
            None => return Err(Status::invalid_argument("the change is not known to this peer")),
        };
        match changed {
            Ok(()) => Ok(Response::new(ChangeMembersReply {})),
            Err(MembersError::NotLeader { leader }) => Err(not_leader(leader)),
            Err(error @ MembersError::Behind(_)) => Err(Status::out_of_range(error.to_string())),
            // Not FAILED_PRECONDITION, which would send the caller to another leader.
            Err(error @ MembersError::Refused(_)) => Err(Status::aborted(error.to_string())),
            Err(error @ MembersError::Unknown(_)) => {
                Err(Status::deadline_exceeded(error.to_string()))
            }
        }
    }

    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        let GreetRequest { cluster, node } = request.into_inner();
        let status = self.parts.log.status().borrow().clone();
        let view = self.parts.log.view().borrow().clone();
        let removed = cluster == self.parts.cluster && is_removed(&status, &view, NodeId(node));
        Ok(Response::new(GreetReply {
            removed,
            cluster: self.parts.cluster.clone(),
            node: status.node.0,
            wall_ms: self.parts.clock.own_wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let JoinRequest { token, address } = request.into_inner();
        let Some(door) = &self.parts.door else {
            return Err(Status::failed_precondition(
                "this cluster has no token; set cluster_token on its peers, or use `member add`",
            ));
        };
        let node = door.let_in(&token, &address).await?;
        Ok(Response::new(JoinReply { cluster: self.parts.cluster.clone(), node: node.0 }))
    }

    async fn liveness(
        &self,
        request: Request<LivenessRequest>,
    ) -> Result<Response<LivenessReply>, Status> {
        self.check_cluster(&request.into_inner().cluster)?;
        self.check_leads()?;
        let status = self.parts.log.status().borrow().clone();
        let state = self.parts.log.view().borrow().state.clone();
        let (now, liveness) = (self.parts.clock.now(), self.parts.liveness.get());
        let roster = state.nodes().map(|(node, _)| node);
        let nodes: std::collections::BTreeSet<_> =
            roster.chain(status.addresses.keys().copied()).collect();
        let matched = |node| status.matched.get(&node).copied().unwrap_or(LogIndex(0));
        let peers = nodes.into_iter().map(|node| PeerLiveness {
            node: node.0,
            // A leader that answers is alive, though it may not have heard of itself yet.
            alive: node == status.node || liveness.answers(now, node, matched(node)),
            matched_index: matched(node).0,
            features: match node == status.node {
                true => limits::FEATURES,
                false => liveness.features(now, node).unwrap_or(0),
            },
        });
        Ok(Response::new(LivenessReply { peers: peers.collect() }))
    }
}

/// Makes the status of a peer that does not lead.
pub(crate) fn not_leader(leader: Option<(NodeId, String)>) -> Status {
    let mut status = Status::new(Code::FailedPrecondition, "this peer does not lead");
    if let Some((_, address)) = leader
        && let Ok(address) = address.parse()
    {
        status.metadata_mut().insert(LEADER_METADATA, address);
    }
    status
}

/// Says whether a node was a member of this cluster and is none any more. An id is the index of the entry that gave it,
/// or is in the first membership; the roster holds it until the node is removed.
fn is_removed(status: &RaftStatus, view: &View, node: NodeId) -> bool {
    let knows_members = status.addresses.contains_key(&status.node);
    let was_given = node.0 > 0 && view.applied.0 >= node.0;
    knows_members
        && was_given
        && view.state.node(node).is_none()
        && !status.addresses.contains_key(&node)
}

fn leader_of(status: &RaftStatus) -> Option<(NodeId, String)> {
    // A leader that has not applied its first entry names nobody: it is asked again soon.
    let leader = status.leader.filter(|leader| *leader != status.node)?;
    Some((leader, status.addresses.get(&leader)?.clone()))
}

/// Makes the status of a proposal that failed; the proposer's carrier reads it.
fn propose_status(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { leader } => not_leader(leader),
        ProposeError::Refused(reason) => Status::invalid_argument(reason),
        ProposeError::Unknown(reason) => Status::deadline_exceeded(reason),
        ProposeError::Stopped(reason) => Status::unavailable(reason),
    }
}

fn permit<'a>(semaphore: &'a Semaphore, what: &str) -> Result<SemaphorePermit<'a>, Status> {
    semaphore.try_acquire().map_err(|_| exhausted(what))
}

fn exhausted(what: &str) -> Status {
    Status::resource_exhausted(format!("too many {what} at a time; try again later"))
}

fn read_beat(request: BeatRequest) -> Result<Beat, Status> {
    let BeatRequest { cluster: _, node, incarnation, running, features, wall_ms } = request;
    if running.len() > BEAT_LEASES_MAX {
        let got = running.len();
        return Err(Status::invalid_argument(format!(
            "{got} leases, at most {BEAT_LEASES_MAX} are allowed"
        )));
    }
    let lease = |lease: RunningLease| Ok((read_job(&lease.job)?, FencingToken(lease.token)));
    let running = running.into_iter().map(lease).collect::<Result<_, Status>>()?;
    // One that says nothing is of the time before there were levels.
    let features = features.max(limits::FEATURES_FIRST);
    Ok(Beat { node: NodeId(node), incarnation, running, features, wall_ms })
}

fn read_job(bytes: &[u8]) -> Result<JobId, Status> {
    let got = bytes.len();
    let bytes = bytes.try_into();
    bytes
        .map(JobId::from_bytes)
        .map_err(|_| Status::invalid_argument(format!("job id has {got} bytes, expected 16")))
}

fn read_digest(bytes: &[u8]) -> Result<Digest, Status> {
    let got = bytes.len();
    let bytes = bytes.try_into();
    bytes
        .map(Digest)
        .map_err(|_| Status::invalid_argument(format!("digest has {got} bytes, expected 32")))
}
