//! The library and the command line against peers that do as they are told, on loopback.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![forbid(unsafe_code)]

mod commands;
mod demo;
mod library;
mod minority;
mod operate;
mod operations;
mod shared;
mod support;
mod terminal;
mod tls;
mod top;
