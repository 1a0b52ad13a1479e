//! `atelier cluster`: what concerns all peers at once.

mod init;
mod recover;

use std::collections::BTreeSet;
use std::time::Duration;

use atelier_client::{Member, NodeId};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::args::ClusterCommand;
use super::failure::{Exit, Failure};
use super::json::{Body, Document, SnapshotView, TransferView, VerifiedView, VerifyView};
use super::output::{dash, note, short};
use super::{Context, PATIENCE_ASK, PATIENCE_CHANGE, status};

/// A peer that is behind may take so long to come to a mark.
const PATIENCE_DIGEST: Duration = Duration::from_secs(10);
/// A snapshot of a million jobs takes seconds.
const PATIENCE_SNAPSHOT: Duration = Duration::from_secs(60);
/// Digits of a digest that a person compares.
const DIGEST_CHARS: usize = 16;

pub(super) async fn run(context: &Context, command: ClusterCommand) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Init { name, peers, directory, accept_two_voters } => {
            init::run(context, &name, &peers, &directory, accept_two_voters)
        }
        ClusterCommand::Status { stale } => status::run(context, stale.stale).await,
        ClusterCommand::Verify => verify(context).await,
        ClusterCommand::TransferLeader { to } => transfer(context, to).await,
        ClusterCommand::Snapshot { node } => snapshot(context, node).await,
        ClusterCommand::Recover(args) => recover::run(context, &args),
    }
}

/// Puts a mark into the log, and compares every peer's state at it.
async fn verify(context: &Context) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let members = client.members().await?;
    let log_index = client.place_mark().await?;
    let ask = |member: &Member| {
        let (node, address) = (member.node, member.address.clone());
        async move {
            let digest = async {
                let client = context.client_of(&address, PATIENCE_DIGEST)?;
                let told = client.digest_at(log_index).await?;
                if told.node != node {
                    let what = format!("node {} answers at {address}", told.node);
                    return Err(Failure::new(Exit::Failed, what));
                }
                Ok(told.state_digest)
            };
            let (state_digest, why) = match digest.await {
                Ok(digest) => (Some(digest), None),
                Err(failure) => (None, Some(reason(&failure))),
            };
            VerifiedView { node, address, state_digest, why }
        }
    };
    let peers = join_all(members.iter().map(ask)).await;
    let digests: BTreeSet<_> = peers.iter().filter_map(|peer| peer.state_digest.clone()).collect();
    let answered = peers.iter().filter(|peer| peer.state_digest.is_some()).count();
    let consistent = (answered > 1).then_some(digests.len() == 1);
    let exit = match (digests.len() > 1, answered < peers.len()) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Partial,
        (false, false) => Exit::Ok,
    };
    let view = VerifyView { log_index, consistent, peers };
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Verify(view)))?;
    } else {
        print(context, &view, exit)?;
    }
    Ok(exit)
}

fn print(context: &Context, view: &VerifyView, exit: Exit) -> Result<(), Failure> {
    let row = |peer: &VerifiedView| {
        let digest = peer.state_digest.as_ref().map(|digest| short(digest, DIGEST_CHARS));
        vec![peer.node.to_string(), peer.address.clone(), dash(digest), dash(peer.why.as_ref())]
    };
    let rows: Vec<_> = view.peers.iter().map(row).collect();
    context.output.table(&["id", "address", "digest", "why"], &rows)?;
    let at = view.log_index;
    note(&match exit {
        Exit::Ok => format!("every peer has the same state at entry {at}"),
        Exit::Partial => format!("those that answer have the same state at entry {at}"),
        _ => format!("DIVERGED at entry {at}: keep all disks, and stop the peer that differs"),
    });
    Ok(())
}

async fn transfer(context: &Context, to: Option<NodeId>) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let members = client.members().await?;
    let before = members.iter().find(|member| member.leader).map(|member| member.node);
    if to.is_some() && to == before && !context.output.is_json() {
        note(&format!("member {} leads already", dash(to)));
    }
    let start = Instant::now();
    let leader = client.transfer_leader(to).await?;
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if context.output.is_json() {
        let view = TransferView { before, leader, milliseconds };
        context.output.document(&Document::from(Body::Transfer(view)))?;
    } else {
        let moved = dash(before);
        let line = format!("the lead went from {moved} to {leader} in {milliseconds} ms");
        context.output.line(&line)?;
    }
    Ok(Exit::Ok)
}

async fn snapshot(context: &Context, node: Option<NodeId>) -> Result<Exit, Failure> {
    // Each peer's own business: no leader is needed to know whom to ask.
    let members = context.any_client(PATIENCE_ASK)?.members().await?;
    let chosen: Vec<&Member> =
        members.iter().filter(|member| node.is_none_or(|node| member.node == node)).collect();
    if let (Some(node), true) = (node, chosen.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("there is no member {node}"))
            .hint("`atelier member list` shows who there is"));
    }
    let take = |member: &Member| {
        let (node, address) = (member.node, member.address.clone());
        async move {
            let taken = async {
                let client = context.client_of(&address, PATIENCE_SNAPSHOT)?;
                Ok::<_, Failure>(client.take_snapshot().await?)
            };
            let (taken, why) = match taken.await {
                Ok(taken) => (Some(taken), None),
                Err(failure) => (None, Some(reason(&failure))),
            };
            let (log_index, bytes) = (taken.map(|one| one.log_index), taken.map(|one| one.bytes));
            SnapshotView { node, address, log_index, bytes, why }
        }
    };
    let snapshots = join_all(chosen.into_iter().map(take)).await;
    let exit = match snapshots.iter().filter(|one| one.why.is_some()).count() {
        0 => Exit::Ok,
        silent if silent < snapshots.len() => Exit::Partial,
        _ => Exit::Unavailable,
    };
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Snapshots { snapshots }))?;
        return Ok(exit);
    }
    let row = |one: &SnapshotView| {
        let (index, bytes) = (dash(one.log_index), dash(one.bytes));
        vec![one.node.to_string(), one.address.clone(), index, bytes, dash(one.why.as_ref())]
    };
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    context.output.table(&["id", "address", "log index", "bytes", "why"], &rows)?;
    Ok(exit)
}

/// A failure on one line.
pub(super) fn reason(failure: &Failure) -> String {
    failure.why.first().unwrap_or(&failure.what).clone()
}
