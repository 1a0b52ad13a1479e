//! What went wrong, why, and what to do next; and the exit code that says so to a script.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use atelier_client::{ArtifactError, ConnectError, Error, GenerateError, Tried};

use super::json;
use super::output::{Format, plain_lines};

/// How a command ended. The numbers are a promise; `atelier --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Unavailable = 5,
    Timeout = 6,
    Partial = 7,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The numbers above all fit.
        Self::from(exit as u8)
    }
}

/// A failure as it is told to a person.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) what: String,
    pub(super) why: Vec<String>,
    pub(super) hints: Vec<String>,
    pub(super) leader: Option<String>,
    /// No peer could serve the command: how the cluster stands says why, and what to do.
    pub(super) unserved: bool,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Into<String>) -> Self {
        let (why, hints) = (Vec::new(), Vec::new());
        Self { exit, what: what.into(), why, hints, leader: None, unserved: false }
    }

    pub(super) fn why(mut self, why: impl IntoIterator<Item = String>) -> Self {
        self.why.extend(why);
        self
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        self.hints([hint.into()])
    }

    pub(super) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Says that how the cluster stands is to be told with it.
    fn unserved(self) -> Self {
        Self { unserved: true, ..self }
    }

    /// With these hints alone: the place knows better than the kind of the error.
    pub(super) fn hinted(self, hints: impl IntoIterator<Item = String>) -> Self {
        Self { hints: hints.into_iter().collect(), ..self }
    }

    /// Tells it on standard error.
    pub(super) fn report(&self, format: Format) -> ExitCode {
        let text = match format {
            Format::Json => json::line(&json::Document::error(self)),
            Format::Text => self.text(color()),
        };
        // Nobody is left to be told when even standard error is gone.
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
        self.exit.into()
    }

    fn text(&self, color: bool) -> String {
        let mark = |word: &str, code: &str| match color {
            true => format!("\x1b[1;{code}m{word}\x1b[0m"),
            false => word.to_owned(),
        };
        // Indented, no line of what others wrote passes for one of ours.
        let plain = |text: &str| plain_lines(text).replace('\n', "\n  ");
        let mut text = format!("{} {}\n", mark("error:", "31"), plain(&self.what));
        for why in &self.why {
            text.push_str(&format!("  {}\n", plain(why)));
        }
        if let Some(leader) = &self.leader {
            text.push_str(&format!("  the leader is at {}\n", plain(leader)));
        }
        for hint in &self.hints {
            text.push_str(&format!("{} {}\n", mark("hint:", "36"), plain(hint)));
        }
        text
    }
}

/// Where to look whether a change took effect, or why that need not be known.
fn look(change: &str) -> &'static str {
    match change {
        "change the settings" => "look before repeating it: `atelier config history`",
        "hand the lead over" => "look before repeating it: `atelier cluster status`",
        "cancel the job" | "retry the job" | "purge jobs" => {
            "repeat the command: what was done once is not done twice"
        }
        "submit the batch" => {
            "submit it again: a line with a job_id or an idempotency_key is accepted once"
        }
        _ => "look before repeating it: `atelier member list`",
    }
}

fn color() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

/// What to do about a picture that is lost.
const NO_COPY: &str = "no peer has a sound copy; generate it again with the same seed";

fn lines(tried: Vec<Tried>) -> impl Iterator<Item = String> {
    tried.into_iter().map(|tried| tried.to_string())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let leader = error.leader().map(str::to_owned);
        let what = error.to_string();
        let failure = match error {
            Error::Invalid { .. } => Self::new(Exit::Usage, what),
            Error::NotFound { .. } => {
                Self::new(Exit::NotFound, what).hint("`atelier job list` shows what there is")
            }
            Error::Conflict { .. } => Self::new(Exit::Conflict, what)
                .hint("`atelier status` shows how the cluster stands"),
            Error::AlreadyExists { .. } => Self::new(Exit::Conflict, what)
                .hint("take another --idempotency-key for another request"),
            Error::Full { retry_after, .. } => {
                let hint = match retry_after {
                    Some(after) => format!("try again in {} s", after.as_secs()),
                    None => "try again later".to_owned(),
                };
                Self::new(Exit::Unavailable, what).hint(hint)
            }
            Error::Unavailable { tried, .. } => {
                Self::new(Exit::Unavailable, "no endpoint could serve this, and nothing was done")
                    .why(lines(tried))
                    .unserved()
            }
            Error::NoLeader { tried, .. } => {
                let what = "no leader with a quorum was found, and nothing was done";
                Self::new(Exit::Unavailable, what).why(lines(tried)).unserved()
            }
            Error::Deadline { tried } => {
                Self::new(Exit::Timeout, "no answer within the time allowed")
                    .why(lines(tried))
                    .hint("allow more with --timeout")
                    .hint("`atelier doctor` says which peer does not answer")
            }
            Error::UnknownOutcome { job, tried } => {
                Self::new(Exit::Timeout, format!("nobody knows whether job {job} was accepted"))
                    .why(lines(tried))
                    .hint(format!("repeat the command with --job-id {job}: it is then drawn once"))
            }
            Error::UnknownChange { change, tried } => Self::new(
                Exit::Timeout,
                format!("nobody knows whether the request to {change} took effect"),
            )
            .why(lines(tried))
            .hint(look(change)),
            Error::Malformed { .. } => Self::new(Exit::Failed, what)
                .hint("compare `atelier --version` with the version in `atelier status -o json`"),
            Error::Internal { .. } => {
                Self::new(Exit::Failed, what).hint("`atelier doctor` asks every peer what is wrong")
            }
        };
        Self { leader, ..failure }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Call(error @ Error::NotFound { .. }) => {
                Self::from(error).hinted([NO_COPY.to_owned()])
            }
            ArtifactError::Call(error) => error.into(),
            ArtifactError::Digest { .. } | ArtifactError::Length { .. } => {
                Self::new(Exit::Failed, error.to_string()).hint(NO_COPY)
            }
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        let what = error.to_string();
        match error {
            GenerateError::Submit(error) => error.into(),
            GenerateError::Watch { job, source: error @ Error::NotFound { .. } } => {
                let failure = Self::from(error);
                Self { what: format!("{}: {job}", failure.what), ..failure }
            }
            GenerateError::Watch { job, source } => {
                let failure = Self::from(source);
                let hint = format!("the job goes on: atelier job fetch {job}");
                Self { hints: vec![hint], what: format!("lost sight of job {job}"), ..failure }
                    .hint(format!("or stop it: atelier job cancel {job}"))
            }
            GenerateError::Fetch { job, source } => {
                Self::from(source).hint(format!("fetch it again: atelier job fetch {job}"))
            }
            GenerateError::Failed(job) => Self::new(Exit::Failed, what)
                .hint(format!("atelier job show {} has the whole story", job.job)),
            GenerateError::Cancelled(_) => Self::new(Exit::Failed, what),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let why = error.chain().skip(1).map(ToString::to_string);
        Self::new(Exit::Failed, error.to_string()).why(why)
    }
}
