//! Signs of life: to the leader, wherever it is, and to the own table while leading.
//!
//! Owns the rhythm, eight beats a lease time, and its own task, so that a slow leader delays
//! nothing. A beat that takes longer than a quarter of the lease time is given up: the next one
//! says more.

use super::{LeaseKey, SupervisorParts, SupervisorSettings};
use crate::liveness::Beat;
use crate::ports::Purpose;
use atelier_proto::peer::v1::{BeatRequest, RunningLease};
use atelier_state::limits::FEATURES;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a beat says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    pub(super) incarnation: u64,
    pub(super) running: Vec<LeaseKey>,
}

pub(super) async fn run(
    parts: SupervisorParts,
    settings: SupervisorSettings,
    signs: watch::Receiver<Signs>,
    end: CancellationToken,
) {
    let mut status = parts.log.status();
    loop {
        let leader = status.borrow_and_update().leader;
        let said = signs.borrow().clone();
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            () = beat(&parts, &settings, said) => {}
            () = parts.clock.sleep(settings.lease / 4) => {}
        }
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            // A new leader hears of everybody at once.
            Ok(_) = status.wait_for(|status| status.leader != leader) => {}
            () = parts.clock.sleep(settings.lease / 8) => {}
        }
    }
}

async fn beat(parts: &SupervisorParts, settings: &SupervisorSettings, signs: Signs) {
    let leader = {
        let status = parts.log.status();
        let status = status.borrow();
        let Some(leader) = status.leader else { return };
        (leader != settings.node).then(|| status.addresses.get(&leader).cloned())
    };
    let Signs { incarnation, running } = signs;
    let Some(address) = leader else {
        let (node, wall_ms) = (settings.node, parts.clock.own_wall_ms());
        let beat = Beat { node, incarnation, running, features: FEATURES, wall_ms };
        parts.liveness.beat(parts.clock.now(), beat);
        return;
    };
    let Some(Ok(mut peer)) = address.map(|address| parts.lines.peer(&address, Purpose::Control))
    else {
        return;
    };
    let running = running
        .into_iter()
        .map(|(job, token)| RunningLease { job: job.to_bytes().to_vec().into(), token: token.0 });
    let request = BeatRequest {
        features: FEATURES,
        cluster: settings.cluster.clone(),
        node: settings.node.0,
        incarnation,
        running: running.collect(),
        wall_ms: parts.clock.own_wall_ms(),
    };
    let asked = parts.clock.now();
    match peer.beat(request).await {
        Ok(reply) => learn_time(parts, asked, reply.get_ref().wall_ms),
        Err(error) => {
            tracing::debug!(node = %settings.node, code = ?error.code(), "a beat was not heard");
        }
    }
}

/// Takes the time from the leader's answer, which is half a round trip old.
fn learn_time(parts: &SupervisorParts, asked: Duration, told_ms: u64) {
    // A leader that does not know, or is of the version before.
    if told_ms == 0 {
        parts.liveness.time().ask_in_vain(asked);
        return;
    }
    let under_way = parts.clock.now().saturating_sub(asked) / 2;
    let told_ms = i128::from(told_ms) + under_way.as_millis() as i128;
    let apart_ms = told_ms - i128::from(parts.clock.own_wall_ms());
    let apart_ms = i64::try_from(apart_ms).unwrap_or(0);
    parts.liveness.time().learn(parts.clock.as_ref(), apart_ms);
}
