//! What clients do beside having jobs drawn: they look at jobs and settings through this peer or
//! that one, watch jobs, change settings by compare-and-set, and submit again what others did.
//!
//! Deeds are data, as faults are. They are there for the history: without reads nobody would see
//! that a peer answers wrong.

use super::clients::{Reach, client, job_id, submission};
use super::diary::{self, Diary, REGISTER_PREFIX, Serving};
use super::plan::{Plan, Shape};
use crate::operations::{Answer, Call, Key, Outcome};
use crate::world::Rng;
use atelier_client::{Author, Client, Error, Event, SettingChange, SettingValue, Submission};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Settings that clients change.
const REGISTERS: u64 = 3;
/// The least value of such a setting: what equals its default, 1, is not stored.
const VALUE_MIN: u64 = 2;
/// The greatest.
const VALUE_MAX: u64 = 100;
/// Jobs that are submitted under another's idempotency key are numbered from here.
const TWINS: u64 = 500_000;
/// After so long a watch is dropped, where its job has not ended.
const WATCH: Duration = Duration::from_secs(60);

/// Something that a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When.
    pub at_ms: u64,
    /// Who.
    pub client: u64,
    /// Through which peer alone; 0: through any.
    pub peer: u64,
    /// What.
    #[serde(flatten)]
    pub kind: DeedKind,
}

/// The kinds of deeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum DeedKind {
    /// Looks at a job.
    Read {
        /// Which.
        job: u64,
    },
    /// Watches a job until it has ended.
    Watch {
        /// Which.
        job: u64,
    },
    /// Submits a job of somebody else again.
    Again {
        /// Which.
        job: u64,
    },
    /// Submits another job under the idempotency key of one that was accepted.
    Twin {
        /// Of which.
        job: u64,
    },
    /// Looks at the settings.
    ReadSettings,
    /// Looks at the settings and then changes one, if nobody else did meanwhile.
    Set {
        /// Which one.
        register: u64,
        /// To what.
        value: u64,
    },
}

/// Draws the deeds of a plan, from numbers of their own: its faults and wishes stay what they are.
pub(crate) fn draw(shape: &Shape, jobs: u64) -> Vec<Deed> {
    let rng = &mut Rng::of(shape.seed, "cluster deeds");
    let mut deeds: Vec<Deed> = (0..rng.between(20..=70))
        .map(|_| {
            let job = rng.between(1..=jobs);
            let kind = match rng.below(100) {
                0..35 => DeedKind::Read { job },
                35..45 => DeedKind::Watch { job },
                45..50 => DeedKind::Again { job },
                50..55 => DeedKind::Twin { job },
                55..75 => DeedKind::ReadSettings,
                _ => {
                    let value = rng.between(VALUE_MIN..=VALUE_MAX);
                    DeedKind::Set { register: rng.below(REGISTERS), value }
                }
            };
            Deed {
                at_ms: 1_000 + rng.below(shape.heal_ms - 1_000),
                client: rng.below(shape.clients),
                peer: if rng.chance(60) { rng.between(1..=shape.peers) } else { 0 },
                kind,
            }
        })
        .collect();
    deeds.sort_by_key(|deed| deed.at_ms);
    deeds
}

/// One client's hands: as many connections as there are peers it may be bound to.
struct Doer {
    client: Client,
    // The only peer that the client reaches.
    host: Option<Arc<dyn Serving>>,
    session: u64,
    diary: Diary,
}

/// Lets clients do what the plan says.
pub(crate) fn play(
    plan: &Plan,
    reach: &impl Reach,
    hosts: &BTreeMap<u64, Arc<dyn Serving>>,
    diary: &Diary,
    origin: Instant,
) {
    let all: Vec<u64> = hosts.keys().copied().collect();
    for at in 0..plan.shape.clients {
        for peer in 0..=plan.shape.peers {
            let host = hosts.get(&peer).cloned();
            let peers = host.as_ref().map_or(all.clone(), |_| vec![peer]);
            let session = 100 + 10 * at + peer;
            let client = client(reach, &format!("doer-{session}"), plan.shape.seed, &peers);
            let doer = Arc::new(Doer { client, host, session, diary: diary.clone() });
            let deeds = plan.deeds.iter().enumerate();
            for (place, deed) in deeds.filter(|(_, it)| (it.client, it.peer) == (at, peer)) {
                let (doer, deed, watch) = (doer.clone(), deed.clone(), 1_000 + place as u64);
                tokio::spawn(async move {
                    sleep_until(origin + Duration::from_millis(deed.at_ms)).await;
                    doer.act(deed.kind, watch).await;
                });
            }
        }
    }
}

impl Doer {
    async fn act(&self, kind: DeedKind, watch: u64) {
        match kind {
            DeedKind::Read { job } => {
                let asked = self.client.job(job_id(job));
                self.write((Key::Job(job), Call::Read), asked, diary::read).await.ok();
            }
            DeedKind::Watch { job } => {
                // Whoever gives up leaves the last event open, which is no news.
                let _ = timeout(WATCH, self.watch(job, watch)).await;
            }
            DeedKind::Again { job } => self.submit(job, submission(job)).await,
            DeedKind::Twin { job } => {
                // The first one must be accepted before: else this one would be the job of the key.
                if self.client.job(job_id(job)).await.is_ok() {
                    let twin = Submission { job: job_id(TWINS + job), ..submission(job) };
                    self.submit(TWINS + job, twin).await;
                }
            }
            DeedKind::ReadSettings => {
                self.read_settings().await;
            }
            DeedKind::Set { register, value } => self.set(register, value).await,
        }
    }

    async fn submit(&self, job: u64, submission: Submission) {
        let asked = self.client.submit(&submission);
        let call = submit_call(&submission);
        self.write((Key::Job(job), call), asked, diary::submitted).await.ok();
    }

    /// Each event is an operation of its own, asked when the one before was told.
    async fn watch(&self, job: u64, session: u64) {
        let mut watch = self.client.watch(job_id(job));
        loop {
            let asked = (Key::Job(job), Call::Watch);
            let event = self.diary.write(session, asked, watch.next(), watched).await;
            if !matches!(event, Some(Ok(_))) {
                return;
            }
        }
    }

    async fn read_settings(&self) -> Option<u64> {
        let asked = self.client.settings();
        let read = self.write((Key::Settings, Call::ReadSettings), asked, diary::read_settings);
        read.await.ok().map(|settings| settings.version)
    }

    async fn set(&self, register: u64, value: u64) {
        let Some(expected) = self.read_settings().await else { return };
        let name = format!("{REGISTER_PREFIX}{register}");
        let change = SettingChange { key: name.clone(), value: Some(SettingValue::Number(value)) };
        let author = Author { who: format!("session {}", self.session), ..Author::default() };
        let changes = [change];
        let asked = self.client.set_settings(Some(expected), &changes, &author);
        let call = Call::Set { expected, name, value };
        self.write((Key::Settings, call), asked, diary::set).await.ok();
    }

    async fn write<T>(
        &self,
        asked: (Key, Call),
        asking: impl Future<Output = T>,
        told: impl FnOnce(&T) -> Outcome,
    ) -> T {
        self.diary.write_at(self.host.as_deref(), self.session, asked, asking, told).await
    }
}

/// The submission as the history tells it.
pub(crate) fn submit_call(submission: &Submission) -> Call {
    let key = Some(submission.idempotency_key.clone()).filter(|key| !key.is_empty());
    // The peers decide how many attempts a job may have.
    Call::Submit { key, attempts_max: 0 }
}

fn watched(event: &Option<Result<Event, Error>>) -> Outcome {
    match event {
        Some(Ok(event)) => {
            let answer = Answer::Job(diary::seen(&event.job));
            Outcome::Ok { answer, index: Some(event.log_index) }
        }
        Some(Err(error)) => Outcome::Refused(error.to_string()),
        None => Outcome::Ok { answer: Answer::Done, index: None },
    }
}
