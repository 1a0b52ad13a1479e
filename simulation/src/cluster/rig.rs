//! One run: starts the machines, lets clients and faults at them, heals, and demands rest.

use super::chronicle::{Chronicle, Event};
use super::clients::{self, Answers, Told};
use super::clock::HostClock;
use super::deeds;
use super::diary::{Diary, Serving};
use super::engine::picture;
use super::eye::Onlooker;
use super::harm;
use super::host::{Host, address};
use super::network::Network;
use super::operator::{self, Desk};
use super::plan::{Fault, FaultKind, Plan};
use super::{Plant, Run};
use crate::checkers;
use crate::checkers::linear::{Sight, Tally};
use crate::checkers::raft::Glance;
use atelier_client::Phase as Ended;
use atelier_peer::ports::Log;
use atelier_state::{ArtifactRef, JobId, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between two questions for what the eye has seen, and whether all has come to rest.
const LOOK: Duration = Duration::from_millis(200);
/// For a fresh job, once everything has come to rest.
const FRESH: Duration = Duration::from_secs(30);

type Broken = (&'static str, String);

/// A run under way.
pub(crate) struct Rig {
    plan: Plan,
    network: Network,
    hosts: Vec<Arc<Host>>,
    told: Told,
    desk: Desk,
    diary: Diary,
    onlooker: Onlooker,
    chronicle: Chronicle,
    tally: Tally,
    origin: Instant,
}

impl Rig {
    pub(crate) fn new(plan: &Plan, plant: Option<Plant>) -> Rig {
        let origin = Instant::now();
        let chronicle = Chronicle::new(origin);
        let network = Network::new(plan.shape.seed, chronicle.clone());
        let onlooker = Onlooker::new(chronicle.clone());
        let around = (&network, &onlooker);
        let host = |id| Arc::new(Host::new(id, &plan.shape, plant, around, HostClock::new(origin)));
        Rig {
            hosts: (1..=plan.shape.peers + plan.shape.spares).map(host).collect(),
            plan: plan.clone(),
            network,
            told: Told::default(),
            desk: Desk::default(),
            diary: {
                let onlooker = onlooker.clone();
                Diary::new(origin, move |index| onlooker.see(Glance::Acknowledged { index }))
            },
            onlooker,
            chronicle,
            tally: Tally::default(),
            origin,
        }
    }

    pub(crate) async fn play(mut self) -> Run {
        let violation = self.course().await.err();
        let (hash, calls) = self.network.trace();
        let mut faults = BTreeMap::new();
        for fault in &self.plan.faults {
            *faults.entry(fault.kind.name()).or_default() += 1;
        }
        let accepted = self.told.all().values().filter(|answers| answers.accepted).count();
        let virtual_ms = self.origin.elapsed().as_millis();
        let run = Run {
            violation,
            operations: self.diary.operations(),
            tally: self.tally,
            glances: self.onlooker.glances(),
            events: self.chronicle.events(),
            hash,
            faults,
            acts: self.desk.done(),
            calls,
            accepted: u64::try_from(accepted).expect("a usize fits"),
            entries: self.onlooker.committed(),
            virtual_ms: u64::try_from(virtual_ms).expect("virtual time is short"),
        };
        self.hosts.iter().for_each(|host| host.crash());
        run
    }

    async fn course(&mut self) -> Result<(), Broken> {
        for host in &self.hosts {
            let host = host.clone();
            tokio::spawn(async move { host.start().await });
        }
        clients::play(&self.plan, &self.network, &self.told, &self.diary, self.origin);
        let serving = |host: &Arc<Host>| (host.id, host.clone() as Arc<dyn Serving>);
        let serving = self.hosts.iter().map(serving).collect();
        deeds::play(&self.plan, &self.network, &serving, &self.diary, self.origin);
        operator::play(&self.plan, &self.network, &self.hosts, &self.desk, self.origin);
        for fault in self.plan.faults.clone() {
            let around = (self.network.clone(), self.onlooker.clone());
            tokio::spawn(befall(fault, self.hosts.clone(), around, self.origin));
        }
        let healed = self.origin + Duration::from_millis(self.plan.shape.heal_ms);
        // Each act has its time, so this ends.
        while Instant::now() < healed || !self.desk.has_ended() {
            self.look()?;
            sleep(LOOK).await;
        }
        let rest_by = Instant::now() + Duration::from_millis(self.plan.shape.settle_ms);
        loop {
            self.look()?;
            let Err(why) = self.rests() else { break };
            if Instant::now() >= rest_by {
                return Err(("liveness", why));
            }
            sleep(LOOK).await;
        }
        self.judge_members()?;
        self.judge()?;
        self.draws_fresh().await?;
        self.onlooker.verdict()?;
        self.tally = checkers::judge_operations(&self.diary.operations(), Sight::Clients)
            .map_err(|violation| (violation.property, violation.detail))?;
        Ok(())
    }

    fn look(&mut self) -> Result<(), Broken> {
        self.hosts.iter().for_each(|host| host.reap());
        self.onlooker.verdict()
    }

    /// The machines whose peers belong to the cluster, by what its leader says.
    ///
    /// # Errors
    /// Says why nobody can tell.
    fn members(&self) -> Result<Vec<Arc<Host>>, String> {
        let statuses = self.hosts.iter().filter_map(|host| host.peer());
        let statuses: Vec<_> = statuses.map(|peer| peer.raft().status().borrow().clone()).collect();
        let mut leading = statuses.iter().filter(|status| status.is_leader);
        let (Some(leader), None) = (leading.next(), leading.next()) else {
            let count = statuses.iter().filter(|status| status.is_leader).count();
            return Err(format!("{count} peers lead"));
        };
        let belongs =
            |host: &&Arc<Host>| leader.addresses.values().any(|known| *known == address(host.id));
        Ok(self.hosts.iter().filter(belongs).cloned().collect())
    }

    /// Says why the cluster has not come to rest.
    fn rests(&self) -> Result<(), String> {
        let told = self.told.all();
        for wish in &self.plan.wishes {
            let ended = told.get(&wish.job).is_some_and(|answers| answers.ended.is_some());
            if !ended {
                return Err(format!("whoever waits for job {} was not told its end", wish.job));
            }
        }
        let (members, mut agreed) = (self.members()?, None);
        for host in &self.hosts {
            let is_member = members.iter().any(|member| member.id == host.id);
            if !is_member && host.peer().is_some() {
                return Err(format!("peer {} is no member and runs", host.id));
            }
        }
        for host in &members {
            let peer = host.peer().ok_or_else(|| format!("peer {} does not run", host.id))?;
            let reasons = peer.unready_reasons();
            if !reasons.is_empty() {
                return Err(format!("peer {} is not ready: {}", host.id, reasons.join(", ")));
            }
            let status = peer.raft().status().borrow().clone();
            let known = (status.applied, status.voters, status.addresses);
            if *agreed.get_or_insert_with(|| known.clone()) != known {
                return Err(format!("peer {} knows {known:?}, another {agreed:?}", host.id));
            }
        }
        Ok(())
    }

    /// Who was said to have come or left has.
    fn judge_members(&self) -> Result<(), Broken> {
        let members = self.members().map_err(|why| ("liveness", why))?;
        for (machine, belongs) in self.desk.belongs() {
            let is_member = members.iter().any(|member| member.id == machine);
            if is_member != belongs {
                let detail = format!(
                    "machine {machine} belongs to the cluster: {is_member}, the operator was told: {belongs}"
                );
                return Err(("membership", detail));
            }
        }
        Ok(())
    }

    /// Compares what clients were told with what every peer holds.
    fn judge(&self) -> Result<(), Broken> {
        let members = self.members().map_err(|why| ("liveness", why))?;
        for (job, answers) in self.told.all() {
            for host in &members {
                self.judge_at(host, job, &answers)?;
            }
        }
        Ok(())
    }

    fn judge_at(&self, host: &Host, number: u64, answers: &Answers) -> Result<(), Broken> {
        let peer = host.peer().expect("all run, as the cluster rests");
        let view = peer.raft().view().borrow().clone();
        let id = JobId::from_bytes(ulid_bytes(number));
        let Some(job) = view.state.job(id) else {
            return Err(("kept", format!("job {number} was accepted, peer {} has none", host.id)));
        };
        if answers.cancelled && job.phase != Phase::Cancelled {
            let phase = job.phase.name();
            return Err(("cancelled", format!("job {number} was called off and is {phase}")));
        }
        let Some(ended) = &answers.ended else { return Ok(()) };
        let same = match ended.phase {
            Ended::Succeeded => job.phase == Phase::Succeeded,
            Ended::Cancelled => job.phase == Phase::Cancelled,
            Ended::Failed => job.phase == Phase::Failed,
            Ended::Queued | Ended::Leased => false,
        };
        if !same {
            let phase = job.phase.name();
            let detail = format!("job {number} was told as {:?} and is {phase}", ended.phase);
            return Err(("result", detail));
        }
        if job.phase == Phase::Failed {
            let error = job.attempts.last().map_or("", |attempt| attempt.error.as_str());
            return Err(("result", format!("job {number} failed, and nothing made it: {error}")));
        }
        if job.phase != Phase::Succeeded {
            return Ok(());
        }
        let drawn = |class| *blake3::hash(&picture(class, &job.submit.parameters)).as_bytes();
        let mut expected = (0..self.plan.shape.classes.max(1)).map(drawn);
        let found: Vec<_> = job.artifacts.iter().map(|artifact| artifact.digest.0).collect();
        if !expected.any(|digest| found == [digest]) {
            let detail = format!("job {number} has another picture than an undisturbed run gives");
            return Err(("artifact", detail));
        }
        self.judge_copies(number, &job.artifacts)
    }

    /// Who is named as a holder of a result holds it: the log said so when the job was completed.
    fn judge_copies(&self, number: u64, artifacts: &[ArtifactRef]) -> Result<(), Broken> {
        for artifact in artifacts {
            for holder in &artifact.holders {
                let machine = self.onlooker.machine_of(holder.0);
                let host = self.hosts.iter().find(|host| host.id == machine);
                if host.is_some_and(|host| !host.holds(artifact.digest)) {
                    let detail = format!(
                        "node {holder} is named as a holder of the picture of job {number} and has none"
                    );
                    return Err(("copies", detail));
                }
            }
        }
        Ok(())
    }

    /// A fresh job succeeds through every peer.
    async fn draws_fresh(&self) -> Result<(), Broken> {
        for host in self.members().map_err(|why| ("liveness", why))? {
            let (number, seed) = (1_000_000 + host.id, self.plan.shape.seed);
            let client =
                clients::client(&self.network, &format!("prober-{}", host.id), seed, &[host.id]);
            let fresh = async {
                let submission = clients::submission(number);
                let accepted = client.submit(&submission).await.map_err(|e| e.to_string())?;
                let job = client.wait(&accepted).await.map_err(|e| e.to_string())?;
                match job.phase {
                    Ended::Succeeded if job.leases > 1 => {
                        Err(format!("nothing disturbs it, and it took {} leases", job.leases))
                    }
                    Ended::Succeeded => Ok(()),
                    other => Err(format!("it ended as {other:?}")),
                }
            };
            let drawn = timeout(FRESH, fresh).await;
            let drawn = drawn.unwrap_or_else(|_| Err(format!("not drawn within {FRESH:?}")));
            if let Err(why) = drawn {
                return Err(("liveness", format!("a fresh job through peer {}: {why}", host.id)));
            }
        }
        Ok(())
    }
}

fn ulid_bytes(number: u64) -> [u8; 16] {
    let id = clients::job_id(number).to_string();
    let id: ulid::Ulid = id.parse().expect("an id is a ULID");
    id.to_bytes()
}

/// Lets a fault begin, last and end.
async fn befall(
    fault: Fault,
    hosts: Vec<Arc<Host>>,
    (network, onlooker): (Network, Onlooker),
    origin: Instant,
) {
    let at = origin + Duration::from_millis(fault.at_ms);
    let until = at + Duration::from_millis(fault.for_ms);
    let host = |id: u64| hosts[usize::try_from(id - 1).expect("a peer of the plan")].clone();
    sleep_until(at).await;
    network.note(&format!("{} begins", fault.kind.name()));
    network.tell(Event::Fault { text: format!("{:?}", fault.kind), for_ms: fault.for_ms });
    match fault.kind {
        FaultKind::Crash { peer } => {
            host(peer).hold();
            sleep_until(until).await;
            host(peer).release().await;
        }
        FaultKind::PowerCut => {
            hosts.iter().for_each(|host| host.hold());
            sleep_until(until).await;
            futures_util::future::join_all(hosts.iter().map(|host| host.release())).await;
        }
        FaultKind::Pause { peer } => {
            host(peer).pause();
            sleep_until(until).await;
            host(peer).resume();
        }
        FaultKind::DiskFailure { peer } => {
            host(peer).fail_disk();
            sleep_until(until).await;
            host(peer).crash();
            host(peer).start().await;
        }
        FaultKind::Damage { peer, how } => harm::damage(&host(peer), how, until, &onlooker).await,
        FaultKind::OldDisk { peer } => harm::resurrect(&host(peer), until, &onlooker).await,
        FaultKind::SlowDisk { peer, by_ms } => {
            host(peer).disk.slow(by_ms);
            sleep_until(until).await;
            host(peer).disk.slow(0);
        }
        FaultKind::SlowLinks { by_ms } => {
            network.slow(by_ms);
            sleep_until(until).await;
            network.slow(0);
        }
        FaultKind::Skew { peer, by_ms } => {
            host(peer).clock.skew(by_ms);
            sleep_until(until).await;
            host(peer).clock.skew(0);
        }
        FaultKind::Isolate { .. } | FaultKind::OneWay { .. } | FaultKind::Bridge { .. } => {
            let links = links(fault.kind, hosts.len() as u64);
            links.iter().for_each(|(from, to)| network.cut(&address(*from), &address(*to)));
            sleep_until(until).await;
            links.iter().for_each(|(from, to)| network.mend(&address(*from), &address(*to)));
        }
    }
    network.note(&format!("{} ends", fault.kind.name()));
}

/// The links that a fault cuts, each with its direction.
pub(crate) fn links(kind: FaultKind, peers: u64) -> Vec<(u64, u64)> {
    let pairs = (1..=peers).flat_map(|from| (1..=peers).map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs
        .filter(|(from, to)| match kind {
            FaultKind::Isolate { peer } => *from == peer || *to == peer,
            FaultKind::OneWay { from: silent, to: deaf } => (*from, *to) == (silent, deaf),
            FaultKind::Bridge { peer } => *from != peer && *to != peer,
            _ => false,
        })
        .collect()
}
