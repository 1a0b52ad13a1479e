//! The settings, by version.

use super::{Span, against_time, is_unknown, span, window};
use crate::checkers::linear::register::{Settings, set, shows_change};
use crate::operations::{Answer, Call, Operation, Outcome};

pub(super) fn check(operations: &[&Operation]) -> Result<(), String> {
    let chain = Chain::of(operations)?;
    if let Some(at) = against_time(&chain.order) {
        return Err(format!("version {} was made before an earlier one was asked for", at + 1));
    }
    operations.iter().try_for_each(|operation| chain.check(operation))
}

/// Every version, and what made it.
struct Chain {
    order: Vec<Span>,
    /// One more: the first is that before any change.
    states: Vec<Settings>,
}

impl Chain {
    fn of(operations: &[&Operation]) -> Result<Chain, String> {
        let newest = operations.iter().filter_map(|it| version_of(it)).max().unwrap_or(0);
        let mut chain = Chain { order: Vec::new(), states: vec![Settings::default()] };
        loop {
            let version = chain.states.len() as u64;
            let Some(change) = chain.change_to(operations, version)? else {
                if version <= newest {
                    return Err(format!("version {version} was seen, and nobody made it"));
                }
                return Ok(chain);
            };
            chain.order.push(span(change));
            let before = chain.states.last().expect("there is one from the beginning");
            chain.states.extend(changed(before, change));
        }
    }

    /// Finds what made a version. Of those whose outcome is unknown it is the one whose value was
    /// seen; where nobody looked, the first that was asked.
    fn change_to<'a>(
        &self,
        operations: &[&'a Operation],
        version: u64,
    ) -> Result<Option<&'a Operation>, String> {
        let is_to = |it: &&&Operation| match it.call {
            Call::Set { expected, .. } => expected + 1 == version,
            _ => false,
        };
        let told = operations.iter().filter(is_to).filter(|it| it.answer().is_some());
        let told: Vec<&Operation> = told.copied().collect();
        match told.as_slice() {
            [one] => return Ok(Some(one)),
            [] => {}
            [one, other, ..] => return Err(format!("both made version {version}: {one}; {other}")),
        }
        let before = self.states.last().expect("there is one from the beginning");
        let sight = operations.iter().find_map(|it| shown(it).filter(|it| it.version == version));
        let mut unknown: Vec<&Operation> =
            operations.iter().filter(is_to).filter(|it| is_unknown(it)).copied().collect();
        unknown.sort_by_key(|it| it.called);
        let fits = |it: &&Operation| sight.is_none() || changed(before, it) == sight;
        Ok(unknown.into_iter().find(fits))
    }

    fn check(&self, operation: &Operation) -> Result<(), String> {
        let (least, most) = window(&self.order, operation, operation.call == Call::ReadSettings);
        if !shows_change(operation) {
            return Err(format!("it lacks what it has changed: {operation}"));
        }
        if let Some(shown) = shown(operation) {
            let version = usize::try_from(shown.version).unwrap_or(usize::MAX);
            if self.states.get(version) != Some(&shown) {
                return Err(format!("the version had other values: {operation}"));
            }
            if version > most {
                return Err(format!("nobody had made the version yet: {operation}"));
            }
        }
        match (&operation.call, &operation.outcome) {
            (Call::Set { expected, .. }, Outcome::Refused(why)) if why == "StaleVersion" => {
                let mut among = self.states[least.min(most)..=most].iter();
                let is_true = among.any(|state| state.version != *expected);
                is_true.then_some(()).ok_or_else(|| format!("that was the version: {operation}"))
            }
            _ => Ok(()),
        }
    }
}

fn changed(before: &Settings, change: &Operation) -> Option<Settings> {
    let Call::Set { expected, name, value } = &change.call else { return None };
    set(before, *expected, (name, *value))
}

fn shown(operation: &Operation) -> Option<Settings> {
    match operation.answer() {
        Some(Answer::Settings { version, values }) => {
            Some(Settings { version: *version, values: values.clone() })
        }
        _ => None,
    }
}

fn version_of(operation: &Operation) -> Option<u64> {
    match operation.answer() {
        Some(Answer::Settings { version, .. }) => Some(*version),
        _ => None,
    }
}
