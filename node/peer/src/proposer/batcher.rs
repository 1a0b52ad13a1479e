//! When a batch leaves, and how large it is.
//!
//! Owns the commands that wait, decides and moves nothing. A command that comes alone leaves at
//! once; while others are under way it waits a moment for company, because a shared entry costs one
//! flush.

use atelier_state::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a command waits for company while others are under way.
const GATHER: Duration = Duration::from_millis(1);
/// Commands that are company enough: more save little, and these would wait for nothing.
const GATHER_ENOUGH: usize = 16;
/// Batches under way. Filled while the log is slow or absent; at the brim commands wait here.
pub(super) const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// Commands that wait for a batch.
#[derive(Debug)]
pub(super) struct Batcher<T> {
    pending: VecDeque<Pending<T>>,
    pending_bytes: usize,
    in_flight: usize,
}

#[derive(Debug)]
struct Pending<T> {
    item: T,
    bytes: usize,
    since: Duration,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Let this batch go.
    Send(Vec<T>),
    /// Wait this long, or until something happens.
    Wait(Option<Duration>),
}

impl<T> Default for Batcher<T> {
    fn default() -> Batcher<T> {
        Batcher { pending: VecDeque::new(), pending_bytes: 0, in_flight: 0 }
    }
}

impl<T> Batcher<T> {
    /// Says whether one more may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < ENTRY_COMMANDS_MAX && self.pending_bytes < ENTRY_BYTES_MAX
    }

    pub(super) fn push(&mut self, item: T, bytes: usize, now: Duration) {
        assert!(self.has_room());
        assert!(bytes <= ENTRY_BYTES_MAX);
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { item, bytes, since: now });
    }

    /// Notes that a batch has come back.
    pub(super) fn landed(&mut self) {
        assert!(self.in_flight > 0);
        self.in_flight -= 1;
    }

    pub(super) fn next(&mut self, now: Duration) -> Next<T> {
        let Some(oldest) = self.pending.front() else { return Next::Wait(None) };
        if self.in_flight == BATCHES_IN_FLIGHT_MAX {
            return Next::Wait(None);
        }
        let waited = now.saturating_sub(oldest.since);
        let is_alone = self.pending.len() < GATHER_ENOUGH && self.has_room();
        if self.in_flight > 0 && waited < GATHER && is_alone {
            return Next::Wait(Some(GATHER - waited));
        }
        Next::Send(self.take())
    }

    fn take(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some(first) = self.pending.front() {
            if batch.len() == ENTRY_COMMANDS_MAX || batch_bytes + first.bytes > ENTRY_BYTES_MAX {
                break;
            }
            let Pending { item, bytes, .. } = self.pending.pop_front().expect("there is a front");
            batch_bytes += bytes;
            self.pending_bytes -= bytes;
            batch.push(item);
        }
        assert!(!batch.is_empty());
        self.in_flight += 1;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn a_lone_command_leaves_at_once_and_the_next_waits_for_company() {
        let mut batcher = Batcher::default();
        batcher.push('a', 10, NOW);
        assert_eq!(batcher.next(NOW), Next::Send(vec!['a']));
        batcher.push('b', 10, NOW);
        assert_eq!(batcher.next(NOW), Next::Wait(Some(GATHER)));
        batcher.push('c', 10, NOW + GATHER / 2);
        assert_eq!(batcher.next(NOW + GATHER), Next::Send(vec!['b', 'c']));
        batcher.push('d', 10, NOW + GATHER);
        batcher.landed();
        batcher.landed();
        assert_eq!(batcher.next(NOW + GATHER), Next::Send(vec!['d']));
    }

    #[test]
    fn at_the_bound_of_batches_everything_waits() {
        let mut batcher = Batcher::default();
        for _ in 0..BATCHES_IN_FLIGHT_MAX {
            batcher.push((), ENTRY_BYTES_MAX, NOW);
            assert_eq!(batcher.next(NOW), Next::Send(vec![()]));
        }
        batcher.push((), 10, NOW);
        assert_eq!(batcher.next(NOW + 9 * GATHER), Next::Wait(None));
        batcher.landed();
        assert_eq!(batcher.next(NOW + 9 * GATHER), Next::Send(vec![()]));
    }

    proptest! {
        #[test]
        fn batches_keep_the_order_and_the_bounds(
            sizes in prop::collection::vec(0..=ENTRY_BYTES_MAX, 1..600),
        ) {
            let mut batcher = Batcher::default();
            let mut left = Vec::new();
            let mut sizes_left = sizes.iter().copied().enumerate().peekable();
            while left.len() < sizes.len() {
                while batcher.has_room() && let Some((number, bytes)) = sizes_left.next() {
                    batcher.push((number, bytes), bytes, NOW);
                }
                let Next::Send(batch) = batcher.next(NOW + GATHER) else {
                    return Err(TestCaseError::fail("a batch that is due does not leave"));
                };
                prop_assert!(batch.len() <= ENTRY_COMMANDS_MAX);
                prop_assert!(batch.iter().map(|(_, b)| b).sum::<usize>() <= ENTRY_BYTES_MAX);
                left.extend(batch.into_iter().map(|(number, _)| number));
                batcher.landed();
            }
            prop_assert_eq!(left, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
