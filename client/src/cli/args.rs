//! The arguments: one definition serves parsing, help and the golden files of the tests.

mod operate;
mod submit;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use atelier_client::{JobId, Phase};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, value_parser};

mod cluster;
mod member;
mod tools;

pub(super) use cluster::{ClusterArgs, ClusterCommand, RecoverArgs};
pub(super) use member::{Consent, MemberArgs, MemberCommand, PATIENCE_WAIT, StaleArgs};
pub(super) use tools::{CompletionsArgs, ContextArgs, ContextCommand, DoctorArgs, TopArgs};

use super::bench::BenchArgs;
use super::output::Format;

pub(super) use operate::{
    Assignment, ChangeArgs, ConfigArgs, ConfigCommand, QueueArgs, QueueCommand,
};
pub(super) use submit::{JobOptions, PurgeArgs, RetryArgs, SubmitArgs};

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict or precondition, 5 unavailable or no
quorum, 6 timeout, 7 partial (some peers did not answer, some jobs were refused), 130 interrupted.
Results go to standard output, everything else to standard error. Tables are tab-separated when
standard output is no terminal. NO_COLOR is honoured.";

/// Where help puts what every command takes.
const HEADING: &str = "Cluster and output";

/// Draws pictures on an Atelier cluster, and looks after the cluster.
#[derive(Debug, Parser)]
#[command(name = "atelier", version, after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) connection: Connection,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// Reads the arguments of this process. A wrong use ends it with code 2, help and version with
    /// 0: clap's own habit and ours.
    pub(super) fn read() -> Self {
        Self::of(std::env::args_os()).unwrap_or_else(|error| {
            use ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as HelpWanted;
            if !error.use_stderr() || error.kind() == HelpWanted {
                error.exit();
            }
            // The usage beside an error lists what was given, and takes what the environment gives
            // for that as well, as if it were required. So the error is made anew without it.
            let bare = Self::command().mut_args(|arg| match arg.get_env() {
                Some(_) => arg.env(""),
                None => arg,
            });
            bare.try_get_matches_from(std::env::args_os()).err().unwrap_or(error).exit()
        })
    }

    /// Reads these words and the environment. What a flag names wins over what the environment
    /// names: `--context` over ATELIER_ENDPOINTS, `--endpoints` over ATELIER_CONTEXT.
    fn of(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> clap::error::Result<Self> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let mut args =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        match (is_flag("endpoints"), is_flag("context")) {
            (true, true) => {
                let what = "--endpoints and --context both say which cluster is meant; name one";
                return Err(command.error(ErrorKind::ArgumentConflict, what));
            }
            (true, false) => args.connection.context = None,
            (false, true) => args.connection.endpoints.clear(),
            (false, false) => {}
        }
        Ok(args)
    }

    /// The format asked for, by `--format` or by a command's `-o`.
    pub(super) fn format(&self) -> Format {
        let alias = match &self.command {
            Command::Job(args) => args.output.output,
            Command::Member(args) => args.output.output,
            Command::Queue(args) => args.output.output,
            Command::Config(args) => args.output.output,
            Command::Status(args) => args.output,
            Command::Top(args) => args.output.output,
            Command::Bench(args) => args.output.output,
            Command::Cluster(args) => args.output.output,
            Command::Doctor(args) => args.output.output,
            Command::Context(args) => args.output.output,
            Command::Generate(_) | Command::Demo(_) => None,
            Command::Completions(_) => None,
        };
        alias.unwrap_or(self.connection.format)
    }
}

/// How to reach the cluster, and how to print.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Peers to ask, separated by commas; any one of the cluster will do [default: the context's,
    /// else http://127.0.0.1:7861]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "ATELIER_ENDPOINTS",
        value_name = "URL,…",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(super) endpoints: Vec<String>,
    /// A cluster that `atelier context add` gave a name [default: the one in use]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "ATELIER_CONTEXT",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub(super) context: Option<String>,
    /// Where this machine stands: peers whose label region is this are asked first [default: the
    /// context's, else none]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "ATELIER_REGION",
        value_name = "REGION",
        hide_env_values = true
    )]
    pub(super) region: Option<String>,
    /// How long the command may take: 90, 90s, 10m, 2h [default: 10m to draw, 30s to change,
    /// 5s to ask, no end to watch]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "ATELIER_TIMEOUT",
        value_name = "TIME",
        value_parser = duration,
        hide_env_values = true
    )]
    pub(super) timeout: Option<Duration>,
    /// How to print: text for people (tab-separated when standard output is no terminal), or JSON
    /// with a version, stable fields and RFC 3339 times
    #[arg(long, global = true, help_heading = HEADING, value_enum, default_value = "text")]
    pub(super) format: Format,
}

/// `-o json`, for every command that has no file to write.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// The same as --format
    #[arg(
        short = 'o',
        long,
        global = true,
        help_heading = HEADING,
        value_enum,
        value_name = "FORMAT"
    )]
    pub(super) output: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Draw a picture from a prompt, and wait for it
    Generate(GenerateArgs),
    /// Submit jobs, look at them, watch, fetch, cancel, retry and purge them
    Job(JobArgs),
    /// Look at the queue, pause and resume it, bound it
    Queue(QueueArgs),
    /// Look at the settings of the cluster, change them, take changes back
    Config(ConfigArgs),
    /// Ask every peer of the cluster how it is
    Status(OutputArgs),
    /// Watch the whole cluster: its members, its queue, the jobs that are being drawn
    Top(TopArgs),
    /// Start, compare, hand over, and bring back a cluster
    Cluster(ClusterArgs),
    /// List members of the cluster; add, promote, replace, drain and remove them
    Member(MemberArgs),
    /// Look for what is wrong, and say what to do; exits with 0 ok, 1 warnings, 2 failures
    Doctor(DoctorArgs),
    /// Give clusters names, and choose one
    Context(ContextArgs),
    /// Print a shell's completions of this program
    Completions(CompletionsArgs),
    /// Start a cluster on this machine, and draw a picture on it
    Demo(DemoArgs),
    /// Measure a cluster
    Bench(BenchArgs),
}

impl Command {
    /// Whether it speaks with a cluster at all.
    pub(super) const fn asks_a_cluster(&self) -> bool {
        !matches!(self, Self::Context(_) | Self::Completions(_) | Self::Demo(_))
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// What to draw
    pub(super) prompt: String,
    /// File to write, replaced when it exists; several images become NAME-0.png, NAME-1.png …;
    /// - is standard output [default: the job's id with .png]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) wanted: JobOptions,
    /// File that shows what the picture will be while it is drawn: small, rewritten as the drawing
    /// goes on, whole at any moment
    #[arg(long, value_name = "FILE")]
    pub(super) preview: Option<PathBuf>,
    /// Do not wait: print the job's id as soon as the cluster holds it
    #[arg(long = "async", conflicts_with_all = ["output", "preview"])]
    pub(super) no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct JobArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: JobCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Submit a job, or one for each line of a file, and print the ids
    Submit(SubmitArgs),
    /// List jobs, newest first
    List(ListArgs),
    /// Show one job
    Show {
        /// Its id
        id: JobId,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Follow a job until it is over; JSON comes line by line
    Watch {
        /// Its id
        id: JobId,
    },
    /// Wait for a job and fetch its pictures
    Fetch {
        /// Its id
        id: JobId,
        /// File to write, as generate's -o [default: the job's id with .png]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Cancel a job
    Cancel {
        /// Its id
        id: JobId,
    },
    /// Submit failed jobs again as new ones, and print the new ids
    Retry(RetryArgs),
    /// Forget jobs that are over; asks to type how many, or wants --yes where there is no terminal
    Purge(PurgeArgs),
}

/// Arguments of `job list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only jobs in these phases, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) phase: Vec<PhaseArg>,
    /// How many at most
    #[arg(
        long,
        default_value_t = 100,
        value_parser = |text: &str| whole::<u32>(text, 1, 1_000),
        allow_negative_numbers = true
    )]
    pub(super) limit: u32,
    /// Go on where a list of the same phases ended: it names this
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub(super) after: String,
    /// All of them, however many there are
    #[arg(long, conflicts_with = "limit")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) stale: StaleArgs,
}

/// A phase as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PhaseArg {
    Queued,
    Leased,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<PhaseArg> for Phase {
    fn from(phase: PhaseArg) -> Self {
        match phase {
            PhaseArg::Queued => Self::Queued,
            PhaseArg::Leased => Self::Leased,
            PhaseArg::Succeeded => Self::Succeeded,
            PhaseArg::Failed => Self::Failed,
            PhaseArg::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Model directory, in the diffusers layout of Z-Image-Turbo
    #[arg(long, env = "ATELIER_MODEL", value_name = "DIR", hide_env_values = true)]
    pub(super) model: PathBuf,
    /// What to draw
    #[arg(long, default_value = "a cat on a blue background")]
    pub(super) prompt: String,
    /// The same seed draws the same picture
    #[arg(long, default_value_t = 7)]
    pub(super) seed: u64,
    /// Where pictures, configuration, logs and data go; a second run goes on with the same data
    #[arg(long, default_value = "demo", value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// How many peers
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..=7))]
    pub(super) peers: u16,
    /// Peer i takes this port + 10 (i - 1) for HTTP and the next for gRPC; the next free block
    /// is taken where one is busy
    #[arg(long, default_value_t = 7860, value_parser = value_parser!(u16).range(1024..=65000))]
    pub(super) base_port: u16,
    /// The daemon [default: atelierd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(super) atelierd: Option<PathBuf>,
}

/// Reads a whole number of this range, and says which it is.
pub(super) fn whole<N: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

/// Reads 90, 90s, 1500ms, 10m, 2h or 7d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        unit => return Err(format!("unknown unit {unit:?}; use ms, s, m, h or d")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is not a whole number; expected such as 90s or 10m"))?;
    match number.checked_mul(unit_ms) {
        Some(ms) if (1..=366 * 24 * 3_600_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("expected more than nothing and at most a year".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_units() {
        let ms = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(ms("90"), Ok(90_000));
        assert_eq!(ms("1500ms"), Ok(1_500));
        assert_eq!(ms("10m"), Ok(600_000));
        assert_eq!(ms("2h"), Ok(7_200_000));
        assert_eq!(ms("366d"), Ok(366 * 86_400_000));
        for text in
            ["", "s", "0", "-1", "1.5s", "1w", "367d", "99999999999999999999", "9999h5", "é"]
        {
            assert!(ms(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn o_is_a_file_to_generate_and_a_format_to_the_rest() {
        let format = |words: &[&str]| Args::try_parse_from(words).map(|args| args.format()).ok();
        assert_eq!(format(&["atelier", "generate", "x", "-o", "json"]), Some(Format::Text));
        assert_eq!(format(&["atelier", "job", "list", "-o", "json"]), Some(Format::Json));
        assert_eq!(format(&["atelier", "status", "-o", "json"]), Some(Format::Json));
        assert_eq!(format(&["atelier", "--format", "json", "generate", "x"]), Some(Format::Json));
        assert_eq!(format(&["atelier", "generate", "x", "--format", "json"]), Some(Format::Json));
        assert_eq!(format(&["atelier", "status", "-o", "cat.png"]), None);
    }
}
