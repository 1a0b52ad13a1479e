//! `atelier job retry` and `job purge`: what becomes of jobs that are over.

use std::collections::BTreeSet;

use atelier_client::{Author, Client, Error, JobId, Phase};
use futures_util::stream::{self, StreamExt};

use super::args::{PurgeArgs, RetryArgs};
use super::change::{confirm, who};
use super::failure::{Exit, Failure};
use super::job::every;
use super::json::{Body, Document, NotPurgedView};
use super::output::note;
use super::{Context, PATIENCE_CHANGE};

/// Jobs that one call forgets.
const PURGE_JOBS_MAX: usize = 1_000;
/// Jobs that are looked at side by side.
const LOOKS_MAX: usize = 16;

pub(super) async fn retry(context: &Context, args: RetryArgs) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    // What was retried by then is left out; of what is retried from here on the answer may be lost,
    // and a repeat then tells the same new job.
    let (ids, begun) = match args.all {
        true => {
            let begun = client.status().await?.last_log_index;
            let failed = every(&client, &[Phase::Failed], "").await?;
            (failed.jobs.iter().map(|job| job.job).collect(), Some(begun))
        }
        false => (args.ids, None),
    };
    let (mut retried, mut before) = (0_usize, 0_usize);
    for id in &ids {
        let accepted = match client.retry(*id).await {
            // Forgotten meanwhile.
            Err(Error::NotFound { .. }) if args.all => continue,
            accepted => accepted.map_err(|error| {
                let left = ids.len() - before - retried;
                broken_off(*id, error, Tally { retried, left, all: args.all })
            })?,
        };
        if accepted.duplicate && begun.is_some_and(|begun| accepted.log_index <= begun) {
            before += 1;
            continue;
        }
        retried += 1;
        let job = accepted.job.to_string();
        if context.output.is_json() {
            let (duplicate, log_index) = (accepted.duplicate, accepted.log_index);
            let body = Body::Retried { job, retry_of: id.to_string(), duplicate, log_index };
            context.output.document_line(&Document::from(body))?;
        } else {
            context.output.line(&job)?;
        }
    }
    match (retried, before) {
        (0, 0) => note("no job has failed"),
        (0, _) => note(&format!("each of the {before} failed jobs was retried before")),
        (_, 0) => {}
        (_, _) => note(&format!("{before} more failed jobs were retried before")),
    }
    Ok(Exit::Ok)
}

/// How far a retry of several jobs has come.
struct Tally {
    retried: usize,
    left: usize,
    all: bool,
}

/// What is told when a retry ends before the last job.
fn broken_off(id: JobId, error: Error, tally: Tally) -> Failure {
    let is_conflict = matches!(error, Error::Conflict { .. });
    let mut failure = Failure::from(error);
    if is_conflict {
        let hint = format!("only a failed job is retried: atelier job show {id}");
        failure = failure.hinted([hint]);
    }
    let Tally { retried, left, all } = tally;
    if retried == 0 {
        return failure;
    }
    let why = format!("job {id}: {}", failure.what);
    let what = format!("{retried} jobs were retried, and {left} are left");
    let go_on = match all {
        true => "go on with `atelier job retry --all`: what was retried is left out".to_owned(),
        false => format!("go on with the ids from {id} on: a repeat is the same new job"),
    };
    let why = std::iter::once(why).chain(std::mem::take(&mut failure.why)).collect();
    Failure { exit: Exit::Partial, what, why, ..failure }.hint(go_on)
}

pub(super) async fn purge(context: &Context, args: PurgeArgs) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let phases: Vec<Phase> = args.phase.iter().copied().map(Phase::from).collect();
    if let Some(phase) = phases.iter().find(|phase| !phase.is_terminal()) {
        let what = format!("{phase} jobs are not over, and cannot be forgotten");
        return Err(Failure::new(Exit::Usage, what).hint("cancel them first"));
    }
    let (ids, left) = sorted(&client, args.ids).await?;
    let wanted = match phases.is_empty() {
        true => ids.len() as u64,
        false => client.jobs(&phases, 1).await?.total,
    };
    if args.dry_run {
        note("dry run: nothing was changed");
        return report(context, wanted, left, true);
    }
    if wanted > 0 && !args.yes {
        let lost = "their pictures and errors are gone with them";
        note(&format!("this forgets {wanted} jobs for good; {lost}"));
        confirm(&wanted.to_string(), "to forget them", "nothing was forgotten").await?;
    }
    let author = Author { who: who(), why: args.reason, at_ms: 0 };
    let mut purged = 0;
    for ids in ids.chunks(PURGE_JOBS_MAX) {
        purged += u64::from(client.purge(ids, &author).await?.purged);
    }
    // No more than was counted and confirmed: jobs end meanwhile.
    while !phases.is_empty() && purged < wanted {
        let limit = u32::try_from(wanted - purged).unwrap_or(u32::MAX).min(PURGE_JOBS_MAX as u32);
        let slice = client.purge_phases(&phases, limit, &author).await?;
        purged += u64::from(slice.purged);
        if slice.purged == 0 {
            break;
        }
    }
    report(context, purged, left, false)
}

/// Those that are over, and why the others are left.
async fn sorted(
    client: &Client,
    ids: Vec<JobId>,
) -> Result<(Vec<JobId>, Vec<NotPurgedView>), Failure> {
    let ids: BTreeSet<JobId> = ids.into_iter().collect();
    let look = |id: JobId| async move { (id, client.job(id).await) };
    let mut looks = stream::iter(ids.into_iter().map(look)).buffered(LOOKS_MAX);
    let (mut over, mut left) = (Vec::new(), Vec::new());
    while let Some((id, known)) = looks.next().await {
        match known {
            Ok(job) if job.phase.is_terminal() => over.push(id),
            Ok(job) => left.push(NotPurgedView::unfinished(id, job.phase)),
            Err(Error::NotFound { .. }) => left.push(NotPurgedView::unknown(id)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((over, left))
}

/// Tells how many jobs are forgotten, and why each of the others is not.
fn report(
    context: &Context,
    jobs: u64,
    left: Vec<NotPurgedView>,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let exit = match left.as_slice() {
        [] => Exit::Ok,
        _ if jobs > 0 => Exit::Partial,
        left if left.iter().all(|one| one.phase.is_none()) => Exit::NotFound,
        _ => Exit::Conflict,
    };
    let why: Vec<String> = left.iter().map(NotPurgedView::told).collect();
    let running = left.iter().find(|one| one.phase.is_some()).map(|one| one.job.clone());
    let unknown = left.iter().any(|one| one.phase.is_none());
    if context.output.is_json() {
        let body = Body::Purged { jobs, dry_run, not_purged: left };
        context.output.document(&Document::from(body))?;
    } else {
        let verb = if dry_run { "would be" } else { "are" };
        context.output.line(&format!("{jobs} jobs {verb} forgotten"))?;
    }
    if exit == Exit::Ok {
        return Ok(exit);
    }
    let verb = if dry_run { "would not be" } else { "were not" };
    let stop = running.map(|id| format!("stop it first: atelier job cancel {id}"));
    let list = unknown.then(|| "`atelier job list` shows what there is".to_owned());
    Err(Failure::new(exit, format!("{} jobs {verb} forgotten", why.len()))
        .why(why)
        .hints(stop)
        .hints(list))
}
