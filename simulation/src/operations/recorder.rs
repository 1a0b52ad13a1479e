//! Writes operations down while they happen.

use super::{Answer, Call, Key, Moment, Operation, Outcome, Server};
use std::collections::BTreeMap;

/// The history of a run so far.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    operations: Vec<Operation>,
    places: u64,
    processes: u64,
    // Processes of a session that ask nothing at the moment.
    idle: BTreeMap<u64, Vec<u64>>,
}

/// Names an operation that has not returned yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(usize);

impl Recorder {
    /// Notes that something is asked, by a process of the session that is idle or else a new one.
    pub fn call(&mut self, at_us: u64, session: u64, key: Key, call: Call) -> Ticket {
        let process = self.idle.entry(session).or_default().pop().unwrap_or_else(|| {
            self.processes += 1;
            self.processes - 1
        });
        let called = self.moment(at_us);
        self.operations.push(Operation {
            process,
            session,
            server: None,
            called,
            returned: None,
            key,
            call,
            outcome: Outcome::Unknown("no answer by the end of the run".to_owned()),
        });
        Ticket(self.operations.len() - 1)
    }

    /// Notes what came of it. An unknown outcome is the end of its process.
    ///
    /// # Panics
    /// When it had returned before.
    pub fn returns(&mut self, at_us: u64, ticket: Ticket, outcome: Outcome) {
        let returned = self.moment(at_us);
        let operation = &mut self.operations[ticket.0];
        assert!(operation.returned.is_none(), "an operation returns once: {operation}");
        operation.outcome = outcome;
        operation.returned = Some(returned);
        if !matches!(operation.outcome, Outcome::Unknown(_)) {
            self.idle.entry(operation.session).or_default().push(operation.process);
        }
    }

    /// Notes which process of the product it went to.
    pub fn serve(&mut self, ticket: Ticket, server: Server) {
        self.operations[ticket.0].server = Some(server);
    }

    /// Notes something that is asked and answered at once.
    pub fn at_once(
        &mut self,
        at_us: u64,
        session: u64,
        (key, call): (Key, Call),
        answer: Answer,
        index: Option<u64>,
    ) {
        let ticket = self.call(at_us, session, key, call);
        self.returns(at_us, ticket, Outcome::Ok { answer, index });
    }

    /// Makes an operation that is asked and answered at this moment, without taking it in: whoever
    /// asks finds out later whether it is told otherwise.
    pub fn beside(&mut self, at_us: u64, (key, call): (Key, Call), outcome: Outcome) -> Operation {
        let (called, returned) = (self.moment(at_us), Some(self.moment(at_us)));
        let (process, session, server) = (0, 0, None);
        Operation { process, session, server, called, returned, key, call, outcome }
    }

    /// Hands everything over, with operations from [`Recorder::beside`] as a session's.
    pub fn close(mut self, session: u64, beside: Vec<Operation>) -> Vec<Operation> {
        // Each lasts a moment, so one process is enough for all of them.
        let process = self.processes;
        let beside = beside.into_iter().map(|it| Operation { process, session, ..it });
        self.operations.extend(beside);
        self.operations.sort_by_key(|operation| operation.called.place);
        self.operations
    }

    /// Returns everything so far, in order of the calls.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn moment(&mut self, at_us: u64) -> Moment {
        self.places += 1;
        Moment { place: self.places - 1, at_us }
    }
}
