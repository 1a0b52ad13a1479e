//! An acknowledgement survives a power cut of every peer at once: three real peers, each on a disk of its own, whose
//! power is cut at random times while clients write, and while the peers start.
//!
//! `make power-cut` cuts 20 times; a plain test run cuts a few times, so that it takes seconds. It needs root for the
//! mounts, and says so elsewhere.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atelier_client::{Client, JobId, Phase};
use support::disk::{Disk, PowerSwitch, with_own_mounts};
use support::{Cluster, Setup, picture};

/// How many cuts. Not `ATELIER_…`, which the peers would take for a setting of theirs; set by `make power-cut`.
const CUTS: &str = "POWER_CUTS";
const CUTS_DEFAULT: u32 = 3;
const DISK_BYTES: u64 = 96 << 20;
const WRITERS: u64 = 6;
/// Clients write for a random time below this before the cut.
const WRITE_MS_MAX: u64 = 700;
/// Peers start for a random time below this before a cut in the middle of a start.
const START_MS_MAX: u64 = 400;
/// Every so many cuts one more comes while the peers start.
const CUT_AT_START_EVERY: u32 = 3;
/// Jobs that are looked for at the end; more than these the cluster may have forgotten by its own rule.
const REMEMBERED: usize = 15_000;
/// Snapshots and purges often enough that cuts meet them.
const SETTINGS: &str = "[raft]\nsnapshot_entries = 300\nentries_kept = 50\n";

/// What was acknowledged: whether a job was cancelled too.
type Acknowledged = Arc<Mutex<BTreeMap<JobId, bool>>>;

#[test]
fn an_acknowledgement_survives_a_power_cut_of_every_peer() {
    with_own_mounts("an_acknowledgement_survives_a_power_cut_of_every_peer", || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(cut_and_look());
    });
}

async fn cut_and_look() {
    let cuts = std::env::var(CUTS).ok().map_or(CUTS_DEFAULT, |n| n.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = |id: u64| disk_of(directory.path(), id);
    let disks: Vec<Disk> = (1..=3).map(disk).collect();
    let setup = Setup {
        engine: false,
        data: Some(directory.path().to_owned()),
        settings: SETTINGS.to_owned(),
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup);
    let mut all: BTreeMap<JobId, bool> = BTreeMap::new();
    let mut total = 0;
    for cut in 1..=cuts {
        let acknowledged = write_and_cut(&mut cluster, &disks).await;
        if cut % CUT_AT_START_EVERY == 0 {
            cut_at_start(&mut cluster, &disks);
        }
        cluster.start_all();
        cluster.agree().await;
        look_for(&cluster, &acknowledged).await;
        println!("cut {cut}: {} jobs were acknowledged, all are there", acknowledged.len());
        total += acknowledged.len();
        all.extend(acknowledged);
        // Ids rise with time, so the oldest are the first.
        while all.len() > REMEMBERED {
            all.pop_first();
        }
    }
    look_for(&cluster, &all).await;
    println!("{cuts} power cuts, {total} jobs acknowledged, none lost");
    drop(cluster);
    disks.iter().for_each(Disk::unmount);
}

fn disk_of(directory: &Path, id: u64) -> Disk {
    let image = directory.join(format!("disk-{id}"));
    Disk::mounted(image, directory.join(format!("data-{id}")), DISK_BYTES)
}

/// Lets clients write until the power goes, and returns what they were told.
async fn write_and_cut(cluster: &mut Cluster, disks: &[Disk]) -> BTreeMap<JobId, bool> {
    let acknowledged = Acknowledged::default();
    let writer = |number| {
        let client = cluster.client_of(1 + number % cluster.setup.peers);
        tokio::spawn(write(client, acknowledged.clone()))
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let switch = PowerSwitch::armed(disks);
    while acknowledged.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(random_below(WRITE_MS_MAX)).await;
    switch.cut();
    cluster.kill_all();
    for writer in writers {
        writer.abort();
        assert!(writer.await.is_err_and(|error| error.is_cancelled()), "a writer ended by itself");
    }
    power_up(disks);
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(!acknowledged.is_empty());
    acknowledged
}

/// Starts the peers, and cuts the power in the middle of it.
fn cut_at_start(cluster: &mut Cluster, disks: &[Disk]) {
    let switch = PowerSwitch::armed(disks);
    cluster.ids().into_iter().for_each(|id| cluster.start_one(id));
    std::thread::sleep(random_below(START_MS_MAX));
    switch.cut();
    cluster.kill_all();
    power_up(disks);
}

fn power_up(disks: &[Disk]) {
    for disk in disks {
        disk.unmount();
        disk.mount();
    }
}

/// Submits for ever, and cancels some; notes what was acknowledged and nothing else.
async fn write(client: Client, acknowledged: Acknowledged) {
    for seed in 0.. {
        let Ok(accepted) = client.submit(&picture("a cat", seed, 0)).await else { continue };
        acknowledged.lock().unwrap().insert(accepted.job, false);
        if seed % 3 != 0 && client.cancel(accepted.job).await.is_ok() {
            acknowledged.lock().unwrap().insert(accepted.job, true);
        }
    }
}

async fn look_for(cluster: &Cluster, acknowledged: &BTreeMap<JobId, bool>) {
    // All peers have the same state, as was seen, so each is asked for its share of the jobs.
    let clients: Vec<Client> = cluster.ids().into_iter().map(|id| cluster.client_of(id)).collect();
    for ((job, cancelled), client) in acknowledged.iter().zip(clients.iter().cycle()) {
        let found = client.job(*job).await;
        let found = found.unwrap_or_else(|error| panic!("{job} was acknowledged: {error}"));
        // A cancellation that nobody was told of may have come through.
        let expected =
            found.phase == Phase::Cancelled || (!cancelled && found.phase == Phase::Queued);
        assert!(expected, "{job} is {:?}, cancelled: {cancelled}", found.phase);
    }
}

fn random_below(milliseconds: u64) -> Duration {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("entropy");
    Duration::from_millis(u64::from_le_bytes(bytes) % milliseconds)
}
