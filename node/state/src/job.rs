//! A request for images, its phases and its results.

use crate::command::Submit;
use crate::lease::{FencingToken, Lease};
use crate::reply::LogIndex;
use crate::roster::NodeId;
use std::fmt;
use std::str::FromStr;
use ulid::Ulid;

/// A job's identity, made by the client: a ULID, as text 26 characters of Crockford's base 32. 0 is
/// no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

/// Why a text is not a `JobId`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobIdError {
    /// Another number of bytes than a ULID has.
    #[error("job id has {0} bytes, not the 26 characters of a ulid")]
    Length(usize),
    /// A letter outside of Crockford's alphabet.
    #[error("job id holds a character other than digits and letters without i, l, o, u")]
    Character,
    /// 26 characters hold 130 bits; the text uses more than 128.
    #[error("job id is larger than 128 bits; its first character must be 0 to 7")]
    Overflow,
}

/// The BLAKE3 digest of some bytes, as text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a text is not a `Digest`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another number of bytes than a digest has.
    #[error("digest has {0} bytes, not 64 hexadecimal digits")]
    Length(usize),
    /// Not a hexadecimal digit.
    #[error("digest holds a character that is not a hexadecimal digit")]
    Character,
}

/// Immutable bytes of a result, named by their digest and kept outside of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArtifactRef {
    /// What the bytes must hash to.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
    /// For example `image/png`.
    pub media_type: String,
    /// Nodes that had them on disk when the job was completed; at least one.
    pub holders: Vec<NodeId>,
}

/// Where a job stands. The last three are terminal and never change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for a slot.
    Queued,
    /// Is worked on.
    Leased(Lease),
    /// Has artifacts.
    Succeeded,
    /// Used up its attempts, or failed for good.
    Failed,
    /// Was called off.
    Cancelled,
}

/// A failed attempt, or the deadline that ended the job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Of its lease; 0 where the job was not leased, or it failed at feature level 1.
    pub token: FencingToken,
    /// Who worked on it; 0 as for the token.
    pub node: NodeId,
    /// What went wrong.
    pub error: String,
    /// Wall clock in milliseconds, for display only; 0 as for the token.
    pub failed_ms: u64,
}

impl Attempt {
    /// Says whether somebody worked on the job. What ended without that was given up while it
    /// waited, and has its reason here alone.
    pub fn was_made(&self) -> bool {
        self.token != FencingToken(0) || self.failed_ms == 0
    }
}

/// An accepted job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// As it was accepted.
    pub submit: Submit,
    /// Where it was accepted.
    pub accepted: LogIndex,
    /// Place in the order of acceptance, from 1. It keeps its place in the queue over attempts.
    pub sequence: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Of the current or last lease.
    pub last_token: Option<FencingToken>,
    /// Of the current or last lease.
    pub last_node: Option<NodeId>,
    /// How often it was leased.
    pub leases: u32,
    /// One for each failed attempt, oldest first; a lease that was revoked is no attempt.
    pub attempts: Vec<Attempt>,
    /// In order of image index; empty unless Succeeded.
    pub artifacts: Vec<ArtifactRef>,
    /// Wall clock in milliseconds, for display only; 0 until terminal.
    pub finished_ms: u64,
    /// Where it became terminal; 0 until then.
    pub finished: LogIndex,
    /// Empty unless Cancelled.
    pub cancel_reason: String,
    /// Place among the jobs of its priority: its start in the fair share. It keeps it over attempts.
    pub tag: u64,
    /// How many leases had been granted, ever, when it was accepted: from there it ages.
    pub stamp: u64,
    /// Wall clock in milliseconds at which its back-off is over; 0 unless it waits for that.
    pub retry_at_ms: u64,
}

impl JobId {
    /// Returns the 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the 16 bytes, most significant first.
    pub fn from_bytes(bytes: [u8; 16]) -> JobId {
        JobId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ulid::ULID_LEN];
        f.pad(Ulid(self.0).array_to_str(&mut text))
    }
}

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<JobId, JobIdError> {
        let ulid = Ulid::from_string(text).map_err(|error| match error {
            ulid::DecodeError::InvalidLength => JobIdError::Length(text.len()),
            ulid::DecodeError::InvalidChar => JobIdError::Character,
        })?;
        // The crate drops the two bits above 128 without a word; two texts would name one job.
        if text.as_bytes()[0] > b'7' {
            return Err(JobIdError::Overflow);
        }
        Ok(JobId(ulid.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        if text.len() != 64 {
            return Err(DigestError::Length(text.len()));
        }
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Digest(*hash.as_bytes())),
            Err(_) => Err(DigestError::Character),
        }
    }
}

impl Phase {
    /// Says whether the phase is final.
    pub fn is_terminal(&self) -> bool {
        match self {
            Phase::Queued | Phase::Leased(_) => false,
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => true,
        }
    }

    /// Returns the word for the phase, lowercase.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Leased(_) => "leased",
            Phase::Succeeded => "succeeded",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        }
    }
}

impl Job {
    /// Returns the job's identity.
    pub fn id(&self) -> JobId {
        self.submit.job
    }

    /// Returns the current lease.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    /// Returns the error of the last failed attempt.
    pub fn last_error(&self) -> Option<&str> {
        self.attempts.last().map(|attempt| attempt.error.as_str())
    }

    /// Bytes that the job takes in a snapshot, at most: its texts, and a fixed number for all else.
    pub fn bytes(&self) -> u64 {
        const JOB: usize = 256;
        const ATTEMPT: usize = 64;
        const ARTIFACT: usize = 64;
        const HOLDER: usize = 10;
        let attempts = self.attempts.iter().map(|it| ATTEMPT + it.error.len());
        let artifact =
            |it: &ArtifactRef| ARTIFACT + it.media_type.len() + HOLDER * it.holders.len();
        let artifacts = self.artifacts.iter().map(artifact);
        let texts = self.submit.text_bytes() + self.cancel_reason.len();
        let bytes = JOB + texts + attempts.sum::<usize>() + artifacts.sum::<usize>();
        u64::try_from(bytes).expect("a usize fits")
    }

    /// Says whether it waits for the end of its back-off, not for a slot.
    pub fn is_delayed(&self) -> bool {
        self.retry_at_ms > 0
    }

    /// Makes the job that a `Submit` asks for.
    pub(crate) fn accept(submit: Submit, accepted: LogIndex, sequence: u64) -> Job {
        assert!(sequence > 0);
        Job {
            submit,
            accepted,
            sequence,
            phase: Phase::Queued,
            last_token: None,
            last_node: None,
            leases: 0,
            attempts: Vec::new(),
            artifacts: Vec::new(),
            finished_ms: 0,
            finished: LogIndex(0),
            cancel_reason: String::new(),
            tag: 0,
            stamp: 0,
            retry_at_ms: 0,
        }
    }

    /// Gives the job its final phase.
    pub(crate) fn finish(&mut self, phase: Phase, index: LogIndex, finished_ms: u64) {
        assert!(phase.is_terminal());
        assert!(!self.phase.is_terminal());
        self.phase = phase;
        self.retry_at_ms = 0;
        self.finished = index;
        self.finished_ms = finished_ms;
    }
}
