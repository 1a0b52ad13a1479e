//! `atelier job submit`: a job from flags, or one for each line of a file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use atelier_client::{
    BATCH_JOBS_MAX, BatchOutcome, BatchRefusal, Client, RefusalKind, Source, Submission,
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::args::{JobOptions, SubmitArgs};
use super::failure::{Exit, Failure};
use super::generate::{source, submission, submit};
use super::json::{Body, Document};
use super::output::note;
use super::{Context, PATIENCE_CHANGE};

/// `--file` of this is standard input.
const STDIN: &str = "-";
/// Lines that were read and wait for their batch. Filled by the reading thread, which then waits.
const LINES_WAITING_MAX: usize = 2 * BATCH_JOBS_MAX;

pub(super) async fn run(context: &Context, args: SubmitArgs) -> Result<Exit, Failure> {
    let client = context.client(PATIENCE_CHANGE)?;
    let Some(file) = &args.file else {
        let mut wanted = submission(&args.prompt.unwrap_or_default(), &args.wanted);
        wanted.parameters.source = source(&client, &args.wanted).await?;
        context.say_on_interrupt(format!("submit it again with --job-id {}", wanted.job));
        return submit(context, &client, &wanted).await;
    };
    // One picture for all lines.
    let source = source(&client, &args.wanted).await?;
    let mut lines = read(file, Defaults { wanted: args.wanted, source })?;
    let mut tally = Tally::default();
    loop {
        let mut read = Vec::new();
        if lines.recv_many(&mut read, BATCH_JOBS_MAX).await == 0 {
            return tally.told();
        }
        let mut batch = Vec::new();
        let mut unreadable = None;
        for (number, line) in read {
            match line {
                Ok(wanted) => batch.push((number, wanted)),
                Err(failure) => unreadable = Some(failure),
            }
        }
        context.say_on_interrupt(tally.words());
        if !batch.is_empty() {
            send(context, &client, &batch, &mut tally).await?;
        }
        if let Some(failure) = unreadable {
            return Err(tally.so_far(failure));
        }
    }
}

async fn send(
    context: &Context,
    client: &Client,
    batch: &[Numbered],
    tally: &mut Tally,
) -> Result<(), Failure> {
    let wanted: Vec<Submission> = batch.iter().map(|(_, wanted)| wanted.clone()).collect();
    let outcomes =
        client.submit_batch(&wanted).await.map_err(|error| tally.so_far(Failure::from(error)))?;
    for ((number, wanted), outcome) in batch.iter().zip(outcomes) {
        (tally.line, tally.jobs) = (*number, tally.jobs + 1);
        match outcome {
            BatchOutcome::Accepted(accepted) => {
                tally.accepted += 1;
                let job = accepted.job.to_string();
                if context.output.is_json() {
                    let (duplicate, log_index) = (accepted.duplicate, accepted.log_index);
                    let seed = wanted.parameters.seed;
                    let body = Body::Submitted { job, duplicate, log_index, seed };
                    context.output.document_line(&Document::from(body))?;
                } else {
                    context.output.line(&job)?;
                }
            }
            BatchOutcome::Refused(refusal) => tally.refused(context, refusal)?,
        }
    }
    Ok(())
}

/// A line's number, from 1, and the job that it asks for.
type Numbered = (u64, Submission);

/// What became of the lines so far.
#[derive(Debug, Default)]
struct Tally {
    /// The number of the last line that was answered.
    line: u64,
    jobs: u64,
    accepted: u64,
    /// Nobody knows whether these were accepted.
    unknown: u64,
    /// The first refusal; its kind decides the exit code where nothing was accepted.
    first: Option<RefusalKind>,
}

impl Tally {
    fn refused(&mut self, context: &Context, refusal: BatchRefusal) -> Result<(), Failure> {
        self.first.get_or_insert(refusal.kind);
        let BatchRefusal { job, kind, message } = refusal;
        let is_unknown = kind == RefusalKind::Unknown;
        self.unknown += u64::from(is_unknown);
        let (line, job, refusal) = (self.line, job.to_string(), kind.word());
        if context.output.is_json() {
            let body = Body::Refused { line, job, refusal, message };
            return context.output.document_line(&Document::from(body));
        }
        note(&format!("line {line}: {message}"));
        if is_unknown {
            note(&format!("line {line}: with \"job_id\": \"{job}\" in it, it is accepted once"));
        }
        Ok(())
    }

    fn words(&self) -> String {
        if self.line == 0 {
            return "no line was answered; begin again with the first".to_owned();
        }
        format!(
            "{} jobs were accepted; lines up to {} are done, go on with: tail -n +{} FILE | \
             atelier job submit --file -",
            self.accepted,
            self.line,
            self.line + 1
        )
    }

    fn so_far(&self, failure: Failure) -> Failure {
        // A change whose outcome is unknown is a timeout.
        if self.line == 0 && failure.exit != Exit::Timeout {
            return failure.hint("nothing was submitted; begin again with the first line");
        }
        let again =
            "a line with an idempotency_key is accepted once, however often it is submitted";
        failure.hint(self.words()).hint(again)
    }

    fn told(self) -> Result<Exit, Failure> {
        let Some(first) = self.first else {
            note(&format!("{} jobs accepted", self.accepted));
            return Ok(Exit::Ok);
        };
        let refused = self.jobs - self.accepted - self.unknown;
        let exit = match first {
            _ if self.accepted > 0 => Exit::Partial,
            RefusalKind::Invalid => Exit::Usage,
            RefusalKind::AlreadyExists => Exit::Conflict,
            RefusalKind::Full | RefusalKind::Unavailable => Exit::Unavailable,
            RefusalKind::Unknown => Exit::Timeout,
            RefusalKind::Other => Exit::Failed,
        };
        let Self { jobs, unknown, .. } = self;
        let what = match (refused, unknown) {
            (_, 0) => format!("{refused} of {jobs} jobs were refused"),
            (0, _) => format!("nobody knows whether {unknown} of {jobs} jobs were accepted"),
            _ => format!(
                "{refused} of {jobs} jobs were refused, and nobody knows whether {unknown} were \
                 accepted"
            ),
        };
        let mend = (refused > 0).then_some("submit the refused lines again, mended where needed");
        let again = (unknown > 0).then_some(
            "submit the unknown ones again with the job_id that is told above: each is accepted once",
        );
        Err(Failure::new(exit, what).hints([mend, again].into_iter().flatten().map(str::to_owned)))
    }
}

/// The number of a line, from 1, and what it asks for.
type LineRead = (u64, Result<Submission, Failure>);

/// Reads lines on a thread of its own: standard input may keep us waiting.
/// What lines leave open.
struct Defaults {
    wanted: JobOptions,
    source: Option<Source>,
}

fn read(file: &Path, defaults: Defaults) -> Result<mpsc::Receiver<LineRead>, Failure> {
    let reader: Box<dyn BufRead + Send> = if file == Path::new(STDIN) {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let opened = File::open(file).map_err(|error| {
            let what = format!("cannot read {}: {error}", file.display());
            Failure::new(Exit::Usage, what).hint("- is standard input")
        })?;
        Box::new(BufReader::new(opened))
    };
    let (lines, waiting) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        for (number, line) in (1_u64..).zip(reader.lines()) {
            let parsed = line.map_err(Failure::from).and_then(|line| {
                // An empty line at the end of a file is no job.
                (!line.trim().is_empty()).then(|| parse(&line, number, &defaults)).transpose()
            });
            let Some(item) = parsed.transpose() else { continue };
            let failed = item.is_err();
            if lines.blocking_send((number, item)).is_err() || failed {
                return;
            }
        }
    });
    Ok(waiting)
}

/// A line of a batch; what is absent comes from the flags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    width: Option<u32>,
    height: Option<u32>,
    steps: Option<u32>,
    seed: Option<u64>,
    images: Option<u32>,
    priority: Option<u8>,
    tenant: Option<String>,
    idempotency_key: Option<String>,
    job_id: Option<String>,
    deadline_s: Option<u32>,
    max_runtime_s: Option<u32>,
}

/// Why a line is no job. Its number is told before, so of the place the column is enough.
fn unread(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    error.to_string().replace(&place, &format!(" at column {}", error.column()))
}

fn parse(line: &str, number: u64, defaults: &Defaults) -> Result<Submission, Failure> {
    let wrong = |why: String| {
        Failure::new(Exit::Usage, format!("line {number}: {why}")).hint(
            r#"a line is such as {"prompt": "a cat", "seed": 7}; see atelier job submit --help"#,
        )
    };
    let line: Line = serde_json::from_str(line).map_err(|error| wrong(unread(&error)))?;
    let mut wanted = defaults.wanted.clone();
    wanted.width = line.width.unwrap_or(wanted.width);
    wanted.height = line.height.unwrap_or(wanted.height);
    wanted.steps = line.steps.unwrap_or(wanted.steps);
    wanted.images = line.images.unwrap_or(wanted.images);
    wanted.tenant = line.tenant.unwrap_or(wanted.tenant);
    wanted.seed = line.seed.or(wanted.seed);
    wanted.priority = line.priority.or(wanted.priority);
    wanted.deadline = line.deadline_s.or(wanted.deadline);
    wanted.max_runtime = line.max_runtime_s.or(wanted.max_runtime);
    wanted.idempotency_key = line.idempotency_key.unwrap_or_default();
    let id = line.job_id.map(|text| text.parse());
    wanted.job_id = id
        .transpose()
        .map_err(|error: atelier_client::ParseJobIdError| wrong(error.to_string()))?;
    if wanted.priority.is_some_and(|priority| priority > 9) {
        return Err(wrong("priority: expected 0 to 9".to_owned()));
    }
    let mut submission = submission(&line.prompt, &wanted);
    submission.parameters.source.clone_from(&defaults.source);
    Ok(submission)
}
