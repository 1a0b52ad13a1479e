//! One run: starts the hosts, lets clients and faults at them tick by tick, heals, and demands rest.

use super::links::{CLIENTS, Links, name};
use super::machine::Host;
use super::sockets::{Sockets, Trace};
use crate::checkers;
use crate::checkers::linear::{Sight, Tally};
use crate::checkers::raft::Glance;
use crate::cluster::chronicle::{Chronicle, Event};
use crate::cluster::clients::{self, Told};
use crate::cluster::clock::HostClock;
use crate::cluster::deeds;
use crate::cluster::diary::{Diary, Serving};
use crate::cluster::eye::Onlooker;
use crate::cluster::hardware::Hardware;
use crate::cluster::rest::{Broken, Rest, draw_fresh};
use crate::cluster::{Fault, FaultKind, Plan, Plant, Run, Since, links};
use crate::panics;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use turmoil::{Builder, Sim};

/// How long each host runs before the next one does, and the least time that anything takes to arrive. Longer is
/// quicker, and must stay well below the heartbeat.
const TICK: Duration = Duration::from_millis(5);
/// The most that anything takes to arrive where no fault makes it slower.
const LATENCY_MAX: Duration = Duration::from_millis(10);
/// Segments under way on a connection. Whoever sends more waits, as where a window is full.
const SEGMENTS_MAX: usize = 4_096;
/// The longest run. turmoil asks for a bound; each phase has its own.
const RUN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two looks whether all has come to rest.
const LOOK: Duration = Duration::from_millis(200);
/// A cut of less than this delays what is on its way, as TCP sends it again; a longer one loses it.
const LOSS_MS: u64 = 2_000;

/// A run under way.
pub(super) struct Rig {
    // First, so that it goes first: what runs on hosts uses the rest.
    sim: Sim<'static>,
    plan: Plan,
    hosts: Vec<Arc<Host>>,
    sockets: Sockets,
    links: Links,
    /// How many faults keep a machine down.
    down: BTreeMap<u64, u64>,
    /// Beginnings and ends of faults that are to come.
    moments: VecDeque<Moment>,
    told: Told,
    diary: Diary,
    onlooker: Onlooker,
    chronicle: Chronicle,
    tally: Tally,
    /// Where the last step has come to, in microseconds.
    reached: Arc<AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    at_ms: u64,
    fault: Fault,
    begins: bool,
}

impl Rig {
    pub(super) fn new(plan: &Plan, plant: Option<Plant>) -> Rig {
        let reached = Arc::new(AtomicU64::new(0));
        let since = since(reached.clone());
        let (trace, chronicle) = (Trace::new(since.clone()), Chronicle::new(since.clone()));
        let (sockets, onlooker) = (Sockets { trace }, Onlooker::new(chronicle.clone()));
        let host = |id| {
            let clock = HostClock::new(since.clone());
            let hardware = Hardware::new(id, &plan.shape, plant, clock);
            Arc::new(Host::new(hardware, sockets.clone(), &onlooker, &chronicle))
        };
        let hosts: Vec<_> = (1..=plan.shape.peers).map(host).collect();
        let mut sim = Builder::new()
            .rng_seed(plan.shape.seed)
            .tick_duration(TICK)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(SEGMENTS_MAX)
            .simulation_duration(RUN_MAX)
            .enable_random_order()
            .build();
        for host in &hosts {
            let host = host.clone();
            sim.host(name(host.id), move || host.clone().live());
        }
        let seen = onlooker.clone();
        Rig {
            sim,
            hosts,
            sockets,
            links: Links::default(),
            down: BTreeMap::new(),
            moments: moments(&plan.faults),
            plan: plan.clone(),
            told: Told::default(),
            diary: Diary::new(since, move |index| seen.see(Glance::Acknowledged { index })),
            onlooker,
            chronicle,
            tally: Tally::default(),
            reached,
        }
    }

    pub(super) fn play(mut self) -> Run {
        let violation = self.course().err();
        let (hash, calls) = self.sockets.trace.end();
        let accepted = self.told.all().values().filter(|answers| answers.accepted).count();
        let virtual_ms = self.sim.elapsed().as_millis();
        Run {
            violation,
            operations: self.diary.operations(),
            tally: self.tally,
            glances: self.onlooker.glances(),
            events: self.chronicle.events(),
            hash,
            faults: self.plan.faults_by_kind(),
            acts: BTreeMap::new(),
            calls,
            accepted: u64::try_from(accepted).expect("a usize fits"),
            entries: self.onlooker.committed(),
            virtual_ms: u64::try_from(virtual_ms).expect("virtual time is short"),
        }
    }

    fn course(&mut self) -> Result<(), Broken> {
        self.let_clients_in();
        self.run_until(Duration::from_millis(self.plan.shape.heal_ms))?;
        let rest_by = self.sim.elapsed() + Duration::from_millis(self.plan.shape.settle_ms);
        while let Err(why) = self.rest().rests() {
            if self.sim.elapsed() >= rest_by {
                return Err(("liveness", why));
            }
            self.run_until(self.sim.elapsed() + LOOK)?;
        }
        self.rest().judge()?;
        self.draw_fresh()?;
        self.tally = checkers::judge_operations(&self.diary.operations(), Sight::Clients)
            .map_err(|violation| (violation.property, violation.detail))?;
        Ok(())
    }

    fn rest(&self) -> Rest<'_, Host> {
        let (plan, machines, told, onlooker) =
            (&self.plan, &self.hosts[..], &self.told, &self.onlooker);
        Rest { plan, machines, told, onlooker }
    }

    /// All clients share a host, so that one clock dates what they ask and are told.
    fn let_clients_in(&mut self) {
        let (plan, reach, told) = (self.plan.clone(), self.sockets.clone(), self.told.clone());
        let diary = self.diary.clone();
        let serving = |host: &Arc<Host>| (host.id, host.clone() as Arc<dyn Serving>);
        let serving = self.hosts.iter().map(serving).collect();
        self.sim.client(name(CLIENTS), async move {
            let origin = Instant::now();
            clients::play(&plan, &reach, &told, &diary, origin);
            deeds::play(&plan, &reach, &serving, &diary, origin);
            pending().await
        });
    }

    fn draw_fresh(&mut self) -> Result<(), Broken> {
        let (reach, seed) = (self.sockets.clone(), self.plan.shape.seed);
        let peers: Vec<u64> = self.hosts.iter().map(|host| host.id).collect();
        let drawn = Arc::<Mutex<Option<Result<(), Broken>>>>::default();
        let telling = drawn.clone();
        self.sim.client("prober", async move {
            let result = draw_fresh(&reach, seed, &peers).await;
            *telling.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            Ok(())
        });
        loop {
            self.step()?;
            if let Some(result) = drawn.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return result;
            }
        }
    }

    fn run_until(&mut self, until: Duration) -> Result<(), Broken> {
        while self.sim.elapsed() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Lets faults begin and end that are due, and every host run for a tick.
    fn step(&mut self) -> Result<(), Broken> {
        let now = self.sim.elapsed();
        let is_due = |moment: &Moment| Duration::from_millis(moment.at_ms) <= now;
        while let Some(moment) = self.moments.pop_front_if(|moment| is_due(moment)) {
            self.befall(&moment);
        }
        // A task that panics takes its host down with it, and turmoil the run.
        let stepped = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        let at = self.sim.elapsed().as_micros();
        self.reached.store(u64::try_from(at).expect("virtual time is short"), Ordering::SeqCst);
        match stepped {
            Ok(Ok(_)) => self.onlooker.verdict(),
            Ok(Err(error)) => Err(("host", error.to_string())),
            Err(_) => Err(("panic", panics::take().into_iter().next().unwrap_or_default())),
        }
    }

    fn befall(&mut self, Moment { fault, begins, .. }: &Moment) {
        let begins = *begins;
        let word = if begins { "begins" } else { "ends" };
        self.sockets.trace.note(&format!("{} {word}", fault.kind.name()));
        if begins {
            let text = format!("{:?}", fault.kind);
            self.chronicle.note(Event::Fault { text, for_ms: fault.for_ms });
        }
        match fault.kind {
            FaultKind::Crash { peer } => self.power(peer, !begins),
            FaultKind::PowerCut => {
                (1..=self.plan.shape.peers).for_each(|peer| self.power(peer, !begins));
            }
            FaultKind::Pause { peer } => self.pause(peer, begins),
            FaultKind::DiskFailure { peer } if begins => self.host(peer).hardware.fail_disk(),
            FaultKind::DiskFailure { peer } => {
                self.kill(peer);
                self.start(peer);
            }
            FaultKind::SlowDisk { peer, by_ms } => {
                self.host(peer).hardware.disk.slow(if begins { by_ms } else { 0 });
            }
            FaultKind::SlowLinks { by_ms } => {
                let more = if begins { Duration::from_millis(by_ms) } else { Duration::ZERO };
                self.sim.set_max_message_latency(LATENCY_MAX + more);
            }
            FaultKind::Skew { peer, by_ms } => {
                self.host(peer).hardware.clock.skew(if begins { by_ms } else { 0 });
            }
            FaultKind::Isolate { .. } | FaultKind::OneWay { .. } | FaultKind::Bridge { .. } => {
                self.part(fault, begins);
            }
            FaultKind::Damage { .. } | FaultKind::OldDisk { .. } => {
                panic!("the wire rig has no {}; the cluster rig does", fault.kind.name())
            }
        }
    }

    /// Cuts a machine's power, or gives it back. What it has sent and what is sent to it is lost: nobody is told
    /// that it has gone.
    fn power(&mut self, peer: u64, is_on: bool) {
        let others: Vec<u64> = (0..=self.plan.shape.peers).filter(|other| *other != peer).collect();
        for other in others {
            for (from, to) in [(peer, other), (other, peer)] {
                if is_on {
                    self.links.mend(&self.sim, from, to);
                } else {
                    self.links.cut(&self.sim, from, to);
                }
            }
        }
        let down = self.down.entry(peer).or_default();
        if is_on {
            *down -= 1;
            self.start(peer);
        } else {
            *down += 1;
            self.kill(peer);
        }
    }

    /// Kills the process of a machine, if there is one.
    fn kill(&mut self, peer: u64) {
        self.host(peer).crash();
        self.sim.crash(name(peer));
    }

    /// Starts a process, unless one runs or something keeps the machine down.
    fn start(&mut self, peer: u64) {
        let is_kept_down = self.down.get(&peer).is_some_and(|count| *count > 0);
        if !is_kept_down && !self.sim.is_host_running(name(peer)) {
            self.sim.bounce(name(peer));
        }
    }

    /// Lets a process stand still, or go on: its tasks do nothing, and nothing comes or goes. Its connections' own
    /// timers run on, as they would go off at once when it does.
    fn pause(&mut self, peer: u64, begins: bool) {
        if begins {
            self.host(peer).pause();
        } else {
            self.host(peer).resume();
        }
        for other in (0..=self.plan.shape.peers).filter(|other| *other != peer) {
            if begins {
                self.links.hold(&self.sim, peer, other);
            } else {
                self.links.release(&self.sim, peer, other);
            }
        }
    }

    /// Parts peers from one another, or joins them again.
    fn part(&mut self, fault: &Fault, begins: bool) {
        let is_short = fault.for_ms < LOSS_MS && !matches!(fault.kind, FaultKind::OneWay { .. });
        for (from, to) in links(fault.kind, self.plan.shape.peers) {
            match (is_short, begins) {
                (true, true) => self.links.hold(&self.sim, from, to),
                (true, false) => self.links.release(&self.sim, from, to),
                (false, true) => self.links.cut(&self.sim, from, to),
                (false, false) => self.links.mend(&self.sim, from, to),
            }
        }
    }

    fn host(&self, peer: u64) -> &Arc<Host> {
        &self.hosts[usize::try_from(peer - 1).expect("a peer of the plan")]
    }
}

/// The time of a run: of the host that asks, or of the last step where none does.
fn since(reached: Arc<AtomicU64>) -> Since {
    Arc::new(move || {
        let stepped = || Duration::from_micros(reached.load(Ordering::SeqCst));
        turmoil::sim_elapsed().unwrap_or_else(stepped)
    })
}

/// When faults begin and end, in order.
fn moments(faults: &[Fault]) -> VecDeque<Moment> {
    let both = |fault: &Fault| {
        let begin = Moment { at_ms: fault.at_ms, fault: fault.clone(), begins: true };
        [begin, Moment { at_ms: fault.at_ms + fault.for_ms, fault: fault.clone(), begins: false }]
    };
    let mut moments: Vec<Moment> = faults.iter().flat_map(both).collect();
    // What is due at the same moment keeps its order.
    moments.sort_by_key(|moment| moment.at_ms);
    moments.into()
}
