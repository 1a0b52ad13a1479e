//! Connections to the `Peer` service of other peers, made once and kept.
//!
//! Owns the cache in front of the port `Dial`, which makes a new line at each call. It must not
//! know what is said over them.

use crate::checkpoints::MESSAGE_BYTES_MAX;
use crate::ports::{Dial, DialError, Line, Purpose};
use atelier_proto::peer::v1::peer_client::PeerClient;
use atelier_state::limits::NODES_MAX;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines that are kept: two purposes a node. Filled by addresses that came and went; at the brim
/// all are dropped and made anew as they are asked for.
const LINES_MAX: usize = 2 * NODES_MAX;

/// The connections of one peer. A line connects again by itself.
pub struct Lines {
    dial: Arc<dyn Dial>,
    lines: Mutex<BTreeMap<(String, Purpose), Line>>,
}

impl Lines {
    /// Makes connections through this port, at the first call to each peer.
    pub fn new(dial: Arc<dyn Dial>) -> Lines {
        Lines { dial, lines: Mutex::new(BTreeMap::new()) }
    }

    /// Returns a client of the peer at an address. Call it on the runtime that will use the client.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn peer(&self, address: &str, purpose: Purpose) -> Result<PeerClient<Line>, DialError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_owned(), purpose);
        if let Some(line) = lines.get(&key) {
            return Ok(client(line.clone()));
        }
        let line = self.dial.line(address, purpose)?;
        if lines.len() >= LINES_MAX {
            lines.clear();
        }
        lines.insert(key, line.clone());
        Ok(client(line))
    }
}

fn client(line: Line) -> PeerClient<Line> {
    PeerClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
