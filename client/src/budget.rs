//! Decides whether, when and where a call is tried again.
//!
//! No IO, no clock, no randomness: the moment and the dice come in as arguments. Invariants: a
//! call that may have changed something is repeated only when a repeat is harmless; an outcome
//! that nobody knows is never told as a failure; pauses are bounded, and so is their number.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::error::{Error, Tried};
use crate::mutants::{self, Mutant};
use crate::options::Options;
use crate::types::JobId;

/// Metadata that names the leader's address.
const LEADER_KEY: &str = "atelier-leader";
/// Metadata that says how many seconds to wait.
const RETRY_AFTER_KEY: &str = "retry-after";
/// The exponent of the back-off stops growing here; the pause is at its bound long before.
const DOUBLINGS_MAX: u32 = 16;
/// The least time that a repeat must have left. A shorter one would be cut off before an answer can
/// come, and then it is unknown whether it did anything.
const REPEAT_MIN: Duration = Duration::from_millis(20);

/// What a repeat of the call would mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Changes nothing, and tells of the cluster.
    Read,
    /// Changes nothing that the cluster knows of, and tells of the peer that is asked.
    Local,
    /// Changes something at most once, however often it is repeated.
    Submit(JobId),
    /// The same, for what is no single job; the words say what.
    Repeatable(&'static str),
    /// Changes something each time; the words say what.
    Change(&'static str),
}

/// One attempt that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) address: String,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) leader: Option<String>,
    pub(crate) class: Class,
    /// Nobody answered: the connection failed, or the time was up.
    pub(crate) silent: bool,
    /// The peer answered, and no leader answers the peer.
    unled: bool,
}

/// What a failed attempt says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The cluster has answered; asking again changes nothing.
    Final,
    /// Another endpoint may know better.
    Elsewhere { maybe_done: bool },
    /// A bound is reached everywhere; wait.
    Later { retry_after: Option<Duration> },
}

impl Failure {
    /// Reads what a status says to a client.
    pub(crate) fn new(address: &str, status: &Status) -> Self {
        // Channel and peer both say "cancelled" where it is they who stopped waiting, whichever is first; nobody
        // else cancels a call of ours.
        let expired = status.code() == Code::Cancelled || has_source::<TimeoutExpired>(status);
        Self {
            address: address.to_owned(),
            code: if expired { Code::DeadlineExceeded } else { status.code() },
            message: if expired { "no answer in time".to_owned() } else { message_of(status) },
            leader: text(status, LEADER_KEY),
            class: class_of(status),
            silent: expired || status.source().is_some() || status.code() == Code::DeadlineExceeded,
            unled: false,
        }
    }

    /// A peer that no leader answers; `leader` is who should.
    pub(crate) fn unled(address: &str, why: String, leader: Option<String>) -> Self {
        let failure = Self::new(address, &Status::unavailable(why));
        Self { leader, unled: true, ..failure }
    }

    /// The same of a question before a call: whatever came of it, nothing was done, and another
    /// endpoint may answer.
    pub(crate) fn of_a_question(self) -> Self {
        Self { class: Class::Elsewhere { maybe_done: false }, ..self }
    }

    /// An attempt that was not answered within its time.
    pub(crate) fn timeout(address: &str, waited: Duration) -> Self {
        let status = Status::deadline_exceeded(format!("no answer within {waited:.1?}"));
        Self::new(address, &status)
    }

    /// Whether the cluster looked at the request and decided, so that the outcome is known.
    fn is_answer(&self) -> bool {
        !matches!(self.clone().into_error(), Error::Internal { .. })
    }

    /// The error that this refusal is, when it is not tried again.
    pub(crate) fn into_error(self) -> Error {
        let Self { address, code, message, leader, .. } = self;
        match code {
            Code::InvalidArgument | Code::OutOfRange => Error::Invalid { message },
            Code::NotFound => Error::NotFound { message },
            Code::FailedPrecondition | Code::Aborted => Error::Conflict { message, leader },
            Code::AlreadyExists => Error::AlreadyExists { message },
            _ => Error::Internal { address, code: code.description().to_owned(), message },
        }
    }
}

fn class_of(status: &Status) -> Class {
    // A status made on this side has the transport's error as its source; one that a peer sent
    // has none, and then the contract says what its code means.
    if status.source().is_some() {
        // Without a connection the request certainly did not leave this process.
        return Class::Elsewhere { maybe_done: !has_source::<ConnectError>(status) };
    }
    match status.code() {
        Code::Unavailable => Class::Elsewhere { maybe_done: false },
        Code::DeadlineExceeded | Code::Cancelled => Class::Elsewhere { maybe_done: true },
        Code::ResourceExhausted => Class::Later { retry_after: retry_after(status) },
        _ => Class::Final,
    }
}

/// Whether an error of this type is behind the status.
fn has_source<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The transport says "tcp connect error" and hides the reason behind it; the reason is better.
fn message_of(status: &Status) -> String {
    let mut source = status.source();
    let mut innermost = None;
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match innermost {
        Some(reason) if status.code() == Code::Unavailable => format!("cannot connect: {reason}"),
        Some(reason) => format!("connection lost: {reason}"),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

fn text(status: &Status, key: &str) -> Option<String> {
    let value = status.metadata().get(key)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn retry_after(status: &Status) -> Option<Duration> {
    text(status, RETRY_AFTER_KEY)?.parse().ok().map(Duration::from_secs)
}

/// How a call goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask the leader that was named, or else the next endpoint.
    Elsewhere { pause: Duration, leader: Option<String> },
    /// Ask the same endpoint.
    Here { pause: Duration },
}

/// What one call may still spend on repeats.
#[derive(Debug)]
pub(crate) struct Budget {
    kind: Kind,
    deadline: Instant,
    attempt_timeout: Duration,
    backoff: Backoff,
    retries: u32,
    retries_max: u32,
    tried: Vec<Tried>,
    leader: Option<String>,
    maybe_done: bool,
    /// An endpoint was asked, and no leader answered it.
    unled: bool,
    asked_around: bool,
}

impl Budget {
    pub(crate) fn new(kind: Kind, options: &Options, now: Instant) -> Self {
        Self {
            kind,
            deadline: now + options.deadline,
            attempt_timeout: options.attempt_timeout,
            backoff: Backoff::new(options),
            retries: 0,
            retries_max: options.retries_max,
            tried: Vec::new(),
            leader: None,
            maybe_done: false,
            unled: false,
            asked_around: false,
        }
    }

    /// Whether a peer without a leader can do nothing for the call.
    pub(crate) const fn wants_leader(&self) -> bool {
        !matches!(self.kind, Kind::Local)
    }

    /// Whether a peer that could not serve the call is asked who else is there: once a call, and
    /// only a peer that answered and named nobody.
    pub(crate) fn asks_around(&mut self, failure: &Failure) -> bool {
        let elsewhere = matches!(failure.class, Class::Elsewhere { .. });
        let asks = elsewhere && !failure.silent && !failure.unled && failure.leader.is_none();
        asks && !std::mem::replace(&mut self.asked_around, true)
    }

    /// How long the next attempt may take.
    pub(crate) fn attempt(&self, now: Instant) -> Duration {
        self.attempt_timeout.min(self.left(now))
    }

    /// How long the call may take yet.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// Books a failed attempt; says how to go on, or with what error to stop.
    pub(crate) fn spend(
        &mut self,
        failure: Failure,
        now: Instant,
        endpoints: usize,
        random: u64,
    ) -> Result<Next, Error> {
        self.book(&failure);
        let next = match failure.class {
            // That a peer broke down says nothing of an attempt before it, which may be done.
            Class::Final if self.maybe_done && !failure.is_answer() => {
                return Err(self.give_up(failure));
            }
            Class::Final => return Err(failure.into_error()),
            Class::Elsewhere { .. } => {
                let leader = failure.leader.clone().filter(|leader| self.is_new(leader));
                let pause = match leader {
                    Some(_) => Duration::ZERO,
                    None => self.backoff.pause(self.retries, endpoints, random),
                };
                Next::Elsewhere { pause, leader }
            }
            Class::Later { retry_after } => {
                let pause = self.backoff.pause(self.retries, 1, random);
                Next::Here { pause: retry_after.unwrap_or(pause) }
            }
        };
        let (Next::Elsewhere { pause, .. } | Next::Here { pause }) = next;
        let repeat_is_harmless = !(self.maybe_done && matches!(self.kind, Kind::Change(_)));
        let in_time = now + pause + REPEAT_MIN <= self.deadline;
        if repeat_is_harmless && self.retries < self.retries_max && in_time {
            self.retries += 1;
            return Ok(next);
        }
        Err(self.give_up(failure))
    }

    /// Stops after a pause that took longer than it should have, as it does on a busy machine.
    pub(crate) fn check_left(&mut self, last: Failure, now: Instant) -> Result<(), Error> {
        match self.left(now) < REPEAT_MIN {
            true => Err(self.give_up(last)),
            false => Ok(()),
        }
    }

    fn book(&mut self, failure: &Failure) {
        self.maybe_done |= failure.class == Class::Elsewhere { maybe_done: true };
        self.unled |= failure.unled;
        if failure.leader.is_some() {
            self.leader.clone_from(&failure.leader);
        }
        match self.tried.iter_mut().find(|tried| tried.address == failure.address) {
            Some(tried) => tried.why.clone_from(&failure.message),
            None => self
                .tried
                .push(Tried { address: failure.address.clone(), why: failure.message.clone() }),
        }
    }

    /// A hint is followed at once only to a peer that was not asked yet: two peers that name each
    /// other would be asked in a tight circle.
    fn is_new(&self, leader: &str) -> bool {
        self.tried.iter().all(|tried| tried.address.trim_end_matches('/') != leader)
    }

    fn give_up(&mut self, last: Failure) -> Error {
        let tried = std::mem::take(&mut self.tried);
        let maybe_done = self.maybe_done && !mutants::is(Mutant::UnknownToldAsFailed);
        match (self.kind, maybe_done, last.class) {
            (Kind::Submit(job), true, _) => Error::UnknownOutcome { job, tried },
            (Kind::Repeatable(change) | Kind::Change(change), true, _) => {
                Error::UnknownChange { change, tried }
            }
            (_, _, Class::Later { retry_after }) => {
                Error::Full { message: last.message, retry_after }
            }
            (Kind::Read | Kind::Local, true, _) if last.code == Code::DeadlineExceeded => {
                Error::Deadline { tried }
            }
            (_, _, Class::Final) => last.into_error(),
            _ if self.unled => Error::NoLeader { tried, leader: self.leader.take() },
            _ => Error::Unavailable { tried, leader: self.leader.take() },
        }
    }
}

/// Pauses between repeats: doubled with each round over the endpoints, fully jittered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(options: &Options) -> Self {
        Self { min: options.backoff_min, max: options.backoff_max }
    }

    /// A pause between nothing and the bound of this round.
    pub(crate) fn pause(self, retries: u32, endpoints: usize, random: u64) -> Duration {
        let round = retries / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX);
        let ceiling = self.min.saturating_mul(1 << round.min(DOUBLINGS_MAX)).min(self.max);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(random % micros.saturating_add(1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FULL_JITTER: u64 = u64::MAX - 1;

    fn budget(kind: Kind, now: Instant) -> Budget {
        Budget::new(kind, &Options { retries_max: 3, ..Options::default() }, now)
    }

    fn failed(address: &str, status: &Status) -> Failure {
        Failure::new(address, status)
    }

    #[test]
    fn a_refusal_is_final_and_keeps_its_meaning() {
        let now = Instant::now();
        let status = Status::invalid_argument("height 1000 is not a multiple of 16");
        let error = budget(Kind::Read, now).spend(failed("a", &status), now, 3, 0).unwrap_err();
        assert!(matches!(error, Error::Invalid { message } if message.contains("1000")));
    }

    #[test]
    fn a_repeat_that_has_no_time_is_not_begun_and_the_cause_is_told() {
        let now = Instant::now();
        let deadline = now + Options::default().deadline;
        let nobody = Status::unavailable("nobody listens");
        for kind in [Kind::Read, Kind::Submit(JobId::from_parts(7, 1))] {
            let mut spent = budget(kind, now);
            let late = deadline - REPEAT_MIN / 2;
            let error = spent.spend(failed("a", &nobody), late, 1, 0).unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            let mut overslept = budget(kind, now);
            overslept.spend(failed("a", &nobody), deadline - REPEAT_MIN, 1, 0).unwrap();
            let error = overslept.check_left(failed("a", &nobody), deadline).unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        }
    }

    #[test]
    fn a_change_is_not_repeated_when_it_may_have_happened() {
        let now = Instant::now();
        let mut budget = budget(Kind::Change("remove member 3"), now);
        let no_leader = Status::unavailable("no leader");
        assert!(budget.spend(failed("a", &no_leader), now, 3, 0).is_ok());
        let late = Status::deadline_exceeded("outcome unknown");
        let error = budget.spend(failed("b", &late), now, 3, 0).unwrap_err();
        assert!(matches!(error, Error::UnknownChange { change: "remove member 3", .. }));
    }

    #[test]
    fn a_submit_is_repeated_and_its_unknown_outcome_names_the_job() {
        let now = Instant::now();
        let job = JobId::from_parts(1, 1);
        let mut budget = budget(Kind::Submit(job), now);
        let late = Status::deadline_exceeded("outcome unknown");
        let no_leader = Status::unavailable("no leader");
        for status in [&late, &no_leader, &no_leader] {
            assert!(budget.spend(failed("a", status), now, 3, 0).is_ok());
        }
        let error = budget.spend(failed("a", &no_leader), now, 3, 0).unwrap_err();
        assert!(matches!(error, Error::UnknownOutcome { job: named, .. } if named == job));
    }

    #[test]
    fn certain_failures_are_not_told_as_unknown() {
        let now = Instant::now();
        let mut budget = budget(Kind::Submit(JobId::from_parts(1, 1)), now);
        let no_leader = Status::unavailable("no quorum");
        let error = (0..)
            .find_map(|_| budget.spend(failed("a", &no_leader), now, 1, 0).err())
            .expect("the budget is finite");
        assert!(matches!(error, Error::Unavailable { tried, .. } if tried.len() == 1));
    }

    #[test]
    fn a_leader_hint_is_followed_once_and_without_a_pause() {
        let now = Instant::now();
        let mut budget = budget(Kind::Read, now);
        let mut status = Status::unavailable("not the leader");
        status.metadata_mut().insert("atelier-leader", "http://b".parse().unwrap());
        let next = budget.spend(failed("http://a", &status), now, 2, FULL_JITTER).unwrap();
        let leader = Some("http://b".to_owned());
        assert_eq!(next, Next::Elsewhere { pause: Duration::ZERO, leader });
        let next = budget.spend(failed("http://b", &status), now, 2, FULL_JITTER).unwrap();
        assert!(matches!(next, Next::Elsewhere { leader: None, .. }));
    }

    #[test]
    fn retry_after_is_honoured_up_to_the_deadline() {
        let now = Instant::now();
        let mut status = Status::resource_exhausted("10000 jobs wait");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        let mut budget = budget(Kind::Read, now);
        let next = budget.spend(failed("a", &status), now, 1, 0).unwrap();
        assert_eq!(next, Next::Here { pause: Duration::from_secs(7) });
        let late = now + Duration::from_secs(25);
        let error = budget.spend(failed("a", &status), late, 1, 0).unwrap_err();
        assert!(matches!(error, Error::Full { retry_after: Some(after), .. }
            if after == Duration::from_secs(7)));
    }

    #[test]
    fn pauses_double_per_round_and_stay_bounded() {
        let backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1) };
        for (retries, most) in [(0, 50), (2, 50), (3, 100), (6, 200), (3000, 1000)] {
            for random in 0..10_000 {
                let pause = backoff.pause(retries, 3, random * 7919);
                assert!(pause <= Duration::from_millis(most), "{retries}: {pause:?}");
            }
        }
    }

    #[test]
    fn a_call_that_a_peer_cancelled_for_its_time_is_told_as_late() {
        let (options, now) = (Options::default(), Instant::now());
        let mut budget = Budget::new(Kind::Read, &options, now);
        let failure = failed("http://a", &Status::cancelled("Timeout expired"));
        let late = now + options.deadline + Duration::from_secs(1);
        let error = budget.spend(failure, late, 1, 0).err();
        assert!(matches!(error, Some(Error::Deadline { .. })), "{error:?}");
    }

    /// What a peer may say to an attempt, and whether the attempt may have been carried out.
    const SAID: [(Code, bool); 7] = [
        (Code::Unavailable, false),
        (Code::ResourceExhausted, false),
        (Code::DeadlineExceeded, true),
        (Code::Cancelled, true),
        (Code::Internal, false),
        (Code::InvalidArgument, false),
        (Code::AlreadyExists, false),
    ];

    /// Fails attempts as they are said to, on a virtual clock, until the budget ends them.
    ///
    /// Returns the attempts, when the last one ended, and the error.
    fn spent(kind: Kind, said: &[(Code, u64)], options: &Options) -> (usize, Duration, Error) {
        let begun = Instant::now();
        let (mut budget, mut now) = (Budget::new(kind, options, begun), begun);
        for (attempt, (code, took_ms)) in said.iter().cycle().enumerate() {
            let allowed = budget.attempt(now);
            assert!(now + allowed <= begun + options.deadline, "no attempt outlives the deadline");
            now += allowed.min(Duration::from_millis(*took_ms));
            let failure = failed("a", &Status::new(*code, "as scripted"));
            match budget.spend(failure, now, 3, *took_ms) {
                Ok(Next::Elsewhere { pause, .. } | Next::Here { pause }) => now += pause,
                Err(error) => return (attempt + 1, now - begun, error),
            }
        }
        unreachable!("a cycle of something has no end")
    }

    proptest! {
        #[test]
        fn a_budget_is_never_overspent_and_never_hides_what_may_be_done(
            said in prop::collection::vec((0_usize..SAID.len(), 0_u64..20_000), 1..40),
            kind in 0_usize..4,
        ) {
            let options = Options::default();
            let kind = [
                Kind::Read,
                Kind::Submit(JobId::from_parts(1, 1)),
                Kind::Repeatable("purge jobs"),
                Kind::Change("add the member"),
            ][kind];
            let script: Vec<_> = said.iter().map(|(at, ms)| (SAID[*at].0, *ms)).collect();
            let (attempts, ended, error) = spent(kind, &script, &options);
            prop_assert!(attempts <= options.retries_max as usize + 1);
            prop_assert!(ended <= options.deadline);

            let made = said.iter().cycle().take(attempts).map(|(at, _)| SAID[*at]);
            let maybe_done: Vec<bool> = made.clone().map(|(_, maybe_done)| maybe_done).collect();
            let before_the_last = &maybe_done[..attempts - 1];
            let answered = matches!(error, Error::Invalid { .. } | Error::AlreadyExists { .. });
            let unknown =
                matches!(error, Error::UnknownOutcome { .. } | Error::UnknownChange { .. });
            match kind {
                Kind::Read => prop_assert!(!unknown),
                _ if answered => prop_assert!(!unknown),
                _ => prop_assert_eq!(unknown, maybe_done.contains(&true), "{}", error),
            }
            if let Kind::Change(_) = kind {
                prop_assert!(!before_the_last.contains(&true), "it was repeated");
            }
        }
    }
}
