//! The loop of the core rig: takes the next event and gives it to whom it concerns.

use super::clients::Clients;
use super::diary::Diary;
use super::event::{Answer, Event, Origin, Process, Proposal};
use super::faults::Faults;
use super::journal::Journal;
use super::leader::Leader;
use super::ledger::Ledger;
use super::names::Names;
use super::plant::Plant;
use super::scene::Scene;
use super::worker::Worker;
use super::{Options, Run};
use crate::checkers;
use crate::checkers::linear::{Sight, Tally};
use crate::history::Fact;
use crate::plan::{Ask, FaultKind, Plan, Request, Shape, Wish};
use crate::world::{Agenda, Drawing, Nature, Rng, SimulatedClock};
use atelier_peer::liveness::Beat;
use atelier_state::{Command, Job, LogIndex, Reply};

/// Events of one run. Filled by loops that never rest; at the brim the run fails.
const EVENTS_MAX: u64 = 2_000_000;

/// A run under way.
pub(crate) struct Rig {
    scene: Scene,
    ledger: Ledger,
    leader: Leader,
    clients: Clients,
    workers: Vec<Worker>,
    is_healed: bool,
    // The fresh job of the liveness phase.
    probe: u32,
    is_probed: bool,
    is_over: bool,
    events: u64,
}

impl Rig {
    pub(crate) fn new(plan: &Plan, options: Options) -> Rig {
        let jobs = plan.requests.iter().map(|request| match &request.ask {
            Ask::Submit(wish) => wish.job,
            Ask::Cancel { job } | Ask::Read { job, .. } => *job,
        });
        let probe = 1 + jobs.clone().max().unwrap_or(0);
        let seed = plan.shape.seed;
        let scene = Scene {
            shape: plan.shape.clone(),
            agenda: Agenda::new(SimulatedClock::new()),
            rng: Rng::of(seed, "core"),
            faults: Faults::new(plan.faults.clone()),
            journal: Journal::default(),
            diary: Diary::default(),
            names: Names::new(seed, jobs.chain([probe])),
            plant: options.plant,
            proposals: 0,
        };
        Rig {
            scene,
            ledger: Ledger::new(options.audits),
            leader: Leader::default(),
            clients: Clients::new(plan.requests.clone()),
            workers: (1..=plan.shape.workers).map(Worker::new).collect(),
            is_healed: false,
            probe,
            is_probed: false,
            is_over: false,
            events: 0,
        }
    }

    /// Notes what each command changes.
    pub(crate) fn tell_differences(&mut self) {
        self.ledger.tell_differences();
    }

    pub(crate) fn run(mut self) -> (Run, Vec<(usize, String)>) {
        self.begin();
        while !self.is_over && !self.scene.journal.is_broken() {
            let Some(event) = self.scene.agenda.next_event() else {
                self.finish();
                break;
            };
            self.events += 1;
            if self.events > EVENTS_MAX {
                let detail = format!("{EVENTS_MAX} events, and no rest");
                self.scene.journal.accuse("liveness", detail);
            }
            self.handle(event);
        }
        let virtual_ms = self.scene.now_ms();
        let unseed = self.scene.rng.bits();
        let operations = self.scene.diary.close();
        let tally = match self.scene.journal.is_broken() {
            false => checkers::judge_operations(&operations, Sight::Whole),
            true => Ok(Tally::default()),
        };
        let tally = tally.unwrap_or_else(|violation| {
            self.scene.journal.accuse(violation.property, violation.detail);
            Tally::default()
        });
        let (history, hash, violation) = self.scene.journal.close();
        let (events, differences) = (self.events, self.ledger.differences());
        let run = Run { history, operations, tally, violation, hash, unseed, events, virtual_ms };
        (run, differences)
    }

    fn begin(&mut self) {
        let Rig { scene, clients, .. } = self;
        for at in 0..scene.faults.count() {
            let fault = scene.faults.get(at).clone();
            scene.agenda.at(fault.at_ms, Event::FaultBegins(at));
            scene.agenda.at(fault.at_ms + fault.for_ms, Event::FaultEnds(at));
        }
        for (at, at_ms) in clients.times().enumerate() {
            scene.agenda.at(at_ms, Event::Request(at));
        }
        let Shape { raise_ms, pause_ms, resume_ms, .. } = scene.shape;
        for at_ms in [raise_ms, pause_ms, resume_ms].into_iter().filter(|at_ms| *at_ms > 0) {
            scene.agenda.at(at_ms, Event::LeaderTick);
        }
        let heal_ms = scene.shape.heal_ms;
        scene.agenda.at(heal_ms, Event::Heal);
        scene.agenda.at(heal_ms + scene.shape.settle_ms, Event::Deadline);
        self.leader.begin(scene);
        self.workers.iter_mut().for_each(|worker| worker.start(scene));
    }

    fn handle(&mut self, event: Event) {
        let now_ms = self.scene.now_ms();
        if let Some(node) = event.node()
            && let Some(until_ms) = self.scene.faults.paused_until(now_ms, node)
        {
            // The process stands still. What waits for it comes in the same order later.
            self.scene.agenda.at(until_ms, event);
            return;
        }
        match event {
            Event::Request(at) => {
                self.request(at);
                self.look_for_rest();
            }
            Event::FaultBegins(at) => self.fault_begins(at),
            Event::FaultEnds(at) => self.fault_ends(at),
            Event::Heal => self.heal(),
            Event::Deadline => self.finish(),
            Event::Arrive(proposal) => self.arrive(proposal),
            Event::Flush => self.flush(),
            Event::Answer(answer) => self.answer(&answer),
            Event::Retry(Origin::Client(_), id) => self.clients.retry(&mut self.scene, id),
            Event::Retry(Origin::Worker(process), id) => {
                self.with(process, |worker, scene| worker.retry(scene, id));
            }
            Event::Retry(Origin::Leader(_) | Origin::Nobody, _) => {}
            Event::View(node, view) => {
                let worker = &mut self.workers[place(node)];
                if worker.is_up() {
                    worker.see(&mut self.scene, *view);
                }
            }
            Event::Beat(process) => self.with(process, Worker::beat),
            Event::Heard(beat) => self.heard(beat),
            Event::LeaderTick => {
                self.leader.ticked();
                self.wake_leader();
            }
            Event::Drawn(process, attempt, draw, course) => {
                self.with(process, |worker, scene| worker.drawn(scene, attempt, draw, course));
            }
            Event::Loaded(process, load) => {
                self.with(process, |worker, scene| worker.loaded(scene, load));
            }
        }
    }

    /// Does something with a worker, if that process still runs.
    fn with(&mut self, process: Process, act: impl FnOnce(&mut Worker, &mut Scene)) {
        let worker = &mut self.workers[place(process.node)];
        if worker.is(process) {
            act(worker, &mut self.scene);
        }
    }

    fn request(&mut self, at: usize) {
        let Some(request) = self.clients.ask(&mut self.scene, at) else { return };
        let Ask::Read { job, node } = request.ask else { return };
        let worker = &self.workers[place(node)];
        let seen = worker.view().state.job(self.scene.names.id(job));
        let fact = Fact::Read {
            client: request.client,
            node,
            job,
            phase: seen.map(|job| job.phase.name().to_owned()),
            artifacts: seen.map_or(Vec::new(), |job| super::names::digests(&job.artifacts)),
        };
        let now_ms = self.scene.now_ms();
        self.scene.diary.read(now_ms, request.client, job, seen);
        self.scene.note(fact);
    }

    fn fault_begins(&mut self, at: usize) {
        let Rig { scene, .. } = self;
        let fault = scene.faults.get(at).clone();
        scene.note(Fact::Fault { kind: fault.kind, for_ms: fault.for_ms });
        match fault.kind {
            FaultKind::LeaderChange => self.leader.end(scene),
            FaultKind::WorkerCrash { node } => {
                let worker = &mut self.workers[place(node)];
                if worker.is_up() {
                    worker.die(scene);
                }
            }
            FaultKind::EngineCrash { node } => {
                self.when_up(node, |worker, scene| worker.engine_fails(scene, false));
            }
            FaultKind::EngineHang { node } => {
                self.when_up(node, |worker, scene| worker.engine_fails(scene, true));
            }
            FaultKind::EngineUnfit { node } => self.when_up(node, Worker::give_up),
            FaultKind::WorkerPause { .. }
            | FaultKind::BeatLoss { .. }
            | FaultKind::SlowView { .. }
            | FaultKind::SlowProposals { .. }
            | FaultKind::DoubleProposals { .. }
            | FaultKind::ProposalLoss
            | FaultKind::AnswerLoss => {}
        }
    }

    fn fault_ends(&mut self, at: usize) {
        let now_ms = self.scene.now_ms();
        match self.scene.faults.get(at).kind {
            FaultKind::LeaderChange if self.scene.faults.is_leaderless(now_ms) => {}
            FaultKind::LeaderChange => {
                self.ledger.restore(&mut self.scene);
                self.leader.begin(&mut self.scene);
                self.wake_leader();
            }
            FaultKind::WorkerCrash { node } => self.start(node),
            FaultKind::EngineUnfit { node } => {
                self.when_up(node, Worker::die);
                self.start(node);
            }
            _ => {}
        }
    }

    fn start(&mut self, node: u64) {
        let worker = &mut self.workers[place(node)];
        if worker.is_up() || self.scene.faults.is_down(self.scene.now_ms(), node) {
            return;
        }
        worker.start(&mut self.scene);
        let wait_ms = self.scene.rng.between(10..=200);
        self.scene.agenda.after(wait_ms, Event::View(node, Box::new(self.ledger.view())));
    }

    fn when_up(&mut self, node: u64, act: impl FnOnce(&mut Worker, &mut Scene)) {
        let worker = &mut self.workers[place(node)];
        if worker.is_up() {
            act(worker, &mut self.scene);
        }
    }

    fn arrive(&mut self, proposal: Proposal) {
        if self.scene.is_planted(Plant::AcknowledgeEarly)
            && let [Command::Submit(submit)] = proposal.commands.as_slice()
        {
            let (job, log_index) = (submit.job, LogIndex(0));
            let replies = vec![Reply::Submitted { job, duplicate: false, log_index }];
            let Proposal { id, origin, .. } = proposal;
            self.scene.answer(Answer { id, origin, index: 0, replies });
        }
        self.leader.arrive(&mut self.scene, proposal);
    }

    fn flush(&mut self) {
        let proposals = self.leader.take_inbox();
        if proposals.is_empty() {
            return;
        }
        let (index, replies) = self.ledger.append(&mut self.scene, &proposals);
        for (proposal, replies) in proposals.into_iter().zip(replies) {
            let Proposal { id, origin, .. } = proposal;
            self.scene.answer(Answer { id, origin, index, replies });
        }
        let now_ms = self.scene.now_ms();
        for worker in 1..=self.scene.shape.workers {
            let late_ms = self.scene.faults.view_delay_ms(now_ms, worker);
            let wait_ms = self.scene.rng.between(1..=10) + late_ms;
            self.scene.agenda.after(wait_ms, Event::View(worker, Box::new(self.ledger.view())));
        }
        self.wake_leader();
        self.look_for_rest();
    }

    fn answer(&mut self, answer: &Answer) {
        let Scene { diary, names, agenda, .. } = &mut self.scene;
        diary.hear(agenda.now_ms(), names, (answer.id, answer.index), &answer.replies);
        match answer.origin {
            Origin::Client(_) => {
                self.clients.hear(&mut self.scene, answer);
                self.look_for_rest();
            }
            Origin::Worker(process) => {
                self.with(process, |worker, scene| worker.hear(scene, answer));
            }
            Origin::Leader(_) => {
                self.leader.round_applied(answer.id);
                self.wake_leader();
            }
            Origin::Nobody => {}
        }
    }

    fn heard(&mut self, beat: Beat) {
        if self.leader.hear(&self.scene, beat) {
            self.wake_leader();
        }
    }

    fn wake_leader(&mut self) {
        let view = self.ledger.view();
        self.leader.wake(&mut self.scene, &view);
    }

    fn heal(&mut self) {
        self.is_healed = true;
        self.scene.note(Fact::Healed);
        self.look_for_rest();
    }

    /// After the healing: when all jobs have ended, submits a fresh one; when that has ended, too,
    /// the run is over.
    fn look_for_rest(&mut self) {
        let has_work = |(_, job): (_, &Job)| !job.phase.is_terminal();
        let is_at_rest = self.clients.are_content() && !self.ledger.state().jobs().any(has_work);
        if !self.is_healed || !is_at_rest {
            return;
        }
        if self.is_probed {
            self.finish();
            return;
        }
        self.is_probed = true;
        self.scene.note(Fact::Probed { job: self.probe });
        let drawing = Drawing { picture: self.probe, steps: 4, nature: Nature::Fine };
        let wish = Wish { job: self.probe, key: None, priority: 5, attempts_max: 1, drawing };
        let at_ms = self.scene.now_ms();
        let at = self.clients.add(Request { at_ms, client: 1, ask: Ask::Submit(wish) });
        self.request(at);
    }

    fn finish(&mut self) {
        self.ledger.note_final(&mut self.scene);
        self.scene.note(Fact::Over);
        self.is_over = true;
    }
}

fn place(node: u64) -> usize {
    usize::try_from(node - 1).expect("nodes are few")
}
