//! Jobs that are cancelled at random moments: the engine is free again, nothing piles up, and later
//! jobs are as if nothing had been. `make soak CANCELS=1000` runs many.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use atelier_client::{Client, JobId, Phase};
use support::{Cluster, Dice, Setup, denoising, number, picture, resident_bytes, until};

const PROMPT: &str = "a cat on a blue background";
/// Steps of a job that is to be cancelled: it would take seconds.
const LONG: u32 = 50;
/// Rounds before memory is measured: caches fill.
const WARM_UP: u64 = 10;
/// How much longer the next job may take after a cancel than with nothing before it: the rest of a
/// step and the cancel itself. A job that is drawn to its end would cost fifty steps.
const FREE_AGAIN_MAX: f64 = 4.0;
/// Rounds between two pictures with nothing before them.
const ALONE_EVERY: u64 = 3;
/// What the engine may grow by, however many jobs are cancelled.
const ENGINE_GROWTH_MAX: u64 = 16 << 20;
/// What the peer may grow by: the jobs stay in the queue's memory and in its store's cache.
const PEER_GROWTH_MAX: u64 = 32 << 20;
const PEER_GROWTH_PER_ROUND_MAX: u64 = 32 << 10;

/// When a job is cancelled.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as it is accepted.
    Accepted,
    /// While another one is drawn.
    Queued,
    /// As soon as somebody holds its lease.
    Leased,
    /// After so many steps.
    Step(u32),
}

impl Moment {
    fn drawn(dice: &mut Dice) -> Moment {
        match dice.below(6) {
            0 => Moment::Accepted,
            1 => Moment::Queued,
            2 => Moment::Leased,
            _ => Moment::Step(1 + dice.below(12) as u32),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_jobs_leave_nothing_behind() {
    let cancels = number("CANCELS", 50);
    let mut dice = Dice::seeded();
    let cluster =
        Cluster::start(Setup { peers: 1, jobs: "checkpoint_steps = 1", ..Setup::default() });
    let client = cluster.client();
    let undisturbed = client.generate(&picture(PROMPT, 7, 1), |_| ()).await.unwrap();
    let undisturbed = undisturbed.images[0].bytes.to_vec();
    let (peer, engines) = (cluster.pid(1), cluster.engines(1));
    let memory = || [peer, engines[0]].map(resident_bytes);
    let mut before = memory();
    let (mut after_cancel, mut alone) = (Vec::new(), Vec::new());
    for round in 0..cancels + WARM_UP {
        if round == WARM_UP {
            before = memory();
            after_cancel.clear();
        }
        if round.is_multiple_of(ALONE_EVERY) {
            alone.push(next_picture(&client, &undisturbed).await);
        }
        let moment = Moment::drawn(&mut dice);
        cancel_at(&client, moment).await;
        after_cancel.push(next_picture(&client, &undisturbed).await);
        if round > 0 && round.is_multiple_of(100) {
            println!("round {round}: {}", megabytes(memory()));
        }
    }
    let after = memory();
    let (after_cancel, alone) = (median_and_most(after_cancel), median_and_most(alone));
    println!(
        "{cancels} cancels: resident {} before, {} after; the next job took {:.0?} (median), {:.0?} \
         (most), one with nothing before it {:.0?} and {:.0?}; all pictures the same",
        megabytes(before),
        megabytes(after),
        after_cancel[0],
        after_cancel[1],
        alone[0],
        alone[1],
    );
    let ratio = after_cancel[0].as_secs_f64() / alone[0].as_secs_f64();
    assert!(ratio < FREE_AGAIN_MAX, "the engine is not free: {ratio:.1} times as long");
    assert_eq!(cluster.engines(1), engines, "no cancel ended the engine");
    let growth = [0, 1].map(|at| after[at].saturating_sub(before[at]));
    assert!(growth[0] < PEER_GROWTH_MAX + cancels * PEER_GROWTH_PER_ROUND_MAX, "{growth:?}");
    assert!(growth[1] < ENGINE_GROWTH_MAX, "{growth:?}");
}

/// Draws a picture of one step, the same as ever, and tells how long that took.
async fn next_picture(client: &Client, undisturbed: &[u8]) -> Duration {
    let begun = Instant::now();
    let next = client.generate(&picture(PROMPT, 7, 1), |_| ()).await.unwrap();
    assert_eq!((next.job.leases, next.job.attempts), (1, 0));
    assert!(next.images[0].bytes == undisturbed, "other bytes than undisturbed");
    begun.elapsed()
}

fn median_and_most(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() - 1]]
}

async fn cancel_at(client: &Client, moment: Moment) {
    let unwanted = picture(PROMPT, 4, LONG);
    client.submit(&unwanted).await.unwrap();
    match moment {
        Moment::Accepted => {}
        Moment::Queued => {
            until(client, unwanted.job, |event| event.job.phase == Phase::Leased).await;
            let behind = picture(PROMPT, 5, LONG);
            client.submit(&behind).await.unwrap();
            cancel(client, behind.job).await;
        }
        Moment::Leased => {
            drop(until(client, unwanted.job, |event| event.job.phase == Phase::Leased).await);
        }
        Moment::Step(step) => {
            until(client, unwanted.job, |event| denoising(event, step)).await;
        }
    }
    cancel(client, unwanted.job).await;
}

async fn cancel(client: &Client, job: JobId) {
    assert_eq!(client.cancel(job).await.unwrap().phase, Phase::Cancelled);
}

fn megabytes([peer, engine]: [u64; 2]) -> String {
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("peer {:.1} MiB, engine {:.1} MiB", megabytes(peer), megabytes(engine))
}
