//! Follows one job over any number of peers.
//!
//! Owns the stream, the choice of the next endpoint, and what was seen. Invariants: what is given
//! out never goes backwards and never repeats; the last event of a watch that did not fail is
//! terminal. It asks forever, for as long as its deadline allows: a queue may be long, a cluster
//! may be restarted, and the job is still there.

use std::time::Duration;

use atelier_proto::client::v1 as wire;
use futures_util::Stream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::{Code, Request, Streaming};

use crate::budget::{Backoff, Class, Failure};
use crate::choice::Wish;
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Tried};
use crate::pool::Endpoint;
use crate::types::{Event, JobId, Progress};

/// A job that was seen is looked for this often where a peer does not know it: that peer lags.
const REFUSALS_MAX: u32 = 20;

/// A watch of one job; made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    job: JobId,
    deadline: Option<Instant>,
    endpoint: Endpoint,
    stream: Option<Streaming<wire::JobEvent>>,
    /// When the next attempt to open may begin.
    resume_at: Instant,
    /// When a peer that has told no news is left. Its keep-alives are no news: a peer that is cut
    /// off from the others repeats what it knows for ever.
    silent_at: Instant,
    /// Failures since the last news.
    failures: u32,
    refusals_left: u32,
    tried: Vec<Tried>,
    seen: Seen,
    over: bool,
}

impl Client {
    /// Watches a job: its present state first, then each change, until it is terminal.
    ///
    /// When the peer dies or knows nothing new for long, the next one is asked; nothing is told
    /// twice.
    pub fn watch(&self, job: JobId) -> Watch {
        let now = Instant::now();
        let others = u32::try_from(self.pool().len()).unwrap_or(u32::MAX).saturating_sub(1);
        Watch {
            client: self.clone(),
            job,
            deadline: self.options().watch_deadline.map(|wait| now + wait),
            endpoint: self.pool().choose(Wish::Any, now),
            stream: None,
            resume_at: now,
            silent_at: now,
            failures: 0,
            refusals_left: others,
            tried: Vec::new(),
            seen: Seen::default(),
            over: false,
        }
    }
}

impl Watch {
    /// Says that the job exists, so a peer that does not know it lags behind.
    pub(crate) fn known(mut self) -> Self {
        self.refusals_left = REFUSALS_MAX;
        self
    }

    /// Waits for the next event; `None` after the terminal one and after an error.
    ///
    /// # Errors
    /// - [`Error::NotFound`]: no peer knows the job.
    /// - [`Error::Deadline`]: the watch took longer than [`crate::Options::watch_deadline`].
    /// - [`Error::Malformed`], [`Error::Internal`]: a peer speaks something else.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost, the next call goes on where this one was dropped.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        while !self.over {
            match self.advance().await {
                Ok(None) => {}
                Ok(Some(event)) => {
                    self.over = event.job.phase.is_terminal();
                    return Some(Ok(event));
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> + Send {
        futures_util::stream::unfold(self, |mut watch| async move {
            let item = watch.next().await?;
            Some((item, watch))
        })
    }

    /// Makes one move: opens the stream, reads a message, or leaves a peer that is of no use.
    async fn advance(&mut self) -> Result<Option<Event>, Error> {
        let Some(stream) = self.stream.as_mut() else {
            self.open().await?;
            return Ok(None);
        };
        let until = self.deadline.map_or(self.silent_at, |end| end.min(self.silent_at));
        match timeout_at(until, stream.message()).await {
            Ok(Ok(Some(message))) => {
                let event = convert::event(message)?;
                self.client.pool().answered(&self.endpoint.address, Instant::now());
                self.refusals_left = REFUSALS_MAX;
                let told = self.seen.admit(event);
                if told.is_some() {
                    // Only news end the back-off: a peer may repeat itself and hang up for ever.
                    self.failures = 0;
                    self.tried.clear();
                    self.silent_at = Instant::now() + self.client.options().watch_silence;
                }
                Ok(told)
            }
            Ok(Ok(None)) => {
                let ended = tonic::Status::unavailable("the stream ended before the job did");
                self.leave(Failure::new(&self.endpoint.address, &ended))?;
                Ok(None)
            }
            Ok(Err(status)) => {
                self.leave(Failure::new(&self.endpoint.address, &status))?;
                Ok(None)
            }
            Err(_) => {
                self.past_deadline()?;
                self.stream = None;
                self.endpoint = self.client.pool().after(&self.endpoint.address, Instant::now());
                Ok(None)
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        sleep_until(self.deadline.map_or(self.resume_at, |end| end.min(self.resume_at))).await;
        self.past_deadline()?;
        let left = self.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let most = self.client.options().attempt_timeout;
        let wait = left.map_or(most, |left| left.min(most));
        let mut rpc = Client::rpc(&self.endpoint);
        // Whoever is asked next waits until it has come as far as what was told already.
        let after_index = self.seen.last.as_ref().map_or(0, |seen| seen.log_index);
        let (job_id, previews) = (self.job.to_string(), self.client.options().previews);
        let request = wire::WatchRequest { job_id, after_index, previews };
        let mut request = Request::new(request);
        if let Some(left) = left {
            request.set_timeout(left);
        }
        match timeout(wait, rpc.watch(request)).await {
            Ok(Ok(reply)) => {
                self.stream = Some(reply.into_inner());
                // Whoever streams the job also knows the members; the stream waits meanwhile.
                self.client.learn_members().await;
                self.silent_at = Instant::now() + self.client.options().watch_silence;
                Ok(())
            }
            Ok(Err(status)) => self.leave(Failure::new(&self.endpoint.address, &status)),
            Err(_) => self.leave(Failure::timeout(&self.endpoint.address, wait)),
        }
    }

    /// Turns to another endpoint after a failure, or gives up where that is of no use.
    fn leave(&mut self, failure: Failure) -> Result<(), Error> {
        self.stream = None;
        self.client.book(&failure);
        self.tried.retain(|tried| tried.address != failure.address);
        let (address, why) = (failure.address.clone(), failure.message.clone());
        self.tried.push(Tried { address, why });
        if failure.class == Class::Final {
            if self.refusals_left == 0 || failure.code == Code::InvalidArgument {
                return Err(failure.into_error());
            }
            self.refusals_left -= 1;
        }
        self.past_deadline()?;
        self.resume_at = Instant::now() + self.pause(failure.class);
        self.failures = self.failures.saturating_add(1);
        let hint = failure.leader.filter(|leader| *leader != failure.address);
        let leader = hint.and_then(|leader| self.client.pool().learn(&leader));
        self.endpoint =
            leader.unwrap_or_else(|| self.client.pool().after(&failure.address, Instant::now()));
        Ok(())
    }

    fn pause(&self, class: Class) -> Duration {
        let options = self.client.options();
        let random = options.entropy.draw();
        let pause = Backoff::new(options).pause(self.failures, self.client.pool().len(), random);
        match class {
            Class::Later { retry_after: Some(after) } => after,
            _ => pause,
        }
    }

    fn past_deadline(&mut self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                let mut tried = std::mem::take(&mut self.tried);
                if tried.is_empty() {
                    let why = "the job is not over yet".to_owned();
                    tried.push(Tried { address: self.endpoint.address.clone(), why });
                }
                Err(Error::Deadline { tried })
            }
            _ => Ok(()),
        }
    }
}

/// What was given out, so that nothing is told twice or out of order.
#[derive(Debug, Default)]
struct Seen {
    last: Option<Event>,
}

impl Seen {
    /// Lets an event through if it says something new.
    ///
    /// A peer that lags tells of an older log: dropped. Progress goes round the log, so it is
    /// ordered by token, image, stage and step instead; what a peer no longer knows, or does not
    /// know yet, is filled in from what was seen of the same attempt. A preview belongs to the step
    /// that it came with.
    fn admit(&mut self, mut event: Event) -> Option<Event> {
        let Some(last) = &self.last else {
            return Some(self.keep(event));
        };
        if event.log_index < last.log_index && !event.job.phase.is_terminal() {
            return None;
        }
        let seen = last.progress.as_ref().filter(|seen| seen.token >= event.job.token);
        if seen.map(rank) > event.progress.as_ref().map(rank) {
            (event.progress, event.preview) = (seen.cloned(), None);
        }
        if event.job == last.job && event.progress == last.progress {
            return None;
        }
        event.log_index = event.log_index.max(last.log_index);
        Some(self.keep(event))
    }

    fn keep(&mut self, mut event: Event) -> Event {
        let preview = event.preview.take();
        self.last = Some(event.clone());
        Event { preview, ..event }
    }
}

fn rank(progress: &Progress) -> (u64, u32, &crate::types::Stage, u32) {
    (progress.token, progress.image, &progress.stage, progress.step)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::types::{Job, Phase, Preview, Stage};

    fn event(log_index: u64, phase: Phase, token: u64, step: Option<u32>) -> Event {
        let job = Job {
            job: JobId::from_parts(1, 1),
            phase,
            tenant: "default".into(),
            priority: 5,
            submitted_ms: 1,
            finished_ms: None,
            log_index: 1,
            attempts: 0,
            leases: 0,
            node: None,
            token,
            position: None,
            error: String::new(),
            artifacts: Vec::new(),
            failed_attempts: Vec::new(),
            retry_at_ms: None,
            deadline_ms: None,
            max_runtime_s: None,
            retry_of: None,
            parameters: None,
        };
        let progress = step.map(|step| Progress {
            node: 1,
            token,
            stage: Stage::Denoise,
            step,
            steps: 8,
            image: 0,
            encode: Duration::ZERO,
            denoise: Duration::ZERO,
            decode: Duration::ZERO,
        });
        Event { job, log_index, progress, preview: None }
    }

    /// Feeds events and returns the steps of those that came through.
    fn check(events: &[Event], expected: &[(Phase, Option<u32>)]) {
        let mut seen = Seen::default();
        let told: Vec<_> = events.iter().filter_map(|event| seen.admit(event.clone())).collect();
        let got: Vec<_> = told
            .iter()
            .map(|event| (event.job.phase, event.progress.as_ref().map(|at| at.step)))
            .collect();
        assert_eq!(got, expected);
        assert!(told.windows(2).all(|pair| pair[0].log_index <= pair[1].log_index));
    }

    #[test]
    fn a_repeat_is_told_once() {
        let queued = event(5, Phase::Queued, 0, None);
        check(&[queued.clone(), queued.clone(), queued], &[(Phase::Queued, None)]);
    }

    #[test]
    fn a_lagging_peer_does_not_turn_the_job_back() {
        check(
            &[
                event(9, Phase::Leased, 7, Some(3)),
                event(5, Phase::Queued, 0, None),
                event(9, Phase::Leased, 7, None),
                event(9, Phase::Leased, 7, Some(2)),
                event(9, Phase::Leased, 7, Some(4)),
            ],
            &[(Phase::Leased, Some(3)), (Phase::Leased, Some(4))],
        );
    }

    #[test]
    fn another_attempt_begins_its_steps_anew() {
        check(
            &[
                event(9, Phase::Leased, 7, Some(6)),
                event(11, Phase::Queued, 7, None),
                event(12, Phase::Leased, 12, None),
                event(12, Phase::Leased, 12, Some(1)),
            ],
            &[
                (Phase::Leased, Some(6)),
                (Phase::Queued, Some(6)),
                (Phase::Leased, None),
                (Phase::Leased, Some(1)),
            ],
        );
    }

    #[test]
    fn a_preview_comes_with_its_step_alone() {
        let step = |step| {
            let preview = Some(Preview { png: vec![step as u8] });
            Event { preview, ..event(9, Phase::Leased, 7, Some(step)) }
        };
        let mut seen = Seen::default();
        let told = seen.admit(step(3)).unwrap();
        assert_eq!(told.preview, Some(Preview { png: vec![3] }));
        assert_eq!(seen.admit(step(3)), None, "nothing is told twice");
        assert_eq!(seen.admit(step(2)), None, "an older step says nothing new");
        assert_eq!(seen.admit(step(4)).unwrap().preview, Some(Preview { png: vec![4] }));
        // Another peer still tells of an older step, together with the job's end.
        let ended = Event { preview: step(2).preview, ..event(10, Phase::Succeeded, 7, Some(2)) };
        let told = seen.admit(ended).unwrap();
        assert_eq!((told.progress.unwrap().step, told.preview), (4, None));
    }

    #[test]
    fn the_end_is_told_even_by_a_peer_that_lags() {
        check(
            &[event(9, Phase::Leased, 7, Some(6)), event(8, Phase::Succeeded, 7, None)],
            &[(Phase::Leased, Some(6)), (Phase::Succeeded, Some(6))],
        );
    }
}
