//! A cluster at all its bounds for an hour: whether it grows or slows.
//!
//! The bounds are set so low that all are reached within minutes. Then everything goes on together:
//! submits at a fixed rate, of which those above a bound are refused, cancels, failures up to dead
//! letters, watches, drawing, and a queue that is paused again and again, so that it is full.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atelier_client::{Client, Error, JobId, Options, Submission};
use tokio::sync::Semaphore;

use crate::pace::{Window, open_loop};
use crate::peer::FAILS;
use crate::queue::{BYTES, clients, number, own, pause, set};
use crate::report::{Report, milliseconds};
use crate::sample::{Sample, mib, upkeep};
use crate::support::{Cluster, PATIENCE, Setup};
use crate::{extent, instant, write};

const MINUTES: u64 = 60;
const THIRDS: usize = 3;
const CLIENTS: usize = 16;
/// The bounds follow it, so that a machine with other work reaches all of them too.
const SUBMITS_PER_SECOND: u64 = 400;
/// The queue is paused for so long, in which more is submitted than it takes, then open for this.
const PAUSED: Duration = Duration::from_secs(8);
const OPEN: Duration = Duration::from_secs(12);
/// More than may have jobs at a time. Not a multiple of four: every fourth job is another's.
const TENANTS: u64 = 1_201;
/// Watches at a time. Filled by jobs that wait long; at the brim a job is not watched.
const WATCHES_MAX: usize = 512;
/// How an answer begins that names a bound.
const REFUSED: &str = "refused: ";
/// Changes of the settings beforehand: more than the history and the trail hold.
const CHANGES: u64 = 260;

/// The settings for a rate of submits a second.
fn settings(rate: u64) -> [(&'static str, u64); 6] {
    [
        ("queue.jobs_max", rate * 5),
        ("queue.tenant_jobs_max", rate / 2),
        ("retention.jobs", rate * 25 / 2),
        ("retention.age_s", 60),
        ("jobs.attempts_max", 2),
        ("jobs.backoff_ms_base", 100),
    ]
}

const RAFT: &str = "[raft]\nsnapshot_entries = 1000\nentries_kept = 200\n";

fn about(rate: u64) -> String {
    let settings = settings(rate);
    let told: Vec<_> = settings.iter().map(|(key, value)| format!("`{key}` is {value}")).collect();
    format!(
        "Written by `make bench-endurance ONLY=hour RATE={rate}`: three peers with an instant \
         engine on loopback, {rate} submits a second of 256 bytes from 1,201 tenants, a quarter of \
         them one tenant's, each with an idempotency key. One in 20 fails up to a dead letter, \
         one in 10 is cancelled, one in 10 watched, each has a result of its own; the queue is \
         paused for 8 of each 20 seconds. {}, `raft.snapshot_entries` 1000, `raft.entries_kept` \
         200. Sizes are of all three peers together, the mean of a third of the time.",
        told.join(", ")
    )
}

/// One minute of all peers.
struct Minute {
    peers: Vec<Sample>,
}

pub(crate) async fn measure() {
    let (minutes, short) = extent("MINUTES", MINUTES);
    let rate = crate::support::number("RATE", SUBMITS_PER_SECOND);
    let thirds = minutes > 0 && minutes.is_multiple_of(THIRDS as u64);
    assert!(thirds, "MINUTES={minutes}: expected a multiple of {THIRDS}");
    let cluster = Cluster::start(Setup { settings: RAFT.to_owned(), ..instant() });
    let operator = clients(&cluster, 1).await.remove(0);
    set(&operator, &settings(rate).map(|(key, value)| (key, number(value)))).await;
    for change in 0..CHANGES {
        set(&operator, &[("queue.ageing_jobs", number(1_000 + change % 2))]).await;
    }
    let pauses = tokio::spawn(async move {
        loop {
            pause(&operator, true).await;
            tokio::time::sleep(PAUSED).await;
            pause(&operator, false).await;
            tokio::time::sleep(OPEN).await;
        }
    });
    let load = tokio::spawn(submits(impatient(&cluster), rate, minutes));
    let samples = samples(&cluster, minutes).await;
    let windows = load.await.expect("the load does not panic");
    assert!(!pauses.is_finished(), "the queue is not paused any more");
    pauses.abort();
    keep(&samples, &windows);
    let mut report = Report::new("An hour at all bounds").about(&about(rate));
    tell(&mut report, &cluster, &windows).await;
    compare(&mut report, &samples, &windows);
    write(&report, short);
}

/// Clients that take a refusal for an answer.
fn impatient(cluster: &Cluster) -> Vec<Client> {
    let addresses: Vec<String> = cluster.ids().iter().map(|id| cluster.address(*id)).collect();
    let options = Options { retries_max: 0, watch_deadline: Some(PATIENCE), ..Options::default() };
    let connect = |_| Client::connect(&addresses, options.clone()).expect("they are well formed");
    (0..CLIENTS).map(connect).collect()
}

async fn submits(clients: Vec<Client>, rate: u64, minutes: u64) -> Vec<Window> {
    let watches = Arc::new(Semaphore::new(WATCHES_MAX));
    open_loop(rate as f64, minutes, move |number| {
        let client = clients[number as usize % CLIENTS].clone();
        let watches = watches.clone();
        async move {
            let wanted = mixed(number);
            match client.submit(&wanted).await {
                Ok(_) => {
                    // Beside: what follows is not the submit's time.
                    tokio::spawn(follow(client, wanted.job, number, watches));
                    Ok(())
                }
                Err(Error::Full { message, .. }) => Err(format!("{REFUSED}{message}")),
                Err(error) => Err(error.to_string()),
            }
        }
    })
    .await
}

/// The job of a number: whose it is, and what will become of it.
fn mixed(number: u64) -> Submission {
    let tenant = match number % 4 {
        0 => "greedy".to_owned(),
        _ => format!("tenant-{}", number % TENANTS),
    };
    let mut job = own(number);
    if number.is_multiple_of(20) {
        job.parameters.prompt = format!("{FAILS:<BYTES$}");
    }
    Submission { tenant, idempotency_key: format!("key-{}", job.job), ..job }
}

/// Cancels a job or watches it to its end, where it is its turn.
async fn follow(client: Client, job: JobId, number: u64, watches: Arc<Semaphore>) {
    match number % 10 {
        // It may have ended, and be forgotten; both are answers.
        1 => drop(client.cancel(job).await),
        2 => {
            if let Ok(_permit) = watches.try_acquire_owned() {
                drop(client.finish(job, |_| ()).await);
            }
        }
        _ => {}
    }
}

/// Samples of all peers at the end of each minute.
async fn samples(cluster: &Cluster, minutes: u64) -> Vec<Minute> {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    ticks.tick().await;
    let mut samples = Vec::new();
    for minute in 1..=minutes {
        ticks.tick().await;
        let mut peers = Vec::new();
        for id in cluster.ids() {
            peers.push(Sample::of(cluster, id).await);
        }
        println!("minute {minute}: {peers:?}");
        samples.push(Minute { peers });
    }
    samples
}

/// Writes every minute of every peer to a file beside the build.
fn keep(samples: &[Minute], windows: &[Window]) {
    let mut text = "minute\tpeer\tsubmits\tfailed\tp50_us\tp99_us".to_owned();
    for (name, _) in Sample::default().figures() {
        text += &format!("\t{name}");
    }
    for (minute, (sample, window)) in samples.iter().zip(windows).enumerate() {
        let mut window = window.clone();
        let (p50, p99) = (window.times.at(0.5).as_micros(), window.times.at(0.99).as_micros());
        let (count, failed) = (window.times.count(), window.failed());
        for (peer, taken) in sample.peers.iter().enumerate() {
            let (minute, peer) = (minute + 1, peer + 1);
            text += &format!("\n{minute}\t{peer}\t{count}\t{failed}\t{p50}\t{p99}");
            taken.figures().iter().for_each(|(_, figure)| text += &format!("\t{figure}"));
        }
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("endurance-hour.tsv");
    fs::write(&path, text + "\n").expect("write the samples");
    println!("every minute of every peer is in {}", path.display());
}

/// What happened in all, so that it is seen that every bound was reached.
async fn tell(report: &mut Report, cluster: &Cluster, windows: &[Window]) {
    let mut whole = Window::joined(windows);
    let value = format!("{} accepted", whole.times.count());
    report.row("submits", value, whole.told());
    for (error, count) in &whole.errors {
        report.row("submits that failed", count.to_string(), error.clone());
    }
    let stats = cluster.client().queue_stats().await.expect("some peer answers");
    let value = format!("{} remembered, {} forgotten", stats.succeeded, stats.forgotten);
    let beside =
        format!("{} dead letters, {} cancelled are remembered", stats.failed, stats.cancelled);
    report.row("jobs that were drawn or ended otherwise", value, beside);
    let (snapshots, purges) = upkeep(cluster);
    let beside = format!("{} of them for the samples", windows.len() * cluster.ids().len());
    report.row("snapshots", format!("{snapshots}, and {purges} purges of the log"), beside);
}

/// The last third beside the second.
fn compare(report: &mut Report, samples: &[Minute], windows: &[Window]) {
    let third = samples.len() / THIRDS;
    let (second, last) = (third..2 * third, 2 * third..3 * third);
    let (before, after) = (mean(&samples[second.clone()]), mean(&samples[last.clone()]));
    let hours = third as f64 / 60.0;
    for (place, (name, _)) in Sample::default().figures().into_iter().enumerate() {
        let (before, after) = (before[place], after[place]);
        let bytes = place < 5;
        let tell = |figure: f64| {
            if bytes { mib(figure as u64) } else { format!("{figure:.0}") }
        };
        let growth = (after - before) / hours;
        let sign = if growth < 0.0 { "-" } else { "+" };
        let ratio = format!("{:.3} × the second third", after / before);
        let beside =
            format!("{} in the second third; {sign}{} an hour", tell(before), tell(growth.abs()));
        report.row(&format!("{name}, last third"), ratio, beside);
    }
    let (mut before, mut after) =
        (Window::joined(&windows[second]), Window::joined(&windows[last]));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (before, after) = (before.times.at(share), after.times.at(share));
        let slower = after.as_secs_f64() / before.as_secs_f64();
        let beside = format!("{}, then {}", milliseconds(before), milliseconds(after));
        let ratio = format!("{slower:.3} × the second third");
        report.row(&format!("submit {name}, last third"), ratio, beside);
    }
}

/// The mean of each figure, of all peers together.
fn mean(samples: &[Minute]) -> [f64; 7] {
    let mut sums = [0.0; 7];
    for sample in samples.iter().flat_map(|minute| &minute.peers) {
        for (sum, (_, figure)) in sums.iter_mut().zip(sample.figures()) {
            *sum += figure as f64;
        }
    }
    sums.map(|sum| sum / samples.len() as f64)
}
