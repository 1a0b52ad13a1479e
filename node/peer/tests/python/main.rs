//! A Python client, generated from the contracts by grpcio-tools, against a real peer; and the tools
//! that people have ([`tools`]), also while a leader is killed ([`failover`]).
//!
//! What Python needs is taken from the machine, or else from a virtual environment below `target`
//! that pip fills. Where neither is possible the test says so and passes.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![forbid(unsafe_code)]

mod failover;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use atelier_peer::config::{Config, Member};
use atelier_peer::peer::{Listeners, Outside, Peer};
use atelier_peer::ports::engine::{
    DrawRequest, Engine, EngineError, EngineEvent, EngineInfo, EngineState, Picture,
};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the client imports, and the packages that bring it.
const IMPORTS: &str = "import grpc, grpc_tools.protoc";
const PACKAGES: [&str; 2] = ["grpcio", "grpcio-tools"];

/// Draws the same few bytes at once.
struct Instant(watch::Sender<EngineState>);

impl Engine for Instant {
    fn draw(
        &self,
        _request: DrawRequest,
        _events: mpsc::Sender<EngineEvent>,
        _stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let (media_type, data) = ("image/png".to_owned(), b"a picture".as_slice().into());
        Box::pin(async { Ok(vec![Picture { image: 0, media_type, data }]) })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.0.subscribe()
    }
}

fn instant() -> Arc<dyn Engine> {
    let info = EngineInfo {
        class: "instant".to_owned(),
        model: "none".to_owned(),
        default_width: 16,
        default_height: 16,
        default_steps: 1,
        guided: false,
        files: Arc::default(),
    };
    Arc::new(Instant(watch::Sender::new(EngineState::Ready(info))))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A Python that has the packages; none where it cannot be had.
fn python_with(name: &str, imports: &str, packages: &[&str]) -> Option<PathBuf> {
    let has = |python: &Path| succeeds(Command::new(python).args(["-c", imports]));
    let own = PathBuf::from("python3");
    if has(&own) {
        return Some(own);
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let made = venv.join("bin/python3");
    if has(&made) {
        return Some(made);
    }
    let create = succeeds(Command::new(&own).args(["-m", "venv"]).arg(&venv));
    let fill = || {
        let mut pip = Command::new(&made);
        succeeds(pip.args(["-m", "pip", "install", "--quiet"]).args(packages))
    };
    (create && fill() && has(&made)).then_some(made)
}

/// A cluster of one, ready, and its gRPC address.
async fn start(directory: &Path, engine: Arc<dyn Engine>) -> (Peer, String) {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = Listeners { grpc: bind().await.unwrap(), http: bind().await.unwrap() };
    let address = listeners.grpc.local_addr().unwrap().to_string();
    let peers = vec![Member { id: 1, address: format!("http://{address}") }];
    let data = directory.join("data");
    let config = Config { node: 1, data, peers, ..Config::default() };
    let outside = Outside::open(&config, Some(engine)).await.unwrap();
    let peer = Peer::start(&config, outside, Some(listeners)).await.unwrap();
    peer.ready().await;
    (peer, address)
}

fn run(python: &Path, address: &str, generated: &Path) -> Output {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contracts = here.join("../../proto");
    let mut generate = Command::new(python);
    generate.args(["-m", "grpc_tools.protoc"]);
    for path in [&contracts, &here.join("tests/python")] {
        generate.arg(format!("-I{}", path.display()));
    }
    for kind in ["--python_out", "--grpc_python_out"] {
        generate.arg(format!("{kind}={}", generated.display()));
    }
    generate.args(["client/v1/client.proto", "health.proto"]);
    let output = generate.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut client = Command::new(python);
    client.arg(here.join("tests/python/draw.py")).arg(address);
    client.env("PYTHONPATH", generated).env("PYTHONDONTWRITEBYTECODE", "1");
    client.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_generated_by_grpcio_tools_works_unmodified() {
    let Some(python) = python_with("venv", IMPORTS, &PACKAGES) else {
        println!("skipped: no python3 with {PACKAGES:?} here, and pip could not install them");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (peer, address) = start(directory.path(), instant()).await;
    let generated = directory.path().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&python, &address, &generated));
    let output = ran.await.unwrap();
    peer.stop().await;
    let (told, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.ends_with("done\n"), "{told}{errors}");
}
