//! Damage to the files themselves: what was acknowledged is served whole, or the node refuses to start.

use crate::ports::assert_no_blobs;
use atelier_peer::ports::{Entropy, Store};
use atelier_peer::real::SystemEntropy;
use atelier_peer::storage::log::{self, Extent, Hard, LogWriter};
use atelier_peer::storage::snapshots::Snapshots;
use atelier_peer::storage::{OpenError, SledStore};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ENTRIES: u64 = 300;
const SNAPSHOTS: u8 = 3;
const ROUNDS: &str = "ATELIER_TEST_ROUNDS";
const ROUNDS_DEFAULT: u32 = 120;

#[tokio::test]
async fn damage_to_any_file_is_noticed_or_harmless() {
    let rounds = std::env::var(ROUNDS).ok().map_or(ROUNDS_DEFAULT, |n| n.parse().expect("rounds"));
    let origin = tempfile::tempdir().expect("a temporary directory");
    fill(origin.path()).await;
    assert_no_blobs(origin.path());
    let files = files_of(origin.path());
    let entropy = SystemEntropy::open().expect("a source of entropy");
    let mut counts = BTreeMap::new();
    for round in 0..rounds {
        let copy = tempfile::tempdir().expect("a temporary directory");
        copy_all(origin.path(), copy.path());
        // The files in turn: most bytes are those of the two databases, and small files matter as much.
        let file = copy.path().join(&files[round as usize % files.len()]);
        let kind = damage(&file, round / files.len() as u32, &entropy);
        let before = contents(copy.path());
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let name = if name.starts_with("snap.") { "snap.*".to_owned() } else { name };
        let outcome = outcome(copy.path());
        if outcome == "refused at open" {
            let tree = files[round as usize % files.len()].parent().expect("a tree");
            assert_untouched(&before, copy.path(), tree);
        }
        *counts.entry((name, kind, outcome)).or_insert(0) += 1;
    }
    for ((file, kind, outcome), count) in counts {
        println!("{file} {kind}: {outcome} {count}");
    }
}

/// Where a file ends inside of its last segment, sled tells of that as an error of input.
#[tokio::test]
async fn a_database_that_is_cut_is_corrupted_not_unreadable() {
    const SEGMENT_BYTES: u64 = 512 * 1024;
    const STEP_BYTES: usize = 16 * 1024;
    let origin = tempfile::tempdir().expect("a temporary directory");
    fill(origin.path()).await;
    for tree in ["log", "state"] {
        let bytes = fs::metadata(origin.path().join(tree).join("db")).expect("stat").len();
        assert!(bytes > SEGMENT_BYTES, "{tree} is too small for this test");
        let heads = (0..bytes).step_by(SEGMENT_BYTES as usize);
        let heads = heads.flat_map(|start| [0, 1, 19, 21].map(|more| start + more));
        let inside = (bytes - SEGMENT_BYTES..bytes).step_by(STEP_BYTES);
        for cut in heads.chain(inside).filter(|cut| *cut < bytes) {
            let copy = tempfile::tempdir().expect("a temporary directory");
            copy_all(origin.path(), copy.path());
            let file = copy.path().join(tree).join("db");
            let file = fs::OpenOptions::new().write(true).open(file).expect("open");
            file.set_len(cut).expect("cut");
            let before = contents(copy.path());
            match outcome(copy.path()) {
                "refused at open" => assert_untouched(&before, copy.path(), Path::new(tree)),
                // The segment's end is padding.
                "served whole" if cut > bytes - SEGMENT_BYTES => {}
                outcome => panic!("{outcome}: {tree} cut at {cut} of {bytes}"),
            }
        }
    }
}

fn assert_untouched(before: &BTreeMap<PathBuf, Vec<u8>>, directory: &Path, tree: &Path) {
    let after = contents(directory);
    let mut own = before.iter().filter(|(path, _)| path.starts_with(tree));
    let changed = own.find(|(path, bytes)| after.get(*path) != Some(bytes));
    let changed = changed.map(|(path, _)| path);
    assert_eq!(changed, None, "a file of a refused tree was changed or deleted");
}

/// Flips a bit, cuts the end off, or overwrites a part with zeros.
fn damage(file: &Path, turn: u32, entropy: &SystemEntropy) -> &'static str {
    let mut bytes = fs::read(file).expect("read");
    let at = random_below(entropy, bytes.len() as u64) as usize;
    let kind = match turn % 3 {
        0 => {
            bytes[at] ^= 1 << random_below(entropy, 8);
            "flipped"
        }
        1 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
            "zeroed"
        }
    };
    fs::write(file, bytes).expect("write");
    kind
}

/// Panics where anything that was acknowledged is missing from what is served.
fn outcome(path: &Path) -> &'static str {
    let store = match SledStore::open(path) {
        Ok(store) => store,
        Err(error @ OpenError::Corrupt { .. }) => {
            assert!(error.to_string().contains("is corrupted"), "{error}");
            return "refused at open";
        }
        Err(error) => panic!("{error}"),
    };
    let loaded = log::load(&store).and_then(|image| Ok((image, Snapshots::load(&store)?.1)));
    let (image, snapshot) = match loaded {
        Ok(loaded) => loaded,
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
    assert_eq!(snapshot, Some(snapshot_of(SNAPSHOTS)), "the snapshot is another one");
    "served whole"
}

fn snapshot_of(number: u8) -> Bytes {
    (0..150_000_u32).map(|i| (i >> 8) as u8 ^ number).collect()
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let all = listed(directory).into_iter();
    let is_file = |path: &PathBuf| fs::metadata(directory.join(path)).expect("stat").len() > 0;
    all.filter(|path| directory.join(path).is_file()).filter(is_file).collect()
}

/// The files of both trees that are not empty, as the locks are.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_of(directory).into_iter();
    let read = |path: PathBuf| {
        let bytes = fs::read(directory.join(&path)).expect("read");
        (path, bytes)
    };
    files.map(read).collect()
}

/// Everything below a directory, by its path there.
fn listed(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(directory.join(&at)).expect("list") {
            let entry = entry.expect("list");
            let path = at.join(entry.file_name());
            if entry.file_type().expect("type").is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
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
    let (mut snapshots, _) = Snapshots::load(store.as_ref()).expect("load");
    for number in 1..=SNAPSHOTS {
        snapshots.save(store.as_ref(), &snapshot_of(number)).expect("save");
    }
    drop(store);
    // sled makes snapshots of its own when it opens what was there before.
    drop(SledStore::open(path).expect("open"));
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
