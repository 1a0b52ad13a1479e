//! How the generated clients reach a server: over a socket, or over whatever else a world has.

use hyper_util::rt::TokioIo;
use std::error::Error;
use std::future::Future;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

/// A way to a peer, over which calls go. Clones share it.
pub type Line = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, LineError>;

/// Why a call found no way, or its way broke. A generated client makes a `Status` of its source.
#[derive(Debug)]
pub struct LineError(Box<dyn Error + Send + Sync>);

impl LineError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> LineError {
        LineError(source.into())
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for LineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Makes a line of a channel.
pub fn over(channel: Channel) -> Line {
    Line::new(channel.map_err(|error| LineError::new(error)))
}

/// Makes a line of an endpoint over connections that somebody else makes: `connect` is given `host:port`, each time
/// that one is needed, within the endpoint's time for it.
pub fn over_connections<C, F, IO>(endpoint: &Endpoint, connect: C) -> Line
where
    C: Fn(String) -> F + Send + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connector = service_fn(move |uri: Uri| {
        let connecting = connect(uri.authority().map(ToString::to_string).unwrap_or_default());
        async move { connecting.await.map(TokioIo::new) }
    });
    over(endpoint.connect_with_connector_lazy(connector))
}
