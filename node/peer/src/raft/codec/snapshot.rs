//! Snapshots: the state, and up to where in the log it goes.

use super::command::{artifact_to_proto, artifacts_from_proto, submit_from_proto, submit_to_proto};
use super::entry::{log_id_from_proto, log_id_to_proto, membership_to_proto, stored_membership};
use super::{DecodeError, SNAPSHOT_FORMAT, check_format, parse};
use crate::raft::types::SnapshotMeta;
use crate::storage::frame;
use atelier_proto::client::v1::Phase as PhaseNumber;
use atelier_proto::peer::v1 as pb;
use atelier_state::{FencingToken, Job, Lease, LogIndex, Node, NodeId, Phase, Snapshot, State};
use bytes::Bytes;
use prost::Message;

/// The name under which the bytes of a snapshot are summed, on disk and on the wire.
const SEAL: &[u8] = b"snapshot";

/// Encodes a snapshot with its checksum.
pub(in crate::raft) fn encode_snapshot(meta: &SnapshotMeta, state: &State) -> Bytes {
    let membership = &meta.last_membership;
    let snapshot = pb::Snapshot {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(membership.membership())),
        membership_log_id: membership.log_id().as_ref().map(log_id_to_proto),
        state: Some(state_to_proto(&state.to_snapshot())),
    };
    frame::seal(SEAL, &snapshot.encode_to_vec())
}

/// Decodes a snapshot.
pub(in crate::raft) fn decode_snapshot(
    bytes: &Bytes,
) -> Result<(SnapshotMeta, State), DecodeError> {
    let body = frame::open(SEAL, bytes);
    let body = body.map_err(|error| DecodeError::new("snapshot", error.to_string()))?;
    let snapshot: pb::Snapshot = parse("snapshot", body)?;
    let meta = SnapshotMeta {
        last_log_id: snapshot.last_log_id.map(log_id_from_proto),
        last_membership: stored_membership(snapshot.membership_log_id, snapshot.membership)?,
    };
    let state = snapshot.state.ok_or_else(|| DecodeError::missing("snapshot.state"))?;
    let state = State::from_snapshot(state_from_proto(state)?)
        .map_err(|error| DecodeError::new("snapshot.state", error.to_string()))?;
    let last = meta.last_log_id.map_or(0, |id| id.index());
    if state.applied().0 != last {
        let reason = format!("applied {} where the log id says {last}", state.applied().0);
        return Err(DecodeError::new("snapshot.state.applied", reason));
    }
    Ok((meta, state))
}

fn state_to_proto(snapshot: &Snapshot) -> pb::StateSnapshot {
    pb::StateSnapshot {
        format: SNAPSHOT_FORMAT,
        applied: snapshot.applied.0,
        jobs: snapshot.jobs.iter().map(job_to_proto).collect(),
        nodes: snapshot.nodes.iter().map(|(id, node)| node_to_proto(*id, node)).collect(),
        forgotten: snapshot.forgotten,
        submit_sequence: snapshot.submit_sequence,
    }
}

fn state_from_proto(snapshot: pb::StateSnapshot) -> Result<Snapshot, DecodeError> {
    check_format("snapshot.state.format", snapshot.format, SNAPSHOT_FORMAT)?;
    Ok(Snapshot {
        applied: LogIndex(snapshot.applied),
        jobs: snapshot.jobs.into_iter().map(job_from_proto).collect::<Result<_, _>>()?,
        nodes: snapshot.nodes.into_iter().map(node_from_proto).collect(),
        submit_sequence: snapshot.submit_sequence,
        forgotten: snapshot.forgotten,
    })
}

fn job_to_proto(job: &Job) -> pb::JobRecord {
    let phase = match &job.phase {
        Phase::Queued => PhaseNumber::Queued,
        Phase::Leased(_) => PhaseNumber::Leased,
        Phase::Succeeded => PhaseNumber::Succeeded,
        Phase::Failed => PhaseNumber::Failed,
        Phase::Cancelled => PhaseNumber::Cancelled,
    };
    pb::JobRecord {
        submit: Some(submit_to_proto(&job.submit)),
        accepted_index: job.accepted.0,
        sequence: job.sequence,
        phase: phase as u32,
        token: job.last_token.map_or(0, |token| token.0),
        node: job.last_node.map_or(0, |node| node.0),
        incarnation: job.lease().map_or(0, |lease| lease.incarnation),
        leases: job.leases,
        errors: job.errors.clone(),
        artifacts: job.artifacts.iter().map(artifact_to_proto).collect(),
        finished_ms: job.finished_ms,
        finished_index: job.finished.0,
        cancel_reason: job.cancel_reason.clone(),
    }
}

fn job_from_proto(job: pb::JobRecord) -> Result<Job, DecodeError> {
    let submit = job.submit.ok_or_else(|| DecodeError::missing("job.submit"))?;
    let last_token = (job.token != 0).then_some(FencingToken(job.token));
    let last_node = (job.node != 0).then_some(NodeId(job.node));
    let phase = i32::try_from(job.phase).ok().and_then(|number| PhaseNumber::try_from(number).ok());
    let phase = match phase.unwrap_or_default() {
        PhaseNumber::Queued => Phase::Queued,
        PhaseNumber::Leased => Phase::Leased(Lease {
            token: last_token.ok_or_else(|| DecodeError::missing("job.token of a leased job"))?,
            node: last_node.ok_or_else(|| DecodeError::missing("job.node of a leased job"))?,
            incarnation: job.incarnation,
        }),
        PhaseNumber::Succeeded => Phase::Succeeded,
        PhaseNumber::Failed => Phase::Failed,
        PhaseNumber::Cancelled => Phase::Cancelled,
        PhaseNumber::Unspecified => {
            return Err(DecodeError::new("job.phase", format!("{} is not a phase", job.phase)));
        }
    };
    Ok(Job {
        submit: submit_from_proto(submit)?,
        accepted: LogIndex(job.accepted_index),
        sequence: job.sequence,
        phase,
        last_token,
        last_node,
        leases: job.leases,
        errors: job.errors,
        artifacts: artifacts_from_proto("job.artifacts", job.artifacts)?,
        finished_ms: job.finished_ms,
        finished: LogIndex(job.finished_index),
        cancel_reason: job.cancel_reason,
    })
}

fn node_to_proto(id: NodeId, node: &Node) -> pb::NodeRecord {
    pb::NodeRecord {
        node: id.0,
        address: node.address.clone(),
        incarnation: node.incarnation,
        slots: node.slots,
        class: node.class.clone(),
        model: node.model.clone(),
    }
}

fn node_from_proto(node: pb::NodeRecord) -> (NodeId, Node) {
    let record = Node {
        address: node.address,
        incarnation: node.incarnation,
        slots: node.slots,
        class: node.class,
        model: node.model,
    };
    (NodeId(node.node), record)
}
