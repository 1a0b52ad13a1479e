//! Arguments of commands that make jobs, and of those that deal with jobs that are over.

use std::path::PathBuf;
use std::time::Duration;

use atelier_client::JobId;

use super::{PhaseArg, duration, whole};

/// Images of one job; the cluster refuses more.
const IMAGES_MAX: u64 = 16;

/// What a job may be asked to be, besides its prompt.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct JobOptions {
    /// Pixels, a multiple of 16 [default: the model's]
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_parser = |text: &str| whole::<u32>(text, 0, u32::MAX.into()),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) width: u32,
    /// Pixels, a multiple of 16 [default: the model's]
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_parser = |text: &str| whole::<u32>(text, 0, u32::MAX.into()),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) height: u32,
    /// Denoise steps [default: the model's]
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_parser = |text: &str| whole::<u32>(text, 0, u32::MAX.into()),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) steps: u32,
    /// The same seed draws the same picture; image i has this plus i [default: one that follows
    /// from the idempotency key or the job id]
    #[arg(
        long,
        value_parser = |text: &str| whole::<u64>(text, 0, u64::MAX),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) seed: Option<u64>,
    /// Begin from this picture: PNG, JPEG or WebP; without width and height its own size is drawn
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) image: Option<PathBuf>,
    /// Draw anew only what is light in this picture
    #[arg(long, value_name = "FILE", requires = "image")]
    pub(in crate::cli) mask: Option<PathBuf>,
    /// How much of the picture is drawn anew, 0.001 to 1 [default: 0.6]
    #[arg(long, requires = "image", allow_negative_numbers = true)]
    pub(in crate::cli) strength: Option<f64>,
    /// Lead the picture away from the negative prompt, 0 to 30; for models that were not distilled,
    /// which Turbo was [default: 0]
    #[arg(long, default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true)]
    pub(in crate::cli) guidance: f32,
    /// What the picture is led away from
    #[arg(
        long,
        default_value = "",
        value_name = "TEXT",
        hide_default_value = true,
        requires = "guidance"
    )]
    pub(in crate::cli) negative_prompt: String,
    /// How many images
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        value_parser = |text: &str| whole::<u32>(text, 1, IMAGES_MAX),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) images: u32,
    /// 0 to 9, higher goes first [default: the cluster's]
    #[arg(
        long,
        value_parser = |text: &str| whole::<u8>(text, 0, 9),
        allow_negative_numbers = true
    )]
    pub(in crate::cli) priority: Option<u8>,
    /// Whose job it is
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(in crate::cli) tenant: String,
    /// Your own name for this job: the first job under a key answers for all
    #[arg(long, default_value = "", value_name = "KEY", hide_default_value = true)]
    pub(in crate::cli) idempotency_key: String,
    /// Submit under this id, to repeat a submission whose outcome is unknown [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) job_id: Option<JobId>,
    /// Fail the job when it has not ended this long after acceptance [default: the cluster's
    /// setting jobs.deadline_s]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(in crate::cli) deadline: Option<u32>,
    /// Fail an attempt that takes longer than this [default: the cluster's setting
    /// jobs.max_runtime_s]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(in crate::cli) max_runtime: Option<u32>,
}

/// Arguments of `job submit`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct SubmitArgs {
    /// What to draw
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(in crate::cli) prompt: Option<String>,
    /// Submit a job for each line of a file, - for standard input: objects of JSON with the keys
    /// prompt, width, height, steps, seed, images, priority, tenant, idempotency_key, job_id,
    /// deadline_s, max_runtime_s; what a line leaves out is taken from the flags
    #[arg(long, value_name = "FILE", conflicts_with_all = ["job_id", "idempotency_key"])]
    pub(in crate::cli) file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) wanted: JobOptions,
}

/// Arguments of `job retry`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct RetryArgs {
    /// Ids of failed jobs
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub(in crate::cli) ids: Vec<JobId>,
    /// Every failed job that is remembered and was not retried yet
    #[arg(long, conflicts_with = "ids")]
    pub(in crate::cli) all: bool,
}

/// Arguments of `job purge`.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct PurgeArgs {
    /// Ids of jobs that are over
    #[arg(required_unless_present = "phase", value_name = "ID")]
    pub(in crate::cli) ids: Vec<JobId>,
    /// Every job in these phases, separated by commas: succeeded, failed, cancelled
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "ids")]
    pub(in crate::cli) phase: Vec<PhaseArg>,
    /// Say how many jobs it would forget, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::cli) yes: bool,
    /// Why; it is logged by the peer
    #[arg(long, value_name = "WHY", default_value = "", hide_default_value = true)]
    pub(in crate::cli) reason: String,
}

/// Reads a time of whole seconds.
fn whole_seconds(text: &str) -> Result<u32, String> {
    let time = duration(text)?;
    let seconds = u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds > 0);
    match seconds {
        Some(seconds) if time == Duration::from_secs(u64::from(seconds)) => Ok(seconds),
        _ => Err("expected whole seconds, at least 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_whole_seconds() {
        assert_eq!(whole_seconds("90"), Ok(90));
        assert_eq!(whole_seconds("2m"), Ok(120));
        assert_eq!(whole_seconds("2000ms"), Ok(2));
        for text in ["1500ms", "0", "500ms", "soon"] {
            assert!(whole_seconds(text).is_err(), "{text}");
        }
    }
}
