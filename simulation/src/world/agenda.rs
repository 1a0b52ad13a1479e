//! What will happen, and when. Time jumps from one event to the next, so waiting costs nothing.

use super::SimulatedClock;
use atelier_peer::ports::Clock;
use std::collections::BTreeMap;
use std::time::Duration;

/// Events to come. What is due at the same moment happens in the order in which it was planned.
#[derive(Debug)]
pub struct Agenda<E> {
    clock: SimulatedClock,
    planned: u64,
    events: BTreeMap<(Duration, u64), E>,
}

impl<E> Agenda<E> {
    /// Makes an empty agenda that moves a clock.
    pub fn new(clock: SimulatedClock) -> Agenda<E> {
        Agenda { clock, planned: 0, events: BTreeMap::new() }
    }

    /// Returns the time.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Returns the time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).expect("virtual time is short")
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Plans an event for a moment; for one that has passed, it is due now.
    pub fn at(&mut self, at_ms: u64, event: E) {
        let at = Duration::from_millis(at_ms).max(self.now());
        self.planned += 1;
        self.events.insert((at, self.planned), event);
    }

    /// Plans an event.
    pub fn after(&mut self, wait_ms: u64, event: E) {
        self.at(self.now_ms() + wait_ms, event);
    }

    /// Goes to the next event; none when nothing is left to happen.
    pub fn next_event(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.clock.move_to(at);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_their_planning_and_time_jumps() {
        let clock = SimulatedClock::new();
        let mut agenda = Agenda::new(clock.clone());
        agenda.at(3_600_000, "an hour later");
        agenda.at(5, "second");
        agenda.at(5, "third");
        agenda.after(1, "first");
        let order: Vec<_> = std::iter::from_fn(|| agenda.next_event()).collect();
        assert_eq!(order, ["first", "second", "third", "an hour later"]);
        assert_eq!(clock.now(), Duration::from_secs(3600));
    }
}
