//! How patient a client is. Every bound of this library that a caller may set is here.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use atelier_proto::line::{self, Line};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ConnectError;
use crate::pool;

/// Bounds on waiting and repeating; the defaults suit a cluster in one region.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a connection may take to come up. 1 s; more on a slow network.
    pub connect_timeout: Duration,
    /// How long one peer may take to answer before another is asked. 10 s: an election fits in.
    pub attempt_timeout: Duration,
    /// How long a call may take with all its repeats. 30 s. What happens at the brim is the
    /// error [`crate::Error::Unavailable`], or [`crate::Error::UnknownOutcome`].
    pub deadline: Duration,
    /// How long a watch may take; `None`, the default, for as long as the job does.
    pub watch_deadline: Option<Duration>,
    /// After so long without news a watch is opened anew on the next endpoint, 10 s: a peer cut
    /// off from the others keeps its connection to us and learns nothing.
    pub watch_silence: Duration,
    /// Whether watches are told of previews, [`crate::Event::preview`]. No. Who asks for them reads
    /// every watch on, or drops it: previews that wait for their reader fill the connection.
    pub previews: bool,
    /// Repeats of one call at most, beyond the first attempt. 64. A watch is not bound by it.
    pub retries_max: u32,
    /// The first pause before a repeat is at most this. 50 ms.
    pub backoff_min: Duration,
    /// The pause doubles with every round over the endpoints up to this. 1 s.
    pub backoff_max: Duration,
    /// An HTTP/2 ping is sent this often, also while idle. 2 s.
    pub keep_alive_interval: Duration,
    /// A peer that does not answer a ping for so long is taken for dead. 2 s.
    pub keep_alive_timeout: Duration,
    /// Whether a client asks the peers who else is there and who leads: then it outlives the
    /// endpoints that it was given, and sends to the leader what goes through the log. Yes.
    pub learn_members: bool,
    /// Whether a call goes only to a peer that a leader with its quorum answers. No. A peer that is
    /// cut off, or was removed and runs on, else tells reads what it has, however old, and holds
    /// changes until their time is over. Costs a question before each call, answered from memory:
    /// for operators and tools, not for a service. Where no endpoint is answered by a leader the
    /// error is [`crate::Error::NoLeader`], and nothing was sent. Watches and waits are not bound
    /// by it.
    pub leader_confirmed: bool,
    /// Whether a read takes what a peer knows that follows no leader, however old. No: such a peer
    /// refuses, and another one is asked. For whoever looks at a cluster that is in trouble.
    pub stale_reads: bool,
    /// Where the caller stands: a call that any peer answers as well goes to one whose label
    /// `region` is this, as long as one answers. `None`, the default, has no preference, and so
    /// has a region of which there is no member. Known from the members, so from the second call
    /// on, and only with [`Options::learn_members`].
    pub region: Option<String>,
    /// Speaks TLS with every endpoint; `None`, the default, speaks plain HTTP/2.
    pub tls: Option<Tls>,
    /// Where the jitter of pauses comes from.
    pub entropy: Entropy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            watch_deadline: None,
            watch_silence: Duration::from_secs(10),
            previews: false,
            retries_max: 64,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(2),
            learn_members: true,
            leader_confirmed: false,
            stale_reads: false,
            region: None,
            tls: None,
            entropy: Entropy::os(),
        }
    }
}

impl Options {
    /// Makes a line to an address as [`Client::connect`](crate::Client::connect) does, with these bounds and this
    /// TLS, over connections that the caller makes of `host:port`: through a proxy, a Unix socket or a simulated
    /// network. For [`Client::with_dialer`](crate::Client::with_dialer).
    ///
    /// # Errors
    /// [`ConnectError`] when the address is none, or the certificates are not.
    pub fn line_over<C, F, IO>(&self, address: &str, connect: C) -> Result<Line, ConnectError>
    where
        C: Fn(String) -> F + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(line::over_connections(&pool::dialled(address, self)?, connect))
    }
}

/// Whom to trust, and how to prove who this is. All are PEM.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of the authorities that vouch for the peers.
    pub ca: Vec<u8>,
    /// Our own certificate with its chain, and its private key, where the peers ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the peers' certificates bear; `None` for the host of each address.
    pub domain: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A private key belongs into no log.
        out.debug_struct("Tls").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// A source of random numbers, so that a simulated world can bring its own.
#[derive(Clone)]
pub struct Entropy(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Entropy {
    /// Takes numbers from a function.
    pub fn from_fn(draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    /// Takes numbers from the keys that the standard library draws from the operating system.
    pub fn os() -> Self {
        Self::from_fn(|| std::hash::RandomState::new().build_hasher().finish())
    }

    /// Draws one number.
    pub fn draw(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Entropy")
    }
}
