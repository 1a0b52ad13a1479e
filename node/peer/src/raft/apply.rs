//! The state machine: applies committed entries to the state, and publishes the view. Nothing else calls
//! `State::apply`.
//!
//! ```text
//!   committed entries ──► State::apply, one command after another ──► view ──► replies to whoever proposed
//! ```
//!
//! The view goes out before the replies, so whoever is answered finds its own write there. Replies wait for the end
//! of a group of at most [`PUBLISH_ENTRIES`], so that a long batch is neither published entry by entry nor late.
//!
//! The state lives in memory. What is on the disk is the last snapshot and the log behind it; both together give the
//! state again.

use super::snapshots::{Shelf, SnapshotData};
use super::types::{Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::ports::upkeep::MARKS_KEPT;
use crate::view::View;
use atelier_state::mutants::{self, Mutant};
use atelier_state::{LogIndex, Reply, State};
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Entries between two views.
const PUBLISH_ENTRIES: usize = 256;

type Responder = openraft::storage::ApplyResponder<TypeConfig>;

/// The replicated state on this node.
pub(super) struct StateMachine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    view: watch::Sender<View>,
    marks: Marks,
    shelf: Shelf,
}

/// The states at the last marks, for whoever compares peers. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Marks(Arc<Mutex<VecDeque<State>>>);

/// Makes a snapshot of the state as it was when this was made.
pub(super) struct SnapshotBuilder {
    meta: SnapshotMeta,
    state: State,
    shelf: Shelf,
}

impl StateMachine {
    /// Makes a state machine that stands at a snapshot.
    pub(super) fn new(
        shelf: Shelf,
        meta: SnapshotMeta,
        state: State,
    ) -> (StateMachine, watch::Receiver<View>) {
        let view = View { applied: state.applied(), state: state.clone() };
        let (view, receiver) = watch::channel(view);
        let machine = StateMachine {
            state,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            view,
            marks: Marks::default(),
            shelf,
        };
        (machine, receiver)
    }

    fn apply_entry(&mut self, log_id: LogId, payload: Payload) -> Vec<Reply> {
        let index = LogIndex(log_id.index());
        let replies = apply_payload(&mut self.state, index, &payload);
        if let EntryPayload::Membership(membership) = payload {
            self.membership = StoredMembership::new(Some(log_id), membership);
        }
        if self.state.marked() == index {
            self.marks.keep(self.state.clone());
        }
        self.applied = Some(log_id);
        replies
    }

    /// Returns the states at the last marks, as they come.
    pub(super) fn marks(&self) -> Marks {
        self.marks.clone()
    }

    fn publish(&self, replies: &mut Vec<(Responder, Vec<Reply>)>) {
        self.view.send_replace(View { applied: self.state.applied(), state: self.state.clone() });
        replies.drain(..).for_each(|(responder, replies)| responder.send(replies));
    }

    fn meta(&self) -> SnapshotMeta {
        let ahead = i64::from(mutants::is(Mutant::AppliedIndexApart));
        let last_log_id = self.applied.map(|id| moved(id, ahead));
        match mutants::is(Mutant::SnapshotDropsMembership) {
            true => SnapshotMeta { last_log_id, ..SnapshotMeta::default() },
            false => SnapshotMeta { last_log_id, last_membership: self.membership.clone() },
        }
    }
}

impl Marks {
    fn keep(&self, state: State) {
        let mut kept = self.lock();
        kept.push_back(state);
        if kept.len() > MARKS_KEPT {
            kept.pop_front();
        }
    }

    /// Returns the state right after a mark's entry, if it is kept.
    pub(super) fn at(&self, index: LogIndex) -> Option<State> {
        self.lock().iter().find(|state| state.applied() == index).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<State>> {
        // Each change is one push and one pop, so a panic cannot have left it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings a state from a snapshot to the end of a log, as a node does when it starts. For recovery, which has no node.
pub(super) fn replay<'a>(state: &mut State, entries: impl Iterator<Item = &'a Entry>) {
    for entry in entries {
        let index = LogIndex(entry.log_id.index());
        if index > state.applied() {
            apply_payload(state, index, &entry.payload);
        }
    }
}

/// An index beside an entry's own, as bugs that are planted take it for.
fn moved(id: LogId, by: i64) -> LogId {
    LogId::new(*id.committed_leader_id(), id.index().saturating_add_signed(by))
}

fn apply_payload(state: &mut State, index: LogIndex, payload: &Payload) -> Vec<Reply> {
    let replies = match payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
        EntryPayload::Normal(commands) => {
            commands.iter().map(|command| state.apply(index, command)).collect()
        }
    };
    state.mark_applied(index);
    replies
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let lost = if mutants::is(Mutant::AppliedTwiceAfterRestart) { 3 } else { 0 };
        let applied = self.applied.map(|id| moved(id, -lost));
        Ok((applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut replies = Vec::new();
        let mut since = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = self.apply_entry(entry.log_id, entry.payload);
            replies.extend(responder.map(|responder| (responder, answer)));
            since += 1;
            if since == PUBLISH_ENTRIES {
                self.publish(&mut replies);
                since = 0;
            }
        }
        if since > 0 {
            self.publish(&mut replies);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { meta: self.meta(), state: self.state.clone(), shelf: self.shelf.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        self.state = self.shelf.install(meta.clone(), snapshot).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish(&mut Vec::new());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.shelf.current()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.shelf.build(self.meta.clone(), self.state.clone()).await
    }
}
