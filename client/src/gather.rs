//! Submissions that are made at the same time share calls.
//!
//! ```text
//!   submit ─► waiting ─► a carrier: all that waits ─► one SubmitBatch ─► each its own answer
//! ```
//!
//! Owns what waits, and the first attempt of each submission. What that attempt does not settle, be
//! it a refusal or a peer that does not answer, is told to the submission, which then goes on alone:
//! it is one job by its id, however often it is sent. Nobody waits for company: a submission that
//! finds none leaves at once, by a `Submit` of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::batch_outcome::Outcome;
use tokio::sync::oneshot;
use tonic::Status;

use crate::budget::Failure;
use crate::choice::Wish;
use crate::client::{Client, Rpc};
use crate::pool::Endpoint;

/// Calls that are under way at a time; what is submitted meanwhile shares the next. One alone would
/// leave the cluster idle while its answer travels.
const CARRIERS_MAX: usize = 2;
/// Submissions of one call, few enough that none waits long for the others' entries; more wait for
/// the next call.
const SHARED_MAX: usize = 256;
/// Submissions that wait. Filled by callers that do not wait for their answers; at the brim a
/// submission goes alone.
const WAITING_MAX: usize = 8_192;

/// Why a submission has no answer after its first attempt.
#[derive(Debug)]
pub(crate) enum Unsettled {
    /// It was not sent, or it was refused in a batch, which tells less than a refusal alone.
    AskAlone,
    /// The attempt at this endpoint failed.
    Failed(Box<(Endpoint, Failure)>),
}

impl Unsettled {
    /// It was not answered in time, and nobody knows whether it was sent.
    pub(crate) fn late(endpoint: Endpoint, waited: Duration) -> Self {
        let failure = Failure::timeout(&endpoint.address, waited);
        Self::Failed(Box::new((endpoint, failure)))
    }
}

/// The submissions of one client; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gatherer(Arc<Mutex<Gathered>>);

#[derive(Debug, Default)]
struct Gathered {
    waiting: VecDeque<Waiting>,
    carriers: usize,
}

#[derive(Debug)]
struct Waiting {
    request: wire::SubmitRequest,
    answer: oneshot::Sender<Settled>,
}

type Settled = Result<wire::SubmitReply, Unsettled>;

impl Gatherer {
    /// Makes the first attempt of a submission.
    ///
    /// # Cancel safety
    /// When dropped the job may be submitted all the same.
    pub(crate) async fn submit(&self, client: &Client, request: wire::SubmitRequest) -> Settled {
        let (answer, answered) = oneshot::channel();
        if self.push(Waiting { request, answer }) {
            let (gatherer, client) = (self.clone(), client.clone());
            // Ends when nothing waits; each of its calls has a deadline.
            tokio::spawn(async move { gatherer.carry(&client).await });
        }
        answered.await.unwrap_or(Err(Unsettled::AskAlone))
    }

    /// Lets a submission wait, and says whether a carrier is to be started for it.
    fn push(&self, waiting: Waiting) -> bool {
        let mut gathered = self.gathered();
        if gathered.waiting.len() == WAITING_MAX {
            return false;
        }
        gathered.waiting.push_back(waiting);
        let starts = gathered.carriers < CARRIERS_MAX;
        gathered.carriers += usize::from(starts);
        starts
    }

    /// What leaves next; when nothing waits, a carrier ends.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut gathered = self.gathered();
        // Those that gave up need no job.
        gathered.waiting.retain(|waiting| !waiting.answer.is_closed());
        let count = gathered.waiting.len().min(SHARED_MAX);
        if count == 0 {
            gathered.carriers -= 1;
            return None;
        }
        Some(gathered.waiting.drain(..count).collect())
    }

    async fn carry(&self, client: &Client) {
        loop {
            // Whoever is ready to submit, as those that were just answered, comes along.
            tokio::task::yield_now().await;
            let Some(batch) = self.take() else { return };
            attempt(client, batch).await;
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // Each change is one push, one drain or one count, so a panic cannot have left it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn attempt(client: &Client, batch: Vec<Waiting>) {
    let endpoint = client.choose(Wish::Leader);
    let (requests, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.request, waiting.answer)).unzip();
    let outcomes = match requests.len() {
        1 => vec![alone(client, &endpoint, requests).await],
        _ => together(client, &endpoint, requests).await,
    };
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Whoever asked may have given up meanwhile.
        let _ = answer.send(outcome);
    }
}

async fn alone(
    client: &Client,
    endpoint: &Endpoint,
    mut requests: Vec<wire::SubmitRequest>,
) -> Settled {
    let request = requests.pop().expect("there is one");
    let allowed = client.options().attempt_timeout.min(client.options().deadline);
    let submit = |mut rpc: Rpc, request| async move { rpc.submit(request).await };
    let sent = client.attempt(endpoint, allowed, request, submit).await;
    sent.map_err(|failure| Unsettled::Failed(Box::new((endpoint.clone(), failure))))
}

/// Submits all by one call; one outcome for each, in order.
async fn together(
    client: &Client,
    endpoint: &Endpoint,
    jobs: Vec<wire::SubmitRequest>,
) -> Vec<Settled> {
    let expected = jobs.len();
    let allowed = client.options().attempt_timeout.min(client.options().deadline);
    let submit = |mut rpc: Rpc, request| async move { rpc.submit_batch(request).await };
    let request = wire::SubmitBatchRequest { jobs };
    let failed = match client.attempt(endpoint, allowed, request, submit).await {
        Ok(reply) if reply.outcomes.len() == expected => {
            return reply.outcomes.into_iter().map(settled).collect();
        }
        Ok(reply) => {
            let got = reply.outcomes.len();
            let text = format!("expected {expected} outcomes of a batch, got {got}");
            Failure::new(&endpoint.address, &Status::internal(text))
        }
        Err(failure) => failure,
    };
    let failed = || Unsettled::Failed(Box::new((endpoint.clone(), failed.clone())));
    (0..expected).map(|_| Err(failed())).collect()
}

fn settled(outcome: wire::BatchOutcome) -> Settled {
    match outcome.outcome {
        Some(Outcome::Accepted(reply)) => Ok(reply),
        Some(Outcome::Refused(_)) | None => Err(Unsettled::AskAlone),
    }
}
