//! The JSON that programs read: a promise, apart from the types of the library.
//!
//! Every document has `version` and `kind`. Within a version fields are only added. Times are
//! RFC 3339 in UTC, ids of jobs are strings, what is not known is null.

mod operate;
mod operations;
mod top;

use std::collections::BTreeMap;

use atelier_client::{Artifact, Event, FailedAttempt, Job, Member, Progress, Status, TextToImage};
use serde::Serialize;

use super::failure::Failure;
use super::output::{dash, rfc3339};
use super::quorum::{Change, Voters};
use super::reader::StaleView;

pub(super) use operate::{
    AuthorView, NotPurgedView, QueueView, SettingDifference, SettingView, TrailView, VersionView,
};
pub(super) use operations::{
    CheckView, ContextView, DoctorView, InitView, SnapshotView, TransferView, VerifiedView,
    VerifyView,
};
pub(super) use top::{RatesView, RunningView, TopView};

/// Rises when a field is taken away or changes its meaning.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Document {
    version: u32,
    #[serde(flatten)]
    body: Body,
    /// Whose word it is, where no leader was asked to confirm it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<StaleView>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Body {
    Job {
        job: JobView,
    },
    Jobs {
        jobs: Vec<JobView>,
        total: u64,
        /// What `--after` takes for the next page; null behind the last one.
        next: Option<String>,
    },
    Event {
        job: JobView,
        log_index: u64,
        progress: Option<ProgressView>,
    },
    Submitted {
        job: String,
        duplicate: bool,
        log_index: u64,
        seed: u64,
    },
    Refused {
        line: u64,
        job: String,
        refusal: &'static str,
        message: String,
    },
    Retried {
        job: String,
        retry_of: String,
        duplicate: bool,
        log_index: u64,
    },
    Purged {
        jobs: u64,
        dry_run: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        not_purged: Vec<NotPurgedView>,
    },
    Generated {
        job: JobView,
        duplicate: bool,
        files: Vec<String>,
        seconds: Seconds,
    },
    Status(StatusView),
    Top(TopView),
    Members {
        members: Vec<MemberView>,
    },
    MemberChange(ChangeView),
    Bench(BenchView),
    Verify(VerifyView),
    Transfer(TransferView),
    Snapshots {
        snapshots: Vec<SnapshotView>,
    },
    Init(InitView),
    Doctor(DoctorView),
    Contexts {
        contexts: Vec<ContextView>,
    },
    Queue(QueueView),
    Settings {
        settings_version: u64,
        settings: Vec<SettingView>,
    },
    SettingsChange {
        settings_version: u64,
        dry_run: bool,
        changes: Vec<SettingDifference>,
    },
    SettingsDiff {
        settings_version: u64,
        from: Option<u64>,
        to: Option<u64>,
        changes: Vec<SettingDifference>,
    },
    SettingsHistory {
        versions: Vec<VersionView>,
    },
    Trail {
        records: Vec<TrailView>,
    },
    Error {
        error: ErrorView,
    },
}

/// How long each stage took, as the client saw it.
#[derive(Debug, Serialize)]
pub(super) struct Seconds {
    pub(super) queue: f64,
    pub(super) encode: f64,
    pub(super) denoise: f64,
    pub(super) decode: f64,
    pub(super) fetch: f64,
    pub(super) total: f64,
}

/// What a run of the load generator came to.
#[derive(Debug, Serialize)]
pub(super) struct BenchView {
    pub(super) mode: &'static str,
    /// Jobs of one call; null where each call is one job of its own.
    pub(super) batch: Option<u32>,
    /// Calls a second that were asked for; null where each client called as soon as it was answered.
    pub(super) rate: Option<u32>,
    pub(super) clients: u32,
    pub(super) bytes: u32,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) seconds: f64,
    /// Calls.
    pub(super) per_second: f64,
    pub(super) jobs: u64,
    pub(super) jobs_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) fdatasync_per_second: f64,
    pub(super) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct JobView {
    job: String,
    phase: &'static str,
    tenant: String,
    priority: u32,
    submitted: Option<String>,
    finished: Option<String>,
    log_index: u64,
    attempts: u32,
    leases: u32,
    node: Option<u64>,
    token: Option<u64>,
    position: Option<u64>,
    error: Option<String>,
    artifacts: Vec<ArtifactView>,
    failed_attempts: Vec<AttemptView>,
    retry_at: Option<String>,
    deadline: Option<String>,
    max_runtime_s: Option<u32>,
    retry_of: Option<String>,
    parameters: Option<ParametersView>,
}

#[derive(Debug, Serialize)]
struct ArtifactView {
    digest: String,
    bytes: u64,
    media_type: String,
}

#[derive(Debug, Serialize)]
struct AttemptView {
    node: Option<u64>,
    token: Option<u64>,
    error: String,
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct ParametersView {
    kind: &'static str,
    prompt: String,
    width: u32,
    height: u32,
    steps: u32,
    seed: u64,
    images: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    guidance: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ProgressView {
    node: u64,
    token: u64,
    stage: String,
    step: u32,
    steps: u32,
    image: u32,
}

/// The cluster as all its peers see it.
#[derive(Debug, Serialize)]
pub(super) struct StatusView {
    pub(super) leader: Option<u64>,
    /// Null where no two peers stood at the same index.
    pub(super) consistent: Option<bool>,
    pub(super) jobs: Option<Counts>,
    pub(super) peers: Vec<PeerView>,
    /// The cluster's name, with its lineage after a recovery.
    pub(super) cluster: Option<String>,
    pub(super) features: Option<u32>,
    pub(super) paused: Option<bool>,
    pub(super) voters: VotersView,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Counts {
    pub(super) queued: u64,
    pub(super) leased: u64,
    pub(super) terminal: u64,
}

/// One peer: what the cluster says of it, and what it says itself.
#[derive(Debug, Serialize)]
pub(super) struct PeerView {
    #[serde(flatten)]
    pub(super) member: MemberView,
    pub(super) answered: bool,
    pub(super) why: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) last_log_index: Option<u64>,
    pub(super) commit_index: Option<u64>,
    pub(super) applied_index: Option<u64>,
    pub(super) version: Option<String>,
    pub(super) state_digest: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct MemberView {
    node: Option<u64>,
    address: String,
    role: Option<&'static str>,
    leader: bool,
    alive: Option<bool>,
    slots: Option<u32>,
    leases: Option<u32>,
    engine: Option<String>,
    model: Option<String>,
    matched_index: Option<u64>,
    witness: Option<bool>,
    draining: Option<bool>,
    labels: BTreeMap<String, String>,
    features: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct ChangeView {
    change: &'static str,
    node: Option<u64>,
    address: String,
    done: bool,
    dry_run: bool,
    before: VotersView,
    after: VotersView,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct VotersView {
    pub(super) voters: usize,
    pub(super) alive: usize,
    pub(super) quorum: usize,
    pub(super) tolerates: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    code: u8,
    what: String,
    why: Vec<String>,
    hints: Vec<String>,
    leader: Option<String>,
}

impl From<Body> for Document {
    fn from(body: Body) -> Self {
        Self::stale(body, None)
    }
}

impl Document {
    pub(super) fn stale(body: Body, stale: Option<StaleView>) -> Self {
        Self { version: VERSION, body, stale }
    }

    pub(super) fn event(event: &Event) -> Self {
        let progress = event.progress.as_ref().map(ProgressView::from);
        let job = JobView::from(&event.job);
        Body::Event { job, log_index: event.log_index, progress }.into()
    }

    pub(super) fn error(failure: &Failure) -> Self {
        let error = ErrorView {
            code: failure.exit as u8,
            what: failure.what.clone(),
            why: failure.why.clone(),
            hints: failure.hints.clone(),
            leader: failure.leader.clone(),
        };
        Body::Error { error }.into()
    }

    pub(super) fn change(change: &Change, node: Option<u64>, done: bool) -> Self {
        let view = VotersView::from;
        Body::MemberChange(ChangeView {
            change: change.kind.word(),
            node,
            address: change.address.clone(),
            done,
            dry_run: !done,
            before: view(change.before),
            after: view(change.after),
            warnings: change.warnings.clone(),
        })
        .into()
    }
}

/// The document on one line.
pub(super) fn line(document: &Document) -> String {
    // Plain structs of numbers and strings: nothing here can fail to be written.
    serde_json::to_string(document).unwrap_or_default()
}

/// The document, indented.
pub(super) fn pretty(document: &Document) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        Self {
            job: job.job.to_string(),
            phase: job.phase.word(),
            tenant: job.tenant.clone(),
            priority: job.priority,
            submitted: (job.submitted_ms > 0).then(|| rfc3339(job.submitted_ms)),
            finished: job.finished_ms.map(rfc3339),
            log_index: job.log_index,
            attempts: job.attempts,
            leases: job.leases,
            node: job.node,
            token: (job.token > 0).then_some(job.token),
            position: job.position,
            error: filled(&job.error),
            artifacts: job.artifacts.iter().map(ArtifactView::from).collect(),
            failed_attempts: job.failed_attempts.iter().map(AttemptView::from).collect(),
            retry_at: job.retry_at_ms.map(rfc3339),
            deadline: job.deadline_ms.map(rfc3339),
            max_runtime_s: job.max_runtime_s,
            retry_of: job.retry_of.map(|job| job.to_string()),
            parameters: job.parameters.as_ref().map(ParametersView::from),
        }
    }
}

impl From<&Progress> for ProgressView {
    fn from(at: &Progress) -> Self {
        Self {
            node: at.node,
            token: at.token,
            stage: at.stage.word().to_owned(),
            step: at.step,
            steps: at.steps,
            image: at.image,
        }
    }
}

impl From<&Artifact> for ArtifactView {
    fn from(artifact: &Artifact) -> Self {
        let Artifact { digest, bytes, media_type } = artifact.clone();
        Self { digest, bytes, media_type }
    }
}

impl From<&FailedAttempt> for AttemptView {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            node: attempt.node,
            token: (attempt.token > 0).then_some(attempt.token),
            error: attempt.error.clone(),
            failed: attempt.failed_ms.map(rfc3339),
        }
    }
}

impl From<&TextToImage> for ParametersView {
    fn from(parameters: &TextToImage) -> Self {
        let TextToImage { prompt, width, height, steps, seed, images, guidance, source } =
            parameters.clone();
        let kind = match (&guidance, &source) {
            (None, None) => "text_to_image/v1",
            _ => "text_to_image/v2",
        };
        let (guidance, negative_prompt) =
            guidance.map(|guidance| (guidance.scale, guidance.negative_prompt)).unzip();
        let (image, mask, strength) = source.map_or((None, None, None), |source| {
            (Some(source.image), source.mask, source.strength)
        });
        Self {
            kind,
            prompt,
            width,
            height,
            steps,
            seed,
            images,
            guidance,
            negative_prompt,
            image,
            mask,
            strength,
        }
    }
}

impl From<&Member> for MemberView {
    fn from(member: &Member) -> Self {
        Self {
            node: Some(member.node),
            address: member.address.clone(),
            role: Some(member.role.word()),
            leader: member.leader,
            alive: Some(member.alive),
            slots: Some(member.slots),
            leases: Some(member.leases),
            engine: filled(&member.engine),
            model: filled(&member.model),
            matched_index: member.matched_index,
            witness: Some(member.witness),
            draining: Some(member.draining),
            labels: member.labels.clone(),
            features: (member.features > 0).then_some(member.features),
        }
    }
}

impl From<Voters> for VotersView {
    fn from(voters: Voters) -> Self {
        Self {
            voters: voters.total,
            alive: voters.alive,
            quorum: voters.quorum(),
            tolerates: voters.tolerates(),
        }
    }
}

impl MemberView {
    /// The cells of a table: id, address, role, leader, alive, engine, model, slots, leases, state,
    /// labels.
    pub(super) fn cells(&self) -> Vec<String> {
        let yes = |value: bool| if value { "yes" } else { "no" };
        vec![
            dash(self.node),
            self.address.clone(),
            dash(self.role),
            yes(self.leader).to_owned(),
            dash(self.alive.map(yes)),
            dash(self.engine.as_ref()),
            dash(self.model.as_ref()),
            dash(self.slots),
            dash(self.leases),
            self.state().to_owned(),
            self.labels(),
        ]
    }

    fn state(&self) -> &'static str {
        match (self.draining, self.witness) {
            (Some(true), _) => "draining",
            (_, Some(true)) => "witness",
            _ => "-",
        }
    }

    /// The labels on one line; a dash for none.
    pub(super) fn labels(&self) -> String {
        let all = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let all = all.collect::<Vec<_>>().join(",");
        dash(filled(&all))
    }

    /// An address that is no member's, or not known to be.
    pub(super) fn stranger(address: &str, node: Option<u64>) -> Self {
        Self {
            node,
            address: address.to_owned(),
            role: None,
            leader: false,
            alive: None,
            slots: None,
            leases: None,
            engine: None,
            model: None,
            matched_index: None,
            witness: None,
            draining: None,
            labels: BTreeMap::new(),
            features: None,
        }
    }
}

impl PeerView {
    pub(super) fn new(member: MemberView, status: Option<&Status>, why: Option<String>) -> Self {
        Self {
            member,
            answered: status.is_some(),
            why,
            term: status.map(|status| status.term),
            last_log_index: status.map(|status| status.last_log_index),
            commit_index: status.map(|status| status.commit_index),
            applied_index: status.map(|status| status.applied_index),
            version: status.and_then(|status| filled(&status.version)),
            state_digest: status.and_then(|status| filled(&status.state_digest)),
        }
    }
}
