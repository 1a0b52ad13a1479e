//! The two listeners: gRPC for clients and peers, HTTP for clients and probes.
//!
//! A world without sockets has none; it calls the gRPC services by their [`Routes`], or serves them by [`grpc_server`]
//! over connections of its own.

use super::{StartError, Task};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::gateway::http::{self, Front, Probes};
use crate::peer_service::PeerService;
use crate::raft::RaftService;
use atelier_proto::DESCRIPTORS;
use atelier_proto::client::v1::atelier_server::AtelierServer;
use atelier_proto::peer::v1::raft_server::RaftServer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic_health::server::HealthReporter;

/// Bytes under way on one stream.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes under way on one connection. Larger than a stream's, so that one that stalls stops no
/// other.
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Calls at a time on one connection. Filled by clients that watch many jobs; further ones wait.
const STREAMS_MAX: u32 = 4_096;
/// Bytes of a client's request; larger ones are refused. A batch of the most jobs with the longest
/// prompts fits.
const REQUEST_BYTES_MAX: usize = 12 * 1024 * 1024;
/// A connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection that gives none for this long is dropped.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For calls under way to end, once nobody new is let in.
const GRACE: Duration = Duration::from_secs(1);

/// Sockets that are bound and not yet served.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For HTTP.
    pub http: TcpListener,
}

/// What is served.
pub(super) struct Services {
    pub(super) raft: RaftServer<RaftService>,
    pub(super) peer: PeerService,
    pub(super) gateway: Arc<Gateway>,
    pub(super) probes: Probes,
}

/// The running servers.
pub(super) struct Servers {
    pub(super) routes: Routes,
    pub(super) sockets: Option<Sockets>,
}

/// Where something listens, and what.
pub(super) struct Sockets {
    pub(super) grpc_address: SocketAddr,
    pub(super) http_address: SocketAddr,
    grpc: Task,
    http: Task,
}

impl Listeners {
    /// Binds both addresses of a configuration.
    ///
    /// # Errors
    /// [`StartError::Listen`] with the address that is taken.
    pub async fn bind(config: &Config) -> Result<Listeners, StartError> {
        let grpc = bind("listen.grpc", config.listen.grpc).await?;
        let http = bind("listen.http", config.listen.http).await?;
        Ok(Listeners { grpc, http })
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| StartError::Listen { key, address, error })
}

/// Serves both listeners, where there are any, until [`Servers::end`].
pub(super) fn start(
    listeners: Option<Listeners>,
    services: Services,
) -> Result<(Servers, HealthReporter), StartError> {
    let Services { raft, peer, gateway, probes } = services;
    let front = Front::new(gateway.clone(), probes);
    let (routes, reporter) = routes(raft, peer, gateway)?;
    let open = listeners.map(|listeners| open(listeners, routes.clone(), front));
    Ok((Servers { routes, sockets: open.transpose()? }, reporter))
}

fn open(listeners: Listeners, routes: Routes, front: Front) -> Result<Sockets, StartError> {
    let Listeners { grpc, http } = listeners;
    let local = |key, listener: &TcpListener| {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = listener.local_addr();
        address.map_err(|error| StartError::Listen { key, address: unknown, error })
    };
    let (grpc_address, http_address) = (local("listen.grpc", &grpc)?, local("listen.http", &http)?);
    let router = grpc_server().add_routes(routes);
    let grpc = Task::spawn("gRPC server", |stop| serve_grpc(router, grpc, stop));
    let http = Task::spawn("HTTP server", |stop| serve_http(front, http, stop));
    Ok(Sockets { grpc_address, http_address, grpc, http })
}

impl Servers {
    /// Lets nobody in any more, and waits for those within, not for long.
    pub(super) async fn end(self) {
        let Some(Sockets { grpc, http, .. }) = self.sockets else { return };
        grpc.stop.cancel();
        http.stop.cancel();
        grpc.end().await;
        http.end().await;
    }
}

/// A gRPC server with the bounds of a peer's, for whoever lets it serve connections of his own.
#[must_use]
pub fn grpc_server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}

fn routes(
    raft: RaftServer<RaftService>,
    peer: PeerService,
    gateway: Arc<Gateway>,
) -> Result<(Routes, HealthReporter), StartError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(raft)
        .add_service(peer.server())
        .add_service(AtelierServer::from_arc(gateway).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok((routes.prepare(), reporter))
}

async fn serve_grpc(router: Router, listener: TcpListener, stop: CancellationToken) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let graceful = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, "gRPC server failed");
        },
        () = graceful => tracing::debug!("gRPC calls under way were cut off"),
    }
}

async fn serve_http(front: Front, listener: TcpListener, stop: CancellationToken) {
    let service = http::router(front).into_make_service_with_connect_info::<SocketAddr>();
    let served =
        axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let graceful = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = served.into_future() => if let Err(error) = served {
            tracing::error!(%error, "HTTP server failed");
        },
        () = graceful => tracing::debug!("HTTP requests under way were cut off"),
    }
}
