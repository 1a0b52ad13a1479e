//! `atelier member`: who belongs to the cluster, and who decides in it.

use std::io::{IsTerminal, Write};
use std::net::{Ipv6Addr, SocketAddr};

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
                "start its process:\n  {}\nNAME must be the cluster's name: the key `cluster` in \
                 the configuration of the running peers\nwhen `atelier status` shows that it has \
                 caught up: atelier member promote {node}",
                start_command(node, &change.address)
            ));
        }
        ChangeKind::Promote => context.output.line(&format!("member {node} is a voter"))?,
        ChangeKind::Remove => context.output.line(&format!("member {node} is removed"))?,
    }
    Ok(Exit::Ok)
}

/// Reads the address of a member as strictly as the cluster does.
pub(super) fn address(text: &str) -> Result<String, String> {
    let read = split(text).map(|_| text.to_owned());
    read.ok_or_else(|| "expected http://host:port".to_owned())
}

/// Host and port of an address.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.strip_prefix("http://")?.rsplit_once(':')?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    host_fits.then_some((host, port))
}

/// The command line of the peer that is to serve at the address.
fn start_command(node: NodeId, address: &str) -> String {
    let (host, port) = split(address).unwrap_or(("HOST", 7861));
    // HTTP goes below gRPC, as in the daemon's defaults.
    let http = if port > 1 { port - 1 } else { port + 1 };
    let listen = if format!("{host}:{port}").parse::<SocketAddr>().is_ok() {
        format!("--grpc {host}:{port} --http {host}:{http}")
    } else {
        // A name can be dialled and not listened on.
        format!("--grpc 0.0.0.0:{port} --http 0.0.0.0:{http} --advertise {address}")
    };
    format!("atelierd start --join --node {node} --cluster NAME {listen} --data DIR --model DIR")
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_new_member_is_read_strictly() {
        for good in ["http://127.0.0.1:7861", "http://[::1]:1", "http://peer-4.lan:65535"] {
            assert_eq!(address(good).unwrap(), good);
        }
        for bad in
            ["", "127.0.0.1:1", "https://a:1", "http://a", "http://a:0", "http://:1", "http://a:1/"]
        {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_new_member_listens_where_it_is_dialled() {
        assert_eq!(
            start_command(4, "http://[::1]:7891"),
            "atelierd start --join --node 4 --cluster NAME --grpc [::1]:7891 --http [::1]:7890 \
             --data DIR --model DIR"
        );
        assert_eq!(
            start_command(4, "http://peer-4:7891"),
            "atelierd start --join --node 4 --cluster NAME --grpc 0.0.0.0:7891 --http \
             0.0.0.0:7890 --advertise http://peer-4:7891 --data DIR --model DIR"
        );
    }
}
