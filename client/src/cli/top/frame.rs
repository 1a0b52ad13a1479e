//! Draws a snapshot as lines of text. No IO, no clock.

use std::time::Duration;

use atelier_client::{Job, Member, PriorityStats, QueueStats, Stage, Status, TenantStats};

use super::reading::Snapshot;
use crate::cli::json::StatusView;
use crate::cli::output::{ago, aligned, dash, plain, short};
use crate::cli::status;

/// Tenants that are shown; who else waits is counted.
const TENANTS_MAX: usize = 8;
/// A tenant's name is cut to this.
const TENANT_CHARS_MAX: usize = 24;
/// Below the lines, where they are fitted to a screen.
const FOOTER: &str = "q or Ctrl-C leaves";

/// The lines that fit on a screen of so many, with a word on how to leave below.
pub(super) fn fitted(snapshot: &Snapshot<'_>, screen: usize) -> Vec<String> {
    let mut lines = lines(snapshot);
    let (all, room) = (lines.len(), screen.saturating_sub(1).max(1));
    let mut footer = FOOTER.to_owned();
    if all > room {
        lines.truncate(room);
        footer = format!("{FOOTER}; {} more lines do not fit", all - room);
    }
    lines.push(footer);
    lines
}

/// Everything that there is to show.
pub(super) fn lines(snapshot: &Snapshot<'_>) -> Vec<String> {
    let view = status::view(&snapshot.reading.survey);
    let mut lines = heading(snapshot, &view);
    lines.extend(warnings(snapshot, &view));
    let mut section = |text: Option<String>| {
        lines.extend(
            text.iter().flat_map(|text| std::iter::once("").chain(text.lines())).map(plain),
        );
    };
    section(Some(members(snapshot)));
    let queue = snapshot.reading.queue.as_ref();
    section(queue.and_then(|queue| priorities(queue, snapshot.reading.wall_ms)));
    section(queue.and_then(tenants));
    section(running(snapshot));
    lines
}

/// The cluster, its jobs and its rates, a line each.
fn heading(snapshot: &Snapshot<'_>, view: &StatusView) -> Vec<String> {
    let reading = snapshot.reading;
    let leader = match view.leader {
        Some(leader) => format!("peer {leader} leads"),
        None => "nobody leads".to_owned(),
    };
    let term = reading.survey.statuses().map(|status| status.term).max().unwrap_or(0);
    let log = format!("{leader}; term {term}, {} entries committed", reading.committed());
    let jobs = reading.queue.as_ref().map_or("jobs: nobody tells".to_owned(), jobs);
    let rates = match snapshot.rates {
        Some(rates) => format!(
            "a second: {:.1} accepted, {:.1} ended, {:.1} entries",
            rates.accepted, rates.ended, rates.entries
        ),
        None => "a second: - accepted, - ended, - entries".to_owned(),
    };
    [status::arithmetic(view), log, jobs, rates].iter().map(|line| plain(line)).collect()
}

fn jobs(queue: &QueueStats) -> String {
    let QueueStats { queued, delayed, leased, succeeded, failed, cancelled, .. } = queue;
    let paused = if queue.paused { "; PAUSED: nothing is given out" } else { "" };
    format!(
        "jobs: {queued} of {} queued ({delayed} delayed), {leased} being drawn; {succeeded} \
         succeeded, {failed} failed, {cancelled} cancelled{paused}",
        queue.jobs_max
    )
}

/// What is not as it should be.
fn warnings(snapshot: &Snapshot<'_>, view: &StatusView) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(silence) = snapshot.silence {
        let seconds = silence.as_secs();
        lines.push(format!("NO PEER ANSWERS: what follows is {seconds} s old"));
    } else if view.leader.is_none() {
        let text = "NO LEADER: an election is under way, or there is no quorum; what follows is \
                    what the peers last knew";
        lines.push(text.to_owned());
    }
    if view.consistent == Some(false) {
        let text = "DIVERGED: peers at the same applied index have different states; keep all \
                    disks";
        lines.push(text.to_owned());
    }
    lines.extend(view.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(view.peers.iter().filter_map(status::silence).map(|why| format!("silent: {why}")));
    lines.iter().map(|line| plain(line)).collect()
}

fn members(snapshot: &Snapshot<'_>) -> String {
    let committed = snapshot.reading.committed();
    let survey = &snapshot.reading.survey;
    let row = |member: &Member| member_row(member, survey.of(member.node), committed);
    let rows: Vec<_> = survey.members.iter().map(row).collect();
    let header = ["peer", "address", "role", "leads", "alive", "slots", "applied", "lag", "state"];
    aligned(&header, &rows)
}

/// `status` is the member's own account; `None` where it is silent.
fn member_row(member: &Member, status: Option<&Status>, committed: u64) -> Vec<String> {
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let applied = status.map(|status| status.applied_index);
    let state = match (status, member.draining, member.witness) {
        (None, _, _) => "silent",
        (_, true, _) => "draining",
        (_, _, true) => "witness",
        _ => "-",
    };
    vec![
        member.node.to_string(),
        member.address.clone(),
        member.role.word().to_owned(),
        yes(member.leader),
        yes(member.alive),
        format!("{}/{}", member.leases, member.slots),
        dash(applied),
        dash(applied.map(|applied| committed.saturating_sub(applied))),
        state.to_owned(),
    ]
}

fn priorities(queue: &QueueStats, wall_ms: u64) -> Option<String> {
    let row = |of: &PriorityStats| {
        let age = |ms: u64| ago(Duration::from_millis(wall_ms.saturating_sub(ms)));
        vec![of.priority.to_string(), of.queued.to_string(), dash(of.oldest_ms.map(age))]
    };
    let rows: Vec<_> = queue.priorities.iter().map(row).collect();
    (!rows.is_empty()).then(|| aligned(&["priority", "queued", "oldest"], &rows))
}

fn tenants(queue: &QueueStats) -> Option<String> {
    let row = |of: &TenantStats| {
        let numbers = [of.queued, of.leased, of.weight].map(|number| number.to_string());
        [vec![short(&of.tenant, TENANT_CHARS_MAX)], numbers.to_vec()].concat()
    };
    let rows: Vec<_> = queue.tenants.iter().take(TENANTS_MAX).map(row).collect();
    let more = queue.tenants.len().saturating_sub(TENANTS_MAX);
    let more = if more > 0 { format!("\nand {more} more tenants") } else { String::new() };
    let table = || aligned(&["tenant", "queued", "leased", "weight"], &rows) + &more;
    (!rows.is_empty()).then(table)
}

fn running(snapshot: &Snapshot<'_>) -> Option<String> {
    let page = &snapshot.reading.running;
    let rows: Vec<_> = page.jobs.iter().map(|job| job_row(snapshot, job)).collect();
    let more = page.total.saturating_sub(rows.len() as u64);
    let more = if more > 0 { format!("\nand {more} more jobs") } else { String::new() };
    let header = ["being drawn", "peer", "at", "tenant", "priority", "leases", "submitted"];
    (!rows.is_empty()).then(|| aligned(&header, &rows) + &more)
}

fn job_row(snapshot: &Snapshot<'_>, job: &Job) -> Vec<String> {
    let at = snapshot.step(job).map(|at| match &at.stage {
        Stage::Denoise => format!("step {} of {}", at.step, at.steps),
        stage => stage.word().to_owned(),
    });
    let age = Duration::from_millis(snapshot.reading.wall_ms.saturating_sub(job.submitted_ms));
    vec![
        job.job.to_string(),
        dash(job.node),
        dash(at),
        short(&job.tenant, TENANT_CHARS_MAX),
        job.priority.to_string(),
        job.leases.to_string(),
        ago(age),
    ]
}

#[cfg(test)]
mod tests;
