//! Which node of which cluster this process is: what the data directory says, else what the cluster says.
//!
//! Owns what happens before Raft starts: the lineage of a directory that was recovered, a newcomer's id, and the look at
//! the others that keeps a peer of a lineage which was given up from taking part.

use super::{Outside, StartError};
use crate::config::Config;
use crate::lines::Lines;
use crate::ports::{Clock, Purpose};
use crate::raft::{base_of, generation_of};
use crate::storage::identity;
use crate::tasks;
use atelier_proto::peer::v1 as wire;
use futures_util::future::join_all;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Code, Request, Status};

/// Before the cluster is asked again to let this peer in.
const JOIN_PAUSE: Duration = Duration::from_secs(1);
/// For the cluster to answer once: it goes through the log.
const JOIN_MAX: Duration = Duration::from_secs(30);
/// How often a cluster that does not answer is asked; then the process ends, and its keeper may start it again.
const JOIN_ATTEMPTS: u32 = 30;
/// For another peer to say who it is.
const GREET_MAX: Duration = Duration::from_millis(800);

/// Why this peer cannot be told who it is.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The cluster was recovered without this peer.
    #[error(
        "cluster `{own}` was recovered as `{other}` (node {node} says so), and this directory belongs to what was given up; \
         keep it for inspection, and start with an empty one: `atelierd start --join URL --token TOKEN`"
    )]
    GivenUp {
        /// The lineage of this directory.
        own: String,
        /// The one that goes on.
        other: String,
        /// Who says so.
        node: u64,
    },
    /// An operator took this node out of the cluster.
    #[error(
        "node {own} was removed from cluster `{cluster}` (node {node} says so), and ids are not given twice; keep its \
         directory for inspection, and to let the peer in again start it with an empty one: \
         `atelierd start --join URL --token TOKEN`"
    )]
    Removed {
        /// This node.
        own: u64,
        /// Whose member it was.
        cluster: String,
        /// Who says so.
        node: u64,
    },
    /// It would join without being able to draw. One that is a member starts without its model: its vote is needed.
    #[error(
        "engine.model: expected the directory of a model, got {}, which is none; correct it, or join without an engine: \
         engine.enabled = false", path.display()
    )]
    NoModel {
        /// What was named.
        path: PathBuf,
    },
    /// The cluster did not let it in.
    #[error("{through} did not let this peer in: {reason}")]
    NotLetIn {
        /// Who was asked.
        through: String,
        /// What it said.
        reason: String,
    },
}

/// Fills in the node's id and the cluster's lineage.
///
/// # Errors
/// [`StartError::Store`] when the directory cannot be read, [`StartError::Origin`] when this peer must not, or cannot, take
/// part.
pub(super) async fn settle(config: &Config, outside: &Outside) -> Result<Config, StartError> {
    let mut config = config.clone();
    let store = outside.store.clone();
    let stored = tasks::blocking(move || identity::stored(store.as_ref())).await?;
    let lines = Lines::new(outside.dial.clone());
    match stored.map_err(crate::raft::StartError::from)? {
        Some(found) => {
            let joined = !config.join_through.is_empty();
            if joined || base_of(&found.cluster) == base_of(&config.cluster) {
                config.cluster = found.cluster;
            }
            // It asked when it joined. A member that an operator demoted since must not ask again.
            config.promote = false;
            if config.node == 0 {
                config.node = found.node.0;
            }
            let others = config.peers.iter().filter(|peer| peer.id != config.node);
            let others: Vec<String> = others.map(|peer| peer.address.clone()).collect();
            goes_on(&lines, &config.cluster, config.node, &others).await?;
        }
        None if !config.join_through.is_empty() => {
            check_name(&lines, &config).await?;
            check_model(&config)?;
            let reply = join(&lines, &config, outside.clock.as_ref()).await?;
            tracing::info!(node = reply.node, cluster = reply.cluster, "let into the cluster");
            (config.node, config.cluster) = (reply.node, reply.cluster);
        }
        None => {}
    }
    Ok(config)
}

/// Makes sure that nobody knows a later lineage of this cluster, or that this node was removed from it.
///
/// # Errors
/// [`OriginError::GivenUp`] and [`OriginError::Removed`] when somebody does.
pub(super) async fn goes_on(
    lines: &Lines,
    cluster: &str,
    node: u64,
    others: &[String],
) -> Result<(), OriginError> {
    let greet = |address: &String| {
        let peer = lines.peer(address, Purpose::Control);
        let mut request = Request::new(wire::GreetRequest { cluster: cluster.to_owned(), node });
        request.set_timeout(GREET_MAX);
        async move {
            let mut peer = peer.ok()?;
            let greeted = peer.greet(request);
            Some(tokio::time::timeout(GREET_MAX, greeted).await.ok()?.ok()?.into_inner())
        }
    };
    let greeted = join_all(others.iter().map(greet)).await;
    let later = |reply: &wire::GreetReply| {
        base_of(&reply.cluster) == base_of(cluster)
            && generation_of(&reply.cluster) > generation_of(cluster)
    };
    let greeted: Vec<_> = greeted.into_iter().flatten().collect();
    if let Some(reply) = greeted.iter().find(|reply| later(reply)) {
        let (own, other) = (cluster.to_owned(), reply.cluster.clone());
        return Err(OriginError::GivenUp { own, other, node: reply.node });
    }
    if let Some(reply) = greeted.iter().find(|reply| reply.removed) {
        let cluster = cluster.to_owned();
        return Err(OriginError::Removed { own: node, cluster, node: reply.node });
    }
    Ok(())
}

/// Refuses to become a member whose engine cannot start.
fn check_model(config: &Config) -> Result<(), OriginError> {
    let path = &config.engine.model;
    if config.engine.enabled && !path.is_dir() {
        return Err(OriginError::NoModel { path: path.clone() });
    }
    Ok(())
}

/// Refuses to join another cluster than the one that was named. One that does not say who it is is asked by [`join`].
async fn check_name(lines: &Lines, config: &Config) -> Result<(), OriginError> {
    if config.cluster == Config::default().cluster {
        return Ok(());
    }
    let through = config.join_through.clone();
    let Ok(mut peer) = lines.peer(&through, Purpose::Control) else { return Ok(()) };
    let cluster = config.cluster.clone();
    let request = Request::new(wire::GreetRequest { cluster, node: config.node });
    let greeted = tokio::time::timeout(GREET_MAX, peer.greet(request)).await;
    match greeted.map(|greeted| greeted.map(|reply| reply.into_inner().cluster)) {
        Ok(Ok(other)) if base_of(&other) != base_of(&config.cluster) => {
            let own = &config.cluster;
            let reason = format!(
                "it is of cluster `{other}`, and this peer was told to be of `{own}`; leave the name out, or join a peer of `{own}`"
            );
            Err(OriginError::NotLetIn { through, reason })
        }
        _ => Ok(()),
    }
}

async fn join(
    lines: &Lines,
    config: &Config,
    clock: &dyn Clock,
) -> Result<wire::JoinReply, OriginError> {
    let through = config.join_through.clone();
    let mut reason = "it was not asked".to_owned();
    for _ in 0..JOIN_ATTEMPTS {
        let request =
            wire::JoinRequest { token: config.cluster_token.clone(), address: config.advertised() };
        let mut request = Request::new(request);
        request.set_timeout(JOIN_MAX);
        let asked = match lines.peer(&through, Purpose::Control) {
            Ok(mut peer) => peer.join(request).await,
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        };
        match asked {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) if may_pass(status.code()) => {
                tracing::info!(through, reason = status.message(), "not let in yet, asks again");
                reason = status.message().to_owned();
            }
            Err(status) => {
                let reason = status.message().to_owned();
                return Err(OriginError::NotLetIn { through, reason });
            }
        }
        clock.sleep(JOIN_PAUSE).await;
    }
    Err(OriginError::NotLetIn { through, reason })
}

/// Whether asking again may be answered otherwise.
fn may_pass(code: Code) -> bool {
    !matches!(
        code,
        Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::PermissionDenied
    )
}
