//! One frame of the whole cluster, as pipes and programs get it.

use std::time::{Duration, Instant};

use atelier_proto::client::v1 as wire;

use super::commands::{JOB, code, golden, run, stable, stderr, stdout, submit};
use super::support::{Act, cluster, lock};

const ONCE: [&str; 4] = ["top", "--once", "--interval", "100ms"];

#[test]
fn one_frame_is_told_in_json() {
    let (world, peers) = cluster(2);
    submit(&peers[0], JOB);
    let leased = |job: &mut wire::Job| {
        (job.phase, job.node, job.token, job.leases) = (wire::Phase::Leased.into(), 2, 7, 1);
    };
    leased(lock(&world).jobs.get_mut(JOB).unwrap());
    let begun = Instant::now();
    // What is told of a step depends on how fast its watch is, so the look is repeated.
    let told = loop {
        for peer in &peers {
            peer.script("watch", Act::StallAfter(5));
        }
        let output = run(&peers[0], &[&ONCE[..], &["-o", "json"]].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        if stdout(&output).contains("\"step\": 2") {
            break stdout(&output);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no step in {}", stdout(&output));
    };
    golden("top.json", &stable(&told, &peers));
}

#[test]
fn a_pipe_gets_one_plain_frame() {
    let (_world, peers) = cluster(2);
    let output = run(&peers[0], &["top", "--interval", "100ms"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("jobs: 5 of 100000 queued (1 delayed), 2 being drawn"), "{text}");
    assert!(text.contains("a second: 0.0 accepted, 0.0 ended, 0.0 entries"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("http://")).count(), 2, "{text}");
}

#[test]
fn without_a_leader_what_is_known_is_told_and_called_old() {
    let (world, mut peers) = cluster(3);
    lock(&world).leaderless = true;
    peers[2].kill();
    let output = run(&peers[0], &ONCE);
    assert_eq!(code(&output), 5, "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("NO LEADER: "), "{text}");
    assert!(text.contains("jobs: 5 of 100000 queued"), "{text}");
    assert!(text.contains("silent: no endpoint could answer"), "{text}");
    let json = stdout(&run(&peers[0], &[&ONCE[..], &["-o", "json"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["stale"], &json["leader"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn nobody_there_is_an_error() {
    let (_world, mut peers) = cluster(1);
    peers[0].kill();
    let output = run(&peers[0], &ONCE);
    assert_eq!((code(&output), stdout(&output).as_str()), (5, ""));
    assert!(stderr(&output).contains("no peer answers"), "{}", stderr(&output));
}
