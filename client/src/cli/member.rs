//! `atelier member`: who belongs to the cluster, and who decides in it.

use std::io::{IsTerminal, Write};

use atelier_client::{Client, Member, NodeId};

use super::args::{Consent, MemberCommand};
use super::failure::{Exit, Failure};
use super::json::{Body, Document, MemberView};
use super::output::note;
use super::quorum::{Change, ChangeKind};
use super::{Context, PATIENCE_ASK, PATIENCE_CHANGE};

const HEADER: [&str; 9] =
    ["id", "address", "role", "leader", "alive", "engine", "model", "slots", "leases"];

pub(super) async fn run(context: &Context, command: MemberCommand) -> Result<Exit, Failure> {
    let patience = match command {
        MemberCommand::List => PATIENCE_ASK,
        _ => PATIENCE_CHANGE,
    };
    let client = context.client(patience)?;
    let members = client.members().await?;
    match command {
        MemberCommand::List => list(context, &members),
        MemberCommand::Add { address, consent } => {
            let change = Change::add(&members, &address);
            carry_out(context, &client, &change, consent).await
        }
        MemberCommand::Promote { node, consent } => {
            let change = Change::promote(&members, find(&members, node)?);
            carry_out(context, &client, &change, consent).await
        }
        MemberCommand::Remove { node, consent } => {
            let change = Change::remove(&members, find(&members, node)?);
            carry_out(context, &client, &change, consent).await
        }
    }
}

fn list(context: &Context, members: &[Member]) -> Result<Exit, Failure> {
    let views = members.iter().map(MemberView::from);
    if context.output.is_json() {
        let body = Body::Members { members: views.collect() };
        context.output.document(&Document::from(body))?;
    } else {
        let rows: Vec<_> = views.map(|view| view.cells()).collect();
        context.output.table(&HEADER, &rows)?;
    }
    Ok(Exit::Ok)
}

fn find(members: &[Member], node: NodeId) -> Result<&Member, Failure> {
    members.iter().find(|member| member.node == node).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no member {node}"))
            .hint("`atelier member list` shows who there is")
    })
}

/// Shows what the change does to the quorum, refuses it where none would be left, asks, does it.
async fn carry_out(
    context: &Context,
    client: &Client,
    change: &Change,
    consent: Consent,
) -> Result<Exit, Failure> {
    if !context.output.is_json() {
        note(&change.describe());
    }
    if change.loses_quorum() {
        return Err(Failure::new(Exit::Conflict, "the cluster could decide nothing afterwards")
            .why([format!(
                "{} of {} voters would be alive, and {} must agree",
                change.after.alive,
                change.after.total,
                change.after.quorum()
            )])
            .hint("bring the other voters up first, or add and promote new ones"));
    }
    if consent.dry_run {
        note("dry run: nothing was changed");
        return report(context, change, change.node, false);
    }
    if change.kind == ChangeKind::Remove && !consent.yes {
        confirm(change).await?;
    }
    let node = match (change.kind, change.node) {
        (ChangeKind::Promote, Some(node)) => client.promote_member(node).await?.node,
        (ChangeKind::Remove, Some(node)) => {
            client.remove_member(node).await?;
            node
        }
        (ChangeKind::Add, _) | (_, None) => client.add_member(&change.address).await?.node,
    };
    report(context, change, Some(node), true)
}

fn report(
    context: &Context,
    change: &Change,
    node: Option<NodeId>,
    done: bool,
) -> Result<Exit, Failure> {
    if context.output.is_json() {
        context.output.document(&Document::change(change, node, done))?;
        return Ok(Exit::Ok);
    }
    let Some(node) = node.filter(|_| done) else { return Ok(Exit::Ok) };
    match change.kind {
        ChangeKind::Add => {
            context.output.line(&node.to_string())?;
            note(&format!(
                "start its process with node = {node} and join = true; when `atelier status` \
                 shows that it has caught up: atelier member promote {node}"
            ));
        }
        ChangeKind::Promote => context.output.line(&format!("member {node} is a voter"))?,
        ChangeKind::Remove => context.output.line(&format!("member {node} is removed"))?,
    }
    Ok(Exit::Ok)
}

/// Asks to type the id: a removal is not undone by adding, since ids are never used again.
async fn confirm(change: &Change) -> Result<(), Failure> {
    let expected = change.node.map(|node| node.to_string()).unwrap_or_default();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("member {expected} was not removed"))
            .why(["there is no terminal to ask on".to_owned()])
            .hint("say --yes when it is meant, or --dry-run to see what it does"));
    }
    let mut out = std::io::stderr();
    write!(out, "type {expected} to remove it: ")?;
    out.flush()?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(std::io::Error::other)??;
    if line.trim() != expected {
        let what = format!("member {expected} was not removed");
        return Err(Failure::new(Exit::Failed, what)
            .why([format!("expected {expected}, got {:?}", line.trim())]));
    }
    Ok(())
}
