//! A circuit breaker: leaves an endpoint alone that has failed again and again.
//!
//! Owns no clock: the moment comes in as an argument. It only says whom to ask last: where every
//! endpoint is left alone, one of them is asked all the same, since an outage that is over must not
//! be prolonged from this side.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open a breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// Successes in a row, after it was open, that close it.
const SUCCESSES_TO_CLOSE: u32 = 2;
/// How long an open breaker lets nothing through.
const OPEN: Duration = Duration::from_secs(30);

/// What is known of one endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Breaker {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// All goes well, but for so many failures in a row.
    Closed { failures: u32 },
    /// Left alone up to then; afterwards calls are tried again.
    Open { until: Instant },
    /// It was open and has answered so many calls since.
    Trying { successes: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether calls may go there now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } | State::Trying { .. } => true,
            State::Open { until } => now >= until,
        }
    }

    /// Books a call that was answered, with whatever answer.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { .. } => State::default(),
            // One that was sent before it opened says nothing new.
            State::Open { until } if now < until => State::Open { until },
            State::Open { .. } => State::Trying { successes: 1 },
            State::Trying { successes } if successes + 1 >= SUCCESSES_TO_CLOSE => State::default(),
            State::Trying { successes } => State::Trying { successes: successes + 1 },
        };
    }

    /// Books a call that nobody answered.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_TO_OPEN => {
                State::Closed { failures: failures + 1 }
            }
            State::Open { until } if now < until => State::Open { until },
            State::Closed { .. } | State::Trying { .. } | State::Open { .. } => {
                State::Open { until: now + OPEN }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failures_open_it_for_half_a_minute_and_two_successes_close_it() {
        let (mut breaker, begun) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES_TO_OPEN {
            assert!(breaker.allows(begun));
            breaker.failed(begun);
        }
        assert!(!breaker.allows(begun) && !breaker.allows(begun + OPEN - SECOND));
        let tried = begun + OPEN;
        assert!(breaker.allows(tried));
        breaker.succeeded(tried);
        assert_ne!(breaker, Breaker::default());
        breaker.succeeded(tried);
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn one_failure_while_it_is_tried_opens_it_again() {
        let (mut breaker, begun) = (Breaker::default(), Instant::now());
        (0..FAILURES_TO_OPEN).for_each(|_| breaker.failed(begun));
        let tried = begun + OPEN;
        breaker.succeeded(tried);
        breaker.failed(tried);
        assert!(!breaker.allows(tried + OPEN - SECOND));
        assert!(breaker.allows(tried + OPEN));
    }

    /// What the rule says, told from the whole history instead of a state.
    fn allowed(history: &[(Duration, bool)], now: Duration) -> bool {
        let (mut opened, mut failures, mut successes) = (None::<Duration>, 0, 0);
        for &(at, success) in history {
            match opened {
                Some(since) if at < since + OPEN => {}
                Some(_) if success && successes + 1 == SUCCESSES_TO_CLOSE => {
                    (opened, failures, successes) = (None, 0, 0);
                }
                Some(_) if success => successes += 1,
                Some(_) => (opened, successes) = (Some(at), 0),
                None if success => failures = 0,
                None if failures + 1 == FAILURES_TO_OPEN => (opened, successes) = (Some(at), 0),
                None => failures += 1,
            }
        }
        // While it is tried, `opened` is in the past by more than its time.
        opened.is_none_or(|since| now >= since + OPEN)
    }

    proptest! {
        #[test]
        fn it_keeps_the_rule_over_any_history(
            steps in prop::collection::vec((0_u64..20_000, prop::bool::weighted(0.4)), 0..120),
        ) {
            let (mut breaker, begun) = (Breaker::default(), Instant::now());
            let (mut history, mut now) = (Vec::new(), Duration::ZERO);
            for (pause_ms, success) in steps {
                now += Duration::from_millis(pause_ms);
                prop_assert_eq!(breaker.allows(begun + now), allowed(&history, now));
                if success {
                    breaker.succeeded(begun + now);
                } else {
                    breaker.failed(begun + now);
                }
                history.push((now, success));
            }
        }

        #[test]
        fn an_endpoint_that_is_well_again_is_never_left_alone_for_long(
            steps in prop::collection::vec((0_u64..60_000, any::<bool>()), 0..60),
        ) {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            for (pause_ms, success) in steps {
                now += Duration::from_millis(pause_ms);
                if success { breaker.succeeded(now) } else { breaker.failed(now) }
            }
            now += OPEN;
            prop_assert!(breaker.allows(now));
            breaker.succeeded(now);
            breaker.succeeded(now);
            prop_assert_eq!(breaker, Breaker::default());
        }
    }
}
