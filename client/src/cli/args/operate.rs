//! Arguments of commands that operate the queue and the settings.

use clap::Subcommand;

use super::{OutputArgs, StaleArgs, whole};

/// Arguments of `queue`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct QueueArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[command(subcommand)]
    pub(in crate::cli) command: QueueCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum QueueCommand {
    /// Show how full the queue is, and who fills it
    Stats {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Give out no more jobs; what runs goes on, and jobs are still accepted
    Pause(ChangeArgs),
    /// Give out jobs again
    Resume(ChangeArgs),
    /// Show the bounds and weights of the queue, or set them
    Limits {
        /// How many jobs may wait
        #[arg(
            long,
            value_name = "N",
            value_parser = |text: &str| whole::<u64>(text, 0, u64::MAX),
            allow_negative_numbers = true
        )]
        jobs_max: Option<u64>,
        /// How many jobs of one tenant may wait and run; 0 for no bound of its own
        #[arg(
            long,
            value_name = "N",
            value_parser = |text: &str| whole::<u64>(text, 0, u64::MAX),
            allow_negative_numbers = true
        )]
        tenant_jobs_max: Option<u64>,
        /// A tenant's share compared with others, 1 to 100, as TENANT=N
        #[arg(long, value_name = "TENANT=N", value_parser = weight)]
        weight: Vec<(String, u64)>,
        #[command(flatten)]
        change: ChangeArgs,
        #[command(flatten)]
        stale: StaleArgs,
    },
}

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConfigArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
    #[command(subcommand)]
    pub(in crate::cli) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Show the settings; of one key, its value alone
    Get {
        /// All keys when none is named
        keys: Vec<String>,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Change settings, all or none; they hold on every peer without a restart
    Set {
        /// KEY=VALUE, where VALUE is a number, true, false, or default
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = assignment)]
        assignments: Vec<Assignment>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Show what differs from the defaults, or between two versions
    Diff {
        /// A version of the settings, as history lists them
        from: Option<u64>,
        /// A later one [default: the present]
        to: Option<u64>,
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// List the last changes, newest first
    History {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Take the last change back, if it still is the last; undone twice, it holds again
    Undo(ChangeArgs),
    /// List the administrative acts that the cluster remembers, newest first
    Trail {
        /// How many at most; 0 for all
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        stale: StaleArgs,
    },
}

/// How a change of settings is meant.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct ChangeArgs {
    /// Why, for whoever reads the history
    #[arg(long, value_name = "WHY", default_value = "", hide_default_value = true)]
    pub(in crate::cli) reason: String,
    /// Change nothing unless the settings still have this version
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) expect_version: Option<u64>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// A setting and the text of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Assignment {
    pub(in crate::cli) key: String,
    pub(in crate::cli) value: String,
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() || value.is_empty() {
        return Err("expected KEY=VALUE; `default` is the value of one never set".to_owned());
    }
    Ok(Assignment { key: key.to_owned(), value: value.to_owned() })
}

fn weight(text: &str) -> Result<(String, u64), String> {
    let Assignment { key, value } = assignment(text).map_err(|_| "expected TENANT=N")?;
    let weight = value.parse().map_err(|_| format!("{value:?} is not a whole number"))?;
    Ok((key, weight))
}
