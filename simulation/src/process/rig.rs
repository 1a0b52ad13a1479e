//! One run: starts the peers, lets clients and faults at them, heals, and demands rest.

use super::daemon;
use super::host::Host;
use super::network::Network;
use crate::checkers;
use crate::checkers::linear::{Sight, Tally};
use crate::cluster::chronicle::{Chronicle, Event};
use crate::cluster::clients::{self, Answers, Told};
use crate::cluster::deeds;
use crate::cluster::diary::{Diary, Serving};
use crate::cluster::{Fault, FaultKind, Plan, Run, Since, links};
use atelier_client::{Client, Phase, Status, Submission};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between two looks at the processes, and whether all has come to rest.
const LOOK: Duration = Duration::from_millis(200);
/// For the first leader: models are loaded meanwhile.
const FORMED: Duration = Duration::from_secs(60);
/// For one answer of one peer.
const ANSWER: Duration = Duration::from_secs(10);
/// For a fresh job, once everything has come to rest.
const FRESH: Duration = Duration::from_secs(30);
/// Jobs that are drawn for a second time are numbered from here.
const AGAIN: u64 = 2_000_000;

type Broken = (&'static str, String);

pub(super) struct Rig {
    plan: Plan,
    network: Network,
    hosts: BTreeMap<u64, Arc<Host>>,
    // The rig's own, each of which reaches one peer alone.
    clients: BTreeMap<u64, Client>,
    told: Told,
    diary: Diary,
    chronicle: Chronicle,
    tally: Tally,
    entries: u64,
    origin: Instant,
    directory: PathBuf,
}

impl Rig {
    pub(super) fn new(plan: &Plan) -> Rig {
        let daemon = daemon().unwrap_or_else(|why| panic!("{why}"));
        let name = format!("atelier-rig-{}-{}", std::process::id(), plan.shape.seed);
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let origin = Instant::now();
        let since: Since = Arc::new(move || origin.elapsed());
        let (network, chronicle) = (Network::new(plan.shape.peers), Chronicle::new(since.clone()));
        let places = (daemon.as_path(), directory.as_path());
        let host = |id| Arc::new(Host::new(id, &plan.shape, places, &network, &chronicle));
        let client = |id| {
            let (name, seed) = (format!("rig-{id}"), plan.shape.seed);
            (id, clients::client(&network, &name, seed, &[id]))
        };
        Rig {
            clients: (1..=plan.shape.peers).map(client).collect(),
            hosts: (1..=plan.shape.peers).map(|id| (id, host(id))).collect(),
            plan: plan.clone(),
            network,
            told: Told::default(),
            diary: Diary::new(since, |_| ()),
            chronicle,
            tally: Tally::default(),
            entries: 0,
            origin,
            directory,
        }
    }

    pub(super) async fn play(mut self) -> Run {
        let violation = self.course().await.err();
        let accepted = self.told.all().values().filter(|answers| answers.accepted).count();
        let run_ms = self.origin.elapsed().as_millis();
        self.hosts.values().for_each(|host| host.kill());
        match &violation {
            // The logs and disks tell how it came about.
            Some(_) => println!("what the peers left: {}", self.directory.display()),
            None => std::fs::remove_dir_all(&self.directory).expect("a directory of ours"),
        }
        Run {
            violation,
            operations: self.diary.operations(),
            tally: self.tally,
            glances: Vec::new(),
            events: self.chronicle.events(),
            hash: String::new(),
            faults: self.plan.faults_by_kind(),
            acts: BTreeMap::new(),
            calls: 0,
            accepted: u64::try_from(accepted).expect("a usize fits"),
            entries: self.entries,
            virtual_ms: u64::try_from(run_ms).expect("a run is short"),
        }
    }

    async fn course(&mut self) -> Result<(), Broken> {
        self.hosts.values().for_each(|host| host.start());
        self.formed().await?;
        let origin = Instant::now();
        clients::play(&self.plan, &self.network, &self.told, &self.diary, origin);
        let serving = |(id, host): (&u64, &Arc<Host>)| (*id, host.clone() as Arc<dyn Serving>);
        let serving = self.hosts.iter().map(serving).collect();
        deeds::play(&self.plan, &self.network, &serving, &self.diary, origin);
        let befalling: Vec<_> = self
            .plan
            .faults
            .iter()
            .map(|fault| {
                let around = (self.network.clone(), self.chronicle.clone());
                tokio::spawn(befall(fault.clone(), self.hosts.clone(), around, origin))
            })
            .collect();
        let healed = origin + Duration::from_millis(self.plan.shape.heal_ms);
        while Instant::now() < healed || befalling.iter().any(|it| !it.is_finished()) {
            self.look()?;
            sleep(LOOK).await;
        }
        let rest_by = Instant::now() + Duration::from_millis(self.plan.shape.settle_ms);
        loop {
            self.look()?;
            let Err(why) = self.rests().await else { break };
            if Instant::now() >= rest_by {
                return Err(("liveness", why));
            }
            sleep(LOOK).await;
        }
        self.judge().await?;
        self.draws_again().await?;
        self.draws_fresh().await?;
        self.look()?;
        self.judge_logs()?;
        self.tally = checkers::judge_operations(&self.diary.operations(), Sight::Clients)
            .map_err(|violation| (violation.property, violation.detail))?;
        Ok(())
    }

    /// Waits for the first leader, so that faults meet a cluster.
    async fn formed(&self) -> Result<(), Broken> {
        let by = Instant::now() + FORMED;
        loop {
            self.look()?;
            let Err(why) = self.statuses().await else { return Ok(()) };
            if Instant::now() >= by {
                return Err(("liveness", format!("the cluster was not formed: {why}")));
            }
            sleep(LOOK).await;
        }
    }

    /// No process ends that nobody has ended.
    fn look(&self) -> Result<(), Broken> {
        match self.hosts.values().find_map(|host| host.ended_by_itself()) {
            Some(why) => Err(("process", why)),
            None => Ok(()),
        }
    }

    /// What every peer says of itself, where all agree on a leader.
    async fn statuses(&self) -> Result<Vec<Status>, String> {
        let mut statuses = Vec::new();
        for (id, client) in &self.clients {
            let asked = timeout(ANSWER, client.status()).await;
            let status = asked.map_err(|_| format!("peer {id} does not answer"))?;
            statuses.push(status.map_err(|error| format!("peer {id}: {error}"))?);
        }
        let leader = statuses[0].leader;
        let agree = leader.is_some() && statuses.iter().all(|status| status.leader == leader);
        if agree { Ok(statuses) } else { Err("the peers name no one leader".to_owned()) }
    }

    /// Says why the cluster has not come to rest.
    async fn rests(&mut self) -> Result<(), String> {
        let told = self.told.all();
        for wish in &self.plan.wishes {
            let ended = told.get(&wish.job).is_some_and(|answers| answers.ended.is_some());
            if !ended {
                return Err(format!("whoever waits for job {} was not told its end", wish.job));
            }
        }
        let statuses = self.statuses().await?;
        let known = |status: &Status| (status.applied_index, status.state_digest.clone());
        let first = known(&statuses[0]);
        if let Some(other) = statuses.iter().find(|status| known(status) != first) {
            return Err(format!(
                "peer {} is at {:?}, another at {first:?}",
                other.node,
                known(other)
            ));
        }
        self.entries = first.0;
        Ok(())
    }

    /// Compares what clients were told with what every peer answers.
    async fn judge(&self) -> Result<(), Broken> {
        for (id, client) in &self.clients {
            for (number, answers) in self.told.all() {
                judge_at(client, *id, number, &answers).await?;
            }
        }
        Ok(())
    }

    /// Every picture is that of an undisturbed run.
    async fn draws_again(&self) -> Result<(), Broken> {
        let client = &self.clients[&1];
        for (number, answers) in self.told.all() {
            let Some(ended) = answers.ended.filter(|job| job.phase == Phase::Succeeded) else {
                continue;
            };
            let first = clients::submission(number);
            let again = Submission {
                job: clients::job_id(AGAIN + number),
                idempotency_key: String::new(),
                ..first
            };
            let drawn = draw(client, &again)
                .await
                .map_err(|why| ("liveness", format!("job {number} is drawn again: {why}")))?;
            let digests = |job: &atelier_client::Job| -> Vec<String> {
                job.artifacts.iter().map(|artifact| artifact.digest.clone()).collect()
            };
            if digests(&drawn) != digests(&ended) || drawn.artifacts.is_empty() {
                let detail =
                    format!("job {number} has another picture than an undisturbed run gives");
                return Err(("artifact", detail));
            }
        }
        Ok(())
    }

    /// A fresh job succeeds through every peer.
    async fn draws_fresh(&self) -> Result<(), Broken> {
        for (id, client) in &self.clients {
            let drawn = draw(client, &clients::submission(1_000_000 + id)).await;
            drawn.map_err(|why| ("liveness", format!("a fresh job through peer {id}: {why}")))?;
        }
        Ok(())
    }

    /// Nothing in a peer panics, and none of its invariants breaks.
    fn judge_logs(&self) -> Result<(), Broken> {
        for (id, host) in &self.hosts {
            let log = host.log();
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                return Err(("panic", format!("peer {id}: {line}")));
            }
        }
        Ok(())
    }
}

async fn draw(client: &Client, submission: &Submission) -> Result<atelier_client::Job, String> {
    let fresh = async {
        let accepted = client.submit(submission).await.map_err(|error| error.to_string())?;
        let job = client.wait(&accepted).await.map_err(|error| error.to_string())?;
        match job.phase {
            Phase::Succeeded => Ok(job),
            other => Err(format!("it ended as {other:?}: {}", job.error)),
        }
    };
    timeout(FRESH, fresh).await.unwrap_or_else(|_| Err(format!("not drawn within {FRESH:?}")))
}

async fn judge_at(
    client: &Client,
    host: u64,
    number: u64,
    answers: &Answers,
) -> Result<(), Broken> {
    let asked = client.job(clients::job_id(number)).await;
    let job = asked.map_err(|error| {
        ("kept", format!("job {number} was accepted, peer {host} says: {error}"))
    })?;
    if answers.cancelled && job.phase != Phase::Cancelled {
        let detail = format!("job {number} was called off and is {:?}", job.phase);
        return Err(("cancelled", detail));
    }
    let Some(ended) = &answers.ended else { return Ok(()) };
    if job.phase != ended.phase || job.artifacts != ended.artifacts {
        let detail = format!("job {number} was told as {ended:?}, peer {host} has {job:?}");
        return Err(("result", detail));
    }
    if job.phase == Phase::Failed {
        let detail = format!("job {number} failed, and nothing made it: {}", job.error);
        return Err(("result", detail));
    }
    Ok(())
}

/// Lets a fault begin, last and end.
async fn befall(
    fault: Fault,
    hosts: BTreeMap<u64, Arc<Host>>,
    (network, chronicle): (Network, Chronicle),
    origin: Instant,
) {
    let at = origin + Duration::from_millis(fault.at_ms);
    let until = at + Duration::from_millis(fault.for_ms);
    sleep_until(at).await;
    chronicle.note(Event::Fault { text: format!("{:?}", fault.kind), for_ms: fault.for_ms });
    match fault.kind {
        FaultKind::Crash { peer } => {
            hosts[&peer].hold();
            sleep_until(until).await;
            hosts[&peer].release();
        }
        FaultKind::PowerCut => {
            hosts.values().for_each(|host| host.hold());
            sleep_until(until).await;
            hosts.values().for_each(|host| host.release());
        }
        FaultKind::Pause { peer } => {
            hosts[&peer].signal(Signal::STOP);
            sleep_until(until).await;
            hosts[&peer].signal(Signal::CONT);
        }
        FaultKind::Skew { peer, by_ms } => {
            hosts[&peer].skew(by_ms);
            sleep_until(until).await;
            hosts[&peer].skew(0);
        }
        kind => {
            let links = links(kind, hosts.len() as u64);
            links.iter().for_each(|(from, to)| network.cut(*from, *to));
            sleep_until(until).await;
            links.iter().for_each(|(from, to)| network.mend(*from, *to));
        }
    }
}
