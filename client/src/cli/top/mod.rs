//! `atelier top`: the whole cluster at a glance, again and again.
//!
//! ```text
//!   all peers ──► reading ──┬──► snapshot ──► frame (lines) ──► screen, or standard output once
//!   watches ────► steps ────┘
//! ```
//!
//! `frame` is a pure function of a snapshot; `screen` knows terminals and nothing of clusters.

mod frame;
mod reading;
mod screen;
mod steps;

use std::future::pending;
use std::time::Duration;

use atelier_client::{Client, Options};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::args::TopArgs;
use super::failure::{Exit, Failure};
use super::json::{Body, Document};
use super::{Context, PATIENCE_ASK, status};
use reading::{Rates, Reading, Snapshot};
use screen::Screen;
use steps::Steps;

/// How long one peer may take: what it tells is at hand.
const PATIENCE_PEER: Duration = Duration::from_secs(1);

pub(super) async fn run(context: &Context, args: TopArgs) -> Result<Exit, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    if args.once || context.output.is_json() || !context.output.is_terminal() {
        return tokio::select! {
            result = once(context, &args) => result,
            _ = interrupt.recv() => Err(context.interrupted()),
            _ = terminate.recv() => Err(context.interrupted()),
        };
    }
    let screen = Screen::take()?;
    tokio::select! {
        result = live(context, &args, &screen) => result,
        // The view has no end of its own: to interrupt it is to leave it.
        () = asked_to_leave() => Ok(Exit::Ok),
        _ = interrupt.recv() => Ok(Exit::Ok),
        _ = terminate.recv() => Err(context.interrupted()),
    }
}

/// A client that turns to another peer soon where one hangs.
fn client(context: &Context) -> Result<Client, Failure> {
    let deadline = context.connection.timeout.unwrap_or(PATIENCE_ASK);
    let attempt_timeout = PATIENCE_PEER;
    context.client_with(Options {
        deadline,
        attempt_timeout,
        stale_reads: true,
        ..Options::default()
    })
}

/// Reads twice, an interval apart, and prints what the second reading shows.
async fn once(context: &Context, args: &TopArgs) -> Result<Exit, Failure> {
    let mut view = View::new(client(context)?);
    view.read().await;
    if let Some(reading) = view.newest.as_ref().filter(|reading| !reading.is_answered()) {
        return Err(status::nobody(context, &reading.survey));
    }
    sleep(args.interval).await;
    view.read().await;
    let Some(snapshot) = view.snapshot() else { return Ok(Exit::Unavailable) };
    let document = snapshot.view();
    let exit = status::exit(&document.status);
    if context.output.is_json() {
        context.output.document(&Document::from(Body::Top(document)))?;
    } else {
        context.output.line(&frame::lines(&snapshot).join("\n"))?;
    }
    Ok(exit)
}

/// Reads and draws until it is dropped.
async fn live(context: &Context, args: &TopArgs, screen: &Screen) -> Result<Exit, Failure> {
    let mut view = View::new(client(context)?);
    screen.draw(&[format!("asking {} …", context.connection.endpoints.join(", "))])?;
    loop {
        let next = Instant::now() + args.interval;
        view.read().await;
        if let Some(snapshot) = view.snapshot() {
            screen.draw(&frame::fitted(&snapshot, screen.lines()))?;
        }
        sleep_until(next).await;
    }
}

/// Returns when somebody types q; never where nobody can type.
async fn asked_to_leave() {
    let (mut keys, mut typed) = (tokio::io::stdin(), [0; 16]);
    while let Ok(count @ 1..) = keys.read(&mut typed).await {
        if typed[..count].iter().any(|key| matches!(key, b'q' | b'Q')) {
            return;
        }
    }
    pending().await
}

/// The last two readings, and the steps of what runs.
struct View {
    client: Client,
    steps: Steps,
    before: Option<Reading>,
    newest: Option<Reading>,
    /// Nobody has answered for so long since the newest reading.
    silence: Option<Duration>,
}

impl View {
    fn new(client: Client) -> Self {
        let steps = Steps::new(client.clone());
        Self { client, steps, before: None, newest: None, silence: None }
    }

    /// Takes another reading; where nobody answers, the last one that was answered is kept.
    async fn read(&mut self) {
        let reading = Reading::take(&self.client).await;
        if let (false, Some(last)) = (reading.is_answered(), &self.newest) {
            self.silence = Some(reading.at.saturating_duration_since(last.at));
            return;
        }
        self.steps.follow(&reading.running.jobs);
        self.silence = None;
        self.before = self.newest.replace(reading);
    }

    /// What there is to show; `None` before the first reading.
    fn snapshot(&self) -> Option<Snapshot<'_>> {
        let reading = self.newest.as_ref()?;
        let rates = self.before.as_ref().and_then(|before| Rates::between(before, reading));
        let steps = self.steps.newest();
        Some(Snapshot { reading, rates, steps, silence: self.silence })
    }
}
