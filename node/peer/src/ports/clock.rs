//! Time, as the loops see it.

use futures_util::future::BoxFuture;
use std::time::Duration;

/// Tells time and waits.
///
/// Guarantees that [`Clock::now`] never goes back. Wall time may jump in either direction; it is for display and
/// for stamps that ride along, and decides nothing.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since an origin of the clock's own choice; only differences mean anything.
    fn now(&self) -> Duration;

    /// Returns the milliseconds since the Unix epoch, for display.
    fn wall_ms(&self) -> u64;

    /// Returns what this machine's own clock says, where [`Clock::wall_ms`] is the cluster's.
    fn own_wall_ms(&self) -> u64 {
        self.wall_ms()
    }

    /// Waits, for seconds at most, until [`Clock::wall_ms`] may be stamped on what others will read: where it is the
    /// cluster's time, that must have been told first.
    ///
    /// # Cancel safety
    /// Dropping the future stops the wait and has no other effect.
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Waits for at least a duration.
    ///
    /// # Cancel safety
    /// Dropping the future stops the wait and has no other effect.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}
