//! Calls and streams that several callers of one client share.

use std::collections::BTreeSet;

use atelier_client::{Accepted, Client, Error, Phase, Submission};
use atelier_proto::client::v1 as wire;
use futures_util::future::join_all;
use tonic::Code;

use super::support::{Act, Peer, cluster, lock, quick, unavailable, wanted};

const CALLERS: usize = 40;

fn client(peers: &[Peer]) -> Client {
    Client::connect(peers.iter().map(|peer| &peer.address), quick()).unwrap()
}

fn submissions() -> Vec<Submission> {
    (0..CALLERS).map(|_| wanted()).collect()
}

async fn submit_all(client: &Client, submissions: &[Submission]) -> Vec<Result<Accepted, Error>> {
    join_all(submissions.iter().map(|submission| client.submit(submission))).await
}

async fn accept_all(client: &Client) -> Vec<Accepted> {
    let accepted = submit_all(client, &submissions()).await;
    accepted.into_iter().collect::<Result<_, _>>().unwrap()
}

fn calls(peers: &[Peer], method: &str) -> usize {
    peers.iter().map(|peer| peer.calls(method).len()).sum()
}

#[tokio::test]
async fn submissions_that_meet_share_calls_and_each_has_its_own_answer() {
    let (world, peers) = cluster(1);
    let submissions = submissions();
    let accepted = submit_all(&client(&peers), &submissions).await;
    for (submission, accepted) in submissions.iter().zip(accepted) {
        let accepted = accepted.unwrap();
        assert_eq!((accepted.job, accepted.duplicate), (submission.job, false));
    }
    assert_eq!(lock(&world).jobs.len(), CALLERS);
    let sent = calls(&peers, "submit") + calls(&peers, "submit_batch");
    assert!(sent <= CALLERS / 4, "{sent} calls for {CALLERS} submissions");
}

#[tokio::test]
async fn one_that_is_refused_is_told_why_and_leaves_the_others() {
    let (world, peers) = cluster(1);
    let mut submissions = submissions();
    submissions[7].parameters.prompt.clear();
    peers[0].script("submit", Act::Refuse(Code::InvalidArgument, "expected a prompt", Vec::new()));
    let accepted = submit_all(&client(&peers), &submissions).await;
    for (number, accepted) in accepted.into_iter().enumerate() {
        match accepted {
            Ok(accepted) => assert_eq!(accepted.job, submissions[number].job),
            Err(Error::Invalid { message }) => {
                assert_eq!((number, message.as_str()), (7, "expected a prompt"));
            }
            Err(other) => panic!("{number}: {other}"),
        }
    }
    assert_eq!(lock(&world).jobs.len(), CALLERS - 1);
}

#[tokio::test]
async fn a_shared_call_that_fails_is_repeated_by_each_under_its_own_id() {
    let (world, peers) = cluster(3);
    for peer in &peers {
        peer.script("submit_batch", unavailable());
        peer.script("submit", unavailable());
    }
    let submissions = submissions();
    let accepted = submit_all(&client(&peers), &submissions).await;
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    let accepted: BTreeSet<String> = lock(&world).jobs.keys().cloned().collect();
    let asked = submissions.iter().map(|submission| submission.job.to_string());
    assert_eq!(accepted, asked.collect());
}

#[tokio::test]
async fn a_shared_call_without_an_answer_may_have_been_accepted() {
    let (world, peers) = cluster(1);
    peers[0].script("submit", Act::DoAndHang);
    peers[0].script("submit_batch", Act::DoAndHang);
    peers[0].script("submit_batch", Act::DoAndHang);
    let accepted = submit_all(&client(&peers), &submissions()).await;
    assert!(accepted.iter().all(Result::is_ok), "a repeat finds the first: {accepted:?}");
    assert_eq!(lock(&world).jobs.len(), CALLERS);
}

#[tokio::test]
async fn waits_share_one_stream() {
    let (_, peers) = cluster(1);
    let client = client(&peers);
    let accepted = accept_all(&client).await;
    let ended = join_all(accepted.iter().map(|accepted| client.wait(accepted))).await;
    for (accepted, ended) in accepted.iter().zip(ended) {
        let job = ended.unwrap();
        assert_eq!((job.job, job.phase), (accepted.job, Phase::Succeeded));
    }
    assert_eq!(calls(&peers, "await"), 1);
    assert_eq!(calls(&peers, "awaited"), CALLERS, "each is named once");
}

#[tokio::test]
async fn a_wait_tells_of_a_failed_job_as_it_is() {
    let (world, peers) = cluster(1);
    lock(&world).end = Some(wire::Phase::Failed);
    let client = client(&peers);
    let accepted = client.submit(&wanted()).await.unwrap();
    assert_eq!(client.wait(&accepted).await.unwrap().phase, Phase::Failed);
}

#[tokio::test]
async fn waits_go_on_at_another_peer_when_theirs_ends_or_falls_silent() {
    for act in [Act::EndAfter(0), Act::StallAfter(0)] {
        let (_, peers) = cluster(2);
        let client = client(&peers);
        let accepted = accept_all(&client).await;
        peers.iter().for_each(|peer| peer.script("await", act.clone()));
        let ended = join_all(accepted.iter().map(|accepted| client.wait(accepted))).await;
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
        assert!(calls(&peers, "await") >= 2);
    }
}

#[tokio::test]
async fn a_job_that_nobody_knows_is_not_waited_for() {
    let (world, peers) = cluster(1);
    let client = client(&peers);
    let accepted = client.submit(&wanted()).await.unwrap();
    lock(&world).jobs.clear();
    let error = client.wait(&accepted).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}
