//! The perfect log: one state, one order, nothing lost once it is in.

use super::differences;
use super::event::Proposal;
use super::names::digests;
use super::plant;
use super::scene::Scene;
use crate::checkers::audit;
use crate::history::Fact;
use crate::operations::Call;
use atelier_peer::view::View;
use atelier_state::{Command, FencingToken, Job, JobId, LogIndex, NodeId, Reply, State};

/// The applied log.
pub(crate) struct Ledger {
    state: State,
    audits: bool,
    // What each command changed, by its record; none where nobody asks.
    differences: Option<Vec<(usize, String)>>,
}

impl Ledger {
    pub(crate) fn new(audits: bool) -> Ledger {
        Ledger { state: State::new(), audits, differences: None }
    }

    pub(crate) fn tell_differences(&mut self) {
        self.differences = Some(Vec::new());
    }

    pub(crate) fn differences(&mut self) -> Vec<(usize, String)> {
        self.differences.take().unwrap_or_default()
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn view(&self) -> View {
        View { state: self.state.clone(), applied: self.state.applied() }
    }

    /// Applies proposals as one entry. Returns its index, and the replies to each proposal.
    pub(crate) fn append(
        &mut self,
        scene: &mut Scene,
        proposals: &[Proposal],
    ) -> (u64, Vec<Vec<Reply>>) {
        let index = LogIndex(self.state.applied().0 + 1);
        let mut replies = Vec::new();
        for proposal in proposals {
            let each = proposal.commands.iter().map(|command| self.apply(scene, index, command));
            let each: Vec<Reply> = each.collect();
            let applied: Vec<_> = proposal.commands.iter().zip(&each).collect();
            let (now_ms, Scene { diary, names, .. }) = (scene.now_ms(), &mut *scene);
            diary.apply(now_ms, names, (proposal.id, index.0), &applied);
            replies.push(each);
        }
        (index.0, replies)
    }

    fn apply(&mut self, scene: &mut Scene, index: LogIndex, command: &Command) -> Reply {
        let before = self.state.clone();
        let reply = plant::apply(&mut self.state, index, command, scene.plant);
        let (asked, answered) = (scene.names.asked(command), scene.names.answered(&reply));
        scene.note(Fact::Applied { index: index.0, command: asked, reply: answered });
        if let Some(told) = &mut self.differences {
            let record = scene.journal.last();
            let lines = differences::between(&before, &self.state, &scene.names);
            told.extend(lines.into_iter().map(|line| (record, line)));
        }
        for (job, token) in self.leases_lost(&before, command) {
            let (job, now_ms) = (scene.names.number(job), scene.now_ms());
            scene.diary.tell(now_ms, index.0, (job, Call::Lose { token: token.0 }));
            scene.note(Fact::LeaseLost { job, token: token.0 });
        }
        if let Command::Forget(forget) = command {
            for id in &forget.jobs {
                let dropped = before.job(*id).filter(|_| self.state.job(*id).is_none());
                let Some(job) = dropped else { continue };
                let (job, phase) = (scene.names.number(*id), job.phase.name().to_owned());
                let now_ms = scene.now_ms();
                scene.diary.tell(now_ms, index.0, (job, Call::Forget));
                scene.note(Fact::Forgotten { job, phase });
            }
        }
        if self.audits
            && let Err(detail) = audit::check(&before, command, &reply, &self.state)
        {
            scene.journal.accuse("audit", detail);
        }
        reply
    }

    /// Passes the state through a snapshot, as a peer does that starts anew and comes to lead.
    pub(crate) fn restore(&mut self, scene: &mut Scene) {
        self.note_order(scene, false);
        let mut snapshot = self.state.to_snapshot();
        plant::spoil(&mut snapshot, scene.plant);
        match State::from_snapshot(snapshot) {
            Ok(state) => self.state = state,
            Err(error) => scene.journal.accuse("audit", error.to_string()),
        }
        self.note_order(scene, true);
    }

    fn note_order(&self, scene: &mut Scene, restored: bool) {
        let jobs = self.state.queued().map(|(job, _)| scene.names.number(*job)).collect();
        let delayed = self.state.delayed().map(|(job, _)| scene.names.number(job)).collect();
        scene.note(Fact::Order { restored, jobs, delayed });
    }

    /// Finds the leases that a node's registration or removal ended.
    fn leases_lost(&self, before: &State, command: &Command) -> Vec<(JobId, FencingToken)> {
        let node: NodeId = match command {
            Command::RegisterNode(register) => register.node,
            Command::RemoveNode(remove) => remove.node,
            _ => return Vec::new(),
        };
        let is_lost = |job: JobId, token| {
            self.state.job(job).and_then(Job::lease).map(|it| it.token) != token
        };
        let leases = before.leases_of(node).map(|(job, lease)| (job, lease.token));
        leases.filter(|(job, token)| is_lost(*job, Some(*token))).collect()
    }

    /// Notes how every job stands.
    pub(crate) fn note_final(&self, scene: &mut Scene) {
        for (id, job) in self.state.jobs() {
            let fact = Fact::Final {
                job: scene.names.number(*id),
                phase: job.phase.name().to_owned(),
                token: job.last_token.map_or(0, |token| token.0),
                artifacts: digests(&job.artifacts),
            };
            scene.note(fact);
        }
    }
}
