//! The life of the daemon's process: signals, the engine's child, readiness told to the outside.

use super::{Listeners, Outside, Peer, StartError, TASK_END_MAX};
use crate::config::{Config, LogFormat};
use crate::engine_link::child::ChildCommand;
use crate::engine_link::{ChildEngine, ChildSettings};
use crate::ports::engine::Engine;
use sd_notify::NotifyState;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that end a peer. The first one asks it to leave, the second one ends it where it
/// stands.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Why the daemon ended other than by leaving in good order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The peer did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The cluster goes on without this peer: it was removed, or the cluster was recovered.
    #[error("{0}")]
    GivenUp(String),
    /// A second signal came while the peer was leaving.
    #[error("ended by a second signal while leaving; its leases move when their time is over")]
    Impatient,
}

impl Signals {
    /// Takes the signals over; do it before anything that takes long, such as loading a model.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> std::io::Result<Signals> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Signals { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Waits for the next one and says which it was.
    ///
    /// # Cancel safety
    /// Safe: a signal is not lost.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs a peer until a signal asks it to leave.
///
/// `engine` makes the command of the child process that draws; none on a witness.
///
/// # Errors
/// - [`RunError::Start`]: mend what the text says.
/// - [`RunError::Impatient`]: it was ended in the middle of leaving.
pub async fn run(
    config: Config,
    mut signals: Signals,
    engine: Option<ChildCommand>,
) -> Result<(), RunError> {
    tracing::info!(
        node = config.node,
        version = env!("CARGO_PKG_VERSION"),
        configuration = config.effective(),
        "starting"
    );
    // Before the model is loaded: an address that is taken is told at once.
    let listeners = Listeners::bind(&config).await?;
    let engine_end = CancellationToken::new();
    let child = engine
        .map(|command| ChildEngine::spawn(command, child_settings(&config), engine_end.clone()));
    let (engine, keeper) = child.unzip();
    let engine = engine.map(|engine| engine as Arc<dyn Engine>);
    let outside = tokio::select! {
        outside = Outside::open(&config, engine) => outside?,
        name = signals.next() => {
            told_to_leave(name);
            return Ok(());
        }
    };
    let peer = tokio::select! {
        peer = Peer::start(&config, outside, Some(listeners)) => peer?,
        name = signals.next() => {
            told_to_leave(name);
            return Ok(());
        }
    };
    let name = tokio::select! {
        name = signals.next() => name,
        why = peer.given_up() => {
            engine_end.cancel();
            peer.stop().await;
            return Err(RunError::GivenUp(why));
        }
        never = announce(&peer, config.log_format) => match never {},
    };
    told_to_leave(name);
    notify(NotifyState::Stopping);
    let leave = async {
        peer.stop().await;
        engine_end.cancel();
        if let Some(keeper) = keeper
            && tokio::time::timeout(TASK_END_MAX, keeper).await.is_err()
        {
            tracing::warn!("the engine's process did not end in time");
        }
    };
    tokio::select! {
        () = leave => Ok(()),
        name = signals.next() => {
            tracing::warn!(signal = name, "second signal, ends at once");
            Err(RunError::Impatient)
        }
    }
}

/// Tells the outside once that the peer is ready, and then waits for ever.
async fn announce(peer: &Peer, format: LogFormat) -> std::convert::Infallible {
    peer.ready().await;
    notify(NotifyState::Ready);
    match (peer.http_address(), format) {
        (Some(address), LogFormat::Text) => {
            say(&format!("Running on local URL: http://{address}\n"));
        }
        // Standard output is the log's then.
        (Some(address), LogFormat::Json) => {
            tracing::info!(url = format!("http://{address}"), "serving")
        }
        (None, _) => {}
    }
    std::future::pending().await
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Whoever closed our standard output does not want the line.
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}

fn told_to_leave(signal: &'static str) {
    tracing::info!(signal, "told to leave");
}

/// Tells systemd; without one it does nothing.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

fn child_settings(config: &Config) -> ChildSettings {
    ChildSettings {
        silence: Duration::from_millis(config.engine.silence_ms),
        silence_steps: config.engine.silence_steps,
        start_failures_max: config.engine.start_retries.max(1),
        ..ChildSettings::default()
    }
}
