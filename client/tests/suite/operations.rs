//! The operators' commands: what they print, what they ask for first, and their exit codes.

use std::process::{Command, Output};

use atelier_proto::client::v1 as wire;

use super::commands::{atelier, code, golden, run, stable, stderr, stdout};
use super::support::{Act, cluster, lock, unavailable};

/// Numbers of milliseconds change from run to run.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        for at in 1..words.len() {
            if words[at].starts_with("ms") {
                let before = words[at - 1];
                // In a row of a table the number shares its word with the cell before.
                words[at - 1] = before.rfind('\t').map_or("", |tab| &before[..=tab]);
            }
        }
        words.join(" ")
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn told(output: &Output) -> String {
    format!("exit {}\n{}{}", code(output), stdout(output), stderr(output))
}

#[test]
fn operations_are_told_as_recorded() {
    let (world, peers) = cluster(3);
    lock(&world).members[1].labels.insert("zone".into(), "a".into());
    lock(&world).members[2].labels.insert("zone".into(), "a".into());
    let calls: [&[&str]; 14] = [
        &["cluster", "status"],
        &["cluster", "verify"],
        &["cluster", "transfer-leader", "--to", "3"],
        &["cluster", "snapshot"],
        &["cluster", "snapshot", "--node", "7"],
        &["member", "list"],
        &["member", "drain", "2"],
        &["member", "drain", "2", "--wait"],
        &["member", "resume", "2"],
        &["member", "label", "2", "zone=b", "rack-"],
        &["member", "demote", "3", "--yes"],
        &["member", "demote", "3", "--dry-run"],
        &["member", "replace", "3", "--by", "http://127.0.0.1:9", "--dry-run"],
        &["doctor"],
    ];
    let mut text = String::new();
    for args in calls {
        let output = run(&peers[0], args);
        let told = stable(&without_times(&told(&output)), &peers);
        text += &format!("$ atelier {}\n{told}\n", args.join(" "));
    }
    golden("operations.txt", &text);
}

#[test]
fn operations_are_told_in_json() {
    let (_world, peers) = cluster(2);
    let calls: [(&str, &[&str]); 5] = [
        ("cluster-status", &["cluster", "status"]),
        ("verify", &["cluster", "verify"]),
        ("snapshots", &["cluster", "snapshot"]),
        ("member-drained", &["member", "drain", "2"]),
        ("member-demote-dry-run", &["member", "demote", "2", "--dry-run", "--accept-two-voters"]),
    ];
    for (name, args) in calls {
        let output = run(&peers[0], &[args, &["-o", "json"]].concat());
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        golden(&format!("{name}.json"), &stable(&stdout(&output), &peers));
    }
}

#[test]
fn peers_that_differ_are_told_apart_from_peers_that_do_not_answer() {
    let (_world, peers) = cluster(3);
    peers[2].script("digest_at", unavailable());
    let output = run(&peers[0], &["cluster", "verify"]);
    assert_eq!(code(&output), 7, "{}", told(&output));
    assert!(stderr(&output).contains("those that answer have the same state"));

    peers[1].script("digest_at", Act::Bytes(b"another"));
    let output = run(&peers[0], &["cluster", "verify"]);
    assert_eq!(code(&output), 1, "{}", told(&output));
    assert!(stderr(&output).contains("DIVERGED at entry 11"));
}

#[test]
fn two_voters_and_lost_quorums_are_refused_unless_they_are_meant() {
    let (world, peers) = cluster(3);
    let refused = run(&peers[0], &["member", "remove", "3", "--yes"]);
    assert_eq!(code(&refused), 4, "{}", told(&refused));
    assert!(stderr(&refused).contains("there would be two voters"), "{}", stderr(&refused));
    assert!(peers[0].calls("remove_member").is_empty());
    let meant = run(&peers[0], &["member", "remove", "3", "--yes", "--accept-two-voters"]);
    assert_eq!(code(&meant), 0, "{}", told(&meant));
    assert_eq!(peers[0].calls("remove_member"), ["3"]);

    lock(&world).members[2].alive = false;
    let refused = run(&peers[0], &["member", "demote", "2", "--yes", "--accept-two-voters"]);
    assert_eq!(code(&refused), 4, "{}", told(&refused));
    assert!(stderr(&refused).contains("the cluster could decide nothing afterwards"));
    let bare = run(&peers[0], &["member", "demote", "2", "--yes", "--force-unsafe"]);
    assert_eq!(code(&bare), 2, "it wants a reason: {}", told(&bare));
    let forced = ["member", "demote", "2", "--yes", "--force-unsafe", "--reason", "a drill"];
    assert_eq!(code(&run(&peers[0], &forced)), 0);
    assert_eq!(peers[0].calls("demote_member"), ["2"]);
}

#[test]
fn a_leader_that_drains_hands_the_lead_over_and_a_stranger_is_not_found() {
    let (_world, peers) = cluster(3);
    let output = run(&peers[0], &["member", "drain", "1"]);
    assert_eq!(code(&output), 0, "{}", told(&output));
    assert_eq!(peers[0].calls("set_member"), ["1 Some(true) {} []"]);
    assert_eq!(peers[0].calls("transfer_leader"), ["0"]);
    let output = run(&peers[0], &["member", "drain", "9"]);
    assert_eq!(code(&output), 3, "{}", told(&output));
}

#[test]
fn a_list_without_a_leader_is_refused_unless_stale_will_do() {
    let (world, peers) = cluster(3);
    lock(&world).members[0].leader = false;
    let refused = run(&peers[0], &["member", "list"]);
    assert_eq!(code(&refused), 5, "{}", told(&refused));
    assert_eq!(code(&run(&peers[0], &["member", "list", "--stale"])), 0);
}

#[test]
fn a_replacement_that_has_caught_up_takes_the_place() {
    let (world, peers) = cluster(3);
    let learner = wire::Member {
        node: 4,
        address: "http://127.0.0.1:9".into(),
        role: wire::MemberRole::Learner.into(),
        leader: false,
        ..lock(&world).members[2].clone()
    };
    lock(&world).members.push(learner);
    let output = run(&peers[0], &["member", "replace", "3", "--by", "4", "--yes"]);
    assert_eq!(code(&output), 0, "{}", told(&output));
    assert_eq!(peers[0].calls("replace_member"), ["3 by 4"]);
}

#[test]
fn the_bundle_holds_findings_and_no_prompts() {
    let (_world, peers) = cluster(2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("support.tar");
    let output = run(&peers[0], &["doctor", "--bundle", path.to_str().unwrap()]);
    // The fake peers' disks warrant a warning.
    assert_eq!(code(&output), 1, "{}", told(&output));
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
        entry.unwrap().path().unwrap().display().to_string()
    };
    let names: Vec<String> = archive.entries().unwrap().map(name).collect();
    let expected = ["doctor.json", "members.json", "status.txt", "version.txt"];
    assert_eq!(names, expected.map(|name| format!("atelier/{name}")));
    for method in ["list_jobs", "get_job"] {
        assert!(peers.iter().all(|peer| peer.calls(method).is_empty()), "no job is looked at");
    }
}

#[test]
fn a_new_cluster_gets_a_token_and_a_configuration_for_each_peer() {
    let directory = tempfile::tempdir().unwrap();
    let init = |peers: &[&str]| {
        let mut command = atelier(&["cluster", "init", "studio"]);
        command.args(peers).arg("--directory").arg(directory.path()).output().unwrap()
    };
    let three = ["http://127.0.0.1:7861", "http://127.0.0.1:7871", "http://127.0.0.1:7881"];
    assert_eq!(code(&init(&three[..2])), 4, "two voters are not made by accident");
    let output = init(&three);
    assert_eq!(code(&output), 0, "{}", told(&output));
    let token = stdout(&output);
    for node in 1..=3 {
        let path = directory.path().join(format!("peer-{node}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(token.trim()), "{text}");
    }
    assert_eq!(code(&init(&three)), 4, "nothing is overwritten");
    let nowhere = ["cluster", "init", "studio", "http://a:1", "--directory", "/proc/x"];
    let output = atelier(&nowhere).output().unwrap();
    assert!(stderr(&output).contains("/proc/x"), "{}", stderr(&output));
}

#[test]
fn contexts_name_clusters_and_shells_get_completions() {
    let (_world, peers) = cluster(1);
    let home = tempfile::tempdir().unwrap();
    let named = |args: &[&str]| -> Command {
        let mut command = atelier(args);
        command.env("XDG_CONFIG_HOME", home.path()).env_remove("ATELIER_CONTEXT");
        command
    };
    let ended = |args: &[&str]| named(args).output().unwrap();
    assert_eq!(code(&ended(&["context", "add", "studio", &peers[0].address])), 0);
    let other = ["context", "add", "other", "http://127.0.0.1:1", "--region", "north"];
    assert_eq!(code(&ended(&other)), 0);
    assert_eq!(code(&ended(&["member", "list"])), 0, "the first one is in use");
    assert_eq!(code(&ended(&["context", "use", "nowhere"])), 3);
    assert_eq!(code(&ended(&["context", "use", "other"])), 0);
    assert_eq!(code(&ended(&["--context", "studio", "member", "list"])), 0);
    assert_eq!(code(&ended(&["--context", "nowhere", "member", "list"])), 3);
    let there = |args: &[&str]| {
        let nobody = "http://127.0.0.1:1";
        let mut command = named(args);
        command.env("ATELIER_ENDPOINTS", nobody).env("ATELIER_TIMEOUT", "1s").output().unwrap()
    };
    let output = there(&["member", "list", "--context", "studio"]);
    assert_eq!(code(&output), 0, "a flag wins over the environment: {}", stderr(&output));
    assert_eq!(code(&there(&["--context", "nowhere", "member", "list"])), 3);
    assert_eq!(code(&there(&["member", "list"])), 5, "the environment wins over what is in use");
    for (name, expected) in [("nowhere", 3), ("studio", 5)] {
        let both = named(&["member", "list"]).env("ATELIER_CONTEXT", name).output().unwrap();
        let env = named(&["member", "list", "--timeout", "1s"])
            .env("ATELIER_CONTEXT", name)
            .env("ATELIER_ENDPOINTS", "http://127.0.0.1:1")
            .output()
            .unwrap();
        assert_eq!((code(&both), code(&env)), (if expected == 3 { 3 } else { 0 }, expected));
        let flag = named(&["member", "list", "--endpoints", &peers[0].address])
            .env("ATELIER_CONTEXT", name)
            .output()
            .unwrap();
        assert_eq!(code(&flag), 0, "{}", stderr(&flag));
    }
    let both = ended(&["--context", "studio", "member", "list", "--endpoints", "http://a:1"]);
    assert_eq!(code(&both), 2);
    assert!(stderr(&both).contains("name one"), "{}", stderr(&both));
    let list = stdout(&ended(&["context", "list"]));
    assert!(list.contains("other\tyes\thttp://127.0.0.1:1\tnorth\n"), "{list}");
    assert!(list.contains(&format!("studio\tno\t{}\t-\n", peers[0].address)), "{list}");
    let again = ended(&["context", "add", "other", "http://127.0.0.1:2"]);
    let replaced = "other is replaced: it was at http://127.0.0.1:1, and is at http://127.0.0.1:2";
    assert!(stderr(&again).contains(replaced), "{}", stderr(&again));
    for odd in ["a/b", "a\nb", "", " a"] {
        assert_eq!(code(&ended(&["context", "add", odd, "http://a:1"])), 2, "{odd:?}");
    }
    assert_eq!(code(&ended(&["context", "remove", "other"])), 0);
    for shell in ["bash", "zsh", "fish"] {
        let output = ended(&["completions", shell]);
        assert!(stdout(&output).contains("transfer-leader"), "{shell}");
    }
}

#[test]
fn nobody_takes_its_own_place_or_that_of_another_voter() {
    let (_world, peers) = cluster(3);
    let own = peers[2].address.clone();
    for (by, expected, says) in [
        ("3", 2, "member 3 cannot take its own place"),
        (own.as_str(), 2, "member 3 cannot take its own place"),
        ("2", 4, "member 2 votes already"),
        (peers[1].address.as_str(), 4, "member 2 votes already"),
    ] {
        for more in ["--dry-run", "--yes"] {
            let output = run(&peers[0], &["member", "replace", "3", "--by", by, more]);
            assert_eq!(code(&output), expected, "{by} {more}: {}", told(&output));
            assert!(stderr(&output).contains(says), "{}", stderr(&output));
        }
    }
    assert!(peers[0].calls("add_member").is_empty() && peers[0].calls("replace_member").is_empty());
}

#[test]
fn a_label_that_would_steer_a_terminal_is_refused_escaped() {
    let (_world, peers) = cluster(1);
    for label in ["zone=\u{1b}[2Ja", "zo\nne=a", "zone=\u{9b}2J", "zone\u{7f}-"] {
        let output = run(&peers[0], &["member", "label", "1", "rack=b", label]);
        let text = stderr(&output);
        assert_eq!(code(&output), 2, "{text}");
        assert!(text.contains(&format!("{label:?}")), "{text:?}");
    }
    assert!(peers[0].calls("set_member").is_empty(), "nor is the sound label set");
}

#[test]
fn what_a_member_is_already_is_not_written_again() {
    let (_world, peers) = cluster(2);
    let ended = |args: &[&str]| run(&peers[0], args);
    let output = ended(&["member", "resume", "2"]);
    assert!(stdout(&output).contains("member 2 does not drain"), "{}", told(&output));
    for _ in 0..2 {
        assert_eq!(code(&ended(&["member", "drain", "2"])), 0);
    }
    assert_eq!(peers[0].calls("set_member"), ["2 Some(true) {} []"]);
}

#[test]
fn a_paused_queue_is_told_with_who_paused_it_and_what_resumes_it() {
    let (_world, peers) = cluster(1);
    let mut pause = atelier(&["queue", "pause", "--reason", "new disks"]);
    let pause = pause.env("ATELIER_ENDPOINTS", &peers[0].address).env("USER", "ada");
    assert_eq!(code(&pause.output().unwrap()), 0);
    let output = run(&peers[0], &["doctor"]);
    assert_eq!(code(&output), 1, "{}", told(&output));
    let found = "warn\tcluster\tqueue\tpaused since 2026-11-21T19:49:30.000Z by ada: new disks\t";
    assert!(stdout(&output).contains(found), "{}", stdout(&output));
    assert!(stdout(&output).contains("`atelier queue resume`"), "{}", stdout(&output));
}

#[test]
fn a_bundle_without_a_place_is_refused_before_anybody_is_examined() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("absent/support.tar");
    let packed = directory.path().join("support.tar.gz");
    for (path, expected, says) in [
        (missing.to_str().unwrap(), 2, "hint: make it: mkdir -p"),
        (packed.to_str().unwrap(), 2, "ends in .tar instead of .gz"),
        (directory.path().to_str().unwrap(), 2, "it is a directory"),
        // Nobody makes files there, not even root.
        ("/proc/support.tar", 1, "the bundle was not written to /proc/support.tar"),
    ] {
        let output = run(&peers[0], &["doctor", "--bundle", path]);
        assert_eq!(code(&output), expected, "{}", told(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    assert!(peers[0].calls("examine").is_empty());
}

#[test]
fn findings_are_told_though_the_bundle_cannot_be_written() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    // A place that is a directory by the time the bundle is to be put there.
    let place = directory.path().join("support.tar");
    peers[0].script("examine", Act::Hang);
    let mut doctor = atelier(&["doctor", "--timeout", "2s", "--bundle", place.to_str().unwrap()]);
    doctor.env("ATELIER_ENDPOINTS", &peers[0].address);
    doctor.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let doctor = doctor.spawn().unwrap();
    let begun = std::time::Instant::now();
    while peers[0].calls("examine").is_empty() {
        assert!(begun.elapsed().as_secs() < 20, "nobody was examined");
        std::thread::yield_now();
    }
    std::fs::create_dir(&place).unwrap();
    let output = doctor.wait_with_output().unwrap();
    assert_eq!(code(&output), 1, "{}", told(&output));
    assert!(stdout(&output).contains("fail\tnode 1\tanswers"), "{}", stdout(&output));
    assert!(stderr(&output).contains("the bundle was not written to"), "{}", stderr(&output));
}

#[test]
fn peers_that_would_be_one_or_take_one_port_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let init = |peers: [&str; 3]| {
        let mut command = atelier(&["cluster", "init", "studio"]);
        command.args(peers).arg("--directory").arg(directory.path()).output().unwrap()
    };
    let third = "http://peer-3:7861";
    for (first, second, says) in [
        ("http://peer-1:7861", "http://peer-1:7861", "are the same peer"),
        ("http://peer-1:7861", "http://PEER-1.:7861", "are the same peer"),
        ("http://[::1]:7861", "http://[0:0::1]:7861", "are the same peer"),
        ("http://peer-1:7861", "http://peer-1:7862", "need the same port"),
        ("http://peer-1:7861", "http://peer-1:7861/", "expected no slash at the end"),
        ("http://peer-1:7861", "http://peer-1", "expected http://host:port"),
        ("http://peer-1:7861", "http://peer-1:07861", "expected http://host:port"),
    ] {
        let output = init([first, second, third]);
        assert_eq!(code(&output), 2, "{second}: {}", told(&output));
        let text = stderr(&output);
        assert!(text.contains(says) && text.contains(second), "{text}");
    }
    let names = || std::fs::read_dir(&directory).unwrap().count();
    assert_eq!(names(), 0);
    // Where one file is in the way, none is written.
    std::fs::write(directory.path().join("peer-2.toml"), "").unwrap();
    let output = init(["http://peer-1:7861", "http://peer-2:7861", third]);
    assert_eq!((code(&output), names()), (4, 1), "{}", told(&output));
}
