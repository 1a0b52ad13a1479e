//! Whether a peer is ready, and if not, why: the one judgement behind every probe.
//!
//! Ready means: a client that is sent here is served. Alive is less and never depends on others, or
//! a partition would make an orchestrator kill every peer at once.

use crate::ports::RaftStatus;
use crate::ports::engine::EngineState;
use tokio::sync::watch;

/// Entries that the applied state may lag behind the agreed ones before the peer is not ready.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// What the judgement looks at; each part is watched, none is asked over a network.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) raft: watch::Receiver<RaftStatus>,
    /// None for a peer without an engine.
    pub(crate) engine: Option<watch::Receiver<EngineState>>,
    /// True once the peer leaves.
    pub(crate) draining: watch::Receiver<bool>,
}

impl Health {
    /// Every reason why this peer is not ready; none when it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let engine = self.engine.as_ref().map(|engine| engine.borrow().clone());
        reasons(&self.raft.borrow(), engine.as_ref(), *self.draining.borrow())
    }

    /// Returns at the next change of anything that the judgement looks at.
    ///
    /// # Cancel safety
    /// Safe: a change that was not seen is seen by the next call.
    pub(crate) async fn changed(&mut self) {
        let engine = async {
            match &mut self.engine {
                Some(engine) if engine.has_changed().is_ok() => engine.changed().await.ok(),
                // None to watch, or it ended with its last word.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.raft.changed() => if changed.is_err() { std::future::pending().await },
            _ = engine => {}
            changed = self.draining.changed() => {
                if changed.is_err() { std::future::pending().await }
            }
        }
    }
}

fn reasons(raft: &RaftStatus, engine: Option<&EngineState>, draining: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if draining {
        reasons.push("this peer is leaving".to_owned());
    }
    if let Some(stopped) = &raft.stopped {
        reasons.push(format!("storage stopped: {stopped}"));
    }
    if raft.leader.is_none() {
        reasons.push("no leader is known".to_owned());
    }
    if raft.leader == Some(raft.node) && !raft.quorum_acked {
        reasons.push("this peer leads, but no quorum answers it".to_owned());
    }
    if raft.leader.is_some() && raft.applied.0 == 0 {
        reasons.push("nothing of the log has come here yet".to_owned());
    }
    let lag = raft.committed.0.saturating_sub(raft.applied.0);
    if lag > LAG_ENTRIES_MAX {
        reasons.push(format!("the state lags {lag} entries behind the log"));
    }
    match engine {
        Some(EngineState::Loading { total: 0, .. }) => {
            reasons.push("the engine is starting".to_owned());
        }
        Some(EngineState::Loading { bytes, total }) => {
            let percent = u128::from(*bytes) * 100 / u128::from(*total);
            reasons.push(format!("the engine is loading its model: {percent} %"));
        }
        Some(EngineState::Unfit(error)) => reasons.push(format!("the engine is unfit: {error}")),
        Some(EngineState::Ready(_)) | None => {}
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_state::{LogIndex, NodeId};

    fn led() -> RaftStatus {
        RaftStatus {
            node: NodeId(1),
            leader: Some(NodeId(2)),
            applied: LogIndex(1),
            ..RaftStatus::default()
        }
    }

    #[test]
    fn a_led_peer_without_engine_is_ready() {
        assert_eq!(reasons(&led(), None, false), Vec::<String>::new());
    }

    #[test]
    fn every_reason_is_told() {
        let behind = RaftStatus {
            committed: LogIndex(2_001),
            stopped: Some("disk full".to_owned()),
            leader: None,
            ..led()
        };
        let loading = EngineState::Loading { bytes: 430, total: 1_000 };
        assert_eq!(
            reasons(&behind, Some(&loading), true),
            [
                "this peer is leaving",
                "storage stopped: disk full",
                "no leader is known",
                "the state lags 2000 entries behind the log",
                "the engine is loading its model: 43 %",
            ]
        );
        let unfit = EngineState::Unfit("CUDA error".to_owned());
        assert_eq!(reasons(&led(), Some(&unfit), false), ["the engine is unfit: CUDA error"]);
        let empty = RaftStatus { applied: LogIndex(0), ..led() };
        assert_eq!(reasons(&empty, None, false), ["nothing of the log has come here yet"]);
        let deserted = RaftStatus { leader: Some(NodeId(1)), ..led() };
        let alone = ["this peer leads, but no quorum answers it"];
        assert_eq!(reasons(&deserted, None, false), alone);
    }
}
