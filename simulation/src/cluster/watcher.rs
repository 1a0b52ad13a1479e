//! Looks into all peers at once, and compares what must be equal.

use super::host::Host;
use atelier_peer::ports::Log;
use atelier_state::LogIndex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Digests of the state that are kept for comparison; older ones make room.
const DIGESTS_MAX: usize = 4_096;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Watcher {
    digests: BTreeMap<LogIndex, String>,
    applied: BTreeMap<u64, (u64, LogIndex)>,
    committed: LogIndex,
}

impl Watcher {
    /// Looks at every peer that runs.
    ///
    /// # Errors
    /// Names the property that is broken, and says how.
    pub(crate) fn look(&mut self, hosts: &[Arc<Host>]) -> Result<(), (&'static str, String)> {
        for host in hosts {
            let Some(peer) = host.peer() else { continue };
            let (status, view) =
                (peer.raft().status().borrow().clone(), peer.raft().view().borrow().clone());
            self.compare(host.id, view.applied, || view.state.digest().to_string())?;
            self.advance(host, view.applied)?;
            self.committed = self.committed.max(status.committed);
        }
        Ok(())
    }

    /// Equal states at equal indexes.
    fn compare(
        &mut self,
        peer: u64,
        applied: LogIndex,
        digest: impl FnOnce() -> String,
    ) -> Result<(), (&'static str, String)> {
        let digest = digest();
        let known = self.digests.entry(applied).or_insert_with(|| digest.clone());
        if *known != digest {
            let index = applied.0;
            let detail = format!("peer {peer} has {digest} at index {index}, another had {known}");
            return Err(("state machine safety", detail));
        }
        if self.digests.len() > DIGESTS_MAX {
            self.digests.pop_first();
        }
        Ok(())
    }

    /// What a process has applied never goes back.
    fn advance(&mut self, host: &Host, applied: LogIndex) -> Result<(), (&'static str, String)> {
        let life = host.life();
        let (known_life, known) = self.applied.entry(host.id).or_insert((life, applied));
        if *known_life == life && *known > applied {
            let detail = format!("peer {} went back from {} to {}", host.id, known.0, applied.0);
            return Err(("applied is monotonic", detail));
        }
        (*known_life, *known) = (life, applied);
        Ok(())
    }

    /// The highest index that any peer knew as committed.
    pub(crate) fn committed(&self) -> LogIndex {
        self.committed
    }
}
