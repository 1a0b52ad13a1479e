//! A model's file that changes on the disk of one peer is found, and named.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use atelier_client::{Finding, FindingLevel};
use support::{Cluster, PATIENCE, Setup, picture};

const WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";

/// What a peer says of its model; none while its engine loads.
async fn model_of(cluster: &Cluster, id: u64) -> Option<Finding> {
    let findings = cluster.client_of(id).examine().await.unwrap().findings;
    findings.into_iter().find(|finding| finding.check == "model")
}

/// The same once all is well, or is not.
async fn judged(cluster: &Cluster, id: u64, level: FindingLevel) -> Finding {
    let start = Instant::now();
    loop {
        let model = model_of(cluster, id).await;
        match model {
            Some(model) if model.level == level => return model,
            _ => assert!(start.elapsed() < PATIENCE, "{level:?} was expected: {model:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn change_a_byte(file: &Path) {
    let mut content = fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(file, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_of_one_peer_is_named() {
    let mut cluster = Cluster::start(Setup::default());
    // Peer 2 gets a directory of its own.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("model");
    copy(&cluster.setup.model, &own);
    cluster.terminate(2);
    let config = fs::read_to_string(cluster.config(2)).unwrap();
    let shared = cluster.setup.model.to_str().unwrap();
    fs::write(cluster.config(2), config.replace(shared, own.to_str().unwrap())).unwrap();
    cluster.start_these(&[2]);
    // Each has loaded what it has, and all have the same.
    let mut models = Vec::new();
    for id in cluster.ids() {
        models.push(judged(&cluster, id, FindingLevel::Ok).await.found);
    }
    assert!(models.windows(2).all(|pair| pair[0] == pair[1]), "{models:?}");

    // The same bytes written again are no change, though the date is.
    let weights = own.join(WEIGHTS);
    fs::write(&weights, fs::read(&weights).unwrap()).unwrap();
    assert_eq!(judged(&cluster, 2, FindingLevel::Ok).await.found, models[0]);

    change_a_byte(&weights);
    let model = judged(&cluster, 2, FindingLevel::Fail).await;
    assert!(model.found.contains(&format!("{WEIGHTS} changed")), "{model:?}");
    assert!(model.fix.contains("put the files back"), "{model:?}");
    assert_eq!(judged(&cluster, 1, FindingLevel::Ok).await.found, models[0]);
    // It goes on with what it has in memory.
    cluster.client().generate(&picture("a cat", 7, 2), |_| ()).await.unwrap();

    // What it would load next has another name.
    cluster.signal_engine(2, rustix::process::Signal::KILL);
    assert_ne!(judged(&cluster, 2, FindingLevel::Ok).await.found, models[0]);
}
