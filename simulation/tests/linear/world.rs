//! A world that is right by construction: one copy of each object, operations that take effect
//! between call and return, reads that show some moment of the past. Its histories are valid.

use atelier_simulation::operations::{
    Answer, Call, Key, Operation, Outcome, Phase, Recorder, Seen, Server, Ticket,
};
use atelier_simulation::world::Rng;
use std::collections::BTreeMap;

const JOBS: u64 = 4;
const SERVERS: u64 = 3;
const EVENTS: u64 = 160;
const WATCHES: u64 = 1_000;

/// How an object was after each change, the last being now; with the log index.
type Past<T> = Vec<(u64, T)>;

struct World {
    rng: Rng,
    recorder: Recorder,
    index: u64,
    jobs: BTreeMap<u64, Past<Seen>>,
    settings: Past<BTreeMap<String, u64>>,
    /// Where in the past of each object a server stands, at least.
    views: BTreeMap<(Server, Key), usize>,
    open: Vec<Open>,
    sessions: u64,
}

/// An operation that was called and has not returned.
struct Open {
    ticket: Ticket,
    key: Key,
    call: Call,
    server: Option<Server>,
    effect: Option<Outcome>,
}

/// Makes the history of a seed.
pub(crate) fn history(seed: u64) -> Vec<Operation> {
    let mut world = World {
        rng: Rng::of(seed, "history"),
        recorder: Recorder::default(),
        index: 0,
        jobs: (1..=JOBS).map(|job| (job, Past::new())).collect(),
        settings: vec![(0, BTreeMap::new())],
        views: BTreeMap::new(),
        open: Vec::new(),
        sessions: 0,
    };
    for at in 0..EVENTS {
        world.event(at * 100);
    }
    world.watch_all(EVENTS * 100);
    world.recorder.operations().to_vec()
}

impl World {
    fn event(&mut self, at_us: u64) {
        match self.rng.below(100) {
            0..35 if self.open.len() < 6 => self.ask(at_us),
            35..60 => self.take_effect(),
            60..85 => self.answer(at_us),
            _ => self.move_unseen(),
        }
    }

    fn ask(&mut self, at_us: u64) {
        let job = Key::Job(self.rng.between(1..=JOBS));
        let (key, call) = match self.rng.below(100) {
            0..25 => (job, Call::Submit { key: None, attempts_max: 0 }),
            25..32 => (job, Call::Cancel),
            32..65 => (job, Call::Read),
            65..80 => (Key::Settings, Call::ReadSettings),
            _ => {
                let newest = self.settings.len() as u64 - 1;
                let expected = newest.saturating_sub(self.rng.below(2));
                let name = format!("register-{}", self.rng.below(2));
                (Key::Settings, Call::Set { expected, name, value: self.rng.between(2..=99) })
            }
        };
        let is_read = matches!(call, Call::Read | Call::ReadSettings);
        let server = Server { peer: self.rng.between(1..=SERVERS), life: 1 };
        let server = Some(server).filter(|_| is_read);
        let session = self.rng.below(4);
        let ticket = self.recorder.call(at_us, session, key, call.clone());
        if let Some(server) = server {
            self.recorder.serve(ticket, server);
        }
        self.open.push(Open { ticket, key, call, server, effect: None });
    }

    /// One of the open operations takes effect.
    fn take_effect(&mut self) {
        let waiting: Vec<usize> =
            (0..self.open.len()).filter(|at| self.open[*at].effect.is_none()).collect();
        if waiting.is_empty() {
            return;
        }
        let at = *self.rng.pick(&waiting);
        let (key, call, server) =
            (self.open[at].key, self.open[at].call.clone(), self.open[at].server);
        let outcome = match (key, call) {
            (Key::Job(job), Call::Submit { .. }) => self.submit(job),
            (Key::Job(job), Call::Cancel) => self.cancel(job),
            (Key::Job(_), _) | (Key::Settings, Call::ReadSettings) => {
                self.look(key, server.expect("reads have a server"))
            }
            (Key::Settings, Call::Set { expected, name, value }) => self.set(expected, name, value),
            (Key::Settings, _) => unreachable!("settings are read or set"),
        };
        self.open[at].effect = Some(outcome);
    }

    fn answer(&mut self, at_us: u64) {
        let done: Vec<usize> =
            (0..self.open.len()).filter(|at| self.open[*at].effect.is_some()).collect();
        let is_lost = self.rng.chance(6);
        if is_lost && !self.open.is_empty() {
            let at = self.rng.below(self.open.len() as u64) as usize;
            let open = self.open.remove(at);
            self.recorder.returns(at_us, open.ticket, Outcome::Unknown("lost".to_owned()));
        } else if !done.is_empty() {
            let open = self.open.remove(*self.rng.pick(&done));
            self.recorder.returns(at_us, open.ticket, open.effect.expect("chosen so"));
        }
    }

    fn change(&mut self, job: u64, seen: Seen) {
        self.index += 1;
        let index = self.index;
        self.jobs.get_mut(&job).expect("all are there").push((index, seen));
    }

    fn now(&self, job: u64) -> Option<Seen> {
        self.jobs[&job].last().map(|(_, seen)| seen.clone())
    }

    /// What workers and the leader do.
    fn move_unseen(&mut self) {
        let job = self.rng.between(1..=JOBS);
        let Some(mut seen) = self.now(job) else { return };
        match (seen.phase, self.rng.below(4)) {
            (Phase::Queued, _) => {
                seen.phase = Phase::Leased;
                seen.token = self.index + 1;
                seen.leases += 1;
            }
            (Phase::Leased, 0) => seen.phase = Phase::Queued,
            (Phase::Leased, 1) => {
                seen.phase = if seen.attempts == 2 { Phase::Failed } else { Phase::Queued };
                seen.attempts += 1;
            }
            (Phase::Leased, 2) => {
                seen.phase = Phase::Succeeded;
                seen.result = vec![format!("picture {job}")];
            }
            _ => return,
        }
        self.change(job, seen);
    }

    fn submit(&mut self, job: u64) -> Outcome {
        let duplicate = self.now(job).is_some();
        if !duplicate {
            let (phase, result) = (Phase::Queued, Vec::new());
            self.change(job, Seen { phase, token: 0, leases: 0, attempts: 0, result });
        }
        let index = self.jobs[&job].first().map(|(index, _)| *index);
        Outcome::Ok { answer: Answer::Submitted { job, duplicate }, index }
    }

    fn cancel(&mut self, job: u64) -> Outcome {
        let answer = match self.now(job) {
            None => Answer::NoJob,
            Some(seen) if seen.phase == Phase::Cancelled => Answer::Job(seen),
            Some(seen) if seen.phase.is_terminal() => {
                return Outcome::Refused("Terminal".to_owned());
            }
            Some(mut seen) => {
                seen.phase = Phase::Cancelled;
                self.change(job, seen.clone());
                Answer::Job(seen)
            }
        };
        Outcome::Ok { answer, index: None }
    }

    fn set(&mut self, expected: u64, name: String, value: u64) -> Outcome {
        if expected != self.settings.len() as u64 - 1 {
            return Outcome::Refused("StaleVersion".to_owned());
        }
        let mut values = self.settings.last().expect("there is a first").1.clone();
        values.insert(name, value);
        self.index += 1;
        self.settings.push((self.index, values.clone()));
        let version = self.settings.len() as u64 - 1;
        Outcome::Ok { answer: Answer::Settings { version, values }, index: None }
    }

    /// A server answers from its view, which may be old and never goes back.
    fn look(&mut self, key: Key, server: Server) -> Outcome {
        let length = match key {
            Key::Job(job) => self.jobs[&job].len(),
            Key::Settings => self.settings.len(),
        };
        let answer = if length == 0 {
            Answer::NoJob
        } else {
            let least = self.views.get(&(server, key)).copied().unwrap_or(0);
            let at = self.rng.between(least as u64..=length as u64 - 1) as usize;
            self.views.insert((server, key), at);
            match key {
                Key::Job(job) => Answer::Job(self.jobs[&job][at].1.clone()),
                Key::Settings => {
                    let values = self.settings[at].1.clone();
                    Answer::Settings { version: at as u64, values }
                }
            }
        };
        Outcome::Ok { answer, index: None }
    }

    /// Watches every job after the fact: some of its states, in order, and its end.
    fn watch_all(&mut self, at_us: u64) {
        for (job, past) in self.jobs.clone() {
            self.sessions += 1;
            let session = WATCHES + self.sessions;
            let last = past.len().saturating_sub(1);
            for (at, (index, seen)) in past.into_iter().enumerate() {
                if at == last || self.rng.chance(70) {
                    let asked = (Key::Job(job), Call::Watch);
                    let is_over = seen.phase.is_terminal();
                    self.recorder.at_once(at_us, session, asked, Answer::Job(seen), Some(index));
                    if is_over {
                        let asked = (Key::Job(job), Call::Watch);
                        self.recorder.at_once(at_us, session, asked, Answer::Done, None);
                    }
                }
            }
        }
    }
}
