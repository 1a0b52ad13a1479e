//! Waits for a state of the cluster, with a bar for whoever watches.

use std::time::Duration;

use atelier_client::{Client, NodeId, Role};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::Context;
use super::args::PATIENCE_WAIT;
use super::failure::{Exit, Failure};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// The most entries that a learner lags when it is promoted; the leader asks for no less.
const BEHIND_MAX: u64 = 1_000;

/// A bar on a terminal; without one nothing is drawn.
pub(super) fn bar(total: u64, message: String) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar
}

/// The last moment to wait until.
pub(super) fn deadline(context: &Context) -> Instant {
    Instant::now() + context.connection.timeout.unwrap_or(PATIENCE_WAIT)
}

pub(super) fn late(what: String) -> Failure {
    Failure::new(Exit::Timeout, what).hint("allow more with --timeout, and repeat the command")
}

/// Waits until a learner may be promoted.
pub(super) async fn caught_up(
    context: &Context,
    client: &Client,
    node: NodeId,
) -> Result<(), Failure> {
    let deadline = deadline(context);
    let bar = bar(0, format!("member {node} catches up"));
    loop {
        let status = client.status().await?;
        let Some(member) = status.members.iter().find(|member| member.node == node) else {
            return Err(Failure::new(Exit::NotFound, format!("there is no member {node}")));
        };
        let matched = member.matched_index.unwrap_or(0);
        bar.set_length(status.last_log_index.max(matched));
        bar.set_position(matched);
        let lag = status.last_log_index.saturating_sub(matched);
        if member.role == Role::Voter || (member.alive && matched > 0 && lag <= BEHIND_MAX) {
            bar.finish_and_clear();
            return Ok(());
        }
        if Instant::now() >= deadline {
            let state = if member.alive { "lags" } else { "does not answer" };
            return Err(late(format!("member {node} {state}: {lag} entries are missing"))
                .hint(format!("is its process started at {}?", member.address)));
        }
        sleep(PAUSE).await;
    }
}
