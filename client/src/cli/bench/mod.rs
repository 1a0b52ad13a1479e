//! `atelier bench queue`: how many jobs a second the cluster takes, and how long each call takes.

mod calls;
pub(crate) mod load;
mod pace;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use atelier_client::{BATCH_JOBS_MAX, Client, Options};
use clap::{Subcommand, ValueEnum, value_parser};

use super::args::{OutputArgs, duration};
use super::failure::{Exit, Failure};
use super::json::{BenchView, Body, Document};
use super::output::note;
use super::{Context, PATIENCE_CHANGE, PATIENCE_DRAW};
use calls::{Calls, What};
use load::{Figures, Limit};

/// How long the disk is measured.
const SYNC_TIME: Duration = Duration::from_secs(1);
/// Clients at most, and connections.
const CLIENTS_MAX: i64 = 10_000;
/// Calls a second at most that may be asked for; more than one machine makes.
const RATE_MAX: i64 = 1_000_000;
/// Connections to each peer where nothing is said; further clients share them.
const CONNECTIONS: u32 = 64;

#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Submit small jobs as fast as the cluster takes them; it draws every one of them
    Queue(QueueArgs),
}

#[derive(Debug, clap::Args)]
struct QueueArgs {
    /// How many clients; each has one call under way
    #[arg(
        long,
        default_value_t = 64,
        value_name = "N",
        value_parser = value_parser!(u32).range(1..=CLIENTS_MAX)
    )]
    clients: u32,
    /// Connections to each peer that the clients share [default: one a client, 64 at most]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=CLIENTS_MAX))]
    connections: Option<u32>,
    /// Calls of each client
    #[arg(
        long,
        default_value_t = 100,
        value_name = "N",
        conflicts_with = "seconds",
        value_parser = value_parser!(u64).range(1..)
    )]
    calls_per_client: u64,
    /// Call for so long instead
    #[arg(long, value_name = "TIME", value_parser = duration)]
    seconds: Option<Duration>,
    /// Bytes of a job's prompt
    #[arg(
        long,
        default_value_t = 256,
        value_name = "N",
        value_parser = value_parser!(u32).range(1..=8192)
    )]
    bytes: u32,
    /// What one call is: a job that is accepted, or one that is accepted, drawn and seen to end
    #[arg(long, value_enum, default_value = "submit")]
    mode: Mode,
    /// Submit so many jobs by each call, as one batch
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "mode",
        value_parser = value_parser!(u32).range(1..=BATCH_JOBS_MAX as i64)
    )]
    batch: Option<u32>,
    /// Calls a second of all clients together, due whether or not those before are answered; what a
    /// call takes counts from when it was due, so that a stall is told in full [default: each
    /// client calls as soon as it is answered]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Where the disk's fdatasync is measured, for comparison
    #[arg(long, default_value = ".", value_name = "DIR")]
    disk: PathBuf,
    /// The jobs are meant
    #[arg(long)]
    yes: bool,
}

/// What one call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Submit,
    Cycle,
}

impl QueueArgs {
    const fn what(&self) -> What {
        match (self.batch, self.mode) {
            (Some(jobs), _) => What::Batch(jobs),
            (None, Mode::Submit) => What::Submit,
            (None, Mode::Cycle) => What::Cycle,
        }
    }
}

pub(super) async fn run(context: &Context, args: BenchArgs) -> Result<Exit, Failure> {
    let BenchCommand::Queue(args) = args.command;
    if !args.yes {
        let what = "a benchmark submits jobs that the cluster then draws, every one";
        return Err(Failure::new(Exit::Usage, what).hint("add --yes where that is meant"));
    }
    let limit = args.seconds.map_or(Limit::Calls(args.calls_per_client), Limit::Time);
    let disk = args.disk.clone();
    let syncs = tokio::task::spawn_blocking(move || syncs_per_second(&disk));
    let syncs = syncs.await.map_err(anyhow::Error::from)??;
    let clients = clients(context, &args)?;
    let calls = Arc::new(Calls::new(args.what(), args.bytes as usize));
    let call = {
        let calls = calls.clone();
        move |client: Arc<Client>| {
            let calls = calls.clone();
            async move { calls.make(&client).await }
        }
    };
    let figures = match args.rate {
        Some(rate) => pace::run(&clients, limit, rate, call).await,
        None => load::run(&clients, limit, call).await,
    };
    tell(context, &args, syncs, &figures, calls.jobs())
}

/// Clients that share so many connections to each peer.
fn clients(context: &Context, args: &QueueArgs) -> Result<Vec<Arc<Client>>, Failure> {
    let connections = args.connections.unwrap_or(CONNECTIONS).min(args.clients);
    let connected = (0..connections).map(|turn| client(context, turn as usize).map(Arc::new));
    let connected = connected.collect::<Result<Vec<_>, _>>()?;
    Ok(connected.iter().cycle().take(args.clients as usize).cloned().collect())
}

/// A client with connections of its own, its endpoints in another order than its neighbour's.
fn client(context: &Context, turn: usize) -> Result<Client, Failure> {
    let mut endpoints = context.connection.endpoints.clone();
    let places = endpoints.len().max(1);
    endpoints.rotate_left(turn % places);
    let patience = context.connection.timeout;
    let options = Options {
        deadline: patience.unwrap_or(PATIENCE_CHANGE),
        watch_deadline: Some(patience.unwrap_or(PATIENCE_DRAW)),
        region: context.connection.region.clone(),
        ..Options::default()
    };
    Ok(Client::connect(endpoints, options)?)
}

/// Appends and syncs of one small record after another to a plain file.
fn syncs_per_second(directory: &Path) -> Result<f64, Failure> {
    let scratch = tempfile::tempdir_in(directory)?;
    let mut file = File::create(scratch.path().join("plain"))?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < SYNC_TIME {
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn tell(
    context: &Context,
    args: &QueueArgs,
    syncs: f64,
    figures: &Figures,
    jobs: u64,
) -> Result<Exit, Failure> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let view = BenchView {
        mode: args.what().word(),
        batch: args.batch,
        rate: args.rate,
        clients: args.clients,
        bytes: args.bytes,
        done: figures.done,
        failed: figures.failed(),
        seconds: figures.elapsed.as_secs_f64(),
        per_second: figures.rate(),
        jobs,
        jobs_per_second: jobs as f64 / figures.elapsed.as_secs_f64().max(1e-9),
        p50_ms: ms(figures.times.at(0.5)),
        p99_ms: ms(figures.times.at(0.99)),
        max_ms: ms(figures.times.max()),
        fdatasync_per_second: syncs,
        errors: figures.errors.clone(),
    };
    for (error, count) in &view.errors {
        note(&format!("{count} × {error}"));
    }
    let failed = view.failed > 0;
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Bench(view)))?;
    } else {
        let header = [
            "mode",
            "clients",
            "done",
            "failed",
            "per_second",
            "jobs_per_second",
            "p50_ms",
            "p99_ms",
            "max_ms",
            "fdatasync_per_second",
        ];
        let row = vec![
            view.mode.to_owned(),
            view.clients.to_string(),
            view.done.to_string(),
            view.failed.to_string(),
            format!("{:.0}", view.per_second),
            format!("{:.0}", view.jobs_per_second),
            format!("{:.2}", view.p50_ms),
            format!("{:.2}", view.p99_ms),
            format!("{:.2}", view.max_ms),
            format!("{:.0}", view.fdatasync_per_second),
        ];
        context.output.table(&header, &[row])?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}
