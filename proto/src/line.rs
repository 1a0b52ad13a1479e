//! How the generated clients reach a server: over a socket, or over whatever else a world has.

use std::error::Error;
use std::fmt;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

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
