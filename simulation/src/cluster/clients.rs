//! Clients: the real library, and what it was told.

use super::deeds::submit_call;
use super::diary::{self, Diary};
use super::plan::{Plan, Wish};
use crate::operations::{Call, Key};
use crate::world::Rng;
use atelier_client::{
    Client, ConnectError, Entropy, Error, Job, JobId, Line, Options, Phase, Submission, TextToImage,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// 2026-01-01 in milliseconds since the Unix epoch.
const WALL_ORIGIN_MS: u64 = 1_767_225_600_000;
/// Between two tries of a submission whose outcome is not known, or that was not taken.
const PAUSE: Duration = Duration::from_millis(500);

/// What clients were told, by the number of the job.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<BTreeMap<u64, Answers>>>);

/// What was said of one job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) accepted: bool,
    pub(crate) cancelled: bool,
    /// As a wait returned it.
    pub(crate) ended: Option<Job>,
}

impl Told {
    pub(crate) fn change(&self, job: u64, change: impl FnOnce(&mut Answers)) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(told.entry(job).or_default());
    }

    pub(crate) fn all(&self) -> BTreeMap<u64, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The id of a job by its number.
pub(crate) fn job_id(job: u64) -> JobId {
    JobId::from_parts(WALL_ORIGIN_MS + job, u128::from(job))
}

/// The job of a number, always the same one, with the idempotency key of its wish.
pub(crate) fn submission(job: u64) -> Submission {
    let mut parameters = TextToImage::new(format!("picture {job}"));
    parameters.seed = job;
    let idempotency_key = format!("wish {job}");
    Submission { job: job_id(job), idempotency_key, ..Submission::new(parameters) }
}

/// How clients reach the peers of a rig.
pub(crate) trait Reach: Clone + Send + Sync + 'static {
    /// The address of a peer.
    fn address(&self, peer: u64) -> String;

    /// A line of somebody to an address.
    fn line(&self, from: &str, to: &str) -> Result<Line, ConnectError>;
}

/// Makes a client that reaches some peers; one that is given a single peer reaches no other, though
/// that one names the leader.
pub(crate) fn client(reach: &impl Reach, name: &str, seed: u64, peers: &[u64]) -> Client {
    client_with(reach, name, seed, peers, Options::default())
}

/// Makes a client as the command line has one: it believes a peer only where a leader answers it.
pub(crate) fn operator(reach: &impl Reach, seed: u64, peers: &[u64]) -> Client {
    let options = Options { leader_confirmed: true, ..Options::default() };
    client_with(reach, "operator", seed, peers, options)
}

fn client_with(
    reach: &impl Reach,
    name: &str,
    seed: u64,
    peers: &[u64],
    options: Options,
) -> Client {
    let rng = Mutex::new(Rng::of(seed, name));
    let draw = move || rng.lock().unwrap_or_else(PoisonError::into_inner).bits();
    let options =
        Options { entropy: Entropy::from_fn(draw), learn_members: peers.len() > 1, ..options };
    let bound = <[u64; 1]>::try_from(peers).ok().map(|[peer]| reach.address(peer));
    let addresses: Vec<String> = peers.iter().map(|peer| reach.address(*peer)).collect();
    let (reach, name) = (reach.clone(), name.to_owned());
    let dial = move |address: &str| match &bound {
        Some(bound) if bound != address => {
            let reason = format!("this client is bound to {bound}");
            Err(ConnectError::Address { address: address.to_owned(), reason })
        }
        _ => reach.line(&name, address),
    };
    Client::with_dialer(addresses, options, dial).expect("the addresses are addresses")
}

/// Does what the plan's clients do.
pub(crate) fn play(plan: &Plan, reach: &impl Reach, told: &Told, diary: &Diary, origin: Instant) {
    let peers: Vec<u64> = (1..=plan.shape.peers).collect();
    for at in 0..plan.shape.clients {
        let client = client(reach, &format!("client-{at}"), plan.shape.seed, &peers);
        for wish in plan.wishes.iter().filter(|wish| wish.client == at) {
            let (client, wish, told) = (client.clone(), wish.clone(), told.clone());
            let diary = diary.clone();
            tokio::spawn(async move { fulfil(&client, &wish, (&told, &diary), origin).await });
        }
    }
}

async fn fulfil(client: &Client, wish: &Wish, (told, diary): (&Told, &Diary), origin: Instant) {
    sleep_until(origin + Duration::from_millis(wish.at_ms)).await;
    let (submission, key) = (submission(wish.job), Key::Job(wish.job));
    let accepted = loop {
        let (asked, call) = (client.submit(&submission), submit_call(&submission));
        match diary.write(wish.client, (key, call), asked, diary::submitted).await {
            Ok(accepted) => break accepted,
            // Whatever the reason, the same value may be submitted again.
            Err(_) => sleep(PAUSE).await,
        }
    };
    told.change(wish.job, |answers| answers.accepted = true);
    if wish.cancel_ms > 0 {
        sleep(Duration::from_millis(wish.cancel_ms)).await;
        let cancelled = loop {
            let asked = client.cancel(wish.id());
            match diary.write(wish.client, (key, Call::Cancel), asked, diary::cancelled).await {
                Ok(job) => break job.phase == Phase::Cancelled,
                Err(Error::Conflict { .. }) => break false,
                Err(_) => sleep(PAUSE).await,
            }
        };
        told.change(wish.job, |answers| answers.cancelled = cancelled);
    }
    let ended = loop {
        let asked = client.wait(&accepted);
        match diary.write(wish.client, (key, Call::Read), asked, diary::read).await {
            Ok(job) => break job,
            Err(_) => sleep(PAUSE).await,
        }
    };
    told.change(wish.job, |answers| answers.ended = Some(ended));
}

impl Wish {
    fn id(&self) -> JobId {
        job_id(self.job)
    }
}
