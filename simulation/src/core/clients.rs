//! What clients do: ask, and ask the same again until there is an answer.

use super::event::{Answer, Origin, Proposal};
use super::scene::Scene;
use crate::history::Fact;
use crate::plan::{Ask, Request, Wish};
use atelier_state::{Cancel, Command, Submit};
use std::collections::BTreeMap;

/// All clients of a run.
pub(crate) struct Clients {
    requests: Vec<Request>,
    asked: usize,
    // By proposal: the place of the request, and what is proposed again.
    waiting: BTreeMap<u64, (usize, Command)>,
}

impl Clients {
    pub(crate) fn new(requests: Vec<Request>) -> Clients {
        Clients { requests, asked: 0, waiting: BTreeMap::new() }
    }

    /// Says whether every request was made and answered.
    pub(crate) fn are_content(&self) -> bool {
        self.asked == self.requests.len() && self.waiting.is_empty()
    }

    /// Tells when each request is due.
    pub(crate) fn times(&self) -> impl Iterator<Item = u64> {
        self.requests.iter().map(|request| request.at_ms)
    }

    /// Adds a request that is not in the plan; returns its place.
    pub(crate) fn add(&mut self, request: Request) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// Takes up a request. One that only looks is handed back.
    pub(crate) fn ask(&mut self, scene: &mut Scene, at: usize) -> Option<Request> {
        self.asked += 1;
        let request = self.requests[at].clone();
        let command = match &request.ask {
            Ask::Submit(wish) => submit(scene, wish),
            Ask::Cancel { job } => Command::Cancel(Cancel {
                job: scene.names.id(*job),
                reason: format!("client {} changed its mind", request.client),
                finished_ms: scene.agenda.wall_ms(),
            }),
            Ask::Read { .. } => return Some(request),
        };
        let id = scene.propose(Origin::Client(at), vec![command.clone()]);
        self.waiting.insert(id, (at, command));
        None
    }

    /// Proposes again what has no answer yet.
    pub(crate) fn retry(&mut self, scene: &mut Scene, id: u64) {
        if let Some((at, command)) = self.waiting.get(&id) {
            let (origin, commands) = (Origin::Client(*at), vec![command.clone()]);
            scene.send(Proposal { id, origin, commands });
        }
    }

    /// Takes an answer; a second one to the same proposal is thrown away.
    pub(crate) fn hear(&mut self, scene: &mut Scene, answer: &Answer) {
        let Some((at, command)) = self.waiting.remove(&answer.id) else { return };
        let [reply] = answer.replies.as_slice() else {
            unreachable!("a client proposes one command")
        };
        let client = self.requests[at].client;
        let (command, reply) = (scene.names.asked(&command), scene.names.answered(reply));
        scene.note(Fact::Told { client, command, reply });
    }
}

fn submit(scene: &Scene, wish: &Wish) -> Command {
    Command::Submit(Submit {
        job: scene.names.id(wish.job),
        tenant: "simulation".into(),
        idempotency_key: wish.key.as_deref().map(Into::into),
        priority: wish.priority,
        kind: "text_to_image/v1".into(),
        parameters: wish.drawing.to_bytes(),
        traceparent: String::new(),
        submitted_ms: scene.agenda.wall_ms(),
        attempts_max: wish.attempts_max,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    })
}
