//! What ships in `node/deploy/monitoring`, with the real Prometheus and Alertmanager: three peers are
//! scraped, one is killed, and the alert arrives where operators said.
//!
//! Needs Debian's `prometheus` and `prometheus-alertmanager`; without them it says so and passes.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;
use support::{Cluster, PATIENCE, Setup, free_ports, picture};
use tempfile::TempDir;
use tokio::sync::mpsc;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/monitoring");
const PROGRAMS: [&str; 3] = ["prometheus", "prometheus-alertmanager", "promtool"];

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(name: &str, arguments: &[String]) -> Program {
    let mut command = Command::new(name);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    Program(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Names the first program that is not here.
fn missing() -> Option<&'static str> {
    let is_here = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    PROGRAMS.into_iter().find(|name| !is_here(name))
}

fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(SHIPPED).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, error) = (output.stdout, output.stderr);
    let told = String::from_utf8_lossy(&out) + String::from_utf8_lossy(&error);
    assert!(output.status.success() && error.is_empty(), "promtool {arguments:?}: {told}");
}

/// The shipped files with the addresses of this run.
struct Files {
    directory: TempDir,
}

impl Files {
    fn of(cluster: &Cluster, alertmanager: u16, webhook: u16) -> Files {
        let directory = tempfile::tempdir().unwrap();
        let targets: Vec<_> =
            cluster.peers.values().map(|it| format!("'{}'", of_peer(it))).collect();
        let targets = format!("[{}]", targets.join(", "));
        let here = |port| format!("127.0.0.1:{port}");
        let changes = [
            ("['peer-1:7860', 'peer-2:7860', 'peer-3:7860']".to_owned(), targets),
            (here(9093), here(alertmanager)),
            (here(9094), here(webhook)),
        ];
        let mut made = 0;
        for name in ["prometheus.yml", "alertmanager.yml", "rules.yml"] {
            let mut text = fs::read_to_string(Path::new(SHIPPED).join(name)).unwrap();
            for (shipped, own) in &changes {
                made += text.matches(shipped).count();
                text = text.replace(shipped, own);
            }
            fs::write(directory.path().join(name), text).unwrap();
        }
        assert_eq!(made, changes.len(), "each address is there once");
        Files { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn of_peer(peer: &support::Peer) -> String {
    format!("{}:{}", peer.host, peer.http)
}

/// Hears what Alertmanager tells.
async fn webhook() -> (u16, mpsc::UnboundedReceiver<Value>) {
    let (teller, told) = mpsc::unbounded_channel();
    let hear = |State(teller): State<mpsc::UnboundedSender<Value>>, Json(message): Json<Value>| async move {
        let _ = teller.send(message);
    };
    let router = Router::new().route("/", post(hear)).with_state(teller);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, told)
}

/// Waits until Prometheus finds a value.
async fn finds(port: u16, query: &str, value: &str) {
    let start = Instant::now();
    let path = format!("/api/v1/query?query={query}");
    loop {
        let answer = support::get("127.0.0.1", port, &path).await;
        let found = answer.as_ref().and_then(|(_, body)| {
            let body: Value = serde_json::from_str(body).ok()?;
            Some(body["data"]["result"][0]["value"][1].as_str()?.to_owned())
        });
        if found.as_deref() == Some(value) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{query} is {found:?}, not {value}; {answer:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_hears_of_a_peer_that_was_killed() {
    if let Some(name) = missing() {
        println!("skipped: {name} is not here; apt-get install prometheus prometheus-alertmanager");
        return;
    }
    promtool(&["test", "rules", "rules_test.yml"], "");
    let mut cluster = Cluster::start(Setup::default());
    let (client, wanted) = (cluster.client(), picture("a cat on a blue background", 1, 2));
    client.submit(&wanted).await.unwrap();
    client.finish(wanted.job, |_| ()).await.unwrap();
    for id in cluster.ids() {
        promtool(&["check", "metrics"], &cluster.get(id, "/metrics").await.1);
    }

    let (webhook, mut told) = webhook().await;
    let ports = free_ports(2);
    let files = Files::of(&cluster, ports[0], webhook);
    let option = |name: &str, value: &str| format!("--{name}={value}");
    let path = |name: &str| files.at(name).display().to_string();
    let listen = |port| option("web.listen-address", &format!("127.0.0.1:{port}"));
    let _alertmanager = start(
        "prometheus-alertmanager",
        &[
            option("config.file", &path("alertmanager.yml")),
            option("storage.path", &path("alerts")),
            option("cluster.listen-address", ""),
            listen(ports[0]),
        ],
    );
    let _prometheus = start(
        "prometheus",
        &[
            option("config.file", &path("prometheus.yml")),
            option("storage.tsdb.path", &path("series")),
            listen(ports[1]),
        ],
    );
    finds(ports[1], "sum(atelier_ready)", "3").await;
    finds(ports[1], "sum(atelier_raft_is_leader)", "1").await;

    let (lost, killed) = (of_peer(&cluster.peers[&3]), Instant::now());
    cluster.kill(3);
    let hears = async {
        loop {
            let message = told.recv().await.expect("the webhook listens");
            let alerts = message["alerts"].as_array().cloned().unwrap_or_default();
            let is_it = |alert: &Value| {
                let labels = &alert["labels"];
                alert["status"] == "firing"
                    && labels["alertname"] == "AtelierPeerDown"
                    && labels["instance"] == lost.as_str()
            };
            if alerts.iter().any(is_it) {
                return alerts.len();
            }
        }
    };
    let count = tokio::time::timeout(PATIENCE, hears).await.expect("the alert arrives");
    assert_eq!(count, 1, "the others are well");
    println!("the alert of {lost} arrived {} s after the kill", killed.elapsed().as_secs());
}
