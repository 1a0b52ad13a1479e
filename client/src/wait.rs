//! Waits for the ends of jobs, all waits of a client by one stream.
//!
//! ```text
//!   wait ─► waiting ─► the pump: one Await stream, on one endpoint after another ─► each its end
//! ```
//!
//! Owns what is waited for and the task that holds the stream; it ends when nothing is waited for.
//! When the peer dies, leaves, or tells of no end for long, the pump asks the next one for
//! everything that is left. It asks for as long as anybody waits: each wait has its own deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atelier_proto::client::v1 as wire;
use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Status, Streaming};

use crate::budget::{Backoff, Class, Failure};
use crate::choice::Wish;
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Tried};
use crate::pool::Endpoint;
use crate::types::{Accepted, Job, JobId};

/// Jobs that one message names; more go into the next.
const NAMED_MAX: usize = 1_000;
/// Jobs that may be waited for at a time; further waits are refused with [`Error::Full`]. Filled by
/// waits that are not awaited.
const WAITING_MAX: usize = 10_000;
/// Messages between the pump and the connection; at the bound the pump waits.
const MESSAGES_MAX: usize = 16;
/// A stream without a wait is kept for so long.
const IDLE: Duration = Duration::from_secs(1);

/// The waits of one client; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waits: Mutex<Waits>,
    fresh: Notify,
}

#[derive(Debug, Default)]
struct Waits {
    waiting: BTreeMap<JobId, Wait>,
    /// Those that the stream has not named yet.
    fresh: Vec<JobId>,
    has_pump: bool,
}

#[derive(Debug)]
struct Wait {
    accepted_at: u64,
    answers: Vec<oneshot::Sender<Result<Job, Error>>>,
}

impl Client {
    /// Waits for the end of an accepted job, and returns the job as it is then.
    ///
    /// It tells nothing meanwhile: [`Client::watch`] does. All waits of a client share one stream,
    /// so thousands of them cost little, and go on when their peer dies.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: the job was forgotten.
    /// - [`Error::Deadline`]: it took longer than [`crate::Options::watch_deadline`].
    /// - [`Error::Full`]: 10,000 jobs are waited for, the bound.
    /// - [`Error::Malformed`]: a peer speaks something else.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn wait(&self, accepted: &Accepted) -> Result<Job, Error> {
        let answered = self.waiter().push(self, accepted)?;
        let end = async { answered.await.unwrap_or_else(|_| Err(lost())) };
        match self.options().watch_deadline {
            None => end.await,
            Some(patience) => timeout(patience, end).await.unwrap_or_else(|_| Err(self.late())),
        }
    }

    fn late(&self) -> Error {
        let address = self.choose(Wish::Any).address;
        let why = "the job is not over yet".to_owned();
        Error::Deadline { tried: vec![Tried { address, why }] }
    }
}

/// The runtime that the pump ran on has ended.
fn lost() -> Error {
    Error::Malformed { what: "expected the end of a job, got the end of the runtime".to_owned() }
}

impl Waiter {
    fn push(
        &self,
        client: &Client,
        accepted: &Accepted,
    ) -> Result<oneshot::Receiver<Result<Job, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let mut waits = self.waits();
        if waits.waiting.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} jobs are waited for, the bound; wait for fewer");
            return Err(Error::Full { message, retry_after: None });
        }
        let job = accepted.job;
        let new = || Wait { accepted_at: accepted.log_index, answers: Vec::new() };
        waits.waiting.entry(job).or_insert_with(new).answers.push(answer);
        waits.fresh.push(job);
        if !std::mem::replace(&mut waits.has_pump, true) {
            let (waiter, client) = (self.clone(), client.clone());
            // Ends when nothing is waited for.
            tokio::spawn(async move { Pump::new(waiter, client).run().await });
        }
        drop(waits);
        self.0.fresh.notify_one();
        Ok(answered)
    }

    /// Gives a job's end to whoever waits for it.
    fn settle(&self, job: JobId, end: impl Fn() -> Result<Job, Error>) {
        let Some(wait) = self.waits().waiting.remove(&job) else { return };
        for answer in wait.answers {
            // Whoever waited may have given up.
            let _ = answer.send(end());
        }
    }

    /// What is to be named next: after a new stream was opened everything, else what is new.
    fn name(&self, all: bool) -> Vec<wire::AwaitRequest> {
        let mut waits = self.waits();
        let fresh = std::mem::take(&mut waits.fresh);
        if all {
            // Those that gave up are not asked for again.
            waits.waiting.retain(|_, wait| wait.answers.iter().any(|answer| !answer.is_closed()));
        }
        let jobs = if all { waits.waiting.keys().copied().collect() } else { fresh };
        let named = jobs.chunks(NAMED_MAX).map(|jobs| {
            let accepted = jobs.iter().filter_map(|job| waits.waiting.get(job));
            let after_index = accepted.map(|wait| wait.accepted_at).max().unwrap_or(0);
            wire::AwaitRequest { job_ids: jobs.iter().map(JobId::to_string).collect(), after_index }
        });
        named.collect()
    }

    fn is_idle(&self) -> bool {
        self.waits().waiting.is_empty()
    }

    /// Lets the pump go where nothing is waited for.
    fn retire(&self) -> bool {
        let mut waits = self.waits();
        waits.has_pump = !waits.waiting.is_empty();
        !waits.has_pump
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Each change is an insertion, a removal or an assignment, so a panic cannot have left it half done.
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the stream.
struct Pump {
    waiter: Waiter,
    client: Client,
    endpoint: Endpoint,
    /// Failures since the last end.
    failures: u32,
}

/// An open stream: the way to name jobs, and their ends.
struct Open {
    names: mpsc::Sender<wire::AwaitRequest>,
    ends: Streaming<wire::AwaitReply>,
}

impl Pump {
    fn new(waiter: Waiter, client: Client) -> Pump {
        let endpoint = client.choose(Wish::Leader);
        Pump { waiter, client, endpoint, failures: 0 }
    }

    async fn run(mut self) {
        loop {
            let failure = match self.open().await {
                Ok(open) => self.follow(open).await,
                Err(failure) => Some(failure),
            };
            match failure {
                None if self.waiter.retire() => return,
                None => {}
                Some(failure) => self.leave(failure).await,
            }
        }
    }

    async fn open(&self) -> Result<Open, Failure> {
        let (names, mut named) = mpsc::channel(MESSAGES_MAX);
        for name in self.waiter.name(true) {
            // The bound of waits is below that of messages, so this finds room.
            let _ = names.try_send(name);
        }
        let mut rpc = Client::rpc(&self.endpoint);
        let wait = self.client.options().attempt_timeout;
        match timeout(wait, rpc.r#await(poll_fn(move |context| named.poll_recv(context)))).await {
            Ok(Ok(reply)) => Ok(Open { names, ends: reply.into_inner() }),
            Ok(Err(status)) => Err(Failure::new(&self.endpoint.address, &status)),
            Err(_) => Err(Failure::timeout(&self.endpoint.address, wait)),
        }
    }

    /// Follows a stream until it fails, or until nothing has been waited for for a while.
    async fn follow(&mut self, mut open: Open) -> Option<Failure> {
        let mut silent_at = self.silence();
        loop {
            let waits = if self.waiter.is_idle() { Instant::now() + IDLE } else { silent_at };
            let reply = tokio::select! {
                biased;
                reply = open.ends.next() => reply,
                () = self.waiter.0.fresh.notified() => {
                    for name in self.waiter.name(false) {
                        // Where the stream has gone, that shows at the next answer.
                        let _ = open.names.send(name).await;
                    }
                    silent_at = self.silence();
                    continue;
                }
                _ = timeout_at(waits, std::future::pending::<()>()) => {
                    if self.waiter.is_idle() {
                        return None;
                    }
                    return Some(self.ended("it told of no end for long"));
                }
            };
            match reply {
                Some(Ok(reply)) if reply == wire::AwaitReply::default() => {}
                Some(Ok(reply)) => {
                    if let Err(failure) = self.settle(reply) {
                        return Some(failure);
                    }
                    silent_at = self.silence();
                }
                Some(Err(status)) => return Some(self.failed(&status)),
                None => return Some(self.ended("the stream ended before the jobs did")),
            }
        }
    }

    /// When a peer that tells of no end is left: one that is cut off learns of none.
    fn silence(&self) -> Instant {
        Instant::now() + self.client.options().watch_silence
    }

    fn ended(&self, why: &str) -> Failure {
        self.failed(&Status::unavailable(why))
    }

    fn failed(&self, status: &Status) -> Failure {
        Failure::new(&self.endpoint.address, status)
    }

    fn settle(&mut self, reply: wire::AwaitReply) -> Result<(), Failure> {
        self.failures = 0;
        self.client.pool().answered(&self.endpoint.address, Instant::now());
        for job in reply.jobs {
            let malformed = |error: Error| self.failed(&Status::internal(error.to_string()));
            let job = convert::job(job).map_err(malformed)?;
            self.waiter.settle(job.job, || Ok(job.clone()));
        }
        for id in reply.unknown {
            let message = format!("no job {id}; it is past its retention");
            if let Ok(job) = id.parse() {
                self.waiter.settle(job, || Err(Error::NotFound { message: message.clone() }));
            }
        }
        Ok(())
    }

    /// Turns to another endpoint, after a pause that grows.
    async fn leave(&mut self, failure: Failure) {
        self.client.book(&failure);
        let options = self.client.options();
        let random = options.entropy.draw();
        let pause = Backoff::new(options).pause(self.failures, self.client.pool().len(), random);
        self.failures = self.failures.saturating_add(1);
        sleep(match failure.class {
            Class::Later { retry_after: Some(after) } => after,
            _ => pause,
        })
        .await;
        let hint = failure.leader.filter(|leader| *leader != failure.address);
        let leader = hint.and_then(|leader| self.client.pool().learn(&leader));
        let next = || self.client.pool().after(&self.endpoint.address, Instant::now());
        self.endpoint = leader.unwrap_or_else(next);
    }
}
