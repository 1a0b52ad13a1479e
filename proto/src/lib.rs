//! Every byte that leaves a process: messages and services, no logic; and the [`line`] that calls go over.
//!
//! ```text
//!   client ── client.v1 ──► any peer ◄── peer.v1 ──► the other peers
//!                              │
//!                          engine.v1 (frames over a pipe)
//!                              │
//!                           engine        entry.proto: what a log entry and a snapshot hold on disk
//! ```
//!
//! Generated types stop at the rim of whoever uses them: `peer/gateway/convert.rs`,
//! `peer/raft/codec.rs` and the client library turn them into types of their own.

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]

/// The contracts themselves, an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod line;

/// What clients speak with any peer.
pub mod client {
    /// First version.
    pub mod v1 {
        tonic::include_proto!("atelier.client.v1");
    }
}

/// What a peer speaks with the process that owns a device.
pub mod engine {
    /// First version.
    pub mod v1 {
        tonic::include_proto!("atelier.engine.v1");
    }
}

/// What peers speak with one another, and what they write to disk.
pub mod peer {
    /// First version.
    pub mod v1 {
        tonic::include_proto!("atelier.peer.v1");
    }
}
