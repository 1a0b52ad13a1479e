//! What one state has that another has not, in words.

use super::names::Names;
use atelier_state::{Job, State};
use std::collections::BTreeSet;

/// Tells what has changed, a line each.
pub(crate) fn between(before: &State, after: &State, names: &Names) -> Vec<String> {
    let mut lines = Vec::new();
    let ids = before.jobs().chain(after.jobs()).map(|(id, _)| *id);
    for id in ids.collect::<BTreeSet<_>>() {
        let (was, is) = (before.job(id), after.job(id));
        if was != is {
            let (was, is) =
                (was.map_or("not there".to_owned(), told), is.map_or("gone".to_owned(), told));
            lines.push(format!("j{}: {was} → {is}", names.number(id)));
        }
    }
    let nodes = before.nodes().chain(after.nodes()).map(|(node, _)| node);
    for node in nodes.collect::<BTreeSet<_>>() {
        let (was, is) = (before.node(node), after.node(node));
        if was != is {
            let told = |node: Option<&atelier_state::Node>| match node {
                Some(node) => format!("process {} with {} slots", node.incarnation, node.slots),
                None => "not there".to_owned(),
            };
            lines.push(format!("node {node}: {} → {}", told(was), told(is)));
        }
    }
    let rest = [
        ("settings", before.settings_version(), after.settings_version()),
        ("feature level", before.features().into(), after.features().into()),
        ("leases granted", before.assigned_count(), after.assigned_count()),
        ("forgotten", before.forgotten_count(), after.forgotten_count()),
    ];
    let changed = rest.into_iter().filter(|(_, was, is)| was != is);
    lines.extend(changed.map(|(what, was, is)| format!("{what}: {was} → {is}")));
    lines
}

fn told(job: &Job) -> String {
    let lease = job
        .lease()
        .map_or(String::new(), |lease| format!(" {} at node {}", lease.token, lease.node));
    let delay = if job.is_delayed() { ", in back-off" } else { "" };
    format!(
        "{}{lease}, {} leases, {} failed{delay}",
        job.phase.name(),
        job.leases,
        job.attempts.len()
    )
}
