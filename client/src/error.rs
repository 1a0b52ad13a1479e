//! What can go wrong, told apart by what the caller can do next.

use std::fmt;
use std::time::Duration;

use crate::types::{Job, JobId};

/// A client could not be made: an address cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There was no address at all.
    #[error("no endpoint was given; expected at least one such as http://127.0.0.1:7861")]
    NoEndpoints,
    /// More addresses than a client holds.
    #[error("{got} endpoints were given; at most {max} are used, so leave some out")]
    TooManyEndpoints {
        /// How many came.
        got: usize,
        /// How many fit.
        max: usize,
    },
    /// Not an address of gRPC.
    #[error("{address:?} is not an endpoint ({reason}); expected http://host:port")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates or the key cannot be used.
    #[error("TLS cannot be set up ({reason}); expected PEM certificates, and a key of their own")]
    Tls {
        /// What is wrong with them.
        reason: String,
    },
}

/// One endpoint that was asked in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its address.
    pub address: String,
    /// What came of it, the last time.
    pub why: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.address, self.why)
    }
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(Tried::to_string).collect::<Vec<_>>().join("; ")
}

/// A call to the cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong; mend it.
    #[error("{message}")]
    Invalid {
        /// What was expected, what came, what to do.
        message: String,
    },
    /// No such job, member or artifact.
    #[error("{message}")]
    NotFound {
        /// What was looked for.
        message: String,
    },
    /// The state of the cluster forbids it.
    #[error("{message}")]
    Conflict {
        /// Which state.
        message: String,
        /// Who leads, where it is known.
        leader: Option<String>,
    },
    /// The same idempotency key came with another request; use another key.
    #[error("{message}")]
    AlreadyExists {
        /// Which job has the key.
        message: String,
    },
    /// A bound is reached, and was until the deadline; come back later.
    #[error("{message}")]
    Full {
        /// Which bound.
        message: String,
        /// When to come back, if the cluster said so.
        retry_after: Option<Duration>,
    },
    /// No endpoint could serve the call, and certainly nothing was done; try again later.
    #[error("no endpoint could answer and nothing was done; try again later: {}", list(.tried))]
    Unavailable {
        /// Every endpoint that was asked.
        tried: Vec<Tried>,
        /// Who leads, where it is known.
        leader: Option<String>,
    },
    /// No endpoint is answered by a leader with its quorum, and nothing was sent; only with
    /// [`crate::Options::leader_confirmed`]. Without it a read takes one peer's word.
    #[error("no leader confirms what the endpoints have; nothing was done: {}", list(.tried))]
    NoLeader {
        /// Every endpoint that was asked.
        tried: Vec<Tried>,
        /// Who leads, where it is known.
        leader: Option<String>,
    },
    /// A read was not answered in time; nothing was to be changed by it.
    #[error("no answer within the deadline; allow more time, or try again: {}", list(.tried))]
    Deadline {
        /// Every endpoint that was asked.
        tried: Vec<Tried>,
    },
    /// The job may have been accepted or not; submit again under the same id.
    #[error(
        "nobody knows whether job {job} was accepted; submit it again under the same id: {}",
        list(.tried)
    )]
    UnknownOutcome {
        /// The id to submit again with: the job is then accepted once, whatever happened.
        job: JobId,
        /// Every endpoint that was asked.
        tried: Vec<Tried>,
    },
    /// A change may have happened or not; look before doing it again.
    #[error(
        "nobody knows whether the request to {change} took effect; look before repeating it: {}",
        list(.tried)
    )]
    UnknownChange {
        /// Which change.
        change: &'static str,
        /// Every endpoint that was asked.
        tried: Vec<Tried>,
    },
    /// The peer answered what this client cannot read: their versions differ too much.
    #[error("the answer cannot be read; compare the versions of client and peer: {what}")]
    Malformed {
        /// Expected and got.
        what: String,
    },
    /// The peer failed inside.
    #[error("the peer at {address} failed, its log says more ({code}): {message}")]
    Internal {
        /// Who.
        address: String,
        /// The name of the gRPC status.
        code: String,
        /// What it says.
        message: String,
    },
}

impl Error {
    /// The leader's address, where the cluster named it.
    pub fn leader(&self) -> Option<&str> {
        match self {
            Self::Conflict { leader, .. }
            | Self::Unavailable { leader, .. }
            | Self::NoLeader { leader, .. } => leader.as_deref(),
            _ => None,
        }
    }
}

/// An artifact could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No peer could be asked, or none has it.
    #[error(transparent)]
    Call(#[from] Error),
    /// The bytes are not those that the digest names; they were thrown away.
    #[error("artifact {digest} came with the digest {got} from {address}; nothing was kept")]
    Digest {
        /// Asked for.
        digest: String,
        /// Of what came.
        got: String,
        /// From whom.
        address: String,
    },
    /// Fewer or more bytes than the job names; they were thrown away.
    #[error(
        "artifact {digest} has {expected} bytes, but {got} came from {address}; nothing was kept"
    )]
    Length {
        /// Asked for.
        digest: String,
        /// As the job names it.
        expected: u64,
        /// As it came; counting stops beyond the bound.
        got: u64,
        /// From whom.
        address: String,
    },
}

/// How often it was tried; nothing of a job that ended before anybody tried.
fn after(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => " after 1 attempt".to_owned(),
        attempts => format!(" after {attempts} attempts"),
    }
}

/// A job was submitted and its pictures are not here.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The job could not be submitted.
    #[error(transparent)]
    Submit(Error),
    /// The job was accepted and lost from sight; it goes on, and can be watched again.
    #[error("lost sight of job {job}: {source}")]
    Watch {
        /// The job.
        job: JobId,
        /// Why.
        source: Error,
    },
    /// The job is done and its picture could not be fetched; it can be fetched again.
    #[error("job {job} is done, but its picture could not be fetched: {source}")]
    Fetch {
        /// The job.
        job: JobId,
        /// Why.
        source: ArtifactError,
    },
    /// The cluster gave the job up.
    #[error("job {} failed{}: {}", .0.job, after(.0.attempts), .0.error)]
    Failed(Box<Job>),
    /// Somebody cancelled the job.
    #[error("job {} was cancelled", .0.job)]
    Cancelled(Box<Job>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_in_words_and_none_is_not_told() {
        let told = [0, 1, 3].map(after);
        assert_eq!(told, ["", " after 1 attempt", " after 3 attempts"]);
    }
}
