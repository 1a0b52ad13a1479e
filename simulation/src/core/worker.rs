//! A worker, modelled after `atelier_peer::supervisor`; the real code decides which attempts it starts
//! and stops.
//!
//! - It registers its process and its slots, and again when the roster shows others.
//! - A result is proposed until there is an answer, under the token of its lease, and no longer than
//!   the lease is in the view.
//! - An engine that dies fails its attempt and is started anew; one that has given up gives its
//!   leases back and takes the node's slots away.

use super::event::{Answer, Attempt, Event, Origin, Process, Proposal};
use super::plant::Plant;
use super::scene::Scene;
use crate::history::Fact;
use crate::world::{Course, Drawing, ends};
use atelier_peer::liveness::Beat;
use atelier_peer::supervisor::{Duties, Duty};
use atelier_peer::view::View;
use atelier_state::limits::{FEATURES, FEATURES_FIRST};
use atelier_state::{
    ArtifactRef, Command, Complete, Digest, Fail, NodeId, RegisterNode, Reply, Revoke, RevokeReason,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// An engine that has died is ready again after so long.
const RELOAD_MS: u64 = 500;
/// An engine that is silent for so long is killed.
const WATCHDOG_MS: u64 = 3_000;

/// One node's worker.
pub(crate) struct Worker {
    process: Process,
    is_up: bool,
    view: View,
    engine: Engine,
    // Loads of the engine, so that an older one does not count.
    loads: u64,
    draws: u64,
    duties: Duties,
    // What runs.
    attempts: BTreeMap<Attempt, Stage>,
    // Proposals without an answer; the attempt is the one that an answer settles.
    errands: BTreeMap<u64, (Command, Option<Attempt>)>,
    // The slots that were last registered, and at which entry; the view may not show it yet.
    registered: Option<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Loading,
    Ready,
    Unfit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until the engine is ready.
    Waiting,
    /// The number tells draws of one attempt apart.
    Drawing(u64),
    /// Its outcome is proposed, by the proposal of this number.
    Reporting(u64),
}

impl Worker {
    pub(crate) fn new(node: u64) -> Worker {
        Worker {
            process: Process { node, incarnation: 0 },
            is_up: false,
            view: View::default(),
            engine: Engine::Loading,
            loads: 0,
            draws: 0,
            duties: Duties::new(NodeId(node)),
            attempts: BTreeMap::new(),
            errands: BTreeMap::new(),
            registered: None,
        }
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Says whether this process runs, and no later one.
    pub(crate) fn is(&self, process: Process) -> bool {
        self.is_up && self.process == process
    }

    pub(crate) fn die(&mut self, scene: &mut Scene) {
        scene.note(Fact::Died { node: self.process.node });
        self.is_up = false;
    }

    pub(crate) fn start(&mut self, scene: &mut Scene) {
        let Process { node, incarnation } = self.process;
        let (draws, loads) = (self.draws, self.loads);
        *self = Worker { draws, loads, ..Worker::new(node) };
        self.process.incarnation = incarnation + 1;
        self.is_up = true;
        scene.note(Fact::Started { node, incarnation: incarnation + 1 });
        self.load(scene);
        let wait_ms = scene.rng.between(0..=scene.shape.lease_ms / 8);
        scene.agenda.after(wait_ms, Event::Beat(self.process));
    }

    fn load(&mut self, scene: &mut Scene) {
        self.engine = Engine::Loading;
        self.loads += 1;
        let wait_ms = RELOAD_MS + scene.rng.between(0..=200);
        scene.agenda.after(wait_ms, Event::Loaded(self.process, self.loads));
    }

    pub(crate) fn loaded(&mut self, scene: &mut Scene, load: u64) {
        if self.loads != load || self.engine != Engine::Loading {
            return;
        }
        if scene.faults.is_unfit(scene.now_ms(), self.process.node) {
            self.give_up(scene);
            return;
        }
        self.engine = Engine::Ready;
        let waiting = self.attempts.iter().filter(|(_, stage)| **stage == Stage::Waiting);
        let waiting: Vec<_> = waiting.map(|(attempt, _)| *attempt).collect();
        waiting.into_iter().for_each(|attempt| self.draw(scene, attempt));
        self.register(scene);
    }

    /// The engine has given up: no work here until the process starts anew.
    pub(crate) fn give_up(&mut self, scene: &mut Scene) {
        self.engine = Engine::Unfit;
        let open = self.attempts.iter().filter(|(_, stage)| stage.is_open());
        let open: Vec<_> = open.map(|(attempt, _)| *attempt).collect();
        open.into_iter().for_each(|attempt| self.give_back(scene, attempt));
        self.register(scene);
    }

    pub(crate) fn beat(&mut self, scene: &mut Scene) {
        let (node, now_ms) = (self.process.node, scene.now_ms());
        scene.agenda.after(scene.shape.lease_ms / 8, Event::Beat(self.process));
        if scene.faults.loses_beats(now_ms, node) {
            return;
        }
        let running = self.attempts.keys().copied().collect();
        let Process { incarnation, .. } = self.process;
        let raise_ms = scene.shape.raise_ms;
        let features = if raise_ms > 0 && now_ms >= raise_ms { FEATURES } else { FEATURES_FIRST };
        let wait_ms = scene.rng.between(1..=5);
        let beat = Beat { node: NodeId(node), incarnation, running, features, wall_ms: 0 };
        scene.agenda.after(wait_ms, Event::Heard(beat));
    }

    /// Follows the view: stops what is no longer leased, begins what is.
    pub(crate) fn see(&mut self, scene: &mut Scene, view: View) {
        if view.applied < self.view.applied {
            return;
        }
        self.view = view;
        for duty in self.duties.decide(&self.view.state, self.process.incarnation) {
            match duty {
                Duty::Start(assignment) => self.begin(scene, (assignment.job, assignment.token)),
                Duty::Stop { job, token } => self.stop(scene, (job, token)),
            }
        }
        self.register(scene);
    }

    fn begin(&mut self, scene: &mut Scene, attempt: Attempt) {
        self.attempts.insert(attempt, Stage::Waiting);
        match self.engine {
            Engine::Ready => self.draw(scene, attempt),
            Engine::Loading => {}
            Engine::Unfit => self.give_back(scene, attempt),
        }
    }

    /// Ends an attempt whose lease is gone: nothing is proposed for it any more.
    fn stop(&mut self, scene: &mut Scene, attempt: Attempt) {
        match self.attempts.get(&attempt) {
            Some(Stage::Reporting(id)) => {
                self.errands.remove(id);
            }
            Some(Stage::Drawing(_)) => self.note_end(scene, attempt, "stopped"),
            Some(Stage::Waiting) | None => {}
        }
        self.finish(attempt);
    }

    fn finish(&mut self, attempt: Attempt) {
        if self.attempts.remove(&attempt).is_some() {
            self.duties.finished(attempt);
        }
    }

    fn draw(&mut self, scene: &mut Scene, attempt: Attempt) {
        let (job, token) = attempt;
        let Process { node, incarnation } = self.process;
        let leased = self.view.state.job(job).expect("a job in the view's leases exists");
        let parameters = Drawing::from_bytes(&leased.submit.parameters);
        let mut drawing = parameters.expect("the rig's jobs have the rig's parameters");
        if scene.is_planted(Plant::ForgetfulEngine) && leased.leases > 1 {
            drawing.picture += 1_000;
        }
        let (steps, course) = ends(drawing);
        let took_ms = steps * scene.shape.step_ms + scene.rng.between(1..=scene.shape.step_ms);
        self.draws += 1;
        self.attempts.insert(attempt, Stage::Drawing(self.draws));
        let job = scene.names.number(job);
        scene.note(Fact::Began { node, incarnation, job, token: token.0 });
        scene.agenda.after(took_ms, Event::Drawn(self.process, attempt, self.draws, course));
    }

    pub(crate) fn drawn(&mut self, scene: &mut Scene, attempt: Attempt, draw: u64, course: Course) {
        if self.attempts.get(&attempt) != Some(&Stage::Drawing(draw)) {
            return;
        }
        let (outcome, how) = match &course {
            Course::Drawn(bytes) => (self.complete(scene, attempt, bytes), "drawn"),
            Course::Refused => (fail(scene, attempt, "the engine refuses this", true), "refused"),
            Course::Crashed => (fail(scene, attempt, "engine crashed", false), "crashed"),
        };
        self.note_end(scene, attempt, how);
        self.report(scene, attempt, outcome);
        if course == Course::Crashed {
            self.load(scene);
        }
    }

    /// Loses whatever is drawn now, at once or when the watchdog finds out.
    pub(crate) fn engine_fails(&mut self, scene: &mut Scene, is_hanging: bool) {
        if self.engine != Engine::Ready {
            return;
        }
        let wait_ms = if is_hanging { WATCHDOG_MS } else { 0 };
        for (attempt, stage) in &mut self.attempts {
            if matches!(stage, Stage::Drawing(_)) {
                self.draws += 1;
                *stage = Stage::Drawing(self.draws);
                let event = Event::Drawn(self.process, *attempt, self.draws, Course::Crashed);
                scene.agenda.after(wait_ms, event);
            }
        }
    }

    fn complete(&self, scene: &Scene, (job, token): Attempt, bytes: &Bytes) -> Command {
        let artifact = ArtifactRef {
            digest: Digest(*blake3::hash(bytes).as_bytes()),
            bytes: u64::try_from(bytes.len()).expect("a usize fits"),
            media_type: "image/png".to_owned(),
            holders: vec![NodeId(self.process.node)],
        };
        let finished_ms = scene.agenda.wall_ms();
        Command::Complete(Complete { job, token, artifacts: vec![artifact], finished_ms })
    }

    fn give_back(&mut self, scene: &mut Scene, (job, token): Attempt) {
        if matches!(self.attempts.get(&(job, token)), Some(Stage::Drawing(_))) {
            self.note_end(scene, (job, token), "stopped");
        }
        let reason = RevokeReason::Drained;
        self.report(scene, (job, token), Command::Revoke(Revoke { job, token, reason }));
    }

    fn report(&mut self, scene: &mut Scene, attempt: Attempt, outcome: Command) {
        let id = self.propose(scene, outcome, Some(attempt));
        self.attempts.insert(attempt, Stage::Reporting(id));
    }

    /// Registers the process, unless the roster shows it or an answer is still to come.
    fn register(&mut self, scene: &mut Scene) {
        let Process { node, incarnation } = self.process;
        let slots = if self.engine == Engine::Ready { scene.shape.slots } else { 0 };
        let is_asked =
            self.errands.values().any(|(command, _)| matches!(command, Command::RegisterNode(_)));
        let is_late = self
            .registered
            .is_some_and(|(last, index)| last == slots && self.view.applied.0 < index);
        let known = self.view.state.node(NodeId(node));
        let is_right = known.is_some_and(|it| it.incarnation == incarnation && it.slots == slots);
        if is_asked || is_late || is_right {
            return;
        }
        let register = RegisterNode {
            node: NodeId(node),
            address: format!("http://node-{node}:7861"),
            incarnation,
            slots,
            class: "simulated".to_owned(),
            model: "none".to_owned(),
            witness: false,
        };
        self.propose(scene, Command::RegisterNode(register), None);
    }

    fn propose(&mut self, scene: &mut Scene, command: Command, settles: Option<Attempt>) -> u64 {
        let id = scene.propose(Origin::Worker(self.process), vec![command.clone()]);
        self.errands.insert(id, (command, settles));
        id
    }

    pub(crate) fn retry(&mut self, scene: &mut Scene, id: u64) {
        if scene.is_planted(Plant::NeverRetry) {
            return;
        }
        if let Some((command, _)) = self.errands.get(&id) {
            let (origin, commands) = (Origin::Worker(self.process), vec![command.clone()]);
            scene.send(Proposal { id, origin, commands });
        }
    }

    pub(crate) fn hear(&mut self, scene: &mut Scene, answer: &Answer) {
        let Some((command, settled)) = self.errands.remove(&answer.id) else { return };
        if let Some(attempt) = settled {
            self.finish(attempt);
            if scene.is_planted(Plant::BeginAgain) {
                self.duties = Duties::new(NodeId(self.process.node));
            }
        }
        if let Command::RegisterNode(register) = command {
            if answer.replies == [Reply::Done] {
                self.registered = Some((register.slots, answer.index));
            }
            self.register(scene);
        }
    }

    fn note_end(&self, scene: &mut Scene, (job, token): Attempt, how: &str) {
        let (node, job) = (self.process.node, scene.names.number(job));
        scene.note(Fact::Ended { node, job, token: token.0, how: how.to_owned() });
    }
}

impl Stage {
    /// Says whether there is no outcome yet.
    fn is_open(&self) -> bool {
        matches!(self, Stage::Waiting | Stage::Drawing(_))
    }
}

fn fail(scene: &Scene, (job, token): Attempt, error: &str, permanent: bool) -> Command {
    let finished_ms = scene.agenda.wall_ms();
    Command::Fail(Fail { job, token, error: error.to_owned(), permanent, finished_ms })
}
