//! One peer's clock: the world's virtual time, and a wall clock that may be wrong.

use super::Since;
use atelier_peer::ports::Clock;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// 2026-01-01 in milliseconds since the Unix epoch: where every world begins.
const WALL_ORIGIN_MS: i64 = 1_767_225_600_000;

/// Shows the time since the world began. Clones share their skew.
#[derive(Clone)]
pub(crate) struct HostClock {
    since: Since,
    skew_ms: Arc<AtomicI64>,
}

impl HostClock {
    pub(crate) fn new(since: Since) -> HostClock {
        HostClock { since, skew_ms: Arc::default() }
    }

    /// Sets the wall clock wrong by so much; the clock that loops wait by never jumps.
    pub(crate) fn skew(&self, by_ms: i64) {
        self.skew_ms.store(by_ms, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        (self.since)()
    }

    fn wall_ms(&self) -> u64 {
        let since = i64::try_from(self.now().as_millis()).expect("virtual time is short");
        let wall = WALL_ORIGIN_MS + since + self.skew_ms.load(Ordering::Relaxed);
        u64::try_from(wall).expect("a skew is shorter than the time since 1970")
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(sleep(duration))
    }
}
