//! What callers of this library hold. Owns no behaviour beyond reading and printing ids.
//!
//! These types are a promise apart from the wire: a field may come to the protocol without
//! changing them. `convert` alone knows both.

mod operations;
mod queue;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ulid::Ulid;

pub use operations::{
    Examination, Finding, FindingLevel, MarkDigest, MemberUpdate, Replacement, Snapshot,
};
pub use queue::{
    BatchOutcome, BatchRefusal, FailedAttempt, PriorityStats, Purged, QueueStats, RefusalKind,
    TenantStats,
};
pub use settings::{
    Author, Setting, SettingChange, SettingValue, Settings, SettingsVersion, TrailRecord,
};

/// Names one peer of the cluster; never 0.
pub type NodeId = u64;

/// Names one job, on every peer and for every repeat of its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Ulid);

impl JobId {
    /// Makes a new id from this moment and the entropy of the operating system.
    pub fn generate() -> Self {
        Self(Ulid::generate())
    }

    /// Makes an id from parts, for worlds that own their clock and their randomness.
    pub const fn from_parts(unix_ms: u64, random: u128) -> Self {
        Self(Ulid::from_parts(unix_ms, random))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0.to_string())
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| ParseJobIdError { text: text.to_owned(), why };
        let id = Ulid::from_string(text).map_err(|error| match error {
            ulid::DecodeError::InvalidLength if text.is_ascii() => {
                wrong(Misread::Length(text.len()))
            }
            _ => wrong(Misread::Character),
        })?;
        // The crate drops the two bits above 128 without a word; two texts would name one job.
        if text.as_bytes()[0] > b'7' {
            return Err(wrong(Misread::Overflow));
        }
        if id.0 == 0 {
            return Err(wrong(Misread::Zero));
        }
        Ok(Self(id))
    }
}

/// The text is not a job id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a job id: {why}; expected 26 characters such as 01K9ZJ4Q4Y8V0N5T2M7R3X6B1C"
)]
pub struct ParseJobIdError {
    text: String,
    why: Misread,
}

/// What is wrong with a text that should be a job id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Misread {
    #[error("it has {0} characters")]
    Length(usize),
    #[error("it has others than digits and the letters A to Z without I, L, O and U")]
    Character,
    #[error("it is above the greatest one, which begins with 7")]
    Overflow,
    #[error("zero is no job")]
    Zero,
}

/// Parameters of a picture. A zero leaves the choice to the model.
#[derive(Clone, Debug, PartialEq)]
pub struct TextToImage {
    /// What to draw.
    pub prompt: String,
    /// Pixels, a multiple of 16; 0 for the model's default.
    pub width: u32,
    /// Pixels, a multiple of 16; 0 for the model's default.
    pub height: u32,
    /// Denoise steps; 0 for the model's default.
    pub steps: u32,
    /// Image `i` is drawn from `seed + i`.
    pub seed: u64,
    /// How many images; at least 1.
    pub images: u32,
    /// Led away from a text; `None` as Turbo is drawn, which was distilled to need none.
    pub guidance: Option<Guidance>,
    /// A picture to begin from; `None` for noise alone.
    pub source: Option<Source>,
}

/// Classifier-free guidance, for models that were not distilled. It doubles the cost of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Guidance {
    /// Above 0, at most 30; the number of ComfyUI and of stable-diffusion-webui less 1.
    pub scale: f32,
    /// What the picture is led away from; may be empty.
    pub negative_prompt: String,
}

/// A picture to begin from. [`Client::put_artifact`](crate::Client::put_artifact) makes the digests.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Digest of the picture; it is scaled to the size that is drawn.
    pub image: String,
    /// How much is drawn anew, 0.001 to 1; `None` for 0.6.
    pub strength: Option<f64>,
    /// Digest of a picture of where: what is light is drawn anew, what is dark stays; `None` for all of it.
    pub mask: Option<String>,
}

impl Source {
    /// All of a picture, drawn anew by the default strength.
    pub fn new(image: &Artifact) -> Self {
        Self { image: image.digest.clone(), strength: None, mask: None }
    }
}

impl TextToImage {
    /// One image of the prompt, with seed 0 and the model's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            width: 0,
            height: 0,
            steps: 0,
            seed: 0,
            images: 1,
            guidance: None,
            source: None,
        }
    }
}

/// One job to submit. The same value may be submitted any number of times: it stays one job.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    /// Made once per wish, not once per attempt.
    pub job: JobId,
    /// Whose job it is; empty for "default".
    pub tenant: String,
    /// The caller's own key: the first job under it answers for all. Empty for none.
    pub idempotency_key: String,
    /// 0 to 9, higher goes first; `None` for the cluster's default.
    pub priority: Option<u8>,
    /// W3C trace context that the job continues; empty for none.
    pub traceparent: String,
    /// Seconds from acceptance after which the job is failed, whatever it is doing; `None` for
    /// the cluster's setting.
    pub deadline_s: Option<u32>,
    /// Seconds that one attempt may take; `None` for the cluster's setting.
    pub max_runtime_s: Option<u32>,
    /// What to draw.
    pub parameters: TextToImage,
}

impl Submission {
    /// A job under a new id, with default tenant and priority.
    pub fn new(parameters: TextToImage) -> Self {
        Self {
            job: JobId::generate(),
            tenant: String::new(),
            idempotency_key: String::new(),
            priority: None,
            traceparent: String::new(),
            deadline_s: None,
            max_runtime_s: None,
            parameters,
        }
    }
}

/// The cluster holds the job: it is in the replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job that answers. Another than was submitted when its idempotency key was known.
    pub job: JobId,
    /// The job had been accepted before.
    pub duplicate: bool,
    /// Where in the log it was accepted.
    pub log_index: u64,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Leased,
    /// Its artifacts can be fetched.
    Succeeded,
    /// Given up after the attempts that it may have.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl Phase {
    /// Whether the job's phase can never change again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Every phase, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Leased, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The lower-case word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.word())
    }
}

/// Immutable bytes, named by what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// BLAKE3, 64 lower-case hexadecimal digits.
    pub digest: String,
    /// Length.
    pub bytes: u64,
    /// Such as `image/png`.
    pub media_type: String,
}

/// A job as one peer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub job: JobId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whose it is.
    pub tenant: String,
    /// 0 to 9, higher goes first.
    pub priority: u32,
    /// Wall clock of the accepting peer, milliseconds since 1970; for display only.
    pub submitted_ms: u64,
    /// The same at its end; `None` while not terminal.
    pub finished_ms: Option<u64>,
    /// Where in the log it was accepted.
    pub log_index: u64,
    /// Failed attempts.
    pub attempts: u32,
    /// How often it was assigned to a worker.
    pub leases: u32,
    /// Who draws it, or drew it.
    pub node: Option<NodeId>,
    /// Fencing token of the current or last lease; 0 for none.
    pub token: u64,
    /// 1 for the next in the queue; `None` when not queued.
    pub position: Option<u64>,
    /// The last error; empty for none.
    pub error: String,
    /// Its results, image by image.
    pub artifacts: Vec<Artifact>,
    /// Every failed attempt, oldest first.
    pub failed_attempts: Vec<FailedAttempt>,
    /// It waits for this moment after a failed attempt, milliseconds since 1970.
    pub retry_at_ms: Option<u64>,
    /// It is failed when it has not ended by then, milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// Seconds that one attempt may take.
    pub max_runtime_s: Option<u32>,
    /// The failed job that this one repeats.
    pub retry_of: Option<JobId>,
    /// What is drawn; `None` for a kind that this client does not know.
    pub parameters: Option<TextToImage>,
}

/// Some of the jobs, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPage {
    /// At most as many as were asked for.
    pub jobs: Vec<Job>,
    /// How many there are in the asked phases.
    pub total: u64,
    /// Where the next page begins, for [`Client::jobs_after`](crate::Client::jobs_after); nothing
    /// behind the last one.
    pub next: Option<String>,
}

/// What a worker is at. The order is that of one image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The prompt becomes embeddings.
    Encode,
    /// Noise becomes latents, step by step.
    Denoise,
    /// Latents become pixels.
    Decode,
    /// A stage that this client does not know.
    Other(String),
}

impl Stage {
    /// The lower-case word for it.
    pub fn word(&self) -> &str {
        match self {
            Self::Encode => "encode",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Other(word) => word,
        }
    }
}

/// The running attempt's newest step. Went round the log: it may be missing, never wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who draws.
    pub node: NodeId,
    /// Fencing token of the attempt.
    pub token: u64,
    /// What it is at.
    pub stage: Stage,
    /// 1 to `steps`; 0 outside of denoising.
    pub step: u32,
    /// Denoise steps in all.
    pub steps: u32,
    /// Which image, from 0.
    pub image: u32,
    /// Spent so far from prompt to embeddings, all images together; zero where the worker tells none.
    pub encode: Duration,
    /// The same from noise to latents.
    pub denoise: Duration,
    /// The same from latents to a file's bytes.
    pub decode: Duration,
}

/// One change of a watched job.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The job after the change.
    pub job: Job,
    /// Where the log stood at the peer that told.
    pub log_index: u64,
    /// Absent before an attempt's first step.
    pub progress: Option<Progress>,
    /// What the picture of [`Self::progress`] will be; only where [`crate::Options::previews`] asks
    /// for it. Told once, with the first event of its step; a watch that is slow misses some.
    pub preview: Option<Preview>,
}

/// A small picture of what a picture will be: its colours and shapes, not its details. For display
/// only.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview {
    /// A PNG of an eighth of the picture's size.
    pub png: Vec<u8>,
}

impl fmt::Debug for Preview {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixels belong into no log.
        write!(out, "Preview({} bytes)", self.png.len())
    }
}

/// What one peer says of itself and of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who answers.
    pub node: NodeId,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Its Raft term.
    pub term: u64,
    /// The end of its log.
    pub last_log_index: u64,
    /// What it knows to be committed.
    pub commit_index: u64,
    /// What its state machine has applied.
    pub applied_index: u64,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that are being drawn.
    pub leased: u64,
    /// Jobs that are over and not yet forgotten.
    pub terminal: u64,
    /// Of the daemon.
    pub version: String,
    /// Equal on all peers at an equal applied index.
    pub state_digest: String,
    /// The members as it sees them.
    pub members: Vec<Member>,
    /// The cluster's feature level: what every peer understands.
    pub features: u32,
    /// Whether no job is given to anybody.
    pub paused: bool,
    /// The cluster's name, with its lineage after a recovery.
    pub cluster: String,
}

/// How a member takes part in decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Counts towards the quorum.
    Voter,
    /// Follows the log without a vote.
    Learner,
}

impl Role {
    /// The lower-case word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// One peer of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Of gRPC, `http://host:port`.
    pub address: String,
    /// Voter or learner.
    pub role: Role,
    /// Whether it leads.
    pub leader: bool,
    /// Heard from within the lease time, in the leader's opinion.
    pub alive: bool,
    /// Jobs that it may draw at a time; 0 while no engine is ready.
    pub slots: u32,
    /// Jobs that it draws.
    pub leases: u32,
    /// Its determinism class: build, backend, device kind.
    pub engine: String,
    /// The model that it serves.
    pub model: String,
    /// What the leader knows to be on its disk; `None` when not known.
    pub matched_index: Option<u64>,
    /// Whether it votes and never draws.
    pub witness: bool,
    /// Whether it gets no new jobs.
    pub draining: bool,
    /// What operators say about it; `region` and `zone` have a meaning.
    pub labels: BTreeMap<String, String>,
    /// The highest feature level that its process understands; 0 where not known.
    pub features: u32,
}

/// A voter that is well.
#[cfg(test)]
pub(crate) fn member_for_tests(node: NodeId) -> Member {
    Member {
        node,
        address: format!("http://peer-{node}:7861"),
        role: Role::Voter,
        leader: false,
        alive: true,
        slots: 1,
        leases: 0,
        engine: String::new(),
        model: String::new(),
        matched_index: None,
        witness: false,
        draining: false,
        labels: BTreeMap::new(),
        features: 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_lose_bits_is_refused_with_what_came() {
        let greatest = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ";
        assert_eq!(greatest.parse::<JobId>().unwrap().to_string(), greatest);
        assert_eq!(greatest.to_lowercase().parse::<JobId>().unwrap().to_string(), greatest);
        for (text, why) in [
            ("ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "above the greatest one, which begins with 7"),
            ("80000000000000000000000000", "above the greatest one, which begins with 7"),
            ("00000000000000000000000000", "zero is no job"),
            ("01K9ZJ4Q4Y8V0N5T2M7R3X6B1", "it has 25 characters"),
            ("01K9ZJ4Q4Y8V0N5T2M7R3X6B1U", "it has others than digits"),
            ("", "it has 0 characters"),
            ("01K9ZJ4Q4Y8V0N5T2M7R3X6B1é", "it has others than digits"),
        ] {
            let told = text.parse::<JobId>().unwrap_err().to_string();
            assert!(told.contains(&format!("{text:?}")) && told.contains(why), "{told}");
        }
    }
}
