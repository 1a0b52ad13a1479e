//! Raft over real sockets and real disks.

mod cluster;
mod damage;
mod emptied;
mod harness;
mod kill;
mod ports;
mod power;
mod speed;
mod start;
mod store;
mod writer;
