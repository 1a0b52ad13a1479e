//! The arguments of `atelier cluster`.

use std::path::PathBuf;

use atelier_client::NodeId;
use clap::Subcommand;

use super::{OutputArgs, StaleArgs};
use crate::cli::address;

#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a token, and write a configuration for each peer of a new cluster
    Init {
        /// Its name
        name: String,
        /// Where each peer's gRPC will be dialled, http://host:port
        #[arg(required = true, value_name = "URL", value_parser = address::address)]
        peers: Vec<String>,
        /// Where the files go, peer-1.toml, peer-2.toml …
        #[arg(long, default_value = ".", value_name = "DIR")]
        directory: PathBuf,
        /// Two voters are meant: they tolerate no failure, and are twice as likely to have one
        #[arg(long)]
        accept_two_voters: bool,
    },
    /// Ask every peer how it is, as `atelier status`
    Status {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Compare the state of every peer at one entry of the log
    Verify,
    /// Hand the lead over
    TransferLeader {
        /// To this voter [default: the one that has come furthest]
        #[arg(long, value_name = "ID")]
        to: Option<NodeId>,
    },
    /// Make peers take a snapshot and purge their logs
    Snapshot {
        /// This one alone [default: every member]
        #[arg(long, value_name = "ID")]
        node: Option<NodeId>,
    },
    /// Make a survivor a cluster of its own, after a majority of the voters is lost for good
    Recover(RecoverArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecoverArgs {
    /// The survivor's configuration; its process must not run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A majority of the voters is lost, for good
    #[arg(long)]
    pub(crate) majority_is_lost: bool,
    /// Show what there is and what may be lost, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why, for whoever reads the trail of the cluster later
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) reason: String,
    /// The daemon [default: atelierd beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) atelierd: Option<PathBuf>,
}
