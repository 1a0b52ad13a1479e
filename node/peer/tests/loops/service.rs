//! The `Peer` service over the loopback, as another peer sees it.

use crate::support::*;
use atelier_peer::peer_service::LEADER_METADATA;
use atelier_peer::ports::{Line, Purpose};
use atelier_proto::peer::v1::change_members_request::Change;
use atelier_proto::peer::v1::peer_client::PeerClient;
use atelier_proto::peer::v1::{
    AddLearner, BeatRequest, ChangeMembersRequest, FetchArtifactRequest, GreetRequest,
    LivenessRequest, ProposeRequest, PutArtifactChunk, WatchProgressRequest,
};
use atelier_state::{AllocateNode, Author, Command, NodeId, RegisterNode, RemoveNode, Reply};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

struct Served {
    cluster: Arc<PerfectCluster>,
    peer: Arc<TestPeer>,
    client: PeerClient<Line>,
}

async fn served() -> Served {
    let cluster = PerfectCluster::new(Leads::One(NodeId(1)));
    let (listener, address) = listener().await;
    let peer = TestPeer::new(cluster.log_at(1, &address));
    peer.serve(listener);
    peer.lead();
    let client = peer.lines.peer(&address, Purpose::Control).unwrap();
    // The loops notice the leadership.
    eventually("leadership", || peer.liveness.get().leads().then_some(())).await;
    Served { cluster, peer, client }
}

fn name() -> String {
    CLUSTER.to_owned()
}

fn beat(node: u64) -> BeatRequest {
    let (running, features, wall_ms) = (Vec::new(), 2, 0);
    BeatRequest { cluster: name(), node, incarnation: 5, running, features, wall_ms }
}

async fn alive(client: &mut PeerClient<Line>) -> Vec<(u64, bool)> {
    let reply = client.liveness(LivenessRequest { cluster: name() }).await.unwrap();
    reply.into_inner().peers.iter().map(|peer| (peer.node, peer.alive)).collect()
}

fn leader_named(status: &Status) -> Option<&str> {
    status.metadata().get(LEADER_METADATA)?.to_str().ok()
}

#[tokio::test]
async fn the_leader_tells_who_is_alive() {
    let Served { cluster, peer, mut client } = served().await;
    let register = RegisterNode {
        node: NodeId(9),
        address: "http://127.0.0.1:9".to_owned(),
        incarnation: 5,
        slots: 0,
        class: String::new(),
        model: String::new(),
        witness: false,
    };
    // A member, since others are taken out of the roster; and no longer one that may just have elected.
    let _member = cluster.log_at(9, "http://127.0.0.1:9");
    cluster.apply(Command::RegisterNode(register));
    tokio::time::sleep(LEASE + Duration::from_millis(50)).await;
    assert_eq!(alive(&mut client).await, [(1, true), (9, false)]);
    client.beat(beat(9)).await.unwrap();
    assert_eq!(alive(&mut client).await, [(1, true), (9, true)]);
    tokio::time::sleep(LEASE + Duration::from_millis(50)).await;
    assert_eq!(alive(&mut client).await, [(1, true), (9, false)]);
    peer.end().await;
}

#[tokio::test]
async fn a_node_that_was_removed_is_told_so_and_one_that_is_not_known_yet_is_not() {
    let Served { cluster, peer, mut client } = served().await;
    // An id is the index of its entry; the first few belong to the first members.
    for number in 1..=4 {
        cluster.apply(Command::Submit(submit(number)));
    }
    let allocate = AllocateNode { address: "http://127.0.0.1:9".to_owned() };
    let Reply::NodeAllocated { node } = cluster.apply(Command::AllocateNode(allocate)) else {
        panic!("the roster has room")
    };
    let mut removed = async |cluster: String, node: u64| {
        let greeted = client.greet(GreetRequest { cluster, node }).await.unwrap();
        greeted.into_inner().removed
    };
    assert!(!removed(name(), 1).await, "it is the leader");
    assert!(!removed(name(), node.0).await, "it was given an id, and is not a member yet");
    let remove = RemoveNode { node, author: Author::default() };
    assert_eq!(cluster.apply(Command::RemoveNode(remove)), Reply::Done);
    assert!(removed(name(), node.0).await);
    assert!(!removed("another".to_owned(), node.0).await, "nobody's member here");
    assert!(!removed(name(), node.0 + 1_000).await, "no such id was given yet");
    peer.end().await;
}

#[tokio::test]
async fn whoever_does_not_lead_names_the_leader() {
    let Served { cluster, peer, mut client } = served().await;
    cluster.log_at(2, "http://127.0.0.1:2222");
    cluster.lead(Leads::One(NodeId(2)));
    let change = ChangeMembersRequest { cluster: name(), change: Some(Change::Promote(2)) };
    let propose = ProposeRequest { cluster: name(), commands: Vec::new() };
    let statuses = [
        client.beat(beat(9)).await.unwrap_err(),
        client.liveness(LivenessRequest { cluster: name() }).await.unwrap_err(),
        client.change_members(change.clone()).await.unwrap_err(),
        client.propose(propose).await.unwrap_err(),
    ];
    for status in &statuses {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert_eq!(leader_named(status), Some("http://127.0.0.1:2222"));
    }
    cluster.lead(Leads::Nobody);
    let status = client.change_members(change).await.unwrap_err();
    assert_eq!((status.code(), leader_named(&status)), (Code::FailedPrecondition, None));
    peer.end().await;
}

#[tokio::test]
async fn changes_of_membership_are_handed_on_with_their_answers() {
    let Served { peer, mut client, .. } = served().await;
    let mut change = async |change| {
        client.change_members(ChangeMembersRequest { cluster: name(), change }).await
    };
    let learner = AddLearner { node: 4, address: "http://127.0.0.1:4444".to_owned() };
    change(Some(Change::AddLearner(learner))).await.unwrap();
    change(Some(Change::Remove(3))).await.unwrap();
    let refused = change(Some(Change::Promote(4))).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, "it is 12 entries behind"));
    assert_eq!(change(None).await.unwrap_err().code(), Code::InvalidArgument);
    let noted = peer.members.0.lock().unwrap().clone();
    assert_eq!(noted, ["add 4 http://127.0.0.1:4444", "remove 3", "promote 4"]);
    peer.end().await;
}

#[tokio::test]
async fn another_cluster_is_refused_by_every_call() {
    let Served { peer, mut client, .. } = served().await;
    let other = || "another".to_owned();
    let chunk = PutArtifactChunk { cluster: other(), ..PutArtifactChunk::default() };
    let fetch = FetchArtifactRequest { cluster: other(), ..FetchArtifactRequest::default() };
    let watch = WatchProgressRequest { cluster: other(), ..WatchProgressRequest::default() };
    let statuses = [
        client.beat(BeatRequest { cluster: other(), ..beat(9) }).await.unwrap_err(),
        client.liveness(LivenessRequest { cluster: other() }).await.unwrap_err(),
        client
            .propose(ProposeRequest { cluster: other(), commands: Vec::new() })
            .await
            .unwrap_err(),
        client
            .change_members(ChangeMembersRequest { cluster: other(), change: None })
            .await
            .unwrap_err(),
        client.put_artifact(futures_util::stream::iter([chunk])).await.unwrap_err(),
        client.get_artifact(fetch).await.map(drop).unwrap_err(),
        client.watch_progress(watch).await.map(drop).unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    peer.end().await;
}

#[tokio::test]
async fn nonsense_is_an_invalid_argument() {
    let Served { peer, mut client, .. } = served().await;
    let chunk = |digest: &'static [u8], data: &'static [u8]| PutArtifactChunk {
        cluster: name(),
        digest: digest.into(),
        data: data.into(),
    };
    let propose = ProposeRequest { cluster: name(), commands: Vec::new() };
    let unknown = atelier_proto::peer::v1::Command { format: 1, command: None };
    let unknown = ProposeRequest { cluster: name(), commands: vec![unknown] };
    let job = b"short".as_slice().into();
    let watch = WatchProgressRequest { cluster: name(), job, token: 1, previews: false };
    let wrong = chunk(&[7; 32], b"a cat");
    let statuses = [
        client.propose(propose).await.unwrap_err(),
        client.propose(unknown).await.unwrap_err(),
        client.watch_progress(watch).await.map(drop).unwrap_err(),
        client.put_artifact(futures_util::stream::iter([])).await.unwrap_err(),
        client.put_artifact(futures_util::stream::iter([chunk(b"short", b"")])).await.unwrap_err(),
        client.put_artifact(futures_util::stream::iter([wrong])).await.unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    peer.end().await;
}
