//! The operator: changes who belongs to the cluster and who leads it, one act after another, by the
//! real client library.
//!
//! An act is tried until it is done or its time is over. What came of one that is given up is not
//! known; whatever it was, all peers must agree on it in the end.

use super::chronicle::Event;
use super::clients;
use super::hardware::address;
use super::host::Host;
use super::network::Network;
use super::plan::{Act, ActKind, Plan};
use atelier_client::{Client, Error, Member, MemberUpdate, Replacement};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// For one act, with all its repeats.
const ACT_MAX: Duration = Duration::from_secs(20);
/// Between two tries, and between two starts of a machine that was not let in.
const PAUSE: Duration = Duration::from_secs(1);

/// How far the operator has come.
#[derive(Clone, Default)]
pub(crate) struct Desk(Arc<Mutex<Progress>>);

#[derive(Clone, Debug, Default)]
struct Progress {
    ended: bool,
    /// Whether a machine must belong to the cluster in the end; of others it is not known.
    belongs: BTreeMap<u64, bool>,
    done: BTreeMap<&'static str, u64>,
}

impl Desk {
    /// Says whether every act is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.read(|progress| progress.ended)
    }

    /// Returns which machines are known to belong to the cluster, and which not to.
    pub(crate) fn belongs(&self) -> BTreeMap<u64, bool> {
        self.read(|progress| progress.belongs.clone())
    }

    /// Returns how many acts of each kind were done.
    pub(crate) fn done(&self) -> BTreeMap<&'static str, u64> {
        self.read(|progress| progress.done.clone())
    }

    fn read<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Does all acts of a plan.
pub(crate) fn play(
    plan: &Plan,
    network: &Network,
    hosts: &[Arc<Host>],
    desk: &Desk,
    origin: Instant,
) {
    let peers: Vec<u64> = (1..=plan.shape.peers).collect();
    let client = clients::operator(network, plan.shape.seed, &peers);
    let (network, hosts, desk) = (network.clone(), hosts.to_vec(), desk.clone());
    let acts = plan.acts.clone();
    let first = |host: &Arc<Host>| (host.id, peers.contains(&host.id));
    desk.change(|progress| progress.belongs = hosts.iter().map(first).collect());
    tokio::spawn(async move {
        for act in acts {
            sleep_until(origin + Duration::from_millis(act.at_ms)).await;
            let name = act.kind.name();
            network.note(&format!("operator: {name}"));
            network.tell(Event::Act { text: format!("{:?}", act.kind) });
            // Until it is over nobody knows.
            desk.change(|progress| {
                progress.belongs.retain(|machine, _| !act.kind.moves(*machine));
            });
            let done = timeout(ACT_MAX, perform(&client, &hosts, &act)).await.is_ok();
            let told = if done { "done" } else { "given up" };
            network.note(&format!("operator: {name} is {told}"));
            network.tell(Event::ActEnds { text: format!("{:?}: {told}", act.kind) });
            if !done {
                continue;
            }
            desk.change(|progress| {
                *progress.done.entry(name).or_default() += 1;
                progress.belongs.extend(act.kind.leaves().map(|machine| (machine, false)));
                progress.belongs.extend(act.kind.comes().map(|machine| (machine, true)));
            });
        }
        desk.change(|progress| progress.ended = true);
    });
}

/// Tries an act until it is done.
async fn perform(client: &Client, hosts: &[Arc<Host>], act: &Act) {
    if let Some(machine) = act.kind.comes() {
        tokio::spawn(keep_up(host(hosts, machine)));
    }
    while attempt(client, &act.kind).await.is_err() {
        sleep(PAUSE).await;
    }
}

async fn attempt(client: &Client, act: &ActKind) -> Result<(), Error> {
    let members = client.members().await?;
    let node = |machine: u64| of(&members, machine).map(|member| member.node);
    // Whoever is not there yet is waited for; whoever is gone is gone.
    let missing = || Err(Error::NotFound { message: "no such member".to_owned() });
    match *act {
        ActKind::Transfer { to } => {
            let Some(to) = node(to) else { return missing() };
            client.transfer_leader(Some(to)).await.map(drop)
        }
        ActKind::Replace { leaves, comes } => {
            let Some(comes) = of(&members, comes) else { return missing() };
            let swap = Replacement::Learner(comes.node);
            client.replace_member(leaves, &swap, "it is simulated").await.map(drop)
        }
        ActKind::Add { comes } => {
            let Some(comes) = node(comes) else { return missing() };
            client.promote_member(comes).await.map(drop)
        }
        // A peer of the first day has its machine's number, and a list may show what is not agreed upon yet.
        ActKind::Remove { leaves } => client.remove_member(leaves, "it is simulated").await,
        ActKind::Demote { peer } => {
            let Some(node) = node(peer) else { return missing() };
            client.demote_member(node).await.map(drop)
        }
        ActKind::Promote { peer } => {
            let Some(node) = node(peer) else { return missing() };
            client.promote_member(node).await.map(drop)
        }
        ActKind::Drain { peer, draining } => {
            let Some(node) = node(peer) else { return missing() };
            let update = MemberUpdate { draining: Some(draining), ..MemberUpdate::default() };
            client.set_member(node, &update).await.map(drop)
        }
    }
}

fn of(members: &[Member], machine: u64) -> Option<&Member> {
    members.iter().find(|member| member.address == address(machine))
}

fn host(hosts: &[Arc<Host>], machine: u64) -> Arc<Host> {
    hosts[usize::try_from(machine - 1).expect("a machine of the plan")].clone()
}

/// Starts a newcomer, and again as its keeper would where it was not let in.
async fn keep_up(host: Arc<Host>) {
    host.enable();
    while host.is_enabled() {
        host.start().await;
        sleep(PAUSE).await;
    }
}
