//! What the daemon writes of itself: objects for programs, and a line for every administrative act, at every peer.

#![allow(clippy::unwrap_used)]

mod support;

use atelier_client::{Author, SettingChange, SettingValue};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Cluster, Setup, free_ports, picture};

const WHO: &str = "night shift";
const PROMPT: &str = "a cat that nobody shall read of";
/// For a line to reach a file, and for a peer to start without an engine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lines of a log that is JSON; one that is none fails the test.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn acts(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("atelierd.log")).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let is_ours = |line: &Value| line["target"] == "atelier::audit" && line["who"] == WHO;
    lines(whole).into_iter().filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_peer_writes_each_administrative_act_to_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Setup { engine: false, ..Setup::default() });
    for id in cluster.ids() {
        cluster.terminate(id);
        let own = directory.path().join(id.to_string());
        cluster.configure(id, &format!("log_directory = {own:?}"), "");
    }
    cluster.start_all();
    let client = cluster.client();
    let changes =
        [SettingChange { key: "queue.paused".to_owned(), value: Some(SettingValue::Flag(true)) }];
    let author = Author { who: WHO.to_owned(), why: "new disks".to_owned(), at_ms: 0 };
    let begun = Instant::now();
    // A new cluster has settings once every member said that it knows them.
    while let Err(error) = client.set_settings(None, &changes, &author).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.submit(&picture(PROMPT, 7, 4)).await.unwrap();
    for id in cluster.ids() {
        let own = directory.path().join(id.to_string());
        let begun = Instant::now();
        while acts(&own).is_empty() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let [act] = acts(&own).try_into().expect("one act, once");
        assert_eq!(act["why"], "new disks");
        assert!(act["act"].as_str().unwrap().contains("queue.paused=true"), "{act}");
        assert!(act["index"].as_u64().is_some() && act["timestamp"].is_string(), "{act}");
        let text = fs::read_to_string(own.join("atelierd.log")).unwrap();
        assert!(!text.contains(PROMPT), "prompts are not for the log");
    }
}

#[test]
fn standard_output_is_objects_alone_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let mut child = Command::new(support::today())
        .args(["start", "--node", "1", "--set", "log_format=json", "--set", "engine.enabled=false"])
        .args(["--grpc", &format!("127.0.0.1:{}", ports[0])])
        .args(["--http", &format!("127.0.0.1:{}", ports[1])])
        .arg("--data")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let read = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for line in out.lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).expect(&line);
            let is_last = line["message"] == "serving";
            seen.push(line);
            if is_last {
                break;
            }
        }
        seen
    });
    let begun = Instant::now();
    while !read.is_finished() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let seen = read.join().unwrap();
    let last = seen.last().expect("it says something");
    assert_eq!(last["url"], format!("http://127.0.0.1:{}", ports[1]), "{seen:?}");
    assert!(seen.iter().all(|line| line["level"].is_string() && line["target"].is_string()));
}
