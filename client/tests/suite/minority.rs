//! Peers that no leader answers: cut off from the majority, or removed and still running.

use std::process::Output;

use atelier_client::{Client, Error, Options};
use serde_json::Value;

use super::commands::{JOB, atelier, code, stderr, stdout, submit};
use super::support::{Act, Peer, cluster, lock, quick, wanted};

/// What a read, asked of a peer that is cut off, says with `--stale`.
const READS: [&[&str]; 8] = [
    &["job", "list"],
    &["job", "show", JOB],
    &["queue", "stats"],
    &["queue", "limits"],
    &["config", "get"],
    &["config", "history"],
    &["config", "trail"],
    &["member", "list"],
];

fn run_at(peers: &[&Peer], args: &[&str]) -> Output {
    let endpoints: Vec<_> = peers.iter().map(|peer| peer.address.as_str()).collect();
    let mut command = atelier(args);
    command.env("ATELIER_ENDPOINTS", endpoints.join(",")).output().unwrap()
}

#[test]
fn reads_pass_over_a_peer_that_is_cut_off() {
    let (world, peers) = cluster(3);
    submit(&peers[0], JOB);
    lock(&world).cut_off.insert(3);
    for args in READS {
        // The majority is learned from the peer that is cut off.
        let output = run_at(&[&peers[2]], args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    }
    for method in ["get_job", "list_jobs", "queue_stats", "get_settings", "trail"] {
        assert!(peers[2].calls(method).is_empty(), "{method} was asked of the minority");
    }
}

#[test]
fn changes_pass_over_a_peer_that_is_cut_off_and_are_sent_once() {
    let (world, peers) = cluster(3);
    lock(&world).cut_off.insert(3);
    let changes: [(&str, &[&str]); 4] = [
        ("submit", &["generate", "a cat", "--job-id", JOB, "--async"]),
        ("cancel_job", &["job", "cancel", JOB]),
        ("set_settings", &["queue", "pause"]),
        ("remove_member", &["member", "remove", "2", "--yes", "--accept-two-voters"]),
    ];
    for (method, args) in changes {
        let output = run_at(&[&peers[2]], args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        assert!(peers[2].calls(method).is_empty(), "{method} was sent to the minority");
        let sent: usize = peers.iter().map(|peer| peer.calls(method).len()).sum();
        assert_eq!(sent, 1, "{method}");
    }
}

#[test]
fn without_a_majority_reads_are_refused_and_stale_ones_say_whose_word_they_are() {
    let (world, mut peers) = cluster(3);
    submit(&peers[0], JOB);
    lock(&world).cut_off.insert(3);
    let (first, second) = (peers[0].address.clone(), peers[1].address.clone());
    peers[0].kill();
    peers[1].kill();
    for args in READS {
        let refused = run_at(&[&peers[2]], &[args, &["--timeout", "300ms"]].concat());
        let text = stderr(&refused);
        assert_eq!(code(&refused), 5, "{args:?}: {text}");
        assert_eq!(stdout(&refused), "", "nothing old is told as if it were new");
        assert!(text.contains("no leader with a quorum was found"), "{text}");
        let arithmetic = format!(
            "2 of 3 voters do not answer: node 1 at {first}, node 2 at {second}; 2 are needed"
        );
        assert!(text.contains(&arithmetic), "{text}");
        assert!(text.contains("atelier doctor") && text.contains("--stale"), "{text}");
        assert!(!text.contains("atelier demo"), "{text}");

        let stale = run_at(&[&peers[2]], &[args, &["--stale"]].concat());
        let text = stderr(&stale);
        assert_eq!(code(&stale), 0, "{args:?}: {text}");
        let word = format!("stale: the word of node 3 at {}, which knows no", peers[2].address);
        assert!(text.contains(&word) && text.contains("entry 9 in term 3"), "{args:?}: {text}");

        let json = run_at(&[&peers[2]], &[args, &["--stale", "-o", "json"]].concat());
        let told: Value = serde_json::from_str(&stdout(&json)).unwrap();
        let stale = &told["stale"];
        assert_eq!((&stale["node"], &stale["leader"]), (&3.into(), &Value::Null), "{told}");
        assert_eq!(stale["applied_index"], 9);
    }
}

#[test]
fn a_submit_to_a_minority_is_not_sent_and_says_what_is_missing() {
    let (world, mut peers) = cluster(3);
    lock(&world).cut_off.insert(3);
    peers[0].kill();
    peers[1].kill();
    let args = ["job", "submit", "a cat", "--job-id", JOB, "--timeout", "300ms"];
    let output = run_at(&[&peers[2]], &args);
    let text = stderr(&output);
    assert_eq!(code(&output), 5, "{text}");
    assert!(text.contains("2 of 3 voters do not answer: node 1 at http"), "{text}");
    assert!(text.contains("it knows no leader"), "{text}");
    assert!(text.contains("hint: `atelier cluster status --stale`"), "{text}");
    assert!(text.contains("hint: `atelier doctor`"), "{text}");
    assert!(!text.contains("atelier demo"), "{text}");
    assert!(peers[2].calls("submit").is_empty(), "it is certain that nothing was done");
}

#[test]
fn a_leader_that_lost_its_quorum_is_not_believed() {
    let (world, peers) = cluster(3);
    // Node 1 leads and hears from nobody, as it sees the others.
    for member in &mut lock(&world).members[1..] {
        member.alive = false;
    }
    let output = run_at(&[&peers[0]], &["job", "list", "--timeout", "300ms"]);
    let text = stderr(&output);
    assert_eq!(code(&output), 5, "{text}");
    assert!(text.contains("node 1 leads no quorum: 1 of 3 voters answer it"), "{text}");
}

#[test]
fn stale_is_for_looking() {
    let (_world, peers) = cluster(1);
    let output = run_at(&[&peers[0]], &["queue", "limits", "--jobs-max", "5", "--stale"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(peers[0].calls("set_settings").is_empty());
}

#[tokio::test]
async fn a_client_that_wants_no_confirmation_learns_of_others_where_its_endpoint_has_no_leader() {
    let (world, peers) = cluster(2);
    lock(&world).cut_off.insert(2);
    let refusal = || Act::Refuse(tonic::Code::Unavailable, "no leader is known", Vec::new());
    for method in ["submit", "get_settings"] {
        (0..50).for_each(|_| peers[1].script(method, refusal()));
    }
    let options = Options { learn_members: true, ..quick() };
    let client = Client::connect([&peers[1].address], options).unwrap();
    client.submit(&wanted()).await.unwrap();
    assert_eq!((peers[0].calls("submit").len(), peers[1].calls("submit").len()), (1, 1));
    client.settings().await.unwrap();
}

#[tokio::test]
async fn where_no_leader_confirms_it_the_library_says_so_and_sends_nothing() {
    let (world, peers) = cluster(3);
    lock(&world).cut_off.extend([1, 2, 3]);
    let deadline = std::time::Duration::from_millis(200);
    let options = Options { leader_confirmed: true, deadline, ..quick() };
    let client = Client::connect(peers.iter().map(|peer| &peer.address), options).unwrap();
    let error = client.submit(&wanted()).await.unwrap_err();
    let Error::NoLeader { tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 3, "every endpoint was asked: {error}");
    assert!(matches!(client.settings().await, Err(Error::NoLeader { .. })));
    assert!(client.status().await.is_ok(), "a peer's own business needs no leader");
    for peer in &peers {
        assert!(peer.calls("submit").is_empty() && peer.calls("get_settings").is_empty());
    }
}
