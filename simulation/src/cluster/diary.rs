//! The history of operations, as all clients of the rig write it.

use super::Since;
use crate::operations::{
    Answer, Call, Key, Operation, Outcome, Phase, Recorder, Seen, Server, Ticket,
};
use atelier_client::{Accepted, Error, Job, JobId, Settings};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What names of settings begin with that clients change: weights of tenants that have no jobs.
pub(crate) const REGISTER_PREFIX: &str = "queue.weight.register-";

/// A peer's process, as whoever asks it alone tells it from the one before.
pub(crate) trait Serving: Send + Sync {
    /// Which process runs there now.
    fn server(&self) -> Server;
}

/// Writes operations down. Clones write the same diary.
#[derive(Clone)]
pub(crate) struct Diary {
    recorder: Arc<Mutex<Recorder>>,
    // Told of the log index of what is acknowledged.
    acknowledged: Arc<dyn Fn(u64) + Send + Sync>,
    since: Since,
}

impl Diary {
    pub(crate) fn new(since: Since, acknowledged: impl Fn(u64) + Send + Sync + 'static) -> Diary {
        Diary { recorder: Arc::default(), acknowledged: Arc::new(acknowledged), since }
    }

    /// Asks something, and writes down what was asked and what came of it.
    pub(crate) async fn write<T>(
        &self,
        session: u64,
        (key, call): (Key, Call),
        asked: impl Future<Output = T>,
        told: impl FnOnce(&T) -> Outcome,
    ) -> T {
        self.write_at(None, session, (key, call), asked, told).await
    }

    /// The same of something that goes to one peer, and to its present process unless that dies.
    pub(crate) async fn write_at<T>(
        &self,
        host: Option<&dyn Serving>,
        session: u64,
        (key, call): (Key, Call),
        asked: impl Future<Output = T>,
        told: impl FnOnce(&T) -> Outcome,
    ) -> T {
        let before = host.map(Serving::server);
        let ticket = self.recorder().call(self.now_us(), session, key, call);
        let result = asked.await;
        let outcome = told(&result);
        self.returns(
            ticket,
            outcome,
            before.filter(|before| host.map(Serving::server) == Some(*before)),
        );
        result
    }

    fn returns(&self, ticket: Ticket, outcome: Outcome, server: Option<Server>) {
        if let Outcome::Ok { index: Some(index), .. } = outcome {
            (self.acknowledged)(index);
        }
        let mut recorder = self.recorder();
        recorder.returns(self.now_us(), ticket, outcome);
        if let Some(server) = server {
            recorder.serve(ticket, server);
        }
    }

    /// Returns what was written so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.recorder().operations().to_vec()
    }

    fn now_us(&self) -> u64 {
        u64::try_from((self.since)().as_micros()).expect("virtual time is short")
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a job in the plan.
pub(crate) fn number_of(job: JobId) -> u64 {
    let id: ulid::Ulid = job.to_string().parse().expect("an id is a ULID");
    u64::try_from(id.random()).expect("the random part of an id is its number")
}

/// A job as a client sees it.
pub(crate) fn seen(job: &Job) -> Seen {
    Seen {
        phase: Phase::of(job.phase.word()).expect("the phases of client and history are the same"),
        token: job.token,
        leases: job.leases,
        attempts: job.attempts,
        result: job.artifacts.iter().map(|artifact| artifact.digest.clone()).collect(),
    }
}

fn done(answer: Answer) -> Outcome {
    Outcome::Ok { answer, index: None }
}

/// What came of a submission.
pub(crate) fn submitted(result: &Result<Accepted, Error>) -> Outcome {
    match result {
        Ok(accepted) => {
            let (job, duplicate) = (number_of(accepted.job), accepted.duplicate);
            let index = Some(accepted.log_index);
            Outcome::Ok { answer: Answer::Submitted { job, duplicate }, index }
        }
        Err(
            error @ (Error::Unavailable { .. }
            | Error::Full { .. }
            | Error::Invalid { .. }
            | Error::AlreadyExists { .. }),
        ) => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// What came of a cancel.
pub(crate) fn cancelled(result: &Result<Job, Error>) -> Outcome {
    match result {
        Ok(job) => done(Answer::Job(seen(job))),
        Err(Error::NotFound { .. }) => done(Answer::NoJob),
        Err(Error::Conflict { .. }) => Outcome::Refused("Terminal".to_owned()),
        Err(error @ Error::Unavailable { .. }) => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// What came of a read, which changes nothing: without an answer it never was.
pub(crate) fn read(result: &Result<Job, Error>) -> Outcome {
    match result {
        Ok(job) => done(Answer::Job(seen(job))),
        Err(Error::NotFound { .. }) => done(Answer::NoJob),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// The settings that clients change, those with the default left out.
pub(crate) fn registers(settings: &Settings) -> Answer {
    let values: BTreeMap<String, u64> = settings
        .settings
        .iter()
        .filter(|setting| setting.key.starts_with(REGISTER_PREFIX) && setting.version.is_some())
        .map(|setting| match setting.value {
            atelier_client::SettingValue::Number(value) => (setting.key.clone(), value),
            atelier_client::SettingValue::Flag(flag) => (setting.key.clone(), u64::from(flag)),
        })
        .collect();
    Answer::Settings { version: settings.version, values }
}

/// What came of reading the settings.
pub(crate) fn read_settings(result: &Result<Settings, Error>) -> Outcome {
    match result {
        Ok(settings) => done(registers(settings)),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// What came of changing a setting.
pub(crate) fn set(result: &Result<Settings, Error>) -> Outcome {
    match result {
        Ok(settings) => done(registers(settings)),
        Err(Error::Conflict { message, .. }) if message.contains("changed since") => {
            Outcome::Refused("StaleVersion".to_owned())
        }
        Err(
            error @ (Error::Unavailable { .. }
            | Error::Full { .. }
            | Error::Invalid { .. }
            | Error::Conflict { .. }),
        ) => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}
