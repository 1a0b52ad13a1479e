//! `atelier member drain`, `resume`, `label`: what operators say about a member.

use std::time::Duration;

use atelier_client::{Client, Member, MemberUpdate, NodeId};
use tokio::time::{Instant, sleep};

use super::failure::{Exit, Failure};
use super::json::{Body, Document, MemberView};
use super::member::Label;
use super::output::note;
use super::{Context, wait};

/// Between two looks at what a draining member still draws.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn drain(
    context: &Context,
    client: &Client,
    member: &Member,
    wait: bool,
    why: String,
) -> Result<Exit, Failure> {
    let node = member.node;
    let update = MemberUpdate { draining: Some(true), why, ..MemberUpdate::default() };
    let mut drained = match member.draining {
        true => {
            note(&format!("member {node} drains already"));
            member.clone()
        }
        false => client.set_member(node, &update).await?,
    };
    if member.leader {
        let heir = client.transfer_leader(None).await?;
        note(&format!("member {heir} leads now"));
        drained.leader = false;
    }
    if wait {
        drained = idle(context, client, drained).await?;
    }
    let text = match drained.leases {
        0 => {
            format!("member {node} is drained: stop its process, or `atelier member resume {node}`")
        }
        leases => format!("member {node} gets no new jobs, and draws {leases}"),
    };
    report(context, &drained, &text)
}

pub(super) async fn resume(
    context: &Context,
    client: &Client,
    member: &Member,
    why: String,
) -> Result<Exit, Failure> {
    let update = MemberUpdate { draining: Some(false), why, ..MemberUpdate::default() };
    if !member.draining {
        let text = format!("member {} does not drain; nothing was changed", member.node);
        return report(context, member, &text);
    }
    let resumed = client.set_member(member.node, &update).await?;
    report(context, &resumed, &format!("member {} gets jobs again", member.node))
}

pub(super) async fn label(
    context: &Context,
    client: &Client,
    member: &Member,
    labels: Vec<Label>,
) -> Result<Exit, Failure> {
    let mut update = MemberUpdate::default();
    for label in labels {
        check_plain(&label)?;
        match label {
            Label::Set(key, value) => drop(update.labels_set.insert(key, value)),
            Label::Remove(key) => update.labels_removed.push(key),
        }
    }
    let labelled = client.set_member(member.node, &update).await?;
    let view = MemberView::from(&labelled);
    report(context, &labelled, &format!("member {}: {}", member.node, view.labels()))
}

/// Refuses what would steer the terminal of whoever lists the members. Not while the arguments are
/// read: there what came is repeated as it came.
fn check_plain(label: &Label) -> Result<(), Failure> {
    let text = match label {
        Label::Set(key, value) => format!("{key}={value}"),
        Label::Remove(key) => format!("{key}-"),
    };
    if text.contains(char::is_control) {
        let what = format!("a label has no control characters, got {text:?}");
        return Err(Failure::new(Exit::Usage, what).hint("nothing was changed"));
    }
    Ok(())
}

/// Waits until a member draws nothing and leads nobody.
async fn idle(context: &Context, client: &Client, member: Member) -> Result<Member, Failure> {
    let deadline = wait::deadline(context);
    let total = u64::from(member.leases);
    let bar = wait::bar(total, format!("member {} finishes its jobs", member.node));
    loop {
        let now = look(client, member.node).await?;
        bar.set_position(total.saturating_sub(u64::from(now.leases)));
        if now.leases == 0 && !now.leader {
            bar.finish_and_clear();
            return Ok(now);
        }
        if Instant::now() >= deadline {
            let leases = now.leases;
            return Err(wait::late(format!("member {} still draws {leases} jobs", member.node)));
        }
        sleep(PAUSE).await;
    }
}

async fn look(client: &Client, node: NodeId) -> Result<Member, Failure> {
    let found = client.members().await?.into_iter().find(|member| member.node == node);
    found.ok_or_else(|| Failure::new(Exit::NotFound, format!("member {node} is gone")))
}

fn report(context: &Context, member: &Member, text: &str) -> Result<Exit, Failure> {
    if context.output.is_json() {
        let members = vec![MemberView::from(member)];
        context.output.document(&Document::from(Body::Members { members }))?;
    } else {
        context.output.line(text)?;
    }
    Ok(Exit::Ok)
}
