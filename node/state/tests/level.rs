//! Feature level 2, told as stories with recorded replies.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::{Command, JobId, LogIndex, Reply, SetSettings, State, limits};
use story::{apply_audited, check, command};

#[test]
fn commands_of_a_later_level_wait_for_it() {
    check(
        "register n1 -> done
         submit j1 -> accepted j1 at 2
         mark -> refused: Unsupported(1)
         release j1 -> refused: Unsupported(1)
         set v0 queue.paused=true -> refused: Unsupported(1)
         set-node n1 drain -> refused: Unsupported(1)
         submit j2 cost=2 -> refused: Unsupported(1)
         submit j2 deadline=9 -> refused: Unsupported(1)
         register n1 slots=0 witness -> refused: Unsupported(1)
         remove n1 who=ann -> refused: Unsupported(1)
         raise 5 -> refused: Unsupported(4)
         level -> 1 marked 0
         raise 1 -> done
         raise 2 -> done
         raise 2 -> done
         mark -> done
         level -> 2 marked 15
         note act=promote who=ann -> refused: Unsupported(2)
         raise 3 -> done
         note act= who=ann -> refused: act: expected 1 to 512 bytes, got 0
         note act=promote who=ann -> done
         level -> 3 marked 15
         trail -> [ raise the feature level to 2] [ raise the feature level to 3] [ann promote]",
    );
}

/// A thousand commands with the answers and the digests of the version before there were levels.
/// Both must be the same for ever, since both versions may run in one cluster.
#[test]
fn first_level_is_as_the_version_before() {
    let state = check(include_str!("first_level.txt"));
    assert_eq!(state.features(), limits::FEATURES_FIRST);
    assert!(state.forgotten_count() > 0, "the script goes through a job's whole life");
}

#[test]
fn failed_job_waits_for_its_release() {
    check(
        "raise 2 -> done
         register n1 slots=2 -> done
         submit j1 attempts=3 -> accepted j1 at 3
         submit j2 -> accepted j2 at 4
         assign j1 n1 -> token 5
         fail j1 token=5 error=oom ms=10000 -> done
         fail j1 token=5 error=oom ms=10000 -> done
         queue -> j2
         delayed -> j1@11190
         position j1 -> None
         assign j1 n1 -> refused: NotQueued
         release j2 j1 j9 -> done
         queue -> j1 j2
         assign j1 n1 -> token 10
         fail j1 token=10 error=oom ms=20000 -> done
         delayed -> j1@22204
         release j1 -> done
         assign j1 n1 -> token 13
         fail j1 token=13 error=fault ms=30000 -> done
         delayed -> none
         failed -> j1
         attempts j1 -> 5:n1@10000:oom 10:n1@20000:oom 13:n1@30000:fault",
    );
}

#[test]
fn revoked_job_does_not_wait() {
    check(
        "raise 2 -> done
         register n1 -> done
         submit j1 -> accepted j1 at 3
         assign j1 n1 -> token 4
         revoke j1 token=4 -> done
         delayed -> none
         assign j1 n1 -> token 6
         register n1 incarnation=2 -> done
         queue -> j1
         assign j1 n1 incarnation=2 -> token 8
         fail j1 token=6 -> refused: stale token, newest 8",
    );
}

#[test]
fn back_off_is_a_setting_and_may_be_none() {
    check(
        "raise 2 -> done
         register n1 -> done
         set v0 jobs.backoff_ms_base=0 -> done
         submit j1 -> accepted j1 at 4
         assign j1 n1 -> token 5
         fail j1 token=5 -> done
         queue -> j1
         set v1 jobs.backoff_ms_base=60000 jobs.backoff_ms_max=10 -> done
         assign j1 n1 -> token 8
         fail j1 token=8 ms=1000 -> done
         delayed -> j1@1011
         cancel j1 -> done
         delayed -> none",
    );
}

#[test]
fn deadline_fails_whatever_has_not_ended() {
    check(
        "raise 2 -> done
         register n1 -> done
         submit j1 deadline=3000 -> accepted j1 at 3
         submit j2 deadline=2000 -> accepted j2 at 4
         submit j3 -> accepted j3 at 5
         submit j4 deadline=9000 -> accepted j4 at 6
         deadlines -> j2@2000 j1@3000 j4@9000
         assign j1 n1 -> token 7
         expire j1 ms=2999 -> refused: finished_ms: expected the deadline 3000 or later, got 2999
         expire j3 ms=2999 -> refused: job: expected one with a deadline, got none
         expire j1 ms=3000 -> done
         expire j2 ms=3000 -> done
         expire j1 ms=3000 -> refused: Terminal
         expire j9 -> refused: UnknownJob
         complete j1 token=7 -> refused: Terminal
         fail j1 token=7 -> refused: Terminal
         attempts j1 -> 7:n1@3000:the deadline passed, 2 s after the job was accepted
         attempts j2 -> 0:n0@3000:the deadline passed, 1 s after the job was accepted
         failed -> j1 j2
         deadlines -> j4@9000
         leases -> none",
    );
}

#[test]
fn settings_change_all_or_nothing_from_the_version_that_was_seen() {
    check(
        "raise 2 -> done
         set v0 queue.paused=true queue.weight.a=3 who=ann -> done
         settings -> queue.paused=true@1 queue.weight.a=3@1
         set v0 queue.paused=false -> refused: StaleVersion(1)
         set v1 queue.paused=7 -> refused: queue.paused: expected true or false, got 7
         set v1 queue.jobs_max=true -> refused: queue.jobs_max: expected a number, got true
         set v1 queue.jobs_max=5 queue.jobs_max=6 -> refused: queue.jobs_max: expected once, got twice
         set v1 queue.weight.a=101 -> refused: queue.weight.a: expected 1 to 100 shares, got 101
         set v1 queue.weight.=1 -> refused: queue.weight.: expected a setting, got an unknown one; list them first
         set v1 -> refused: changes: expected 1 to 64 items, got 0
         set v1 queue.paused=false queue.jobs_max=5 -> done
         settings -> queue.jobs_max=5@2 queue.weight.a=3@1
         set v2 queue.jobs_max=default -> done
         settings -> queue.weight.a=3@1
         trail -> [ raise the feature level to 2] [ann set queue.paused=true, queue.weight.a=3] [ set queue.paused=false, queue.jobs_max=5] [ set queue.jobs_max=default]",
    );
}

#[test]
fn history_and_trail_are_bounded() {
    let mut state = check("raise 2 -> done");
    for version in 0..300_u64 {
        let ask = format!("set v{version} queue.paused={}", version % 2 == 0);
        apply_audited(&mut state, LogIndex(2 + version), &command(&ask));
    }
    let versions: Vec<u64> = state.settings_history().map(|it| it.version).collect();
    assert_eq!(versions, (237..=300).collect::<Vec<_>>());
    assert_eq!(state.trail().count(), limits::TRAIL_MAX);
    assert_eq!(state.trail().next_back().map(|it| it.index), Some(LogIndex(301)));
    let undo = state.settings_history().next_back().expect("it was changed").before.clone();
    let set = SetSettings { expected_version: 300, changes: undo, author: Default::default() };
    assert_eq!(state.apply(LogIndex(302), &Command::SetSettings(set)), Reply::Done);
    assert!(state.paused(), "what the last version changed is undone");
}

#[test]
fn nothing_is_given_out_while_paused_or_to_a_drained_node() {
    check(
        "raise 2 -> done
         register n1 slots=2 -> done
         register n2 slots=0 witness -> done
         register n3 slots=1 witness -> refused: slots: expected 0 of a witness, got 1
         submit j1 -> accepted j1 at 5
         submit j2 -> accepted j2 at 6
         assign j1 n1 -> token 7
         set v0 queue.paused=true -> done
         assign j2 n1 -> refused: Paused
         complete j1 token=7 -> done
         set v1 queue.paused=default -> done
         set-node n1 drain zone=a rack=7 who=ann -> done
         node n1 -> draining true witness false labels {\"rack\": \"7\", \"zone\": \"a\"}
         assign j2 n1 -> refused: Draining
         register n1 incarnation=2 slots=2 -> done
         assign j2 n1 incarnation=2 -> refused: Draining
         set-node n1 resume -rack -> done
         assign j2 n1 incarnation=2 -> token 17
         node n1 -> draining false witness false labels {\"zone\": \"a\"}
         set-node n9 drain -> refused: UnknownNode
         remove n2 who=bo -> done
         trail -> [ raise the feature level to 2] [ set queue.paused=true] [ set queue.paused=default] [ann node 1: drain, set label rack=7, set label zone=a] [ node 1: resume, take away label rack] [bo remove node 2]",
    );
}

#[test]
fn bounds_of_queue_and_tenant_are_settings() {
    check(
        "raise 2 -> done
         register n1 slots=4 -> done
         set v0 queue.jobs_max=3 queue.tenant_jobs_max=2 -> done
         submit j1 tenant=a -> accepted j1 at 4
         submit j2 tenant=a -> accepted j2 at 5
         submit j3 tenant=a -> refused: TenantFull(2)
         submit j3 tenant=b -> accepted j3 at 7
         submit j4 tenant=b -> refused: QueueFull(3)
         assign j1 n1 -> token 9
         submit j4 tenant=a -> refused: TenantFull(2)
         submit j4 tenant=b -> accepted j4 at 11
         tenants -> a:1+1*1 b:2+0*1
         complete j1 token=9 -> done
         cancel j3 -> done
         submit j5 tenant=a -> accepted j5 at 14
         submit j1 tenant=a -> repeat of j1 at 4",
    );
}

#[test]
fn key_outlives_its_job_until_it_is_forgotten() {
    check(
        "raise 2 -> done
         submit j1 tenant=a key=k -> accepted j1 at 2
         submit j2 tenant=a key=l -> accepted j2 at 3
         cancel j1 -> done
         forget j1 j2 -> done
         keys -> a/k
         submit j3 tenant=a key=k -> repeat of j1 at 6
         submit j3 tenant=a key=k body=dog -> refused: conflict with j1
         submit j3 tenant=b key=k -> accepted j3 at 8
         forget-keys a/k a/l b/k -> done
         keys -> none
         submit j4 tenant=a key=l -> repeat of j2 at 3
         submit j5 tenant=b key=k -> repeat of j3 at 8
         submit j6 tenant=a key=k body=dog -> accepted j6 at 12",
    );
}

#[test]
fn oldest_key_makes_room() {
    let mut state = check("raise 2 -> done");
    let most = limits::KEYS_MAX as u64;
    for number in 1..=most + 1 {
        let index = LogIndex(1 + number);
        state.apply(index, &command(&format!("submit j{number} key=k{number}")));
        state.apply(index, &command(&format!("cancel j{number}")));
        state.apply(index, &command(&format!("forget j{number}")));
    }
    assert_eq!(state.forgotten_keys().count(), limits::KEYS_MAX);
    let index = LogIndex(most + 3);
    let first = state.apply(index, &command("submit j7000001 key=k1"));
    // All ended in the same millisecond, so the key decides: k1 is the least.
    assert!(matches!(first, Reply::Submitted { duplicate: false, .. }), "{first:?}");
    let second = state.apply(index, &command("submit j7000002 key=k2"));
    assert!(matches!(second, Reply::Submitted { job: JobId(2), duplicate: true, .. }));
}

#[test]
fn state_of_level_1_goes_on_at_level_2() {
    let state = check(
        "register n1 slots=2 -> done
         submit j1 tenant=a key=k -> accepted j1 at 2
         submit j2 tenant=b -> accepted j2 at 3
         assign j1 n1 -> token 4
         fail j1 token=4 -> done
         queue -> j1 j2
         attempts j1 -> 0:n0@0:oom
         raise 2 -> done
         tenants -> a:1+0*1 b:1+0*1
         fail j1 token=4 -> done
         submit j3 tenant=b -> accepted j3 at 8
         submit j4 tenant=c -> accepted j4 at 9
         queue -> j1 j2 j3 j4
         assign j1 n1 -> token 10
         fail j1 token=10 ms=5000 -> done
         attempts j1 -> 0:n0@0:oom 10:n1@5000:oom
         submit j5 tenant=a key=k -> repeat of j1 at 2",
    );
    assert_eq!(State::from_snapshot(state.to_snapshot()), Ok(state));
}
