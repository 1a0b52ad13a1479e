//! The deciders against random worlds, and against a model of what they promise.

mod timed;

use super::*;
use crate::liveness::Beat;
use atelier_state::command::{Assign, Complete, RegisterNode, Submit};
use atelier_state::job::{ArtifactRef, Digest, JobId, Phase};
use atelier_state::lease::FencingToken;
use atelier_state::roster::NodeId;
use atelier_state::state::State;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LEASE: Duration = Duration::from_secs(2);
/// Where the wall clock begins.
const WALL_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Debug)]
enum Act {
    Submit,
    Register { node: u64, incarnation: u64, slots: u32 },
    Beat { node: u64, incarnation: u64, lists: bool },
    Complete { job: u128 },
    Pass { ms: u64 },
    NewLeader,
    Round,
}

fn act() -> impl Strategy<Value = Act> {
    let node = 1..4u64;
    prop_oneof![
        3 => Just(Act::Submit),
        2 => (node.clone(), 1..3u64, 0..4u32)
            .prop_map(|(node, incarnation, slots)| Act::Register { node, incarnation, slots }),
        6 => (node, 1..3u64, prop::bool::weighted(0.8))
            .prop_map(|(node, incarnation, lists)| Act::Beat { node, incarnation, lists }),
        2 => (1..20u128).prop_map(|job| Act::Complete { job }),
        4 => (0..1500u64).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::NewLeader),
        6 => Just(Act::Round),
    ]
}

/// A world with one leader, and a model of what was confirmed when.
struct World {
    state: State,
    now: Duration,
    liveness: Liveness,
    deciders: Deciders,
    // For each lease: when this leadership could first know of it, or last heard it listed.
    confirmed: BTreeMap<(JobId, FencingToken), Duration>,
    heard: BTreeMap<NodeId, (u64, Duration)>,
}

impl World {
    fn new() -> World {
        let mut liveness = Liveness::new(LEASE);
        liveness.lead(Duration::ZERO);
        World {
            state: State::new(),
            now: Duration::ZERO,
            liveness,
            deciders: Deciders::default(),
            confirmed: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// The wall clock stands where the port's clock does.
    fn at(&self) -> Moment {
        let wall_ms = WALL_MS + self.now.as_millis() as u64;
        Moment { now: self.now, wall_ms, is_agreed: true }
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Reply> {
        let index = atelier_state::LogIndex(self.state.applied().0 + 1);
        commands.iter().map(|command| self.state.apply(index, command)).collect()
    }

    fn act(&mut self, act: Act, jobs: &mut u128) -> Result<(), TestCaseError> {
        match act {
            Act::Submit => {
                *jobs += 1;
                self.apply(&[Command::Submit(submit(*jobs))]);
            }
            Act::Register { node, incarnation, slots } => {
                self.apply(&[register(node, incarnation, slots)]);
            }
            Act::Beat { node, incarnation, lists } => self.beat(NodeId(node), incarnation, lists),
            Act::Complete { job } => self.complete(JobId(job)),
            Act::Pass { ms } => self.now += Duration::from_millis(ms),
            Act::NewLeader => {
                self.liveness.lead(self.now);
                self.deciders = Deciders::default();
                self.confirmed.clear();
                self.heard.clear();
            }
            Act::Round => return self.round(),
        }
        Ok(())
    }

    fn beat(&mut self, node: NodeId, incarnation: u64, lists: bool) {
        let newest = self.heard.get(&node).map_or(0, |(incarnation, _)| *incarnation);
        let leases = self.state.leases_of(node);
        let own = leases.filter(|(_, lease)| lists && lease.incarnation == incarnation);
        let running: Vec<_> = own.map(|(job, lease)| (job, lease.token)).collect();
        if incarnation >= newest {
            self.heard.insert(node, (incarnation, self.now));
        }
        self.liveness.beat(self.now, Beat { node, incarnation, running, features: 1, wall_ms: 0 });
    }

    fn complete(&mut self, job: JobId) {
        let Some(token) = self.state.job(job).and_then(|job| job.lease()).map(|l| l.token) else {
            return;
        };
        let artifact = ArtifactRef {
            digest: Digest([1; 32]),
            bytes: 1,
            media_type: "image/png".to_owned(),
            holders: vec![NodeId(1)],
        };
        let artifacts = vec![artifact];
        self.apply(&[Command::Complete(Complete {
            job,
            token,
            artifacts,
            finished_ms: self.at().wall_ms,
        })]);
    }

    fn round(&mut self) -> Result<(), TestCaseError> {
        let view = View { state: self.state.clone(), applied: self.state.applied() };
        let commands = self.deciders.decide(self.at(), &view, &self.liveness, &BTreeSet::new());
        self.check_revokes(&commands)?;
        self.check_assigns(&commands)?;
        for (command, reply) in commands.iter().zip(self.apply(&commands)) {
            prop_assert!(!matches!(reply, Reply::Refused(_)), "{reply:?} to {command:?}");
        }
        Ok(())
    }

    /// Exactly the leases whose last confirmation is older than the lease time are revoked.
    fn check_revokes(&mut self, commands: &[Command]) -> Result<(), TestCaseError> {
        let mut expected = BTreeSet::new();
        let mut confirmed = BTreeMap::new();
        for (job, lease) in self.state.leases() {
            let key = (job, lease.token);
            let known = self.confirmed.get(&key).copied().unwrap_or(self.now);
            let listed = self.liveness.confirmed(lease.node, lease.incarnation, key);
            let last = known.max(listed.unwrap_or(Duration::ZERO));
            confirmed.insert(key, last);
            if self.now - last > LEASE {
                expected.insert(key);
            }
        }
        self.confirmed = confirmed;
        let revokes = commands.iter().filter_map(|command| match command {
            Command::Revoke(revoke) => Some((revoke.job, revoke.token)),
            _ => None,
        });
        prop_assert_eq!(revokes.collect::<BTreeSet<_>>(), expected);
        Ok(())
    }

    /// Only waiting jobs, each once, to processes that were heard in time, within their slots.
    fn check_assigns(&self, commands: &[Command]) -> Result<(), TestCaseError> {
        let mut jobs = BTreeSet::new();
        let mut given = BTreeMap::new();
        for command in commands {
            let Command::Assign(Assign { job, node, incarnation }) = command else { continue };
            prop_assert!(jobs.insert(*job), "{job} twice");
            prop_assert_eq!(&self.state.job(*job).expect("known").phase, &Phase::Queued);
            let (heard, at) = self.heard.get(node).copied().unwrap_or_default();
            prop_assert_eq!(heard, *incarnation);
            prop_assert!(self.now - at <= LEASE);
            *given.entry(*node).or_insert(0) += 1;
        }
        for (node, given) in given {
            let slots = self.state.node(node).expect("known").slots as usize;
            prop_assert!(given + self.state.leases_of(node).count() <= slots);
        }
        Ok(())
    }
}

fn submit(job: u128) -> Submit {
    Submit {
        job: JobId(job),
        tenant: "".into(),
        idempotency_key: None,
        priority: 0,
        kind: "k".into(),
        parameters: bytes::Bytes::new(),
        traceparent: String::new(),
        submitted_ms: 0,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    }
}

fn register(node: u64, incarnation: u64, slots: u32) -> Command {
    Command::RegisterNode(RegisterNode {
        node: NodeId(node),
        address: "http://a:1".to_owned(),
        incarnation,
        slots,
        class: String::new(),
        model: String::new(),
        witness: false,
    })
}

proptest! {
    #[test]
    fn deciders_keep_their_promises(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        let mut jobs = 0;
        for act in acts {
            world.act(act, &mut jobs)?;
        }
    }

    #[test]
    fn whoever_beats_and_lists_keeps_every_lease_and_all_jobs_are_given_out(
        slots in prop::collection::vec(1..4u32, 1..4), jobs in 1..30u128,
        pauses in prop::collection::vec(1..=2000u64, 60),
    ) {
        let mut world = World::new();
        for (node, slots) in (1..).zip(&slots) {
            world.apply(&[register(node, 1, *slots)]);
        }
        for job in 1..=jobs {
            world.apply(&[Command::Submit(submit(job))]);
        }
        for pause in pauses {
            for node in 1..=slots.len() as u64 {
                world.beat(NodeId(node), 1, true);
            }
            world.round()?;
            let leased: Vec<_> = world.state.leases().map(|(job, _)| job).collect();
            let room: u32 = slots.iter().sum();
            let waiting = world.state.queued_count();
            prop_assert!(waiting == 0 || leased.len() == room as usize);
            if let Some(job) = leased.first() {
                world.complete(*job);
            }
            world.now += Duration::from_millis(pause);
        }
        prop_assert!(world.state.jobs().all(|(_, job)| job.leases <= 1));
        prop_assert_eq!(world.state.terminal_count(), jobs as usize);
    }

    #[test]
    fn the_janitor_forgets_the_oldest_down_to_what_is_kept(jobs in 0..700u128, kept in 0..50usize) {
        let ended = || {
            let mut world = World::new();
            world.apply(&[register(1, 1, 1)]);
            for job in 1..=jobs {
                world.apply(&[Command::Submit(submit(job))]);
                let assign = Assign { job: JobId(job), node: NodeId(1), incarnation: 1 };
                world.apply(&[Command::Assign(assign)]);
                world.complete(JobId(job));
            }
            world
        };
        let first = jobs.saturating_sub(kept as u128) + 1;
        let bytes = ended().state.job(JobId(1)).map_or(0, |job| job.bytes()) * kept as u64;
        for mut janitor in [Janitor::keeping(kept), Janitor::keeping_bytes(bytes)] {
            let mut world = ended();
            for _ in 0..4 {
                let view = View { state: world.state.clone(), applied: world.state.applied() };
                let Some(command) = janitor.decide(world.at(), &view) else { break };
                world.now += Duration::from_millis(10);
                prop_assert_eq!(world.apply(&[command]), [Reply::Done]);
            }
            let left: Vec<_> = world.state.jobs().map(|(job, _)| job.0).collect();
            prop_assert_eq!(left, (first..=jobs).collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_engine_that_still_draws_a_cancelled_job_gets_no_other() {
    let mut world = World::new();
    let cancelled = JobId(1);
    world.apply(&[register(1, 1, 1), Command::Submit(submit(1))]);
    let assign = Assign { job: cancelled, node: NodeId(1), incarnation: 1 };
    let replies = world.apply(&[Command::Assign(assign)]);
    let [Reply::Assigned { token }] = replies[..] else { panic!("{replies:?}") };
    let cancel =
        atelier_state::command::Cancel { job: cancelled, reason: String::new(), finished_ms: 0 };
    world.apply(&[register(2, 1, 1), Command::Cancel(cancel)]);
    world.apply(&[Command::Submit(submit(2)), Command::Submit(submit(3))]);
    let beat = |node, running| {
        let node = NodeId(node);
        Beat { node, incarnation: 1, running, features: 1, wall_ms: 0 }
    };
    world.liveness.beat(world.now, beat(1, vec![(cancelled, token)]));
    world.liveness.beat(world.now, beat(2, Vec::new()));

    let nodes = |world: &mut World| -> Vec<NodeId> {
        let view = View { state: world.state.clone(), applied: world.state.applied() };
        let commands = world.deciders.decide(world.at(), &view, &world.liveness, &BTreeSet::new());
        let node = |command: &Command| match command {
            Command::Assign(assign) => Some(assign.node),
            _ => None,
        };
        commands.iter().filter_map(node).collect()
    };
    assert_eq!(nodes(&mut world), [NodeId(2)]);
    // It has come to its step's end and says so.
    world.liveness.beat(world.now, beat(1, Vec::new()));
    assert_eq!(nodes(&mut world), [NodeId(1), NodeId(2)]);
}
