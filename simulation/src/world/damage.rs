//! What a disk may do to what it holds, beyond losing what was not synced: copies of a whole disk, and
//! single values that were written wrong.

use super::Rng;
use atelier_peer::ports::Tree;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What survives a crash, tree by tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(pub(super) BTreeMap<Tree, BTreeMap<Bytes, Bytes>>);

/// A write that went wrong though the disk said that it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// It ended in the middle.
    Torn,
    /// It never happened.
    Lost,
    /// It happened somewhere else.
    Misdirected,
    /// A bit is another one.
    Corrupted,
}

impl Damage {
    /// All of them.
    pub const ALL: [Damage; 4] =
        [Damage::Torn, Damage::Lost, Damage::Misdirected, Damage::Corrupted];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Damage::Torn => "torn write",
            Damage::Lost => "lost write",
            Damage::Misdirected => "misdirected write",
            Damage::Corrupted => "corrupted write",
        }
    }

    /// Does it to an entry of a log above an index, below which a purge may go on, and says whether there was one
    /// to do it to. The last entry is spared:
    /// that the end of a log is missing shows in the real store's own count of batches, which this disk has
    /// not.
    pub(super) fn befall(
        self,
        log: &mut BTreeMap<Bytes, Bytes>,
        above: u64,
        rng: &mut Rng,
    ) -> bool {
        let least = [&b"e"[..], &(above + 1).to_be_bytes()].concat();
        let is_entry = |key: &&Bytes| key.first() == Some(&b'e') && **key >= least[..];
        let mut entries: Vec<Bytes> = log.keys().filter(is_entry).cloned().collect();
        entries.pop();
        if entries.len() < 2 {
            return false;
        }
        let key = rng.pick(&entries).clone();
        let value = log[&key].clone();
        match self {
            Damage::Torn => drop(log.insert(key, value.slice(..value.len() / 2))),
            Damage::Lost => drop(log.remove(&key)),
            Damage::Misdirected => {
                let others: Vec<_> = entries.into_iter().filter(|other| *other != key).collect();
                log.remove(&key);
                log.insert(rng.pick(&others).clone(), value);
            }
            Damage::Corrupted => {
                let mut bytes = value.to_vec();
                let bit = rng.below(8 * bytes.len() as u64) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                log.insert(key, bytes.into());
            }
        }
        true
    }
}
