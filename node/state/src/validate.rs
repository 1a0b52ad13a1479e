//! What a command may look like, whatever the state holds.
//!
//! `apply` asks before anything else; the gateway may ask before it proposes, so that nonsense
//! never enters the log.

use crate::command::{
    Command, Complete, Fail, RegisterNode, RemoveNode, Revoke, SetNode, SetSettings, Submit,
};
use crate::job::{ArtifactRef, JobId};
use crate::lease::FencingToken;
use crate::limits::{
    ARTIFACTS_MAX, ATTEMPTS_MAX, COST_MAX, FORGET_JOBS_MAX, FORGET_KEYS_MAX, HOLDERS_MAX,
    LABELS_MAX, NAME_BYTES_MAX, PARAMETERS_BYTES_MAX, PRIORITY_MAX, RELEASE_JOBS_MAX,
    SETTINGS_CHANGES_MAX, SLOTS_MAX, TEXT_BYTES_MAX,
};
use crate::reply::Refusal;
use crate::roster::NodeId;
use crate::settings;
use crate::trail::Author;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Checks a command against the limits.
///
/// # Errors
/// `Refusal::Invalid` alone; its text names the field, what was expected and what came.
pub fn check(command: &Command) -> Result<(), Refusal> {
    match command {
        Command::Submit(submit) => check_submit(submit),
        Command::Assign(assign) => {
            check_job(assign.job)?;
            check_node("node", assign.node)
        }
        Command::Complete(complete) => check_complete(complete),
        Command::Fail(Fail { job, token, .. }) => check_holder(*job, *token),
        Command::Revoke(Revoke { job, token, .. }) => check_holder(*job, *token),
        Command::Cancel(cancel) => check_job(cancel.job),
        Command::Forget(forget) => count("jobs", forget.jobs.len(), 0..=FORGET_JOBS_MAX),
        Command::AllocateNode(allocate) => {
            length("address", allocate.address.len(), 1..=TEXT_BYTES_MAX)
        }
        Command::RegisterNode(register) => check_register(register),
        Command::RemoveNode(RemoveNode { node, author }) => {
            check_node("node", *node)?;
            check_author(author)
        }
        Command::Release(release) => count("jobs", release.jobs.len(), 0..=RELEASE_JOBS_MAX),
        Command::Expire(expire) => check_job(expire.job),
        Command::ForgetKeys(forget) => count("keys", forget.keys.len(), 0..=FORGET_KEYS_MAX),
        Command::SetSettings(set) => check_settings(set),
        Command::SetNode(set) => check_set_node(set),
        Command::RaiseFeatures(_) | Command::Mark => Ok(()),
        Command::NoteAct(note) => {
            length("act", note.act.len(), 1..=TEXT_BYTES_MAX)?;
            check_author(&note.author)
        }
    }
}

fn check_submit(submit: &Submit) -> Result<(), Refusal> {
    check_job(submit.job)?;
    length("tenant", submit.tenant.len(), 0..=NAME_BYTES_MAX)?;
    if let Some(key) = &submit.idempotency_key {
        // An empty key would make all careless clients of a tenant share one job.
        length("idempotency_key", key.len(), 1..=NAME_BYTES_MAX)?;
    }
    if submit.priority > PRIORITY_MAX {
        return Err(invalid("priority", &format!("0 to {PRIORITY_MAX}"), submit.priority));
    }
    length("kind", submit.kind.len(), 1..=NAME_BYTES_MAX)?;
    length("parameters", submit.parameters.len(), 0..=PARAMETERS_BYTES_MAX)?;
    length("traceparent", submit.traceparent.len(), 0..=NAME_BYTES_MAX)?;
    if !(1..=ATTEMPTS_MAX).contains(&submit.attempts_max) {
        return Err(invalid("attempts_max", &format!("1 to {ATTEMPTS_MAX}"), submit.attempts_max));
    }
    if !(1..=COST_MAX).contains(&submit.cost) {
        return Err(invalid("cost", &format!("1 to {COST_MAX}"), submit.cost));
    }
    submit.retry_of.map_or(Ok(()), check_job)
}

fn check_complete(complete: &Complete) -> Result<(), Refusal> {
    check_holder(complete.job, complete.token)?;
    count("artifacts", complete.artifacts.len(), 1..=ARTIFACTS_MAX)?;
    complete.artifacts.iter().try_for_each(check_artifact)
}

fn check_artifact(artifact: &ArtifactRef) -> Result<(), Refusal> {
    length("media_type", artifact.media_type.len(), 1..=NAME_BYTES_MAX)?;
    // Bytes that nobody holds are no result.
    count("holders", artifact.holders.len(), 1..=HOLDERS_MAX)?;
    artifact.holders.iter().try_for_each(|holder| check_node("holders", *holder))
}

fn check_register(register: &RegisterNode) -> Result<(), Refusal> {
    check_node("node", register.node)?;
    length("address", register.address.len(), 1..=TEXT_BYTES_MAX)?;
    if register.incarnation == 0 {
        return Err(invalid("incarnation", "a number above 0", 0));
    }
    if register.slots > SLOTS_MAX {
        return Err(invalid("slots", &format!("0 to {SLOTS_MAX}"), register.slots));
    }
    if register.witness && register.slots > 0 {
        return Err(invalid("slots", "0 of a witness", register.slots));
    }
    length("class", register.class.len(), 0..=TEXT_BYTES_MAX)?;
    length("model", register.model.len(), 0..=TEXT_BYTES_MAX)
}

fn check_settings(set: &SetSettings) -> Result<(), Refusal> {
    count("changes", set.changes.len(), 1..=SETTINGS_CHANGES_MAX)?;
    let mut keys = BTreeSet::new();
    for change in &set.changes {
        settings::check(change).map_err(Refusal::Invalid)?;
        if !keys.insert(&change.key) {
            return Err(Refusal::Invalid(format!("{}: expected once, got twice", change.key)));
        }
    }
    check_author(&set.author)
}

fn check_set_node(set: &SetNode) -> Result<(), Refusal> {
    check_node("node", set.node)?;
    count("labels_set", set.labels_set.len(), 0..=LABELS_MAX)?;
    count("labels_removed", set.labels_removed.len(), 0..=LABELS_MAX)?;
    for label in set.labels_set.keys().chain(&set.labels_removed) {
        length("label", label.len(), 1..=NAME_BYTES_MAX)?;
    }
    for value in set.labels_set.values() {
        length("label's value", value.len(), 0..=NAME_BYTES_MAX)?;
    }
    check_author(&set.author)
}

fn check_author(author: &Author) -> Result<(), Refusal> {
    length("author.who", author.who.len(), 0..=NAME_BYTES_MAX)?;
    length("author.why", author.why.len(), 0..=TEXT_BYTES_MAX)
}

fn check_holder(job: JobId, token: FencingToken) -> Result<(), Refusal> {
    check_job(job)?;
    if token.0 == 0 { Err(invalid("token", "a number above 0", 0)) } else { Ok(()) }
}

fn check_job(job: JobId) -> Result<(), Refusal> {
    if job.0 == 0 { Err(invalid("job", "a ulid above 0", 0)) } else { Ok(()) }
}

fn check_node(field: &str, node: NodeId) -> Result<(), Refusal> {
    if node.0 == 0 { Err(invalid(field, "a node id above 0", 0)) } else { Ok(()) }
}

fn length(field: &str, bytes: usize, range: RangeInclusive<usize>) -> Result<(), Refusal> {
    bounded(field, "bytes", bytes, range)
}

fn count(field: &str, items: usize, range: RangeInclusive<usize>) -> Result<(), Refusal> {
    bounded(field, "items", items, range)
}

fn bounded(
    field: &str,
    unit: &str,
    got: usize,
    range: RangeInclusive<usize>,
) -> Result<(), Refusal> {
    if range.contains(&got) {
        return Ok(());
    }
    Err(invalid(field, &format!("{} to {} {unit}", range.start(), range.end()), got))
}

/// Says what was expected and what came, without repeating the text that came: it may be huge.
fn invalid(field: &str, expected: &str, got: impl Display) -> Refusal {
    Refusal::Invalid(format!("{field}: expected {expected}, got {got}"))
}
