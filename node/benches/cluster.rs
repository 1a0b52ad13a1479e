//! Measures the whole path with real processes and writes `node/BENCH.md`, each figure beside the
//! machine's own limit in the same run. `make bench` calls it; `make bench ONLY=submit` runs one part.

#[path = "report/mod.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use atelier_client::{Client, Phase};
use atelier_diffusion::{AnyPipeline, BackendChoice, Request};
use report::{Report, longest, median, milliseconds, seconds, spread, syncs_per_second};
use support::{Cluster, Setup, denoising, picture, resident_bytes, until};

const PROMPT: &str = "a cat on a blue background";
const PICTURES: usize = 20;
const LOSSES: usize = 10;

fn main() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut report = Report::new("Pictures, submits, memory");
    let wanted = |part: &str| only.is_empty() || only == part;
    if wanted("picture") {
        runtime.block_on(pictures(&mut report));
    }
    if wanted("submit") {
        runtime.block_on(submits(&mut report));
    }
    if wanted("worker") {
        runtime.block_on(lost_workers(&mut report));
    }
    if wanted("memory") {
        runtime.block_on(memory(&mut report));
    }
    if only.is_empty() {
        report.write();
    }
}

async fn pictures(report: &mut Report) {
    let setup = Setup::default();
    let mut alone = engine_alone(&setup);
    let base = median(&mut alone);
    let limits = spread(&mut alone);
    report.row("one picture, engine alone", seconds(base), format!("{limits} of {PICTURES}"));

    let mut rates = Vec::new();
    for peers in [1, 3] {
        let cluster = Cluster::start(Setup { peers, ..setup.clone() });
        let client = cluster.client();
        warm_up(&client, peers).await;
        if peers == 3 {
            let mut through = Vec::new();
            for seed in 0..PICTURES as u64 {
                let start = Instant::now();
                client.generate(&picture(PROMPT, seed, 0), |_| ()).await.expect("a picture");
                through.push(start.elapsed());
            }
            let whole = median(&mut through);
            let added = whole.saturating_sub(base);
            let beside = format!(
                "{} of {PICTURES}; {} more than the engine alone, a factor of {:.2}",
                spread(&mut through),
                milliseconds(added),
                whole.as_secs_f64() / base.as_secs_f64()
            );
            report.row("one picture through three peers", seconds(whole), beside);
        }
        rates.push(rate(&client).await);
    }
    let ideal = 1.0 / base.as_secs_f64();
    let of = |rate: f64| format!("{:.2} of what one engine alone does, {ideal:.2}/s", rate / ideal);
    report.row("pictures a second, one peer", format!("{:.2}", rates[0]), of(rates[0]));
    report.row("pictures a second, three peers", format!("{:.2}", rates[1]), of(rates[1]));
}

/// Times of whole pictures in this process.
fn engine_alone(setup: &Setup) -> Vec<Duration> {
    let pipeline =
        AnyPipeline::load(BackendChoice::Cpu, &setup.model, &mut |_| ()).expect("a model");
    let edge = pipeline.config().autoencoder.sample_size;
    let draw = |seed| {
        let prompt = PROMPT.to_owned();
        let request = Request { seed, ..Request::new(prompt, edge, edge) };
        let start = Instant::now();
        let mut run = pipeline.begin(&request).expect("the request is sound");
        while run.step().expect("a step").is_some() {}
        let png = run.decode().expect("a picture").to_png();
        assert!(!png.is_empty());
        start.elapsed()
    };
    draw(0);
    (0..PICTURES as u64).map(draw).collect()
}

/// Pictures a second with more jobs waiting than engines.
async fn rate(client: &Client) -> f64 {
    let start = Instant::now();
    let mut jobs = Vec::new();
    for seed in 0..PICTURES as u64 {
        jobs.push(client.submit(&picture(PROMPT, seed, 0)).await.expect("room").job);
    }
    support::ends(client, &jobs).await;
    PICTURES as f64 / start.elapsed().as_secs_f64()
}

/// Lets every engine draw once, so that none is met cold.
async fn warm_up(client: &Client, peers: u64) {
    let mut jobs = Vec::new();
    for seed in 0..3 * peers {
        jobs.push(client.submit(&picture(PROMPT, seed, 0)).await.expect("room").job);
    }
    support::ends(client, &jobs).await;
}

async fn submits(report: &mut Report) {
    let cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    cluster.leader().await;
    for (clients, each) in [(1, 300), (64, 100)] {
        let syncs = syncs_per_second();
        let start = Instant::now();
        let mut tasks = Vec::new();
        for task in 0..clients {
            let client = cluster.client_of(1 + task % cluster.setup.peers);
            tasks.push(tokio::spawn(async move {
                let mut times = Vec::new();
                for seed in 0..each {
                    let start = Instant::now();
                    client.submit(&picture(PROMPT, seed, 0)).await.expect("accepted");
                    times.push(start.elapsed());
                }
                times
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("a client"));
        }
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort();
        let at = |share: f64| milliseconds(times[((times.len() - 1) as f64 * share) as usize]);
        let value = format!("{rate:.0}/s, p50 {}, p99 {}", at(0.5), at(0.99));
        let beside = format!("{syncs:.0} fdatasync/s, a factor of {:.2}", rate / syncs);
        let plural = if clients == 1 { "client" } else { "clients" };
        report.row(&format!("submits, {clients} {plural}"), value, beside);
    }
}

async fn lost_workers(report: &mut Report) {
    let mut times = Vec::new();
    let mut cluster = Cluster::start(Setup::default());
    for seed in 0..LOSSES as u64 {
        let client = cluster.client();
        let wanted = picture(PROMPT, seed, 50);
        client.submit(&wanted).await.expect("accepted");
        let seen = until(&client, wanted.job, |event| denoising(event, 2)).await;
        let worker = seen.job.node.expect("somebody draws");
        let start = Instant::now();
        cluster.kill(worker);
        let elsewhere = until(&client, wanted.job, |event| {
            event.job.phase == Phase::Succeeded
                || event.progress.as_ref().is_some_and(|p| p.token > seen.job.token)
        });
        elsewhere.await;
        times.push(start.elapsed());
        cluster.start_all();
    }
    let value = format!("median {}, max {}", seconds(median(&mut times)), seconds(longest(&times)));
    let beside = format!("{} runs; lease time {} ms", times.len(), support::LEASE_MS);
    report.row("kill -9 of a worker to its job's first step elsewhere", value, beside);
}

async fn memory(report: &mut Report) {
    let megabytes = |pid| format!("{:.0} MiB", resident_bytes(pid) as f64 / f64::from(1 << 20));
    let cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    let leader = cluster.leader().await;
    let value = megabytes(cluster.pid(leader));
    report.row("resident memory of a peer without an engine", value, "three peers, idle".into());
    drop(cluster);

    let setup = Setup { peers: 1, ..Setup::default() };
    let model = directory_bytes(&setup.model) as f64 / f64::from(1 << 20);
    let cluster = Cluster::start(setup);
    warm_up(&cluster.client(), 1).await;
    let engine = cluster.engines(1)[0];
    let value = format!("{} and its engine {}", megabytes(cluster.pid(1)), megabytes(engine));
    report.row(
        "resident memory of a peer with an engine",
        value,
        format!("model {model:.0} MiB on disk"),
    );
}

fn directory_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
