//! Writes a line for every administrative act that the cluster agrees upon, at each peer.
//!
//! The trail in the state remembers the last ones; a log outlives them, and goes where logs go.

use super::Task;
use crate::view::View;
use atelier_state::{LogIndex, TrailRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the lines are filed under.
const TARGET: &str = "atelier::audit";

pub(super) fn start(view: watch::Receiver<View>) -> Task {
    Task::spawn("auditor", |stop| run(view, stop))
}

async fn run(mut view: watch::Receiver<View>, stop: CancellationToken) {
    // What was agreed upon before this process was told by the one before it, or by other peers.
    let mut told = view.borrow_and_update().applied;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
        let state = view.borrow_and_update().state.clone();
        for record in newer(state.trail(), told) {
            let (who, why) = (&*record.author.who, &*record.author.why);
            let (index, at_ms) = (record.index.0, record.author.at_ms);
            tracing::info!(target: TARGET, act = record.act, who, why, index, at_ms, "administrative act");
            told = record.index;
        }
    }
}

/// The records behind an entry, oldest first. The trail is short, and mostly nothing of it is new.
fn newer<'a>(
    trail: impl DoubleEndedIterator<Item = &'a TrailRecord>,
    told: LogIndex,
) -> Vec<&'a TrailRecord> {
    let mut newer: Vec<_> = trail.rev().take_while(|record| record.index > told).collect();
    newer.reverse();
    newer
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_state::Author;

    #[test]
    fn each_act_is_told_once_and_in_order() {
        let record = |index| TrailRecord {
            index: LogIndex(index),
            act: format!("act {index}"),
            author: Author::default(),
        };
        let trail: Vec<_> = [3, 5, 9].map(record).into();
        let told = |after| {
            newer(trail.iter(), LogIndex(after)).iter().map(|it| it.index.0).collect::<Vec<_>>()
        };
        assert_eq!(told(0), [3, 5, 9]);
        assert_eq!(told(3), [5, 9]);
        assert_eq!(told(9), [0_u64; 0]);
    }
}
