//! The queue as operators and clients meet it: bounds, batches, back-off, dead letters, pauses, deadlines.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use atelier_client::{
    Author, BatchOutcome, Client, Error, GenerateError, Job, JobId, Options, Phase, RefusalKind,
    SettingChange, SettingValue, Submission,
};
use rustix::process::{Pid, Signal, kill_process};
use support::{Cluster, PATIENCE, Setup, denoising, picture, until};

const PROMPT: &str = "a cat on a blue background";
/// Enough steps that a job can be met in the middle.
const LONG: u32 = 50;

fn without_engines() -> Setup {
    Setup { engine: false, ..Setup::default() }
}

/// A client that does not wait for room.
fn impatient(cluster: &Cluster) -> Client {
    let addresses: Vec<String> = cluster.ids().iter().map(|id| cluster.address(*id)).collect();
    Client::connect(addresses, Options { retries_max: 0, ..Options::default() }).unwrap()
}

/// Changes settings once the cluster has them.
async fn set(client: &Client, settings: &[(&str, SettingValue)]) {
    let changes: Vec<SettingChange> = settings
        .iter()
        .map(|(key, value)| SettingChange { key: (*key).to_owned(), value: Some(*value) })
        .collect();
    let start = Instant::now();
    loop {
        match client.set_settings(None, &changes, &Author::default()).await {
            Ok(_) => return,
            // Not yet; or the peer died with the answer, and the same values may be set again.
            Err(error @ (Error::Conflict { .. } | Error::UnknownChange { .. })) => {
                assert!(start.elapsed() < PATIENCE, "no settings: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

const fn number(number: u64) -> SettingValue {
    SettingValue::Number(number)
}

const PAUSED: (&str, SettingValue) = ("queue.paused", SettingValue::Flag(true));
const RESUMED: (&str, SettingValue) = ("queue.paused", SettingValue::Flag(false));

/// The end of a job, whichever it is.
async fn end(client: &Client, job: JobId) -> Job {
    match client.finish(job, |_| ()).await {
        Ok(job) => job,
        Err(GenerateError::Failed(job) | GenerateError::Cancelled(job)) => *job,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_refused_with_its_bound_and_a_time_to_retry() {
    let cluster = Cluster::start(without_engines());
    let (client, impatient) = (cluster.client(), impatient(&cluster));
    set(&client, &[("queue.jobs_max", number(3)), ("queue.tenant_jobs_max", number(2))]).await;
    let of =
        |tenant: &str, seed| Submission { tenant: tenant.to_owned(), ..picture(PROMPT, seed, 0) };
    let bound = async |wanted: &Submission| match impatient.submit(wanted).await.unwrap_err() {
        Error::Full { message, retry_after } => (message, retry_after),
        other => panic!("expected a full queue, got {other}"),
    };
    for seed in 0..2 {
        client.submit(&of("a", seed)).await.unwrap();
    }
    let (message, retry_after) = bound(&of("a", 2)).await;
    assert!(message.contains("the tenant has 2 unfinished jobs, its bound"), "{message}");
    assert!(retry_after.is_some());
    client.submit(&of("b", 3)).await.unwrap();
    let (message, retry_after) = bound(&of("c", 4)).await;
    assert!(message.contains("its bound is 3"), "{message}");
    assert!(retry_after.is_some());

    let outcomes = client.submit_batch(&[of("c", 5), of("a", 0)]).await.unwrap();
    for outcome in outcomes {
        let BatchOutcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
        assert_eq!(refusal.kind, RefusalKind::Full);
    }
    // Room is made by raising the bound, at once and on every peer.
    set(&client, &[("queue.jobs_max", number(4))]).await;
    client.submit(&of("c", 4)).await.unwrap();
    let stats = client.queue_stats().await.unwrap();
    assert_eq!((stats.queued, stats.jobs_max, stats.tenant_jobs_max), (4, 4, Some(2)));
    assert_eq!(stats.tenants[0].tenant, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_accepted_once_however_often_it_is_sent() {
    let cluster = Cluster::start(without_engines());
    let client = cluster.client();
    cluster.leader().await;
    let wanted: Vec<Submission> = (0..1_000).map(|seed| picture(PROMPT, seed, 0)).collect();
    for (id, duplicate) in [(1, false), (2, true), (3, true)] {
        let outcomes = cluster.client_of(id).submit_batch(&wanted).await.unwrap();
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            let BatchOutcome::Accepted(accepted) = outcome else { panic!("{outcome:?}") };
            assert_eq!((accepted.job, accepted.duplicate), (wanted.job, duplicate));
        }
    }
    // The last one that accepted them shows them all; the others come to it.
    assert_eq!(cluster.client_of(3).queue_stats().await.unwrap().queued, 1_000);

    let bad = picture(&"x".repeat(100_000), 0, 0);
    let outcomes = client.submit_batch(&[bad, picture(PROMPT, 0, 0)]).await.unwrap();
    let [BatchOutcome::Refused(refusal), BatchOutcome::Accepted(_)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(refusal.kind, RefusalKind::Invalid);
    assert!(refusal.message.contains("expected at most 8192"), "{}", refusal.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_waits_then_becomes_a_dead_letter_and_is_retried() {
    let cluster = Cluster::start(Setup { peers: 1, ..Setup::default() });
    let client = cluster.client();
    let backoff = [("jobs.attempts_max", number(2)), ("jobs.backoff_ms_base", number(1_500))];
    set(&client, &backoff).await;
    let wanted = Submission { max_runtime_s: Some(600), ..picture(PROMPT, 4, LONG) };
    client.submit(&wanted).await.unwrap();
    for attempt in 1..=2_u32 {
        let draws =
            |event: &atelier_client::Event| denoising(event, 1) && event.job.leases == attempt;
        until(&client, wanted.job, draws).await;
        let engine = Pid::from_raw(cluster.engines(1)[0] as i32).unwrap();
        kill_process(engine, Signal::KILL).unwrap();
        if attempt == 1 {
            let waits = until(&client, wanted.job, |event| event.job.retry_at_ms.is_some()).await;
            assert_eq!((waits.job.phase, waits.job.attempts), (Phase::Queued, 1));
        }
    }
    let dead = end(&client, wanted.job).await;
    assert_eq!((dead.phase, dead.failed_attempts.len()), (Phase::Failed, 2));
    for attempt in &dead.failed_attempts {
        assert_eq!(attempt.node, Some(1));
        assert!(!attempt.error.is_empty() && attempt.failed_ms.is_some(), "{attempt:?}");
    }
    let waited =
        dead.failed_attempts[1].failed_ms.unwrap() - dead.failed_attempts[0].failed_ms.unwrap();
    assert!(waited >= 1_200, "the back-off was {waited} ms");
    assert_eq!(client.jobs(&[Phase::Failed], 10).await.unwrap().jobs[0].job, dead.job);

    let retried = client.retry(dead.job).await.unwrap();
    let again = client.retry(dead.job).await.unwrap();
    assert_eq!((again.job, again.duplicate), (retried.job, true), "one retry of one dead letter");
    let drawn = end(&client, retried.job).await;
    assert_eq!((drawn.phase, drawn.retry_of), (Phase::Succeeded, Some(dead.job)));
    assert_eq!((drawn.parameters, drawn.max_runtime_s), (dead.parameters, Some(600)));
    let conflict = client.retry(drawn.job).await.unwrap_err();
    assert!(matches!(conflict, Error::Conflict { .. }), "{conflict}");

    let purged = client.purge_phases(&[Phase::Failed], 0, &Author::default()).await.unwrap();
    assert_eq!((purged.purged, purged.left), (1, 0));
    assert!(matches!(client.job(dead.job).await, Err(Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_hold_on_every_peer_at_once_and_a_pause_gives_out_nothing() {
    let cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    set(&client, &[PAUSED]).await;
    for id in cluster.ids() {
        let status = cluster.client_of(id).status().await.unwrap();
        assert!(status.applied_index > 0);
    }
    let wanted = picture(PROMPT, 3, 0);
    client.submit(&wanted).await.unwrap();
    // A change after the job: whoever has it has had every chance to give the job out.
    set(&client, &[("jobs.attempts_max", number(7))]).await;
    for id in cluster.ids() {
        let start = Instant::now();
        while cluster.client_of(id).settings().await.unwrap().version < 2 {
            assert!(start.elapsed() < PATIENCE, "peer {id} does not learn of the settings");
        }
        let stats = cluster.client_of(id).queue_stats().await.unwrap();
        assert!(stats.paused, "peer {id}");
    }
    assert_eq!(client.job(wanted.job).await.unwrap().leases, 0);
    let stale = client.set_settings(Some(1), &[], &Author::default()).await.unwrap_err();
    assert!(matches!(stale, Error::Invalid { .. }), "no change is no change: {stale}");
    let resume = [SettingChange { key: RESUMED.0.to_owned(), value: Some(RESUMED.1) }];
    let stale = client.set_settings(Some(1), &resume, &Author::default()).await.unwrap_err();
    assert!(matches!(stale, Error::Conflict { .. }), "{stale}");

    let author = Author { who: "ada".to_owned(), why: "done".to_owned(), at_ms: 0 };
    let settings = client.set_settings(Some(2), &resume, &author).await.unwrap();
    assert_eq!(settings.version, 3);
    assert_eq!(end(&client, wanted.job).await.phase, Phase::Succeeded);
    let history = client.settings_history().await.unwrap();
    assert_eq!((history.len(), history[0].version), (3, 3));
    assert_eq!((history[0].author.who.as_str(), history[0].author.why.as_str()), ("ada", "done"));
    assert!(history[0].author.at_ms > 0);
    assert!(!client.trail(1).await.unwrap()[0].act.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_waiting_job_and_a_bound_ends_a_long_attempt() {
    let cluster = Cluster::start(Setup { peers: 1, ..Setup::default() });
    let client = cluster.client();
    set(&client, &[PAUSED, ("jobs.attempts_max", number(1))]).await;
    let late = Submission { deadline_s: Some(1), ..picture(PROMPT, 1, 0) };
    client.submit(&late).await.unwrap();
    let failed = end(&client, late.job).await;
    assert_eq!(failed.phase, Phase::Failed);
    assert!(failed.error.contains("deadline"), "{}", failed.error);
    assert_eq!((failed.attempts, failed.failed_attempts.len()), (0, 0), "nobody tried");
    assert!(failed.finished_ms.unwrap() >= failed.deadline_ms.unwrap());

    set(&client, &[RESUMED]).await;
    let mut endless = Submission { max_runtime_s: Some(1), ..picture(PROMPT, 2, LONG) };
    endless.parameters.images = 16;
    client.submit(&endless).await.unwrap();
    let failed = end(&client, endless.job).await;
    assert_eq!(failed.phase, Phase::Failed);
    assert!(failed.error.contains("max_runtime_s 1"), "{}", failed.error);
    let next = client.generate(&picture(PROMPT, 5, 1), |_| ()).await;
    assert_eq!(next.unwrap().job.phase, Phase::Succeeded, "the engine is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_the_leader_and_misses_no_phase() {
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    set(&client, &[PAUSED]).await;
    let leader = cluster.leader().await;
    let wanted = picture(PROMPT, 6, LONG);
    client.submit(&wanted).await.unwrap();
    // It begins at the leader and learns of the others there.
    let watcher = Client::connect([cluster.address(leader)], support::patient()).unwrap();
    let mut watch = watcher.watch(wanted.job);
    let mut events = vec![watch.next().await.unwrap().unwrap()];
    cluster.kill(leader);
    set(&client, &[RESUMED]).await;
    while let Some(event) = watch.next().await {
        events.push(event.expect("the watch goes on at another peer"));
    }
    assert!(events.windows(2).all(|pair| pair[0].log_index <= pair[1].log_index));
    let mut phases: Vec<Phase> = events.iter().map(|event| event.job.phase).collect();
    phases.dedup();
    assert_eq!(phases, [Phase::Queued, Phase::Leased, Phase::Succeeded]);
    assert_eq!(events[0].job.position, Some(1));
    assert!(events.iter().any(|event| denoising(event, 1)), "steps are told by the new peer");
}
