//! An open loop: calls are due at a steady rate, whether or not those before have been answered.
//!
//! What a call takes counts from the moment at which it was due. A closed loop waits a stall out and
//! tells of one slow call for each client; here every call that came due meanwhile is slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::load::{Counted, Figures, Limit, Times, count_error, gather};

/// The runtime's timer wakes a client up to so much late; that is not the cluster's doing.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// A run may take so many times as long as its calls are due for, and [`GRACE`]; what was not begun
/// by then has failed. Filled by a cluster that is slower than the rate.
const OVERTIME: u32 = 2;
/// An election in a short run is no reason to fail calls that can still be made.
const GRACE: Duration = Duration::from_secs(30);

/// Runs calls at a rate, a second, by all clients together, and returns when the last has ended.
pub(super) async fn run<C, F>(
    clients: &[Arc<C>],
    limit: Limit,
    rate: u32,
    call: impl Fn(Arc<C>) -> F + Clone + Send + 'static,
) -> Figures
where
    C: Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let begun = Instant::now();
    let timetable = Arc::new(Timetable::new(begun, limit, clients.len() as u64, rate));
    let one = |client: &Arc<C>| one_client(client.clone(), timetable.clone(), call.clone());
    let loops = clients.iter().map(|client| tokio::spawn(one(client))).collect();
    gather(begun, loops).await
}

async fn one_client<C, F>(
    client: Arc<C>,
    timetable: Arc<Timetable>,
    call: impl Fn(Arc<C>) -> F,
) -> Counted
where
    F: Future<Output = Result<(), String>>,
{
    let (mut times, mut errors) = (Times::default(), BTreeMap::new());
    loop {
        match timetable.next(Instant::now()) {
            Turn::At(due) => {
                let start = start(due).await;
                match call(client.clone()).await {
                    Ok(()) => times.record(start.elapsed()),
                    Err(error) => count_error(&mut errors, error, 1),
                }
            }
            Turn::TooLate(calls) => {
                let text = "not begun in time: no client was free; allow more --clients, or less";
                count_error(&mut errors, text.to_owned(), calls);
            }
            Turn::Over => return (times, errors),
        }
    }
}

/// Waits until a call is due, and tells from when it counts.
async fn start(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    sleep_until(due.into()).await;
    Instant::now().min(due + TIMER_GRAIN)
}

/// When each call is due.
#[derive(Debug)]
struct Timetable {
    begun: Instant,
    rate: u32,
    calls: u64,
    over_at: Instant,
    /// How many are taken.
    taken: AtomicU64,
}

/// What a client that is free does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A call is due, or was.
    At(Instant),
    /// So many calls are not begun any more.
    TooLate(u64),
    /// Every call is taken.
    Over,
}

impl Timetable {
    fn new(begun: Instant, limit: Limit, clients: u64, rate: u32) -> Self {
        let calls = match limit {
            Limit::Calls(each) => each.saturating_mul(clients),
            Limit::Time(time) => (time.as_secs_f64() * f64::from(rate)).ceil() as u64,
        };
        let over_at = begun + after(calls, rate).saturating_mul(OVERTIME) + GRACE;
        Self { begun, rate, calls, over_at, taken: AtomicU64::new(0) }
    }

    fn next(&self, now: Instant) -> Turn {
        if now >= self.over_at {
            let left = self.calls.saturating_sub(self.taken.swap(self.calls, Ordering::Relaxed));
            return if left > 0 { Turn::TooLate(left) } else { Turn::Over };
        }
        match self.taken.fetch_add(1, Ordering::Relaxed) {
            call if call < self.calls => Turn::At(self.begun + after(call, self.rate)),
            _ => Turn::Over,
        }
    }
}

/// When a call is due, from the first one on.
fn after(call: u64, rate: u32) -> Duration {
    Duration::from_secs_f64(call as f64 / f64::from(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_due_at_the_rate_until_it_is_too_late() {
        let begun = Instant::now();
        let timetable = Timetable::new(begun, Limit::Time(Duration::from_secs(2)), 8, 4);
        let at = |ms| Turn::At(begun + Duration::from_millis(ms));
        let turns: Vec<_> = (0..3).map(|_| timetable.next(begun)).collect();
        assert_eq!(turns, [at(0), at(250), at(500)]);
        // Seconds late, a call is due when it was.
        assert_eq!(timetable.next(begun + Duration::from_secs(4)), at(750));
        let late = begun + Duration::from_secs(2) * OVERTIME + GRACE;
        assert_eq!((timetable.next(late), timetable.next(late)), (Turn::TooLate(4), Turn::Over));
        assert_eq!(timetable.next(begun), Turn::Over);
    }

    #[test]
    fn as_many_calls_are_made_as_the_clients_were_to_make() {
        let begun = Instant::now();
        let timetable = Timetable::new(begun, Limit::Calls(3), 2, 1_000);
        let made = (0..20).filter(|_| matches!(timetable.next(begun), Turn::At(_))).count();
        assert_eq!(made, 6);
    }

    #[tokio::test]
    async fn a_stall_is_told_by_every_call_that_came_due_in_it() {
        let stall = Duration::from_millis(200);
        let first = Arc::new(AtomicU64::new(0));
        let call = move |_| {
            let is_first = first.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if is_first {
                    tokio::time::sleep(stall).await;
                }
                Ok(())
            }
        };
        // A call each 10 ms: 19 came due while the first one stalled.
        let figures = run(&[Arc::new(())], Limit::Calls(20), 100, call).await;
        assert_eq!((figures.done, figures.failed()), (20, 0));
        assert!(figures.times.at(0.5) >= stall / 2, "{:?}", figures.times.at(0.5));
        assert!(figures.times.max() >= stall, "{:?}", figures.times.max());
    }
}
