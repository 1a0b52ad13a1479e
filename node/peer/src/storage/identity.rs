//! Whose directory this is. A directory serves one node of one cluster for ever.
//!
//! Each tree holds the identity, and is refused under another one: a directory that was copied to another node would
//! vote twice, and one of another cluster would bring its log along. A tree without an identity beside one with an
//! identity has lost its contents, for example through truncation, and is refused as well.
//!
//! A directory has an id of its own too, drawn when it is made, so that a node with an emptied disk is not taken for
//! what it was.

use super::LoadError;
use super::frame;
use crate::ports::{Batch, Entropy, Store, StoreError, Tree};
use atelier_state::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

const KEY: &[u8] = b"identity";
/// Holds the id of the directory, in the log's tree.
const DISK_KEY: &[u8] = b"disk";
/// Holds why the directory serves nobody any more, in the log's tree.
const UNFIT_KEY: &[u8] = b"unfit";

/// The id of one data directory. An emptied one gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskId([u8; 16]);

impl DiskId {
    /// Draws an id.
    pub fn draw(entropy: &dyn Entropy) -> DiskId {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        DiskId(bytes)
    }

    /// Reads an id; none of another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<DiskId> {
        bytes.try_into().ok().map(DiskId)
    }

    /// Gives its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for DiskId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<DiskId, ParseIntError> {
        u128::from_str_radix(text, 16).map(|number| DiskId(number.to_be_bytes()))
    }
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
}

/// Why a store is not this node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is another node's.
    #[error(
        "{place} belongs to node {} of cluster `{}`, not to node {} of cluster `{}`; give each node a directory of its own",
        .found.node, .found.cluster, .expected.node, .expected.cluster
    )]
    Other {
        /// Which tree.
        place: String,
        /// Whose it is.
        found: Identity,
        /// Who asked.
        expected: Identity,
    },
}

/// Says whose directory this is; none where it is new. Blocks.
///
/// # Errors
/// [`IdentityError::Load`]: the mark is damaged.
pub fn stored(store: &dyn Store) -> Result<Option<Identity>, IdentityError> {
    Ok(read(store, Tree::Log)?)
}

/// Says whose one tree of a directory is.
///
/// # Errors
/// [`IdentityError::Load`]: the mark is damaged.
pub fn stored_in(store: &dyn Store, tree: Tree) -> Result<Option<Identity>, IdentityError> {
    Ok(read(store, tree)?)
}

/// Puts another mark into a batch. Only recovery gives a directory to another lineage of its cluster.
pub fn mark(batch: &mut Batch, identity: &Identity) {
    batch.set(KEY, frame::seal(KEY, &encode(identity)));
}

/// Claims a store for a node: a new one is marked, an old one must bear the mark. It marks one tree at a time and says
/// which; once that is durable call it again, until there is none left. Blocks.
///
/// # Errors
/// - [`IdentityError::Other`]: another node's directory was given; correct the configuration.
/// - [`IdentityError::Load`]: the mark is damaged, missing from one tree, or cannot be written.
pub fn claim(store: &dyn Store, identity: &Identity) -> Result<Option<Tree>, IdentityError> {
    let found = Tree::ALL.map(|tree| read(store, tree).map(|found| (tree, found)));
    let mut marked = 0;
    let mut unmarked = None;
    for result in found {
        match result? {
            (tree, Some(found)) if found != *identity => {
                let (place, expected) = (store.place(tree), identity.clone());
                return Err(IdentityError::Other { place, found, expected });
            }
            (_, Some(_)) => marked += 1,
            (tree, None) => unmarked = unmarked.or(Some(tree)),
        }
    }
    if let Some(tree) = unmarked {
        // The state is marked last, so a crash between the two leaves the log marked and the state empty.
        if !is_empty(store, tree)? || (marked > 0 && tree == Tree::Log) {
            return Err(lost(store, tree).into());
        }
        let mut batch = Batch::new();
        mark(&mut batch, identity);
        store.write(tree, batch).map_err(LoadError::Store)?;
        return Ok(Some(tree));
    }
    Ok(None)
}

/// Reads the id of a store's directory; one that has none, new or of an earlier version, is given `fresh`. Blocks.
///
/// # Errors
/// When it is damaged, or cannot be written.
pub fn disk(store: &dyn Store, fresh: DiskId) -> Result<DiskId, LoadError> {
    let Some(value) = store.read(Tree::Log, DISK_KEY)? else {
        let mut batch = Batch::new();
        batch.set(DISK_KEY, frame::seal(DISK_KEY, fresh.as_bytes()));
        store.write(Tree::Log, batch)?;
        return Ok(fresh);
    };
    let corrupt = |reason: String| LoadError::Corrupt {
        place: store.place(Tree::Log),
        at: "disk id".to_owned(),
        reason,
    };
    let body = frame::open(DISK_KEY, &value).map_err(|error| corrupt(error.to_string()))?;
    DiskId::from_bytes(&body).ok_or_else(|| corrupt("not an id".to_owned()))
}

/// Marks a directory that must not be used again. Blocks.
///
/// # Errors
/// When it cannot be written.
pub fn give_up(store: &dyn Store, reason: &str) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.set(UNFIT_KEY, frame::seal(UNFIT_KEY, reason.as_bytes()));
    store.write(Tree::Log, batch)
}

/// Refuses a directory that was given up. Blocks.
///
/// # Errors
/// [`LoadError::Corrupt`] with the reason that was noted.
pub fn check_fit(store: &dyn Store) -> Result<(), LoadError> {
    let Some(value) = store.read(Tree::Log, UNFIT_KEY)? else { return Ok(()) };
    let noted = frame::open(UNFIT_KEY, &value).map(|text| String::from_utf8_lossy(&text).into());
    let reason = noted.unwrap_or_else(|error| error.to_string());
    Err(LoadError::Corrupt { place: store.place(Tree::Log), at: "its end".to_owned(), reason })
}

fn is_empty(store: &dyn Store, tree: Tree) -> Result<bool, LoadError> {
    Ok(store.scan(tree, b"", &[u8::MAX; 2], 1)?.is_empty())
}

fn lost(store: &dyn Store, tree: Tree) -> LoadError {
    LoadError::Corrupt {
        place: store.place(tree),
        at: "identity".to_owned(),
        reason: "the tree has lost the mark of the node it belongs to".to_owned(),
    }
}

fn read(store: &dyn Store, tree: Tree) -> Result<Option<Identity>, LoadError> {
    let corrupt = |reason: String| LoadError::Corrupt {
        place: store.place(tree),
        at: "identity".to_owned(),
        reason,
    };
    // A store that fails to be read is the store's error, not damage of the mark.
    let value = store.read(tree, KEY).map_err(|error: StoreError| LoadError::Store(error))?;
    let Some(value) = value else { return Ok(None) };
    let body = frame::open(KEY, &value).map_err(|error| corrupt(error.to_string()))?;
    decode(body).map(Some).ok_or_else(|| corrupt("not an identity".to_owned()))
}

fn encode(identity: &Identity) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u64(identity.node.0);
    body.put_slice(identity.cluster.as_bytes());
    body
}

fn decode(mut body: Bytes) -> Option<Identity> {
    let node = NodeId(body.try_get_u64().ok()?);
    let cluster = String::from_utf8(body.to_vec()).ok()?;
    Some(Identity { node, cluster })
}
