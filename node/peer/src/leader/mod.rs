//! What a leader does besides replicating: give jobs to workers, take leases back, end what takes
//! too long, forget old jobs.
//!
//! ```text
//!   leadership ─┐                 ┌─ Timekeeper ─► Expire, Fail       ┐
//!   view ───────┤                 ├─ Reaper     ─► Revoke             │
//!   arrivals ───┼─► one loop ─────┼─ Backoff    ─► Release            ├─► Log::propose
//!   tick ───────┤   (this module) ├─ Scheduler  ─► Assign             │
//!   what is due ┘                 ├─ Janitor    ─► Forget, ForgetKeys │
//!                                 ├─ sweeper    ─► RemoveNode         │
//!                                 └─ upgrader   ─► RaiseFeatures      ┘
//! ```
//!
//! Owns the loop. The deciders beside it are pure: they take `now`, a view and the liveness, and
//! return commands. They suggest; `apply` judges. One round is decided, proposed and *seen in the
//! view* before the next is decided, so no decision rests on a state that an earlier decision has
//! made stale: no job has two Assigns in flight, and slots are counted with every lease granted so
//! far.

mod backoff;
mod janitor;
mod reaper;
mod scheduler;
mod sweeper;
mod timekeeper;
mod upgrader;

pub use backoff::Backoff;
pub use janitor::Janitor;
pub use reaper::Reaper;
pub use scheduler::Scheduler;
pub use timekeeper::Timekeeper;
pub use upgrader::raise;

use crate::cluster_time;
use crate::liveness::{Liveness, LivenessTable};
use crate::ports::Clock;
use crate::ports::{Log, ProposeError, RaftStatus};
use crate::view::View;
use atelier_state::command::Command;
use atelier_state::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, RELEASE_JOBS_MAX};
use atelier_state::reply::Reply;
use atelier_state::{JobId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use sweeper::Sweeper;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Assigns of one round; further ones wait for the next. Well below the commands of an entry because
/// their bytes are bounded as well.
const ROUND_ASSIGNS_MAX: usize = 128;
/// Expires, Fails and Revokes of one round; further ones wait for the next.
const ROUND_ENDS_MAX: usize = 64;
/// Bounds of what one of each takes in an entry.
const ASSIGN_BYTES: usize = 64;
const END_BYTES: usize = 192;
const RELEASED_BYTES: usize = 32;

const _: () =
    assert!(ROUND_ASSIGNS_MAX + ROUND_ENDS_MAX + sweeper::ROUND_MAX + 4 <= ENTRY_COMMANDS_MAX);
const _: () = assert!(
    ASSIGN_BYTES * ROUND_ASSIGNS_MAX
        + END_BYTES * ROUND_ENDS_MAX
        + RELEASED_BYTES * RELEASE_JOBS_MAX
        + janitor::SLICE_BYTES
        + 256
        <= ENTRY_BYTES_MAX
);

/// For one proposal. Afterwards the outcome is unknown, and the next round decides by what the view
/// shows.
const PROPOSAL_WAIT: Duration = Duration::from_secs(1);

/// Between two looks at what is due, at least: a clock that stands still must not make a circle.
const DUE_PAUSE: Duration = Duration::from_millis(5);

/// When a round is decided, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The port's monotonic clock: how long this leader has watched something.
    pub now: Duration,
    /// The wall clock in milliseconds: what other peers' stamps are compared with.
    pub wall_ms: u64,
    /// Whether that is what most clocks say. Where it is not known no age is judged: a single wrong
    /// clock must not forget a history.
    pub is_agreed: bool,
}

/// The deciders, as one leadership has them.
#[derive(Debug, Default)]
pub struct Deciders {
    timekeeper: Timekeeper,
    reaper: Reaper,
    backoff: Backoff,
    scheduler: Scheduler,
    sweeper: Sweeper,
    janitor: Janitor,
}

impl Deciders {
    /// Makes deciders that keep another number of ended jobs than the setting `retention.jobs`.
    #[must_use]
    pub fn keeping(jobs_kept: usize) -> Deciders {
        Deciders { janitor: Janitor::keeping(jobs_kept), ..Deciders::default() }
    }

    /// Decides one round. No job is named by two commands that exclude one another.
    pub fn decide(
        &mut self,
        at: Moment,
        view: &View,
        liveness: &Liveness,
        members: &BTreeSet<NodeId>,
    ) -> Vec<Command> {
        let (mut commands, ended) = self.ends(at, view, liveness);
        commands.extend(raise(at.now, view, liveness, members));
        commands.extend(self.sweeper.decide(at.now, view, members, liveness.lease()));
        commands.extend(self.backoff.decide(at, view));
        let shunned = self.reaper.shunned(at.now, view);
        let assigns = self.scheduler.decide(at.now, view, liveness, &shunned, ROUND_ASSIGNS_MAX);
        let is_new = |command: &Command| job_of(command).is_none_or(|job| !ended.contains(&job));
        commands.extend(assigns.into_iter().filter(is_new));
        commands.extend(self.janitor.decide(at, view));
        assert!(commands.len() <= ENTRY_COMMANDS_MAX);
        commands
    }

    /// Decides which leases and jobs end, each for the first reason there is.
    fn ends(
        &mut self,
        at: Moment,
        view: &View,
        liveness: &Liveness,
    ) -> (Vec<Command>, BTreeSet<JobId>) {
        let mut commands = match at.is_agreed {
            true => self.timekeeper.expire(at, view, ROUND_ENDS_MAX),
            false => Vec::new(),
        };
        commands.extend(self.timekeeper.stop(at, view));
        commands.extend(self.reaper.decide(at.now, view, liveness));
        let mut ended = BTreeSet::new();
        commands.retain(|command| job_of(command).is_some_and(|job| ended.insert(job)));
        commands.truncate(ROUND_ENDS_MAX);
        (commands, ended)
    }

    /// How long until something is due that no event tells of; none when nothing is.
    fn due(&self, at: Moment, view: &View) -> Option<Duration> {
        let deadline = Timekeeper::next(at, view).filter(|_| at.is_agreed);
        let times = [Backoff::next(at, view), deadline, self.janitor.next(at.now)];
        times.into_iter().flatten().min().map(|due| due.max(DUE_PAUSE))
    }
}

/// The job that a command of a round is about, where it is about one.
fn job_of(command: &Command) -> Option<JobId> {
    match command {
        Command::Assign(assign) => Some(assign.job),
        Command::Expire(expire) => Some(expire.job),
        Command::Fail(fail) => Some(fail.job),
        Command::Revoke(revoke) => Some(revoke.job),
        _ => None,
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
    // Members that were told to have fallen silent, and when they were looked at.
    silent: BTreeSet<NodeId>,
    looked_at: Duration,
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
        Leader {
            log,
            clock,
            liveness,
            status,
            view,
            arrivals,
            leading: None,
            led_since: Duration::ZERO,
            silent: BTreeSet::new(),
            looked_at: Duration::ZERO,
        }
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
            event = self.next_event(self.pause(tick), &shutdown).await;
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

    /// How long the loop sleeps when nothing happens.
    fn pause(&self, tick: Duration) -> Duration {
        let Some((_, deciders)) = &self.leading else { return tick };
        deciders.due(self.moment(), &self.view.borrow()).map_or(tick, |due| due.min(tick))
    }

    fn moment(&self) -> Moment {
        let is_agreed = self.liveness.time().is_agreed();
        Moment { now: self.clock.now(), wall_ms: self.clock.wall_ms(), is_agreed }
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
                self.liveness.lead(self.led_since, self.status.borrow().applied);
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

    /// Takes the time from the clocks of those who answer.
    fn agree_on_time(&self, liveness: &Liveness) {
        let (own, voters) = {
            let status = self.status.borrow();
            (status.node, status.voters.clone())
        };
        let own = (own, self.clock.own_wall_ms());
        let clocks = liveness.clocks(self.clock.now(), own, &voters);
        let agreed = cluster_time::agreed(clocks, voters.len());
        let time = self.liveness.time();
        time.agree(agreed.is_some());
        match agreed {
            Some(apart_ms) => time.learn(self.clock.as_ref(), apart_ms),
            None => time.ask_in_vain(self.clock.now()),
        }
    }

    /// Decides and proposes; the log answers when the view shows the result.
    async fn round(&mut self) {
        let liveness = self.liveness.get();
        self.agree_on_time(&liveness);
        let at = self.moment();
        self.tell_silence(at.now, &liveness);
        let Some((_, deciders)) = &mut self.leading else { return };
        let view = self.view.borrow_and_update().clone();
        self.arrivals.mark_unchanged();
        let members = {
            let status = self.status.borrow();
            status.voters.union(&status.learners).copied().collect()
        };
        let commands = deciders.decide(at, &view, &liveness, &members);
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
    fn tell_silence(&mut self, now: Duration, liveness: &Liveness) {
        // Each member has a lease's time to find a new leader.
        let is_early = now.saturating_sub(self.led_since) <= liveness.lease();
        if is_early || now.saturating_sub(self.looked_at) < liveness.lease() / 8 {
            return;
        }
        self.looked_at = now;
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
            Command::Release(release) => tracing::debug!(jobs = release.jobs.len(), "releases"),
            Command::Expire(expire) => tracing::info!(job = %expire.job, "the deadline passed"),
            Command::Fail(fail) => {
                let (job, token) = (fail.job, fail.token);
                tracing::warn!(%job, %token, error = fail.error, "ends an attempt");
            }
            Command::RemoveNode(remove) => {
                tracing::info!(node = %remove.node, "takes a node out that is no member any more");
            }
            Command::RaiseFeatures(raise) => {
                tracing::info!(level = raise.level, "raises the feature level");
            }
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
