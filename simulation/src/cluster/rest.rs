//! What must hold once all faults are over: the cluster has come to rest, every peer holds what clients were told,
//! and a fresh job is drawn through each.
//!
//! For rigs whose peers run in this process, so that one may look into them. It must not know how the peers reach one
//! another.

use super::Plan;
use super::clients::{self, Answers, Reach, Told};
use super::engine::picture;
use super::eye::Onlooker;
use super::hardware::address;
use atelier_client::Phase as Ended;
use atelier_peer::peer::Peer;
use atelier_peer::ports::Log;
use atelier_state::{ArtifactRef, Digest, JobId, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// For a fresh job, once everything has come to rest.
const FRESH: Duration = Duration::from_secs(30);

/// A property that is broken, and how.
pub(crate) type Broken = (&'static str, String);

/// A machine whose peer runs in this process.
pub(crate) trait Machine {
    /// Its number.
    fn id(&self) -> u64;

    /// The peer that runs there.
    fn peer(&self) -> Option<Arc<Peer>>;

    /// Says whether it holds an artifact.
    fn holds(&self, digest: Digest) -> bool;
}

/// A cluster after its faults.
pub(crate) struct Rest<'a, M> {
    pub(crate) plan: &'a Plan,
    pub(crate) machines: &'a [Arc<M>],
    pub(crate) told: &'a Told,
    pub(crate) onlooker: &'a Onlooker,
}

impl<'a, M: Machine> Rest<'a, M> {
    /// The machines whose peers belong to the cluster, by what its leader says.
    ///
    /// # Errors
    /// Says why nobody can tell.
    pub(crate) fn members(&self) -> Result<Vec<&'a Arc<M>>, String> {
        let statuses = self.machines.iter().filter_map(|host| host.peer());
        let statuses: Vec<_> = statuses.map(|peer| peer.raft().status().borrow().clone()).collect();
        let mut leading = statuses.iter().filter(|status| status.is_leader);
        let (Some(leader), None) = (leading.next(), leading.next()) else {
            let count = statuses.iter().filter(|status| status.is_leader).count();
            return Err(format!("{count} peers lead"));
        };
        let belongs =
            |host: &&Arc<M>| leader.addresses.values().any(|known| *known == address(host.id()));
        Ok(self.machines.iter().filter(belongs).collect())
    }

    /// Says why the cluster has not come to rest.
    ///
    /// # Errors
    /// That.
    pub(crate) fn rests(&self) -> Result<(), String> {
        let told = self.told.all();
        for wish in &self.plan.wishes {
            let ended = told.get(&wish.job).is_some_and(|answers| answers.ended.is_some());
            if !ended {
                return Err(format!("whoever waits for job {} was not told its end", wish.job));
            }
        }
        let (members, mut agreed) = (self.members()?, None);
        for host in self.machines {
            let is_member = members.iter().any(|member| member.id() == host.id());
            if !is_member && host.peer().is_some() {
                return Err(format!("peer {} is no member and runs", host.id()));
            }
        }
        for host in &members {
            let peer = host.peer().ok_or_else(|| format!("peer {} does not run", host.id()))?;
            let reasons = peer.unready_reasons();
            if !reasons.is_empty() {
                return Err(format!("peer {} is not ready: {}", host.id(), reasons.join(", ")));
            }
            let status = peer.raft().status().borrow().clone();
            let known = (status.applied, status.voters, status.addresses);
            if *agreed.get_or_insert_with(|| known.clone()) != known {
                return Err(format!("peer {} knows {known:?}, another {agreed:?}", host.id()));
            }
        }
        Ok(())
    }

    /// Who was said to have come or left has.
    pub(crate) fn judge_members(&self, belongs: BTreeMap<u64, bool>) -> Result<(), Broken> {
        let members = self.members().map_err(|why| ("liveness", why))?;
        for (machine, belongs) in belongs {
            let is_member = members.iter().any(|member| member.id() == machine);
            if is_member != belongs {
                let detail = format!(
                    "machine {machine} belongs to the cluster: {is_member}, the operator was told: {belongs}"
                );
                return Err(("membership", detail));
            }
        }
        Ok(())
    }

    /// Compares what clients were told with what every peer holds.
    pub(crate) fn judge(&self) -> Result<(), Broken> {
        let members = self.members().map_err(|why| ("liveness", why))?;
        for (job, answers) in self.told.all() {
            for host in &members {
                self.judge_at(host, job, &answers)?;
            }
        }
        Ok(())
    }

    fn judge_at(&self, host: &M, number: u64, answers: &Answers) -> Result<(), Broken> {
        let peer = host.peer().expect("all run, as the cluster rests");
        let view = peer.raft().view().borrow().clone();
        let id = JobId::from_bytes(ulid_bytes(number));
        let Some(job) = view.state.job(id) else {
            return Err((
                "kept",
                format!("job {number} was accepted, peer {} has none", host.id()),
            ));
        };
        if answers.cancelled && job.phase != Phase::Cancelled {
            let phase = job.phase.name();
            return Err(("cancelled", format!("job {number} was called off and is {phase}")));
        }
        let Some(ended) = &answers.ended else { return Ok(()) };
        let same = match ended.phase {
            Ended::Succeeded => job.phase == Phase::Succeeded,
            Ended::Cancelled => job.phase == Phase::Cancelled,
            Ended::Failed => job.phase == Phase::Failed,
            Ended::Queued | Ended::Leased => false,
        };
        if !same {
            let phase = job.phase.name();
            let detail = format!("job {number} was told as {:?} and is {phase}", ended.phase);
            return Err(("result", detail));
        }
        if job.phase == Phase::Failed {
            let error = job.attempts.last().map_or("", |attempt| attempt.error.as_str());
            return Err(("result", format!("job {number} failed, and nothing made it: {error}")));
        }
        if job.phase != Phase::Succeeded {
            return Ok(());
        }
        let drawn = |class| *blake3::hash(&picture(class, &job.submit.parameters)).as_bytes();
        let mut expected = (0..self.plan.shape.classes.max(1)).map(drawn);
        let found: Vec<_> = job.artifacts.iter().map(|artifact| artifact.digest.0).collect();
        if !expected.any(|digest| found == [digest]) {
            let detail = format!("job {number} has another picture than an undisturbed run gives");
            return Err(("artifact", detail));
        }
        self.judge_copies(number, &job.artifacts)
    }

    /// Who is named as a holder of a result holds it: the log said so when the job was completed.
    fn judge_copies(&self, number: u64, artifacts: &[ArtifactRef]) -> Result<(), Broken> {
        for artifact in artifacts {
            for holder in &artifact.holders {
                let machine = self.onlooker.machine_of(holder.0);
                let host = self.machines.iter().find(|host| host.id() == machine);
                if host.is_some_and(|host| !host.holds(artifact.digest)) {
                    let detail = format!(
                        "node {holder} is named as a holder of the picture of job {number} and has none"
                    );
                    return Err(("copies", detail));
                }
            }
        }
        Ok(())
    }
}

/// A fresh job succeeds through each of these peers.
pub(crate) async fn draw_fresh(reach: &impl Reach, seed: u64, peers: &[u64]) -> Result<(), Broken> {
    for id in peers {
        let client = clients::client(reach, &format!("prober-{id}"), seed, &[*id]);
        let fresh = async {
            let submission = clients::submission(1_000_000 + id);
            let accepted = client.submit(&submission).await.map_err(|e| e.to_string())?;
            let job = client.wait(&accepted).await.map_err(|e| e.to_string())?;
            match job.phase {
                Ended::Succeeded if job.leases > 1 => {
                    Err(format!("nothing disturbs it, and it took {} leases", job.leases))
                }
                Ended::Succeeded => Ok(()),
                other => Err(format!("it ended as {other:?}")),
            }
        };
        let drawn = timeout(FRESH, fresh).await;
        let drawn = drawn.unwrap_or_else(|_| Err(format!("not drawn within {FRESH:?}")));
        drawn.map_err(|why| ("liveness", format!("a fresh job through peer {id}: {why}")))?;
    }
    Ok(())
}

fn ulid_bytes(number: u64) -> [u8; 16] {
    let id = clients::job_id(number).to_string();
    let id: ulid::Ulid = id.parse().expect("an id is a ULID");
    id.to_bytes()
}
