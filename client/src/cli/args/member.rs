//! The arguments of `atelier member`.

use std::time::Duration;

use atelier_client::NodeId;
use clap::Subcommand;

use super::OutputArgs;
use crate::cli::{address, member};

#[derive(Debug, clap::Args)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: MemberCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the members
    List {
        #[command(flatten)]
        stale: StaleArgs,
    },
    /// Add a peer as a learner, and print the id that it is to be started with
    Add {
        /// Of its gRPC, http://host:port
        #[arg(value_parser = address::address)]
        address: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a learner a voter, as soon as it has caught up
    Promote {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        consent: Consent,
    },
    /// Take a voter's vote away; it goes on as a learner
    Demote {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove a member; asks to type its id, or wants --yes where there is no terminal
    Remove {
        /// Its id
        node: NodeId,
        #[command(flatten)]
        consent: Consent,
    },
    /// Put a new peer into a dead one's place, by one safe change once it has caught up
    Replace {
        /// Who leaves
        node: NodeId,
        /// Who comes: the address of a new peer, http://host:port, or the id of a learner
        #[arg(long, value_name = "URL|ID", value_parser = member::newcomer)]
        by: member::Newcomer,
        #[command(flatten)]
        consent: Consent,
    },
    /// Give a member no new jobs, and hand the lead over where it leads
    Drain {
        /// Its id
        node: NodeId,
        /// Return when it draws nothing any more
        #[arg(long)]
        wait: bool,
        /// Why, for whoever reads the trail of the cluster later
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
    /// Give a drained member jobs again
    Resume {
        /// Its id
        node: NodeId,
        /// Why, for whoever reads the trail of the cluster later
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        reason: String,
    },
    /// Set labels (zone=a) or take them away (zone-)
    Label {
        /// Its id
        node: NodeId,
        /// KEY=VALUE to set, KEY- to take away; region and zone have a meaning
        #[arg(required = true, value_name = "LABEL", value_parser = member::label)]
        labels: Vec<member::Label>,
    },
}

/// Whether an answer without a leader will do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct StaleArgs {
    /// Take one peer's word, whether or not a leader confirms it: it may be old
    #[arg(long)]
    pub(crate) stale: bool,
}

/// Whether a change is meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Consent {
    /// Show what it would do to the quorum, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Two voters are meant: they tolerate no failure, and are twice as likely to have one as one
    #[arg(long)]
    pub(crate) accept_two_voters: bool,
    /// Do it though too few voters would be alive; the cluster may then decide nothing any more
    #[arg(long, requires = "reason")]
    pub(crate) force_unsafe: bool,
    /// Why, for whoever reads the trail of the cluster later
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    pub(crate) reason: String,
}

/// How long to wait for a state to be reached where no timeout was asked for.
pub(crate) const PATIENCE_WAIT: Duration = Duration::from_secs(600);
