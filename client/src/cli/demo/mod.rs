//! `atelier demo`: a cluster on this machine, a picture from it, and what to try next.
//!
//! ```text
//!   layout (ports, configuration) ─► peers (atelierd × n) ─► ready ─► generate ─► report
//!                                      │                                            │
//!                                      └──── stopped at the end, whatever happens ◄─┘  Ctrl-C
//! ```

mod layout;
mod peers;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use atelier_client::{Client, NodeId, Options, Submission, Survey, TextToImage};
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::args::DemoArgs;
use super::failure::{Exit, Failure};
use super::files;
use super::output::note;
use super::progress::Progress;
use super::timeline::Timeline;
use super::{Context, PATIENCE_DRAW};
use layout::Layout;
use peers::{Peers, STOP_TIMEOUT};
use report::Report;

/// How often a peer that starts is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Without an answer by then all peers are stopped at once.
const LEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that died is started again after this: time to see the others go on without it.
const RESTART_PAUSE: Duration = Duration::from_secs(10);

/// Both ways in which a person stops a program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

pub(super) async fn run(context: &Context, args: DemoArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let started = Instant::now();
    let layout = prepare(&args)?;
    if let Some(words) = layout.note() {
        note(&words);
    }
    note(&format!("starting {} peers with the model {}", args.peers, args.model.display()));
    let mut peers = Peers::start(&layout)?;
    let deadline = started + context.connection.timeout.unwrap_or(PATIENCE_DRAW);
    // Children are started only here, on the main thread: they are told when it dies.
    let drawn = tokio::select! {
        drawn = draw(&layout, &mut peers, &args, started, deadline) => drawn.map_err(Failure::from),
        () = signals.recv() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    let result = match drawn {
        Ok(report) => {
            let stays = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            context.output.line(&report.text(&layout, &peers, stays))?;
            if stays {
                keep(&layout, &mut peers, &mut signals).await;
            }
            Ok(Exit::Ok)
        }
        Err(failure) => Err(failure),
    };
    note("stopping the peers");
    tokio::select! {
        () = stop(&layout, &mut peers) => {}
        // Asked twice: `Peers` kills what is left when it is dropped.
        () = signals.recv() => {}
    }
    result
}

/// Stops the peers, the one that leads by now last.
async fn stop(layout: &Layout, peers: &mut Peers) {
    let deadline = Instant::now() + STOP_TIMEOUT;
    let leader = match Client::connect(layout.endpoints(), Options::default()) {
        Ok(client) => timeout(LEADER_TIMEOUT, client.survey()).await.ok(),
        Err(_) => None,
    };
    peers.stop(leader.and_then(|survey| survey.leader()), deadline).await;
}

/// Finds the daemon and the model, and lays out the cluster's directory.
fn prepare(args: &DemoArgs) -> Result<Layout, Failure> {
    let atelierd = match &args.atelierd {
        Some(path) => path.clone(),
        None => beside_this_program()?,
    };
    if !atelierd.is_file() {
        return Err(Failure::new(Exit::Usage, format!("there is no {}", atelierd.display()))
            .hint("build it with: cargo build --release -p atelier-node")
            .hint("or name it with --atelierd PATH"));
    }
    if !args.model.join("model_index.json").is_file() {
        let what = format!("{} is not a model directory", args.model.display());
        return Err(Failure::new(Exit::Usage, what)
            .why(["expected a model_index.json in it, as in Z-Image-Turbo".to_owned()])
            .hint("name one with --model DIR; the bundled toy is node/diffusion/toy/model"));
    }
    Ok(Layout::prepare(args, atelierd)?)
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name("atelierd"))
}

/// Waits for the cluster, draws the picture and writes it.
async fn draw(
    layout: &Layout,
    peers: &mut Peers,
    args: &DemoArgs,
    started: Instant,
    deadline: Instant,
) -> anyhow::Result<Report> {
    let too_late = |what| format!("{what} in time; see the logs in {}", layout.cluster.display());
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut progress = Progress::new();
    progress.say("waiting for the peers to be ready");
    timeout_at(deadline, ready(peers))
        .await
        .with_context(|| too_late("the peers were not ready"))??;
    let options = Options { watch_deadline: Some(left()), ..Options::default() };
    let client = Client::connect(layout.endpoints(), options)?;
    progress.say("waiting for a leader and an engine");
    let leader = timeout_at(deadline, able(&client, peers))
        .await
        .with_context(|| too_late("the cluster was not able to draw"))??;
    let start = started.elapsed();

    let parameters = TextToImage { seed: args.seed, ..TextToImage::new(&args.prompt) };
    let mut timeline = Timeline::new(Instant::now());
    let drawn = client
        .generate(&Submission::new(parameters), |event| {
            timeline.observe(event, Instant::now());
            progress.tell(event);
        })
        .await?;
    let timeline = timeline.finish(Instant::now());
    ensure!(!drawn.images.is_empty(), "job {} names no picture", drawn.job.job);
    let path = layout.picture(&args.prompt, args.seed);
    let files = files::write(&path, &drawn.images)?;
    Ok(Report { files, job: drawn.job, leader, start, timeline })
}

/// Waits until every peer says that it is ready.
async fn ready(peers: &mut Peers) -> anyhow::Result<()> {
    loop {
        peers.fail_on_exit()?;
        if peers.all_ready()? {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Waits until every peer answers, they agree on a leader and one of them can draw.
async fn able(client: &Client, peers: &mut Peers) -> anyhow::Result<NodeId> {
    loop {
        peers.fail_on_exit()?;
        let survey = client.survey().await;
        if let Some(leader) = leader_of_all(&survey) {
            return Ok(leader);
        }
        sleep(POLL).await;
    }
}

fn leader_of_all(survey: &Survey) -> Option<NodeId> {
    let leader = survey.leader()?;
    let agreed = survey
        .answers
        .iter()
        .all(|answer| matches!(&answer.status, Ok(status) if status.leader == Some(leader)));
    let able = survey.members.iter().any(|member| member.slots > 0);
    (agreed && able).then_some(leader)
}

/// Keeps the cluster up until somebody stops it; starts again what dies meanwhile.
async fn keep(layout: &Layout, peers: &mut Peers, signals: &mut Signals) {
    let restart = async {
        loop {
            for node in peers.dead() {
                note(&format!(
                    "peer {node} {}; the others go on, and it is started again in {} s",
                    peers.how_it_ended(node),
                    RESTART_PAUSE.as_secs()
                ));
                sleep(RESTART_PAUSE).await;
                match peers.restart(layout, node) {
                    Ok(pid) => note(&format!("peer {node} is started again, pid {pid}")),
                    Err(error) => note(&format!("peer {node} cannot be started: {error:#}")),
                }
            }
            sleep(POLL).await;
        }
    };
    tokio::select! {
        () = restart => {}
        () = signals.recv() => note(""),
    }
}

/// A failure of the demo names the logs, since the reason is mostly there.
fn died(node: NodeId, how: &str, log: &std::path::Path, tail: &str) -> anyhow::Result<()> {
    bail!("peer {node} {how}; the end of {}:\n{tail}", log.display())
}
