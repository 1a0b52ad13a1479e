//! A peer whose engine is done at once: what is left is the queue.
//!
//! The peer is the daemon's own; only the engine is another, and no setting of `atelierd` leads here.
//! All its pictures are the same few bytes, kept by one peer: an acknowledged message has no result
//! that others would have to store.

use std::path::Path;
use std::sync::Arc;

use atelier_peer::config::{Config, Setting, Sources};
use atelier_peer::peer::{Listeners, Outside, Peer, Signals};
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineError, EngineEvent, EngineInfo, EngineState, Picture,
};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const PICTURE: &[u8] = b"drawn at once";

struct InstantEngine {
    state: watch::Sender<EngineState>,
}

impl Engine for InstantEngine {
    fn draw(
        &self,
        _request: DrawRequest,
        _events: mpsc::Sender<EngineEvent>,
        _stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let data = PICTURE.into();
        let media_type = "image/png".to_owned();
        Box::pin(async { Ok(vec![Picture { image: 0, media_type, data }]) })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }
}

/// Runs a peer of this configuration until a signal ends it.
pub(crate) fn run(config: &Path) {
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
    };
    let engine = InstantEngine { state: watch::Sender::new(EngineState::Ready(info)) };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut signals = Signals::install().expect("signals");
        let listeners = Listeners::bind(&config).await.expect("free ports");
        let outside = Outside::open(&config, Some(Arc::new(engine))).await.expect("a directory");
        let peer = Peer::start(&config, outside, listeners).await.expect("a peer");
        peer.ready().await;
        println!("Running on local URL: http://{}", peer.http_address());
        signals.next().await;
        peer.stop().await;
    });
}
