//! The ports as a process has them: the system's clock and entropy, and tonic's channels as lines.
//!
//! The store is `storage::SledStore`, the log `raft::RaftNode`. Wall time and randomness are reached from here alone.

use crate::ports::{Clock, Dial, DialError, Entropy, Line, Purpose};
use atelier_proto::line;
use futures_util::future::BoxFuture;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Endpoint, Uri};

/// The longest time to connect. Nobody fills it; a peer further away than this is unreachable.
const CONNECT_MS: u64 = 1_000;
/// A connection is asked for a sign of life this often, idle or not.
const KEEP_ALIVE_MS: u64 = 2_000;
/// A connection that gives no sign of life for this long is dropped.
const KEEP_ALIVE_TIMEOUT_MS: u64 = 2_000;
/// Bytes that may be under way on one stream.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes that may be under way on one connection. Larger than a stream's, so a stream that stalls stops no other.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// The system's clock. Its origin is its making.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

/// The system's entropy.
#[derive(Debug)]
pub struct SystemEntropy {
    source: File,
}

/// Channels over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TonicDial;

impl SystemClock {
    /// Makes a clock that starts at zero.
    pub fn new() -> SystemClock {
        SystemClock { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl SystemEntropy {
    /// Opens the system's source.
    ///
    /// # Errors
    /// When there is none; the process cannot run.
    pub fn open() -> std::io::Result<SystemEntropy> {
        Ok(SystemEntropy { source: File::open("/dev/urandom")? })
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        (&self.source).read_exact(bytes).expect("/dev/urandom never ends");
    }
}

impl TonicDial {
    /// Makes a line as [`Dial::line`] does, over connections that the caller makes of `host:port`, in the place of
    /// TCP's own: for a world that has sockets of another kind. Bounds, signs of life and windows are a peer's.
    ///
    /// # Errors
    /// As [`Dial::line`].
    pub fn line_over<C, F, IO>(address: &str, connect: C) -> Result<Line, DialError>
    where
        C: Fn(String) -> F + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(line::over_connections(&endpoint(address)?, connect))
    }
}

impl Dial for TonicDial {
    fn line(&self, address: &str, _purpose: Purpose) -> Result<Line, DialError> {
        Ok(line::over(endpoint(address)?.connect_lazy()))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, DialError> {
    let error = |reason: String| DialError::Address { address: address.to_owned(), reason };
    let uri: Uri =
        address.parse().map_err(|e: tonic::codegen::http::uri::InvalidUri| error(e.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http")) {
        return Err(error("the scheme is not http".to_owned()));
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(Duration::from_millis(CONNECT_MS))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_millis(KEEP_ALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(KEEP_ALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}
