//! Which disk a member has, and that it is still that one.
//!
//! A node whose disk was emptied has forgotten whom it promised its vote and which entries it said were durable. If
//! it took part again under its old id, a majority could agree on something else than before. So each directory has
//! an id of its own, drawn when it is made, and the membership names it beside the address:
//!
//! ```text
//!   membership: 2 → http://host:7861#disk ──► every request to node 2 says which disk it is meant for
//!                                               └─► a node with another disk refuses: no vote, no append
//! ```
//!
//! A node that is empty and is asked as a member with another disk was emptied; it takes no part any more and says
//! so. The same disk may have gone back in time: an older copy of the directory was put into its place, or it dropped
//! what it had said was written. A leader's heartbeat names the newest entry that the node acknowledged to it, and a
//! node that does not hold that entry takes no part any more, with this start and every later one.
//!
//! A learner has no vote to forget, so its disk is asked for when it is promoted. Members that an earlier version
//! promoted have no disk in the membership, and are asked without one.

use super::network::MESSAGE_BYTES_MAX;
use crate::ports::{Dial, Purpose, Store};
use crate::storage::{DiskId, identity};
use crate::tasks;
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::raft_client::RaftClient;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

/// Metadata of a request that names the disk it is meant for.
const METADATA: &str = "atelier-disk";
/// The longest wait for a node's answer which disk it has.
const ASK_MS: u64 = 1_000;

/// This node's disk, and whether it turned out not to be what the cluster knows.
#[derive(Clone)]
pub(super) struct OwnDisk {
    pub(super) node: u64,
    pub(super) id: DiskId,
    store: Arc<dyn Store>,
    unfit: Arc<OnceLock<String>>,
}

/// What a node says of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskReport {
    /// Its id; none from a version that has none.
    pub(super) id: Option<DiskId>,
    /// It has never taken part in anything.
    pub(super) blank: bool,
}

impl OwnDisk {
    pub(super) fn new(node: u64, id: DiskId, store: Arc<dyn Store>) -> OwnDisk {
        OwnDisk { node, id, store, unfit: Arc::default() }
    }

    /// Refuses a request that is meant for another disk.
    pub(super) fn check(
        &self,
        request: &MetadataMap,
        blank: impl FnOnce() -> bool,
    ) -> Result<(), Status> {
        let Some(expected) = request.get(METADATA) else { return Ok(()) };
        let expected = expected.to_str().ok().and_then(|text| text.parse().ok());
        if expected == Some(self.id) {
            return Ok(());
        }
        if blank() {
            self.was_emptied("a member asked it for another disk");
        }
        let node = self.node;
        let reason = format!("the request is for another disk than node {node} has here");
        Err(Status::failed_precondition(reason))
    }

    /// Notes that this directory is new though the node is not.
    pub(super) fn was_emptied(&self, seen: &str) -> String {
        let node = self.node;
        let reason = format!(
            "the data directory of node {node} is new, but the cluster knows node {node} with another one ({seen}): \
             its disk was emptied or exchanged, and with it went what the node had promised; give the old directory \
             back, or bring the peer back under a new id with `atelier member replace`"
        );
        self.unfit.get_or_init(|| reason).clone()
    }

    /// Notes that this directory lacks an entry that the node has acknowledged, here and on the disk.
    pub(super) fn went_back(&self, acknowledged: u64, last: u64) {
        let node = self.node;
        let reason = format!(
            "node {node} has acknowledged entry {acknowledged}, and its log ends at entry {last} or holds another one: \
             an older copy of its directory was put back, or its disk dropped what it had said was written; keep the \
             directory for inspection, and bring the peer back under a new id with `atelier member replace`"
        );
        if self.unfit.set(reason.clone()).is_err() {
            return;
        }
        let store = self.store.clone();
        tasks::spawn(async move {
            let noted = tasks::blocking(move || identity::give_up(store.as_ref(), &reason)).await;
            if !matches!(noted, Ok(Ok(()))) {
                tracing::warn!(
                    "the directory could not be marked; it is found out again, if the same leader leads"
                );
            }
        });
    }

    /// Says why this node takes no part; none while its disk is the one that it should be, as far as is known.
    pub(super) fn unfit(&self) -> Option<&String> {
        self.unfit.get()
    }
}

/// Which disk each member has, as far as this node has connected to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disks(Arc<Mutex<BTreeMap<u64, DiskId>>>);

impl Disks {
    /// Notes what the membership says of a node.
    pub(super) fn learn(&self, node: u64, disk: Option<DiskId>) {
        if let Some(disk) = disk {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, disk);
        }
    }

    /// Says which disk a request to a node is meant for.
    pub(super) fn of(&self, node: u64) -> Option<DiskId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// What the membership holds of a node.
pub(super) fn member(address: &str, disk: Option<DiskId>) -> String {
    match disk {
        Some(disk) => format!("{address}#{disk}"),
        None => address.to_owned(),
    }
}

/// The address in what the membership holds.
pub(super) fn address_of(member: &str) -> &str {
    member.split_once('#').map_or(member, |(address, _)| address)
}

/// The disk in what the membership holds.
pub(super) fn disk_of(member: &str) -> Option<DiskId> {
    member.split_once('#').and_then(|(_, disk)| disk.parse().ok())
}

/// Says which disk a request is meant for.
pub(super) fn mean<T>(request: &mut Request<T>, disk: Option<DiskId>) {
    if let Some(disk) = disk {
        let text = disk.to_string().parse().expect("hexadecimal digits are metadata");
        request.metadata_mut().insert(METADATA, text);
    }
}

/// Asks a node which disk it has.
///
/// # Errors
/// Says why there is no answer.
///
/// # Cancel safety
/// Changes nothing.
pub(super) async fn ask(
    dial: &dyn Dial,
    cluster: &str,
    node: u64,
    address: &str,
) -> Result<DiskReport, String> {
    let line = dial.line(address, Purpose::Control).map_err(|error| error.to_string())?;
    let mut client = RaftClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = pb::DiskRequest { cluster: cluster.to_owned(), to: node };
    let answer = tokio::time::timeout(Duration::from_millis(ASK_MS), client.disk(request)).await;
    match answer {
        Ok(Ok(reply)) => {
            let pb::DiskReply { disk, blank } = reply.into_inner();
            let id = DiskId::from_bytes(&disk);
            Ok(DiskReport { id, blank })
        }
        // A version that has no ids takes part as it always did.
        Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
            Ok(DiskReport { id: None, blank: true })
        }
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {ASK_MS} ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStore;

    #[test]
    fn a_member_is_an_address_and_perhaps_a_disk() {
        let disk = DiskId::from_bytes(&[7; 16]).expect("sixteen bytes");
        let with = member("http://host:7861", Some(disk));
        assert_eq!((address_of(&with), disk_of(&with)), ("http://host:7861", Some(disk)));
        let without = member("http://host:7861", None);
        assert_eq!((address_of(&without), disk_of(&without)), ("http://host:7861", None));
    }

    #[test]
    fn a_request_for_another_disk_is_refused_and_an_empty_node_learns_of_its_loss() {
        let [own, other] = [1, 2].map(|n| DiskId::from_bytes(&[n; 16]).expect("sixteen bytes"));
        let disk = OwnDisk::new(3, own, Arc::new(MemoryStore::new()));
        let meant = |id| {
            let mut request = Request::new(());
            mean(&mut request, id);
            request.metadata().clone()
        };
        assert!(disk.check(&meant(None), || true).is_ok());
        assert!(disk.check(&meant(Some(own)), || true).is_ok());
        assert!(disk.check(&meant(Some(other)), || false).is_err());
        assert_eq!(disk.unfit(), None, "a node that holds a log is asked by mistake");
        assert!(disk.check(&meant(Some(other)), || true).is_err());
        let reason = disk.unfit().expect("it is new and should not be");
        assert!(reason.contains("node 3") && reason.contains("`atelier member replace`"));
    }
}
