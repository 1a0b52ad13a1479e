//! Log ids, votes, memberships and entries.

use super::command::{command_from_proto, command_to_proto};
use super::{DecodeError, parse};
use crate::raft::types::{Commands, Entry, LogId, Membership, StoredMembership, Vote};
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::entry::Payload;
use atelier_state::Command;
use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use prost::Message;
use std::collections::BTreeSet;

pub(in crate::raft) fn encode_entry(entry: &Entry) -> Bytes {
    entry_to_proto(entry).encode_to_vec().into()
}

pub(in crate::raft) fn decode_entry(bytes: Bytes) -> Result<Entry, DecodeError> {
    entry_from_proto(parse("entry", bytes)?)
}

pub(in crate::raft) fn encode_vote(vote: &Vote) -> Bytes {
    vote_to_proto(vote).encode_to_vec().into()
}

pub(in crate::raft) fn decode_vote(bytes: Bytes) -> Result<Vote, DecodeError> {
    Ok(vote_from_proto(parse("vote", bytes)?))
}

pub(in crate::raft) fn encode_log_id(log_id: &LogId) -> Bytes {
    log_id_to_proto(log_id).encode_to_vec().into()
}

pub(in crate::raft) fn decode_log_id(bytes: Bytes) -> Result<LogId, DecodeError> {
    Ok(log_id_from_proto(parse("log id", bytes)?))
}

/// Encodes commands, as an entry holds them.
pub(in crate::raft) fn encode_commands(commands: &[Command]) -> Bytes {
    let commands = commands.iter().map(command_to_proto).collect();
    pb::Commands { commands }.encode_to_vec().into()
}

/// Puts commands of several proposals behind one another. A message followed by another of its kind
/// is the message of both, so their bytes are put behind one another too.
pub(in crate::raft) fn join_commands<'a>(several: impl Iterator<Item = &'a Commands>) -> Commands {
    let (mut encoded, mut all) = (BytesMut::new(), Vec::new());
    for commands in several {
        encoded.extend_from_slice(&commands.encoded(encode_commands));
        all.extend(commands.iter().cloned());
    }
    Commands::read_from(encoded.freeze(), all)
}

fn entry_to_proto(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(commands) => Payload::Commands(commands.encoded(encode_commands)),
        EntryPayload::Membership(membership) => {
            Payload::Membership(membership_to_proto(membership))
        }
    };
    pb::Entry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload) }
}

fn entry_from_proto(entry: pb::Entry) -> Result<Entry, DecodeError> {
    let log_id = entry.log_id.ok_or_else(|| DecodeError::missing("entry.log_id"))?;
    let payload = match entry.payload.ok_or_else(|| DecodeError::missing("entry.payload"))? {
        Payload::Blank(pb::Blank {}) => EntryPayload::Blank,
        Payload::Commands(encoded) => {
            let pb::Commands { commands } = parse("entry.commands", encoded.clone())?;
            let commands = commands.into_iter().map(command_from_proto);
            EntryPayload::Normal(Commands::read_from(encoded, commands.collect::<Result<_, _>>()?))
        }
        Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    Ok(Entry { log_id: log_id_from_proto(log_id), payload })
}

pub(super) fn log_id_to_proto(log_id: &LogId) -> pb::LogId {
    let leader = log_id.committed_leader_id();
    pb::LogId { term: leader.term, node: leader.node_id, index: log_id.index() }
}

pub(super) fn log_id_from_proto(log_id: pb::LogId) -> LogId {
    LogId::new(LeaderId { term: log_id.term, node_id: log_id.node }, log_id.index)
}

pub(in crate::raft) fn vote_to_proto(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(in crate::raft) fn vote_from_proto(vote: pb::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    }
}

pub(super) fn membership_to_proto(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|ids| pb::Voters { nodes: ids.iter().copied().collect() }).collect(),
        addresses: membership.nodes().map(|(id, address)| (*id, address.clone())).collect(),
    }
}

pub(super) fn membership_from_proto(membership: pb::Membership) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    if configs.is_empty() && membership.addresses.is_empty() {
        // Nobody, as before the cluster is initialised; openraft's constructor would refuse it.
        return Ok(Membership::default());
    }
    Membership::new(configs, membership.addresses)
        .map_err(|error| DecodeError::new("membership", error.to_string()))
}

pub(super) fn stored_membership(
    log_id: Option<pb::LogId>,
    membership: Option<pb::Membership>,
) -> Result<StoredMembership, DecodeError> {
    let membership = membership_from_proto(membership.unwrap_or_default())?;
    Ok(StoredMembership::new(log_id.map(log_id_from_proto), membership))
}
