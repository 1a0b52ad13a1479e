//! `atelier member`: who belongs to the cluster, and who decides in it.

use std::net::SocketAddr;

use atelier_client::{Client, Member, NodeId, Replacement, Role};

use super::address::{Place, address, split};
use super::args::{Consent, MemberCommand, PATIENCE_WAIT};
use super::failure::{Exit, Failure};
use super::json::{Body, Document, MemberView};
use super::output::{dash, note};
use super::quorum::{Change, ChangeKind};
use super::reader::Reader;
use super::{Context, PATIENCE_CHANGE, change, drain, wait};

const HEADER: [&str; 11] = [
    "id", "address", "role", "leader", "alive", "engine", "model", "slots", "leases", "state",
    "labels",
];

pub(super) async fn run(context: &Context, command: MemberCommand) -> Result<Exit, Failure> {
    if let MemberCommand::List { stale } = command {
        return list(context, &Reader::new(context, stale).await?).await;
    }
    let patience = match &command {
        // The newcomer's process may have to be started first.
        MemberCommand::Replace { .. } => PATIENCE_WAIT,
        _ => PATIENCE_CHANGE,
    };
    let client = context.client(patience)?;
    let members = client.members().await?;
    let find = |node| find(&members, node);
    let (change, consent) = match command {
        // Told above.
        MemberCommand::List { .. } => return Ok(Exit::Ok),
        MemberCommand::Drain { node, wait, reason } => {
            return drain::drain(context, &client, find(node)?, wait, reason).await;
        }
        MemberCommand::Resume { node, reason } => {
            return drain::resume(context, &client, find(node)?, reason).await;
        }
        MemberCommand::Label { node, labels } => {
            return drain::label(context, &client, find(node)?, labels).await;
        }
        MemberCommand::Replace { node, by, consent } => {
            let leaves = find(node)?;
            let comes = by.known(&members).transpose()?;
            check_newcomer(leaves, comes)?;
            let change = Change::replace(&members, leaves, comes);
            return replace(context, &client, &change, &by, &consent).await;
        }
        MemberCommand::Add { address, consent } => (Change::add(&members, &address), consent),
        MemberCommand::Promote { node, consent } => {
            (Change::promote(&members, find(node)?), consent)
        }
        MemberCommand::Demote { node, consent } => (Change::demote(&members, find(node)?), consent),
        MemberCommand::Remove { node, consent } => (Change::remove(&members, find(node)?), consent),
    };
    carry_out(context, &client, &change, &consent).await
}

async fn list(context: &Context, reader: &Reader) -> Result<Exit, Failure> {
    let members = reader.client.members().await?;
    let views = members.iter().map(MemberView::from);
    if context.output.is_json() {
        reader.document(context, Body::Members { members: views.collect() })?;
    } else {
        let rows: Vec<_> = views.map(|view| view.cells()).collect();
        context.output.table(&HEADER, &rows)?;
        reader.told();
    }
    Ok(Exit::Ok)
}

fn find(members: &[Member], node: NodeId) -> Result<&Member, Failure> {
    members.iter().find(|member| member.node == node).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no member {node}"))
            .hint("`atelier member list` shows who there is")
    })
}

/// Refuses whoever cannot take a member's place, in a dry run as well.
fn check_newcomer(leaves: &Member, comes: Option<&Member>) -> Result<(), Failure> {
    let Some(comes) = comes else { return Ok(()) };
    let node = comes.node;
    if node == leaves.node {
        let what = format!("member {node} cannot take its own place");
        return Err(Failure::new(Exit::Usage, what)
            .why([format!("member {node} is at {}", leaves.address)])
            .hint("name another peer's address, or the id of a learner, with --by"));
    }
    if comes.role == Role::Voter {
        let leaves = leaves.node;
        let what = format!("member {node} votes already, and cannot take the place of {leaves}");
        return Err(Failure::new(Exit::Conflict, what)
            .hint(format!("to have one voter less: atelier member remove {leaves}"))
            .hint("name another peer's address, or the id of a learner, with --by"));
    }
    Ok(())
}

/// Shows what the change does to the quorum, refuses what must not be, asks. Returns whether to go
/// on.
async fn agreed(context: &Context, change: &Change, consent: &Consent) -> Result<bool, Failure> {
    if !context.output.is_json() {
        note(&change.describe());
    }
    if change.loses_quorum() && !consent.force_unsafe {
        return Err(Failure::new(Exit::Conflict, "the cluster could decide nothing afterwards")
            .why([format!(
                "{} of {} voters would be alive, and {} must agree",
                change.after.alive,
                change.after.total,
                change.after.quorum()
            )])
            .hint("bring the other voters up first, or add and promote new ones")
            .hint("a majority that is lost for good: `atelier cluster recover --help`"));
    }
    let unasked_pair =
        change.makes_two_voters() && !consent.accept_two_voters && !consent.force_unsafe;
    if consent.dry_run {
        if unasked_pair {
            note("it would be refused: two voters must be asked for with --accept-two-voters");
        }
        note("dry run: nothing was changed");
        return Ok(false);
    }
    if unasked_pair {
        return Err(Failure::new(Exit::Conflict, "there would be two voters")
            .why(["two tolerate no failure, and one of two fails twice as often".to_owned()])
            .hint("have one or three; a peer with witness = true is a cheap third")
            .hint("on the way from one size to another: --accept-two-voters"));
    }
    if change.kind.is_grave() && !consent.yes {
        confirm(change).await?;
    }
    Ok(true)
}

async fn carry_out(
    context: &Context,
    client: &Client,
    change: &Change,
    consent: &Consent,
) -> Result<Exit, Failure> {
    if !agreed(context, change, consent).await? {
        return report(context, change, change.node, Done::No);
    }
    let node = match (change.kind, change.node) {
        (ChangeKind::Promote, Some(node)) => {
            wait::caught_up(context, client, node).await?;
            client.promote_member(node).await?.node
        }
        (ChangeKind::Demote, Some(node)) => client.demote_member(node).await?.node,
        (ChangeKind::Remove, Some(node)) => {
            client.remove_member(node, &consent.reason).await?;
            node
        }
        (ChangeKind::Replace | ChangeKind::Add, _) | (_, None) => {
            client.add_member(&change.address).await?.node
        }
    };
    let name = match change.kind {
        ChangeKind::Add => cluster_name(client).await,
        _ => None,
    };
    report(context, change, Some(node), Done::Yes { name })
}

/// Replaces a member. A newcomer that has no id yet gets one, and is waited for.
async fn replace(
    context: &Context,
    client: &Client,
    change: &Change,
    by: &Newcomer,
    consent: &Consent,
) -> Result<Exit, Failure> {
    let Some(leaves) = change.node else { return Ok(Exit::Ok) };
    if !agreed(context, change, consent).await? {
        return report(context, change, change.node, Done::No);
    }
    let comes = match by {
        Newcomer::Learner(node) => *node,
        Newcomer::Address(address) => {
            let known = client.members().await?;
            let place = Place::of(address);
            let known = known.iter().find(|member| Place::of(&member.address) == place);
            let node = match known {
                Some(member) => member.node,
                None => client.add_member(address).await?.node,
            };
            let name = cluster_name(client).await;
            note(&started(&start_command(node, address, name.as_deref()), name.as_deref()));
            node
        }
    };
    wait::caught_up(context, client, comes).await?;
    let comes = Replacement::Learner(comes);
    let member = client.replace_member(leaves, &comes, &consent.reason).await?;
    report(context, change, Some(member.node), Done::Yes { name: None })
}

/// Whether a change was made.
enum Done {
    No,
    /// With the cluster's name, where a process is to be started for it and the name is known.
    Yes {
        name: Option<String>,
    },
}

/// The cluster's name as configurations have it; after a recovery its lineage follows an `@`.
async fn cluster_name(client: &Client) -> Option<String> {
    let cluster = client.status().await.ok()?.cluster;
    let name = cluster.split_once('@').map_or(cluster.as_str(), |(name, _)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The words with a command that starts a process.
fn started(command: &str, name: Option<&str>) -> String {
    let what = match name {
        Some(_) => "",
        None => {
            "\nNAME must be the cluster's name: the key `cluster` in the configuration of the \
             running peers"
        }
    };
    format!("start its process:\n  {command}{what}")
}

fn report(
    context: &Context,
    change: &Change,
    node: Option<NodeId>,
    done: Done,
) -> Result<Exit, Failure> {
    let name = match &done {
        Done::Yes { name } => name.as_deref(),
        Done::No => None,
    };
    let done = matches!(done, Done::Yes { .. });
    if context.output.is_json() {
        context.output.document(&Document::change(change, node, done))?;
        return Ok(Exit::Ok);
    }
    let Some(node) = node.filter(|_| done) else { return Ok(Exit::Ok) };
    let line = |text: String| context.output.line(&text);
    match change.kind {
        ChangeKind::Add => {
            context.output.line(&node.to_string())?;
            let start = started(&start_command(node, &change.address, name), name);
            note(&format!("{start}\nthen: atelier member promote {node}"));
        }
        ChangeKind::Promote => line(format!("member {node} is a voter"))?,
        ChangeKind::Demote => line(format!("member {node} is a learner"))?,
        ChangeKind::Remove => line(format!("member {node} is removed"))?,
        ChangeKind::Replace => {
            line(format!("member {node} is in the place of {}", dash(change.node)))?;
        }
    }
    Ok(Exit::Ok)
}

/// Who takes a member's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Newcomer {
    Address(String),
    Learner(NodeId),
}

impl Newcomer {
    /// The member that it is already; an id must be one's, an address may be nobody's yet.
    fn known<'a>(&self, members: &'a [Member]) -> Option<Result<&'a Member, Failure>> {
        match self {
            Self::Learner(node) => Some(find(members, *node)),
            Self::Address(address) => {
                let place = Place::of(address);
                members.iter().find(|member| Place::of(&member.address) == place).map(Ok)
            }
        }
    }
}

/// Reads the id of a learner, or the address of a new peer.
pub(super) fn newcomer(text: &str) -> Result<Newcomer, String> {
    match text.parse() {
        Ok(node) => Ok(Newcomer::Learner(node)),
        Err(_) => address(text).map(Newcomer::Address),
    }
}

/// A label to set, or to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Set(String, String),
    Remove(String),
}

/// Reads KEY=VALUE or KEY-.
pub(super) fn label(text: &str) -> Result<Label, String> {
    if let Some((key, value)) = text.split_once('=')
        && !key.is_empty()
    {
        return Ok(Label::Set(key.to_owned(), value.to_owned()));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok(Label::Remove(key.to_owned())),
        _ => Err("expected KEY=VALUE to set a label, or KEY- to take it away".to_owned()),
    }
}

/// The command line of the peer that is to serve at the address.
fn start_command(node: NodeId, address: &str, cluster: Option<&str>) -> String {
    let (host, port) = split(address).unwrap_or(("HOST", 7861));
    // HTTP goes below gRPC, as in the daemon's defaults.
    let http = if port > 1 { port - 1 } else { port + 1 };
    let listen = if format!("{host}:{port}").parse::<SocketAddr>().is_ok() {
        format!("--grpc {host}:{port} --http {host}:{http}")
    } else {
        // A name can be dialled and not listened on.
        format!("--grpc 0.0.0.0:{port} --http 0.0.0.0:{http} --advertise {address}")
    };
    let cluster = cluster.unwrap_or("NAME");
    format!(
        "atelierd start --join --node {node} --cluster {cluster} {listen} --data DIR --model DIR"
    )
}

/// Asks to type the id: a removal is not undone by adding, since ids are never used again.
async fn confirm(change: &Change) -> Result<(), Failure> {
    let id = change.node.map(|node| node.to_string()).unwrap_or_default();
    let not_done = format!("member {id} was left as it is");
    change::confirm(&id, &format!("to {} it", change.kind.word()), &not_done).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn labels_and_newcomers_are_read() {
        assert_eq!(label("zone=a"), Ok(Label::Set("zone".into(), "a".into())));
        assert_eq!(label("zone="), Ok(Label::Set("zone".into(), String::new())));
        assert_eq!(label("zone-"), Ok(Label::Remove("zone".into())));
        for bad in ["", "=a", "-", "zone"] {
            assert!(label(bad).is_err(), "{bad:?}");
        }
        assert_eq!(newcomer("4"), Ok(Newcomer::Learner(4)));
        assert_eq!(newcomer("http://a:1"), Ok(Newcomer::Address("http://a:1".into())));
        assert!(newcomer("a").is_err());
    }

    #[test]
    fn a_new_member_listens_where_it_is_dialled() {
        assert_eq!(
            start_command(4, "http://[::1]:7891", None),
            "atelierd start --join --node 4 --cluster NAME --grpc [::1]:7891 --http [::1]:7890 \
             --data DIR --model DIR"
        );
        assert_eq!(
            start_command(4, "http://peer-4:7891", Some("studio")),
            "atelierd start --join --node 4 --cluster studio --grpc 0.0.0.0:7891 --http \
             0.0.0.0:7890 --advertise http://peer-4:7891 --data DIR --model DIR"
        );
    }
}
