//! The cluster's wall clock: what the clocks of most voters say, so that one wrong clock means nothing.
//!
//! ```text
//!   follower ── beat: my clock ──► leader: the median of a majority's clocks
//!            ◄── answer: the time ──
//! ```
//!
//! Owns how far this machine's clock is from that. Stamps, ages and deadlines go by the corrected
//! clock ([`ClusterClock`]); a leader that has not heard a majority's clocks judges no age at all.
//! A leader alone could forget the history of a cluster within seconds because its clock is wrong.

use crate::ports::Clock;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

/// A clock that is off by less is left alone: every stamp may be off by so much.
pub const APART_MAX: Duration = Duration::from_secs(5);

/// How far this machine's wall clock is from the cluster's.
#[derive(Debug, Default)]
pub struct ClusterTime {
    // Milliseconds to be added to the own clock.
    apart_ms: AtomicI64,
    agreed: AtomicBool,
}

impl ClusterTime {
    /// Notes what the cluster's time is, as a distance from this machine's clock.
    pub(crate) fn learn(&self, apart_ms: i64) {
        let is_well = u128::from(apart_ms.unsigned_abs()) <= APART_MAX.as_millis();
        let apart_ms = if is_well { 0 } else { apart_ms };
        let before = self.apart_ms.swap(apart_ms, Ordering::Relaxed);
        if (before == 0) != is_well {
            return;
        }
        if is_well {
            tracing::info!("this machine's clock agrees with the cluster's again");
        } else {
            let seconds = apart_ms.unsigned_abs() / 1_000;
            let way = if apart_ms > 0 { "behind" } else { "ahead of" };
            tracing::warn!(
                "this machine's clock is {seconds} s {way} the cluster's, which is used instead; \
                 run a time service, such as chrony"
            );
        }
    }

    /// Notes whether a majority's clocks are known; only a leader asks.
    pub(crate) fn agree(&self, agreed: bool) {
        self.agreed.store(agreed, Ordering::Relaxed);
    }

    /// Says whether a majority's clocks are known.
    pub(crate) fn is_agreed(&self) -> bool {
        self.agreed.load(Ordering::Relaxed)
    }

    fn apart_ms(&self) -> i64 {
        self.apart_ms.load(Ordering::Relaxed)
    }
}

/// A clock whose wall time is the cluster's.
pub(crate) struct ClusterClock {
    pub(crate) own: Arc<dyn Clock>,
    pub(crate) time: Arc<ClusterTime>,
}

impl Clock for ClusterClock {
    fn now(&self) -> Duration {
        self.own.now()
    }

    fn wall_ms(&self) -> u64 {
        self.own.wall_ms().saturating_add_signed(self.time.apart_ms())
    }

    fn own_wall_ms(&self) -> u64 {
        self.own.own_wall_ms()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.own.sleep(duration)
    }
}

/// The distance from the own clock at which most clocks stand: the median, and of two the earlier,
/// since what is forgotten too late does no harm. None where fewer than a majority are known.
pub(crate) fn median(mut apart_ms: Vec<i64>, voters: usize) -> Option<i64> {
    if voters == 0 || apart_ms.len() <= voters / 2 {
        return None;
    }
    apart_ms.sort_unstable();
    Some(apart_ms[(apart_ms.len() - 1) / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::StillClock;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn the_median_of_a_majority_is_the_time_and_of_two_the_earlier() {
        let check = |apart: &[i64], voters, expect| {
            assert_eq!(median(apart.to_vec(), voters), expect, "{apart:?} of {voters}");
        };
        check(&[0], 1, Some(0));
        check(&[0], 3, None);
        check(&[0, DAY_MS], 3, Some(0));
        check(&[0, -DAY_MS], 3, Some(-DAY_MS));
        check(&[0, -DAY_MS, -DAY_MS + 3], 3, Some(-DAY_MS + 3));
        check(&[0, 7, DAY_MS], 3, Some(7));
        check(&[0, 1, 2], 5, Some(1));
        check(&[0, 1], 5, None);
        check(&[], 0, None);
    }

    #[test]
    fn a_clock_that_is_far_off_is_corrected_and_one_that_is_nearly_right_left_alone() {
        let own: Arc<dyn Clock> = Arc::new(StillClock);
        let time = Arc::<ClusterTime>::default();
        let clock = ClusterClock { own: own.clone(), time: time.clone() };
        let own_ms = own.wall_ms();
        for (learned, expect) in [(4_999, 0), (DAY_MS, DAY_MS), (-DAY_MS, -DAY_MS), (5_000, 0)] {
            time.learn(learned);
            assert_eq!(clock.wall_ms(), own_ms.saturating_add_signed(expect), "{learned}");
            assert_eq!(clock.own_wall_ms(), own_ms);
        }
    }
}
