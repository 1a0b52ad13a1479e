//! The order of serving: shares among tenants, ageing among priorities, places that last.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::{Assign, Command, JobId, LogIndex, NodeId, Reply, State, limits};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use story::{apply_audited, check, command};

#[test]
fn tenants_take_turns_by_their_weights() {
    check(
        "raise 2 -> done
         set v0 queue.weight.a=2 -> done
         submit j1 tenant=a -> accepted j1 at 3
         submit j2 tenant=a -> accepted j2 at 4
         submit j3 tenant=a -> accepted j3 at 5
         submit j4 tenant=a -> accepted j4 at 6
         submit j5 tenant=b -> accepted j5 at 7
         submit j6 tenant=b -> accepted j6 at 8
         submit j7 tenant=b priority=9 -> accepted j7 at 9
         queue -> j7 j1 j5 j2 j3 j6 j4",
    );
}

#[test]
fn whoever_comes_late_starts_now_and_has_saved_nothing() {
    check(
        "raise 2 -> done
         register n1 slots=4 -> done
         submit j1 tenant=a -> accepted j1 at 3
         submit j2 tenant=a -> accepted j2 at 4
         submit j3 tenant=a -> accepted j3 at 5
         assign j1 n1 -> token 6
         assign j2 n1 -> token 7
         submit j4 tenant=b -> accepted j4 at 8
         submit j5 tenant=b -> accepted j5 at 9
         queue -> j4 j3 j5",
    );
}

#[test]
fn a_large_job_counts_for_its_pictures() {
    check(
        "raise 2 -> done
         submit j1 tenant=a cost=4 -> accepted j1 at 2
         submit j2 tenant=a -> accepted j2 at 3
         submit j3 tenant=b -> accepted j3 at 4
         submit j4 tenant=b -> accepted j4 at 5
         submit j5 tenant=b -> accepted j5 at 6
         queue -> j1 j3 j4 j5 j2",
    );
}

#[test]
fn job_that_comes_back_keeps_its_place() {
    check(
        "raise 2 -> done
         register n1 slots=4 -> done
         submit j1 tenant=a -> accepted j1 at 3
         submit j2 tenant=a -> accepted j2 at 4
         submit j3 tenant=b -> accepted j3 at 5
         assign j1 n1 -> token 6
         assign j3 n1 -> token 7
         revoke j3 token=7 -> done
         fail j1 token=6 -> done
         release j1 -> done
         queue -> j1 j3 j2",
    );
}

#[test]
fn waiting_makes_a_job_due() {
    let mut state = check(
        "raise 2 -> done
         register n1 slots=64 -> done
         set v0 queue.ageing_jobs=2 -> done
         submit j1 priority=8 -> accepted j1 at 4",
    );
    // More of priority 9 than ageing lets pass, all of them as old as the one of priority 8.
    for job in 2..10_u64 {
        apply_audited(
            &mut state,
            LogIndex(3 + job),
            &command(&format!("submit j{job} priority=9")),
        );
    }
    let order: Vec<u128> = state.queued().map(|(id, _)| id.0).collect();
    assert_eq!(order, [2, 3, 1, 4, 5, 6, 7, 8, 9], "two go before it, and no third");
    assert_eq!(serve_all(&mut state), order, "and so it comes");
}

#[test]
fn without_ageing_priorities_are_strict() {
    let mut state = check(
        "raise 2 -> done
         register n1 slots=64 -> done
         set v0 queue.ageing_jobs=0 -> done
         submit j1 priority=0 -> accepted j1 at 4",
    );
    for job in 2..60_u64 {
        apply_audited(
            &mut state,
            LogIndex(3 + job),
            &command(&format!("submit j{job} priority=1")),
        );
    }
    assert_eq!(serve_all(&mut state).last(), Some(&1));
}

#[test]
fn tenants_are_bounded_and_the_idle_make_room() {
    let mut state = check("raise 2 -> done");
    let most = limits::TENANTS_MAX as u64;
    let submit = |number: u64| command(&format!("submit j{number} tenant=t{number}"));
    for number in 1..=most {
        state.apply(LogIndex(number + 1), &submit(number));
    }
    assert_eq!(state.tenants().count(), limits::TENANTS_MAX);
    let full = state.apply(LogIndex(most + 2), &submit(most + 1));
    let text = "Refused(QueueFull(1024))";
    assert_eq!(format!("{full:?}"), text);
    apply_audited(&mut state, LogIndex(most + 3), &command("cancel j7"));
    let reply = apply_audited(&mut state, LogIndex(most + 4), &submit(most + 1));
    assert!(matches!(reply, Reply::Submitted { duplicate: false, .. }), "{reply:?}");
    assert_eq!(State::from_snapshot(state.to_snapshot()), Ok(state));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// What `waiting_makes_a_job_due` shows, of any mixture: once a job is at the head of its
    /// priority, at most (9 - p) × ageing jobs that came later go before it.
    #[test]
    fn overtaking_is_bounded(
        priorities in vec(0..10_u8, 1..120),
        ageing in 1..5_u64,
        batch in 1..30_usize,
    ) {
        let mut state = check("raise 2 -> done");
        let set = command(&format!("set v0 queue.ageing_jobs={ageing}"));
        apply_audited(&mut state, LogIndex(2), &set);
        let mut served = Vec::new();
        let mut accepted = BTreeMap::new();
        for (number, batch) in priorities.chunks(batch).enumerate() {
            for priority in batch {
                let job = accepted.len() as u64 + 1;
                accepted.insert(u128::from(job), *priority);
                let ask = format!("submit j{job} priority={priority}");
                state.apply(LogIndex(state.applied().0 + 1), &command(&ask));
            }
            let some = if number % 2 == 0 { batch.len() / 2 } else { batch.len() };
            served.extend(serve(&mut state, some));
        }
        served.extend(serve_all(&mut state));
        prop_assert_eq!(served.len(), accepted.len());
        for (at, job) in served.iter().enumerate() {
            let most = u64::from(9 - accepted[job]) * ageing;
            let overtook = served[..at].iter().filter(|it| *it > job).count() as u64;
            prop_assert!(overtook <= most, "{} overtook j{}, at most {}", overtook, job, most);
        }
    }

    /// No tenant with work is ahead of another by more than a job of each, whatever came when.
    #[test]
    fn tenants_that_wait_get_equal_shares(sizes in vec(1..40_usize, 2..6)) {
        let mut state = check("raise 2 -> done");
        let mut tenants = BTreeMap::new();
        for (tenant, size) in sizes.iter().enumerate() {
            for _ in 0..*size {
                let job = tenants.len() as u64 + 1;
                tenants.insert(u128::from(job), tenant);
                let ask = format!("submit j{job} tenant=t{tenant}");
                state.apply(LogIndex(state.applied().0 + 1), &command(&ask));
            }
        }
        let mut left = sizes.clone();
        let mut got = vec![0_usize; sizes.len()];
        for job in serve_all(&mut state) {
            got[tenants[&job]] += 1;
            left[tenants[&job]] -= 1;
            let busy = (0..sizes.len()).filter(|tenant| left[*tenant] > 0);
            let shares: BTreeSet<usize> = busy.map(|tenant| got[tenant]).collect();
            let spread = shares.last().unwrap_or(&0) - shares.first().unwrap_or(&0);
            prop_assert!(spread <= 1, "{:?} of {:?}", got, sizes);
        }
    }

    #[test]
    fn position_is_the_rank_or_near_it(
        jobs in vec((0..3_u8, 0..4_u8), 300..1_500),
        ageing in 0..40_u64,
    ) {
        let mut state = check("raise 2 -> done");
        let set = command(&format!("set v0 queue.ageing_jobs={ageing}"));
        apply_audited(&mut state, LogIndex(2), &set);
        for (number, (priority, tenant)) in jobs.iter().enumerate() {
            let job = number + 1;
            let ask = format!("submit j{job} priority={} tenant=t{tenant}", 4 * priority);
            state.apply(LogIndex(3), &command(&ask));
        }
        let order: Vec<JobId> = state.queued().map(|(id, _)| *id).collect();
        prop_assert_eq!(order.len(), jobs.len());
        for (rank, job) in order.iter().enumerate() {
            let found = state.position(*job).expect("it waits");
            if rank < 256 {
                prop_assert_eq!(found, rank);
            } else if ageing == 0 {
                prop_assert_eq!(found, rank, "exact without ageing");
            } else {
                prop_assert!((256..jobs.len()).contains(&found), "{} for {}", found, rank);
            }
        }
    }
}

/// Gives the next jobs out, and returns them in order. The node's slots are always enough.
fn serve(state: &mut State, count: usize) -> Vec<u128> {
    let mut served = Vec::new();
    for _ in 0..count {
        let Some(job) = state.queued().next().map(|(id, _)| *id) else { break };
        let index = LogIndex(state.applied().0 + 1);
        if state.node(NodeId(1)).is_none() {
            state.apply(index, &command("register n1 slots=64"));
        }
        let assign = Assign { job, node: NodeId(1), incarnation: 1 };
        let reply = state.apply(index, &Command::Assign(assign));
        assert!(matches!(reply, Reply::Assigned { .. }), "{reply:?}");
        let done = format!("complete j{} token={}", job.0, index.0);
        assert_eq!(state.apply(index, &command(&done)), Reply::Done);
        served.push(job.0);
    }
    served
}

fn serve_all(state: &mut State) -> Vec<u128> {
    let count = state.queued_count();
    serve(state, count)
}
