//! What Prometheus scrapes: names, help, types, and how each is found.
//!
//! Owns a registry per peer, no global. Labels are bounded: never a prompt, a job or a tenant. What
//! the view and the Raft status know is read at each scrape; only events are counted as they
//! happen.

use crate::ports::RaftStatus;
use crate::ports::engine::EngineState;
use atelier_state::{Job, LogIndex, NodeId, Phase, State};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Metrics of one peer.
pub(crate) struct Metrics {
    registry: Registry,
    submissions: Family<Outcome, Counter>,
    requests: Family<Call, Histogram, fn() -> Histogram>,
    finished: Family<Outcome, Counter>,
    images: Counter,
    steps: Counter,
    step_duration: Histogram,
    stage_duration: Family<Stage, Histogram, fn() -> Histogram>,
    leader_changes: Counter,
    engine_restarts: Counter,
    job_duration: Family<Outcome, Histogram, fn() -> Histogram>,
    /// Whose disk is told of.
    data: PathBuf,
    scraped: Scraped,
    cursor: Mutex<Cursor>,
}

/// What a scrape looks at.
pub(crate) struct Observed<'a> {
    pub(crate) state: &'a State,
    pub(crate) raft: &'a RaftStatus,
    /// None for a peer without an engine.
    pub(crate) engine: Option<&'a EngineState>,
    pub(crate) ready: bool,
    /// Wall clock in milliseconds.
    pub(crate) now_ms: u64,
}

/// What is set at each scrape.
#[derive(Default)]
struct Scraped {
    queue_depth: Family<Priority, Gauge>,
    queue_oldest_age: Gauge<f64, AtomicU64>,
    jobs: Family<JobPhase, Gauge>,
    jobs_running: Gauge,
    artifacts: Gauge,
    artifact_bytes: Gauge,
    ready: Gauge,
    engine_state: Family<Engine, Gauge>,
    model: Family<Model, Gauge>,
    disk_free: Gauge,
    disk_size: Gauge,
    is_leader: Gauge,
    term: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    follower_lag: Family<Peer, Gauge>,
    members: Family<Role, Gauge>,
}

/// How far events were counted that only the view tells.
#[derive(Default)]
struct Cursor {
    /// Jobs that ended up to here are counted; none before the first readiness.
    finished: Option<LogIndex>,
    leader: Option<NodeId>,
    engine_was_ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    api: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Priority {
    priority: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Engine {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
    class: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

/// Phases as labels, in the order of a job's life.
const PHASES: [&str; 5] = ["queued", "leased", "succeeded", "failed", "cancelled"];
/// What may come of a `Submit`, as labels.
const SUBMIT_OUTCOMES: [&str; 5] = ["accepted", "duplicate", "refused", "unavailable", "unknown"];
/// States of an engine as labels; one of them is 1.
const ENGINE_STATES: [&str; 4] = ["none", "loading", "ready", "unfit"];

impl Metrics {
    /// Metrics of the peer whose data lie in a directory.
    pub(crate) fn new(data: &Path) -> Self {
        // From a fast step on a GPU to a slow picture on a CPU: 5 ms to 5.8 min.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 17));
        let mut metrics = Self {
            registry: Registry::with_prefix("atelier"),
            submissions: Family::default(),
            requests: Family::new_with_constructor(seconds),
            finished: Family::default(),
            images: Counter::default(),
            steps: Counter::default(),
            step_duration: seconds(),
            stage_duration: Family::new_with_constructor(seconds),
            leader_changes: Counter::default(),
            engine_restarts: Counter::default(),
            job_duration: Family::new_with_constructor(seconds),
            data: data.to_owned(),
            scraped: Scraped::default(),
            cursor: Mutex::default(),
        };
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        metrics.registry.register("build", "Version of this peer", Info::new(version));
        metrics.register_events();
        metrics.register_queue();
        metrics.register_raft();
        // Counters that are zero are told, so that a rate over them starts with the first event.
        for outcome in SUBMIT_OUTCOMES {
            drop(metrics.submissions.get_or_create(&Outcome { outcome }));
        }
        for outcome in &PHASES[2..] {
            drop(metrics.finished.get_or_create(&Outcome { outcome }));
            drop(metrics.job_duration.get_or_create(&Outcome { outcome }));
        }
        metrics
    }

    fn register_events(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "submissions",
            "Submit calls at this peer: accepted, duplicate, refused, unavailable or unknown",
            self.submissions.clone(),
        );
        let help = "Time that a call took at this peer, by API and gRPC status";
        let (unit, requests) = (Unit::Seconds, self.requests.clone());
        registry.register_with_unit("request_duration", help, unit, requests);
        registry.register(
            "jobs",
            "Jobs of the cluster that ended while this peer ran, by outcome",
            self.finished.clone(),
        );
        let help =
            "Time from a job's acceptance to its end, of those jobs, by the peers' wall clocks";
        let (unit, durations) = (Unit::Seconds, self.job_duration.clone());
        registry.register_with_unit("job_duration", help, unit, durations);
        registry.register("images", "Pictures that this peer drew", self.images.clone());
        registry.register("steps", "Denoise steps that this peer did", self.steps.clone());
        let help = "Time of one denoise step on this peer";
        let step_duration = self.step_duration.clone();
        registry.register_with_unit("step_duration", help, Unit::Seconds, step_duration);
        let help = "Time of one stage of a picture on this peer";
        let stage_duration = self.stage_duration.clone();
        registry.register_with_unit("stage_duration", help, Unit::Seconds, stage_duration);
    }

    fn register_queue(&mut self) {
        let (registry, scraped) = (&mut self.registry, &self.scraped);
        registry.register(
            "queue_depth",
            "Jobs of the cluster that wait, by priority, 9 first",
            scraped.queue_depth.clone(),
        );
        let help = "Age of the oldest job that waits, by the wall clock of whoever accepted it";
        let oldest = scraped.queue_oldest_age.clone();
        registry.register_with_unit("queue_oldest_age", help, Unit::Seconds, oldest);
        let help = "Jobs of the cluster that are remembered, by phase";
        registry.register("jobs_remembered", help, scraped.jobs.clone());
        let help = "Jobs of the cluster that a worker holds";
        registry.register("jobs_running", help, scraped.jobs_running.clone());
        let help = "Results that this peer holds, as the jobs name it";
        registry.register("artifacts", help, scraped.artifacts.clone());
        let help = "Bytes of the results that this peer holds";
        registry.register_with_unit("artifact", help, Unit::Bytes, scraped.artifact_bytes.clone());
        registry.register("ready", "1 while this peer serves", scraped.ready.clone());
        let help = "1 for the state that this peer's engine is in";
        registry.register("engine_state", help, scraped.engine_state.clone());
        let help = "How often this peer's engine was lost after it had been ready";
        registry.register("engine_restarts", help, self.engine_restarts.clone());
        let help = "1 for the model and the determinism class that this peer draws with";
        registry.register("model_info", help, scraped.model.clone());
        let help = "Bytes that are free on the disk of this peer's data";
        registry.register_with_unit("disk_free", help, Unit::Bytes, scraped.disk_free.clone());
        let help = "Size of that disk";
        registry.register_with_unit("disk_size", help, Unit::Bytes, scraped.disk_size.clone());
    }

    fn register_raft(&mut self) {
        let (registry, scraped) = (&mut self.registry, &self.scraped);
        registry.register("raft_is_leader", "1 on the leader", scraped.is_leader.clone());
        registry.register("raft_term", "Election that this peer knows of", scraped.term.clone());
        let help = "Index up to which the log is agreed upon, as far as this peer knows";
        registry.register("raft_commit_index", help, scraped.commit_index.clone());
        let help = "Index of the last entry that is applied here";
        registry.register("raft_applied_index", help, scraped.applied_index.clone());
        let help = "How often this peer saw another leader";
        registry.register("raft_leader_changes", help, self.leader_changes.clone());
        let help = "Entries that a peer lacks; told by the leader alone";
        registry.register("raft_follower_lag_entries", help, scraped.follower_lag.clone());
        let help = "Members of the cluster, by role";
        registry.register("raft_members", help, scraped.members.clone());
    }

    /// Counts a `Submit` by what came of it.
    pub(crate) fn submitted(&self, outcome: &'static str) {
        self.submissions.get_or_create(&Outcome { outcome }).inc();
    }

    /// Notes how long a call took.
    pub(crate) fn called(&self, api: &'static str, outcome: &'static str, took: Duration) {
        self.requests.get_or_create(&Call { api, outcome }).observe(took.as_secs_f64());
    }

    /// Notes one denoise step.
    pub(crate) fn stepped(&self, took: Duration) {
        self.steps.inc();
        self.step_duration.observe(took.as_secs_f64());
    }

    /// Notes one stage of a picture.
    pub(crate) fn staged(&self, stage: &str, took: Duration) {
        // Bounded, whatever an engine calls its stages.
        let known = ["encode", "denoise", "decode"].into_iter().find(|known| *known == stage);
        let stage = Stage { stage: known.unwrap_or("other") };
        self.stage_duration.get_or_create(&stage).observe(took.as_secs_f64());
    }

    /// Counts pictures that were drawn.
    pub(crate) fn drew(&self, images: usize) {
        self.images.inc_by(images as u64);
    }

    /// Notes who leads; call it at each change of the Raft status.
    pub(crate) fn led_by(&self, leader: Option<NodeId>) {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        if leader.is_some() && leader != cursor.leader {
            self.leader_changes.inc();
            cursor.leader = leader;
        }
    }

    /// Notes the state of the engine; call it at each change.
    pub(crate) fn engine_is(&self, state: &EngineState) {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = matches!(state, EngineState::Ready(_));
        if cursor.engine_was_ready && !is_ready {
            self.engine_restarts.inc();
        }
        cursor.engine_was_ready = is_ready;
    }

    /// Begins to count the jobs that end, behind those of an entry; a repeat does nothing. Call it once
    /// the state is restored: what ended before this process is not counted again.
    pub(crate) fn count_from(&self, index: LogIndex) {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        cursor.finished.get_or_insert(index);
    }

    /// Writes all metrics in the OpenMetrics text format.
    pub(crate) fn render(&self, observed: &Observed<'_>) -> String {
        self.scrape_jobs(observed);
        self.scrape_peer(observed);
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }

    fn scrape_jobs(&self, observed: &Observed<'_>) {
        let state = observed.state;
        let mut depths = [0; 10];
        let mut oldest_ms = observed.now_ms;
        for (_, job) in state.queued() {
            depths[usize::from(job.submit.priority.min(9))] += 1;
            oldest_ms = oldest_ms.min(job.submit.submitted_ms);
        }
        for (priority, depth) in (0..).zip(depths) {
            self.scraped.queue_depth.get_or_create(&Priority { priority }).set(depth);
        }
        let age = Duration::from_millis(observed.now_ms - oldest_ms);
        self.scraped.queue_oldest_age.set(age.as_secs_f64());
        let mut phases = [state.queued_count() as i64, state.leased_count() as i64, 0, 0, 0];
        for (_, job) in state.terminal_oldest() {
            phases[phase_index(job)] += 1;
        }
        for (phase, count) in PHASES.into_iter().zip(phases) {
            self.scraped.jobs.get_or_create(&JobPhase { phase }).set(count);
        }
        self.scraped.jobs_running.set(state.leased_count() as i64);
        self.count_finished(state);
        self.scrape_artifacts(observed);
    }

    /// Counts the jobs that ended since the last scrape.
    fn count_finished(&self, state: &State) {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counted) = cursor.finished else { return };
        cursor.finished = Some(state.applied());
        for (_, job) in state.terminal_oldest().filter(|(_, job)| job.finished > counted) {
            let outcome = Outcome { outcome: job.phase.name() };
            self.finished.get_or_create(&outcome).inc();
            let took = job.finished_ms.saturating_sub(job.submit.submitted_ms);
            let took = Duration::from_millis(took).as_secs_f64();
            self.job_duration.get_or_create(&outcome).observe(took);
        }
    }

    fn scrape_artifacts(&self, observed: &Observed<'_>) {
        let (mut count, mut bytes) = (0, 0);
        for digest in observed.state.artifact_digests() {
            let holders = observed.state.artifact_holders(digest);
            if let Some(held) = holders.filter(|a| a.holders.contains(&observed.raft.node)) {
                count += 1;
                bytes += held.bytes as i64;
            }
        }
        self.scraped.artifacts.set(count);
        self.scraped.artifact_bytes.set(bytes);
    }

    fn scrape_peer(&self, observed: &Observed<'_>) {
        let (raft, scraped) = (observed.raft, &self.scraped);
        scraped.ready.set(i64::from(observed.ready));
        let engine = match observed.engine {
            None => "none",
            Some(EngineState::Loading { .. }) => "loading",
            Some(EngineState::Ready(_)) => "ready",
            Some(EngineState::Unfit(_)) => "unfit",
        };
        for state in ENGINE_STATES {
            scraped.engine_state.get_or_create(&Engine { state }).set(i64::from(state == engine));
        }
        scraped.model.clear();
        if let Some(EngineState::Ready(info)) = observed.engine {
            let labels = Model { model: info.model.clone(), class: info.class.clone() };
            scraped.model.get_or_create(&labels).set(1);
        }
        if let Ok(disk) = rustix::fs::statvfs(&self.data) {
            scraped.disk_free.set((disk.f_bavail * disk.f_frsize) as i64);
            scraped.disk_size.set((disk.f_blocks * disk.f_frsize) as i64);
        }
        scraped.is_leader.set(i64::from(raft.is_leader));
        scraped.term.set(raft.term as i64);
        scraped.commit_index.set(raft.committed.0 as i64);
        scraped.applied_index.set(raft.applied.0 as i64);
        scraped.follower_lag.clear();
        for (peer, matched) in &raft.matched {
            let lag = raft.last_log.0.saturating_sub(matched.0);
            scraped.follower_lag.get_or_create(&Peer { peer: peer.0 }).set(lag as i64);
        }
        for (role, count) in [("voter", raft.voters.len()), ("learner", raft.learners.len())] {
            scraped.members.get_or_create(&Role { role }).set(count as i64);
        }
    }
}

fn phase_index(job: &Job) -> usize {
    match job.phase {
        Phase::Queued => 0,
        Phase::Leased(_) => 1,
        Phase::Succeeded => 2,
        Phase::Failed => 3,
        Phase::Cancelled => 4,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ports::engine::Engine as _;
    use crate::testing::PaperEngine;
    use atelier_state::{Cancel, Command, JobId};
    use std::collections::BTreeMap;

    fn rendered(metrics: &Metrics) -> String {
        rendered_with(metrics, &EngineState::Loading { bytes: 1, total: 2 })
    }

    /// Everything there is, of a peer that draws and was called.
    fn complete() -> String {
        let metrics = Metrics::new(Path::new("/"));
        metrics.submitted("accepted");
        metrics.called("Submit", "ok", Duration::from_millis(3));
        metrics.staged("upscale", Duration::from_secs(1));
        let engine = PaperEngine::new(Duration::ZERO).ready().borrow().clone();
        rendered_with(&metrics, &engine)
    }

    fn rendered_with(metrics: &Metrics, engine: &EngineState) -> String {
        let matched = BTreeMap::from([(NodeId(2), LogIndex(0))]);
        let raft = RaftStatus { node: NodeId(1), matched, ..Default::default() };
        let state = State::new();
        let observed =
            Observed { state: &state, raft: &raft, engine: Some(engine), ready: false, now_ms: 9 };
        metrics.render(&observed)
    }

    /// Reads the text format, strictly enough to find a broken family: name → type.
    pub(crate) fn families(text: &str) -> BTreeMap<String, String> {
        let mut families = BTreeMap::new();
        let mut helped = None;
        let mut ended = false;
        for line in text.lines() {
            assert!(!ended, "nothing follows the end: {line}");
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                    assert!(help.ends_with('.'), "{line}");
                    helped = Some(name.to_owned());
                }
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                    assert_eq!(helped.as_deref(), Some(name), "help comes before type");
                    families.insert(name.to_owned(), kind.to_owned());
                }
                (Some("#"), Some("UNIT"), Some(name), Some(unit)) => {
                    assert!(name.ends_with(unit), "{line}");
                }
                (Some("#"), Some("EOF"), None, None) => ended = true,
                (Some(sample), Some(value), None, None) => {
                    let name = sample.split('{').next().expect("a sample has a name");
                    let family = helped.as_deref().expect("a sample has a family");
                    assert!(name.starts_with(family), "{line}");
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                }
                _ => panic!("neither comment nor sample: {line}"),
            }
        }
        assert!(ended, "the text ends with # EOF");
        families
    }

    #[test]
    fn every_name_has_help_and_a_type() {
        let families = families(&complete());
        let expected = [
            ("atelier_artifact_bytes", "gauge"),
            ("atelier_artifacts", "gauge"),
            ("atelier_build", "info"),
            ("atelier_disk_free_bytes", "gauge"),
            ("atelier_disk_size_bytes", "gauge"),
            ("atelier_engine_restarts", "counter"),
            ("atelier_engine_state", "gauge"),
            ("atelier_images", "counter"),
            ("atelier_job_duration_seconds", "histogram"),
            ("atelier_jobs", "counter"),
            ("atelier_jobs_remembered", "gauge"),
            ("atelier_jobs_running", "gauge"),
            ("atelier_model_info", "gauge"),
            ("atelier_queue_depth", "gauge"),
            ("atelier_queue_oldest_age_seconds", "gauge"),
            ("atelier_raft_applied_index", "gauge"),
            ("atelier_raft_commit_index", "gauge"),
            ("atelier_raft_follower_lag_entries", "gauge"),
            ("atelier_raft_is_leader", "gauge"),
            ("atelier_raft_leader_changes", "counter"),
            ("atelier_raft_members", "gauge"),
            ("atelier_raft_term", "gauge"),
            ("atelier_ready", "gauge"),
            ("atelier_request_duration_seconds", "histogram"),
            ("atelier_stage_duration_seconds", "histogram"),
            ("atelier_step_duration_seconds", "histogram"),
            ("atelier_steps", "counter"),
            ("atelier_submissions", "counter"),
        ];
        let told: Vec<(&str, &str)> =
            families.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        assert_eq!(told, expected);
    }

    /// A rule over a metric that does not exist never fires.
    #[test]
    fn rules_and_dashboard_name_metrics_that_exist() {
        let families = families(&complete());
        let shipped = [
            include_str!("../../../deploy/monitoring/rules.yml"),
            include_str!("../../../deploy/monitoring/grafana.json"),
        ];
        for text in shipped {
            let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
            let named = words.filter(|word| word.starts_with("atelier_"));
            let mut count = 0;
            for name in named {
                let of_family = ["_total", "_sum", "_count", "_bucket", ""].into_iter();
                let mut families_named = of_family.filter_map(|ending| name.strip_suffix(ending));
                assert!(families_named.any(|it| families.contains_key(it)), "no metric {name}");
                count += 1;
            }
            assert!(count > 10, "the file names {count} metrics");
        }
    }

    #[test]
    fn samples_carry_bounded_labels() {
        let metrics = Metrics::new(Path::new("/"));
        metrics.staged("a stage of a kind to come", Duration::from_secs(1));
        metrics.submitted("accepted");
        let text = rendered(&metrics);
        for sample in [
            "atelier_submissions_total{outcome=\"accepted\"} 1",
            "atelier_stage_duration_seconds_count{stage=\"other\"} 1",
            "atelier_engine_state{state=\"loading\"} 1",
            "atelier_engine_state{state=\"ready\"} 0",
            "atelier_queue_depth{priority=\"9\"} 0",
            "atelier_jobs_total{outcome=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} in\n{text}");
        }
    }

    #[test]
    fn a_job_that_ends_is_counted_once_and_none_from_before() {
        let (metrics, mut state) = (Metrics::new(Path::new("/")), State::new());
        let mut end = |job: u128, index: u64| {
            let parameters = Default::default();
            let submit = atelier_state::Submit {
                job: JobId(job),
                tenant: "t".into(),
                idempotency_key: None,
                priority: 0,
                kind: "text_to_image/v1".into(),
                parameters,
                traceparent: String::new(),
                submitted_ms: 1,
                attempts_max: 1,
                deadline_ms: 0,
                max_runtime_s: 0,
                cost: 1,
                retry_of: None,
            };
            let cancel = Cancel { job: JobId(job), reason: String::new(), finished_ms: 2 };
            state.apply(LogIndex(index), &Command::Submit(submit));
            state.apply(LogIndex(index + 1), &Command::Cancel(cancel));
            metrics.count_finished(&state);
            metrics.finished.get_or_create(&Outcome { outcome: "cancelled" }).get()
        };
        assert_eq!(end(1, 1), 0, "nobody said from where to count");
        metrics.count_from(LogIndex(2));
        assert_eq!(end(2, 3), 1);
        let lasted = "atelier_job_duration_seconds_sum{outcome=\"cancelled\"} 0.001";
        let mut text = String::new();
        text::encode(&mut text, &metrics.registry).expect("a String takes every write");
        assert!(text.lines().any(|line| line == lasted), "{text}");
        metrics.count_from(LogIndex(0));
        assert_eq!(end(3, 5), 2);
    }

    #[test]
    fn an_engine_that_is_lost_is_counted_and_one_that_loads_is_not() {
        let metrics = Metrics::new(Path::new("/"));
        let loading = EngineState::Loading { bytes: 0, total: 0 };
        let ready = PaperEngine::new(Duration::ZERO).ready().borrow().clone();
        let unfit = EngineState::Unfit("no memory".to_owned());
        for state in [&loading, &ready, &ready, &loading, &loading, &ready, &unfit] {
            metrics.engine_is(state);
        }
        assert_eq!(metrics.engine_restarts.get(), 2);
    }

    #[test]
    fn only_another_leader_is_a_change_of_leader() {
        let metrics = Metrics::new(Path::new("/"));
        for leader in [None, Some(1), None, Some(1), Some(2), Some(2)] {
            metrics.led_by(leader.map(NodeId));
        }
        assert_eq!(metrics.leader_changes.get(), 2);
    }
}
