//! The command line: what it prints, what it writes, and its exit codes.
//!
//! Golden files lie in `tests/golden`; `UPDATE_GOLDEN=1` writes them anew. Understand the diff
//! first: people's scripts read this.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use atelier_proto::client::v1 as wire;
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use super::support::{Act, Peer, cluster, lock, nobody, picture, preview, unavailable};

pub(crate) const JOB: &str = "01K9ZJ4Q4Y8V0N5T2M7R3X6B1C";
const OTHER_JOB: &str = "01K9ZJ4Q4Y8V0N5T2M7R3X6B1D";

/// The command with nothing of the caller's environment that would change it.
pub(crate) fn atelier(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atelier"));
    for name in [
        "ATELIER_ENDPOINTS",
        "ATELIER_TIMEOUT",
        "ATELIER_MODEL",
        "CLICOLOR_FORCE",
        "ATELIER_CONTEXT",
        "ATELIER_REGION",
    ] {
        command.env_remove(name);
    }
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

pub(crate) fn run(peer: &Peer, args: &[&str]) -> Output {
    atelier(args).env("ATELIER_ENDPOINTS", &peer.address).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn submit(peer: &Peer, id: &str) {
    let output = run(peer, &["generate", "a cat", "--seed", "7", "--job-id", id, "--async"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// Compares with a golden file.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}

/// Ports and times change from run to run; nothing else does.
pub(crate) fn stable(text: &str, peers: &[Peer]) -> String {
    let mut text = text.to_owned();
    for (at, peer) in peers.iter().enumerate() {
        text = text.replace(&peer.address, &format!("http://peer-{}", at + 1));
    }
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) if value.trim_end_matches(',').parse::<f64>().is_ok() => {
            let comma = if value.ends_with(',') { "," } else { "" };
            match value.contains('.') {
                true => format!("{name}: SECONDS{comma}\n"),
                false => format!("{line}\n"),
            }
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn help_is_as_recorded() {
    let nouns: &[&[&str]] = &[
        &[],
        &["generate"],
        &["job"],
        &["job", "list"],
        &["job", "show"],
        &["job", "watch"],
        &["job", "fetch"],
        &["job", "cancel"],
        &["job", "submit"],
        &["job", "retry"],
        &["job", "purge"],
        &["queue"],
        &["queue", "pause"],
        &["queue", "limits"],
        &["config"],
        &["config", "get"],
        &["config", "set"],
        &["config", "diff"],
        &["config", "undo"],
        &["config", "trail"],
        &["status"],
        &["top"],
        &["member"],
        &["member", "add"],
        &["member", "remove"],
        &["demo"],
        &["bench", "queue"],
    ];
    let mut text = String::new();
    for words in nouns.iter().copied() {
        let output = atelier(&[words, &["--help"]].concat()).output().unwrap();
        assert_eq!(code(&output), 0);
        text += &format!(
            "$ atelier {}\n{}\n",
            [words, &["--help"]].concat().join(" "),
            stdout(&output)
        );
    }
    golden("help.txt", &text);
}

#[test]
fn json_is_as_recorded() {
    let (world, peers) = cluster(2);
    submit(&peers[0], JOB);
    let calls: [(&str, &[&str]); 9] = [
        ("submitted", &["generate", "a cat", "--seed", "7", "--job-id", JOB, "--async"]),
        ("job", &["job", "show", JOB]),
        ("jobs", &["job", "list"]),
        ("events", &["job", "watch", JOB]),
        ("status", &["status"]),
        ("members", &["member", "list"]),
        ("member-remove-dry-run", &["member", "remove", "2", "--dry-run"]),
        ("member-add", &["member", "add", "http://127.0.0.1:9"]),
        ("job-cancelled", &["job", "cancel", JOB]),
    ];
    for (name, args) in calls {
        let output = run(&peers[0], &[args, &["--format", "json"]].concat());
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        golden(&format!("{name}.json"), &stable(&stdout(&output), &peers));
    }
    drop(world);
}

#[test]
fn a_generated_picture_is_told_in_json() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let args = ["generate", "a cat", "--seed", "7", "--job-id", JOB, "-o", "cat.png"];
    let mut command = atelier(&[args.as_slice(), &["--format", "json"]].concat());
    command.current_dir(&directory).env("ATELIER_ENDPOINTS", &peers[0].address);
    let output = command.output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    golden("generated.json", &stable(&stdout(&output), &peers));
}

#[test]
fn what_is_out_of_range_is_told_with_the_range() {
    let (_world, peers) = cluster(1);
    let most = u64::MAX;
    for (args, says) in [
        (["generate", "a cat", "--images", "0"], "from 1 to 16".to_owned()),
        (["generate", "a cat", "--images", "17"], "from 1 to 16".to_owned()),
        (["generate", "a cat", "--seed", "-1"], format!("from 0 to {most}")),
        (["generate", "a cat", "--width", "-16"], "from 0 to ".to_owned()),
        (["queue", "limits", "--jobs-max", "-1"], format!("from 0 to {most}")),
        (["generate", "a cat", "--deadline", "1000d"], "at most a year".to_owned()),
        (["generate", "a cat", "-o", "c.JPG"], "pictures are PNG".to_owned()),
        (["generate", "a cat", "--preview", "c.webp"], "pictures are PNG".to_owned()),
        (["generate", "a cat", "--image", "no.png"], "cannot read no.png".to_owned()),
        (["generate", "a cat", "--strength", "0.5"], "--image <FILE>".to_owned()),
    ] {
        let output = run(&peers[0], &args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(&says), "{}", stderr(&output));
        assert!(!stderr(&output).contains("--endpoints"), "not given: {}", stderr(&output));
    }
    assert!(peers[0].calls("submit").is_empty());
    let id = ["generate", "a cat", "--async", "--deadline", "7d"];
    assert_eq!(code(&run(&peers[0], &id)), 0);
}

#[test]
fn errors_are_told_in_json_too() {
    let (_world, peers) = cluster(1);
    let output = run(&peers[0], &["job", "show", JOB, "-o", "json"]);
    assert_eq!(code(&output), 3);
    assert_eq!(stdout(&output), "");
    golden("error.json", &stderr(&output));
}

#[test]
fn tables_are_tab_separated_in_a_pipe() {
    let (_world, peers) = cluster(2);
    submit(&peers[0], JOB);
    let text: String = [["job", "list"].as_slice(), &["member", "list"], &["status"]]
        .iter()
        .map(|args| stable(&stdout(&run(&peers[0], args)), &peers))
        .collect();
    golden("tables.txt", &text);
}

#[test]
fn generate_shows_what_the_picture_will_be() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (cat, shown) = (place("cat.png"), place("shown.png"));
    let output = run(&peers[0], &["generate", "a cat", "-o", &cat, "--preview", &shown]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read(&cat).unwrap(), picture(0));
    assert_eq!(std::fs::read(&shown).unwrap(), preview(3), "the last one");
    assert_eq!(names(directory.path()), ["cat.png", "shown.png"]);
    // What cannot be shown is told once, and costs no picture.
    let output = run(&peers[0], &["generate", "a cat", "-o", &cat, "--preview", "/proc/shown.png"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("no preview is shown").count(), 1, "{}", stderr(&output));
    let output = run(&peers[0], &["generate", "a cat", "-o", &cat, "--preview", "-"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn generate_writes_the_picture_and_tells_the_way() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cat.png");
    std::fs::write(&file, "an older picture").unwrap();
    let path = file.to_str().unwrap();
    let output = run(&peers[0], &["generate", "a cat", "--seed", "7", "-o", path]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), picture(0));
    let text = stdout(&output);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(path));
    let story = lines.next().unwrap();
    assert!(story.contains("drawn by peer 2, seed 7, in "), "{story}");
    let way = stderr(&output);
    let told: Vec<_> = way.lines().skip(1).collect();
    let expected = [
        "queued at position 1",
        "on peer 2",
        "on peer 2, encode",
        "on peer 2, step 1 of 3",
        "on peer 2, step 2 of 3",
        "on peer 2, step 3 of 3",
        "on peer 2, decode",
        "done",
    ];
    assert_eq!(told, expected);
    assert_eq!(names(directory.path()), ["cat.png"]);
}

#[test]
fn several_images_are_numbered() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cat.png");
    let output =
        run(&peers[0], &["generate", "a cat", "--images", "3", "-o", file.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(names(directory.path()), ["cat-0.png", "cat-1.png", "cat-2.png"]);
    assert_eq!(std::fs::read(directory.path().join("cat-2.png")).unwrap(), picture(2));
}

#[test]
fn a_dash_is_standard_output() {
    let (_world, peers) = cluster(1);
    let output = run(&peers[0], &["generate", "a cat", "-o", "-"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(output.stdout, picture(0));
}

#[test]
fn a_submitted_job_is_fetched_later() {
    let (_world, peers) = cluster(1);
    let output = run(&peers[0], &["generate", "a cat", "--job-id", JOB, "--async"]);
    assert_eq!(stdout(&output).trim(), JOB);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cat.png");
    let output = run(&peers[0], &["job", "fetch", JOB, "--to", file.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).unwrap(), picture(0));
}

#[test]
fn a_place_for_no_picture_is_refused_before_drawing() {
    let (_world, peers) = cluster(1);
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("absent").join("cat.png");
    for place in [directory.path(), &missing, &directory.path().join("absent/")] {
        let output = run(&peers[0], &["generate", "a cat", "-o", place.to_str().unwrap()]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    }
    assert!(peers[0].calls("submit").is_empty());
    assert_eq!(names(directory.path()), [] as [&str; 0]);
}

#[test]
fn a_picture_that_cannot_be_written_is_not_lost() {
    let (_world, peers) = cluster(1);
    // Nobody makes files there, not even root.
    let output = run(&peers[0], &["generate", "a cat", "--job-id", JOB, "-o", "/proc/cat.png"]);
    let text = stderr(&output);
    assert_eq!(code(&output), 1, "{text}");
    assert!(text.contains("cannot write /proc/cat.png"), "{text}");
    assert!(text.contains(&format!("atelier job fetch {JOB} --to FILE")), "{text}");
    assert!(!text.contains(".atelier-"), "{text}");
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let (world, peers) = cluster(1);
    let prompt = "tab\n\r\u{1b}]0;pwn\u{7}\u{9b}2J";
    let output = run(&peers[0], &["generate", prompt, "--job-id", JOB, "--async"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    lock(&world).jobs.get_mut(JOB).unwrap().error = "\u{1b}c\nhint: pwn".to_owned();
    lock(&world).end = Some(wire::Phase::Failed);
    // The first look at the job fails.
    peers[0].script("get_job", Act::Refuse(Code::NotFound, "no\u{1b}c\nhint: pwn", Vec::new()));
    for args in [
        ["job", "show", JOB].as_slice(),
        &["job", "show", JOB],
        &["job", "list"],
        &["job", "watch", JOB],
    ] {
        let output = run(&peers[0], args);
        let text = stdout(&output) + &stderr(&output);
        let steers = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
        assert!(!text.contains(steers), "{args:?}: {text:?}");
        assert!(!text.contains("\nhint: pwn"), "{args:?}: {text:?}");
    }
    let table = stdout(&run(&peers[0], &["job", "list"]));
    assert!(table.ends_with("\ttab   ]0;pwn  2J\n"), "{table:?}");
}

#[test]
fn an_added_member_is_told_how_to_start() {
    let (_world, peers) = cluster(1);
    let output = run(&peers[0], &["member", "add", "http://127.0.0.1:7891"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), "4\n");
    golden("member-add.txt", &stderr(&output));
    for more in ["--dry-run", "--yes"] {
        let output = run(&peers[0], &["member", "add", "127.0.0.1", more]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(!stderr(&output).contains("voters"), "{}", stderr(&output));
    }
    assert_eq!(peers[0].calls("add_member").len(), 1);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A script for one call, and the exit code that follows.
fn check(method: &'static str, act: Option<Act>, args: &[&str], expected: i32, says: &str) {
    let (_world, peers) = cluster(1);
    submit(&peers[0], JOB);
    if let Some(act) = act {
        for _ in 0..50 {
            peers[0].script(method, act.clone());
        }
    }
    // What is retried until the time is up gets little of it, and time enough for one answer on a loaded machine.
    let patience = match expected {
        5 => "4s",
        6 => "700ms",
        _ => "30s",
    };
    let output = run(&peers[0], &[args, &["--timeout", patience]].concat());
    let text = stderr(&output);
    assert_eq!(code(&output), expected, "{args:?}: {text}");
    assert!(text.contains(says), "{args:?}: expected {says:?} in {text}");
}

#[test]
fn exit_codes_are_as_documented() {
    let refuse = |code, message| Some(Act::Refuse(code, message, Vec::new()));
    let leader = vec![("atelier-leader", "http://127.0.0.1:7".to_owned())];
    let busy = Act::Refuse(Code::FailedPrecondition, "a change is under way", leader);
    let size = "height 1000 is not a multiple of 16; use 992 or 1008";
    let again: &[&str] = &["generate", "a cat", "--job-id", OTHER_JOB, "--async"];
    check("none", None, &["job", "show", JOB], 0, "");
    check("submit", refuse(Code::Internal, "out of luck"), again, 1, "out of luck");
    check("submit", refuse(Code::InvalidArgument, size), again, 2, size);
    check("none", None, &["job", "show", "x"], 2, "is not a job id");
    let above = "ZZZZZZZZZZZZZZZZZZZZZZZZZZ";
    let overflow = "above the greatest one";
    check("none", None, &["generate", "a cat", "--job-id", above, "--async"], 2, overflow);
    check("none", None, &["job", "cancel", above], 2, overflow);
    check("none", None, &["job", "show", OTHER_JOB], 3, "hint: `atelier job list`");
    check("none", None, &["member", "promote", "9"], 3, "there is no member 9");
    check("promote_member", Some(busy), &["member", "promote", "1"], 4, "the leader is at http");
    check("submit", refuse(Code::AlreadyExists, "the key is taken"), again, 4, "another --idem");
    check("submit", Some(unavailable()), again, 5, "no leader");
    check("submit", refuse(Code::ResourceExhausted, "10000 jobs wait"), again, 5, "10000 jobs");
    check("submit", Some(Act::DoAndHang), again, 6, &format!("--job-id {OTHER_JOB}"));
    check("get_job", Some(Act::Hang), &["job", "show", JOB], 6, "allow more with --timeout");
    check("watch", Some(Act::StallAfter(1)), &["generate", "a cat"], 6, "the job goes on");
}

#[test]
fn usage_errors_end_with_two() {
    for args in [
        &["generate"] as &[&str],
        &["paint"],
        &["generate", "a cat", "--priority", "10"],
        &["generate", "a cat", "--images", "0"],
        &["generate", "a cat", "--images", "2", "-o", "-"],
        &["generate", "a cat", "--async", "-o", "cat.png"],
        &["job", "list", "-o", "yaml"],
        &["status", "--endpoints", "https://127.0.0.1:1"],
        &["status", "--timeout", "soon"],
        &["member", "remove", "2", "--yes", "--dry-run"],
        &["bench", "queue"],
        &["bench", "queue", "--yes", "--seconds", "1", "--calls-per-client", "1"],
        &["bench", "queue", "--yes", "--batch", "2", "--mode", "cycle"],
        &["bench", "queue", "--yes", "--batch", "1001"],
        &["top", "--interval", "99ms"],
    ] {
        let output = atelier(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn nobody_there_is_unavailable_and_says_where_it_looked() {
    let nobody = nobody();
    let address = &nobody.address;
    for args in [&["status"] as &[&str], &["job", "list"], &["generate", "a cat"]] {
        let words = [args, &["--endpoints", address, "--timeout", "300ms"]].concat();
        let output = atelier(&words).output().unwrap();
        let text = stderr(&output);
        assert_eq!(code(&output), 5, "{args:?}: {text}");
        assert!(text.contains(address) && text.contains("refused"), "{args:?}: {text}");
        assert!(text.contains("hint: "), "{args:?}: {text}");
    }
}

#[test]
fn status_is_partial_when_a_member_is_silent() {
    let (_world, mut peers) = cluster(3);
    peers[1].kill();
    let output = run(&peers[0], &["status"]);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 4);
    assert!(stderr(&output).contains(&format!("try again later: {}", peers[1].address)));
}

#[test]
fn a_removal_shows_the_quorum_and_wants_to_be_meant() {
    let (_world, peers) = cluster(3);
    let output = run(&peers[0], &["member", "remove", "3", "--accept-two-voters"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    let output = run(&peers[0], &["member", "remove", "3", "--dry-run"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("tolerates  1 → 0 failures"), "{}", stderr(&output));
    assert!(peers[0].calls("remove_member").is_empty());
    let output = run(&peers[0], &["member", "remove", "3", "--yes", "--accept-two-voters"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(peers[0].calls("remove_member"), ["3"]);
}

#[test]
fn a_removal_that_leaves_no_quorum_is_refused() {
    let (world, peers) = cluster(3);
    lock(&world).members[2].alive = false;
    for more in ["--yes", "--dry-run"] {
        let output = run(&peers[0], &["member", "remove", "2", more]);
        assert_eq!(code(&output), 4, "{}", stderr(&output));
    }
    let output = run(&peers[0], &["member", "remove", "3", "--yes", "--accept-two-voters"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(peers[0].calls("remove_member"), ["3"]);
}

#[test]
fn an_interrupted_wait_says_where_the_job_goes_on() {
    let (_world, peers) = cluster(1);
    peers[0].script("watch", Act::StallAfter(1));
    let mut command = atelier(&["generate", "a cat", "--job-id", JOB]);
    command.env("ATELIER_ENDPOINTS", &peers[0].address).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "queued at position 1"));
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        rest.iter().any(|line| line.contains(&format!("atelier job cancel {JOB}"))),
        "{rest:?}"
    );
}

#[test]
fn a_peer_that_is_no_member_is_shown_all_the_same() {
    let (_world, peers) = cluster(1);
    let stranger = Peer::start(9, "127.0.0.1:0".parse().unwrap(), Arc::default());
    let endpoints = format!("{},{}", peers[0].address, stranger.address);
    let output = atelier(&["status", "--endpoints", &endpoints]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).lines().any(|line| line.starts_with("9\t")), "{}", stdout(&output));
}

#[test]
fn a_benchmark_tells_what_it_did_and_what_failed() {
    let (_world, peers) = cluster(2);
    let disk = tempfile::tempdir().unwrap();
    let disk = disk.path().to_str().unwrap();
    let bench = ["bench", "queue", "--yes", "--disk", disk, "--clients", "4", "-o", "json"];
    for mode in ["submit", "cycle"] {
        let args = [&bench[..], &["--calls-per-client", "3", "--mode", mode]].concat();
        let output = run(&peers[0], &args);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let told: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((&told["kind"], &told["mode"]), (&"bench".into(), &mode.into()));
        assert_eq!((&told["done"], &told["failed"]), (&12.into(), &0.into()));
        for figure in ["per_second", "p50_ms", "p99_ms", "max_ms", "fdatasync_per_second"] {
            assert!(told[figure].as_f64().unwrap() > 0.0, "{figure}: {told}");
        }
    }
    let args =
        [&bench[..], &["--calls-per-client", "2", "--batch", "5", "--rate", "1000"]].concat();
    let output = run(&peers[0], &args);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    golden("bench.json", &stable(&stdout(&output), &peers));
    assert_eq!(peers[0].calls("submit_batch"), vec!["5"; 8]);
    let refusal = Act::Refuse(Code::InvalidArgument, "no such tenant", Vec::new());
    peers[1].script("submit", refusal);
    let args = [&bench[..], &["--calls-per-client", "1"]].concat();
    let output = run(&peers[1], &args);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("1 × no such tenant"), "{}", stderr(&output));
}

#[test]
fn a_job_that_is_cancelled_already_is_cancelled() {
    let (world, peers) = cluster(1);
    submit(&peers[0], JOB);
    lock(&world).end = Some(wire::Phase::Cancelled);
    let output = run(&peers[0], &["job", "cancel", JOB]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("is already cancelled"), "{}", stderr(&output));
    assert!(stdout(&output).contains("phase\tcancelled"), "{}", stdout(&output));
    assert!(peers[0].calls("cancel_job").is_empty());

    lock(&world).end = Some(wire::Phase::Succeeded);
    let over = Act::Refuse(Code::FailedPrecondition, "the job is over", Vec::new());
    peers[0].script("cancel_job", over);
    let output = run(&peers[0], &["job", "cancel", JOB]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("atelier job show {JOB}")), "{}", stderr(&output));
}

#[test]
fn a_lost_picture_is_not_looked_for_among_jobs() {
    let (_world, peers) = cluster(1);
    submit(&peers[0], JOB);
    let lost = Act::Refuse(Code::NotFound, "no artifact", Vec::new());
    (0..50).for_each(|_| peers[0].script("get_artifact", lost.clone()));
    let output = run(&peers[0], &["job", "fetch", JOB, "--timeout", "2s"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("generate it again with the same seed"));
    assert!(!stderr(&output).contains("atelier job list"), "{}", stderr(&output));
}
