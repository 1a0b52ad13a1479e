//! Faults of disks that a peer must find out by itself: a value that was written wrong, and an older copy of
//! the whole disk in the place of the disk.

use super::chronicle::Event;
use super::eye::Onlooker;
use super::host::Host;
use super::rest::Machine;
use crate::world::Damage;
use atelier_peer::ports::Log;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A peer with an older disk is found out within so long, where one leader leads all the while.
const FOUND_OUT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Lets a peer lose its power, does something to what it has written, and sees that it does not start from
/// that. Its disk is mended in the end.
pub(super) async fn damage(host: &Host, how: Damage, until: Instant, onlooker: &Onlooker) {
    host.hold();
    let whole = host.hardware.disk.image();
    let purged = onlooker.purged(host.id);
    if host.is_enabled()
        && host.hardware.disk.damage(how, purged)
        && host.starts_within(until).await
    {
        let detail = format!("peer {} starts from a disk with a {}", host.id, how.name());
        onlooker.accuse("damage", detail);
    }
    host.hardware.disk.put_back(&whole);
    sleep_until(until).await;
    host.release().await;
}

/// Puts an older copy of a follower's disk into its place, and sees that it is found out as long as the same
/// leader leads, as the product promises. The newer one comes back in the end. Where the peer leads, or has
/// written nothing since, there is nothing to be found out.
pub(super) async fn resurrect(host: &Host, until: Instant, onlooker: &Onlooker) {
    let (old, before) = (host.hardware.disk.image(), follows(host));
    sleep_until(until).await;
    let after = follows(host);
    let (Some((leader, last)), Some((same, newer))) = (before, after) else { return };
    if leader != same || last >= newer {
        return;
    }
    host.hold();
    let new = host.hardware.disk.image();
    host.hardware.disk.put_back(&old);
    host.release().await;
    let end = Instant::now() + FOUND_OUT;
    let is_found_out = loop {
        if host.peer().is_some_and(|peer| peer.raft().stopped().is_some()) {
            break true;
        }
        if Instant::now() >= end {
            break false;
        }
        sleep(LOOK).await;
    };
    if is_found_out {
        let text = format!("the older copy at peer {} is found out", host.id);
        onlooker.tell(Event::Fault { text, for_ms: 0 });
    } else if follows(host).is_none_or(|(now, _)| now == leader) {
        let detail = format!("peer {} takes part with an older copy of its disk", host.id);
        onlooker.accuse("older copy", detail);
    }
    host.hold();
    host.hardware.disk.put_back(&new);
    host.release().await;
}

/// Whom a peer follows, in which term, and where its log ends; none where it leads or follows nobody.
fn follows(host: &Host) -> Option<((u64, u64), u64)> {
    let status = host.peer()?.raft().status().borrow().clone();
    let leader = status.leader.filter(|_| !status.is_leader)?;
    Some(((leader.0, status.term), status.last_log.0))
}
