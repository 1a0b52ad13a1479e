//! `atelier generate`: submit, wait with a word on each step, fetch, write.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atelier_client::{
    Artifact, Client, Generated, Guidance, Job, Preview, Source, Submission, TextToImage,
};
use tokio::time::Instant;

use super::Context;
use super::args::{GenerateArgs, JobOptions};
use super::failure::{Exit, Failure};
use super::files;
use super::json::{Body, Document, JobView};
use super::output::{dash, note};
use super::pause::{Waiting, told_while};
use super::progress::Progress;
use super::timeline::Timeline;

/// `-o` of this is standard output.
const STDOUT: &str = "-";
/// Ends of names that promise another format than the one that engines write.
const OTHER_FORMATS: [&str; 10] =
    ["jpg", "jpeg", "jxl", "webp", "avif", "heic", "gif", "bmp", "tif", "tiff"];

pub(super) async fn run(context: &Context, args: GenerateArgs) -> Result<Exit, Failure> {
    let client = match &args.preview {
        None => context.patient_client()?,
        Some(_) => context.previewing_client()?,
    };
    let mut submission = submission(&args.prompt, &args.wanted);
    context.say_on_interrupt(format!("submit it again with --job-id {}", submission.job));
    if args.no_wait {
        submission.parameters.source = source(&client, &args.wanted).await?;
        return submit(context, &client, &submission).await;
    }
    if args.output.as_deref() == Some(Path::new(STDOUT)) && args.wanted.images > 1 {
        let images = args.wanted.images;
        let what = format!("{images} images do not fit into standard output; use -o FILE");
        return Err(Failure::new(Exit::Usage, what));
    }
    if let Some(output) = &args.output {
        check_picture(output)?;
    }
    let mut previews = args.preview.map(Previews::to).transpose()?;
    submission.parameters.source = source(&client, &args.wanted).await?;
    let mut timeline = Timeline::new(Instant::now());
    let (progress, waiting) = (RefCell::new(Progress::new()), Waiting::default());
    progress.borrow().say(&format!("submitting job {}", submission.job));
    let accepted = client.submit(&submission).await?;
    context.say_on_interrupt(goes_on(&accepted.job.to_string()));
    let finish = client.finish(accepted.job, |event| {
        timeline.observe(event, Instant::now());
        waiting.observe(event);
        progress.borrow_mut().tell(event);
        if let (Some(previews), Some(preview)) = (&mut previews, &event.preview) {
            previews.show(preview);
        }
    });
    let say = |words: &str| progress.borrow().remark(words);
    let job = told_while(context, &client, &waiting, say, finish).await?;
    let images = client.fetch(&job).await?;
    drop(progress);
    let timeline = timeline.finish(Instant::now());
    deliver(context, args.output, &Generated { accepted, job, images }, Some(&timeline))
}

/// The file that shows what the picture will be.
struct Previews {
    file: PathBuf,
    failed: bool,
}

impl Previews {
    fn to(file: PathBuf) -> Result<Self, Failure> {
        if file == Path::new(STDOUT) {
            let what = "previews do not fit into standard output; use --preview FILE";
            return Err(Failure::new(Exit::Usage, what));
        }
        check_picture(&file)?;
        Ok(Self { file, failed: false })
    }

    /// Writes the newest one. What cannot be written is told once: the picture comes all the same.
    fn show(&mut self, preview: &Preview) {
        if let Err(error) = files::write_preview(&self.file, preview)
            && !std::mem::replace(&mut self.failed, true)
        {
            note(&format!("no preview is shown: {error:#}"));
        }
    }
}

/// Refuses a place for a picture as [`check_output`] does, and a name that promises another format.
pub(super) fn check_picture(output: &Path) -> Result<(), Failure> {
    let ending = output.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if let Some(ending) = ending.filter(|ending| OTHER_FORMATS.contains(&ending.as_str())) {
        let what = format!("cannot write {} as .{ending}: pictures are PNG", output.display());
        let png = output.with_extension("png");
        return Err(Failure::new(Exit::Usage, what).hint(format!("use {}", png.display())));
    }
    check_output(output)
}

/// Refuses a place for pictures that cannot be one, before anything is drawn for it.
pub(super) fn check_output(output: &Path) -> Result<(), Failure> {
    if output == Path::new(STDOUT) {
        return Ok(());
    }
    let refuse = |why, hint: String| {
        let what = format!("cannot write {}: {why}", output.display());
        Err(Failure::new(Exit::Usage, what).hint(hint))
    };
    if output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        let file = output.join("picture.png");
        return refuse("it is a directory", format!("name a file, such as {}", file.display()));
    }
    let directory = files::directory(output);
    if !directory.is_dir() {
        return refuse(
            "its directory is missing",
            format!("make it: mkdir -p {}", directory.display()),
        );
    }
    Ok(())
}

/// Writes the pictures and says what came of the job.
pub(super) fn deliver(
    context: &Context,
    output: Option<PathBuf>,
    generated: &Generated,
    timeline: Option<&Timeline>,
) -> Result<Exit, Failure> {
    let Generated { accepted, job, images } = generated;
    if images.is_empty() {
        let what = format!("job {} succeeded, but it names no picture", job.job);
        return Err(Failure::new(Exit::Failed, what));
    }
    let not_lost = |failure: Failure| {
        failure.hint(format!("the cluster has it: atelier job fetch {} --to FILE", job.job))
    };
    if output.as_deref() == Some(Path::new(STDOUT)) {
        for image in images {
            context.output.bytes(&image.bytes).map_err(not_lost)?;
        }
        return Ok(Exit::Ok);
    }
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{}.png", job.job)));
    let paths = files::write(&output, images).map_err(|error| not_lost(error.into()))?;
    let files: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if context.output.is_json() {
        let seconds = timeline
            .map_or_else(|| Timeline::new(Instant::now()).seconds(), |timeline| timeline.seconds());
        let (job, duplicate) = (JobView::from(job), accepted.duplicate);
        let body = Body::Generated { job, duplicate, files, seconds };
        context.output.document(&Document::from(body))?;
        return Ok(Exit::Ok);
    }
    for file in &files {
        context.output.line(file)?;
    }
    context.output.line(&story(job, timeline))?;
    Ok(Exit::Ok)
}

/// Job, peer, seed and times in one line.
fn story(job: &Job, timeline: Option<&Timeline>) -> String {
    let mut text = format!("job {}, drawn by peer {}", job.job, dash(job.node));
    if let Some(parameters) = &job.parameters {
        text += &format!(", seed {}", parameters.seed);
    }
    if let Some(timeline) = timeline {
        let stages = timeline.rows().map(|(stage, took)| format!("{stage} {}", seconds(took)));
        let total = timeline.rows().iter().map(|(_, took)| *took).sum();
        text += &format!(", in {} ({})", seconds(total), stages.join(", "));
    }
    text
}

/// Seconds with two digits, as a person reads them.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub(super) async fn submit(
    context: &Context,
    client: &Client,
    submission: &Submission,
) -> Result<Exit, Failure> {
    let accepted = client.submit(submission).await?;
    let job = accepted.job.to_string();
    if context.output.is_json() {
        let (duplicate, log_index) = (accepted.duplicate, accepted.log_index);
        let seed = submission.parameters.seed;
        let body = Body::Submitted { job, duplicate, log_index, seed };
        context.output.document(&Document::from(body))?;
        return Ok(Exit::Ok);
    }
    context.output.line(&job)?;
    note(&format!("accepted; fetch it with: atelier job fetch {job} --to FILE"));
    Ok(Exit::Ok)
}

fn goes_on(job: &str) -> String {
    format!("the job goes on: atelier job fetch {job}; stop it with: atelier job cancel {job}")
}

/// The seed of a job that was given none: short, so that people can read it out to each other. It
/// follows from what makes the job the same one when the command is repeated, which would otherwise
/// be refused as another request.
fn seed_of(submission: &Submission) -> u64 {
    let name = match submission.idempotency_key.as_str() {
        "" => submission.job.to_string(),
        key => format!("{} {key}", submission.tenant),
    };
    let hash = blake3::hash(name.as_bytes());
    let (head, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from(u32::from_be_bytes(*head))
}

/// Sends the picture that flags name to begin from.
pub(super) async fn source(
    client: &Client,
    wanted: &JobOptions,
) -> Result<Option<Source>, Failure> {
    let Some(image) = &wanted.image else { return Ok(None) };
    let image = send(client, image).await?;
    let mask = match &wanted.mask {
        Some(mask) => Some(send(client, mask).await?.digest),
        None => None,
    };
    Ok(Some(Source { strength: wanted.strength, mask, ..Source::new(&image) }))
}

async fn send(client: &Client, file: &Path) -> Result<Artifact, Failure> {
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display()))
    })?;
    Ok(client.put_artifact(bytes).await?)
}

/// The job that flags ask for, but for [`source`].
pub(super) fn submission(prompt: &str, wanted: &JobOptions) -> Submission {
    let mut submission = Submission::new(TextToImage {
        prompt: prompt.to_owned(),
        width: wanted.width,
        height: wanted.height,
        steps: wanted.steps,
        seed: 0,
        images: wanted.images,
        guidance: (wanted.guidance != 0.0).then(|| Guidance {
            scale: wanted.guidance,
            negative_prompt: wanted.negative_prompt.clone(),
        }),
        source: None,
    });
    if let Some(job) = wanted.job_id {
        submission.job = job;
    }
    submission.tenant.clone_from(&wanted.tenant);
    submission.idempotency_key.clone_from(&wanted.idempotency_key);
    submission.parameters.seed = wanted.seed.unwrap_or_else(|| seed_of(&submission));
    submission.priority = wanted.priority;
    submission.deadline_s = wanted.deadline;
    submission.max_runtime_s = wanted.max_runtime;
    submission
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        wanted: JobOptions,
    }

    fn asked(flags: &[&str]) -> Submission {
        let flags = Flags::try_parse_from([&["job"], flags].concat()).unwrap();
        submission("a cat", &flags.wanted)
    }

    #[test]
    fn a_command_that_is_repeated_asks_for_the_same_job() {
        let id = "01K9ZJ4Q4Y8V0N5T2M7R3X6B1C";
        assert_eq!(asked(&["--job-id", id]), asked(&["--job-id", id]));
        let keyed = || asked(&["--idempotency-key", "k"]).parameters;
        assert_eq!(keyed(), keyed());
        assert_ne!(keyed(), asked(&["--idempotency-key", "l"]).parameters);
        assert_ne!(asked(&[]).parameters, asked(&[]).parameters, "another job, another picture");
        assert_eq!(asked(&["--seed", "7", "--job-id", id]).parameters.seed, 7);
    }
}
