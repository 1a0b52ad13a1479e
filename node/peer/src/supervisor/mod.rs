//! What a peer does as a worker: registers itself, draws what is leased to it, gives signs of life.
//!
//! ```text
//!   view ─────────┐              ┌─► Duties (pure): start, stop
//!   engine state ─┼─► one loop ──┼─► registration ─► Proposer
//!   attempts end ─┤              └─► attempts: Engine ─► Artifacts ─► Complete or Fail ─► Proposer
//!   shutdown ─────┘                       │
//!                        beater ◄── what runs ──► Peer.Beat, or the own table when leading
//! ```
//!
//! Owns this node's process as the cluster knows it: its incarnation, slots and attempts. It must
//! not know how pictures are drawn, nor who schedules. No message tells it what to do: its leases
//! are in the view. Each lease is started once, by its token. A peer without an engine registers
//! with no slots, so that it is known and heard.
//!
//! On shutdown it takes its slots out of the roster, and hands its jobs over with their checkpoints.
//! The proposer must outlive it.

mod attempt;
mod beater;
mod courier;
mod duties;
mod registration;

pub use duties::{Assignment, Duties, Duty};

use crate::artifacts::Artifacts;
use crate::checkpoints::Checkpoints;
use crate::lines::Lines;
use crate::liveness::LivenessTable;
use crate::ports::engine::{Engine, EngineState};
use crate::ports::{Clock, Log};
use crate::progress::ProgressBoard;
use crate::proposer::Proposer;
use crate::tasks;
use crate::view::View;
use atelier_state::command::{Command, Revoke};
use atelier_state::job::JobId;
use atelier_state::lease::{FencingToken, RevokeReason};
use atelier_state::limits;
use atelier_state::mutants::{self, Mutant};
use atelier_state::roster::NodeId;
use attempt::{AttemptParts, Orders};
use beater::Signs;
use futures_util::future::join_all;
use registration::{Registered, Registration};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What the supervisor works with.
#[derive(Clone)]
pub struct SupervisorParts {
    /// This node's log, for its view and status.
    pub log: Arc<dyn Log>,
    /// The way into the log.
    pub proposer: Proposer,
    /// Draws; none on a witness.
    pub engine: Option<Arc<dyn Engine>>,
    /// Keeps the pictures.
    pub artifacts: Arc<Artifacts>,
    /// Keeps what an attempt has reached, and knows what earlier ones have.
    pub checkpoints: Arc<Checkpoints>,
    /// Takes the steps.
    pub board: Arc<ProgressBoard>,
    /// Takes this node's own signs of life while it leads.
    pub liveness: Arc<LivenessTable>,
    /// The way to the leader.
    pub lines: Arc<Lines>,
    /// For waits and stamps.
    pub clock: Arc<dyn Clock>,
}

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct SupervisorSettings {
    /// Name of the cluster; a leader of another one refuses.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// Where its gRPC listens, `http://host:port`.
    pub address: String,
    /// Jobs that it holds at a time while its engine is ready. Default 1; with 2 the next job is
    /// there when one ends.
    pub slots: u32,
    /// Steps between checkpoints. Default 0: after each step that costs more than a quarter of a
    /// second.
    pub checkpoint_steps: u32,
    /// It votes, and never has an engine.
    pub witness: bool,
    /// Silence after which the leader takes leases back; a beat goes out eight times as often.
    /// Default 2 s, the same on all nodes.
    pub lease: Duration,
    /// For giving everything back at shutdown. Default 5 s.
    pub drain: Duration,
}

impl SupervisorSettings {
    /// Makes the defaults for a node.
    pub fn new(cluster: impl Into<String>, node: NodeId, address: impl Into<String>) -> Self {
        SupervisorSettings {
            cluster: cluster.into(),
            node,
            address: address.into(),
            slots: 1,
            checkpoint_steps: 0,
            witness: false,
            lease: Duration::from_secs(2),
            drain: Duration::from_secs(5),
        }
    }
}

/// How long a worker without leases says farewell.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// A lease by its job and its token.
pub(crate) type LeaseKey = (JobId, FencingToken);

/// The worker's loop.
pub struct Supervisor {
    parts: SupervisorParts,
    settings: SupervisorSettings,
    view: watch::Receiver<View>,
    engine_state: watch::Receiver<EngineState>,
    // There is no engine, or it will not say anything more.
    engine_is_mute: bool,
    registration: Registration,
    registering: JoinSet<Registered>,
    duties: Duties,
    attempts: JoinSet<()>,
    running: BTreeMap<LeaseKey, Running>,
    works: u64,
    signs: watch::Sender<Signs>,
}

struct Running {
    task: Id,
    orders: Orders,
}

enum Event {
    View,
    Engine,
    AttemptEnded(Id),
    Registered(Registered),
    Tick,
    Shutdown,
}

impl Supervisor {
    /// Makes the loop; `run` it.
    ///
    /// # Panics
    /// When the slots are more than a node may have.
    pub fn new(parts: SupervisorParts, settings: SupervisorSettings) -> Supervisor {
        assert!(settings.slots <= limits::SLOTS_MAX);
        let view = parts.log.view();
        let engine_state = match &parts.engine {
            Some(engine) => engine.ready(),
            None => watch::channel(EngineState::Unfit("this peer has no engine".to_owned())).1,
        };
        // Rises with each start as long as the wall clock does; where it went back, the roster
        // tells.
        let incarnation = parts.clock.wall_ms().max(1);
        let signs = Signs { incarnation, running: Vec::new() };
        Supervisor {
            registration: Registration::new(&settings, incarnation),
            duties: Duties::new(settings.node),
            parts,
            settings,
            view,
            engine_state,
            engine_is_mute: false,
            registering: JoinSet::new(),
            attempts: JoinSet::new(),
            running: BTreeMap::new(),
            works: 0,
            signs: watch::Sender::new(signs),
        }
    }

    /// Works until `shutdown`, then drains.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let beats_end = CancellationToken::new();
        let beats = beater::run(
            self.parts.clone(),
            self.settings.clone(),
            self.signs.subscribe(),
            beats_end.clone(),
        );
        let beater = tasks::spawn(beats);
        self.work(&shutdown).await;
        self.drain().await;
        beats_end.cancel();
        if let Err(error) = beater.await {
            tracing::error!(node = %self.settings.node, %error, "the beater died");
        }
    }

    async fn work(&mut self, shutdown: &CancellationToken) {
        loop {
            self.attend();
            loop {
                match self.next_event(shutdown).await {
                    Event::Shutdown => return,
                    Event::View if mutants::is(Mutant::LostWakeup) => {}
                    Event::View | Event::Engine | Event::Tick => break,
                    Event::Registered(registered) => {
                        self.registration.take(registered);
                        break;
                    }
                    // Duties come from the view, and that has not changed.
                    Event::AttemptEnded(task) => self.end_attempts(task),
                }
            }
        }
    }

    async fn next_event(&mut self, shutdown: &CancellationToken) -> Event {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Event::Shutdown,
            Some(ended) = self.attempts.join_next_with_id() => {
                Event::AttemptEnded(ended_task(ended))
            }
            Some(registered) = self.registering.join_next() => {
                Event::Registered(registered.unwrap_or(Registered::Failed))
            }
            changed = self.view.changed() => match changed {
                Ok(()) => Event::View,
                Err(_) => Event::Shutdown,
            },
            changed = self.engine_state.changed(), if !self.engine_is_mute => {
                self.engine_is_mute = changed.is_err();
                Event::Engine
            }
            // For what comes with neither: that this node has become a member.
            () = self.parts.clock.sleep(self.settings.lease) => Event::Tick,
        }
    }

    /// Brings registration and attempts in line with the view and the engine.
    fn attend(&mut self) {
        let view = self.view.borrow_and_update().clone();
        let engine = self.engine_state.borrow_and_update().clone();
        if self.registering.is_empty()
            && self.is_member()
            && let Some(register) = self.registration.wanted(&view, &engine)
        {
            let (proposer, clock) = (self.parts.proposer.clone(), self.parts.clock.clone());
            let registering = registration::register(proposer, clock, register);
            self.registering.spawn(tasks::joined(registering));
        }
        let incarnation = self.registration.incarnation();
        for duty in self.duties.decide(&view.state, incarnation) {
            match duty {
                Duty::Start(assignment) => self.start(assignment),
                Duty::Stop { job, token } => self.stop((job, token)),
            }
        }
        self.tell_signs();
    }

    /// A node that was removed must not put itself back into the roster.
    fn is_member(&self) -> bool {
        let status = self.parts.log.status();
        let status = status.borrow();
        let node = &self.settings.node;
        status.voters.contains(node) || status.learners.contains(node)
    }

    fn start(&mut self, assignment: Assignment) {
        let key = (assignment.job, assignment.token);
        let Some(engine) = self.parts.engine.clone() else {
            // Nobody gives a lease to a node without slots. The reaper takes it back all the same.
            return self.duties.finished(key);
        };
        let (node, job, token) = (self.settings.node, assignment.job, assignment.token);
        tracing::info!(%node, %job, %token, "attempt begins");
        self.works += 1;
        let parts = AttemptParts {
            engine,
            proposer: self.parts.proposer.clone(),
            artifacts: self.parts.artifacts.clone(),
            checkpoints: self.parts.checkpoints.clone(),
            board: self.parts.board.clone(),
            clock: self.parts.clock.clone(),
            work: self.works,
            checkpoint_steps: self.settings.checkpoint_steps,
        };
        let orders = Orders::default();
        let attempt = attempt::run(parts, assignment, orders.clone());
        let span = tracing::info_span!("job", %node, %job, %token);
        let task = self.attempts.spawn(tasks::joined(attempt.instrument(span))).id();
        self.running.insert(key, Running { task, orders });
    }

    fn stop(&mut self, key: LeaseKey) {
        let (job, token) = key;
        tracing::info!(node = %self.settings.node, %job, %token, "lease has ended, attempt stops");
        if let Some(running) = self.running.get(&key) {
            running.orders.stop.cancel();
        }
    }

    /// Gives every running job back: each engine stops at its next step boundary, the checkpoint of
    /// that step goes to another peer, and then the attempt itself proposes Revoke. One that has
    /// its pictures says so instead. The attempts end by themselves; wait for that.
    fn hand_over_all(&self) {
        for running in self.running.values() {
            running.orders.hand_over.cancel();
        }
    }

    /// Ends this attempt and whichever others have ended by now.
    fn end_attempts(&mut self, first: Id) {
        self.end_attempt(first);
        while let Some(ended) = self.attempts.try_join_next_with_id() {
            self.end_attempt(ended_task(ended));
        }
        self.tell_signs();
    }

    fn end_attempt(&mut self, task: Id) {
        let key =
            self.running.iter().find(|(_, running)| running.task == task).map(|(key, _)| *key);
        let key = key.expect("each attempt is in the table until it ends");
        self.running.remove(&key);
        self.duties.finished(key);
    }

    fn tell_signs(&mut self) {
        let incarnation = self.registration.incarnation();
        let running: Vec<_> = self.running.keys().copied().collect();
        let signs = Signs { incarnation, running };
        self.signs.send_if_modified(|before| {
            let modified = *before != signs;
            *before = signs;
            modified
        });
    }

    /// Gives everything back: no new lease, then no lease, then no attempt.
    async fn drain(&mut self) {
        let node = self.settings.node;
        // Without leases nothing is lost when nobody hears the farewell, as where all leave at once.
        let leases = self.view.borrow().state.leases_of(node).count();
        let patience =
            if leases == 0 { FAREWELL_MAX.min(self.settings.drain) } else { self.settings.drain };
        let late = self.parts.clock.sleep(patience);
        self.hand_over_all();
        tokio::select! {
            biased;
            () = self.give_back() => tracing::info!(%node, "drained"),
            () = late => tracing::warn!(%node, "not drained in time; the leader will notice"),
        }
        self.registering.shutdown().await;
        self.attempts.shutdown().await;
    }

    async fn give_back(&mut self) {
        // One under way could put the slots back.
        while self.registering.join_next().await.is_some() {}
        let register = self.registration.farewell();
        let (proposer, clock) = (self.parts.proposer.clone(), self.parts.clock.clone());
        let farewell = registration::register(proposer, clock, register).await;
        if let Registered::At(_, index) = farewell {
            // From here on no lease can be granted to this process; all that were are in the view.
            let _ = self.view.wait_for(|view| view.applied >= index).await;
        }
        let view = self.view.borrow_and_update().clone();
        let incarnation = self.registration.incarnation();
        let own = view.state.leases_of(self.settings.node);
        let own = own.filter(|(job, lease)| {
            lease.incarnation == incarnation && !self.running.contains_key(&(*job, lease.token))
        });
        let revokes = own.map(|(job, lease)| {
            let reason = RevokeReason::Drained;
            self.parts.proposer.propose(Command::Revoke(Revoke { job, token: lease.token, reason }))
        });
        for revoked in join_all(revokes).await {
            if let Err(error) = revoked {
                tracing::warn!(node = %self.settings.node, %error, "a lease was not given back");
            }
        }
        while self.attempts.join_next().await.is_some() {}
    }
}

fn ended_task(ended: Result<(Id, ()), JoinError>) -> Id {
    match ended {
        Ok((task, ())) => task,
        Err(error) => {
            tracing::error!(%error, "an attempt died");
            error.id()
        }
    }
}

#[cfg(test)]
mod tests;
