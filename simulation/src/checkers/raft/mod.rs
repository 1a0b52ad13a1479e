//! What must hold of the peers' logs, votes and states, seen by an eye that looks into all of them at
//! once: after each sync of a disk, each change of a status, each batch that is applied.
//!
//! The eye sees the disks' durable images, which is what a power cut leaves, and never what a peer
//! merely remembers. It shares no code with the product; whoever shows it something translates.
//!
//! | property | promise | source | module |
//! |---|---|---|---|
//! | election | a leader id leads in one process, which a durable quorum has voted for; a durable vote never goes back | Raft 5.2; I12, I17 | `election` |
//! | log matching | an index and a leader id name one entry, and one log before it | Raft 5.3; I11 | `log_matching` |
//! | leader completeness | whoever leads has every committed entry | Raft 5.4; I13 | `completeness` |
//! | durable quorum | a committed entry is on the disks of a quorum, and stays there | Raft 5.3; I14, I15 | `durable` |
//! | acknowledged | whatever a client was told of is committed | I1, M03 | `acknowledged` |
//! | state machine safety | equal states at equal indexes; what a process has applied never goes back | Raft 5.4.3; I16, I17 | `states` |
//! | quorum intersection | two memberships that follow one another have no disjoint quorums; a peer counts by one that holds | Raft 6; I18 | `quorums` |
//!
//! Sources: D. Ongaro and J. Ousterhout, "In search of an understandable consensus algorithm" (2014);
//! I and M are those of simulation-notes.md, section 6.

mod acknowledged;
mod cluster;
mod completeness;
mod durable;
mod election;
mod log_matching;
mod quorums;
mod states;

pub use cluster::{Cluster, Disk};

use std::collections::BTreeSet;

/// Names one leadership. Several may share a term, told apart by the node, so this is what elections
/// are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaderId {
    /// The election.
    pub term: u64,
    /// Who was elected.
    pub node: u64,
}

/// Names one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// Its place.
    pub index: u64,
    /// Who wrote it.
    pub leader: LeaderId,
}

/// Who votes: a majority of each set makes a quorum.
pub type Membership = Vec<BTreeSet<u64>>;

/// An entry on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: LogId,
    /// Of its bytes.
    pub digest: String,
    /// The members that it makes, if it does.
    pub members: Option<Membership>,
}

/// Something that became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry, in place of whatever was there.
    Entry(Entry),
    /// No entry at this index any more.
    Removed(u64),
    /// A promise to follow a leader, or, not committed, to vote for it.
    Vote(LeaderId),
    /// Everything up to here is in a snapshot.
    Purged(LogId),
}

/// Something that the eye sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Changes became durable together on a peer's disk.
    Synced {
        /// Whose.
        peer: u64,
        /// In their order.
        changes: Vec<Change>,
    },
    /// A peer's part in the cluster has changed.
    Status {
        /// Whose.
        peer: u64,
        /// Which of its processes says so.
        life: u64,
        /// The election that it knows of.
        term: u64,
        /// It leads, and has applied the first entry of its leadership.
        leads: bool,
        /// Index of its last entry, durable or not.
        last: u64,
        /// Index up to which it knows entries to be committed.
        committed: u64,
        /// Who votes by the newest membership in its log.
        voters: BTreeSet<u64>,
    },
    /// A peer has applied entries.
    Applied {
        /// Who.
        peer: u64,
        /// Which of its processes.
        life: u64,
        /// Up to which index.
        index: u64,
        /// Of the state that they left.
        digest: String,
    },
    /// A client was told that its command stands at this index.
    Acknowledged {
        /// The index.
        index: u64,
    },
}

/// Judges what the eye sees.
pub trait Invariant: Send {
    /// Looks at the next thing; `cluster` has it already.
    ///
    /// # Errors
    /// What is wrong, when the property is broken.
    fn see(&mut self, cluster: &Cluster, glance: &Glance) -> Result<(), String>;
}

/// A row of the table above.
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Makes its judge.
    pub judge: fn() -> Box<dyn Invariant>,
}

/// Every property, in the order of the table.
pub const PROPERTIES: [Property; 7] = [
    Property { name: "election", judge: || Box::<election::Election>::default() },
    Property { name: "log matching", judge: || Box::<log_matching::LogMatching>::default() },
    Property {
        name: "leader completeness",
        judge: || Box::<completeness::Completeness>::default(),
    },
    Property { name: "durable quorum", judge: || Box::<durable::Durable>::default() },
    Property { name: "acknowledged", judge: || Box::<acknowledged::Acknowledged>::default() },
    Property { name: "state machine safety", judge: || Box::<states::States>::default() },
    Property { name: "quorum intersection", judge: || Box::<quorums::Quorums>::default() },
];

/// The eye: all that was seen, and every judge.
pub struct Eye {
    cluster: Cluster,
    judges: Vec<(&'static str, Box<dyn Invariant>)>,
}

impl Default for Eye {
    fn default() -> Eye {
        let judges = PROPERTIES.iter().map(|it| (it.name, (it.judge)()));
        Eye { cluster: Cluster::default(), judges: judges.collect() }
    }
}

impl Eye {
    /// Sees something.
    ///
    /// # Errors
    /// The first property that is broken by it, and how.
    pub fn see(&mut self, glance: &Glance) -> Result<(), (&'static str, String)> {
        self.cluster.see(glance);
        let Eye { cluster, judges } = self;
        judges
            .iter_mut()
            .try_for_each(|(name, judge)| judge.see(cluster, glance).map_err(|why| (*name, why)))
    }

    /// Judges everything that was ever seen.
    ///
    /// # Errors
    /// As [`Eye::see`].
    pub fn judge(glances: &[Glance]) -> Result<(), (&'static str, String)> {
        let mut eye = Eye::default();
        glances.iter().try_for_each(|glance| eye.see(glance))
    }

    /// Up to which index a peer's log is in its snapshot.
    pub fn purged(&self, peer: u64) -> u64 {
        let disk = self.cluster.disk(peer);
        disk.and_then(|disk| disk.purged).map_or(0, |purged| purged.index)
    }

    /// Returns the highest index that anybody knew as committed.
    pub fn committed(&self) -> u64 {
        self.cluster.committed()
    }
}
