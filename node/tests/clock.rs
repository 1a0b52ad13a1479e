//! A peer whose clock is wrong by a month: it leads, and nothing is forgotten or failed for it.
//!
//! Needs Debian's `libfaketime`; without it the test says so and passes.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atelier_client::{NodeId, Phase, Submission};
use support::{Cluster, Setup, picture, today};

const PROMPT: &str = "a cat on a blue background";
const JOBS: u64 = 5;
/// Many rounds of the leader, in each of which it could forget.
const LED: Duration = Duration::from_secs(3);
const WRONG: u64 = 2;

fn library() -> Option<PathBuf> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let library = |directory: &&str| Path::new(directory).join("faketime/libfaketime.so.1");
    directories.iter().map(library).find(|library| library.exists())
}

/// The daemon of this build, with a wall clock that is wrong and one for waiting that is right.
fn daemon_of_another_month(directory: &Path, library: &Path, offset: &str) -> PathBuf {
    let script = directory.join("atelierd-of-another-month");
    let (library, daemon) = (library.display(), today());
    let text = format!(
        "#!/bin/sh\n\
         export FAKETIME='{offset}' FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD='{library}'\n\
         exec '{}' \"$@\"\n",
        daemon.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn a_wrong_clock_leads(offset: &str) {
    let Some(library) = library() else {
        println!("skipped: libfaketime is not here; apt-get install libfaketime");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(Setup::default());
    let client = cluster.client();
    let mut jobs = Vec::new();
    for seed in 0..JOBS {
        jobs.push(client.submit(&picture(PROMPT, seed, 1)).await.unwrap().job);
    }
    for job in &jobs {
        assert_eq!(client.finish(*job, |_| ()).await.unwrap().phase, Phase::Succeeded);
    }

    cluster.terminate(WRONG);
    cluster.upgrade(WRONG, daemon_of_another_month(directory.path(), &library, offset));
    cluster.start_these(&[WRONG]);
    let wrong = NodeId::from(WRONG);
    assert_eq!(client.transfer_leader(Some(wrong)).await.unwrap(), wrong);
    tokio::time::sleep(LED).await;

    for job in &jobs {
        let known = client.job(*job).await.expect("nothing is forgotten");
        assert_eq!(known.phase, Phase::Succeeded);
    }
    // Accepted by the peer itself, and by another one.
    for id in [WRONG, 1] {
        let wanted = Submission { deadline_s: Some(60), ..picture(PROMPT, 100 + id, 1) };
        let direct = cluster.client_of(id);
        direct.submit(&wanted).await.unwrap();
        let ended = direct.finish(wanted.job, |_| ()).await.unwrap();
        assert_eq!(ended.phase, Phase::Succeeded, "{}", ended.error);
    }
    let stats = client.queue_stats().await.unwrap();
    assert_eq!((stats.succeeded, stats.failed, stats.forgotten), (JOBS + 2, 0, 0));
    assert!(cluster.log_of(WRONG).contains("the cluster's, which is used instead"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_next_month_forgets_nothing_and_fails_nothing() {
    a_wrong_clock_leads("+30d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_last_month_forgets_nothing_and_fails_nothing() {
    a_wrong_clock_leads("-30d").await;
}
