//! Sockets of the simulated machines, and a trace of every byte that goes over them.
//!
//! Owns the way from a host's name to a connection, for dialling and for listening; must not know what is said over it.

use crate::cluster::Since;
use crate::cluster::clients::Reach;
use crate::cluster::hardware::address;
use atelier_client::{ConnectError, Line, Options};
use atelier_peer::ports::{Dial, DialError, Purpose};
use atelier_peer::real::TonicDial;
use futures_util::stream::{self, Stream};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

/// Where every peer listens.
const LISTEN: &str = "0.0.0.0:7861";

/// Digest of all that happens, with its moment. Clones write the same one.
#[derive(Clone)]
pub(super) struct Trace {
    since: Since,
    written: Arc<Mutex<Written>>,
}

struct Written {
    hasher: blake3::Hasher,
    calls: u64,
}

impl Trace {
    pub(super) fn new(since: Since) -> Trace {
        let written = Written { hasher: blake3::Hasher::new(), calls: 0 };
        Trace { since, written: Arc::new(Mutex::new(written)) }
    }

    pub(super) fn note(&self, what: &str) {
        self.bytes(what, &[]);
    }

    /// Notes a call that has reached a peer.
    pub(super) fn call(&self, what: &str) {
        self.written().calls += 1;
        self.note(what);
    }

    fn bytes(&self, what: &str, bytes: &[u8]) {
        let at = (self.since)().as_micros();
        let mut written = self.written();
        written.hasher.update(format!("{at} {what} {}\n", bytes.len()).as_bytes()).update(bytes);
    }

    /// Returns the digest, and how many calls there were.
    pub(super) fn end(&self) -> (String, u64) {
        let written = self.written();
        (written.hasher.finalize().to_hex().to_string(), written.calls)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection.
pub(super) struct Socket {
    stream: TcpStream,
    ends: String,
    trace: Trace,
}

impl Socket {
    fn new(stream: TcpStream, trace: &Trace) -> io::Result<Socket> {
        let ends = format!("{} {}", stream.local_addr()?, stream.peer_addr()?);
        trace.note(&format!("{ends} opens"));
        Ok(Socket { stream, ends, trace: trace.clone() })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.trace.note(&format!("{} reads {}", self.ends, buffer.filled().len() - before));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.trace.bytes(&self.ends, &bytes[..*count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Socket {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        let (local, remote) = (self.stream.local_addr(), self.stream.peer_addr());
        TcpConnectInfo { local_addr: local.ok(), remote_addr: remote.ok() }
    }
}

/// The way from a machine to all others. It works on the machine where it is used.
#[derive(Clone)]
pub(super) struct Sockets {
    pub(super) trace: Trace,
}

impl Sockets {
    fn connect(
        &self,
    ) -> impl Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>> + Send + 'static
    {
        let trace = self.trace.clone();
        move |to: String| {
            let trace = trace.clone();
            Box::pin(async move { Socket::new(TcpStream::connect(to).await?, &trace) })
        }
    }

    /// Listens, and hands over whoever connects.
    pub(super) async fn incoming(
        &self,
    ) -> io::Result<impl Stream<Item = io::Result<Socket>> + Send + 'static> {
        let listening = (TcpListener::bind(LISTEN).await?, self.trace.clone());
        Ok(stream::unfold(listening, |(listener, trace)| async move {
            let accepted = listener.accept().await;
            let socket = accepted.and_then(|(stream, _)| Socket::new(stream, &trace));
            Some((socket, (listener, trace)))
        }))
    }
}

impl Reach for Sockets {
    fn address(&self, peer: u64) -> String {
        address(peer)
    }

    fn line(&self, _from: &str, to: &str) -> Result<Line, ConnectError> {
        Options::default().line_over(to, self.connect())
    }
}

impl Dial for Sockets {
    fn line(&self, address: &str, _purpose: Purpose) -> Result<Line, DialError> {
        TonicDial::line_over(address, self.connect())
    }
}
