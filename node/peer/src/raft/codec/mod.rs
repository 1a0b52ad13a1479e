//! Protobuf to and from the types of state and Raft: what an entry, a vote and a snapshot are on disk and on the wire.
//!
//! Decoding is total: bytes that are wrong give an error that names what is wrong with them, and never a panic. What
//! this version does not know, such as a command of a later one, is an error too: an entry that a peer cannot apply
//! must not enter its log, since skipping it would make the peer's state another one.
//!
//! `tests/golden/entry.txt` holds the bytes of one of each kind. Generated types do not pass beyond here.

mod command;
mod entry;
mod records;
mod reply;
mod rpc;
mod snapshot;
#[cfg(test)]
mod tests;

pub use command::{command_from_proto, command_to_proto};
pub use reply::{reply_from_proto, reply_to_proto};

pub(in crate::raft) use entry::{
    decode_entry, decode_log_id, decode_vote, encode_commands, encode_entry, encode_log_id,
    encode_vote, join_commands,
};
pub(in crate::raft) use rpc::{
    SnapshotHead, Target, append_reply_from_proto, append_reply_to_proto,
    append_request_from_proto, append_request_to_proto, snapshot_head_from_proto,
    snapshot_head_to_proto, transfer_request_from_proto, transfer_request_to_proto,
    vote_from_proto, vote_reply_from_proto, vote_reply_to_proto, vote_request_from_proto,
    vote_request_to_proto, vote_to_proto,
};
pub(in crate::raft) use snapshot::{decode_snapshot, encode_snapshot};

/// The latest format of a command that this version reads. It writes each in the format that it needs.
pub const COMMAND_FORMAT: u32 = 3;
/// The latest format of a snapshot that this version reads. It writes the format of the cluster's feature level.
pub const SNAPSHOT_FORMAT: u32 = atelier_state::limits::FEATURES;

/// Why bytes or messages mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct DecodeError {
    /// Which field or message, for example `submit.job`.
    pub what: &'static str,
    /// Expected and got.
    pub reason: String,
}

impl DecodeError {
    fn new(what: &'static str, reason: impl Into<String>) -> DecodeError {
        DecodeError { what, reason: reason.into() }
    }

    fn missing(what: &'static str) -> DecodeError {
        DecodeError::new(what, "is missing, or of a kind that this version does not know")
    }
}

fn parse<M: prost::Message + Default>(
    what: &'static str,
    bytes: bytes::Bytes,
) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|error| DecodeError::new(what, error.to_string()))
}

fn check_format(what: &'static str, format: u32, latest: u32) -> Result<(), DecodeError> {
    if format == 0 || format > latest {
        let reason = format!("format {format} is not 1..={latest}; upgrade this node");
        return Err(DecodeError::new(what, reason));
    }
    Ok(())
}

/// Reads bytes of a fixed length.
fn array<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| {
        DecodeError::new(what, format!("{} bytes where {N} are expected", bytes.len()))
    })
}
