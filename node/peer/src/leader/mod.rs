//! What a leader does besides replicating: give jobs to workers, take leases back, forget old jobs.
//!
//! ```text
//!   leadership ─┐                 ┌─ Reaper    ─► Revoke ┐
//!   view ───────┼─► one loop ─────┼─ Janitor   ─► Forget ├─► Log::propose
//!   arrivals ───┤   (this module) └─ Scheduler ─► Assign ┘
//!   tick ───────┘
//! ```
//!
//! Owns the loop. The deciders beside it are pure: they take `now`, a view and the liveness, and
//! return commands. They suggest; `apply` judges. One round is decided, proposed and *seen in the
//! view* before the next is decided, so no decision rests on a state that an earlier decision has
//! made stale: no job has two Assigns in flight, and slots are counted with every lease granted so
//! far.

mod janitor;
mod reaper;
mod scheduler;

pub use janitor::Janitor;
pub use reaper::Reaper;
pub use scheduler::Scheduler;

use crate::liveness::{Liveness, LivenessTable};
use crate::ports::Clock;
use crate::ports::{Log, ProposeError, RaftStatus};
use crate::view::View;
use atelier_state::NodeId;
use atelier_state::command::Command;
use atelier_state::limits::{ENTRY_COMMANDS_MAX, FORGET_JOBS_MAX};
use atelier_state::reply::Reply;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Assigns and revokes of one round; further ones wait for the next. Well below the commands of an
/// entry because their bytes are bounded as well: each has 40 at most.
const ROUND_COMMANDS_MAX: usize = 128;

const _: () = assert!(2 * ROUND_COMMANDS_MAX < ENTRY_COMMANDS_MAX + 1);
// Two full lists and one Forget (18 bytes a job) stay below an entry's bytes.
const _: () = assert!(
    80 * ROUND_COMMANDS_MAX + 32 * FORGET_JOBS_MAX <= atelier_state::limits::ENTRY_BYTES_MAX
);

/// For one proposal. Afterwards the outcome is unknown, and the next round decides by what the view
/// shows.
const PROPOSAL_WAIT: Duration = Duration::from_secs(1);

/// The three deciders, as one leadership has them.
#[derive(Debug, Default)]
pub struct Deciders {
    reaper: Reaper,
    scheduler: Scheduler,
    janitor: Janitor,
}

impl Deciders {
    /// Decides one round.
    pub fn decide(&mut self, now: Duration, view: &View, liveness: &Liveness) -> Vec<Command> {
        let mut commands = self.reaper.decide(now, view, liveness);
        commands.truncate(ROUND_COMMANDS_MAX);
        let shunned = self.reaper.shunned(now, view);
        let assigns = self.scheduler.decide(now, view, liveness, &shunned, ROUND_COMMANDS_MAX);
        commands.extend(assigns);
        commands.extend(self.janitor.decide(view));
        assert!(commands.len() <= ENTRY_COMMANDS_MAX);
        commands
    }
}

/// The leader's loop. It runs on every node and acts where its node leads.
pub struct Leader {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    liveness: Arc<LivenessTable>,
    status: watch::Receiver<RaftStatus>,
    view: watch::Receiver<View>,
    arrivals: watch::Receiver<u64>,
    // Term and deciders of the present leadership.
    leading: Option<(u64, Deciders)>,
    led_since: Duration,
    // Members that were told to have fallen silent.
    silent: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Status,
    View,
    Arrival,
    Tick,
    Shutdown,
}

impl Leader {
    /// Makes the loop; `run` it.
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, liveness: Arc<LivenessTable>) -> Leader {
        let (status, view) = (log.status(), log.view());
        let arrivals = liveness.arrivals();
        let (led_since, silent) = (Duration::ZERO, BTreeSet::new());
        Leader { log, clock, liveness, status, view, arrivals, leading: None, led_since, silent }
    }

    /// Acts until `shutdown`, or until the log is gone.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let tick = self.liveness.get().lease() / 8;
        let mut event = Event::Status;
        loop {
            let begins = self.notice_leadership();
            // A status changes with every entry; only a leadership that begins is worth a round.
            if begins || self.leading.is_some() && event != Event::Status {
                let round = self.round();
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = round => {}
                }
            }
            event = self.next_event(tick, &shutdown).await;
            if event == Event::Shutdown {
                return;
            }
        }
    }

    async fn next_event(&mut self, tick: Duration, shutdown: &CancellationToken) -> Event {
        // While following, only a change of status matters.
        let leads = self.leading.is_some();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Event::Shutdown,
            changed = self.status.changed() => match changed {
                Ok(()) => Event::Status,
                Err(_) => Event::Shutdown,
            },
            changed = self.view.changed(), if leads => match changed {
                Ok(()) => Event::View,
                Err(_) => Event::Shutdown,
            },
            // The table is ours, so its sender lives.
            _ = self.arrivals.changed(), if leads => Event::Arrival,
            () = self.clock.sleep(tick), if leads => Event::Tick,
        }
    }

    /// Begins or ends a leadership, and says whether one begins. Each has deciders and a liveness
    /// of its own.
    fn notice_leadership(&mut self) -> bool {
        let (leads, term, node) = {
            let status = self.status.borrow_and_update();
            (status.is_leader, status.term, status.node)
        };
        let led = self.leading.as_ref().map(|(term, _)| *term);
        match (led, leads) {
            (Some(before), true) if before == term => false,
            (None, false) => false,
            (_, true) => {
                tracing::info!(%node, term, "leader loops begin");
                self.led_since = self.clock.now();
                self.silent.clear();
                self.liveness.lead(self.led_since);
                self.leading = Some((term, Deciders::default()));
                true
            }
            (Some(_), false) => {
                tracing::info!(%node, term, "leader loops end");
                self.liveness.follow();
                self.leading = None;
                false
            }
        }
    }

    /// Decides and proposes; the log answers when the view shows the result.
    async fn round(&mut self) {
        self.tell_silence();
        let Some((_, deciders)) = &mut self.leading else { return };
        let view = self.view.borrow_and_update().clone();
        self.arrivals.mark_unchanged();
        let commands = deciders.decide(self.clock.now(), &view, &self.liveness.get());
        // A view is the size of a few pointers, but it keeps a whole state from being freed.
        drop(view);
        if commands.is_empty() {
            return;
        }
        log_decisions(&commands);
        let proposal = self.log.propose(commands.clone());
        let outcome = tokio::select! {
            biased;
            outcome = proposal => Some(outcome),
            () = self.clock.sleep(PROPOSAL_WAIT) => None,
        };
        match outcome {
            Some(Ok(proposed)) => {
                // The view shows the entry by now, so the loop wakes and decides upon it.
                log_refusals(&commands, &proposed.replies);
            }
            Some(Err(error @ ProposeError::NotLeader { .. })) => {
                tracing::debug!(%error, "leader's proposal was not taken");
                // The status tells soon; until then a round each turn would spin.
                self.clock.sleep(PROPOSAL_WAIT / 20).await;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "leader's proposal has no known outcome");
                self.clock.sleep(PROPOSAL_WAIT / 4).await;
            }
            // A repeat is refused by `apply` where the first one took effect.
            None => tracing::warn!(commands = commands.len(), "leader's proposal takes long"),
        }
    }

    /// Logs which members have fallen silent and which speak again, once for each change.
    fn tell_silence(&mut self) {
        let (now, liveness) = (self.clock.now(), self.liveness.get());
        // Each member has a lease's time to find a new leader.
        if now.saturating_sub(self.led_since) <= liveness.lease() {
            return;
        }
        let status = self.status.borrow();
        let members = status.voters.union(&status.learners).filter(|node| **node != status.node);
        let silent = members.copied().filter(|node| !liveness.is_alive(now, *node)).collect();
        for node in self.silent.symmetric_difference(&silent) {
            if silent.contains(node) {
                tracing::warn!(%node, "a member does not answer");
            } else {
                tracing::info!(%node, "a member answers again");
            }
        }
        drop(status);
        self.silent = silent;
    }
}

fn log_decisions(commands: &[Command]) {
    for command in commands {
        match command {
            Command::Assign(assign) => {
                let (job, worker) = (assign.job, assign.node);
                tracing::debug!(%job, %worker, "assigns");
            }
            Command::Revoke(revoke) => {
                let (job, token) = (revoke.job, revoke.token);
                tracing::warn!(%job, %token, reason = ?revoke.reason, "revokes a lease");
            }
            Command::Forget(forget) => tracing::debug!(jobs = forget.jobs.len(), "forgets"),
            other => tracing::debug!(?other, "proposes"),
        }
    }
}

fn log_refusals(commands: &[Command], replies: &[Reply]) {
    for (command, reply) in commands.iter().zip(replies) {
        if let Reply::Refused(refusal) = reply {
            tracing::debug!(%refusal, ?command, "a suggestion was refused");
        }
    }
}

#[cfg(test)]
mod tests;
