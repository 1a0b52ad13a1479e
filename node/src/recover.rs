//! `atelierd recover`: says what lies in a survivor's directory and what may be lost, and makes it a cluster of its own.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use atelier_peer::ports::{Clock, Entropy, Store};
use atelier_peer::raft::{Recovered, Recovery, recover};
use atelier_peer::real::{SystemClock, SystemEntropy};
use atelier_peer::storage::SledStore;

use crate::cli::Recover;
use crate::{USAGE, configured};

/// It was not said that the majority is lost.
const CONFLICT: u8 = 4;

/// Looks, tells, and recovers where that is meant.
///
/// # Errors
/// When the directory cannot be read or recovered; the text says what to do.
pub(crate) fn run(arguments: &Recover) -> Result<ExitCode> {
    let Some(config) = configured(&arguments.sources()?) else {
        return Ok(ExitCode::from(USAGE));
    };
    let place = config.data.display().to_string();
    anyhow::ensure!(
        config.data.is_dir(),
        "{place} is no directory; name the survivor's configuration"
    );
    let store = SledStore::open(&config.data)
        .with_context(|| format!("{place} cannot be opened; does its process still run?"))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let mut chance = [0; 4];
    SystemEntropy::open().context("cannot open /dev/urandom")?.fill(&mut chance);
    let mut wanted = Recovery {
        cluster: config.cluster.clone(),
        address: config.advertised(),
        why: arguments.reason.clone(),
        now_ms: SystemClock::new().wall_ms(),
        chance,
        dry_run: true,
    };
    let seen = recover(&store, &wanted)?;
    let meant = arguments.majority_is_lost && !arguments.dry_run;
    if !meant {
        tell(&seen, arguments.json, false);
        if arguments.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!(
            "error: nothing was changed\nhint: say --majority-is-lost when the others are lost for good"
        );
        return Ok(ExitCode::from(CONFLICT));
    }
    wanted.dry_run = false;
    let done = recover(&store, &wanted)?;
    tell(&done, arguments.json, true);
    Ok(ExitCode::SUCCESS)
}

fn tell(seen: &Recovered, json: bool, done: bool) {
    let Recovered { node, lineage_before, lineage, lost, last_index, committed_index, .. } = seen;
    let Recovered { queued, leases, terminal, pictures_elsewhere, .. } = seen;
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    let lost = lost.join(", ");
    if json {
        // Its name is drawn when it is made.
        let cluster = if done { format!("{lineage:?}") } else { "null".to_owned() };
        println!(
            "{{\"version\": 1, \"kind\": \"recovered\", \"done\": {done}, \"node\": {node}, \"before\": {lineage_before:?}, \
             \"cluster\": {cluster}, \"lost\": [{lost}], \"last_log_index\": {last_index}, \
             \"commit_index\": {committed_index}, \"queued\": {queued}, \"leases\": {leases}, \
             \"terminal\": {terminal}, \"pictures_elsewhere\": {pictures_elsewhere}}}"
        );
        return;
    }
    println!(
        "node {node} of cluster {lineage_before}\n\
         its log ends at entry {last_index}; it knew {committed_index} to be agreed upon\n\
         LOST, if there was any: whatever the others acknowledged behind entry {last_index}\n\
         kept: {queued} jobs that wait, {leases} of them given back, and {terminal} that have ended\n\
         pictures of {pictures_elsewhere} jobs lie on other peers alone"
    );
    if done {
        println!(
            "recovered as cluster {lineage}; voters {lost} are given up and can never come back\n\
             start it: atelierd start --config FILE\n\
             then let new peers join: atelierd start --join URL --token TOKEN --promote --data EMPTY …"
        );
    } else {
        println!("it would go on under a new name, without voters {lost}");
    }
}
