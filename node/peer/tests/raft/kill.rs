//! What was acknowledged outlives a process that is killed at any moment: while it opens its store, and while it
//! writes a tree anew, too. `make storage` kills many more times than a test run.

use crate::harness::{PATIENCE, open, open_with};
use crate::ports::assert_no_blobs;
use atelier_peer::ports::{Entropy, Store};
use atelier_peer::real::SystemEntropy;
use atelier_peer::storage::log::{self, Hard, LogImage, LogWriter};
use atelier_peer::storage::snapshots::Snapshots;
use atelier_peer::storage::{RewriteBounds, SledStore};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: &str = "ATELIER_TEST_ROUNDS";
const ROUNDS_DEFAULT: u32 = 30;
/// The child runs for a random time below this.
const ROUND_MS_MAX: u64 = 300;
/// It starts, and opens its store, within about this.
const START_MS_MAX: u64 = 60;
/// Such that the child writes its trees anew many times.
const BOUNDS: RewriteBounds = RewriteBounds { bytes_min: 1024 * 1024, factor: 1 };
const ENTRIES_KEPT: u64 = 400;
const DIRECTORY: &str = "ATELIER_TEST_KILL_DIRECTORY";
/// The store of the child, and beside it what it was told: a power cut of the store's disk must not take that.
pub(crate) struct Place {
    directory: PathBuf,
    store: PathBuf,
}

impl Place {
    pub(crate) fn new(directory: &Path) -> Place {
        Place { directory: directory.to_owned(), store: directory.join("store") }
    }

    fn acked(&self) -> u64 {
        let Ok(text) = std::fs::read_to_string(self.directory.join("acked")) else { return 0 };
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().last().map_or(0, |line| line.parse().expect("a number"))
    }
}

/// What the rounds came to.
#[derive(Default)]
struct Tally {
    entries: u64,
    // Rounds that ended before the first acknowledgement.
    silent: u32,
    // Rounds that ended while a tree was written anew.
    rewriting: u32,
}

#[test]
fn nothing_acknowledged_is_lost_when_a_process_is_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = Place::new(directory.path());
    let said = kill_again_and_again(&place, rounds(ROUNDS_DEFAULT), || (|| (), || ()));
    println!("{said}");
    assert_no_blobs(&place.store);
}

/// How many rounds were asked for.
pub(crate) fn rounds(default: u32) -> u32 {
    std::env::var(ROUNDS).ok().map_or(default, |n| n.parse().expect("rounds"))
}

/// Runs the child, kills it and looks at what it left. Each round, `arm` is called at the start and gives what is
/// done right before the kill, and right after it.
pub(crate) fn kill_again_and_again<B: FnOnce(), A: FnOnce()>(
    place: &Place,
    rounds: u32,
    mut arm: impl FnMut() -> (B, A),
) -> String {
    let entropy = SystemEntropy::open().expect("a source of entropy");
    let mut tally = Tally::default();
    for round in 0..rounds {
        let acked_before = place.acked();
        // A third comes as far as an acknowledgement, a third ends at any time, a third while the store is opened.
        let below = if round % 3 == 2 { START_MS_MAX } else { ROUND_MS_MAX };
        let after = Duration::from_millis(random_below(&entropy, below));
        let (before_kill, after_kill) = arm();
        run_and_kill(place, after, (round % 3 == 0).then_some(acked_before), before_kill);
        after_kill();
        let acked = place.acked();
        tally.rewriting += u32::from(has_two_generations(&place.store));
        let store = open(&place.store);
        check_snapshot(&store);
        let image = log::load(&store).expect("load");
        let last = image.entries.last().map_or(0, |(index, _)| *index);
        assert!(last >= acked, "round {round}: {acked} was acknowledged, {last} is the last");
        check(&image, acked);
        tally.entries += acked - acked_before;
        tally.silent += u32::from(acked == acked_before);
    }
    let Tally { entries, silent, rewriting } = tally;
    assert!(entries > 0, "no round came as far as an acknowledgement");
    format!(
        "{rounds} kills, {entries} entries acknowledged, none lost; {silent} kills came before the first \
         acknowledgement of their round, {rewriting} while a tree was written anew"
    )
}

fn run_and_kill(place: &Place, after: Duration, above: Option<u64>, before_kill: impl FnOnce()) {
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new(this)
        .args(["--exact", "kill::child", "--nocapture"])
        .env(DIRECTORY, &place.directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    let started = Instant::now();
    while above.is_some_and(|above| place.acked() <= above) && started.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    std::thread::sleep(after);
    let ended = child.try_wait().expect("wait");
    before_kill();
    child.kill().expect("kill");
    child.wait().expect("wait");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("read");
    assert!(ended.is_none(), "the child ended by itself: {said}");
}

fn check(image: &LogImage, acked: u64) {
    for (index, body) in &image.entries {
        assert_eq!(*body, entry(*index), "entry {index}");
    }
    for pair in image.entries.windows(2) {
        assert_eq!(pair[0].0 + 1, pair[1].0, "an entry is missing");
    }
    // The child votes for the index that it will append next.
    let vote = image.hard.get(&Hard::Vote).map_or(0, number);
    assert!(vote > acked || acked == 0, "the vote went back to {vote}, below {acked}");
    let purged = image.hard.get(&Hard::Purged).map_or(0, number);
    let first = image.entries.first().map_or(1, |(index, _)| *index);
    assert!(first <= purged + 1, "{first} is the first, only {purged} were purged");
}

/// Whether the process was killed between the first byte of a new generation and the last of the old one.
fn has_two_generations(store: &Path) -> bool {
    let generations = |tree: &str| {
        let Ok(entries) = std::fs::read_dir(store.join(tree)) else { return 0 };
        let is_one = |name: String| name == "db" || name.starts_with("generation-");
        entries
            .filter(|e| is_one(e.as_ref().expect("list").file_name().display().to_string()))
            .count()
    };
    generations("log") > 1 || generations("state") > 1
}

/// A snapshot is one byte, again and again; which one, nobody was told.
fn check_snapshot(store: &SledStore) {
    let (_, snapshot) = Snapshots::load(store).expect("a snapshot is there whole or not at all");
    let Some(snapshot) = snapshot else { return };
    assert!(snapshot.len() == SNAPSHOT_BYTES && snapshot.windows(2).all(|pair| pair[0] == pair[1]));
}

fn number(bytes: &Bytes) -> u64 {
    u64::from_be_bytes(bytes[..].try_into().expect("a number"))
}

/// Mostly small, at times nearly as large as they may be.
fn entry(index: u64) -> Bytes {
    let size = if index.is_multiple_of(97) { 48 * 1024 } else { 8 + (index % 600) as usize };
    let filler = std::iter::repeat_n(index as u8, size);
    index.to_be_bytes().into_iter().chain(filler).collect()
}

fn random_below(entropy: &SystemEntropy, below: u64) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_be_bytes(bytes) % below
}

/// Not a test by itself: what the other one kills.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let place = Place::new(Path::new(&directory));
    let acked = place.directory.join("acked");
    let mut acked = OpenOptions::new().create(true).append(true).open(acked).expect("open");
    let store: Arc<dyn Store> = Arc::new(open_with(&place.store, BOUNDS));
    let image = log::load(store.as_ref()).expect("load");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(append_for_ever(store, &image, &mut acked));
}

const SNAPSHOT_BYTES: usize = 200_000;
/// Groups of entries between two snapshots.
const SNAPSHOT_EVERY: u64 = 32;

async fn append_for_ever(store: Arc<dyn Store>, image: &LogImage, acked: &mut File) {
    let mut next = image.entries.last().map_or(0, |(index, _)| *index) + 1;
    let purged = image.hard.get(&Hard::Purged).map(number);
    let (writer, _thread) = LogWriter::start(store.clone(), image.extent(purged)).expect("start");
    let (mut snapshots, _) = Snapshots::load(store.as_ref()).expect("load");
    for turn in 0.. {
        if turn % SNAPSHOT_EVERY == 0 {
            let bytes = Bytes::from(vec![next as u8; SNAPSHOT_BYTES]);
            snapshots.save(store.as_ref(), &bytes).expect("save");
        }
        let end = next + 1 + next % 23;
        writer.put(Hard::Vote, end.to_be_bytes().to_vec().into()).await.expect("vote");
        let entries = (next..end).map(|index| (index, entry(index))).collect();
        let (done, result) = tokio::sync::oneshot::channel();
        writer.append(entries, Box::new(|result| drop(done.send(result)))).await;
        if let Some(through) = end.checked_sub(ENTRIES_KEPT) {
            writer.purge(through, through.to_be_bytes().to_vec().into()).await;
        }
        result.await.expect("the writer answers").expect("append");
        writeln!(acked, "{}", end - 1).expect("write");
        next = end;
    }
}
