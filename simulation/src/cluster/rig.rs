//! One run: starts the machines, lets clients and faults at them, heals, and demands rest.

use super::chronicle::{Chronicle, Event};
use super::clients::{self, Told};
use super::clock::HostClock;
use super::deeds;
use super::diary::{Diary, Serving};
use super::eye::Onlooker;
use super::hardware::address;
use super::harm;
use super::host::Host;
use super::network::Network;
use super::operator::{self, Desk};
use super::plan::{Fault, FaultKind, Plan};
use super::rest::{Broken, Rest, draw_fresh};
use super::{Plant, Run, Since};
use crate::checkers;
use crate::checkers::linear::{Sight, Tally};
use crate::checkers::raft::Glance;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two questions for what the eye has seen, and whether all has come to rest.
const LOOK: Duration = Duration::from_millis(200);

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
        let since: Since = Arc::new(move || origin.elapsed());
        let chronicle = Chronicle::new(since.clone());
        let network = Network::new(plan.shape.seed, chronicle.clone());
        let onlooker = Onlooker::new(chronicle.clone());
        let around = (&network, &onlooker);
        let clock = || HostClock::new(since.clone());
        let host = |id| Arc::new(Host::new(id, &plan.shape, plant, around, clock()));
        Rig {
            hosts: (1..=plan.shape.peers + plan.shape.spares).map(host).collect(),
            plan: plan.clone(),
            network,
            told: Told::default(),
            desk: Desk::default(),
            diary: {
                let onlooker = onlooker.clone();
                Diary::new(since.clone(), move |index| onlooker.see(Glance::Acknowledged { index }))
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
        let accepted = self.told.all().values().filter(|answers| answers.accepted).count();
        let virtual_ms = self.origin.elapsed().as_millis();
        let run = Run {
            violation,
            operations: self.diary.operations(),
            tally: self.tally,
            glances: self.onlooker.glances(),
            events: self.chronicle.events(),
            hash,
            faults: self.plan.faults_by_kind(),
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
            let Err(why) = self.rest().rests() else { break };
            if Instant::now() >= rest_by {
                return Err(("liveness", why));
            }
            sleep(LOOK).await;
        }
        self.rest().judge_members(self.desk.belongs())?;
        self.rest().judge()?;
        let members = self.rest().members().map_err(|why| ("liveness", why))?;
        let members: Vec<u64> = members.iter().map(|host| host.id).collect();
        draw_fresh(&self.network, self.plan.shape.seed, &members).await?;
        self.onlooker.verdict()?;
        self.tally = checkers::judge_operations(&self.diary.operations(), Sight::Clients)
            .map_err(|violation| (violation.property, violation.detail))?;
        Ok(())
    }

    fn look(&mut self) -> Result<(), Broken> {
        self.hosts.iter().for_each(|host| host.reap());
        self.onlooker.verdict()
    }

    fn rest(&self) -> Rest<'_, Host> {
        let (plan, machines, told, onlooker) =
            (&self.plan, &self.hosts[..], &self.told, &self.onlooker);
        Rest { plan, machines, told, onlooker }
    }
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
            host(peer).hardware.fail_disk();
            sleep_until(until).await;
            host(peer).crash();
            host(peer).start().await;
        }
        FaultKind::Damage { peer, how } => harm::damage(&host(peer), how, until, &onlooker).await,
        FaultKind::OldDisk { peer } => harm::resurrect(&host(peer), until, &onlooker).await,
        FaultKind::SlowDisk { peer, by_ms } => {
            host(peer).hardware.disk.slow(by_ms);
            sleep_until(until).await;
            host(peer).hardware.disk.slow(0);
        }
        FaultKind::SlowLinks { by_ms } => {
            network.slow(by_ms);
            sleep_until(until).await;
            network.slow(0);
        }
        FaultKind::Skew { peer, by_ms } => {
            host(peer).hardware.clock.skew(by_ms);
            sleep_until(until).await;
            host(peer).hardware.clock.skew(0);
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
