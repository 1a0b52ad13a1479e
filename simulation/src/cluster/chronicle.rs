//! What happened to machines, leaders and the operator, with its moment: for people, who look at it as a
//! picture. No checker reads it.

use super::Since;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process has started.
    Starts {
        /// Where.
        machine: u64,
    },
    /// A process has ended.
    Dies {
        /// Where.
        machine: u64,
    },
    /// A process leads.
    Leads {
        /// Where.
        machine: u64,
        /// In which term.
        term: u64,
    },
    /// A process leads no more.
    Follows {
        /// Where.
        machine: u64,
    },
    /// Something goes wrong.
    Fault {
        /// What.
        text: String,
        /// How long.
        for_ms: u64,
    },
    /// The operator begins something.
    Act {
        /// What.
        text: String,
    },
    /// The operator has done it, or has given up.
    ActEnds {
        /// What came of it.
        text: String,
    },
}

/// All of it, in order. Clones write the same one.
#[derive(Clone)]
pub(crate) struct Chronicle {
    since: Since,
    events: Arc<Mutex<Vec<(u64, Event)>>>,
}

impl Chronicle {
    pub(crate) fn new(since: Since) -> Chronicle {
        Chronicle { since, events: Arc::default() }
    }

    pub(crate) fn note(&self, event: Event) {
        let at_ms = (self.since)().as_millis();
        let at_ms = u64::try_from(at_ms).expect("virtual time is short");
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((at_ms, event));
    }

    pub(crate) fn events(&self) -> Vec<(u64, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
