//! Damage to the files themselves: what was acknowledged is served whole, or the node refuses to start.

use crate::ports::assert_no_blobs;
use atelier_peer::ports::{Entropy, Store};
use atelier_peer::real::SystemEntropy;
use atelier_peer::storage::log::{self, Extent, Hard, LogWriter};
use atelier_peer::storage::{OpenError, SledStore};
use bytes::Bytes;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const ENTRIES: u64 = 300;
const ROUNDS: u32 = 60;

#[tokio::test]
async fn damage_is_noticed() {
    let origin = tempfile::tempdir().expect("a temporary directory");
    fill(origin.path()).await;
    let database = fs::read(origin.path().join("log/db")).expect("read");
    let entropy = SystemEntropy::open().expect("a source of entropy");
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..ROUNDS {
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_all(origin.path(), copy.path());
        let at = random_below(&entropy, database.len() as u64) as usize;
        let damaged = if round % 2 == 0 {
            let mut damaged = database.clone();
            damaged[at] ^= 1 << (round / 2 % 8);
            damaged
        } else {
            database[..at].to_vec()
        };
        fs::write(copy.path().join("log/db"), &damaged).expect("write");
        let kind = if round % 2 == 0 { "flipped" } else { "cut" };
        *counts.entry((kind, outcome(copy.path()))).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert_no_blobs(origin.path());
}

/// Panics where anything that was acknowledged is missing from what is served.
fn outcome(path: &Path) -> &'static str {
    let store = match SledStore::open(path) {
        Ok(store) => store,
        Err(OpenError::Corrupt { .. }) => return "refused at open",
        Err(error) => panic!("{error}"),
    };
    let image = match log::load(&store) {
        Ok(image) => image,
        Err(error) => {
            assert!(error.to_string().contains("corrupted"), "{error}");
            return "refused at load";
        }
    };
    assert_eq!(image.entries.len() as u64, ENTRIES, "entries are lost without a word");
    for (expected, (index, body)) in (0..).zip(&image.entries) {
        assert_eq!((*index, body), (expected, &entry(expected)));
    }
    assert_eq!(image.hard[&Hard::Vote], (ENTRIES - 1).to_be_bytes()[..], "the vote went back");
    "served whole"
}

fn entry(index: u64) -> Bytes {
    vec![index as u8; 100 + (index as usize * 37) % 3000].into()
}

async fn fill(path: &Path) {
    let store: Arc<dyn Store> = Arc::new(SledStore::open(path).expect("open"));
    let (writer, thread) = LogWriter::start(store.clone(), Extent::default()).expect("start");
    for index in 0..ENTRIES {
        let (done, answer) = tokio::sync::oneshot::channel();
        writer.append(vec![(index, entry(index))], Box::new(|r| drop(done.send(r)))).await;
        answer.await.expect("answer").expect("durable");
        writer.put(Hard::Vote, Bytes::copy_from_slice(&index.to_be_bytes())).await.expect("vote");
    }
    drop(writer);
    thread.join().expect("the thread ends");
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("list");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            fs::create_dir_all(&target).expect("mkdir");
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy");
        }
    }
}

fn random_below(entropy: &SystemEntropy, below: u64) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_be_bytes(bytes) % below
}
