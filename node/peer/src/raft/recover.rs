//! Makes a survivor a cluster of its own, after a majority of the voters was lost for good.
//!
//! ```text
//!   directory ──► read and check all ──► report ──► one batch: entries, vote, lineage ──► the state's lineage
//! ```
//!
//! Nothing is taken away: behind the log as it is come a membership of this node alone, and the commands that give
//! open leases back and drop the lost nodes from the roster. The cluster's name gets a new *lineage*, which every
//! request carries, so that a lost peer that comes back after all is refused by name and can neither vote nor be
//! followed. What was acknowledged and is not in this node's log is lost; nobody can know from here whether there is
//! any, and the report says where the log ends.
//!
//! It works on a directory that no process uses. When it is interrupted it is to be run again.

use super::apply::replay;
use super::codec;
use super::log_storage::LogStorage;
use super::snapshots::Shelf;
use super::types::{Commands, Entry, LogId, Membership, Vote};
use crate::ports::{Batch, Store, StoreError, Tree};
use crate::storage::log::{Hard, put_entry, put_hard};
use crate::storage::{Identity, IdentityError, LoadError, identity};
use atelier_state::command::{RemoveNode, Revoke};
use atelier_state::lease::RevokeReason;
use atelier_state::{Author, Command, NodeId, Phase, State};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Commands of one entry that recovery writes; each has some dozens of bytes, and an author.
const ENTRY_COMMANDS: usize = 32;

/// Who the trail names.
const RECOVERY: &str = "cluster recover";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The cluster's name in the configuration, without a lineage.
    pub cluster: String,
    /// Where this node's gRPC is dialled.
    pub address: String,
    /// Why, for whoever reads the trail later.
    pub why: String,
    /// The wall clock in milliseconds, for the trail.
    pub now_ms: u64,
    /// Chance that makes the lineage another one than that of another survivor which is recovered too.
    pub chance: [u8; 4],
    /// Look and report, and change nothing.
    pub dry_run: bool,
}

/// What was found, and made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The survivor.
    pub node: NodeId,
    /// The name with the lineage that is given up.
    pub lineage_before: String,
    /// The name with the new lineage.
    pub lineage: String,
    /// Voters that are given up.
    pub lost: Vec<NodeId>,
    /// The last entry here: whatever was acknowledged behind it is lost.
    pub last_index: u64,
    /// The last entry that this node knew to be agreed upon. Entries behind it are kept: they may have been
    /// acknowledged.
    pub committed_index: u64,
    /// Jobs that wait, those that are given back included.
    pub queued: usize,
    /// Leases that are given back.
    pub leases: usize,
    /// Jobs that have ended.
    pub terminal: usize,
    /// Succeeded jobs of whose pictures no copy is known to be here.
    pub pictures_elsewhere: usize,
}

/// Why nothing was recovered. What is on the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory is new, so there is nothing in it.
    #[error("the directory holds no peer's data; name the survivor's with its configuration")]
    Empty,
    /// It is another cluster's.
    #[error("the directory belongs to cluster `{found}`, the configuration says `{expected}`")]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// It was no member.
    #[error(
        "node {0} is no member of its cluster, so it cannot go on alone; take another survivor"
    )]
    NotMember(NodeId),
    /// It needs nobody.
    #[error(
        "node {0} is the only voter: it decides alone, so there is nothing to recover; start it"
    )]
    Alone(NodeId),
    /// The mark of the node is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is stored is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The new entries cannot be made; this is a bug.
    #[error("membership of the survivor: {0}")]
    Membership(String),
    /// It was not written. Mend the disk and run it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Splits the name of a cluster from its lineage.
pub fn base_of(cluster: &str) -> &str {
    cluster.split_once(LINEAGE_MARK).map_or(cluster, |(base, _)| base)
}

/// How often a cluster was recovered; 0 for never.
pub fn generation_of(cluster: &str) -> u64 {
    let lineage = cluster.split_once(LINEAGE_MARK).map_or("", |(_, lineage)| lineage);
    lineage.split_once('-').and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// Between the name and the lineage; no name has it.
const LINEAGE_MARK: char = '@';

/// What lies in a directory.
struct Found {
    identity: Identity,
    state: State,
    membership: Membership,
    term: u64,
    last: u64,
    committed: u64,
    /// An earlier recovery was interrupted after its batch: this is what remains to be written.
    unfinished: bool,
}

/// Recovers a directory, or looks at what would come of it. Blocks.
///
/// # Errors
/// As the variants of [`RecoverError`] say.
pub fn recover(store: &Arc<dyn Store>, wanted: &Recovery) -> Result<Recovered, RecoverError> {
    let found = read(store, wanted)?;
    let node = found.identity.node;
    if found.unfinished {
        let report = report(&found, found.identity.cluster.clone(), &BTreeSet::new());
        if !wanted.dry_run {
            adopt(store.as_ref(), &found.identity)?;
        }
        return Ok(report);
    }
    let voters: BTreeSet<u64> = found.membership.voter_ids().collect();
    if found.membership.get_node(&node.0).is_none() {
        return Err(RecoverError::NotMember(node));
    }
    if voters == BTreeSet::from([node.0]) {
        return Err(RecoverError::Alone(node));
    }
    let lineage = next_lineage(&found.identity.cluster, wanted.chance);
    let report = report(&found, lineage.clone(), &voters);
    if wanted.dry_run {
        return Ok(report);
    }
    let identity = Identity { node, cluster: lineage };
    let batch = batch(&found, wanted, &identity)?;
    store.write(Tree::Log, batch)?;
    adopt(store.as_ref(), &identity)?;
    Ok(report)
}

fn read(store: &Arc<dyn Store>, wanted: &Recovery) -> Result<Found, RecoverError> {
    let identity = identity::stored(store.as_ref())?.ok_or(RecoverError::Empty)?;
    if base_of(&identity.cluster) != base_of(&wanted.cluster) {
        let (found, expected) = (identity.cluster, wanted.cluster.clone());
        return Err(RecoverError::OtherCluster { found, expected });
    }
    let in_state = identity::stored_in(store.as_ref(), Tree::State)?;
    let unfinished = in_state.is_some_and(|other| other.cluster != identity.cluster);
    let (_shelf, meta, mut state) = Shelf::open(store)?;
    let (log, thread) = LogStorage::open(store)?;
    let (entries, vote, committed) = log.contents();
    let mut membership = meta.last_membership.membership().clone();
    for entry in &entries {
        if let EntryPayload::Membership(newer) = &entry.payload {
            membership = newer.clone();
        }
    }
    replay(&mut state, entries.iter());
    let index = |id: Option<LogId>| id.map_or(0, |id| id.index());
    let last = entries.last().map(|entry| entry.log_id).or(meta.last_log_id);
    let last_term = last.map_or(0, |id| id.committed_leader_id().term);
    let found = Found {
        identity,
        state,
        membership,
        term: last_term.max(vote.map_or(0, |vote| vote.leader_id.term)),
        last: index(last),
        committed: index(committed).max(index(meta.last_log_id)),
        unfinished,
    };
    // The writer's thread ends with the last handle, and then nobody else writes.
    drop(log);
    drop(thread.join());
    Ok(found)
}

fn next_lineage(cluster: &str, chance: [u8; 4]) -> String {
    let (base, next) = (base_of(cluster), generation_of(cluster) + 1);
    let chance = u32::from_be_bytes(chance);
    format!("{base}{LINEAGE_MARK}{next}-{chance:08x}")
}

/// The entries behind the log, the vote that they stand under, and the log's new lineage: all or nothing.
fn batch(found: &Found, wanted: &Recovery, identity: &Identity) -> Result<Batch, RecoverError> {
    let (node, term) = (identity.node.0, found.term + 1);
    let alone = Membership::new(
        vec![BTreeSet::from([node])],
        BTreeMap::from([(node, wanted.address.clone())]),
    );
    let alone = alone.map_err(|error| RecoverError::Membership(error.to_string()))?;
    let mut payloads = vec![EntryPayload::Membership(alone)];
    let commands = commands(found, wanted);
    let chunks = commands.chunks(ENTRY_COMMANDS);
    payloads.extend(chunks.map(|chunk| EntryPayload::Normal(Commands::new(chunk.to_vec()))));
    let mut batch = Batch::new();
    for (index, payload) in (found.last + 1..).zip(payloads) {
        let log_id = LogId::new(LeaderId { term, node_id: node }, index);
        put_entry(&mut batch, index, &codec::encode_entry(&Entry { log_id, payload }));
    }
    let vote: Vote = Vote::new_committed(term, node);
    put_hard(&mut batch, Hard::Vote, &codec::encode_vote(&vote));
    identity::mark(&mut batch, identity);
    Ok(batch)
}

/// Gives back what this node held, and drops the others with what they held.
fn commands(found: &Found, wanted: &Recovery) -> Vec<Command> {
    let own = found.identity.node;
    let revokes = found.state.leases_of(own).map(|(job, lease)| {
        Command::Revoke(Revoke { job, token: lease.token, reason: RevokeReason::Silent })
    });
    let others = found.state.nodes().map(|(node, _)| node).filter(|node| *node != own);
    // Before feature level 2 an author would be refused, and the removal with it.
    let author = match found.state.features() {
        0 | 1 => Author::default(),
        _ => Author { who: RECOVERY.to_owned(), why: wanted.why.clone(), at_ms: wanted.now_ms },
    };
    let removals =
        others.map(|node| Command::RemoveNode(RemoveNode { node, author: author.clone() }));
    revokes.chain(removals).collect()
}

/// Gives the state's tree to the lineage of the log's.
fn adopt(store: &dyn Store, identity: &Identity) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    identity::mark(&mut batch, identity);
    store.write(Tree::State, batch)
}

fn report(found: &Found, lineage: String, voters: &BTreeSet<u64>) -> Recovered {
    let node = found.identity.node;
    let leases = found.state.leased_count();
    let elsewhere = found.state.jobs().filter(|(_, job)| {
        let here = |artifact: &atelier_state::ArtifactRef| artifact.holders.contains(&node);
        job.phase == Phase::Succeeded && !job.artifacts.iter().all(here)
    });
    Recovered {
        node,
        lineage_before: found.identity.cluster.clone(),
        lineage,
        lost: voters.iter().copied().filter(|id| *id != node.0).map(NodeId).collect(),
        last_index: found.last,
        committed_index: found.committed,
        queued: found.state.queued_count() + leases,
        leases,
        terminal: found.state.terminal_count(),
        pictures_elsewhere: elsewhere.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lineages_keep_the_name_and_differ() {
        let second = next_lineage("studio", [0, 0, 0, 7]);
        assert_eq!(second, "studio@1-00000007");
        assert_eq!((base_of(&second), generation_of(&second)), ("studio", 1));
        assert_eq!(next_lineage(&second, [1, 0, 0, 0]), "studio@2-01000000");
        assert_eq!((base_of("studio"), generation_of("studio")), ("studio", 0));
    }
}
