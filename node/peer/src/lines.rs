//! Connections to the `Peer` service of other peers, made once and kept.
//!
//! Owns the cache in front of the port `Dial`, which makes a new channel at each call. It must not
//! know what is said over them.

use crate::checkpoints::MESSAGE_BYTES_MAX;
use crate::ports::{Dial, DialError, Purpose};
use atelier_proto::peer::v1::peer_client::PeerClient;
use atelier_state::limits::NODES_MAX;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::transport::Channel;

/// Channels that are kept: two purposes a node. Filled by addresses that came and went; at the brim
/// all are dropped and made anew as they are asked for.
const CHANNELS_MAX: usize = 2 * NODES_MAX;

/// The connections of one peer. A channel reconnects by itself.
pub struct Lines {
    dial: Arc<dyn Dial>,
    channels: Mutex<BTreeMap<(String, Purpose), Channel>>,
}

impl Lines {
    /// Makes connections through this port, at the first call to each peer.
    pub fn new(dial: Arc<dyn Dial>) -> Lines {
        Lines { dial, channels: Mutex::new(BTreeMap::new()) }
    }

    /// Returns a client of the peer at an address. Call it on the runtime that will use the client.
    ///
    /// # Errors
    /// When the address cannot be one.
    pub fn peer(&self, address: &str, purpose: Purpose) -> Result<PeerClient<Channel>, DialError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_owned(), purpose);
        if let Some(channel) = channels.get(&key) {
            return Ok(client(channel.clone()));
        }
        let channel = self.dial.channel(address, purpose)?;
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(key, channel.clone());
        Ok(client(channel))
    }
}

fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
