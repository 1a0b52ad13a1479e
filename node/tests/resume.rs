//! Workers that are killed at random steps: the picture is the same to the byte, and little is drawn
//! twice. `make resume KILLS=50` runs many rounds.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use atelier_client::{JobId, Submission, TextToImage};
use rustix::process::Signal;
use support::{Cluster, Dice, PATIENCE, Setup, denoising, number, until};

const STEPS: u32 = 30;
/// Larger than the model's own, so that a step takes long enough to be met in the middle.
const SIDE: u32 = 256;
const CHECKPOINT_STEPS: u32 = 1;
/// Different pictures in turn, so that none can be taken for another.
const SEEDS: u64 = 3;
/// The supervisor's trace tells every step that came from an engine.
const LOG: &str = "info,atelier_peer::supervisor=trace";

/// What a round does to the worker of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// kill -9 of the peer; its engine ends with it.
    Peer,
    /// kill -9 of the engine alone.
    Engine,
    /// SIGSTOP of both, for longer than the lease.
    Freeze,
}

const BLOWS: [Blow; 4] = [Blow::Peer, Blow::Engine, Blow::Freeze, Blow::Peer];

fn wanted(seed: u64) -> Submission {
    let asked = TextToImage::new("a cat on a blue background");
    Submission::new(TextToImage { seed, steps: STEPS, width: SIDE, height: SIDE, ..asked })
}

/// What the logs tell of one lease.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    /// The last denoise step that its engine told.
    reached: u32,
    /// The step of the checkpoint from which it went on; 0 for none.
    resumed: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_survive_kills_at_random_steps() {
    let kills = number("KILLS", 4);
    let mut dice = Dice::seeded();
    let setup = Setup { log: LOG, jobs: "checkpoint_steps = 1", ..Setup::default() };
    let mut cluster = Cluster::start(setup);
    let client = cluster.client();
    let mut undisturbed = Vec::new();
    for seed in 0..SEEDS {
        let drawn = client.generate(&wanted(seed), |_| ()).await.expect("nobody disturbs it");
        undisturbed.push(drawn.images[0].bytes.clone());
    }
    let (mut redone, mut without) = (Vec::new(), 0);
    let begun = Instant::now();
    for round in 0..kills {
        let (seed, blow) = (round % SEEDS, BLOWS[(round % 4) as usize]);
        let at = 2 + dice.below(u64::from(STEPS) - 6) as u32;
        let job = wanted(seed);
        client.submit(&job).await.unwrap();
        let seen = until(&client, job.job, |event| denoising(event, at)).await;
        let worker = seen.job.node.expect("somebody draws it");
        match blow {
            Blow::Peer => cluster.kill(worker),
            Blow::Engine => drop(cluster.signal_engine(worker, Signal::KILL)),
            Blow::Freeze => cluster.freeze(worker),
        }
        let struck = Instant::now();
        let drawn = client.generate(&job, |_| ()).await.expect("the job goes on");
        let same = drawn.images[0].bytes == undisturbed[seed as usize];
        assert!(same, "round {round} ({blow:?} at step {at}): other bytes than undisturbed");
        let attempts = attempts(&cluster, job.job);
        let (lost, again) = last_two(&attempts);
        println!(
            "round {round}: {blow:?} at step {}, went on from {}, done {:.1} s later",
            lost.reached,
            again.resumed,
            struck.elapsed().as_secs_f64()
        );
        match again.resumed {
            0 => without += 1,
            resumed => redone.push(lost.reached.saturating_sub(resumed)),
        }
        if blow == Blow::Freeze {
            cluster.thaw(worker);
        }
        cluster.start_all();
    }
    judge(&mut redone, without, kills, begun.elapsed());
}

fn judge(redone: &mut [u32], without: usize, kills: u64, took: Duration) {
    redone.sort_unstable();
    let (sum, most) = (redone.iter().sum::<u32>(), redone.last().copied().unwrap_or(0));
    println!(
        "{kills} kills in {:.0} s: all pictures the same; {} went on from a checkpoint and drew {sum} \
         steps again, at most {most} each; {without} had none",
        took.as_secs_f64(),
        redone.len(),
    );
    assert!(most <= CHECKPOINT_STEPS + 1, "steps drawn again: {redone:?}");
    assert!(without * 10 <= redone.len(), "{without} of {kills} found no checkpoint");
}

/// The attempts at a job by their token, as all peers' logs tell.
fn attempts(cluster: &Cluster, job: JobId) -> BTreeMap<u64, Attempt> {
    let mut attempts: BTreeMap<u64, Attempt> = BTreeMap::new();
    let name = format!("job={job} ");
    for log in cluster.ids().into_iter().map(|id| cluster.log_of(id)) {
        for line in log.lines().filter(|line| line.contains(&name)) {
            let Some(token) = value(line, " token=") else { continue };
            let attempt = attempts.entry(token.into()).or_default();
            if line.contains("stage=\"denoise\"") {
                attempt.reached = attempt.reached.max(value(line, " step=").expect("a step"));
            } else if line.contains("goes on from a checkpoint") {
                attempt.resumed = value(line, " step=").expect("a step");
            }
        }
    }
    attempts
}

fn last_two(attempts: &BTreeMap<u64, Attempt>) -> (Attempt, Attempt) {
    let mut newest = attempts.values().rev().copied();
    let again = newest.next().expect("somebody drew it");
    let lost = newest.find(|attempt| attempt.reached > 0).expect("somebody had begun it");
    (lost, again)
}

fn value(line: &str, key: &str) -> Option<u32> {
    let rest = &line[line.find(key)? + key.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_killed_and_its_job_goes_on() {
    let (jobs, engines) = ("checkpoint_steps = 1", "silence_ms = 3000");
    let cluster = Cluster::start(Setup { peers: 1, log: LOG, jobs, engines, ..Setup::default() });
    let client = cluster.client();
    let undisturbed = client.generate(&wanted(7), |_| ()).await.unwrap();
    let job = wanted(7);
    client.submit(&job).await.unwrap();
    until(&client, job.job, |event| denoising(event, 5)).await;
    let hung = cluster.signal_engine(1, Signal::STOP);
    let begun = Instant::now();
    let drawn = client.generate(&job, |_| ()).await.expect("another engine goes on");
    assert!(begun.elapsed() > Duration::from_millis(2_900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_eq!((drawn.job.attempts, drawn.job.leases), (1, 2), "a hang is a failed attempt");
    assert!(drawn.images[0].bytes == undisturbed.images[0].bytes);
    assert!(!cluster.engines(1).contains(&hung), "its memory is free");
    let (lost, again) = last_two(&attempts(&cluster, job.job));
    assert!(again.resumed > 0 && lost.reached <= again.resumed + 1, "{lost:?} {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_leaves_hands_its_job_over() {
    // Only leaving makes a checkpoint: none is due before the last step.
    let mut cluster =
        Cluster::start(Setup { log: LOG, jobs: "checkpoint_steps = 100", ..Setup::default() });
    let client = cluster.client();
    let undisturbed = client.generate(&wanted(7), |_| ()).await.unwrap();
    let job = wanted(7);
    client.submit(&job).await.unwrap();
    let seen = until(&client, job.job, |event| denoising(event, 5)).await;
    let leaving = seen.job.node.expect("somebody draws it");
    cluster.terminate(leaving);
    let drawn = client.generate(&job, |_| ()).await.expect("another peer goes on");
    assert_eq!((drawn.job.attempts, drawn.job.leases), (0, 2), "leaving is no failed attempt");
    assert!(drawn.images[0].bytes == undisturbed.images[0].bytes);
    let (lost, again) = last_two(&attempts(&cluster, job.job));
    assert_eq!(again.resumed, lost.reached, "no step is drawn again");
}
