//! Random commands, sensible and absurd: every step is audited, and what must be equal is.

#[allow(dead_code, reason = "each test file uses its part")]
mod story;

use atelier_state::limits::FEATURES;
use atelier_state::{
    AllocateNode, ArtifactRef, Assign, Author, Cancel, Command, Complete, Digest, Expire, Fail,
    FencingToken, Forget, ForgetKeys, JobId, LogIndex, NodeId, NoteAct, RaiseFeatures,
    RegisterNode, Release, RemoveNode, Reply, Revoke, RevokeReason, SetNode, SetSettings,
    SettingChange, SettingValue, State, Submit, TenantKey, place,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use story::apply_audited;

fn config() -> ProptestConfig {
    ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_commands_keep_every_invariant(steps in steps()) {
        play(&steps, |_, _| {});
    }

    #[test]
    fn snapshot_restores_the_same_state(steps in steps(), at in any::<Index>()) {
        let at = at.index(steps.len());
        let mut step = 0;
        play(&steps, |state, _| {
            if step == at {
                let restored = State::from_snapshot(state.to_snapshot()).expect("it was made here");
                assert_eq!(restored.digest(), state.digest());
                // Indexes too.
                assert_eq!(&restored, state);
                *state = restored;
            }
            step += 1;
        });
    }

    #[test]
    fn replicas_agree_and_views_stay(steps in steps(), restart in any::<Index>()) {
        let restart = restart.index(steps.len());
        let (mut entries, mut replica, mut views) = (Vec::new(), State::new(), Vec::new());
        let state = play(&steps, |state, entry| {
            views.push((state.clone(), state.digest()));
            entries.push(entry.clone());
        });
        for (number, (index, command, reply)) in entries.iter().enumerate() {
            if number == restart {
                replica = State::from_snapshot(replica.to_snapshot()).expect("it was made here");
            }
            assert_eq!(replica.apply(*index, command), *reply);
            assert_eq!(replica.digest(), views[number].1, "after entry {number}");
        }
        assert_eq!(replica, state);
        for (view, digest) in &views {
            assert_eq!(view.digest(), *digest, "a view changed after it was taken");
        }
    }

    #[test]
    fn placement_is_accepted(
        steps in steps(),
        alive in btree_set((0..6_u64).prop_map(NodeId), 0..6),
        limit in 0..9_usize,
    ) {
        let mut state = play(&steps, |_, _| {});
        check_placement(&mut state, &alive, limit);
    }

    #[test]
    fn position_is_the_rank_in_the_queue(
        priorities in vec(0..3_u8, 1..700),
        gone in vec(any::<Index>(), 0..300),
    ) {
        let mut state = State::new();
        for (number, priority) in priorities.iter().enumerate() {
            let job = JobId(number as u128 + 1);
            state.apply(LogIndex(1), &Command::Submit(submit(job, *priority)));
        }
        for index in gone {
            let job = JobId(index.index(priorities.len()) as u128 + 1);
            let cancel = Cancel { job, reason: String::new(), finished_ms: 0 };
            state.apply(LogIndex(2), &Command::Cancel(cancel));
        }
        let order: Vec<JobId> = state.queued().map(|(id, _)| *id).collect();
        assert!(order.is_sorted_by_key(|id| (9 - priorities[id.0 as usize - 1], *id)));
        for (rank, id) in order.iter().enumerate() {
            assert_eq!(state.position(*id), Some(rank));
        }
    }
}

/// Without this the properties above might hold of commands that are all refused.
#[test]
fn random_commands_reach_every_answer() {
    let mut answers = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let steps = steps().new_tree(&mut runner).expect("steps are made").current();
        play(&steps, |state, (_, command, reply)| {
            answers.insert((word(command), word(reply)));
            answers.extend(state.jobs().map(|(_, job)| ("a job is".to_owned(), word(&job.phase))));
        });
    }
    let found: BTreeSet<String> =
        answers.into_iter().map(|(ask, answer)| format!("{ask} -> {answer}")).collect();
    let missing: Vec<&str> =
        include_str!("answers.txt").lines().filter(|line| !found.contains(*line)).collect();
    assert!(missing.is_empty(), "never seen: {missing:#?}\nseen: {found:#?}");
}

/// The names that a debug text begins with: `Refused(NoSlot)` without what follows.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let is_name = |it: &char| it.is_ascii_alphabetic();
    let first: String = text.chars().take_while(is_name).collect();
    match text.strip_prefix("Refused(") {
        Some(refusal) => {
            format!("{first} {}", refusal.chars().take_while(is_name).collect::<String>())
        }
        None => first,
    }
}

type Entry = (LogIndex, Command, Reply);

/// Applies the steps with an audit of each; `after` sees the state and what was applied.
fn play(steps: &[Step], mut after: impl FnMut(&mut State, &Entry)) -> State {
    let (mut state, mut index) = (State::new(), LogIndex(1));
    for step in steps {
        index = LogIndex(index.0 + step.index_skip);
        let command = step.op.command(&state);
        let reply = apply_audited(&mut state, index, &command);
        after(&mut state, &(index, command, reply));
    }
    state
}

fn check_placement(state: &mut State, alive: &BTreeSet<NodeId>, limit: usize) {
    let free: BTreeMap<NodeId, usize> = alive
        .iter()
        .filter_map(|id| Some((*id, state.node(*id).filter(|node| node.is_open())?)))
        .map(|(id, node)| (id, (node.slots as usize).saturating_sub(state.leases_of(id).count())))
        .collect();
    let assigns = place(state, alive, limit);

    let head: Vec<JobId> = state.queued().map(|(id, _)| *id).take(assigns.len()).collect();
    let chosen: Vec<JobId> = assigns.iter().map(|assign| assign.job).collect();
    assert_eq!(chosen, head, "jobs are served in order");
    let ready = state.queued_count() - state.delayed_count();
    let open = if state.paused() { 0 } else { free.values().sum() };
    let most = limit.min(ready).min(open);
    assert_eq!(assigns.len(), most, "no free slot is left beside a job that waits");

    let mut left = free;
    for assign in &assigns {
        let roomiest = left.values().max().copied().expect("a node was found");
        let expected = left.iter().find(|(_, slots)| **slots == roomiest).map(|(id, _)| *id);
        assert_eq!(Some(assign.node), expected, "the roomiest node with the least id");
        *left.get_mut(&assign.node).expect("it is alive") -= 1;
    }
    let index = LogIndex(state.applied().0 + 1);
    for assign in assigns {
        let reply = apply_audited(state, index, &Command::Assign(assign));
        assert_eq!(reply, Reply::Assigned { token: FencingToken(index.0) });
    }
}

#[derive(Clone, Debug)]
struct Step {
    index_skip: u64,
    op: Op,
}

/// A command, but for what must fit the state to be of interest.
#[derive(Clone, Debug)]
enum Op {
    Plain(Command),
    /// The incarnation is the node's, plus this.
    Assign(JobId, NodeId, u64),
    Complete(JobId, Token, Vec<ArtifactRef>),
    Fail(JobId, Token, String, bool),
    Revoke(JobId, Token),
    /// The incarnation is the node's, at least 1, plus and minus these.
    Register(RegisterNode, u64, u64),
    /// The expected version is the present one, plus this.
    Set(Vec<SettingChange>, u64),
}

#[derive(Clone, Debug)]
enum Token {
    Newest,
    NewestLess(u64),
    Any(u64),
}

impl Op {
    fn command(&self, state: &State) -> Command {
        match self.clone() {
            Op::Plain(command) => command,
            Op::Assign(job, node, more) => {
                let incarnation = incarnation(state, node).saturating_add(more);
                Command::Assign(Assign { job, node, incarnation })
            }
            Op::Complete(job, token, artifacts) => {
                let token = token.of(state, job);
                Command::Complete(Complete { job, token, artifacts, finished_ms: 7 })
            }
            Op::Fail(job, token, error, permanent) => {
                let token = token.of(state, job);
                Command::Fail(Fail { job, token, error, permanent, finished_ms: 7 })
            }
            Op::Revoke(job, token) => {
                let token = token.of(state, job);
                Command::Revoke(Revoke { job, token, reason: RevokeReason::Drained })
            }
            Op::Register(register, more, less) => {
                let known = incarnation(state, register.node).max(1);
                let incarnation = known.saturating_add(more).saturating_sub(less);
                Command::RegisterNode(RegisterNode { incarnation, ..register })
            }
            Op::Set(changes, more) => {
                let expected_version = state.settings_version() + more;
                let author = Author { who: "ann".to_owned(), ..Author::default() };
                Command::SetSettings(SetSettings { expected_version, changes, author })
            }
        }
    }
}

impl Token {
    fn of(&self, state: &State, job: JobId) -> FencingToken {
        let newest = state.job(job).and_then(|job| job.last_token).map_or(0, |token| token.0);
        FencingToken(match self {
            Token::Newest => newest,
            Token::NewestLess(less) => newest.saturating_sub(*less),
            Token::Any(token) => *token,
        })
    }
}

fn incarnation(state: &State, node: NodeId) -> u64 {
    state.node(node).map_or(0, |node| node.incarnation)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let skip = prop_oneof![5 => Just(0_u64), 5 => Just(1), 1 => 2..4_u64];
    let step = (skip, op()).prop_map(|(index_skip, op)| Step { index_skip, op });
    let raise = Op::Plain(Command::RaiseFeatures(RaiseFeatures { level: FEATURES }));
    let raise = Step { index_skip: 0, op: raise };
    // Most runs come to the last level, many at once.
    (vec(step, 1..160), prop_oneof![5 => Just(0), 3 => 0..160_usize, 2 => Just(usize::MAX)])
        .prop_map(move |(mut steps, at)| {
            if at <= steps.len() {
                steps.insert(at, raise.clone());
            }
            steps
        })
}

fn op() -> impl Strategy<Value = Op> {
    let plain = |command: BoxedStrategy<Command>| command.prop_map(Op::Plain).boxed();
    prop_oneof![
        5 => later(),
        6 => plain(submits()),
        6 => (job(), node(), select(vec![0, 0, 0, 0, 1, u64::MAX]))
            .prop_map(|(job, node, more)| Op::Assign(job, node, more)),
        4 => completing(),
        4 => (job(), token(), text(), prop::bool::weighted(0.2))
            .prop_map(|(job, token, error, permanent)| Op::Fail(job, token, error, permanent)),
        4 => (job(), token()).prop_map(|(job, token)| Op::Revoke(job, token)),
        1 => plain((job(), text()).prop_map(|(job, reason)| {
            Command::Cancel(Cancel { job, reason, finished_ms: 7 })
        }).boxed()),
        1 => plain(forgets()),
        1 => plain(text().prop_map(|address| {
            Command::AllocateNode(AllocateNode { address })
        }).boxed()),
        4 => registering(),
        1 => plain(node().prop_map(|node| Command::RemoveNode(RemoveNode { node, author: Author::default() })).boxed()),
    ]
}

/// What came with feature level 2 and 3.
fn later() -> impl Strategy<Value = Op> {
    let plain = |command: BoxedStrategy<Command>| command.prop_map(Op::Plain).boxed();
    let jobs = vec(job(), 0..5);
    let expiry = (job(), select(vec![3, 50, 100]));
    let key = (text(), select(vec!["k", "l", "m"]))
        .prop_map(|(tenant, key)| TenantKey { tenant: tenant.into(), key: key.into() });
    prop_oneof![
        6 => plain(jobs.prop_map(|jobs| Command::Release(Release { jobs })).boxed()),
        2 => plain(expiry.prop_map(|(job, finished_ms)| {
            Command::Expire(Expire { job, finished_ms })
        }).boxed()),
        1 => plain(vec(key, 0..9).prop_map(|keys| Command::ForgetKeys(ForgetKeys { keys })).boxed()),
        3 => (changes(), select(vec![0, 0, 0, 1])).prop_map(|(changes, more)| Op::Set(changes, more)),
        3 => plain(set_nodes()),
        1 => plain(select(vec![0, 1, 2, FEATURES, FEATURES + 1]).prop_map(|level| {
            Command::RaiseFeatures(RaiseFeatures { level })
        }).boxed()),
        1 => plain(Just(Command::Mark).boxed()),
        1 => plain(text().prop_map(|act| {
            let author = Author { who: act.clone(), ..Author::default() };
            Command::NoteAct(NoteAct { act, author })
        }).boxed()),
    ]
}

fn changes() -> impl Strategy<Value = Vec<SettingChange>> {
    let number = |number| Some(SettingValue::Number(number));
    let flag = |flag| Some(SettingValue::Flag(flag));
    let change = select(vec![
        ("queue.jobs_max", number(3)),
        ("queue.jobs_max", None),
        ("queue.tenant_jobs_max", number(1)),
        ("queue.tenant_jobs_max", None),
        ("queue.paused", flag(true)),
        ("queue.paused", flag(false)),
        ("queue.paused", None),
        ("queue.ageing_jobs", number(2)),
        ("queue.ageing_jobs", number(0)),
        ("jobs.backoff_ms_base", number(0)),
        ("jobs.backoff_ms_base", None),
        ("queue.weight.x", number(3)),
        ("queue.weight.x", number(0)),
        ("queue.unknown", None),
    ]);
    vec(change.prop_map(|(key, value)| SettingChange { key: key.to_owned(), value }), 1..3)
}

fn set_nodes() -> BoxedStrategy<Command> {
    let labels = vec((select(vec!["zone", "rack"]), text()), 0..2);
    (node(), proptest::option::of(prop::bool::weighted(0.4)), labels)
        .prop_map(|(node, draining, labels)| {
            let labels_set = labels.into_iter().map(|(it, value)| (it.to_owned(), value)).collect();
            let (labels_removed, author) = (vec!["rack".to_owned()], Author::default());
            Command::SetNode(SetNode { node, draining, labels_set, labels_removed, author })
        })
        .boxed()
}

fn completing() -> impl Strategy<Value = Op> {
    let parts = (job(), token(), artifacts());
    parts.prop_map(|(job, token, artifacts)| Op::Complete(job, token, artifacts))
}

fn registering() -> impl Strategy<Value = Op> {
    let moves = select(vec![(0, 0), (0, 0), (0, 0), (1, 0), (0, 1)]);
    (registers(), moves).prop_map(|(register, (more, less))| Op::Register(register, more, less))
}

fn submits() -> BoxedStrategy<Command> {
    let body = select(vec!["", "a cat", "a dog"]).prop_map(bytes::Bytes::from);
    let body = prop_oneof![9 => body, 1 => Just(bytes::Bytes::from(vec![7; 20_000]))];
    let keys = vec!["k", "k", "l", "m", "n", ""];
    let key = proptest::option::of(select(keys).prop_map(str::to_owned));
    let priorities = vec![0_u8, 5, 5, 5, 5, 5, 9, 9, 9, 9, 10, 255];
    let attempts_max = vec![0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 10, 11, u32::MAX];
    let later = select(vec![(0, 1), (0, 1), (0, 1), (50, 1), (0, 4), (0, 1), (0, 0), (50, 1_001)]);
    let numbers = (select(priorities), select(attempts_max), later);
    (job(), text(), key, numbers, text(), body, text())
        .prop_map(|(job, tenant, idempotency_key, numbers, kind, parameters, traceparent)| {
            let (priority, attempts_max, (deadline_ms, cost)) = numbers;
            let submitted_ms = 7;
            Command::Submit(Submit {
                job,
                tenant: tenant.into(),
                idempotency_key: idempotency_key.map(Into::into),
                priority,
                kind: kind.into(),
                parameters,
                traceparent,
                submitted_ms,
                attempts_max,
                deadline_ms,
                max_runtime_s: 0,
                cost,
                retry_of: None,
            })
        })
        .boxed()
}

fn forgets() -> BoxedStrategy<Command> {
    let jobs = prop_oneof![9 => vec(job(), 0..4), 1 => vec(job(), 250..260)];
    jobs.prop_map(|jobs| Command::Forget(Forget { jobs })).boxed()
}

fn registers() -> impl Strategy<Value = RegisterNode> {
    let slots = select(vec![0_u32, 1, 1, 2, 2, 2, 3, 3, 64, 65, u32::MAX]);
    (node(), text(), slots, text(), text()).prop_map(|(node, address, slots, class, model)| {
        RegisterNode { node, address, incarnation: 0, slots, class, model, witness: false }
    })
}

fn artifacts() -> impl Strategy<Value = Vec<ArtifactRef>> {
    let digest = select(vec![1_u8, 2, 3]).prop_map(|first| Digest([first; 32]));
    let holders = prop_oneof![1 => Just(vec![]), 12 => vec(node(), 1..3), 1 => vec(node(), 8..10)];
    let artifact = (digest, text(), holders)
        .prop_map(|(digest, media_type, holders)| ArtifactRef {
            digest,
            bytes: u64::MAX,
            media_type,
            holders,
        })
        .boxed();
    prop_oneof![14 => vec(artifact.clone(), 1..3), 1 => Just(vec![]), 1 => vec(artifact, 15..18)]
}

fn job() -> impl Strategy<Value = JobId> {
    prop_oneof![30 => (1..7_u128).prop_map(JobId), 1 => Just(JobId(0)), 1 => Just(JobId(u128::MAX))]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![30 => (1..4_u64).prop_map(NodeId),
        1 => Just(NodeId(0)), 1 => Just(NodeId(u64::MAX))]
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        8 => Just(Token::Newest),
        2 => (1..5_u64).prop_map(Token::NewestLess),
        1 => select(vec![0, 1, 2, 3, u64::MAX]).prop_map(Token::Any),
    ]
}

/// At and above each limit of a text.
const LENGTHS: [usize; 7] = [128, 129, 512, 513, 1024, 1025, 100_000];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        60 => select(vec!["x", "x", "x", "y"]).prop_map(str::to_owned),
        1 => Just(String::new()),
        1 => select(LENGTHS.to_vec()).prop_map(|it| "x".repeat(it)),
        1 => select(vec![100_usize, 342, 1_000]).prop_map(|it| "€".repeat(it)),
    ]
}

fn submit(job: JobId, priority: u8) -> Submit {
    Submit {
        job,
        tenant: "default".into(),
        idempotency_key: None,
        priority,
        kind: "text_to_image/v1".into(),
        parameters: "a cat".into(),
        traceparent: String::new(),
        submitted_ms: 0,
        attempts_max: 3,
        deadline_ms: 0,
        max_runtime_s: 0,
        cost: 1,
        retry_of: None,
    }
}
