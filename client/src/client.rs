//! The client: sends a call to an endpoint, and to others until the budget says stop.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atelier_proto::client::v1 as wire;
use atelier_proto::client::v1::atelier_client::AtelierClient;
use atelier_proto::line::Line;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response};

use crate::budget::{Budget, Failure, Kind, Next};
use crate::choice::Wish;
use crate::convert;
use crate::error::{ConnectError, Error};
use crate::gather::{Gatherer, Unsettled};
use crate::mutants::{self, Mutant};
use crate::options::Options;
use crate::pool::{self, Dial, Endpoint, Pool, Scheme};
use crate::types::{Accepted, Job, JobId, JobPage, Member, Phase, Status, Submission};
use crate::wait::Waiter;

/// The generated stub that a call is made on.
pub(crate) type Rpc = AtelierClient<Line>;

/// A list of the most jobs with the longest prompts fits; a larger answer is refused.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Metadata of a read that may be answered with what is old.
const STALE_KEY: &str = "atelier-stale";
/// Learning who else is there may delay a watch by no more than this.
const LEARN_TIMEOUT: Duration = Duration::from_secs(1);
/// Who leads is asked again so often; at once where an endpoint falls silent.
const LEARN_EVERY: Duration = Duration::from_secs(10);

/// Speaks with a cluster through any of its peers.
///
/// Cheap to clone; all clones share their connections. Calls may run side by side.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    pool: Pool,
    gatherer: Gatherer,
    waiter: Waiter,
    learned: AtomicBool,
    /// When the members are asked for again.
    learn_at: Mutex<Instant>,
}

impl Client {
    /// Makes a client of the cluster that has peers at these addresses, `http://host:port` or
    /// `host:port`; `https` with [`Options::tls`]. Connects to nobody yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`] when there is no address, too many, or one that is none.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: Options,
    ) -> Result<Self, ConnectError> {
        let dial = pool::dial(&options);
        Self::with_dial(endpoints, options, dial)
    }

    /// The same over lines that the caller makes, as a simulated network does.
    ///
    /// # Errors
    /// As [`Client::connect`], and what `dial` itself returns.
    pub fn with_dialer(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: Options,
        dial: impl Fn(&str) -> Result<Line, ConnectError> + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        Self::with_dial(endpoints, options, Box::new(dial))
    }

    fn with_dial(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: Options,
        dial: Dial,
    ) -> Result<Self, ConnectError> {
        let scheme = if options.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let pool = Pool::new(endpoints, options.region.clone(), scheme, dial)?;
        let learned = AtomicBool::new(!options.learn_members);
        let learn_at = Mutex::new(Instant::now());
        let (gatherer, waiter) = (Gatherer::default(), Waiter::default());
        let shared = Shared { options, pool, gatherer, waiter, learned, learn_at };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The addresses that this client knows by now, given ones first.
    pub fn endpoints(&self) -> Vec<String> {
        self.pool().endpoints().into_iter().map(|endpoint| endpoint.address).collect()
    }

    /// Submits a job and returns when the cluster holds it in its log.
    ///
    /// Repeats under the same id until it is answered, so the job is accepted once at most. What
    /// the clones of a client submit at the same time shares a call, and each has its own outcome.
    ///
    /// # Errors
    /// - [`Error::UnknownOutcome`]: it may be accepted; submit the same value again.
    /// - [`Error::Unavailable`]: it is certainly not accepted; try later.
    /// - [`Error::Full`]: the queue was full until the deadline; try after `retry_after`.
    /// - [`Error::Invalid`], [`Error::AlreadyExists`]: mend the request, or use another key.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: submit the same value again.
    pub async fn submit(&self, submission: &Submission) -> Result<Accepted, Error> {
        let request = convert::submit_request(submission);
        let mut budget = Budget::new(Kind::Submit(submission.job), self.options(), Instant::now());
        let send = |mut rpc: Rpc, request| async move { rpc.submit(request).await };
        if self.options().leader_confirmed {
            let endpoint = self.choose(Wish::Leader);
            return convert::accepted(&self.call_from(endpoint, budget, request, send).await?);
        }
        let first = self.shared.gatherer.submit(self, request.clone());
        let patience = self.options().deadline;
        let unsettled = match timeout(patience, first).await {
            Ok(Ok(reply)) => return convert::accepted(&reply),
            Ok(Err(unsettled)) => unsettled,
            Err(_) => Unsettled::late(self.choose(Wish::Leader), patience),
        };
        let endpoint = match unsettled {
            Unsettled::AskAlone => self.choose(Wish::Leader),
            Unsettled::Failed(failed) => {
                let (endpoint, failure) = *failed;
                self.go_on(&mut budget, failure, endpoint).await?
            }
        };
        let is_new = mutants::is(Mutant::RetryWithNewId);
        let request = if is_new { convert::another(request) } else { request };
        convert::accepted(&self.call_from(endpoint, budget, request, send).await?)
    }

    /// Reads one job, as the peer that answers sees it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when that peer knows no such job, [`Error::Unavailable`] and
    /// [`Error::Deadline`] when none answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn job(&self, job: JobId) -> Result<Job, Error> {
        let request = wire::GetJobRequest { job_id: job.to_string() };
        let reply = self
            .call(Kind::Read, request, |mut rpc, request| async move { rpc.get_job(request).await })
            .await?;
        convert::job(reply)
    }

    /// Lists jobs of these phases, of all when none is named, newest first. A limit of 0 is 100;
    /// the most is 1000.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when no peer answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn jobs(&self, phases: &[Phase], limit: u32) -> Result<JobPage, Error> {
        self.jobs_after(phases, limit, "").await
    }

    /// As [`Client::jobs`], behind the last job of an earlier page: `after` is its
    /// [`next`](JobPage::next), of a list of the same phases; empty for the first page.
    ///
    /// A job that comes meanwhile shifts nothing; one that changes its phase may be missed, or told
    /// twice.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what no page of these phases has named, else as [`Client::jobs`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn jobs_after(
        &self,
        phases: &[Phase],
        limit: u32,
        after: &str,
    ) -> Result<JobPage, Error> {
        let phases = phases.iter().map(|phase| convert::phase_to_wire(*phase).into()).collect();
        let request = wire::ListJobsRequest { phases, limit, after: after.to_owned() };
        let reply =
            self.call(Kind::Read, request, |mut rpc, request| async move {
                rpc.list_jobs(request).await
            })
            .await?;
        convert::job_page(reply)
    }

    /// Cancels a job, and returns it as it is then. One that is cancelled already stays so: of
    /// several callers at the same time all are answered with the cancelled job.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no such job.
    /// - [`Error::Conflict`]: it succeeded or failed before.
    /// - [`Error::UnknownChange`]: read the job to learn whether it is cancelled.
    ///
    /// # Cancel safety
    /// When dropped the outcome is unknown: read the job.
    pub async fn cancel(&self, job: JobId) -> Result<Job, Error> {
        let request = wire::CancelJobRequest { job_id: job.to_string() };
        let begun = Instant::now();
        let cancelled = self
            .call(Kind::Repeatable("cancel the job"), request, |mut rpc, request| async move {
                rpc.cancel_job(request).await
            })
            .await;
        match cancelled {
            Ok(reply) => convert::job(reply),
            Err(conflict @ Error::Conflict { .. }) => {
                self.ended(job, begun).await.filter(is_cancelled).ok_or(conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// A job of which the cluster said that it is over. A peer that lags still shows it running.
    async fn ended(&self, job: JobId, begun: Instant) -> Option<Job> {
        while begun.elapsed() < self.options().deadline {
            let known = self.job(job).await.ok()?;
            if known.phase.is_terminal() {
                return Some(known);
            }
            sleep(self.options().backoff_min).await;
        }
        None
    }

    /// Asks the first peer that answers how it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Deadline`] when no peer answers.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn status(&self) -> Result<Status, Error> {
        let request = wire::StatusRequest {};
        let reply = self
            .call(Kind::Local, request, |mut rpc, request| async move { rpc.status(request).await })
            .await?;
        convert::status(reply)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn waiter(&self) -> &Waiter {
        &self.shared.waiter
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    pub(crate) fn rpc(endpoint: &Endpoint) -> Rpc {
        AtelierClient::new(endpoint.line.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Sends one call to endpoint after endpoint until it is answered or the budget is spent.
    pub(crate) async fn call<Q, R, F>(
        &self,
        kind: Kind,
        message: Q,
        send: impl Fn(Rpc, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        let budget = Budget::new(kind, self.options(), Instant::now());
        let wish = match kind {
            Kind::Read | Kind::Local => Wish::Any,
            Kind::Submit(_) | Kind::Repeatable(_) | Kind::Change(_) => Wish::Leader,
        };
        self.call_from(self.choose(wish), budget, message, send).await
    }

    /// The same, beginning at an endpoint and with what is left of a budget.
    async fn call_from<Q, R, F>(
        &self,
        mut endpoint: Endpoint,
        mut budget: Budget,
        message: Q,
        send: impl Fn(Rpc, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        loop {
            endpoint = self.confirmed(endpoint, &mut budget).await?;
            let allowed = budget.attempt(Instant::now());
            let failure = match self.attempt(&endpoint, allowed, message.clone(), &send).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            endpoint = self.go_on(&mut budget, failure, endpoint).await?;
        }
    }

    /// Sends one call to one endpoint, once.
    pub(crate) async fn attempt<Q, R, F>(
        &self,
        endpoint: &Endpoint,
        allowed: Duration,
        message: Q,
        send: impl Fn(Rpc, Request<Q>) -> F,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, tonic::Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(allowed);
        if self.options().stale_reads {
            request.metadata_mut().insert(STALE_KEY, MetadataValue::from_static("yes"));
        }
        let under_way = self.pool().begin(&endpoint.address);
        let sent = timeout(allowed, send(Self::rpc(endpoint), request)).await;
        drop(under_way);
        match sent {
            Ok(Ok(reply)) => {
                self.pool().answered(&endpoint.address, Instant::now());
                self.learn_members_beside();
                Ok(reply.into_inner())
            }
            Ok(Err(status)) => Err(Failure::new(&endpoint.address, &status)),
            Err(_) => Err(Failure::timeout(&endpoint.address, allowed)),
        }
    }

    /// Whom to ask first.
    pub(crate) fn choose(&self, wish: Wish) -> Endpoint {
        self.pool().choose(wish, Instant::now())
    }

    /// Waits as the budget says and chooses the endpoint to ask then.
    pub(crate) async fn go_on(
        &self,
        budget: &mut Budget,
        failure: Failure,
        endpoint: Endpoint,
    ) -> Result<Endpoint, Error> {
        self.book(&failure);
        let random = self.options().entropy.draw();
        let last = failure.clone();
        if self.options().learn_members && budget.asks_around(&failure) {
            let patience = LEARN_TIMEOUT.min(budget.left(Instant::now()));
            // Best effort: a failure only means that fewer endpoints are known.
            drop(self.members_of(&endpoint, patience).await);
        }
        let next = budget.spend(failure, Instant::now(), self.pool().len(), random)?;
        let (Next::Elsewhere { pause, .. } | Next::Here { pause }) = next;
        sleep(pause).await;
        budget.check_left(last, Instant::now())?;
        match next {
            Next::Here { .. } => Ok(endpoint),
            Next::Elsewhere { leader, .. } => {
                let leader = leader.and_then(|address| self.pool().learn(&address));
                let next = || self.pool().after(&endpoint.address, Instant::now());
                Ok(leader.unwrap_or_else(next))
            }
        }
    }

    /// Tells the endpoint's breaker of a failure that is one of the endpoint: a refusal is not.
    pub(crate) fn book(&self, failure: &Failure) {
        if failure.silent {
            self.pool().silent(&failure.address, Instant::now());
            *self.learn_at() = Instant::now();
        }
    }

    /// Learns once where the other members are, so that a long call outlives its endpoints.
    /// Best effort: a failure only means that fewer endpoints are known.
    pub(crate) async fn learn_members(&self) {
        if !self.shared.learned.load(Ordering::Relaxed) {
            self.ask_for_members().await;
        }
    }

    /// Learns who is there and who leads beside the calls, from time to time.
    fn learn_members_beside(&self) {
        let now = Instant::now();
        {
            let mut learn_at = self.learn_at();
            if !self.options().learn_members || now < *learn_at {
                return;
            }
            *learn_at = now + LEARN_EVERY;
        }
        let client = self.clone();
        // Ends by its timeouts, so nobody needs to wait for it.
        tokio::spawn(async move { client.ask_for_members().await });
    }

    async fn ask_for_members(&self) {
        let members = self.members_as(Kind::Local);
        let Ok(Ok(members)) = timeout(LEARN_TIMEOUT, members).await else { return };
        self.shared.learned.store(true, Ordering::Relaxed);
        self.meet(&members);
    }

    /// Learns who is there, and knocks at those that nobody has seen yet.
    pub(crate) fn meet(&self, members: &[Member]) {
        if !self.options().learn_members {
            return;
        }
        for unseen in self.pool().update(members) {
            let mut rpc = Self::rpc(&unseen);
            let client = self.clone();
            tokio::spawn(async move {
                let asked = timeout(LEARN_TIMEOUT, rpc.status(wire::StatusRequest {})).await;
                if let Ok(Ok(_)) = asked {
                    client.pool().seen(&unseen.address, Instant::now());
                }
            });
        }
    }

    fn learn_at(&self) -> MutexGuard<'_, Instant> {
        // One assignment each, so a panic cannot have left it half done.
        self.shared.learn_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_cancelled(job: &Job) -> bool {
    job.phase == Phase::Cancelled
}
