//! The bytes of results: kept here, copied to other peers, fetched from them, collected.
//!
//! Owns where copies go and come from; [`crate::ports::shelf`] owns the bytes on this machine. It
//! must not know engines or attempts. The log names digests and who held them; the bytes go round
//! it. A digest is the only name, so bytes from any peer are as good as any other's: they are
//! hashed on arrival.

mod directory;
mod wire;

pub use directory::DirectoryShelf;
pub(crate) use wire::chunks_of;

use crate::lines::Lines;
use crate::parameters::pictures_of;
use crate::ports::shelf::{Shelf, ShelfError};
use crate::ports::{Clock, RaftStatus};
use crate::tasks;
use crate::view::View;
use atelier_state::job::Digest;
use atelier_state::limits::HOLDERS_MAX;
use atelier_state::mutants::{self, Mutant};
use atelier_state::roster::NodeId;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes of one artifact; larger ones are refused.
pub const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How artifacts are kept.
#[derive(Clone, Debug)]
pub struct ArtifactSettings {
    /// Name of the cluster; peers of another one refuse.
    pub cluster: String,
    /// Peers that shall have an artifact before it is named in the log, this one included; never
    /// more than there are voters. Default 2: any one machine may be lost.
    pub copies: usize,
    /// For all copies together. Then the job completes with those there are. Default 20 s.
    pub copy_deadline: Duration,
    /// For one call to one peer, beside the time that its bytes take at `bytes_per_second`. Default
    /// 3 s.
    pub call: Duration,
    /// The slowest link that is waited for. Default 2 MiB a second.
    pub bytes_per_second: u64,
    /// A peer that failed is asked last for this long. Default 10 s.
    pub shy: Duration,
    /// What no job names is dropped when it is this old. Default 10 min: the log may still name it.
    pub unnamed_kept: Duration,
    /// Between two collections, and before the first. Default 5 min.
    pub collect_every: Duration,
}

impl ArtifactSettings {
    /// Makes the defaults for a cluster.
    pub fn new(cluster: impl Into<String>) -> ArtifactSettings {
        ArtifactSettings {
            cluster: cluster.into(),
            copies: 2,
            copy_deadline: Duration::from_secs(20),
            call: Duration::from_secs(3),
            bytes_per_second: 2 * 1024 * 1024,
            shy: Duration::from_secs(10),
            unnamed_kept: Duration::from_secs(600),
            collect_every: Duration::from_secs(300),
        }
    }
}

/// What artifacts work with.
#[derive(Clone)]
pub struct ArtifactParts {
    /// This machine's shelf.
    pub shelf: Arc<dyn Shelf>,
    /// The way to other peers.
    pub lines: Arc<Lines>,
    /// Who the other peers are.
    pub status: watch::Receiver<RaftStatus>,
    /// Which artifacts have a name, and who holds them.
    pub view: watch::Receiver<View>,
    /// For deadlines.
    pub clock: Arc<dyn Clock>,
}

/// Why an artifact was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Too large; another attempt makes the same bytes.
    #[error("artifact has {0} bytes, at most {ARTIFACT_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// The bytes do not have the digest that came with them; send them again.
    #[error("the bytes have the digest {got}, expected {expected}")]
    Digest {
        /// What came with the bytes.
        expected: Digest,
        /// What they have.
        got: Digest,
    },
    /// This machine could not keep it.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

/// Why there are no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody has it; every peer was asked.
    #[error("no peer has the artifact {0}")]
    NotFound(Digest),
    /// Nobody who answered has it, and this many peers did not answer. Try again later.
    #[error("no peer that answers has the artifact {digest}; {silent} did not answer")]
    Unavailable {
        /// What was asked for.
        digest: Digest,
        /// How many did not answer.
        silent: usize,
    },
}

/// An artifact on its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub digest: Digest,
    /// Who has it, this node first.
    pub holders: Vec<NodeId>,
}

/// The artifacts of one peer.
pub struct Artifacts {
    parts: ArtifactParts,
    settings: ArtifactSettings,
    // Where the next copies begin, so that they spread.
    rotation: AtomicUsize,
    // Who failed when; bounded by the members, since others are dropped at each look.
    failures: Mutex<BTreeMap<NodeId, Duration>>,
    // Who was sent a copy in a lost one's place; bounded by what lies here, since the rest is dropped at each look.
    replaced: Mutex<BTreeMap<Digest, BTreeSet<NodeId>>>,
}

/// A peer that may be called.
struct Candidate {
    node: NodeId,
    address: String,
}

impl Artifacts {
    /// Makes the artifacts of one peer.
    pub fn new(parts: ArtifactParts, settings: ArtifactSettings) -> Artifacts {
        assert!(settings.copies > 0);
        let (rotation, failures, replaced) =
            (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Artifacts { parts, settings, rotation, failures, replaced }
    }

    /// Keeps bytes on this machine, flushed.
    ///
    /// # Errors
    /// As [`KeepError`] tells.
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, KeepError> {
        if bytes.len() > ARTIFACT_BYTES_MAX {
            return Err(KeepError::TooLarge(bytes.len()));
        }
        let digest = digest_of(&bytes).await;
        self.parts.shelf.put(digest, bytes).await?;
        Ok(digest)
    }

    /// Keeps bytes that another peer sent under a digest.
    ///
    /// # Errors
    /// As [`KeepError`] tells; nothing is kept then.
    pub async fn put_as(&self, expected: Digest, bytes: Bytes) -> Result<(), KeepError> {
        if bytes.len() > ARTIFACT_BYTES_MAX {
            return Err(KeepError::TooLarge(bytes.len()));
        }
        let got = digest_of(&bytes).await;
        if got != expected {
            return Err(KeepError::Digest { expected, got });
        }
        Ok(self.parts.shelf.put(expected, bytes).await?)
    }

    /// Keeps bytes here and on as many other peers as the settings ask for, before the deadline;
    /// with fewer it goes on and says so in the log.
    ///
    /// # Errors
    /// As [`Artifacts::put`]: only this machine can fail it.
    pub async fn keep(&self, bytes: Bytes) -> Result<Kept, KeepError> {
        let digest = self.put(bytes.clone()).await?;
        let status = self.parts.status.borrow().clone();
        let wanted = self.wanted(&status);
        let mut holders = vec![status.node];
        if mutants::is(Mutant::ArtifactBeforeItsCopy) {
            holders.extend(status.voters.iter().filter(|node| **node != status.node));
            holders.truncate(wanted);
        }
        let late = self.parts.clock.sleep(self.settings.copy_deadline);
        tokio::select! {
            biased;
            () = self.copy(digest, &bytes, &status, wanted, &mut holders) => {}
            () = late => {}
        }
        if holders.len() < wanted {
            tracing::warn!(
                node = %status.node, %digest, copies = holders.len(), wanted,
                "artifact has fewer copies than it should",
            );
        }
        Ok(Kept { digest, holders })
    }

    fn wanted(&self, status: &RaftStatus) -> usize {
        self.settings.copies.min(status.voters.len().max(1)).min(HOLDERS_MAX)
    }

    async fn copy(
        &self,
        digest: Digest,
        bytes: &Bytes,
        status: &RaftStatus,
        wanted: usize,
        holders: &mut Vec<NodeId>,
    ) {
        for candidate in self.candidates_for_copies(status) {
            if holders.len() >= wanted {
                return;
            }
            if holders.contains(&candidate.node) {
                continue;
            }
            match self.send(&candidate, digest, bytes).await {
                Ok(()) => holders.push(candidate.node),
                Err(error) => self.note_failure(candidate.node, "copy", &error),
            }
        }
    }

    /// Lists the other members: voters before learners, each turn from another one on, and last
    /// those that failed a short time ago.
    fn candidates_for_copies(&self, status: &RaftStatus) -> Vec<Candidate> {
        let turn = self.rotation.fetch_add(1, Ordering::Relaxed);
        let mut candidates = Vec::new();
        for group in [&status.voters, &status.learners] {
            let others: Vec<_> = group.iter().filter(|node| **node != status.node).collect();
            for place in 0..others.len() {
                let node = *others[(place + turn) % others.len()];
                if let Some(address) = status.addresses.get(&node) {
                    candidates.push(Candidate { node, address: address.clone() });
                }
            }
        }
        self.shy_last(&mut candidates);
        candidates
    }

    /// Returns an artifact's bytes: from here, else from those who held it, else from anybody. What
    /// was corrupt here is mended.
    ///
    /// # Errors
    /// As [`FetchError`] tells.
    pub async fn fetch(&self, digest: Digest) -> Result<Bytes, FetchError> {
        let mut mend = false;
        match self.parts.shelf.get(digest).await {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%digest, %error, "artifact cannot be read here, asks others");
                mend = matches!(error, ShelfError::Corrupt(_));
            }
        }
        let mut silent = 0;
        for candidate in self.candidates_for_fetch(digest) {
            match self.receive(&candidate, digest).await {
                Ok(Some(bytes)) => {
                    if mend && let Err(error) = self.parts.shelf.put(digest, bytes.clone()).await {
                        tracing::warn!(%digest, %error, "artifact cannot be mended here");
                    }
                    return Ok(bytes);
                }
                Ok(None) => {}
                Err(error) => {
                    silent += 1;
                    self.note_failure(candidate.node, "fetch", &error);
                }
            }
        }
        match silent {
            0 => Err(FetchError::NotFound(digest)),
            silent => Err(FetchError::Unavailable { digest, silent }),
        }
    }

    /// Returns an artifact's bytes from this machine alone.
    ///
    /// # Errors
    /// When they are corrupt or the medium fails.
    pub async fn here(&self, digest: Digest) -> Result<Option<Bytes>, ShelfError> {
        self.parts.shelf.get(digest).await
    }

    /// Lists the holders that jobs name, then every other peer that is known; those that failed
    /// last.
    fn candidates_for_fetch(&self, digest: Digest) -> Vec<Candidate> {
        let status = self.parts.status.borrow().clone();
        let state = self.parts.view.borrow().state.clone();
        let holders = state.artifact_refs(&digest).take(HOLDERS_MAX).flat_map(|a| &a.holders);
        let members = status.addresses.keys();
        let roster: Vec<NodeId> = state.nodes().map(|(node, _)| node).collect();
        let mut seen = BTreeSet::from([status.node]);
        let mut candidates = Vec::new();
        for node in holders.chain(members).chain(&roster) {
            let address = status.addresses.get(node);
            let address = address.or_else(|| state.node(*node).map(|node| &node.address));
            let Some(address) = address.filter(|_| seen.insert(*node)) else { continue };
            candidates.push(Candidate { node: *node, address: address.clone() });
        }
        self.shy_last(&mut candidates);
        candidates
    }

    fn shy_last(&self, candidates: &mut [Candidate]) {
        let now = self.parts.clock.now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, at| now.saturating_sub(*at) < self.settings.shy);
        candidates.sort_by_key(|candidate| failures.contains_key(&candidate.node));
    }

    fn note_failure(&self, node: NodeId, what: &str, error: &wire::CallError) {
        tracing::warn!(peer = %node, %error, "cannot {what} an artifact");
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.insert(node, self.parts.clock.now());
    }

    /// Drops what no job names and is old enough; returns how many. It does nothing while this
    /// node's view may be behind: it lacks names then.
    ///
    /// # Errors
    /// When the shelf fails.
    pub async fn collect(&self) -> Result<usize, ShelfError> {
        if !follows_closely(&self.parts.status.borrow()) {
            return Ok(0);
        }
        let old = self.parts.shelf.list().await?;
        let old = old.into_iter().filter(|(_, age)| *age >= self.settings.unnamed_kept);
        let state = self.parts.view.borrow().state.clone();
        let mut unnamed: BTreeSet<Digest> = old.map(|(digest, _)| digest).collect();
        unnamed.retain(|digest| state.artifact_holders(digest).is_none());
        if unnamed.is_empty() {
            return Ok(0);
        }
        // Beside the runtime: a walk over a million jobs takes a while.
        let walk = move || {
            for (_, job) in state.jobs() {
                for picture in pictures_of(&job.submit.kind, &job.submit.parameters) {
                    unnamed.remove(&picture);
                }
            }
            unnamed
        };
        let unnamed = tasks::blocking(walk).await.expect("a walk does not panic");
        // A job that has been accepted since names only what was put since, which is young again.
        let again: BTreeMap<Digest, Duration> =
            self.parts.shelf.list().await?.into_iter().collect();
        let is_old = |digest: &&Digest| {
            again.get(digest).is_some_and(|age| *age >= self.settings.unnamed_kept)
        };
        let mut dropped = 0;
        for digest in unnamed.iter().filter(is_old) {
            if self.parts.view.borrow().state.artifact_holders(digest).is_none() {
                self.parts.shelf.remove(*digest).await?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    /// Sends copies to other members in the place of those whose holder is no member any more, or that were never made;
    /// returns how many. Of the members that hold an artifact the first one sees to it.
    ///
    /// The log goes on naming the holders of the first day: whoever fetches asks them first, and then everybody.
    ///
    /// # Errors
    /// When the shelf fails.
    pub async fn replace_lost(&self) -> Result<usize, ShelfError> {
        let status = self.parts.status.borrow().clone();
        if !follows_closely(&status) {
            return Ok(0);
        }
        let (wanted, here) = (self.wanted(&status), self.parts.shelf.list().await?);
        let here: BTreeSet<Digest> = here.into_iter().map(|(digest, _)| digest).collect();
        self.replaced().retain(|digest, _| here.contains(digest));
        let mut sent = 0;
        for digest in here {
            let Some(mut holders) = self.holders(digest, &status) else { continue };
            if holders.len() >= wanted || holders.first() != Some(&status.node) {
                continue;
            }
            let Some(bytes) = self.parts.shelf.get(digest).await? else { continue };
            let before = holders.len();
            self.copy(digest, &bytes, &status, wanted, &mut holders).await;
            let new = &holders[before..];
            sent += new.len();
            self.replaced().entry(digest).or_default().extend(new);
            if holders.len() < wanted {
                // Somebody does not answer; the rest waits for the next time.
                break;
            }
        }
        Ok(sent)
    }

    /// The members that hold an artifact, in the order in which its jobs name them; none where no job does.
    fn holders(&self, digest: Digest, status: &RaftStatus) -> Option<Vec<NodeId>> {
        let state = self.parts.view.borrow().state.clone();
        state.artifact_holders(&digest)?;
        let named = state.artifact_refs(&digest).take(HOLDERS_MAX).flat_map(|a| &a.holders);
        let replaced = self.replaced().get(&digest).cloned().unwrap_or_default();
        let mut holders = Vec::new();
        for node in named.chain(&replaced) {
            if status.addresses.contains_key(node) && !holders.contains(node) {
                holders.push(*node);
            }
        }
        Some(holders)
    }

    fn replaced(&self) -> MutexGuard<'_, BTreeMap<Digest, BTreeSet<NodeId>>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects and replaces lost copies now and then until `shutdown`, each time after a leader was known throughout:
    /// where there was none, a result that is old by now may still be on its way into the log.
    pub async fn run_collector(self: Arc<Self>, shutdown: CancellationToken) {
        let mut status = self.parts.status.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = until(&mut status, |status| status.leader.is_none()) => {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = until(&mut status, |status| status.leader.is_some()) => continue,
                    }
                }
                () = self.parts.clock.sleep(self.settings.collect_every) => {}
            }
            match self.collect().await {
                Ok(0) => {}
                Ok(dropped) => tracing::info!(dropped, "artifacts were collected"),
                Err(error) => tracing::warn!(%error, "artifacts were not collected"),
            }
            match self.replace_lost().await {
                Ok(0) => {}
                Ok(sent) => tracing::info!(sent, "lost copies of artifacts were replaced"),
                Err(error) => tracing::warn!(%error, "lost copies of artifacts were not replaced"),
            }
        }
    }
}

/// Whether what a peer sees is what is agreed upon.
fn follows_closely(status: &RaftStatus) -> bool {
    status.leader.is_some() && status.stopped.is_none() && status.applied >= status.committed
}

/// Waits for a status; for ever once nobody tells it any more.
async fn until(status: &mut watch::Receiver<RaftStatus>, wanted: impl Fn(&RaftStatus) -> bool) {
    if status.wait_for(|status| wanted(status)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Hashes beside the runtime where that takes long.
pub(crate) async fn digest_of(bytes: &Bytes) -> Digest {
    // BLAKE3 hashes about a gigabyte a second: below this it takes less than half a millisecond.
    const INLINE_BYTES_MAX: usize = 256 * 1024;
    if bytes.len() <= INLINE_BYTES_MAX {
        return Digest(*blake3::hash(bytes).as_bytes());
    }
    let bytes = bytes.clone();
    let hash = tasks::blocking(move || blake3::hash(&bytes)).await;
    Digest(*hash.expect("hashing does not panic").as_bytes())
}
