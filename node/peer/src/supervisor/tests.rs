//! Duties against a model: whatever the views are, each lease is started once and stopped once.

use super::{Duties, Duty};
use atelier_state::command::{Assign, Cancel, Command, RegisterNode, Revoke, Submit};
use atelier_state::job::JobId;
use atelier_state::lease::{FencingToken, RevokeReason};
use atelier_state::reply::LogIndex;
use atelier_state::roster::NodeId;
use atelier_state::state::State;
use proptest::prelude::*;
use std::collections::BTreeSet;

const ME: NodeId = NodeId(1);

#[derive(Clone, Debug)]
enum Act {
    Submit,
    Assign { job: u128, node: u64 },
    Revoke { job: u128 },
    Cancel { job: u128 },
    Look,
    Finish { which: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let job = 1..8u128;
    prop_oneof![
        Just(Act::Submit),
        (job.clone(), 1..3u64).prop_map(|(job, node)| Act::Assign { job, node }),
        job.clone().prop_map(|job| Act::Revoke { job }),
        job.prop_map(|job| Act::Cancel { job }),
        Just(Act::Look),
        (0..8usize).prop_map(|which| Act::Finish { which }),
    ]
}

fn command(act: &Act, state: &State, jobs: &mut u128) -> Option<Command> {
    Some(match *act {
        Act::Submit => {
            *jobs += 1;
            Command::Submit(Submit {
                job: JobId(*jobs),
                tenant: "".into(),
                idempotency_key: None,
                priority: 0,
                kind: format!("kind of {jobs}").into(),
                parameters: bytes::Bytes::new(),
                traceparent: String::new(),
                submitted_ms: 0,
                attempts_max: 3,
                deadline_ms: 0,
                max_runtime_s: 0,
                cost: 1,
                retry_of: None,
            })
        }
        Act::Assign { job, node } => {
            Command::Assign(Assign { job: JobId(job), node: NodeId(node), incarnation: 5 })
        }
        Act::Revoke { job } => {
            let token = state.job(JobId(job))?.lease()?.token;
            Command::Revoke(Revoke { job: JobId(job), token, reason: RevokeReason::Silent })
        }
        Act::Cancel { job } => {
            Command::Cancel(Cancel { job: JobId(job), reason: String::new(), finished_ms: 0 })
        }
        Act::Look | Act::Finish { .. } => return None,
    })
}

proptest! {
    #[test]
    fn each_lease_is_started_once_and_stopped_when_it_is_gone(
        acts in prop::collection::vec(act(), 1..150),
    ) {
        let mut state = State::new();
        let mut jobs = 0;
        for node in 1..3 {
            let register = RegisterNode {
                node: NodeId(node),
                address: "http://a:1".to_owned(),
                incarnation: 5,
                slots: 4,
                class: String::new(),
                model: String::new(),
                witness: false,
            };
            state.apply(LogIndex(node), &Command::RegisterNode(register));
        }
        let mut duties = Duties::new(ME);
        let mut started = BTreeSet::new();
        let mut running: BTreeSet<(JobId, FencingToken)> = BTreeSet::new();
        let mut stopping = BTreeSet::new();
        for act in acts {
            if let Some(command) = command(&act, &state, &mut jobs) {
                let index = LogIndex(state.applied().0 + 1);
                state.apply(index, &command);
            }
            if let Act::Finish { which } = act
                && let Some(key) = running.iter().nth(which).copied()
            {
                running.remove(&key);
                stopping.remove(&key);
                duties.finished(key);
            }
            if !matches!(act, Act::Look) {
                continue;
            }
            for duty in duties.decide(&state, 5) {
                match duty {
                    Duty::Start(a) => {
                        prop_assert!(started.insert((a.job, a.token)), "started twice");
                        prop_assert_eq!(a.kind, format!("kind of {}", a.job.0));
                        running.insert((a.job, a.token));
                    }
                    Duty::Stop { job, token } => {
                        prop_assert!(running.contains(&(job, token)), "stopped what does not run");
                        prop_assert!(stopping.insert((job, token)), "stopped twice");
                    }
                }
            }
            let leased: BTreeSet<_> =
                state.leases_of(ME).map(|(job, lease)| (job, lease.token)).collect();
            prop_assert!(leased.is_subset(&started), "a lease was not started");
            let gone: BTreeSet<_> = running.difference(&leased).copied().collect();
            prop_assert_eq!(&gone, &stopping);
            // Of another process of this node, nothing is begun.
            prop_assert!(Duties::new(ME).decide(&state, 6).is_empty());
        }
    }
}
