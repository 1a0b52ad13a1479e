//! The library: one job id, whatever the peers do.

use std::time::{Duration, Instant};

use atelier_client::{
    Artifact, ArtifactError, Client, Error, Event, GenerateError, JobId, Options, Phase, Source,
    Stage,
};
use atelier_proto::client::v1 as wire;
use tonic::Code;

use super::support::{
    Act, Peer, cluster, lock, nobody, picture, preview, quick, unavailable, wanted,
};

fn client(peers: &[&Peer], options: Options) -> Client {
    Client::connect(peers.iter().map(|peer| &peer.address), options).unwrap()
}

#[tokio::test]
async fn a_submit_reaches_the_first_endpoint_that_lives() {
    let (_, peers) = cluster(1);
    let (absent, gone) = (nobody(), nobody());
    let endpoints = [&absent.address, &gone.address, &peers[0].address];
    let client = Client::connect(endpoints, quick()).unwrap();
    let submission = wanted();
    let accepted = client.submit(&submission).await.unwrap();
    assert_eq!(accepted.job, submission.job);
    assert!(!accepted.duplicate);
    assert_eq!(peers[0].calls("submit"), [submission.job.to_string()]);
}

#[tokio::test]
async fn every_repeat_carries_the_same_job_id() {
    let (_, peers) = cluster(3);
    peers[0].script("submit", unavailable());
    peers[0].script("submit", unavailable());
    peers[1].script("submit", unavailable());
    peers[2].script("submit", unavailable());
    let client = client(&[&peers[0], &peers[1], &peers[2]], quick());
    let submission = wanted();
    client.submit(&submission).await.unwrap();
    let asked: Vec<_> = peers.iter().flat_map(|peer| peer.calls("submit")).collect();
    assert_eq!(asked, vec![submission.job.to_string(); 5]);
}

#[tokio::test]
async fn a_leader_that_is_named_is_asked_next() {
    let (_, peers) = cluster(3);
    let hint = vec![("atelier-leader", peers[2].address.clone())];
    peers[0].script("submit", Act::Refuse(Code::Unavailable, "not the leader", hint));
    // The leader is not among the endpoints that the client was given.
    let client = client(&[&peers[0], &peers[1]], quick());
    client.submit(&wanted()).await.unwrap();
    assert_eq!(peers[1].calls("submit").len(), 0);
    assert_eq!(peers[2].calls("submit").len(), 1);
}

#[tokio::test]
async fn a_full_queue_is_asked_again_when_it_said() {
    let (_, peers) = cluster(1);
    let later = vec![("retry-after", "1".to_owned())];
    peers[0].script("submit", Act::Refuse(Code::ResourceExhausted, "10000 jobs wait", later));
    let client = client(&[&peers[0]], quick());
    let begun = Instant::now();
    client.submit(&wanted()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(peers[0].calls("submit").len(), 2);
}

#[tokio::test]
async fn a_queue_that_is_full_beyond_the_deadline_is_an_error_of_its_own() {
    let (_, peers) = cluster(1);
    let later = vec![("retry-after", "60".to_owned())];
    peers[0].script("submit", Act::Refuse(Code::ResourceExhausted, "10000 jobs wait", later));
    let error = client(&[&peers[0]], quick()).submit(&wanted()).await.unwrap_err();
    assert!(matches!(error, Error::Full { retry_after: Some(after), .. } if after.as_secs() == 60));
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_settled_by_the_same_id() {
    let (_, peers) = cluster(1);
    peers[0].script("submit", Act::DoAndHang);
    let options = Options { deadline: Duration::from_millis(200), ..quick() };
    let submission = wanted();
    let error = client(&[&peers[0]], options).submit(&submission).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { job, .. } if job == submission.job));
    let accepted = client(&[&peers[0]], quick()).submit(&submission).await.unwrap();
    assert!(accepted.duplicate);
}

#[tokio::test]
async fn nobody_there_is_not_an_unknown_outcome() {
    let options = Options { deadline: Duration::from_millis(200), ..quick() };
    let (absent, gone) = (nobody(), nobody());
    let client = Client::connect([&absent.address, &gone.address], options).unwrap();
    let error = client.submit(&wanted()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { tried, .. } if tried.len() == 2));
}

#[tokio::test]
async fn a_picture_is_sent_whole_and_again_where_a_peer_refuses() {
    let (_, peers) = cluster(2);
    peers[0].script("put_artifact", Act::Refuse(Code::Unavailable, "it leaves", Vec::new()));
    peers[1].script("put_artifact", Act::Refuse(Code::Unavailable, "it leaves", Vec::new()));
    let picture: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    let client = client(&[&peers[0], &peers[1]], quick());
    let kept = client.put_artifact(picture.clone()).await.unwrap();
    assert_eq!(kept, Artifact { media_type: "image/png".into(), ..artifact_of(&picture) });
    assert_eq!(client.artifact(&kept).await.unwrap(), picture);

    let mut submission = wanted();
    let source = Source { strength: Some(0.5), ..Source::new(&kept) };
    submission.parameters.source = Some(source.clone());
    client.submit(&submission).await.unwrap();
    let told = client.job(submission.job).await.unwrap().parameters.unwrap();
    assert_eq!(told.source, Some(source));
}

#[tokio::test]
async fn adding_a_member_is_not_repeated_when_it_may_be_done() {
    let (_, peers) = cluster(2);
    peers[0].script("add_member", Act::DoAndHang);
    let options = Options { attempt_timeout: Duration::from_millis(100), ..quick() };
    let client = client(&[&peers[0], &peers[1]], options);
    let error = client.add_member("http://127.0.0.1:9").await.unwrap_err();
    assert!(matches!(error, Error::UnknownChange { change: "add the member", .. }));
    assert_eq!(peers[0].calls("add_member").len() + peers[1].calls("add_member").len(), 1);
}

#[tokio::test]
async fn a_watch_outlives_its_peer_and_tells_nothing_twice() {
    let (_, mut peers) = cluster(2);
    peers[0].script("watch", Act::StallAfter(5));
    let client = client(&[&peers[0], &peers[1]], quick());
    let job = client.submit(&wanted()).await.unwrap().job;
    let mut watch = client.watch(job);
    let mut told = Vec::new();
    while let Some(event) = watch.next().await {
        let event = event.unwrap();
        told.push((event.job.phase, event.progress.map(|at| (at.stage, at.step))));
        if told.len() == 5 {
            peers[0].kill();
        }
    }
    let denoise = |step| (Phase::Leased, Some((Stage::Denoise, step)));
    let expected = [
        (Phase::Queued, None),
        (Phase::Leased, None),
        (Phase::Leased, Some((Stage::Encode, 0))),
        denoise(1),
        denoise(2),
        denoise(3),
        (Phase::Leased, Some((Stage::Decode, 0))),
        (Phase::Succeeded, Some((Stage::Decode, 0))),
    ];
    assert_eq!(told, expected);
    assert_eq!(peers[1].calls("watch"), [job.to_string()]);
}

#[tokio::test]
async fn previews_come_where_they_are_asked_for() {
    let (_, peers) = cluster(1);
    let shown = async |options| {
        let client = client(&[&peers[0]], options);
        let job = client.submit(&wanted()).await.unwrap().job;
        let mut shown = Vec::new();
        let tell = |event: &Event| {
            shown.extend(event.preview.clone().map(|preview| preview.png));
        };
        client.finish(job, tell).await.unwrap();
        shown
    };
    assert_eq!(shown(quick()).await, Vec::<Vec<u8>>::new());
    let options = Options { previews: true, ..quick() };
    assert_eq!(shown(options).await, [1, 2, 3].map(preview));
}

#[tokio::test]
async fn a_watch_learns_of_peers_that_it_was_not_told_of() {
    let (_, mut peers) = cluster(2);
    peers[0].script("watch", Act::StallAfter(1));
    let client = client(&[&peers[0]], Options { learn_members: true, ..quick() });
    let job = client.submit(&wanted()).await.unwrap().job;
    let mut watch = client.watch(job);
    watch.next().await.unwrap().unwrap();
    peers[0].kill();
    let mut last = Phase::Queued;
    while let Some(event) = watch.next().await {
        last = event.unwrap().job.phase;
    }
    assert_eq!(last, Phase::Succeeded);
    assert_eq!(client.endpoints(), [peers[0].address.clone(), peers[1].address.clone()]);
}

#[tokio::test]
async fn a_watch_leaves_a_peer_that_knows_nothing_new() {
    let (_, peers) = cluster(3);
    peers[0].script("watch", Act::StallAfter(1));
    peers[1].script("watch", Act::RepeatAfter(1));
    let options = Options { watch_silence: Duration::from_millis(100), ..quick() };
    let client = client(&[&peers[0], &peers[1], &peers[2]], options);
    let job = client.submit(&wanted()).await.unwrap().job;
    assert_eq!(client.finish(job, |_| {}).await.unwrap().phase, Phase::Succeeded);
    assert_eq!(peers[2].calls("watch").len(), 1);
}

#[tokio::test]
async fn a_watch_ends_before_its_job_only_at_its_deadline() {
    let (_, peers) = cluster(1);
    for _ in 0..5 {
        peers[0].script("watch", Act::EndAfter(3));
    }
    peers[0].script("watch", Act::StallAfter(3));
    let options = Options { watch_deadline: Some(Duration::from_millis(500)), ..quick() };
    let client = client(&[&peers[0]], options);
    let job = client.submit(&wanted()).await.unwrap().job;
    let error = client.finish(job, |_| {}).await.unwrap_err();
    assert!(matches!(
        error,
        GenerateError::Watch { job: of, source: Error::Deadline { .. } } if of == job
    ));
    assert!(peers[0].calls("watch").len() > 1);
}

#[tokio::test]
async fn a_job_that_a_peer_does_not_know_yet_is_looked_for_elsewhere() {
    let (_, peers) = cluster(2);
    for _ in 0..2 {
        peers[0].script("watch", Act::Refuse(Code::NotFound, "no such job", Vec::new()));
    }
    let client = client(&[&peers[0], &peers[1]], quick());
    let job = client.submit(&wanted()).await.unwrap().job;
    assert!(client.watch(job).next().await.unwrap().is_ok());
    let mut unknown = client.watch(JobId::generate());
    assert!(matches!(unknown.next().await, Some(Err(Error::NotFound { .. }))));
    assert!(unknown.next().await.is_none());
}

#[tokio::test]
async fn generate_returns_every_image_as_its_digest_names_it() {
    let (_, peers) = cluster(1);
    let mut submission = wanted();
    submission.parameters.images = 3;
    let client = client(&[&peers[0]], quick());
    // On another thread, as a server that uses the library would.
    let drawing = tokio::spawn(async move {
        let mut events = 0;
        let drawn = client.generate(&submission, |_| events += 1).await.unwrap();
        (events, drawn)
    });
    let (events, drawn) = drawing.await.unwrap();
    assert_eq!(events, 8);
    assert_eq!(drawn.job.node, Some(2));
    let images: Vec<_> = drawn.images.into_iter().map(|image| image.bytes).collect();
    assert_eq!(images, [picture(0), picture(1), picture(2)]);
}

#[tokio::test]
async fn a_job_that_the_cluster_gave_up_is_told_with_its_error() {
    let (world, peers) = cluster(1);
    lock(&world).end = Some(wire::Phase::Failed);
    let error = client(&[&peers[0]], quick()).generate(&wanted(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("the engine ran out of memory"), "{error}");
    assert!(matches!(error, GenerateError::Failed(job) if job.attempts == 3));
}

fn artifact_of(bytes: &[u8]) -> Artifact {
    Artifact {
        digest: blake3::hash(bytes).to_hex().to_string(),
        bytes: bytes.len() as u64,
        media_type: "image/png".into(),
    }
}

#[tokio::test]
async fn bytes_that_are_not_what_they_are_named_are_refused() {
    let (world, peers) = cluster(1);
    let wanted = artifact_of(b"sound");
    lock(&world).artifacts.insert(wanted.digest.clone(), b"sound".to_vec());
    let client = client(&[&peers[0]], quick());
    peers[0].script("get_artifact", Act::Bytes(b"rotte"));
    let error = client.artifact(&wanted).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Digest { .. }), "{error}");
    for wrong in [b"soun".as_slice(), b"sound and more", b""] {
        peers[0].script("get_artifact", Act::Bytes(wrong));
        let error = client.artifact(&wanted).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Length { expected: 5, .. }), "{error}");
    }
    assert_eq!(client.artifact(&wanted).await.unwrap(), b"sound");
}

#[tokio::test]
async fn a_sound_copy_is_found_behind_bad_ones() {
    let (world, peers) = cluster(4);
    let wanted = artifact_of(b"sound");
    lock(&world).artifacts.insert(wanted.digest.clone(), b"sound".to_vec());
    peers[0].script("get_artifact", Act::Bytes(b"rotte"));
    peers[1].script("get_artifact", Act::Refuse(Code::NotFound, "not here", Vec::new()));
    peers[2].script("get_artifact", Act::Refuse(Code::Internal, "a bad disk", Vec::new()));
    let all: Vec<_> = peers.iter().collect();
    let client = client(&all, quick());
    assert_eq!(client.artifact(&wanted).await.unwrap(), b"sound");
}

#[tokio::test]
async fn an_answer_that_breaks_the_contract_is_malformed() {
    let (world, peers) = cluster(1);
    let client = client(&[&peers[0]], quick());
    let job = client.submit(&wanted()).await.unwrap().job;
    lock(&world).jobs.values_mut().for_each(|job| job.artifacts[0].digest = "../etc".into());
    let error = client.job(job).await.unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn a_survey_asks_members_that_the_client_did_not_know() {
    let (world, mut peers) = cluster(3);
    peers[2].kill();
    let client = client(&[&peers[0]], quick());
    let survey = client.survey().await;
    assert_eq!(survey.members.len(), 3);
    assert_eq!(survey.leader(), Some(1));
    assert_eq!(survey.consistent(), Some(true));
    assert!(survey.of(2).is_some());
    assert!(survey.of(3).is_none());
    drop(world);
}

#[tokio::test]
async fn the_time_left_is_passed_on_with_every_attempt() {
    let (_, peers) = cluster(2);
    peers[0].script("submit", Act::Hang);
    let options = Options {
        attempt_timeout: Duration::from_millis(300),
        deadline: Duration::from_secs(20),
        ..quick()
    };
    client(&[&peers[0], &peers[1]], options).submit(&wanted()).await.unwrap();
    for peer in &peers {
        let allowed = peer.calls("submit-timeout").join(" ");
        let micros: u64 = allowed.strip_suffix('u').unwrap().parse().unwrap();
        assert!((250_000..=300_000).contains(&micros), "{allowed}");
    }
}

#[tokio::test]
async fn streams_are_told_their_time_as_well() {
    let (_, peers) = cluster(1);
    let options = Options {
        watch_deadline: Some(Duration::from_secs(40)),
        deadline: Duration::from_secs(20),
        ..quick()
    };
    client(&[&peers[0]], options).generate(&wanted(), |_| {}).await.unwrap();
    client(&[&peers[0]], quick()).generate(&wanted(), |_| {}).await.unwrap();
    let told = |method: &str| -> Vec<u64> {
        let seconds =
            |told: &String| told.trim_end_matches('u').parse::<u64>().unwrap() / 1_000_000;
        peers[0].calls(method).iter().map(seconds).collect()
    };
    // The one that has no end of its own is told none.
    assert!(matches!(told("watch-timeout").as_slice(), [30..=40]), "{:?}", told("watch-timeout"));
    let fetches = told("get_artifact-timeout");
    assert!(matches!(fetches.as_slice(), [10..=20, 20..=30]), "{fetches:?}");
}

#[tokio::test]
async fn submits_go_to_the_leader_once_it_is_known() {
    let (_, peers) = cluster(3);
    let options = Options { learn_members: true, ..quick() };
    // Peer 1 leads, and is not among the endpoints that the client was given.
    let client = client(&[&peers[1], &peers[2]], options);
    client.submit(&wanted()).await.unwrap();
    let begun = Instant::now();
    while peers[0].calls("submit").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the leader was not found");
        client.submit(&wanted()).await.unwrap();
    }
    // It is asked itself before anything is sent its way: members may be told under addresses that
    // only the cluster's own network can reach.
    assert_eq!(peers[0].calls("status").len(), 1);
    let before = peers[0].calls("submit").len();
    client.submit(&wanted()).await.unwrap();
    assert_eq!(peers[0].calls("submit").len(), before + 1);
}

#[tokio::test]
async fn a_leader_that_dies_is_left_for_another_peer() {
    let (_, mut peers) = cluster(2);
    let client = client(&[&peers[0], &peers[1]], Options { learn_members: true, ..quick() });
    client.submit(&wanted()).await.unwrap();
    peers[0].kill();
    for _ in 0..20 {
        client.submit(&wanted()).await.unwrap();
    }
    assert_eq!(peers[1].calls("submit").len(), 20);
}

#[tokio::test]
async fn reads_go_to_the_own_region_once_it_is_known() {
    let (world, peers) = cluster(3);
    for (member, region) in lock(&world).members.iter_mut().zip(["south", "south", "north"]) {
        member.labels.insert("region".to_owned(), region.to_owned());
    }
    let job = client(&[&peers[0]], quick()).submit(&wanted()).await.unwrap().job;
    let options = Options { learn_members: true, region: Some("north".to_owned()), ..quick() };
    let client = client(&[&peers[0], &peers[1], &peers[2]], options);
    let begun = Instant::now();
    while peers[2].calls("get_job").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the own region was not found");
        client.job(job).await.unwrap();
    }
    let before = peers[2].calls("get_job").len();
    for _ in 0..5 {
        client.job(job).await.unwrap();
    }
    assert_eq!(peers[2].calls("get_job").len(), before + 5);
    // What goes through the log still saves the hop.
    client.submit(&wanted()).await.unwrap();
    assert_eq!(peers[0].calls("submit").len(), 2);
}

#[tokio::test]
async fn a_read_goes_past_an_endpoint_that_is_busy() {
    let (_, peers) = cluster(2);
    let client = client(&[&peers[0], &peers[1]], quick());
    let job = client.submit(&wanted()).await.unwrap().job;
    peers[0].script("get_job", Act::Hang);
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.job(job).await }
    });
    let begun = Instant::now();
    while peers[0].calls("get_job").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the first read was not sent");
        tokio::task::yield_now().await;
    }
    client.job(job).await.unwrap();
    assert_eq!((peers[0].calls("get_job").len(), peers[1].calls("get_job").len()), (1, 1));
    hanging.abort();
}

#[tokio::test]
async fn whom_surveys_find_silent_is_left_alone() {
    let (_, mut peers) = cluster(2);
    // Without repeats only the breaker leads past the dead one.
    let client = client(&[&peers[0], &peers[1]], Options { retries_max: 0, ..quick() });
    let job = client.submit(&wanted()).await.unwrap().job;
    peers[0].kill();
    for _ in 0..5 {
        client.survey().await;
    }
    client.job(job).await.unwrap();
}

#[tokio::test]
async fn whoever_cancels_second_is_answered_with_the_cancelled_job() {
    let (world, peers) = cluster(1);
    let client = client(&[&peers[0]], quick());
    let job = client.submit(&wanted()).await.unwrap().job;
    let over = || Act::Refuse(Code::FailedPrecondition, "the job is over", Vec::new());
    peers[0].script("cancel_job", over());
    lock(&world).end = Some(wire::Phase::Cancelled);
    assert_eq!(client.cancel(job).await.unwrap().phase, Phase::Cancelled);
    peers[0].script("cancel_job", over());
    lock(&world).end = Some(wire::Phase::Succeeded);
    assert!(matches!(client.cancel(job).await, Err(Error::Conflict { .. })));
}
