//! What Raft says between peers.

use super::DecodeError;
use super::entry::{
    decode_entry, encode_entry, log_id_from_proto, log_id_to_proto, membership_to_proto,
    stored_membership,
};
pub(in crate::raft) use super::entry::{vote_from_proto, vote_to_proto};
use crate::raft::types::{SnapshotMeta, TypeConfig, Vote};
use crate::storage::frame::BODY_BYTES_MAX;
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::append_reply::Result as Outcome;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

/// Whom a request is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::raft) struct Target {
    /// The cluster's name.
    pub(in crate::raft) cluster: String,
    /// The node.
    pub(in crate::raft) to: u64,
}

/// What comes before the bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::raft) struct SnapshotHead {
    /// The leader's.
    pub(in crate::raft) vote: Vote,
    /// What it covers.
    pub(in crate::raft) meta: SnapshotMeta,
    /// How many bytes follow.
    pub(in crate::raft) bytes: u64,
}

pub(in crate::raft) fn vote_request_to_proto(
    target: &Target,
    request: &VoteRequest<TypeConfig>,
) -> pb::VoteRequest {
    pb::VoteRequest {
        cluster: target.cluster.clone(),
        to: target.to,
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(in crate::raft) fn vote_request_from_proto(
    request: pb::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, DecodeError> {
    let vote = vote_field("vote_request.vote", request.vote)?;
    let mut decoded = VoteRequest::new(vote, request.last_log_id.map(log_id_from_proto));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(in crate::raft) fn vote_reply_to_proto(reply: &VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_proto(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to_proto),
    }
}

pub(in crate::raft) fn vote_reply_from_proto(
    reply: pb::VoteReply,
) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let vote = vote_field("vote_reply.vote", reply.vote)?;
    Ok(VoteResponse::new(vote, reply.last_log_id.map(log_id_from_proto), reply.granted))
}

pub(in crate::raft) fn append_request_to_proto(
    target: &Target,
    request: &AppendEntriesRequest<TypeConfig>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        cluster: target.cluster.clone(),
        to: target.to,
        vote: Some(vote_to_proto(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(encode_entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

pub(in crate::raft) fn append_request_from_proto(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    // An entry that the log could not store would stop the node.
    for entry in &request.entries {
        let bytes = entry.len();
        if bytes > BODY_BYTES_MAX {
            let reason = format!("an entry has {bytes} bytes, more than {BODY_BYTES_MAX}");
            return Err(DecodeError::new("append_request.entries", reason));
        }
    }
    let entries = request.entries.into_iter().map(decode_entry).collect::<Result<Vec<_>, _>>()?;
    let prev_log_id = request.prev_log_id.map(log_id_from_proto);
    // openraft takes it for granted that entries follow one another.
    let mut next = prev_log_id.map_or(0, |id| id.index().saturating_add(1));
    for entry in &entries {
        if entry.log_id.index() != next {
            let reason = format!("index {} where {next} is expected", entry.log_id.index());
            return Err(DecodeError::new("append_request.entries", reason));
        }
        next = next.saturating_add(1);
    }
    Ok(AppendEntriesRequest {
        vote: vote_field("append_request.vote", request.vote)?,
        prev_log_id,
        entries,
        leader_commit: request.leader_commit.map(log_id_from_proto),
    })
}

pub(in crate::raft) fn append_reply_to_proto(
    result: &StreamAppendResult<TypeConfig>,
) -> pb::AppendReply {
    let outcome = match result {
        Ok(None) => Outcome::Success(pb::Blank {}),
        Ok(Some(matched)) => Outcome::Partial(log_id_to_proto(matched)),
        Err(StreamAppendError::Conflict(prev)) => Outcome::Conflict(log_id_to_proto(prev)),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::HigherVote(vote_to_proto(vote)),
    };
    pb::AppendReply { result: Some(outcome) }
}

pub(in crate::raft) fn append_reply_from_proto(
    reply: pb::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, DecodeError> {
    let outcome = reply.result.ok_or_else(|| DecodeError::missing("append_reply.result"))?;
    Ok(match outcome {
        Outcome::Success(pb::Blank {}) => Ok(None),
        Outcome::Partial(matched) => Ok(Some(log_id_from_proto(matched))),
        Outcome::Conflict(prev) => Err(StreamAppendError::Conflict(log_id_from_proto(prev))),
        Outcome::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_proto(vote))),
    })
}

pub(in crate::raft) fn snapshot_head_to_proto(
    target: &Target,
    head: &SnapshotHead,
) -> pb::SnapshotChunk {
    let membership = &head.meta.last_membership;
    pb::SnapshotChunk {
        cluster: target.cluster.clone(),
        to: target.to,
        vote: Some(vote_to_proto(&head.vote)),
        snapshot_id: head.meta.last_log_id.map_or_else(|| "empty".to_owned(), |id| id.to_string()),
        last_log_id: head.meta.last_log_id.as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(membership.membership())),
        membership_log_id: membership.log_id().as_ref().map(log_id_to_proto),
        bytes: head.bytes,
        ..pb::SnapshotChunk::default()
    }
}

pub(in crate::raft) fn snapshot_head_from_proto(
    head: pb::SnapshotChunk,
) -> Result<SnapshotHead, DecodeError> {
    Ok(SnapshotHead {
        vote: vote_field("snapshot.vote", head.vote)?,
        meta: SnapshotMeta {
            last_log_id: head.last_log_id.map(log_id_from_proto),
            last_membership: stored_membership(head.membership_log_id, head.membership)?,
        },
        bytes: head.bytes,
    })
}

pub(in crate::raft) fn transfer_request_to_proto(
    target: &Target,
    request: &TransferLeaderRequest<TypeConfig>,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        cluster: target.cluster.clone(),
        from: Some(vote_to_proto(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_proto),
    }
}

pub(in crate::raft) fn transfer_request_from_proto(
    request: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let from = vote_field("transfer_request.from", request.from)?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last_log_id.map(log_id_from_proto)))
}

pub(super) fn vote_field(what: &'static str, vote: Option<pb::Vote>) -> Result<Vote, DecodeError> {
    vote.map(vote_from_proto).ok_or_else(|| DecodeError::missing(what))
}
