//! A job of which clients tell, by the numbers that it shows: where it was accepted, its newest token,
//! how often it was leased.

use crate::checkers::linear::job::{follows, is_further, names_other};
use crate::operations::{Answer, Call, Operation, Outcome, Phase, Seen};

/// What was told of one job.
struct Told<'a> {
    /// Whatever may have made it.
    submissions: Vec<&'a Operation>,
    /// Whatever may have called it off.
    cancels: Vec<&'a Operation>,
    /// Whoever saw it, in the order of its life.
    sights: Vec<(&'a Operation, &'a Seen)>,
}

pub(super) fn check(operations: &[&Operation]) -> Result<(), String> {
    let is = |name: &str, it: &Operation| {
        it.call.name() == name && !matches!(it.outcome, Outcome::Refused(_))
    };
    let all = |name: &str| operations.iter().copied().filter(|it| is(name, it)).collect();
    let sights = operations.iter().filter_map(|it| Some((*it, it.seen()?)));
    let mut told =
        Told { submissions: all("submit"), cancels: all("cancel"), sights: sights.collect() };
    told.cancels.retain(|it| it.answer() != Some(&Answer::NoJob));
    told.sights.sort_by_key(|(_, seen)| progress(seen));
    told.check_acceptance()?;
    told.check_indexes()?;
    told.check_life()?;
    told.check_cancels(operations)?;
    told.check_absence(operations)
}

/// How far a job has come: within one lease it is worked on, then waits, then has ended.
fn progress(seen: &Seen) -> (u32, u64, u32, u8) {
    let rank = match seen.phase {
        Phase::Leased => 0,
        Phase::Queued => 1,
        Phase::Succeeded | Phase::Failed | Phase::Cancelled => 2,
    };
    (seen.leases, seen.token, seen.attempts, rank)
}

impl Told<'_> {
    /// It is accepted at one index, once, before anybody sees it.
    fn check_acceptance(&self) -> Result<(), String> {
        let answered = self.submissions.iter().filter(|it| it.answer().is_some());
        let mut indexes: Vec<_> = answered.clone().map(|it| it.index()).collect();
        indexes.dedup();
        if indexes.len() > 1 {
            return Err(format!("it was accepted at the indexes {indexes:?}"));
        }
        let is_first = |it: &&&Operation| {
            matches!(it.answer(), Some(Answer::Submitted { duplicate: false, .. }))
        };
        if let Some(twin) = answered.clone().filter(is_first).find(|it| names_other(it)) {
            return Err(format!("it has the key of another job: {twin}"));
        }
        if answered.clone().filter(is_first).count() > 1 {
            return Err("it was accepted more than once as the first".to_owned());
        }
        // A submission that was answered with this job, whose key it has, did not make it.
        let makers = self.submissions.iter().filter(|it| !names_other(it));
        let Some(first) = makers.map(|it| it.called.place).min() else {
            let witness =
                self.sights.first().map(|(it, _)| *it).or(answered.clone().next().copied());
            return witness.map_or(Ok(()), |it| Err(format!("nobody had submitted it: {it}")));
        };
        let seers = self.sights.iter().map(|(it, _)| *it).chain(answered.copied());
        let mut seers = seers.filter(|it| it.returned.is_some_and(|at| at.place < first));
        seers.next().map_or(Ok(()), |it| Err(format!("it was seen before it was submitted: {it}")))
    }

    /// Whoever names a log index with what it tells names one that contains it, and a later one has
    /// come further.
    fn check_indexes(&self) -> Result<(), String> {
        let submitted = self.submissions.iter().find_map(|it| it.index()).unwrap_or(0);
        let mut dated: Vec<_> =
            self.sights.iter().filter_map(|(it, seen)| Some((it.index()?, *it, *seen))).collect();
        dated.sort_by_key(|(index, _, seen)| (*index, progress(seen)));
        for (index, operation, seen) in &dated {
            if *index < submitted || *index < seen.token {
                return Err(format!("the index is older than what it shows: {operation}"));
            }
        }
        for pair in dated.windows(2) {
            let [(before, _, earlier), (after, operation, later)] = pair else { continue };
            if progress(later) < progress(earlier) || (before == after && earlier != later) {
                return Err(format!(
                    "index {before} shows {earlier:?}, and then comes: {operation}"
                ));
            }
        }
        Ok(())
    }

    /// In the order of its life each sight follows from the one before.
    fn check_life(&self) -> Result<(), String> {
        let born =
            Seen { phase: Phase::Queued, token: 0, leases: 0, attempts: 0, result: Vec::new() };
        let mut before = &born;
        for (operation, seen) in &self.sights {
            let is_called_off = seen.phase == Phase::Cancelled;
            let is_next = match is_called_off && !before.phase.is_terminal() {
                true => is_further(before, seen),
                false => follows(before, seen),
            };
            if !is_next {
                return Err(format!("after {before:?} nobody can see: {operation}"));
            }
            before = seen;
        }
        Ok(())
    }

    /// A job that was called off was so by somebody: by a cancel that was told to be done, that nobody
    /// knows of, or that was told to have come too late and was a repeat of itself.
    fn check_cancels(&self, operations: &[&Operation]) -> Result<(), String> {
        // One that shows nothing was done by a peer that lags.
        let shows_other =
            |it: &&&Operation| it.seen().is_some_and(|it| it.phase != Phase::Cancelled);
        if let Some(cancel) = self.cancels.iter().find(shows_other) {
            return Err(format!("it is not cancelled afterwards: {cancel}"));
        }
        if let Some(cancel) = self.cancels.iter().find(|it| it.answer().is_some())
            && let Some((other, _)) = self
                .sights
                .iter()
                .find(|(_, seen)| matches!(seen.phase, Phase::Succeeded | Phase::Failed))
        {
            return Err(format!("{cancel}; and yet {other}"));
        }
        let late = || operations.iter().filter(|it| is_late(it)).copied();
        let first = self.cancels.iter().copied().chain(late()).map(|it| it.called.place).min();
        for (sight, _) in self.sights.iter().filter(|(_, seen)| seen.phase == Phase::Cancelled) {
            let has_cause = first.zip(sight.returned).is_some_and(|(at, it)| at < it.place);
            if !has_cause {
                return Err(format!("nobody had called it off: {sight}"));
            }
        }
        match late().find(|_| self.submissions.is_empty()) {
            Some(operation) => Err(format!("nobody had submitted it: {operation}")),
            None => Ok(()),
        }
    }

    /// Nobody misses it after somebody knew it.
    fn check_absence(&self, operations: &[&Operation]) -> Result<(), String> {
        let is_known = |it: &&Operation| {
            let is_submitted = it.call.name() == "submit" && it.answer().is_some();
            is_submitted || it.seen().is_some() || is_late(it)
        };
        let known: Vec<&Operation> = operations.iter().copied().filter(is_known).collect();
        for missed in operations.iter().filter(|it| it.answer() == Some(&Answer::NoJob)) {
            if let Some(knew) = known.iter().find(|it| it.precedes(missed)) {
                return Err(format!("{knew}; after that {missed}"));
            }
        }
        Ok(())
    }
}

fn is_late(operation: &Operation) -> bool {
    operation.call == Call::Cancel && operation.outcome == Outcome::Refused("Terminal".to_owned())
}
