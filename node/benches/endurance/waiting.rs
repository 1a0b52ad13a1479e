//! The queue with nothing waiting beside the queue with a hundred thousand jobs waiting, in turns.
//!
//! Whatever is measured is done in the same way in both: the queue is paused, jobs come in, one of
//! them is watched; then it is resumed until the jobs of the highest priority have ended. Those
//! that wait all the time are of the lowest priority, so that none of them is served in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atelier_client::{Client, Submission};

use crate::load::{self, Figures, Limit};
use crate::queue::{clients, drained, ended, fill, job, number, pause, set, until};
use crate::report::{Report, median, milliseconds};
use crate::support::Cluster;
use crate::{extent, instant, write};

const ROUNDS: u64 = 5;
const WAITING: u64 = 100_000;
/// Room for them and for what is measured.
const JOBS_MAX: u64 = 150_000;
/// Submits, and the jobs that are then drawn.
const CLIENTS: usize = 64;
const CALLS: u64 = 80;
/// Watches: few at a time, so that the queue's own time is seen.
const WATCHERS: usize = 8;
const WATCHES: u64 = 100;
/// Jobs that are drawn before anything is measured: from then on retention forgets as many as end.
const WARM_UP: u64 = 25_000;
const RATIO_MAX: f64 = 1.3;

const ABOUT: &str = "\
    Written by `make bench-endurance ONLY=waiting`: three peers with an instant engine on \
    loopback, jobs of 256 bytes; the queue is empty and filled in turns, and the median of the \
    rounds is told. The jobs that wait are of priority 0, those that are submitted and drawn of \
    priority 9, and those that are watched come last of all. Assign and complete is the time \
    from resuming the queue until as many jobs as were submitted have ended.";

/// What one round gave.
struct Round {
    submits: Figures,
    watches: Figures,
    cycles: f64,
}

pub(crate) async fn measure() {
    let (rounds, short) = extent("ROUNDS", ROUNDS);
    let cluster = Cluster::start(instant());
    let clients = clients(&cluster, CLIENTS).await;
    let client = clients[0].clone();
    set(&client, &[("queue.jobs_max", number(JOBS_MAX))]).await;
    fill(&client, WARM_UP, WARM_UP, |_| job()).await;
    load::run(&clients, Limit::Calls(1), |client| call(client, urgent())).await;
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        drained(&client).await;
        pause(&client, true).await;
        empty.push(round(&clients).await);
        pause(&client, false).await;
        drained(&client).await;
        pause(&client, true).await;
        fill(&client, WAITING, JOBS_MAX, |_| patient()).await;
        full.push(round(&clients).await);
        pause(&client, false).await;
    }
    let mut report = Report::new("A hundred thousand waiting").about(ABOUT);
    tell(&mut report, &empty, &full);
    write(&report, short);
}

fn urgent() -> Submission {
    Submission { priority: Some(9), ..job() }
}

fn patient() -> Submission {
    Submission { priority: Some(0), ..job() }
}

/// Measures with whatever waits. The queue is paused before and after.
async fn round(clients: &[Arc<Client>]) -> Round {
    let client = &clients[0];
    let submits = load::run(clients, Limit::Calls(CALLS), |client| call(client, urgent())).await;
    assert_eq!(submits.failed(), 0, "{:?}", submits.errors);
    let watches = load::run(&clients[..WATCHERS], Limit::Calls(WATCHES), watch).await;
    assert_eq!(watches.failed(), 0, "{:?}", watches.errors);
    let before = ended(&client.queue_stats().await.expect("some peer answers"));
    pause(client, false).await;
    let begun = Instant::now();
    let enough = |after: u64| after >= before + submits.done;
    until(client, "the jobs do not end", |stats| enough(ended(stats))).await;
    let cycles = submits.done as f64 / begun.elapsed().as_secs_f64();
    pause(client, true).await;
    println!("{:.0} submits/s, {cycles:.0} drawn/s", submits.rate());
    Round { submits, watches, cycles }
}

async fn call(client: Arc<Client>, wanted: Submission) -> Result<(), String> {
    client.submit(&wanted).await.map(drop).map_err(|error| error.to_string())
}

/// From the submit of a job that comes last to the first that is told of it.
async fn watch(client: Arc<Client>) -> Result<(), String> {
    let wanted = patient();
    client.submit(&wanted).await.map_err(|error| error.to_string())?;
    match client.watch(wanted.job).next().await {
        Some(Ok(event)) if event.job.position.is_some() => Ok(()),
        other => Err(format!("expected a job with its position, got {other:?}")),
    }
}

fn tell(report: &mut Report, empty: &[Round], full: &[Round]) {
    let submits = |round: &Round| round.submits.rate();
    rates(report, "durable submits, 64 clients", (empty, full), submits);
    let at = |share| move |round: &Round| round.submits.times.at(share);
    times(report, "submit, p50", (empty, full), at(0.5));
    times(report, "submit, p99", (empty, full), at(0.99));
    rates(report, "assign and complete", (empty, full), |round| round.cycles);
    let at = |share| move |round: &Round| round.watches.times.at(share);
    times(report, "submit to the first watched event, p50", (empty, full), at(0.5));
    times(report, "submit to the first watched event, p99", (empty, full), at(0.99));
}

type Both<'a> = (&'a [Round], &'a [Round]);

fn rates(report: &mut Report, figure: &str, both: Both<'_>, of: impl Fn(&Round) -> f64) {
    let middle = |rounds: &[Round]| {
        let mut all: Vec<f64> = rounds.iter().map(&of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (empty, full) = (middle(both.0), middle(both.1));
    let beside = format!("{empty:.0}/s with none waiting; {}", ratio(empty / full));
    report.row(&format!("{figure}, {WAITING} waiting"), format!("{full:.0}/s"), beside);
}

fn times(report: &mut Report, figure: &str, both: Both<'_>, of: impl Fn(&Round) -> Duration) {
    let middle = |rounds: &[Round]| median(&mut rounds.iter().map(&of).collect::<Vec<_>>());
    let (empty, full) = (middle(both.0), middle(both.1));
    let slower = full.as_secs_f64() / empty.as_secs_f64();
    let beside = format!("{} with none waiting; {}", milliseconds(empty), ratio(slower));
    report.row(&format!("{figure}, {WAITING} waiting"), milliseconds(full), beside);
}

fn ratio(slower: f64) -> String {
    let verdict = if slower <= RATIO_MAX { "met" } else { "not met" };
    format!("{slower:.2} × as slow, the target of {RATIO_MAX} × is {verdict}")
}
