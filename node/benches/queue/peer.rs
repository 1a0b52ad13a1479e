//! A peer whose engine is done at once: what is left is the queue.
//!
//! The peer is the daemon's own; only the engine is another, and no setting of `atelierd` leads
//! here. Its pictures are the same few bytes, kept by one peer: an acknowledged message has no
//! result that others would have to store. Words in a prompt make it do otherwise.

use std::path::Path;
use std::sync::Arc;

use atelier_peer::config::{Config, Setting, Sources};
use atelier_peer::peer::{Listeners, Outside, Peer, Signals};
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineError, EngineEvent, EngineInfo, EngineState, Picture,
};
use futures_util::future::BoxFuture;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const PICTURE: &[u8] = b"drawn at once";
/// A job with this in its prompt fails, every time.
pub(crate) const FAILS: &str = "fails at once";
/// A job with this in its prompt has a picture of its own: its parameters.
pub(crate) const OWN: &str = "a picture of its own";

struct InstantEngine {
    state: watch::Sender<EngineState>,
}

impl Engine for InstantEngine {
    fn draw(
        &self,
        request: DrawRequest,
        _events: mpsc::Sender<EngineEvent>,
        _stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let asked = |word: &str| {
            request.parameters.windows(word.len()).any(|found| found == word.as_bytes())
        };
        let answer = if asked(FAILS) {
            Err(EngineError::Failed("as its prompt says".to_owned()))
        } else {
            let data = if asked(OWN) { request.parameters.clone() } else { PICTURE.into() };
            Ok(vec![Picture { image: 0, media_type: "image/png".to_owned(), data }])
        };
        Box::pin(async { answer })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }
}

/// Runs a peer of this configuration until a signal ends it, or the benchmark that started it ends.
pub(crate) fn run(config: &Path) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux ends it with its parent");
    let text = std::fs::read_to_string(config).expect("a configuration");
    let file = Some((config.display().to_string(), text));
    let copies = Setting {
        flag: "--set".to_owned(),
        key: "jobs.artifact_copies".to_owned(),
        value: "1".to_owned(),
    };
    let sources = Sources { file, flags: vec![copies], ..Sources::default() };
    let config = Config::load(&sources).expect("a sound one");
    let info = EngineInfo {
        class: "instant".to_owned(),
        model: "none".to_owned(),
        default_width: 16,
        default_height: 16,
        default_steps: 1,
        guided: false,
        files: Arc::default(),
    };
    let engine = InstantEngine { state: watch::Sender::new(EngineState::Ready(info)) };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut signals = Signals::install().expect("signals");
        let listeners = Listeners::bind(&config).await.expect("free ports");
        let outside = Outside::open(&config, Some(Arc::new(engine))).await.expect("a directory");
        let peer = Peer::start(&config, outside, Some(listeners)).await.expect("a peer");
        peer.ready().await;
        println!("Running on local URL: http://{}", peer.http_address().expect("it listens"));
        signals.next().await;
        peer.stop().await;
    });
}
