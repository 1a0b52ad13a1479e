//! Ends of many jobs by one stream.

use super::*;
use atelier_state::Cancel;
use futures_util::FutureExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

type Answers = BoxStream<'static, Result<wire::AwaitReply, Status>>;

fn wait(world: &World) -> (mpsc::Sender<Result<wire::AwaitRequest, Status>>, Answers) {
    let (names, requests) = mpsc::channel(8);
    let waits = world.gateway.waits(ReceiverStream::new(requests).boxed());
    (names, waits.answers().boxed())
}

async fn name(
    names: &mpsc::Sender<Result<wire::AwaitRequest, Status>>,
    job_ids: &[String],
    after_index: u64,
) {
    let request = wire::AwaitRequest { job_ids: job_ids.to_vec(), after_index };
    names.send(Ok(request)).await.expect("the stream is open");
}

async fn answer(answers: &mut Answers) -> Result<wire::AwaitReply, Status> {
    let answer = tokio::time::timeout(Duration::from_secs(60), answers.next()).await;
    answer.expect("an answer comes in time").expect("the stream goes on")
}

fn cancel(world: &World, job: &str) {
    let job = job.parse().expect("a job id");
    let cancel = Cancel { job, reason: String::new(), finished_ms: 2 };
    world.log.apply(&[Command::Cancel(cancel)]);
}

#[tokio::test(start_paused = true)]
async fn each_end_is_told_once_and_the_stream_ends_with_the_last() {
    let world = world();
    let (first, second) = (world.submit().await.job_id, world.submit().await.job_id);
    let (names, mut answers) = wait(&world);
    name(&names, &[first.clone(), second.clone()], 0).await;
    assert!(answers.next().now_or_never().is_none(), "neither has ended");
    cancel(&world, &second);
    let told = answer(&mut answers).await.expect("an end");
    let told: Vec<_> = told.jobs.iter().map(|job| (job.job_id.clone(), job.phase())).collect();
    assert_eq!(told, [(second, wire::Phase::Cancelled)]);
    drop(names);
    cancel(&world, &first);
    let told = answer(&mut answers).await.expect("an end");
    assert_eq!(told.jobs[0].job_id, first);
    assert!(answers.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_unknown_only_where_the_peer_has_come_far_enough() {
    let world = world();
    let accepted = world.submit().await;
    let absent = JobId(77).to_string();
    let (names, mut answers) = wait(&world);
    name(&names, std::slice::from_ref(&absent), accepted.log_index + 1).await;
    let sign = answer(&mut answers).await.expect("a sign of life");
    assert_eq!(sign, wire::AwaitReply::default());
    world.register(1);
    assert_eq!(answer(&mut answers).await.expect("an answer").unknown, [absent]);
}

#[tokio::test(start_paused = true)]
async fn too_many_jobs_and_a_peer_that_leaves_end_the_stream() {
    let world = world();
    let job = world.submit().await.job_id;
    let (names, mut answers) = wait(&world);
    name(&names, &vec![job.clone(); 10_001], 0).await;
    assert_eq!(answer(&mut answers).await.expect_err("a bound").code(), Code::ResourceExhausted);
    let (names, mut answers) = wait(&world);
    name(&names, &[job], 0).await;
    world.draining.send_replace(true);
    assert_eq!(answer(&mut answers).await.expect_err("it leaves").code(), Code::Unavailable);
    assert!(answers.next().await.is_none());
}
