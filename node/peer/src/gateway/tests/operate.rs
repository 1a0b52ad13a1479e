//! Batches, retries, purges and settings at the front door.

use super::*;
use atelier_state::{Fail, SetSettings, SettingChange, SettingValue};

fn leveled() -> World {
    let world = world();
    world.log.apply(&[Command::RaiseFeatures(RaiseFeatures { level: 2 })]);
    world
}

fn id_of(number: u128) -> String {
    JobId(number).to_string()
}

impl World {
    async fn batch(&self, jobs: Vec<wire::SubmitRequest>) -> Vec<wire::BatchOutcome> {
        let request = Request::new(wire::SubmitBatchRequest { jobs });
        self.gateway.submit_batch(request).await.expect("a batch").into_inner().outcomes
    }

    /// Submits a job and fails it for good.
    async fn dead_letter(&self, number: u128) {
        let request = wire::SubmitRequest {
            job_id: id_of(number),
            deadline_s: 60,
            tenant: "studio".to_owned(),
            ..cat()
        };
        self.gateway.submit(Request::new(request)).await.expect("accepted");
        self.register(1);
        let (job, token) = (JobId(number), self.assign(JobId(number), 1));
        let (error, finished_ms) = ("the engine died".to_owned(), 7);
        let fail = Fail { job, token, error, permanent: true, finished_ms };
        self.log.apply(&[Command::Fail(fail)]);
    }

    async fn set(&self, expected_version: Option<u64>, number: u64) -> Result<u64, Status> {
        let value = Some(wire::setting_value::Value::Number(number));
        let key = "jobs.attempts_max".to_owned();
        let changes = vec![wire::SettingChange { key, value: Some(wire::SettingValue { value }) }];
        let author = wire::Author { who: "ada".to_owned(), ..Default::default() };
        let author = Some(author);
        let request = wire::SetSettingsRequest { expected_version, changes, author };
        let reply = self.gateway.set_settings(Request::new(request)).await?;
        Ok(reply.into_inner().version)
    }
}

fn accepted(outcome: &wire::BatchOutcome) -> Result<&wire::SubmitReply, (u32, &str)> {
    match outcome.outcome.as_ref().expect("an outcome") {
        wire::batch_outcome::Outcome::Accepted(reply) => Ok(reply),
        wire::batch_outcome::Outcome::Refused(refusal) => Err((refusal.code, &refusal.message)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_an_outcome_for_each_job_in_order() {
    let world = leveled();
    let key = |number, prompt: &str| {
        let cat = wire::TextToImage { prompt: prompt.to_owned(), ..Default::default() };
        let parameters = Some(wire::submit_request::Parameters::TextToImage(cat));
        let (job_id, idempotency_key) = (id_of(number), "k".to_owned());
        wire::SubmitRequest { job_id, idempotency_key, parameters, ..Default::default() }
    };
    let wrong = wire::SubmitRequest { priority: 11, ..cat() };
    let outcomes =
        world.batch(vec![key(1, "a cat"), wrong, key(2, "a cat"), key(3, "a dog"), cat()]).await;
    assert_eq!(accepted(&outcomes[0]).map(|reply| reply.duplicate), Ok(false));
    let (code, message) = accepted(&outcomes[1]).expect_err("a wrong priority");
    assert_eq!(code, Code::InvalidArgument as u32);
    assert!(message.starts_with("priority 11"), "{message}");
    let repeat = accepted(&outcomes[2]).expect("the same request under the same key");
    assert_eq!((repeat.job_id.as_str(), repeat.duplicate), (id_of(1).as_str(), true));
    let (code, _) = accepted(&outcomes[3]).expect_err("another request under the same key");
    assert_eq!(code, Code::AlreadyExists as u32);
    assert!(accepted(&outcomes[4]).is_ok());
    assert_eq!(world.gateway.view().state.queued_count(), 2);

    let jobs = vec![cat(); 1_001];
    let request = Request::new(wire::SubmitBatchRequest { jobs });
    let status = world.gateway.submit_batch(request).await.expect_err("too many");
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// What a peer knows that follows nobody may be of yesterday; whoever wants it all the same says so.
#[tokio::test(start_paused = true)]
async fn a_peer_that_follows_nobody_answers_reads_only_where_they_may_be_old() {
    let world = leveled();
    let job_id = world.submit().await.job_id;
    world.log.status.send_modify(|status| status.leader = None);
    let get = || Request::new(wire::GetJobRequest { job_id: job_id.clone() });
    let refused = world.gateway.get_job(get()).await.expect_err("it follows nobody");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("follows no leader"), "{}", refused.message());
    let list = || Request::new(wire::ListJobsRequest::default());
    let stats = || Request::new(wire::QueueStatsRequest {});
    let settings = || Request::new(wire::GetSettingsRequest {});
    let history = || Request::new(wire::SettingsHistoryRequest {});
    let trail = || Request::new(wire::TrailRequest { limit: 0 });
    let codes = [
        world.gateway.list_jobs(list()).await.map(drop).map_err(|status| status.code()),
        world.gateway.queue_stats(stats()).await.map(drop).map_err(|status| status.code()),
        world.gateway.get_settings(settings()).await.map(drop).map_err(|status| status.code()),
        world.gateway.settings_history(history()).await.map(drop).map_err(|status| status.code()),
        world.gateway.trail(trail()).await.map(drop).map_err(|status| status.code()),
    ];
    assert_eq!(codes, [Err(Code::Unavailable); 5]);

    let mut stale = get();
    stale.metadata_mut().insert(STALE_KEY, "yes".parse().expect("metadata"));
    let job = world.gateway.get_job(stale).await.expect("as it was").into_inner();
    assert_eq!(job.job_id, job_id);
    let mut stale = list();
    stale.metadata_mut().insert(STALE_KEY, "yes".parse().expect("metadata"));
    assert_eq!(world.gateway.list_jobs(stale).await.expect("as it was").into_inner().total, 1);
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_so_already_are_not_written_again() {
    let world = leveled();
    let pause = || {
        let value =
            Some(wire::SettingValue { value: Some(wire::setting_value::Value::Flag(true)) });
        let change = wire::SettingChange { key: "queue.paused".to_owned(), value };
        Request::new(wire::SetSettingsRequest { changes: vec![change], ..Default::default() })
    };
    let first = world.gateway.set_settings(pause()).await.expect("set").into_inner();
    let applied = world.gateway.view().applied;
    let again = world.gateway.set_settings(pause()).await.expect("set").into_inner();
    assert_eq!((again.version, world.gateway.view().applied), (first.version, applied));
}

/// A change that is made and cannot be shown is an unknown outcome, and a repeat finds it made.
#[tokio::test(start_paused = true)]
async fn a_change_is_never_answered_by_a_view_that_lacks_it() {
    let world = leveled();
    let change = wire::SettingChange {
        key: "queue.jobs_max".to_owned(),
        value: Some(wire::SettingValue { value: Some(wire::setting_value::Value::Number(7)) }),
    };
    let set = || wire::SetSettingsRequest { changes: vec![change.clone()], ..Default::default() };
    let before = world.gateway.view().state.settings_version();
    world.log.lag();
    let late = world.gateway.set_settings(Request::new(set())).await.expect_err("it is not seen");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{}", late.message());
    world.log.catch_up();
    let again = world.gateway.set_settings(Request::new(set())).await.expect("made").into_inner();
    assert_eq!(again.version, before + 1);
}

/// The proposer repeats a proposal whose answer it has lost, and the repeat is told that the job is over.
#[tokio::test(start_paused = true)]
async fn a_cancel_that_was_repeated_inside_is_done() {
    let world = leveled();
    let job_id = world.submit().await.job_id;
    let job = *world.gateway.view().state.jobs().next().expect("it was submitted").0;
    let log = world.log.clone();
    log.lag();
    log.apply(&[Command::Cancel(atelier_state::Cancel {
        job,
        reason: String::new(),
        finished_ms: 1,
    })]);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        log.catch_up();
    });
    let cancel = Request::new(wire::CancelJobRequest { job_id });
    let cancelled = world.gateway.cancel_job(cancel).await.expect("it is cancelled").into_inner();
    assert_eq!(cancelled.phase(), wire::Phase::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn labels_with_control_characters_are_refused() {
    let world = leveled();
    let labels_set = [("zone".to_owned(), "a\u{1b}[2J".to_owned())].into();
    let request = wire::SetMemberRequest { node: 1, labels_set, ..Default::default() };
    let refused = world.gateway.set_member(Request::new(request)).await.expect_err("control");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains(r#"got "a\u{1b}[2J""#), "{}", refused.message());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_shows_its_errors_is_retried_once_and_purged() {
    let world = leveled();
    world.dead_letter(9).await;
    let get = || Request::new(wire::GetJobRequest { job_id: id_of(9) });
    let dead = world.gateway.get_job(get()).await.expect("known").into_inner();
    let [attempt] = &dead.failed_attempts[..] else { panic!("{dead:?}") };
    assert_eq!(
        (attempt.node, attempt.error.as_str(), attempt.failed_ms),
        (1, "the engine died", 7)
    );

    let retry = || Request::new(wire::RetryJobRequest { job_id: id_of(9) });
    let first = world.gateway.retry_job(retry()).await.expect("failed").into_inner();
    let again = world.gateway.retry_job(retry()).await.expect("failed").into_inner();
    assert_eq!((again.job_id.as_str(), again.duplicate), (first.job_id.as_str(), true));
    let new = Request::new(wire::GetJobRequest { job_id: first.job_id });
    let new = world.gateway.get_job(new).await.expect("known").into_inner();
    assert_eq!((new.phase(), new.retry_of), (wire::Phase::Queued, id_of(9)));
    assert_eq!((new.parameters, new.tenant), (dead.parameters, dead.tenant));
    assert_eq!(new.deadline_ms - new.submitted_ms, 60_000);
    let waiting = Request::new(wire::RetryJobRequest { job_id: new.job_id });
    let status = world.gateway.retry_job(waiting).await.expect_err("it has not failed");
    assert_eq!(status.code(), Code::FailedPrecondition);

    let purge =
        wire::PurgeJobsRequest { phases: vec![wire::Phase::Failed.into()], ..Default::default() };
    let purged = world.gateway.purge_jobs(Request::new(purge)).await.expect("purged").into_inner();
    assert_eq!((purged.purged, purged.left), (1, 0));
    assert!(world.gateway.get_job(get()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_purge_forgets_the_oldest_in_slices_and_no_job_that_is_not_over() {
    let world = leveled();
    for number in 1..=600 {
        let request = wire::SubmitRequest { job_id: id_of(number), ..cat() };
        world.gateway.submit(Request::new(request)).await.expect("accepted");
        let (job, reason, finished_ms) = (JobId(number), String::new(), 1);
        let cancel = atelier_state::Cancel { job, reason, finished_ms };
        world.log.apply(&[Command::Cancel(cancel)]);
    }
    let waiting = world.submit().await.job_id;
    let purge = |request| world.gateway.purge_jobs(Request::new(request));
    let phases = vec![wire::Phase::Cancelled.into()];
    let before = world.gateway.view().applied.0;
    let request = wire::PurgeJobsRequest { phases, limit: 590, ..Default::default() };
    let purged = purge(request).await.expect("purged").into_inner();
    assert_eq!((purged.purged, purged.left), (590, 10));
    assert_eq!(world.gateway.view().applied.0 - before, 3, "three slices");
    let oldest = world.gateway.view().state.terminal_oldest().next().map(|(id, _)| *id);
    assert_eq!(oldest, Some(JobId(591)));

    let job_ids = vec![waiting.clone(), id_of(600)];
    let request = wire::PurgeJobsRequest { job_ids, ..Default::default() };
    let purged = purge(request).await.expect("purged").into_inner();
    assert_eq!((purged.purged, purged.left), (1, 1), "one waits, and stays");
    let phases = vec![wire::Phase::Queued.into()];
    for wrong in [
        wire::PurgeJobsRequest { phases, ..Default::default() },
        wire::PurgeJobsRequest::default(),
        wire::PurgeJobsRequest { job_ids: vec![waiting], limit: 1_001, ..Default::default() },
    ] {
        let status = purge(wrong).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_are_changed_by_compare_and_set() {
    let world = leveled();
    assert_eq!(world.set(Some(0), 5).await.expect("nobody was faster"), 1);
    let status = world.set(Some(0), 6).await.expect_err("the version is another one");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(world.set(None, 6).await.expect("whatever it is"), 2);
    let status = world.set(None, 11).await.expect_err("out of range");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(world.submit().await.log_index, world.gateway.view().applied.0);
    let state = world.gateway.view().state;
    let (_, job) = state.queued().next().expect("it waits");
    assert_eq!(job.submit.attempts_max, 6, "the setting, not this peer's configuration");
    let history = world.gateway.settings_history(Request::new(Default::default())).await;
    let history = history.expect("told").into_inner().versions;
    assert_eq!(history.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(history[0].author.as_ref().expect("an author").who, "ada");
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_was_lost_is_not_told_as_a_conflict() {
    let world = leveled();
    let value = Some(SettingValue::Number(5));
    let changes = vec![SettingChange { key: "jobs.attempts_max".to_owned(), value }];
    let (who, why) = ("ada".to_owned(), String::new());
    let author = atelier_state::Author { who, why, at_ms: world.gateway.clock.wall_ms() };
    // The first attempt took effect; the proposer tries again since it does not know.
    let set = SetSettings { expected_version: 0, changes, author };
    world.log.apply(&[Command::SetSettings(set)]);
    assert_eq!(world.set(Some(0), 5).await.expect("it was made"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_of_the_first_level_takes_jobs_and_refuses_what_is_newer() {
    let world = world();
    let five = wire::TextToImage { prompt: "a cat".to_owned(), images: 5, ..Default::default() };
    let parameters = Some(wire::submit_request::Parameters::TextToImage(five));
    let plain = wire::SubmitRequest { parameters, ..Default::default() };
    world.gateway.submit(Request::new(plain.clone())).await.expect("accepted");
    let late = wire::SubmitRequest { deadline_s: 5, ..plain };
    let status = world.refused_submit(Request::new(late)).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("feature level 1"), "{status}");
    let status = world.set(None, 5).await.expect_err("there are no settings yet");
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_has_seen_more_is_sent_to_another_peer() {
    let world = leveled();
    let job_id = world.submit().await.job_id;
    let applied = world.gateway.view().applied.0;
    let watch = |after_index| {
        let request =
            wire::WatchRequest { job_id: job_id.clone(), after_index, ..Default::default() };
        world.gateway.watch(Request::new(request))
    };
    let event = watch(applied).await.expect("it has come as far").into_inner().next().await;
    assert!(event.expect("an event").expect("no error").log_index >= applied);
    let status = watch(applied + 1).await.err().expect("this peer lags");
    assert_eq!(status.code(), Code::Unavailable);
    // One that catches up meanwhile answers.
    let catch_up = async { world.register(1) };
    let (opened, ()) = tokio::join!(watch(applied + 1), catch_up);
    assert!(opened.is_ok());
}
