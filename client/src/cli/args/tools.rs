//! The arguments of `atelier doctor`, `top`, `completions` and `context`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use clap_complete::Shell;

use super::{OutputArgs, duration};

/// Reading the whole cluster more often than this costs it more than it tells.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Write an archive for whoever helps: the findings, the members, the counts of jobs; no
    /// prompts, no secrets
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) bundle: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Between two readings; rates are told of what changed between them
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    pub(crate) interval: Duration,
    /// Read twice, print once, and exit as `atelier status` does; so it is, too, where standard
    /// output is no terminal, and with JSON
    #[arg(long)]
    pub(crate) once: bool,
}

/// Reads a name that can be typed, printed, and told from a path.
fn context_name(text: &str) -> Result<String, String> {
    let is_odd = |letter: char| letter.is_control() || letter == '/' || letter == '\\';
    match text.trim() {
        name if name.is_empty() || name != text || text.contains(is_odd) => {
            Err("expected a name without slashes, control characters or blanks around it".into())
        }
        _ => Ok(text.to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("expected {} ms or more", INTERVAL_MIN.as_millis()));
    }
    Ok(interval)
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    pub(crate) shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ContextArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: ContextCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the clusters that have a name here
    List,
    /// Give a cluster a name, or change where it is; --region goes with it
    Add {
        /// Its name
        #[arg(value_parser = context_name)]
        name: String,
        /// Its peers
        #[arg(id = "urls", required = true, value_name = "URL")]
        endpoints: Vec<String>,
    },
    /// Speak with this cluster where no --endpoints are given
    Use {
        /// Its name
        name: String,
    },
    /// Forget a name
    Remove {
        /// Its name
        name: String,
    },
}
