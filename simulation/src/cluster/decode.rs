//! Reads what a peer writes to its log's tree, as far as the eye must understand it.
//!
//! Written apart from the product's codec, after `proto/peer/v1/entry.proto`, so that a codec which
//! writes and reads the same mistake is found out. Layout of the tree: `node/peer/src/storage/log.rs`.

use crate::checkers::raft::{Change, Entry, LeaderId, LogId, Membership};
use atelier_peer::ports::Batch;
use atelier_peer::storage::frame;
use bytes::Bytes;

/// Returns the changes of a batch.
///
/// # Panics
/// On bytes that are no part of a log: whatever is durable was written by a peer of this version.
pub(crate) fn changes(batch: &Batch) -> Vec<Change> {
    batch.changes().filter_map(|(key, value)| change(key, value)).collect()
}

fn change(key: &Bytes, value: Option<&Bytes>) -> Option<Change> {
    let body = value.map(|value| frame::open(key, value).expect("a value has its frame"));
    match (key.first(), &key[1..], body) {
        (Some(b'e'), index, Some(body)) => {
            let entry = entry(&body);
            assert_eq!(entry.id.index.to_be_bytes(), *index, "an entry lies at its index");
            Some(Change::Entry(entry))
        }
        (Some(b'e'), index, None) => {
            let index = index.try_into().expect("the key of an entry is its index");
            Some(Change::Removed(u64::from_be_bytes(index)))
        }
        (Some(b'h'), b"vote", Some(body)) => Some(Change::Vote(log_id(&body).leader)),
        (Some(b'h'), b"purged", Some(body)) => Some(Change::Purged(log_id(&body))),
        // Where commitment is known at a start is a hint, which the eye does not need.
        _ => None,
    }
}

fn entry(body: &[u8]) -> Entry {
    let mut id = LogId::default();
    let mut members = None;
    for field in Fields(body) {
        match field {
            Field::Bytes(1, bytes) => id = log_id(bytes),
            Field::Bytes(4, bytes) => members = Some(membership(bytes)),
            _ => {}
        }
    }
    Entry { id, digest: blake3::hash(body).to_hex().to_string(), members }
}

/// `LogId`; a `Vote` has the same first two fields.
fn log_id(body: &[u8]) -> LogId {
    let mut id = LogId::default();
    for field in Fields(body) {
        match field {
            Field::Number(1, term) => id.leader.term = term,
            Field::Number(2, node) => id.leader = LeaderId { node, ..id.leader },
            Field::Number(3, index) => id.index = index,
            _ => {}
        }
    }
    id
}

fn membership(body: &[u8]) -> Membership {
    let voters = Fields(body).filter_map(|field| match field {
        Field::Bytes(1, bytes) => Some(bytes),
        _ => None,
    });
    let nodes = |bytes| {
        Fields(bytes).flat_map(|field| match field {
            Field::Bytes(1, mut packed) => {
                let mut nodes = Vec::new();
                while !packed.is_empty() {
                    nodes.push(varint(&mut packed));
                }
                nodes
            }
            Field::Number(1, node) => vec![node],
            _ => Vec::new(),
        })
    };
    voters.map(|bytes| nodes(bytes).collect()).collect()
}

/// The fields of a protobuf message, in their order.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let tag = varint(&mut self.0);
        match tag & 7 {
            0 => Some(Field::Number(tag >> 3, varint(&mut self.0))),
            2 => {
                let length = varint(&mut self.0) as usize;
                let (bytes, rest) = self.0.split_at(length);
                self.0 = rest;
                Some(Field::Bytes(tag >> 3, bytes))
            }
            kind => panic!("wire type {kind} is used by no message of the log"),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a number ends before its message does");
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number has at most ten bytes")
}
