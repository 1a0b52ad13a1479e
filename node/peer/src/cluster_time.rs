//! The cluster's wall clock: what the clocks of most voters say, so that one wrong clock means nothing.
//!
//! ```text
//!   follower ── beat: my clock ──► leader: where most clocks agree
//!            ◄── answer: the time ──
//! ```
//!
//! Owns how far this machine's clock is from that. Stamps, ages and deadlines go by the corrected
//! clock ([`ClusterClock`]); a leader that has not heard a majority's clocks judges no age at all, and a
//! process that has just started stamps nothing before it was told.
//! A leader alone could forget the history of a cluster within seconds because its clock is wrong.

use crate::ports::Clock;
use atelier_state::mutants::{self, Mutant};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A clock that is off by less is left alone: every stamp may be off by so much.
pub const APART_MAX: Duration = Duration::from_secs(5);

/// How long nobody may know the time before stamps go by the own clock: half a dozen beats. Without this bound a
/// cluster whose clocks all differ would accept no job.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// Before anybody has told.
const UNKNOWN: i64 = i64::MIN;

/// The cluster's time, as a distance from the clock that never jumps: a wall clock that is set wrong
/// while its peer leads is found out at once.
#[derive(Debug)]
pub struct ClusterTime {
    // The cluster's wall clock in milliseconds when the monotonic one stood at zero.
    zero_ms: AtomicI64,
    agreed: AtomicBool,
    // Whether the own clock was told to be wrong.
    told: AtomicBool,
    // Since when it has been asked for in vain, by the clock that never jumps.
    asked_ms: AtomicI64,
    // Whether stamps may be made: it was told, or nobody knows.
    settled: watch::Sender<bool>,
}

impl Default for ClusterTime {
    fn default() -> ClusterTime {
        ClusterTime {
            zero_ms: AtomicI64::new(UNKNOWN),
            agreed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            asked_ms: AtomicI64::new(UNKNOWN),
            settled: watch::Sender::new(false),
        }
    }
}

impl ClusterTime {
    /// Notes what the cluster's time is, as a distance from this machine's clock now.
    pub(crate) fn learn(&self, clock: &dyn Clock, apart_ms: i64) {
        let (now_ms, own_ms) = (millis(clock.now()), signed(clock.own_wall_ms()));
        let zero_ms = own_ms.saturating_add(apart_ms).saturating_sub(now_ms);
        self.zero_ms.store(zero_ms, Ordering::Relaxed);
        self.settle();
        let is_wrong = is_apart(apart_ms);
        if self.told.swap(is_wrong, Ordering::Relaxed) == is_wrong {
            return;
        }
        if is_wrong {
            let seconds = apart_ms.unsigned_abs() / 1_000;
            let way = if apart_ms > 0 { "behind" } else { "ahead of" };
            tracing::warn!(
                "this machine's clock is {seconds} s {way} the cluster's, which is used instead; \
                 run a time service, such as chrony"
            );
        } else {
            tracing::info!("this machine's clock agrees with the cluster's again");
        }
    }

    /// Notes that who should know the time does not, yet.
    pub(crate) fn ask_in_vain(&self, now: Duration) {
        let (now_ms, order) = (millis(now), Ordering::Relaxed);
        let first = self.asked_ms.compare_exchange(UNKNOWN, now_ms, order, order);
        let since_ms = now_ms.saturating_sub(first.err().unwrap_or(now_ms));
        if since_ms >= millis(HOLD_MAX) {
            self.settle();
        }
    }

    /// Begins a leadership: where nobody knew the time so far, its own followers may.
    pub(crate) fn lead(&self) {
        if self.zero_ms.load(Ordering::Relaxed) == UNKNOWN {
            self.asked_ms.store(UNKNOWN, Ordering::Relaxed);
            self.settled.send_replace(false);
        }
    }

    fn settle(&self) {
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
    }

    /// Notes whether a majority's clocks are known; only a leader asks.
    pub(crate) fn agree(&self, agreed: bool) {
        self.agreed.store(agreed, Ordering::Relaxed);
    }

    /// Says whether a majority's clocks are known.
    pub(crate) fn is_agreed(&self) -> bool {
        self.agreed.load(Ordering::Relaxed)
    }

    /// The cluster's wall clock; none before anybody has told.
    fn at(&self, now: Duration) -> Option<i64> {
        let zero_ms = self.zero_ms.load(Ordering::Relaxed);
        (zero_ms != UNKNOWN).then(|| zero_ms.saturating_add(millis(now)))
    }
}

/// A clock whose wall time is the cluster's, where the own one is far from that.
pub(crate) struct ClusterClock {
    pub(crate) own: Arc<dyn Clock>,
    pub(crate) time: Arc<ClusterTime>,
}

impl Clock for ClusterClock {
    fn now(&self) -> Duration {
        self.own.now()
    }

    fn wall_ms(&self) -> u64 {
        let own_ms = self.own.wall_ms();
        match self.time.at(self.own.now()) {
            _ if mutants::is(Mutant::OwnClockCounts) => own_ms,
            Some(told_ms) if is_apart(told_ms.saturating_sub(signed(own_ms))) => {
                u64::try_from(told_ms).unwrap_or(own_ms)
            }
            _ => own_ms,
        }
    }

    fn own_wall_ms(&self) -> u64 {
        self.own.own_wall_ms()
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        if *self.time.settled.borrow() || mutants::is(Mutant::OwnClockCounts) {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(async {
            let mut settled = self.time.settled.subscribe();
            tokio::select! {
                // The sender is ours, so it lives.
                _ = settled.wait_for(|settled| *settled) => {}
                () = self.own.sleep(HOLD_MAX) => {}
            }
        })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.own.sleep(duration)
    }
}

fn is_apart(apart_ms: i64) -> bool {
    u128::from(apart_ms.unsigned_abs()) > APART_MAX.as_millis()
}

pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn signed(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms).unwrap_or(i64::MAX)
}

/// The distance from the own clock at which a majority of the voters' clocks stand together: those
/// that are closest to one another, and of them the middle one, or of two the earlier. None where fewer
/// agree: of two clocks that differ nobody knows which is right.
pub(crate) fn agreed(mut apart_ms: Vec<i64>, voters: usize) -> Option<i64> {
    apart_ms.sort_unstable();
    let quorum = voters / 2 + 1;
    let spread = |clocks: &&[i64]| clocks[quorum - 1].abs_diff(clocks[0]);
    let closest = apart_ms.windows(quorum).min_by_key(spread)?;
    let is_close = u128::from(spread(&closest)) <= 2 * APART_MAX.as_millis();
    (voters > 0 && is_close).then(|| closest[(quorum - 1) / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::StillClock;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn the_time_is_where_most_clocks_stand_together() {
        let check = |apart: &[i64], voters, expect| {
            assert_eq!(agreed(apart.to_vec(), voters), expect, "{apart:?} of {voters}");
        };
        check(&[0], 1, Some(0));
        check(&[0], 3, None);
        check(&[0, 9_000], 3, Some(0));
        check(&[0, DAY_MS], 3, None);
        check(&[0, -DAY_MS], 3, None);
        check(&[0, -DAY_MS, -DAY_MS + 3], 3, Some(-DAY_MS));
        check(&[0, 7, DAY_MS], 3, Some(0));
        check(&[0, -DAY_MS, DAY_MS], 3, None);
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
        assert_eq!(clock.wall_ms(), own_ms, "nobody has told");
        for (learned, expect) in [(4_999, 0), (DAY_MS, DAY_MS), (-DAY_MS, -DAY_MS), (5_000, 0)] {
            time.learn(&clock, learned);
            assert_eq!(clock.wall_ms(), own_ms.saturating_add_signed(expect), "{learned}");
            assert_eq!(clock.own_wall_ms(), own_ms);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stamp_waits_until_the_time_was_told() {
        let own: Arc<dyn Clock> = Arc::new(crate::real::SystemClock::new());
        let time = Arc::<ClusterTime>::default();
        let clock = ClusterClock { own: own.clone(), time: time.clone() };
        let mut settled = clock.settled();
        assert!(futures_util::poll!(&mut settled).is_pending());
        time.ask_in_vain(own.now());
        assert!(futures_util::poll!(&mut settled).is_pending(), "it was asked once");
        time.learn(&clock, -DAY_MS);
        assert!(futures_util::poll!(&mut settled).is_ready());
        time.lead();
        assert!(futures_util::poll!(&mut clock.settled()).is_ready(), "what was told is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stamp_goes_by_the_own_clock_where_nobody_knows() {
        let own: Arc<dyn Clock> = Arc::new(StillClock);
        let time = Arc::<ClusterTime>::default();
        let clock = ClusterClock { own: own.clone(), time: time.clone() };
        let begun = tokio::time::Instant::now();
        clock.settled().await;
        assert_eq!(begun.elapsed(), HOLD_MAX, "nobody was there to ask");
        let at = |ms: u64| HOLD_MAX + Duration::from_millis(ms);
        time.ask_in_vain(at(0));
        time.ask_in_vain(at(1_999));
        assert!(futures_util::poll!(&mut clock.settled()).is_pending());
        time.ask_in_vain(at(2_000));
        assert!(futures_util::poll!(&mut clock.settled()).is_ready(), "nobody knows");
        time.lead();
        assert!(futures_util::poll!(&mut clock.settled()).is_pending(), "others may know");
    }

    /// What its machine says may change at any moment.
    struct SetClock(std::sync::atomic::AtomicU64);

    impl Clock for SetClock {
        fn now(&self) -> Duration {
            Duration::from_secs(9)
        }

        fn wall_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(duration))
        }
    }

    #[test]
    fn a_clock_that_is_set_wrong_counts_no_more_at_that_moment() {
        let own = Arc::new(SetClock(1_800_000_000_000.into()));
        let time = Arc::<ClusterTime>::default();
        let clock = ClusterClock { own: own.clone(), time: time.clone() };
        time.learn(&clock, 0);
        own.0.fetch_add(DAY_MS.unsigned_abs(), Ordering::Relaxed);
        assert_eq!(clock.wall_ms(), 1_800_000_000_000);
        assert_eq!(clock.own_wall_ms(), 1_800_000_000_000 + DAY_MS.unsigned_abs());
    }
}
