//! `atelier job`: list, show, watch, fetch, cancel; the rest is in `submit` and `letters`.

use std::cell::RefCell;
use std::path::PathBuf;

use atelier_client::{Accepted, Client, Error, Generated, Job, JobId, JobPage, Phase};

use super::args::{JobCommand, ListArgs};
use super::failure::{Exit, Failure};
use super::generate::{check_picture, deliver};
use super::json::{Body, Document, JobView};
use super::output::{Output, dash, note, short};
use super::pause::{Waiting, told_while};
use super::progress::Progress;
use super::reader::Reader;
use super::{Context, PATIENCE_ASK, PATIENCE_CHANGE, letters, submit};

/// A prompt in a list is cut to this.
const PROMPT_CHARS_MAX: usize = 48;
/// The most that one call lists.
const LIST_MAX: u32 = 1_000;

pub(super) async fn run(context: &Context, command: JobCommand) -> Result<Exit, Failure> {
    match command {
        JobCommand::Submit(args) => submit::run(context, args).await,
        JobCommand::Retry(args) => letters::retry(context, args).await,
        JobCommand::Purge(args) => letters::purge(context, args).await,
        JobCommand::List(args) => list(context, args).await,
        JobCommand::Show { id, stale } => {
            let reader = Reader::new(context, stale).await?;
            let job = reader.client.job(id).await?;
            if context.output.is_json() {
                reader.document(context, Body::Job { job: (&job).into() })?;
                return Ok(Exit::Ok);
            }
            show(context, &job)?;
            reader.told();
            Ok(Exit::Ok)
        }
        JobCommand::Watch { id } => watch(context, id).await,
        JobCommand::Fetch { id, to } => fetch(context, id, to).await,
        JobCommand::Cancel { id } => cancel(context, id).await,
    }
}

async fn list(context: &Context, args: ListArgs) -> Result<Exit, Failure> {
    let reader = Reader::new(context, args.stale).await?;
    let phases: Vec<Phase> = args.phase.iter().copied().map(Phase::from).collect();
    let page = match args.all {
        true => every(&reader.client, &phases, &args.after).await?,
        false => reader.client.jobs_after(&phases, args.limit, &args.after).await?,
    };
    if context.output.is_json() {
        let jobs = page.jobs.iter().map(JobView::from).collect();
        let body = Body::Jobs { jobs, total: page.total, next: page.next };
        reader.document(context, body)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<_> = page.jobs.iter().map(|job| row(context.output, job)).collect();
    let header = ["job", "phase", "position", "peer", "tenant", "submitted", "prompt"];
    context.output.table(&header, &rows)?;
    if let Some(next) = page.next {
        let told = format!("{} of {}", rows.len(), page.total);
        note(&format!("{told}; go on with --after {next}, or take --all"));
    }
    reader.told();
    Ok(Exit::Ok)
}

/// Every job of these phases, from a place on, by as many calls as it takes.
///
/// The pages are held together: a job is small, and the cluster itself remembers them in memory.
pub(super) async fn every(
    client: &Client,
    phases: &[Phase],
    after: &str,
) -> Result<JobPage, Failure> {
    let mut page = client.jobs_after(phases, LIST_MAX, after).await?;
    while let Some(next) = page.next.take() {
        let more = client.jobs_after(phases, LIST_MAX, &next).await?;
        page.jobs.extend(more.jobs);
        page.total = more.total;
        // A peer that names the same place again would be asked for ever.
        page.next = more.next.filter(|more| *more != next);
    }
    Ok(page)
}

fn row(output: Output, job: &Job) -> Vec<String> {
    let prompt =
        job.parameters.as_ref().map(|parameters| short(&parameters.prompt, PROMPT_CHARS_MAX));
    vec![
        job.job.to_string(),
        job.phase.to_string(),
        dash(job.position),
        dash(job.node),
        job.tenant.clone(),
        output.moment(job.submitted_ms),
        dash(prompt),
    ]
}

fn show(context: &Context, job: &Job) -> Result<Exit, Failure> {
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Job { job: job.into() }))?;
        return Ok(Exit::Ok);
    }
    let mut rows = vec![
        ("job", job.job.to_string()),
        ("phase", job.phase.to_string()),
        ("position", dash(job.position)),
        ("peer", dash(job.node)),
        ("tenant", job.tenant.clone()),
        ("priority", job.priority.to_string()),
        ("submitted", context.output.moment(job.submitted_ms)),
        ("finished", dash(job.finished_ms.map(|ms| context.output.moment(ms)))),
        ("leases", job.leases.to_string()),
        ("failed attempts", job.attempts.to_string()),
        ("error", dash((!job.error.is_empty()).then_some(&job.error))),
    ];
    let moment = |ms: u64| context.output.moment(ms);
    rows.extend(job.retry_at_ms.map(|ms| ("tried again", moment(ms))));
    rows.extend(job.deadline_ms.map(|ms| ("deadline", moment(ms))));
    rows.extend(job.max_runtime_s.map(|s| ("longest attempt", format!("{s} s"))));
    rows.extend(job.retry_of.map(|job| ("retry of", job.to_string())));
    for attempt in &job.failed_attempts {
        let when = attempt.failed_ms.map(moment);
        let text = format!("peer {}, {}: {}", dash(attempt.node), dash(when), attempt.error);
        rows.push(("failed attempt", text));
    }
    if let Some(parameters) = &job.parameters {
        let or_model = |value: u32| dash((value > 0).then_some(value));
        rows.push(("prompt", parameters.prompt.clone()));
        rows.push(("width", or_model(parameters.width)));
        rows.push(("height", or_model(parameters.height)));
        rows.push(("steps", or_model(parameters.steps)));
        rows.push(("seed", parameters.seed.to_string()));
        rows.push(("images", parameters.images.to_string()));
    }
    for artifact in &job.artifacts {
        let text =
            format!("{} ({}, {} bytes)", artifact.digest, artifact.media_type, artifact.bytes);
        rows.push(("artifact", text));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.output.table(&["field", "value"], &rows)?;
    Ok(Exit::Ok)
}

async fn cancel(context: &Context, id: JobId) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let known = client.job(id).await?;
    let job = match known.phase {
        Phase::Cancelled => {
            note(&format!("job {id} is already cancelled"));
            known
        }
        _ => client.cancel(id).await.map_err(|error| not_cancelled(id, error))?,
    };
    show(context, &job)
}

fn not_cancelled(id: JobId, error: Error) -> Failure {
    match error {
        Error::Conflict { .. } => {
            let what = format!("job {id} is over, and cannot be cancelled");
            let hints = [
                format!("`atelier job show {id}` tells how it ended"),
                format!("`atelier job purge {id}` forgets it"),
            ];
            Failure::new(Exit::Conflict, what).why([error.to_string()]).hints(hints)
        }
        error => error.into(),
    }
}

async fn watch(context: &Context, id: JobId) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_ASK)?;
    let (progress, waiting) = (RefCell::new(Progress::new()), Waiting::default());
    let follow = async {
        let mut watch = client.watch(id);
        let mut last = None;
        while let Some(event) = watch.next().await {
            let event = event?;
            waiting.observe(&event);
            if context.output.is_json() {
                context.output.document_line(&Document::event(&event))?;
            } else {
                progress.borrow_mut().tell(&event);
            }
            last = Some(event.job);
        }
        Ok::<_, Failure>(last)
    };
    let say = |words: &str| progress.borrow().remark(words);
    let last = told_while(context, &client, &waiting, say, follow).await?;
    drop(progress);
    let Some(job) = last else { return Ok(Exit::Failed) };
    if !context.output.is_json() {
        show(context, &job)?;
    }
    match job.phase {
        Phase::Succeeded => Ok(Exit::Ok),
        phase => Err(Failure::new(Exit::Failed, format!("job {id} {}", ended(phase)))
            .why((!job.error.is_empty()).then_some(job.error))),
    }
}

const fn ended(phase: Phase) -> &'static str {
    match phase {
        Phase::Cancelled => "was cancelled",
        Phase::Failed => "failed",
        Phase::Queued | Phase::Leased | Phase::Succeeded => "is not over",
    }
}

async fn fetch(context: &Context, id: JobId, to: Option<PathBuf>) -> Result<Exit, Failure> {
    if let Some(to) = &to {
        check_picture(to)?;
    }
    let client = context.patient_client()?;
    // Asked first, so that an unknown id fails at once rather than being waited for.
    let known = client.job(id).await?;
    let job = if known.phase == Phase::Succeeded {
        known
    } else {
        let (progress, waiting) = (RefCell::new(Progress::new()), Waiting::default());
        let finish = client.finish(id, |event| {
            waiting.observe(event);
            progress.borrow_mut().tell(event);
        });
        let say = |words: &str| progress.borrow().remark(words);
        told_while(context, &client, &waiting, say, finish).await?
    };
    let images = client.fetch(&job).await?;
    let accepted = Accepted { job: id, duplicate: true, log_index: job.log_index };
    deliver(context, to, &Generated { accepted, job, images }, None)
}
