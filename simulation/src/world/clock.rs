//! Time that stands still until somebody moves it.

use atelier_peer::ports::Clock;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// 2026-01-01 in milliseconds since the Unix epoch: where every world begins.
const WALL_ORIGIN_MS: u64 = 1_767_225_600_000;

/// A clock in virtual time. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock {
    time: Arc<Mutex<Time>>,
}

#[derive(Debug, Default)]
struct Time {
    now: Duration,
    sleeps: u64,
    // By the moment to wake; the number tells simultaneous sleepers apart, first come first woken.
    sleepers: BTreeMap<(Duration, u64), Waker>,
}

impl SimulatedClock {
    /// Makes a clock that shows zero.
    pub fn new() -> SimulatedClock {
        SimulatedClock::default()
    }

    /// Moves time and wakes whoever slept until then.
    ///
    /// # Panics
    /// When time would go back.
    pub fn move_to(&self, now: Duration) {
        let mut due = Vec::new();
        {
            let mut time = self.lock();
            assert!(now >= time.now, "time would go back from {:?} to {now:?}", time.now);
            time.now = now;
            while let Some(sleeper) = time.sleepers.first_entry() {
                if sleeper.key().0 > now {
                    break;
                }
                due.push(sleeper.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Runs one future to its end; whenever it waits, time jumps to the next sleeper.
    ///
    /// # Panics
    /// When it waits for something else than time.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let next = self.lock().sleepers.keys().next().map(|(at, _)| *at);
            self.move_to(next.expect("whoever waits, waits for time"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn wall_ms(&self) -> u64 {
        let since = u64::try_from(self.now().as_millis()).expect("virtual time is short");
        WALL_ORIGIN_MS + since
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut time = self.lock();
        time.sleeps += 1;
        let until = (time.now + duration, time.sleeps);
        Box::pin(Sleep { clock: self.clone(), until })
    }
}

struct Sleep {
    clock: SimulatedClock,
    until: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut time = self.clock.lock();
        if time.now >= self.until.0 {
            return Poll::Ready(());
        }
        time.sleepers.insert(self.until, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.lock().sleepers.remove(&self.until);
    }
}
