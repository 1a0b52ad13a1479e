//! The history while it is written, and the checkers that read it over the shoulder.

use crate::checkers::{Panel, Violation};
use crate::history::{Fact, Record};

/// Writes down what happens, until a property is broken.
#[derive(Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    panel: Panel,
    hasher: blake3::Hasher,
    violation: Option<Violation>,
}

impl Journal {
    pub(crate) fn note(&mut self, at_ms: u64, fact: Fact) {
        if self.violation.is_some() {
            return;
        }
        let record = Record { i: self.records.len(), at_ms, fact };
        self.hasher.update(record.to_line().as_bytes());
        self.hasher.update(b"\n");
        self.violation = self.panel.see(&record).err();
        self.records.push(record);
    }

    /// Notes a violation that no record shows.
    pub(crate) fn accuse(&mut self, property: &'static str, detail: String) {
        let record = self.records.len().saturating_sub(1);
        self.violation.get_or_insert(Violation { property, detail, record });
    }

    /// The place of the newest record.
    pub(crate) fn last(&self) -> usize {
        self.records.len().saturating_sub(1)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.violation.is_some()
    }

    /// Hands the history over, with its digest and the first violation.
    pub(crate) fn close(self) -> (Vec<Record>, String, Option<Violation>) {
        (self.records, self.hasher.finalize().to_hex().to_string(), self.violation)
    }
}
