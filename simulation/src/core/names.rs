//! Which number of the plan is which job of the state.

use crate::history::{Answered, Asked};
use crate::world::Rng;
use atelier_state::{ArtifactRef, Command, JobId, Refusal, Reply, SettingChange};
use std::collections::BTreeMap;

/// 2026-01-01 in milliseconds since the Unix epoch; a job's number is added.
const ORIGIN_MS: u64 = 1_767_225_600_000;

/// Job numbers and job ids, both ways.
#[derive(Debug)]
pub(crate) struct Names {
    ids: BTreeMap<u32, JobId>,
    numbers: BTreeMap<JobId, u32>,
}

impl Names {
    /// Names jobs. Their ids are made as clients make them.
    pub(crate) fn new(seed: u64, numbers: impl Iterator<Item = u32>) -> Names {
        let mut names = Names { ids: BTreeMap::new(), numbers: BTreeMap::new() };
        for number in numbers {
            let mut rng = Rng::of(seed, &format!("id of job {number}"));
            let random = u128::from(rng.bits());
            let id = atelier_client::JobId::from_parts(ORIGIN_MS + u64::from(number), random);
            let id: JobId = id.to_string().parse().expect("a client's id is a job id");
            names.ids.insert(number, id);
            names.numbers.insert(id, number);
        }
        names
    }

    pub(crate) fn id(&self, number: u32) -> JobId {
        self.ids[&number]
    }

    pub(crate) fn number(&self, id: JobId) -> u32 {
        self.numbers[&id]
    }

    /// Tells a command as the history does.
    pub(crate) fn asked(&self, command: &Command) -> Asked {
        match command {
            Command::Submit(it) => Asked::Submit {
                job: self.number(it.job),
                key: it.idempotency_key.as_deref().map(str::to_owned),
                parameters: String::from_utf8_lossy(&it.parameters).into_owned(),
            },
            Command::Assign(it) => Asked::Assign {
                job: self.number(it.job),
                node: it.node.0,
                incarnation: it.incarnation,
            },
            Command::Complete(it) => Asked::Complete {
                job: self.number(it.job),
                token: it.token.0,
                artifacts: digests(&it.artifacts),
            },
            Command::Fail(it) => {
                Asked::Fail { job: self.number(it.job), token: it.token.0, permanent: it.permanent }
            }
            Command::Revoke(it) => Asked::Revoke { job: self.number(it.job), token: it.token.0 },
            Command::Cancel(it) => Asked::Cancel { job: self.number(it.job) },
            Command::Forget(it) => {
                Asked::Forget { jobs: it.jobs.iter().map(|job| self.number(*job)).collect() }
            }
            Command::RegisterNode(it) => {
                Asked::Register { node: it.node.0, incarnation: it.incarnation, slots: it.slots }
            }
            Command::Release(it) => {
                Asked::Release { jobs: it.jobs.iter().map(|job| self.number(*job)).collect() }
            }
            Command::RaiseFeatures(it) => Asked::Raise { level: it.level },
            Command::SetSettings(it) => {
                Asked::Set { changes: it.changes.iter().map(change).collect() }
            }
            Command::AllocateNode(_)
            | Command::RemoveNode(_)
            | Command::Expire(_)
            | Command::ForgetKeys(_)
            | Command::NoteAct(_)
            | Command::SetNode(_)
            | Command::Mark => Asked::Other(format!("{command:?}")),
        }
    }

    /// Tells a reply as the history does.
    pub(crate) fn answered(&self, reply: &Reply) -> Answered {
        match reply {
            Reply::Submitted { job, duplicate, .. } => {
                Answered::Submitted { job: self.number(*job), duplicate: *duplicate }
            }
            Reply::Assigned { token } => Answered::Assigned { token: token.0 },
            Reply::Done => Answered::Done,
            Reply::Refused(refusal) => Answered::Refused(word(refusal)),
            Reply::NodeAllocated { .. } => Answered::Refused(format!("{reply:?}")),
        }
    }
}

fn change(change: &SettingChange) -> String {
    let value = change.value.map_or("default".to_owned(), |value| value.to_string());
    format!("{}={value}", change.key)
}

/// Returns the digests of artifacts as text.
pub(crate) fn digests(artifacts: &[ArtifactRef]) -> Vec<String> {
    artifacts.iter().map(|artifact| artifact.digest.to_string()).collect()
}

/// Returns the variant's name: `StaleToken` for `StaleToken(FencingToken(7))`.
pub(crate) fn word(refusal: &Refusal) -> String {
    let text = format!("{refusal:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}
