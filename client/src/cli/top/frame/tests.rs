//! Frames of a cluster that is well, and of one that is not.

use std::collections::BTreeMap;
use std::path::Path;

use atelier_client::{
    Answer, Error, JobId, JobPage, Phase, Progress, Role, Survey, TextToImage, Tried,
};
use tokio::time::Instant;

use super::*;
use crate::cli::top::reading::{Rates, Reading};

/// The moment of a reading, milliseconds since 1970.
const NOW_MS: u64 = 1_795_290_563_000;

fn address(node: u64) -> String {
    format!("http://peer-{node}:7861")
}

fn member(node: u64) -> Member {
    Member {
        node,
        address: address(node),
        role: Role::Voter,
        leader: node == 1,
        alive: true,
        slots: 2,
        leases: u32::from(node == 2),
        engine: "flex cpu".into(),
        model: "toy".into(),
        matched_index: Some(90),
        witness: node == 3,
        draining: false,
        labels: BTreeMap::new(),
        features: 2,
    }
}

fn status(node: u64, applied_index: u64) -> Answer {
    let status = Status {
        node,
        leader: Some(1),
        term: 4,
        last_log_index: 100,
        commit_index: applied_index,
        applied_index,
        queued: 5,
        leased: 1,
        terminal: 11,
        version: "0.1.0".into(),
        state_digest: format!("{applied_index:064}"),
        members: Vec::new(),
        features: 2,
        paused: false,
        cluster: "studio".into(),
    };
    Answer { address: address(node), status: Ok(status) }
}

fn silent(node: u64) -> Answer {
    let tried = vec![Tried { address: address(node), why: "connection refused".into() }];
    Answer { address: address(node), status: Err(Error::Unavailable { tried, leader: None }) }
}

fn queue() -> QueueStats {
    let tenant = |tenant: &str, queued, leased| TenantStats {
        tenant: tenant.into(),
        queued,
        leased,
        weight: 1,
    };
    QueueStats {
        queued: 5,
        delayed: 1,
        leased: 1,
        succeeded: 7,
        failed: 3,
        cancelled: 1,
        forgotten: 40,
        paused: false,
        priorities: vec![
            PriorityStats { priority: 9, queued: 2, oldest_ms: Some(NOW_MS - 5_000) },
            PriorityStats { priority: 5, queued: 3, oldest_ms: None },
        ],
        tenants: vec![tenant("default", 4, 1), tenant("tab\t\u{1b}[2J", 1, 0)],
        jobs_max: 100_000,
        tenant_jobs_max: None,
    }
}

fn job(random: u128, token: u64) -> Job {
    Job {
        job: JobId::from_parts(NOW_MS, random),
        phase: Phase::Leased,
        tenant: "default".into(),
        priority: 5,
        submitted_ms: NOW_MS - 90_000,
        finished_ms: None,
        log_index: 60,
        attempts: 0,
        leases: 1,
        node: Some(2),
        token,
        position: None,
        error: String::new(),
        artifacts: Vec::new(),
        failed_attempts: Vec::new(),
        retry_at_ms: None,
        deadline_ms: None,
        max_runtime_s: None,
        retry_of: None,
        parameters: Some(TextToImage::new("a cat")),
    }
}

fn step(token: u64, stage: Stage, step: u32) -> Progress {
    let [encode, denoise, decode] = [Duration::ZERO; 3];
    Progress { node: 2, token, stage, step, steps: 8, image: 0, encode, denoise, decode }
}

fn reading(answers: Vec<Answer>) -> Reading {
    Reading {
        at: Instant::now(),
        wall_ms: NOW_MS,
        survey: Survey { answers, members: (1..=3).map(member).collect() },
        queue: Some(queue()),
        running: JobPage { jobs: vec![job(1, 61), job(2, 62), job(3, 63)], total: 40, next: None },
    }
}

fn snapshot(reading: &Reading) -> Snapshot<'_> {
    let told =
        [step(61, Stage::Denoise, 5), step(50, Stage::Denoise, 7), step(63, Stage::Decode, 0)];
    let steps = reading.running.jobs.iter().map(|job| job.job).zip(told).collect();
    let between = Duration::from_secs(1);
    let rates = Rates { between, accepted: 12.0, ended: 11.5, entries: 40.25 };
    Snapshot { reading, rates: Some(rates), steps, silence: None }
}

/// Compares lines with a golden file; `UPDATE_GOLDEN=1` writes it anew.
fn check(lines: &[String], name: &str) {
    let drawn: String = lines.iter().map(|line| format!("{}\n", line.trim_end())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &drawn).expect("the golden file is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(drawn, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn a_cluster_that_is_well_fits_on_a_screen() {
    let reading = reading(vec![status(1, 100), status(2, 97), status(3, 100)]);
    check(&fitted(&snapshot(&reading), 40), "top-well.txt");
}

#[test]
fn what_is_wrong_is_said_above_what_is_left() {
    let mut reading = reading(vec![status(2, 97), silent(1), silent(3)]);
    for answer in &mut reading.survey.answers {
        if let Ok(status) = &mut answer.status {
            status.leader = None;
        }
    }
    reading.queue = None;
    reading.running = JobPage { jobs: Vec::new(), total: 0, next: None };
    let mut snapshot = snapshot(&reading);
    snapshot.rates = None;
    check(&lines(&snapshot), "top-leaderless.txt");
    snapshot.silence = Some(Duration::from_millis(12_900));
    let told = lines(&snapshot);
    assert!(
        told.iter().any(|line| line == "NO PEER ANSWERS: what follows is 12 s old"),
        "{told:?}"
    );
}

#[test]
fn what_does_not_fit_is_counted() {
    let reading = reading(vec![status(1, 100), status(2, 97), status(3, 100)]);
    let snapshot = snapshot(&reading);
    let all = lines(&snapshot).len();
    for room in 1..=all + 3 {
        let fitted = fitted(&snapshot, room);
        assert!(fitted.len() <= room.max(2), "{room}: {}", fitted.len());
        let says_so = fitted.last().is_some_and(|last| last.contains("more lines do not fit"));
        assert_eq!(says_so, room <= all, "{room} of {all}");
    }
}

#[test]
fn rates_are_told_of_what_changed_and_never_run_backwards() {
    let mut before = reading(vec![status(1, 100)]);
    let mut now = reading(vec![status(1, 300)]);
    now.at = before.at + Duration::from_secs(2);
    let counted = now.queue.as_mut().expect("a queue");
    (counted.queued, counted.succeeded, counted.forgotten) = (9, 10, 41);
    let between = Duration::from_secs(2);
    let rates = Rates { between, accepted: 4.0, ended: 2.0, entries: 100.0 };
    assert_eq!(Rates::between(&before, &now), Some(rates));
    std::mem::swap(&mut before.queue, &mut now.queue);
    let backwards = Rates::between(&before, &now).expect("both readings have counted");
    assert_eq!((backwards.accepted, backwards.ended), (0.0, 0.0));
    now.queue = None;
    assert_eq!(Rates::between(&before, &now), None);
}
