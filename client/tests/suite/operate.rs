//! The commands that submit many jobs, deal with those that are over, and operate the queue.

use std::io::Write;
use std::process::{Output, Stdio};
use std::sync::Mutex;

use atelier_proto::client::v1 as wire;
use tonic::Code;

use super::commands::{JOB, atelier, code, golden, run, stable, stderr, stdout, submit};
use super::support::{Act, Peer, World, cluster, lock};

fn fed(peer: &Peer, args: &[&str], input: &str) -> Output {
    let mut command = atelier(args);
    command.env("ATELIER_ENDPOINTS", &peer.address).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs with a fixed user, since the author of a change is recorded.
fn run_as(peer: &Peer, args: &[&str]) -> Output {
    let mut command = atelier(args);
    command.env("ATELIER_ENDPOINTS", &peer.address).env("USER", "ada").output().unwrap()
}

fn ok(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", stderr(output));
    stdout(output)
}

#[test]
fn json_of_the_queue_is_as_recorded() {
    let (world, peers) = cluster(1);
    submit(&peers[0], JOB);
    lock(&world).end = Some(wire::Phase::Failed);
    let calls: [(&str, &[&str]); 12] = [
        ("job-failed", &["job", "show", JOB]),
        ("job-retried", &["job", "retry", JOB]),
        ("job-purge-dry-run", &["job", "purge", "--phase", "failed", "--dry-run"]),
        ("job-purged", &["job", "purge", JOB, "--yes"]),
        ("queue-stats", &["queue", "stats"]),
        ("queue-paused", &["queue", "pause", "--reason", "maintenance"]),
        ("config-set", &["config", "set", "jobs.attempts_max=5", "queue.paused=default"]),
        ("config-diff", &["config", "diff"]),
        ("config-diff-versions", &["config", "diff", "0", "1"]),
        ("config-history", &["config", "history"]),
        ("config-get", &["config", "get", "jobs.attempts_max"]),
        ("config-trail", &["config", "trail"]),
    ];
    for (name, args) in calls {
        let output = run_as(&peers[0], &[args, &["-o", "json"]].concat());
        golden(&format!("{name}.json"), &stable(&ok(&output), &peers));
    }
}

#[test]
fn tables_of_the_queue_are_as_recorded() {
    let (world, peers) = cluster(1);
    submit(&peers[0], JOB);
    lock(&world).end = Some(wire::Phase::Failed);
    let calls: [&[&str]; 6] = [
        &["job", "show", JOB],
        &["queue", "stats"],
        &["queue", "limits"],
        &["config", "set", "queue.jobs_max=500", "--reason", "a small disk"],
        &["config", "history"],
        &["config", "diff"],
    ];
    let text: String = calls.iter().map(|args| ok(&run_as(&peers[0], args)) + "\n").collect();
    golden("operate.txt", &text);
}

#[test]
fn a_file_of_lines_is_submitted_in_batches() {
    let (world, peers) = cluster(1);
    let lines: String =
        (0..2_500).map(|seed| format!("{{\"prompt\": \"a cat\", \"seed\": {seed}}}\n")).collect();
    let output = fed(&peers[0], &["job", "submit", "--file", "-", "--tenant", "studio"], &lines);
    let ids = ok(&output);
    assert_eq!(ids.lines().count(), 2_500);
    assert!(stderr(&output).contains("2500 jobs accepted"), "{}", stderr(&output));
    let batches: u64 =
        peers[0].calls("submit_batch").iter().map(|n| n.parse::<u64>().unwrap()).sum();
    assert_eq!(batches, 2_500);
    let world = lock(&world);
    let first = &world.jobs[ids.lines().next().unwrap()];
    assert_eq!(first.tenant, "studio");
    let Some(wire::job::Parameters::TextToImage(asked)) = &first.parameters else { panic!() };
    assert_eq!(asked.seed, 0);
}

#[test]
fn an_outcome_that_nobody_knows_is_not_called_refused() {
    let (_world, peers) = cluster(1);
    let line = "{\"prompt\": \"of unknown outcome\"}\n";
    let output = fed(&peers[0], &["job", "submit", "--file", "-"], line);
    let text = stderr(&output);
    assert_eq!(code(&output), 6, "{text}");
    assert!(text.contains("error: nobody knows whether 1 of 1 jobs were accepted"), "{text}");
    assert!(text.contains("line 1: with \"job_id\": \"") && !text.contains("refused"), "{text}");
}

#[test]
fn a_first_line_that_cannot_be_read_says_that_nothing_was_done() {
    let (_world, peers) = cluster(1);
    let output = fed(&peers[0], &["job", "submit", "--file", "-"], "{\"sede\": 7}\n");
    let text = stderr(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert!(text.contains("nothing was submitted") && !text.contains("tail -n"), "{text}");
    assert!(text.contains(" at column ") && !text.contains("at line 1"), "{text}");
}

#[test]
fn a_job_that_waits_for_a_paused_queue_says_so_and_why() {
    let (_world, peers) = cluster(1);
    let peer = &peers[0];
    ok(&run_as(peer, &["queue", "pause", "--reason", "new disks"]));
    let why = "the queue is paused: new disks; `atelier queue resume`";
    let calls: [&[&str]; 3] = [
        &["generate", "a cat", "--job-id", JOB, "-o", "-"],
        &["job", "watch", JOB],
        &["job", "watch", JOB, "-o", "json"],
    ];
    for args in calls {
        peer.script("watch", Act::StallAfter(1));
        let output = run(peer, &[args, &["--timeout", "2s"]].concat());
        let told = stderr(&output);
        assert_eq!(code(&output), 6, "{told}");
        assert_eq!(told.matches(why).count(), 2, "while it waits, and at the end: {told}");
    }
    ok(&run_as(peer, &["queue", "resume"]));
    peer.script("watch", Act::StallAfter(1));
    let output = run(peer, &["job", "watch", JOB, "--timeout", "1s"]);
    assert!(!stderr(&output).contains("paused"), "{}", stderr(&output));
}

/// Makes so many failed jobs.
fn failed_jobs(peer: &Peer, world: &Mutex<World>, count: usize) {
    submit(peer, JOB);
    let mut world = lock(world);
    let first = world.jobs.remove(JOB).expect("submitted");
    for number in 0..count {
        let job_id = format!("01K9ZJ4Q4Y8V0N5T2M7R{number:05}0");
        let failed = wire::Job { phase: wire::Phase::Failed.into(), ..first.clone() };
        world.jobs.insert(job_id.clone(), wire::Job { job_id, ..failed });
    }
}

#[test]
fn a_list_of_more_than_one_call_tells_is_walked_or_gone_on_with() {
    let (world, peers) = cluster(1);
    failed_jobs(&peers[0], &world, 2_500);
    let list = |args: &[&str]| {
        let output = run(&peers[0], &[&["job", "list", "--phase", "failed"], args].concat());
        let jobs: Vec<String> = ok(&output).lines().skip(1).map(str::to_owned).collect();
        (jobs, stderr(&output))
    };
    let (all, note) = list(&["--all"]);
    assert_eq!((all.len(), note.as_str()), (2_500, ""));
    let (first, note) = list(&["--limit", "1000"]);
    let next = note.split_once("--after ").and_then(|(_, next)| next.split_once(','));
    let (next, _) = next.unwrap_or_else(|| panic!("{note}"));
    assert!(note.starts_with("1000 of 2500; go on with --after "), "{note}");
    let (rest, note) = list(&["--all", "--after", next]);
    assert_eq!(([first, rest].concat(), note.as_str()), (all, ""));
}

#[test]
fn all_failed_jobs_are_retried_once_however_many_they_are() {
    let (world, peers) = cluster(1);
    failed_jobs(&peers[0], &world, 1_200);
    let retry = || run(&peers[0], &["job", "retry", "--all", "--timeout", "1s"]);
    let full = Act::Refuse(Code::ResourceExhausted, "the queue is full", Vec::new());
    (0..5).for_each(|_| peers[0].script("retry_job", Act::EndAfter(0)));
    (0..20).for_each(|_| peers[0].script("retry_job", full.clone()));
    let part = retry();
    assert_eq!((code(&part), stdout(&part).lines().count()), (7, 5), "{}", stderr(&part));
    assert!(stderr(&part).contains("5 jobs were retried, and 1195 are left"), "{}", stderr(&part));
    peers[0].forget_script("retry_job");
    let rest = retry();
    assert_eq!(ok(&rest).lines().count(), 1_195);
    assert_eq!(stderr(&rest), "5 more failed jobs were retried before\n");
    let none = retry();
    assert_eq!((ok(&none).as_str(), code(&none)), ("", 0));
    assert!(
        stderr(&none).contains("each of the 1200 failed jobs was retried"),
        "{}",
        stderr(&none)
    );
    assert_eq!(lock(&world).jobs.len(), 2_400);
}

#[test]
fn a_line_that_is_refused_leaves_the_others() {
    let (_world, peers) = cluster(1);
    let lines = "{\"prompt\": \"a cat\"}\n{\"prompt\": \"\"}\n\n{\"prompt\": \"a dog\"}\n";
    let output = fed(&peers[0], &["job", "submit", "--file", "-"], lines);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    assert!(stderr(&output).contains("line 2: expected a prompt"), "{}", stderr(&output));
    let output = fed(&peers[0], &["job", "submit", "--file", "-"], "{\"prompt\": \"\"}\n");
    assert_eq!(code(&output), 2, "nothing was accepted: {}", stderr(&output));
}

#[test]
fn a_line_that_cannot_be_read_says_which_and_where_to_go_on() {
    let (_world, peers) = cluster(1);
    let lines = "{\"prompt\": \"a cat\"}\n{\"prompt\": \"a cat\", \"sede\": 7}\n";
    let output = fed(&peers[0], &["job", "submit", "--file", "-"], lines);
    let text = stderr(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert!(text.contains("line 2: unknown field `sede`"), "{text}");
    assert!(text.contains("lines up to 1 are done, go on with: tail -n +2"), "{text}");
    assert_eq!(peers[0].calls("submit_batch"), ["1"]);
    let output = run(&peers[0], &["job", "submit", "--file", "/absent"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn a_job_is_submitted_from_flags() {
    let (world, peers) = cluster(1);
    let args = ["job", "submit", "a cat", "--deadline", "2m", "--job-id", JOB];
    assert_eq!(ok(&run(&peers[0], &args)).trim(), JOB);
    assert!(lock(&world).jobs.contains_key(JOB));
    for wrong in [&["job", "submit"] as &[&str], &["job", "submit", "a", "--file", "b"]] {
        assert_eq!(code(&run(&peers[0], wrong)), 2);
    }
}

#[test]
fn a_purge_wants_to_be_meant() {
    let (world, peers) = cluster(1);
    submit(&peers[0], JOB);
    let output = run(&peers[0], &["job", "purge", "--phase", "failed"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    assert!(lock(&world).jobs.contains_key(JOB));
    let output = run(&peers[0], &["job", "purge", "--phase", "failed", "--yes"]);
    assert_eq!(ok(&output), "1 jobs are forgotten\n");
    let output = run(&peers[0], &["job", "purge", "--phase", "queued", "--yes"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn a_purge_says_of_each_job_why_it_is_left() {
    let other = "01K9ZJ4Q4Y8V0N5T2M7R3X6B1D";
    let (world, peers) = cluster(1);
    let unknown = run(&peers[0], &["job", "purge", other, "--yes"]);
    assert_eq!(code(&unknown), 3, "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains(&format!("{other}: there is no such job")));

    submit(&peers[0], JOB);
    lock(&world).end = Some(wire::Phase::Leased);
    for more in ["--yes", "--dry-run"] {
        let running = run(&peers[0], &["job", "purge", JOB, more]);
        let text = stderr(&running);
        assert_eq!(code(&running), 4, "{text}");
        assert!(text.contains(&format!("{JOB}: it is leased")), "{text}");
        assert!(text.contains(&format!("hint: stop it first: atelier job cancel {JOB}")), "{text}");
    }
    assert!(peers[0].calls("purge_jobs").is_empty());

    lock(&world).end = Some(wire::Phase::Failed);
    let some = run(&peers[0], &["job", "purge", JOB, other, JOB, "--yes", "-o", "json"]);
    assert_eq!(code(&some), 7, "{}", stderr(&some));
    let told: serde_json::Value = serde_json::from_str(&stdout(&some)).unwrap();
    assert_eq!((&told["jobs"], &told["not_purged"][0]["job"]), (&1.into(), &other.into()));
    assert!(!lock(&world).jobs.contains_key(JOB));
}

#[test]
fn what_is_so_already_is_not_written_again() {
    let (_world, peers) = cluster(1);
    let writes = || peers[0].calls("set_settings").len();
    let resumed = run_as(&peers[0], &["queue", "resume"]);
    ok(&resumed);
    assert!(stderr(&resumed).contains("the queue is not paused"), "{}", stderr(&resumed));
    assert_eq!(writes(), 0);
    ok(&run_as(&peers[0], &["queue", "pause", "--reason", "maintenance"]));
    assert_eq!(writes(), 1);
    let paused = run_as(&peers[0], &["queue", "pause"]);
    ok(&paused);
    let words = "the queue is paused already, since 2026-11-21T19:49:30.000Z by ada: maintenance";
    assert!(stderr(&paused).contains(words), "{}", stderr(&paused));
    ok(&run_as(&peers[0], &["config", "set", "queue.paused=true"]));
    ok(&run_as(&peers[0], &["config", "set", "jobs.attempts_max=default"]));
    let json = ok(&run_as(&peers[0], &["queue", "pause", "-o", "json"]));
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["changes"], serde_json::json!([]));
    assert_eq!(writes(), 1);
    let stale = run_as(&peers[0], &["queue", "pause", "--expect-version", "7"]);
    assert_eq!(code(&stale), 4, "{}", stderr(&stale));
    // A default that is set becomes a choice, which later defaults do not change.
    ok(&run_as(&peers[0], &["config", "set", "jobs.attempts_max=3"]));
    assert_eq!(writes(), 2);
}

#[test]
fn settings_are_typed_and_compared_before_they_are_set() {
    let (_world, peers) = cluster(1);
    let set = |args: &[&str]| run_as(&peers[0], &[&["config", "set"], args].concat());
    for (args, says) in [
        (["jobs.attempts=5"], "did you mean jobs.attempts_max?"),
        (["jobs.attempts_max=eleven"], "expected a whole number from 0 to 10 attempts"),
        (["jobs.attempts_max=11"], "expected a whole number from 0 to 10 attempts"),
        (["queue.paused=1"], "expected true or false"),
        (["queue.paused"], "expected KEY=VALUE"),
    ] {
        let output = set(&args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
    }
    ok(&set(&["jobs.attempts_max=5", "--dry-run"]));
    assert!(peers[0].calls("set_settings").is_empty());
    ok(&set(&["jobs.attempts_max=5", "--expect-version", "0"]));
    let output = set(&["jobs.attempts_max=6", "--expect-version", "0"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    // Somebody is faster between reading and writing.
    let conflict = "the settings have version 9 by now";
    peers[0].script("set_settings", Act::Refuse(tonic::Code::FailedPrecondition, conflict, vec![]));
    let output = set(&["jobs.attempts_max=6"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert_eq!(ok(&run(&peers[0], &["config", "get", "jobs.attempts_max"])), "5\n");
}

#[test]
fn an_undo_takes_the_last_change_back_and_can_be_undone() {
    let (_world, peers) = cluster(1);
    let output = run(&peers[0], &["config", "undo"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    ok(&run_as(&peers[0], &["config", "set", "jobs.attempts_max=5"]));
    let value = || ok(&run(&peers[0], &["config", "get", "jobs.attempts_max"]));
    assert_eq!(value(), "5\n");
    ok(&run_as(&peers[0], &["config", "undo"]));
    assert_eq!(value(), "3\n");
    ok(&run_as(&peers[0], &["config", "undo"]));
    assert_eq!(value(), "5\n");
    let history = ok(&run(&peers[0], &["config", "history"]));
    assert!(history.contains("takes version 2 back"), "{history}");
}

#[test]
fn the_queue_is_paused_resumed_and_bounded() {
    let (_world, peers) = cluster(1);
    let stats = || ok(&run(&peers[0], &["queue", "stats"]));
    assert!(stats().contains("paused\tno"), "{}", stats());
    ok(&run_as(&peers[0], &["queue", "pause", "--reason", "maintenance"]));
    assert!(stats().contains("paused\tyes"), "{}", stats());
    ok(&run_as(&peers[0], &["queue", "resume"]));
    assert!(stats().contains("paused\tno"), "{}", stats());
    let limits = ["queue", "limits", "--jobs-max", "500", "--weight", "studio=10"];
    let output = run_as(&peers[0], &limits);
    assert_eq!(
        ok(&output),
        "key\tbefore\tafter\nqueue.jobs_max\t100000\t500\nqueue.weight.studio\t1\t10\n"
    );
}
