//! What the leader does as time passes: back-off, deadlines, long attempts, retention, levels.

use super::*;
use atelier_state::command::{Cancel, Fail, Forget, RaiseFeatures, Release, SetSettings};
use atelier_state::{Author, Phase, SettingChange, SettingValue};

/// A world at the newest feature level with one worker that lives.
fn leveled() -> World {
    let mut world = World::new();
    world.apply(&[Command::RaiseFeatures(RaiseFeatures { level: 2 }), register(1, 1, 4)]);
    world.beat(NodeId(1), 1, true);
    world
}

impl World {
    fn view(&self) -> View {
        View { state: self.state.clone(), applied: self.state.applied() }
    }

    fn decide(&mut self) -> Vec<Command> {
        let view = self.view();
        self.deciders.decide(self.at(), &view, &self.liveness, &BTreeSet::new())
    }

    /// Decides and applies, with the worker alive; tells what was decided.
    fn live(&mut self) -> Vec<Command> {
        self.beat(NodeId(1), 1, true);
        let commands = self.decide();
        for (command, reply) in commands.iter().zip(self.apply(&commands)) {
            assert!(!matches!(reply, Reply::Refused(_)), "{reply:?} to {command:?}");
        }
        commands
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn set(&mut self, key: &str, value: SettingValue) {
        let changes = vec![SettingChange { key: key.to_owned(), value: Some(value) }];
        let (expected_version, author) = (self.state.settings_version(), Author::default());
        let set = SetSettings { expected_version, changes, author };
        assert_eq!(self.apply(&[Command::SetSettings(set)]), [Reply::Done]);
    }

    fn fail(&mut self, job: u128, failed_ms: u64) {
        let token = self.state.job(JobId(job)).and_then(|job| job.last_token).expect("leased");
        let (job, error, finished_ms) = (JobId(job), "the engine died".to_owned(), failed_ms);
        let fail = Fail { job, token, error, permanent: false, finished_ms };
        assert_eq!(self.apply(&[Command::Fail(fail)]), [Reply::Done]);
    }

    fn phase(&self, job: u128) -> Phase {
        self.state.job(JobId(job)).expect("known").phase.clone()
    }
}

#[test]
fn a_failed_job_is_let_go_when_its_back_off_is_over_and_not_before() {
    let mut world = leveled();
    world.apply(&[Command::Submit(submit(1))]);
    world.live();
    world.fail(1, world.at().wall_ms);
    let retry_at_ms = world.state.job(JobId(1)).expect("known").retry_at_ms;
    let wait_ms = retry_at_ms - world.at().wall_ms;
    assert!((800..=1_200).contains(&wait_ms), "a second, more or less: {wait_ms}");
    world.live();
    world.pass(wait_ms - 1);
    assert_eq!(world.live(), []);
    assert_eq!(world.deciders.due(world.at(), &world.view()), Some(DUE_PAUSE));
    world.pass(1);
    let jobs = vec![JobId(1)];
    assert_eq!(world.live(), [Command::Release(Release { jobs })]);
    assert!(matches!(world.live()[..], [Command::Assign(_)]));
}

#[test]
fn a_clock_that_is_wrong_by_a_day_does_not_hold_a_job_back() {
    let mut world = leveled();
    world.apply(&[Command::Submit(submit(1))]);
    world.live();
    // Whoever recorded the failure lives a day ahead of this leader.
    world.fail(1, world.at().wall_ms + 86_400_000);
    // A back-off of a second has a fifth of it as its jitter.
    for _ in 0..5 {
        assert_eq!(world.live(), []);
        world.pass(150);
    }
    world.pass(600);
    let jobs = vec![JobId(1)];
    assert_eq!(world.live(), [Command::Release(Release { jobs })]);
}

#[test]
fn a_job_whose_deadline_passed_is_failed_whatever_it_does() {
    let mut world = leveled();
    let deadline_ms = world.at().wall_ms + 5_000;
    for job in [1, 2] {
        world.apply(&[Command::Submit(Submit { deadline_ms, ..submit(job) })]);
    }
    world.apply(&[register(1, 1, 1)]);
    world.live();
    assert!(matches!(world.phase(1), Phase::Leased(_)), "one runs, the other waits");
    world.pass(1_000);
    let left = world.deciders.due(world.at(), &world.view());
    assert_eq!(left, Some(Duration::from_secs(4)));
    world.pass(3_999);
    assert_eq!(world.live(), []);
    world.pass(1);
    assert_eq!(world.live().len(), 2, "no job of a round ends twice");
    assert_eq!((world.phase(1), world.phase(2)), (Phase::Failed, Phase::Failed));
}

#[test]
fn an_attempt_that_runs_too_long_is_failed_and_the_job_is_tried_again() {
    let mut world = leveled();
    world.apply(&[Command::Submit(Submit { max_runtime_s: 10, ..submit(1) })]);
    world.live();
    world.live();
    for _ in 0..10 {
        world.pass(1_000);
        assert_eq!(world.live(), []);
    }
    world.pass(1);
    assert!(matches!(world.live()[..], [Command::Fail(_)]));
    let job = world.state.job(JobId(1)).expect("known");
    assert_eq!(job.last_error(), Some("the attempt ran longer than max_runtime_s 10"));
    assert!(job.is_delayed(), "it has attempts left");
}

#[test]
fn jobs_are_forgotten_by_age_and_their_keys_a_day_after_their_end() {
    let mut world = leveled();
    world.set("retention.age_s", SettingValue::Number(3_600));
    let key = Some("k".into());
    world.apply(&[Command::Submit(Submit { idempotency_key: key, ..submit(1) })]);
    world.live();
    world.complete(JobId(1));
    world.pass(3_600_000);
    assert_eq!(world.live(), []);
    world.pass(1);
    let jobs = vec![JobId(1)];
    assert_eq!(world.live(), [Command::Forget(Forget { jobs })]);
    assert_eq!(world.state.forgotten_keys().count(), 1, "the key outlives its job");
    world.pass(82_799_999);
    assert_eq!(world.live(), []);
    world.pass(1);
    assert!(matches!(world.live()[..], [Command::ForgetKeys(_)]));
    assert_eq!(world.state.forgotten_keys().count(), 0);
}

#[test]
fn retention_goes_in_slices_with_a_pause_between() {
    let mut world = leveled();
    world.set("retention.jobs", SettingValue::Number(10));
    for job in 1..=600 {
        world.apply(&[Command::Submit(submit(job))]);
        let assign = Assign { job: JobId(job), node: NodeId(1), incarnation: 1 };
        world.apply(&[Command::Assign(assign)]);
        world.complete(JobId(job));
    }
    let mut slices = Vec::new();
    for _ in 0..40 {
        slices.extend(world.live().iter().filter_map(|command| match command {
            Command::Forget(forget) => Some(forget.jobs.len()),
            _ => None,
        }));
        world.pass(1);
    }
    assert_eq!(slices, [256, 256, 78]);
    assert_eq!(world.state.terminal_count(), 10);
}

#[test]
fn the_settings_are_live_and_a_pause_gives_out_nothing() {
    let mut world = leveled();
    world.set("queue.paused", SettingValue::Flag(true));
    world.apply(&[Command::Submit(submit(1))]);
    assert_eq!(world.live(), []);
    world.set("queue.paused", SettingValue::Flag(false));
    assert!(matches!(world.live()[..], [Command::Assign(_)]));
}

#[test]
fn the_level_is_raised_when_every_member_understands_it_and_is_heard() {
    let mut world = World::new();
    let members: BTreeSet<NodeId> = [NodeId(1), NodeId(2)].into();
    let beat = |world: &mut World, node, features| {
        let node = NodeId(node);
        let beat = Beat { node, incarnation: 1, running: Vec::new(), features, wall_ms: 0 };
        world.liveness.beat(world.now, beat);
    };
    let raised = |world: &World| raise(world.now, &world.view(), &world.liveness, &members);
    beat(&mut world, 1, 2);
    assert_eq!(raised(&world), None, "one was not heard of");
    beat(&mut world, 2, 1);
    assert_eq!(raised(&world), None, "one is old");
    beat(&mut world, 2, 9);
    assert_eq!(raised(&world), Some(Command::RaiseFeatures(RaiseFeatures { level: 2 })));
    world.pass(3_000);
    assert_eq!(raised(&world), None, "they have fallen silent");
    beat(&mut world, 1, 2);
    beat(&mut world, 2, 2);
    let command = raised(&world).expect("both speak again");
    assert_eq!(world.apply(&[command]), [Reply::Done]);
    assert_eq!(raised(&world), None, "it is raised once");
}

/// One wrong clock must not forget a history, nor fail what has time left.
#[test]
fn nothing_is_judged_by_age_before_most_clocks_are_known() {
    let mut world = leveled();
    world.set("retention.age_s", SettingValue::Number(3_600));
    let deadline_ms = world.at().wall_ms + 5_000;
    world
        .apply(&[Command::Submit(Submit { deadline_ms, ..submit(1) }), Command::Submit(submit(2))]);
    let cancel = Cancel { job: JobId(2), reason: String::new(), finished_ms: world.at().wall_ms };
    world.apply(&[Command::Cancel(cancel)]);
    world.pass(30 * 86_400_000);
    let view = world.view();
    let unknown = Moment { is_agreed: false, ..world.at() };
    let of_age = |command: &Command| {
        matches!(command, Command::Expire(_) | Command::Forget(_) | Command::ForgetKeys(_))
    };
    let commands = world.deciders.decide(unknown, &view, &world.liveness, &BTreeSet::new());
    assert!(!commands.iter().any(of_age), "{commands:?}");
    let commands = world.decide();
    assert_eq!(commands.iter().filter(|command| of_age(command)).count(), 2, "{commands:?}");
}

#[test]
fn the_clocks_of_voters_that_are_heard_are_told_and_a_silent_ones_not() {
    let mut liveness = Liveness::new(LEASE);
    liveness.lead(Duration::ZERO);
    let voters: BTreeSet<NodeId> = [NodeId(1), NodeId(2), NodeId(3)].into();
    let beat = |node, wall_ms| {
        let node = NodeId(node);
        Beat { node, incarnation: 1, running: Vec::new(), features: 1, wall_ms }
    };
    let now = Duration::from_secs(1);
    let own = (NodeId(1), WALL_MS);
    assert_eq!(liveness.clocks(now, own, &voters), [0]);
    liveness.beat(now, beat(2, WALL_MS + 70_000));
    liveness.beat(now, beat(3, 0));
    liveness.beat(now, beat(9, WALL_MS + 70_000));
    assert_eq!(liveness.clocks(now, own, &voters), [0, 70_000, 0], "the third did not tell");
    let set = (NodeId(1), WALL_MS + 70_000);
    assert_eq!(liveness.clocks(now, set, &voters), [0, 0, 0], "the leader's own was set since");
    let later = now + Duration::from_secs(1);
    assert_eq!(liveness.clocks(later, (NodeId(1), WALL_MS + 1_000), &voters), [0, 70_000, 0]);
    assert_eq!(liveness.clocks(now + 2 * LEASE, own, &voters), [0]);
}
