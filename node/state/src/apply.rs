//! The only writer of the state: every command, and what it does.
//!
//! Each function below judges first and writes last, so a refusal changes nothing. The audit proves
//! that (`audit::check_step`).
//!
//! Who speaks with a token is answered by one ladder, whatever the command:
//!
//! | the job | the token | answer |
//! |---|---|---|
//! | unknown | any | `UnknownJob` |
//! | any phase | not the newest | `StaleToken` with the newest, 0 where there was never a lease |
//! | leased | the newest | it is done |
//! | ended or queued again by this very command | the newest | `Done`, a repeat |
//! | terminal by anything else | the newest | `Terminal` |
//! | queued again by anything else | the newest | `StaleToken` |
//!
//! The state keeps the token of a failed attempt from feature level 2 on. What failed before is
//! told by its error alone: a `Fail` that arrives after a revocation, with the very error of the
//! attempt before, is answered `Done` and not counted. That is harmless: its lease is over either
//! way.
//!
//! Below feature level 2 everything is as the version before did it, byte by byte in a snapshot:
//! both may run in one cluster. `check_features` holds back what that one would not understand.

mod nodes;
mod records;
mod submit;

use crate::command::{Assign, Cancel, Command, Complete, Expire, Fail, Forget, Release, Revoke};
use crate::job::{Attempt, Job, JobId, Phase};
use crate::lease::{FencingToken, Lease};
use crate::limits;
use crate::mutants::{self, Mutant};
use crate::reply::{LogIndex, Refusal, Reply};
use crate::roster::NodeId;
use crate::state::State;
use crate::validate;

impl State {
    /// Applies one command of the entry at `index` and answers it.
    ///
    /// Total: every command has a reply, and a refused one changes nothing but the applied index.
    /// Several commands of one entry come one by one, in order, with the same index.
    ///
    /// # Panics
    /// When the index goes down: the log was replayed, which the caller must not do.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Reply {
        self.mark_applied(index);
        let judged = validate::check(command).and_then(|()| self.check_features(command));
        let outcome = judged.and_then(|()| match command {
            Command::Submit(submit) => self.submit(index, submit),
            Command::Assign(assign) => self.assign(index, assign),
            Command::Complete(complete) => self.complete(index, complete),
            Command::Fail(fail) => self.fail(index, fail),
            Command::Revoke(revoke) => self.revoke(revoke),
            Command::Cancel(cancel) => self.cancel(index, cancel),
            Command::Forget(forget) => Ok(self.forget(forget)),
            Command::AllocateNode(allocate) => self.allocate_node(index, allocate),
            Command::RegisterNode(register) => self.register_node(register),
            Command::RemoveNode(remove) => self.remove_node(index, remove),
            Command::Release(release) => Ok(self.release(release)),
            Command::Expire(expire) => self.expire(index, expire),
            Command::ForgetKeys(forget) => Ok(self.forget_keys(forget)),
            Command::SetSettings(set) => self.set_settings(index, set),
            Command::SetNode(set) => self.set_node(index, set),
            Command::RaiseFeatures(raise) => self.raise_features(index, *raise),
            Command::Mark => Ok(self.mark(index)),
            Command::NoteAct(note) => Ok(self.note(index, note)),
        });
        outcome.unwrap_or_else(Reply::Refused)
    }

    /// Holds back what some peer might not understand. `RaiseFeatures` is what ends that.
    fn check_features(&self, command: &Command) -> Result<(), Refusal> {
        let raises = matches!(command, Command::RaiseFeatures(_));
        if raises || command.features() <= self.features.0 {
            return Ok(());
        }
        Err(Refusal::Unsupported(self.features.0))
    }

    fn assign(&mut self, index: LogIndex, assign: &Assign) -> Result<Reply, Refusal> {
        let job = self.job(assign.job).ok_or(Refusal::UnknownJob)?;
        match job.phase {
            Phase::Queued if !job.is_delayed() => {}
            Phase::Leased(_) if mutants::is(Mutant::LeasedTwice) => {}
            Phase::Queued | Phase::Leased(_) => return Err(Refusal::NotQueued),
            Phase::Succeeded | Phase::Failed | Phase::Cancelled => return Err(Refusal::Terminal),
        }
        let token = FencingToken::of(index);
        let last = job.last_token.unwrap_or(FencingToken(0));
        if token <= last {
            return Err(Refusal::Invalid(format!(
                "index: expected one above the last token {last}, got {token}; \
                 lease a job once an entry"
            )));
        }
        self.check_slot(assign)?;
        let (node, incarnation) = (assign.node, assign.incarnation);
        let (priority, tag) = (job.submit.priority, job.tag);
        self.change(assign.job, |job| {
            job.phase = Phase::Leased(Lease { token, node, incarnation });
            job.last_token = Some(token);
            job.last_node = Some(node);
            job.leases = job.leases.saturating_add(1);
        });
        if self.has_level_2() {
            self.assigned += 1;
            self.fair.serve(priority, tag);
        }
        Ok(Reply::Assigned { token })
    }

    fn check_slot(&self, assign: &Assign) -> Result<(), Refusal> {
        if self.paused() && !mutants::is(Mutant::PauseIgnored) {
            return Err(Refusal::Paused);
        }
        let node = self.node(assign.node).filter(|node| node.is_registered());
        let node = node.ok_or(Refusal::UnknownNode)?;
        let is_old = node.incarnation != assign.incarnation;
        if is_old && !mutants::is(Mutant::LeaseToOldProcess) {
            return Err(Refusal::StaleIncarnation(node.incarnation));
        }
        if node.draining {
            return Err(Refusal::Draining);
        }
        assert!(node.slots <= limits::SLOTS_MAX);
        let taken = self.leased_count_of(assign.node);
        let has_slot = taken < node.slots as usize || mutants::is(Mutant::SlotsIgnored);
        if has_slot { Ok(()) } else { Err(Refusal::NoSlot) }
    }

    fn complete(&mut self, index: LogIndex, complete: &Complete) -> Result<Reply, Refusal> {
        let job = self.job_of_token(complete.job, complete.token)?;
        let takes_late = job.phase == Phase::Queued && mutants::is(Mutant::LateCompletionAccepted);
        if job.lease().is_none() && !takes_late {
            let is_repeat = job.phase == Phase::Succeeded && job.artifacts == complete.artifacts;
            return repeat_or_over(job, is_repeat);
        }
        self.change(complete.job, |job| {
            job.artifacts = complete.artifacts.clone();
            job.artifacts.iter_mut().for_each(|it| mutants::in_map_order(&mut it.holders));
            job.finish(Phase::Succeeded, index, mutants::clock_ms(complete.finished_ms));
        });
        Ok(Reply::Done)
    }

    fn fail(&mut self, index: LogIndex, fail: &Fail) -> Result<Reply, Refusal> {
        let job = self.job_of_token(fail.job, fail.token)?;
        let error = cut(&fail.error);
        let Some(lease) = job.lease().copied() else {
            // A lease that ended without this error was revoked, or its job was called off.
            let was_failed = matches!(job.phase, Phase::Queued | Phase::Failed);
            let is_told = |last: &Attempt| {
                let is_of_lease = last.token == FencingToken(0) || last.token == fail.token;
                last.error == error && is_of_lease
            };
            let is_repeat = was_failed && job.attempts.last().is_some_and(is_told);
            return repeat_or_over(job, is_repeat);
        };
        let failed = self.attempt(Some(lease), error, fail.finished_ms);
        let attempts = u32::try_from(job.attempts.len() + 1).expect("attempts are bounded");
        assert!(attempts <= job.submit.attempts_max);
        let is_last = fail.permanent || attempts == job.submit.attempts_max;
        let delay_ms = if self.has_level_2() { self.backoff_ms(fail.job, attempts) } else { 0 };
        self.change(fail.job, |job| {
            job.attempts.push(failed);
            if is_last {
                job.finish(Phase::Failed, index, fail.finished_ms);
            } else {
                job.phase = Phase::Queued;
                let retry_at_ms = fail.finished_ms.saturating_add(delay_ms);
                job.retry_at_ms = if delay_ms > 0 { retry_at_ms } else { 0 };
            }
        });
        Ok(Reply::Done)
    }

    /// Makes the record of a failed attempt. The version before kept the error alone.
    fn attempt(&self, lease: Option<Lease>, error: &str, failed_ms: u64) -> Attempt {
        let lease = lease.filter(|_| self.has_level_2());
        Attempt {
            token: lease.map_or(FencingToken(0), |lease| lease.token),
            node: lease.map_or(NodeId(0), |lease| lease.node),
            error: error.to_owned(),
            failed_ms: if self.has_level_2() { failed_ms } else { 0 },
        }
    }

    /// Returns the wait after a job's failed attempt, the first being 1: doubled with each, and off
    /// by up to a fifth, so that jobs that failed together do not come back together.
    fn backoff_ms(&self, job: JobId, attempt: u32) -> u64 {
        let base = self.settings.jobs_backoff_ms_base();
        let doubled = base.saturating_mul(1 << attempt.saturating_sub(1).min(32));
        let wait = doubled.min(self.settings.jobs_backoff_ms_max());
        let mut seed = [0; 20];
        seed[..16].copy_from_slice(&job.to_bytes());
        seed[16..].copy_from_slice(&attempt.to_be_bytes());
        let hash = blake3::hash(&seed);
        let chance = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        let per_mille = 800 + u64::from(chance) % 401;
        let wait = wait.saturating_mul(per_mille) / 1_000;
        assert!(wait <= self.settings.jobs_backoff_ms_max() * 12 / 10);
        if base == 0 { 0 } else { wait.max(1) }
    }

    fn revoke(&mut self, revoke: &Revoke) -> Result<Reply, Refusal> {
        let job = match mutants::is(Mutant::RevokeWithOldToken) {
            true => self.job(revoke.job).ok_or(Refusal::UnknownJob)?,
            false => self.job_of_token(revoke.job, revoke.token)?,
        };
        if job.lease().is_none() {
            // Whoever queued the job again, the lease is gone, as was asked.
            return repeat_or_over(job, job.phase == Phase::Queued);
        }
        self.change(revoke.job, |job| job.phase = Phase::Queued);
        Ok(Reply::Done)
    }

    fn cancel(&mut self, index: LogIndex, cancel: &Cancel) -> Result<Reply, Refusal> {
        let job = self.job(cancel.job).ok_or(Refusal::UnknownJob)?;
        if job.phase.is_terminal() && !mutants::is(Mutant::CancelOverwritesResult) {
            return Err(Refusal::Terminal);
        }
        self.change(cancel.job, |job| {
            job.cancel_reason = cut(&cancel.reason).to_owned();
            job.finish(Phase::Cancelled, index, cancel.finished_ms);
        });
        Ok(Reply::Done)
    }

    fn forget(&mut self, forget: &Forget) -> Reply {
        assert!(forget.jobs.len() <= limits::FORGET_JOBS_MAX);
        for job in &forget.jobs {
            if self.job(*job).is_some_and(|job| job.phase.is_terminal()) {
                let job = self.remove(*job);
                if self.has_level_2() {
                    self.keys.remember(&job);
                }
                self.forgotten += 1;
            }
        }
        Reply::Done
    }

    fn release(&mut self, release: &Release) -> Reply {
        assert!(release.jobs.len() <= limits::RELEASE_JOBS_MAX);
        for job in &release.jobs {
            if self.job(*job).is_some_and(Job::is_delayed) {
                self.change(*job, |job| job.retry_at_ms = 0);
            }
        }
        Reply::Done
    }

    fn expire(&mut self, index: LogIndex, expire: &Expire) -> Result<Reply, Refusal> {
        let job = self.job(expire.job).ok_or(Refusal::UnknownJob)?;
        if job.phase.is_terminal() {
            return Err(Refusal::Terminal);
        }
        let (deadline_ms, finished_ms) = (job.submit.deadline_ms, expire.finished_ms);
        if deadline_ms == 0 {
            return Err(Refusal::Invalid("job: expected one with a deadline, got none".to_owned()));
        }
        if finished_ms < deadline_ms {
            return Err(Refusal::Invalid(format!(
                "finished_ms: expected the deadline {deadline_ms} or later, got {finished_ms}"
            )));
        }
        let late_ms = deadline_ms.saturating_sub(job.submit.submitted_ms);
        let error =
            format!("the deadline passed, {} s after the job was accepted", late_ms / 1_000);
        let failed = self.attempt(job.lease().copied(), &error, finished_ms);
        self.change(expire.job, |job| {
            job.attempts.push(failed);
            job.finish(Phase::Failed, index, finished_ms);
        });
        Ok(Reply::Done)
    }

    fn job_of_token(&self, job: JobId, token: FencingToken) -> Result<&Job, Refusal> {
        let job = self.job(job).ok_or(Refusal::UnknownJob)?;
        if job.last_token == Some(token) || mutants::is(Mutant::LeaseWithoutFencing) {
            return Ok(job);
        }
        Err(Refusal::StaleToken(job.last_token.unwrap_or(FencingToken(0))))
    }
}

/// Answers the newest token of a job that is leased no more.
fn repeat_or_over(job: &Job, is_repeat: bool) -> Result<Reply, Refusal> {
    assert!(job.lease().is_none());
    if is_repeat {
        Ok(Reply::Done)
    } else if job.phase.is_terminal() {
        Err(Refusal::Terminal)
    } else {
        Err(Refusal::StaleToken(job.last_token.expect("the newest token was shown")))
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::ERROR_BYTES_MAX)]
}
