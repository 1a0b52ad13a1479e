//! Snapshots: the state, and up to where in the log it goes.

use super::command::{
    artifact_to_proto, artifacts_from_proto, job, job_bytes, kept, submit_from_proto,
    submit_to_proto,
};
use super::entry::{log_id_from_proto, log_id_to_proto, membership_to_proto, stored_membership};
use super::records::{
    author_from_proto, author_to_proto, change_from_proto, change_to_proto, value_from_proto,
    value_to_proto,
};
use super::{DecodeError, SNAPSHOT_FORMAT, array, check_format, parse};
use crate::raft::types::SnapshotMeta;
use crate::storage::frame::{self, Sum};
use atelier_proto::client::v1::Phase as PhaseNumber;
use atelier_proto::peer::v1 as pb;
use atelier_state::{
    Attempt, Digest, FencingToken, Job, KeyRecord, Lease, LogIndex, Node, NodeId, Phase,
    SettingValue, SettingsRecord, Snapshot, State, TenantKey, TrailRecord, limits,
};
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, message,
};
use std::sync::Arc;

/// The name under which the bytes of a snapshot are summed, on disk and on the wire.
const SEAL: &[u8] = b"snapshot";

/// Encodes a snapshot with its checksum, and hands it out in parts.
///
/// Jobs are turned into records one by one, twice: a million records, or all their bytes, would take as much memory as
/// the state does.
///
/// # Errors
/// As `put`.
pub(in crate::raft) fn encode_snapshot<E>(
    meta: &SnapshotMeta,
    state: &State,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let membership = &meta.last_membership;
    let outer = pb::Snapshot {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(membership.membership())),
        membership_log_id: membership.log_id().as_ref().map(log_id_to_proto),
        state: None,
    };
    let snapshot = state.to_snapshot();
    let whole = snapshot.features > limits::FEATURES_FIRST;
    let (head, tail) = (head_to_proto(&snapshot), tail_to_proto(&snapshot, whole));
    let tail = tail.encode_to_vec();
    let mut record = Vec::new();
    let mut each_job = |take: &mut dyn FnMut(&[u8]) -> Result<(), E>| {
        snapshot.jobs.iter().try_for_each(|job| {
            record.clear();
            message::encode(JOBS_TAG, &job_to_proto(job, whole), &mut record);
            take(&record)
        })
    };
    let (mut jobs, mut jobs_bytes) = (Sum::of_part(), 0);
    each_job(&mut |record| {
        jobs.add(record);
        jobs_bytes += record.len();
        Ok(())
    })?;
    // The fields of a message may be encoded apart, in the order of their tags.
    let mut front = outer.encode_to_vec();
    encode_key(STATE_TAG, WireType::LengthDelimited, &mut front);
    encode_varint((head.encoded_len() + jobs_bytes + tail.len()) as u64, &mut front);
    head.encode_raw(&mut front);
    let mut sum = Sum::of(SEAL);
    sum.add(&front);
    sum.add_part(jobs, jobs_bytes);
    sum.add(&tail);
    put(&sum.head())?;
    put(&front)?;
    each_job(&mut put)?;
    put(&tail)
}

/// Of `Snapshot.state`.
const STATE_TAG: u32 = 4;
/// Of `StateSnapshot.jobs`.
const JOBS_TAG: u32 = 3;
/// Decodes a snapshot, one job after another, as [`encode_snapshot`] encodes it.
pub(in crate::raft) fn decode_snapshot(
    bytes: &Bytes,
) -> Result<(SnapshotMeta, State), DecodeError> {
    let body = frame::open(SEAL, bytes);
    let body = body.map_err(|error| DecodeError::new("snapshot", error.to_string()))?;
    let mut states = Vec::new();
    let outer: pb::Snapshot = parse_but("snapshot", body, STATE_TAG, &mut states)?;
    let meta = SnapshotMeta {
        last_log_id: outer.last_log_id.map(log_id_from_proto),
        last_membership: stored_membership(outer.membership_log_id, outer.membership)?,
    };
    let state = states.pop().ok_or_else(|| DecodeError::missing("snapshot.state"))?;
    if !states.is_empty() {
        return Err(DecodeError::new("snapshot.state", "it is there twice".to_owned()));
    }
    let mut jobs = Vec::new();
    let rest: pb::StateSnapshot = parse_but("snapshot.state", state, JOBS_TAG, &mut jobs)?;
    let state = State::from_snapshot(state_from_proto(rest, jobs)?)
        .map_err(|error| DecodeError::new("snapshot.state", error.to_string()))?;
    let last = meta.last_log_id.map_or(0, |id| id.index());
    if state.applied().0 != last {
        let reason = format!("applied {} where the log id says {last}", state.applied().0);
        return Err(DecodeError::new("snapshot.state.applied", reason));
    }
    Ok((meta, state))
}

/// Parses a message but for the messages under one tag, whose bytes it leaves to the caller.
fn parse_but<M: Message + Default>(
    what: &'static str,
    mut body: Bytes,
    tag: u32,
    left: &mut Vec<Bytes>,
) -> Result<M, DecodeError> {
    let malformed = |error: prost::DecodeError| DecodeError::new(what, error.to_string());
    let mut message = M::default();
    while body.has_remaining() {
        let (found, wire_type) = decode_key(&mut body).map_err(malformed)?;
        if (found, wire_type) != (tag, WireType::LengthDelimited) {
            let context = DecodeContext::default();
            message.merge_field(found, wire_type, &mut body, context).map_err(malformed)?;
            continue;
        }
        let bytes = decode_varint(&mut body).map_err(malformed)?;
        if bytes > body.remaining() as u64 {
            let reason = format!("{bytes} bytes where {} are left", body.remaining());
            return Err(DecodeError::new(what, reason));
        }
        left.push(body.split_to(bytes as usize));
    }
    Ok(message)
}

/// Encodes what comes before the jobs.
fn head_to_proto(snapshot: &Snapshot) -> pb::StateSnapshot {
    let (format, applied) = (snapshot.features, snapshot.applied.0);
    pb::StateSnapshot { format, applied, ..pb::StateSnapshot::default() }
}

/// Encodes what comes behind the jobs; whole, or as much of it as format 1 has.
fn tail_to_proto(snapshot: &Snapshot, whole: bool) -> pb::StateSnapshot {
    let first = pb::StateSnapshot {
        nodes: snapshot.nodes.iter().map(|(id, node)| node_to_proto(*id, node)).collect(),
        forgotten: snapshot.forgotten,
        submit_sequence: snapshot.submit_sequence,
        ..pb::StateSnapshot::default()
    };
    if !whole {
        return first;
    }
    pb::StateSnapshot {
        assigned: snapshot.assigned,
        virtual_times: snapshot.virtual_times.to_vec(),
        tenants: snapshot.finish_tags.iter().map(tenant_to_proto).collect(),
        keys: snapshot.keys.iter().map(|record| key_to_proto(record)).collect(),
        settings_version: snapshot.settings_version,
        settings: snapshot.settings.iter().map(setting_to_proto).collect(),
        settings_history: snapshot.settings_history.iter().map(version_to_proto).collect(),
        features: snapshot.features,
        marked: snapshot.marked.0,
        trail: snapshot.trail.iter().map(act_to_proto).collect(),
        ..first
    }
}

fn state_from_proto(
    snapshot: pb::StateSnapshot,
    jobs: Vec<Bytes>,
) -> Result<Snapshot, DecodeError> {
    check_format("snapshot.state.format", snapshot.format, SNAPSHOT_FORMAT)?;
    let job = |record| Ok(Arc::new(job_from_proto(parse("snapshot.state.jobs", record)?)?));
    let first = Snapshot {
        applied: LogIndex(snapshot.applied),
        jobs: jobs.into_iter().map(job).collect::<Result<_, DecodeError>>()?,
        nodes: snapshot.nodes.into_iter().map(node_from_proto).collect(),
        submit_sequence: snapshot.submit_sequence,
        forgotten: snapshot.forgotten,
        ..Snapshot::default()
    };
    if snapshot.format == 1 {
        return Ok(first);
    }
    Ok(Snapshot {
        features: snapshot.features,
        assigned: snapshot.assigned,
        virtual_times: tags("snapshot.state.virtual_times", &snapshot.virtual_times)?,
        finish_tags: snapshot
            .tenants
            .into_iter()
            .map(|it| Ok((it.tenant.into(), tags("tenant.finish_tags", &it.finish_tags)?)))
            .collect::<Result<_, _>>()?,
        keys: snapshot.keys.into_iter().map(key_from_proto).collect::<Result<_, _>>()?,
        settings_version: snapshot.settings_version,
        settings: snapshot
            .settings
            .into_iter()
            .map(setting_from_proto)
            .collect::<Result<_, _>>()?,
        settings_history: snapshot
            .settings_history
            .into_iter()
            .map(version_from_proto)
            .collect::<Result<_, _>>()?,
        marked: LogIndex(snapshot.marked),
        trail: snapshot.trail.into_iter().map(act_from_proto).collect(),
        ..first
    })
}

fn tags<const N: usize>(what: &'static str, found: &[u64]) -> Result<[u64; N], DecodeError> {
    let wrong = |_| DecodeError::new(what, format!("{} where {N} are expected", found.len()));
    found.try_into().map_err(wrong)
}

fn tenant_to_proto((tenant, finish_tags): &(Arc<str>, [u64; 10])) -> pb::TenantRecord {
    pb::TenantRecord { tenant: tenant.to_string(), finish_tags: finish_tags.to_vec() }
}

fn key_to_proto(record: &KeyRecord) -> pb::KeyRecord {
    pb::KeyRecord {
        tenant: record.key.tenant.to_string(),
        key: record.key.key.to_string(),
        job: job_bytes(record.job),
        request: Bytes::copy_from_slice(&record.request.0),
        finished_ms: record.finished_ms,
    }
}

fn key_from_proto(record: pb::KeyRecord) -> Result<Arc<KeyRecord>, DecodeError> {
    Ok(Arc::new(KeyRecord {
        key: TenantKey { tenant: record.tenant.into(), key: record.key.into() },
        job: job("key.job", &record.job)?,
        request: Digest(array("key.request", &record.request)?),
        finished_ms: record.finished_ms,
    }))
}

fn setting_to_proto(setting: &(Arc<str>, SettingValue, u64)) -> pb::SettingChange {
    let (key, value, version) = setting;
    pb::SettingChange {
        key: key.to_string(),
        value: Some(value_to_proto(*value)),
        version: *version,
    }
}

fn setting_from_proto(
    setting: pb::SettingChange,
) -> Result<(Arc<str>, SettingValue, u64), DecodeError> {
    let value = setting.value.ok_or_else(|| DecodeError::missing("setting.value"))?;
    Ok((setting.key.into(), value_from_proto(value)?, setting.version))
}

fn version_to_proto(record: &SettingsRecord) -> pb::SettingsRecord {
    pb::SettingsRecord {
        version: record.version,
        before: record.before.iter().map(change_to_proto).collect(),
        after: record.after.iter().map(change_to_proto).collect(),
        author: Some(author_to_proto(&record.author)),
    }
}

fn version_from_proto(record: pb::SettingsRecord) -> Result<SettingsRecord, DecodeError> {
    let changes = |changes: Vec<pb::SettingChange>| {
        changes.into_iter().map(change_from_proto).collect::<Result<_, _>>()
    };
    Ok(SettingsRecord {
        version: record.version,
        before: changes(record.before)?,
        after: changes(record.after)?,
        author: author_from_proto(record.author),
    })
}

fn act_to_proto(record: &TrailRecord) -> pb::TrailRecord {
    pb::TrailRecord {
        log_index: record.index.0,
        act: record.act.clone(),
        author: Some(author_to_proto(&record.author)),
    }
}

fn act_from_proto(record: pb::TrailRecord) -> TrailRecord {
    TrailRecord {
        index: LogIndex(record.log_index),
        act: record.act,
        author: author_from_proto(record.author),
    }
}

/// Encodes a job; whole, or as much of it as format 1 has.
fn job_to_proto(job: &Job, whole: bool) -> pb::JobRecord {
    let errors = job.attempts.iter().filter(|_| !whole).map(|it| it.error.clone());
    let attempts = job.attempts.iter().filter(|_| whole).map(attempt_to_proto);
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
        errors: errors.collect(),
        artifacts: job.artifacts.iter().map(artifact_to_proto).collect(),
        finished_ms: job.finished_ms,
        finished_index: job.finished.0,
        cancel_reason: job.cancel_reason.clone(),
        attempts: attempts.collect(),
        tag: job.tag,
        stamp: job.stamp,
        retry_at_ms: job.retry_at_ms,
    }
}

fn attempt_to_proto(attempt: &Attempt) -> pb::AttemptRecord {
    pb::AttemptRecord {
        token: attempt.token.0,
        node: attempt.node.0,
        error: attempt.error.clone(),
        failed_ms: attempt.failed_ms,
    }
}

fn attempt_from_proto(attempt: pb::AttemptRecord) -> Attempt {
    Attempt {
        token: FencingToken(attempt.token),
        node: NodeId(attempt.node),
        error: attempt.error,
        failed_ms: attempt.failed_ms,
    }
}

/// Reads the errors of format 1, which are all that it keeps of an attempt.
fn attempt_of_error(error: String) -> Attempt {
    attempt_from_proto(pb::AttemptRecord { error, ..pb::AttemptRecord::default() })
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
    let errors = job.errors.into_iter().map(attempt_of_error);
    let attempts = job.attempts.into_iter().map(attempt_from_proto);
    Ok(Job {
        submit: submit_from_proto(submit)?,
        accepted: LogIndex(job.accepted_index),
        sequence: job.sequence,
        phase,
        last_token,
        last_node,
        leases: job.leases,
        attempts: kept(errors.chain(attempts).collect()),
        artifacts: artifacts_from_proto("job.artifacts", job.artifacts)?,
        finished_ms: job.finished_ms,
        finished: LogIndex(job.finished_index),
        cancel_reason: job.cancel_reason,
        tag: job.tag,
        stamp: job.stamp,
        retry_at_ms: job.retry_at_ms,
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
        witness: node.witness,
        draining: node.draining,
        labels: node.labels.clone(),
    }
}

fn node_from_proto(node: pb::NodeRecord) -> (NodeId, Node) {
    let record = Node {
        address: node.address,
        incarnation: node.incarnation,
        slots: node.slots,
        class: node.class,
        model: node.model,
        witness: node.witness,
        draining: node.draining,
        labels: node.labels,
    };
    (NodeId(node.node), record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_state::{ArtifactRef, JobId, Submit};

    /// Bounds of the state count jobs by `Job::bytes`, and so bound a snapshot.
    #[test]
    fn no_record_of_a_job_is_longer_than_the_job_is_counted() {
        let most = u64::MAX;
        let text = |bytes: usize| "x".repeat(bytes);
        let artifact = ArtifactRef {
            digest: Digest([0xff; 32]),
            bytes: most,
            media_type: text(limits::NAME_BYTES_MAX),
            holders: vec![NodeId(most); limits::HOLDERS_MAX],
        };
        let attempt = Attempt {
            token: FencingToken(most),
            node: NodeId(most),
            error: text(limits::ERROR_BYTES_MAX),
            failed_ms: most,
        };
        let lease = Lease { token: FencingToken(most), node: NodeId(most), incarnation: most };
        let largest = Job {
            submit: Submit {
                job: JobId(u128::MAX),
                tenant: text(limits::NAME_BYTES_MAX).into(),
                idempotency_key: Some(text(limits::NAME_BYTES_MAX).into()),
                priority: 9,
                kind: text(limits::NAME_BYTES_MAX).into(),
                parameters: text(limits::PARAMETERS_BYTES_MAX).into(),
                traceparent: text(limits::NAME_BYTES_MAX),
                submitted_ms: most,
                attempts_max: u32::MAX,
                deadline_ms: most,
                max_runtime_s: u32::MAX,
                cost: u32::MAX,
                retry_of: Some(JobId(u128::MAX)),
            },
            accepted: LogIndex(most),
            sequence: most,
            phase: Phase::Leased(lease),
            last_token: Some(FencingToken(most)),
            last_node: Some(NodeId(most)),
            leases: u32::MAX,
            attempts: vec![attempt; limits::ATTEMPTS_MAX as usize],
            artifacts: vec![artifact; limits::ARTIFACTS_MAX],
            finished_ms: most,
            finished: LogIndex(most),
            cancel_reason: text(limits::ERROR_BYTES_MAX),
            tag: most,
            stamp: most,
            retry_at_ms: most,
        };
        let smallest = Job {
            submit: Submit {
                idempotency_key: None,
                parameters: Bytes::new(),
                tenant: "".into(),
                kind: "".into(),
                traceparent: String::new(),
                ..largest.submit.clone()
            },
            attempts: Vec::new(),
            artifacts: Vec::new(),
            cancel_reason: String::new(),
            ..largest.clone()
        };
        for job in [largest, smallest] {
            let record = message::encoded_len(JOBS_TAG, &job_to_proto(&job, true)) as u64;
            assert!(record <= job.bytes(), "{record} bytes, counted as {}", job.bytes());
        }
    }
}
