//! What a cluster does when nodes come and go.

use crate::harness::{Cluster, PATIENCE, calm, status_when, submit, submit_with, view_at};
use atelier_peer::ports::{Log, ProposeError, Store};
use atelier_peer::raft::{
    ChangeMembersError, RaftOptions, RecoverError, Recovery, TransferError, recover,
};
use atelier_proto::peer::v1 as pb;
use atelier_proto::peer::v1::raft_client::RaftClient;
use atelier_state::{JobId, LogIndex, NodeId, Reply, limits};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_and_agree() {
    let cluster = Cluster::three(calm).await;
    let leader = cluster.leader().await;

    let proposed = cluster.node(leader).propose(vec![submit(1), submit(2)]).await.expect("propose");
    assert_eq!(proposed.replies.len(), 2);
    for (reply, number) in proposed.replies.iter().zip(1..) {
        let expected = (JobId(number), false, proposed.log_index);
        assert!(
            matches!(reply, Reply::Submitted { job, duplicate, log_index }
                if (*job, *duplicate, *log_index) == expected),
            "{reply:?}"
        );
    }
    let view = cluster.node(leader).view().borrow().clone();
    assert!(view.applied >= proposed.log_index, "the proposer reads its own write");
    assert!(view.state.job(JobId(1)).is_some());
    cluster.agree(proposed.log_index).await;

    let status = status_when(cluster.node(leader), |s| s.matched.len() == 3).await;
    let all = BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!((status.voters, status.learners), (all, BTreeSet::new()));
    assert!(status.is_leader && status.quorum_acked && status.stopped.is_none());
    assert_eq!(status.addresses[&NodeId(2)], cluster.address(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::three(calm).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    status_when(cluster.node(follower), |status| status.leader == Some(NodeId(leader))).await;

    let error = cluster.node(follower).propose(vec![submit(1)]).await.expect_err("it follows");
    let expected = Some((NodeId(leader), cluster.address(leader)));
    assert_eq!(error, ProposeError::NotLeader { leader: expected.clone() });
    let error = cluster.node(follower).promote(NodeId(leader)).await.expect_err("it follows");
    assert_eq!(error, ChangeMembersError::NotLeader { leader: expected });
    let error = cluster.node(follower).transfer_leader(NodeId(follower)).await;
    assert_eq!(error, Err(TransferError::NotLeader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_log_may_hold_is_refused() {
    let cluster = Cluster::three(calm).await;
    let leader = cluster.node(cluster.leader().await);
    let large = |number| submit_with(number, vec![0; limits::PARAMETERS_BYTES_MAX].into());
    let too_large = (1..=3).map(large).collect();
    let too_many = (0..=limits::ENTRY_COMMANDS_MAX as u128).map(submit).collect();
    for commands in [Vec::new(), too_large, too_many] {
        let error = leader.propose(commands).await.expect_err("it breaks a limit");
        assert!(matches!(error, ProposeError::Refused(_)), "{error}");
    }
    leader.propose(vec![large(1), large(2)]).await.expect("two fit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_meet_share_entries_and_each_has_its_own_replies() {
    const PROPOSALS: u128 = 300;
    let cluster = Cluster::three(calm).await;
    let leader = cluster.node(cluster.leader().await);
    let before = leader.propose(vec![submit(1)]).await.expect("propose").log_index;
    // Two commands each, so that a reply which went astray would show.
    let pair = |number| vec![submit(2 * number), submit(2 * number + 1)];
    let proposals = (1..=PROPOSALS).map(|number| leader.propose(pair(number)));
    let mut indexes = BTreeSet::new();
    for (number, proposed) in (1..).zip(join_all(proposals).await) {
        let proposed = proposed.expect("propose");
        let jobs = proposed.replies.iter().map(|reply| match reply {
            Reply::Submitted { job, log_index, .. } if *log_index == proposed.log_index => job.0,
            other => panic!("{other:?} at {:?}", proposed.log_index),
        });
        assert_eq!(jobs.collect::<Vec<_>>(), [2 * number, 2 * number + 1]);
        indexes.insert(proposed.log_index);
    }
    let (first, last) = (*indexes.first().expect("some"), *indexes.last().expect("some"));
    assert!(first > before && (indexes.len() as u128) < PROPOSALS / 4, "{} entries", indexes.len());
    cluster.agree(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced_and_catches_up_later() {
    // The timing of the product: this is what an operator waits.
    let mut cluster = Cluster::three(|_| ()).await;
    cluster.propose(vec![submit(1)]).await;
    let dead = cluster.leader().await;

    cluster.kill(dead);
    let died = Instant::now();
    let last = cluster.propose(vec![submit(2)]).await;
    let took = died.elapsed();
    println!("failover: first entry applied {} ms after the leader was dropped", took.as_millis());
    assert!(took < PATIENCE);

    cluster.start(dead).await;
    let view = view_at(cluster.node(dead), last.log_index).await;
    assert!(view.state.job(JobId(1)).is_some() && view.state.job(JobId(2)).is_some());
    cluster.agree(last.log_index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_all() {
    let mut cluster = Cluster::three(calm).await;
    for number in 1..=20 {
        cluster.propose(vec![submit(number)]).await;
    }
    let ids: Vec<u64> = cluster.peers.keys().copied().collect();
    ids.iter().for_each(|id| cluster.kill(*id));

    for id in ids {
        cluster.start(id).await;
    }
    let last = cluster.propose(vec![submit(21)]).await;
    cluster.agree(last.log_index).await;
    let view = view_at(cluster.node(1), last.log_index).await;
    for number in 1..=21 {
        assert!(view.state.job(JobId(number)).is_some(), "job {number} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over() {
    let cluster = Cluster::three(calm).await;
    cluster.propose(vec![submit(1)]).await;
    let (old, new) = (cluster.leader().await, cluster.follower().await);
    let caught_up = |s: &atelier_peer::ports::RaftStatus| {
        s.matched.get(&NodeId(new)).is_some_and(|matched| *matched == s.last_log)
    };
    status_when(cluster.node(old), caught_up).await;

    let started = Instant::now();
    cluster.node(old).transfer_leader(NodeId(new)).await.expect("transfer");
    status_when(cluster.node(new), |status| status.is_leader).await;
    println!("transfer: the new leader is current after {} ms", started.elapsed().as_millis());
    cluster.node(new).propose(vec![submit(2)]).await.expect("the new leader proposes");
    let error = cluster.node(new).transfer_leader(NodeId(9)).await;
    assert_eq!(error, Err(TransferError::NotVoter(NodeId(9))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_alone_commits_nothing() {
    let mut cluster = Cluster::three(calm).await;
    cluster.propose(vec![submit(1)]).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.peers.keys().copied().filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.kill(*id));

    // The caller's deadline ends it; the caller must take it for unknown.
    let proposal = cluster.node(leader).propose(vec![submit(2)]);
    let outcome = tokio::time::timeout(Duration::from_millis(300), proposal).await;
    assert!(outcome.is_err(), "{outcome:?} without a quorum");
    let status = status_when(cluster.node(leader), |status| !status.quorum_acked).await;
    assert!(status.committed < status.last_log);

    // From then on it refuses at once, and names nobody.
    let proposal = cluster.node(leader).propose(vec![submit(3)]);
    let outcome = tokio::time::timeout(PATIENCE, proposal).await.expect("at once");
    assert_eq!(outcome, Err(ProposeError::NotLeader { leader: None }));

    // The entry whose outcome was unknown is there or not, the same on all.
    for id in others {
        cluster.start(id).await;
    }
    let last = cluster.propose(vec![submit(2), submit(4)]).await;
    cluster.agree(last.log_index).await;
}

fn small_log(options: &mut RaftOptions) {
    calm(options);
    options.snapshot_entries = 50;
    options.entries_kept = 10;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_learner_catches_up_by_snapshot_and_is_promoted() {
    let mut cluster = Cluster::three(small_log).await;
    let mut last = LogIndex(0);
    for number in 1..=130 {
        last = cluster
            .propose(vec![submit_with(number, Bytes::from(vec![7; 16_000]))])
            .await
            .log_index;
    }
    let leader = cluster.leader().await;
    cluster.start(4).await;
    let address = cluster.address(4);
    cluster.node(leader).add_learner(NodeId(4), address.clone()).await.expect("add");
    cluster.node(leader).add_learner(NodeId(4), address).await.expect("again is the same");

    let view = view_at(cluster.node(4), last).await;
    assert!(view.state.job(JobId(1)).is_some(), "from the snapshot: the entry was purged");
    let status = status_when(cluster.node(leader), |s| s.learners.contains(&NodeId(4))).await;
    assert_eq!(status.voters.len(), 3);

    cluster.node(leader).promote(NodeId(4)).await.expect("promote");
    status_when(cluster.node(4), |s| s.voters.len() == 4 && s.learners.is_empty()).await;
    let last = cluster.propose(vec![submit(200)]).await;
    cluster.agree(last.log_index).await;

    // It starts again from its own snapshot and log.
    cluster.stop(4).await;
    cluster.start(4).await;
    let last = cluster.propose(vec![submit(201)]).await;
    cluster.agree(last.log_index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_is_replaced_by_one_change_and_another_is_demoted() {
    let mut cluster = Cluster::three(calm).await;
    let last = cluster.propose(vec![submit(1)]).await.log_index;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    cluster.start(4).await;
    cluster.stop(4).await;
    let address = cluster.address(4);
    let node = cluster.node(leader).clone();
    node.add_learner(NodeId(4), address).await.expect("add");
    let early = node.promote(NodeId(4)).await;
    assert!(matches!(early, Err(ChangeMembersError::Behind { .. })), "nobody is there: {early:?}");

    cluster.stop(follower).await;
    cluster.start(4).await;
    view_at(cluster.node(4), last).await;
    status_when(&node, |s| s.matched.get(&NodeId(4)) >= Some(&last)).await;
    node.replace(NodeId(follower), NodeId(4)).await.expect("one change");
    let changed = status_when(&node, |s| s.voters.contains(&NodeId(4))).await;
    assert_eq!(changed.voters.len(), 3);
    assert!(!changed.addresses.contains_key(&NodeId(follower)), "{changed:?}");
    node.replace(NodeId(follower), NodeId(4)).await.expect("a repeat is no second change");
    let voters = node.status().borrow().voters.clone();
    let other = *voters.iter().find(|id| **id != NodeId(4)).expect("three vote");
    let shrunk = node.replace(other, NodeId(4)).await.expect_err("both vote");
    assert!(shrunk.to_string().contains("node 4 votes already"), "{shrunk}");
    assert_eq!(node.status().borrow().voters, voters);
    let itself = node.replace(NodeId(4), NodeId(4)).await;
    assert_eq!(itself, Err(ChangeMembersError::SameNode { leaves: NodeId(4) }));

    node.demote(NodeId(4)).await.expect("demoted");
    status_when(&node, |s| s.learners.contains(&NodeId(4)) && s.voters.len() == 2).await;
    // A leader hands the lead over before it lets go of its vote, and says who is to be asked.
    let asked = node.demote(NodeId(leader)).await;
    let Err(ChangeMembersError::NotLeader { leader: Some((heir, _)) }) = asked else {
        panic!("expected another leader, got {asked:?}")
    };
    cluster.node(heir.0).demote(NodeId(leader)).await.expect("demoted by its heir");
    status_when(cluster.node(heir.0), |s| s.voters.len() == 1).await;
    cluster.propose(vec![submit(2)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_is_recovered_alone_and_the_others_are_refused() {
    let mut cluster = Cluster::three(calm).await;
    let last = cluster.propose(vec![submit(1), submit(2)]).await.log_index;
    cluster.agree(last).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let wanted = |dry_run| Recovery {
        cluster: "test".to_owned(),
        address: cluster.address(2),
        why: "a test".to_owned(),
        now_ms: 1,
        chance: [0, 0, 0, 9],
        dry_run,
    };
    let store: Arc<dyn Store> = Arc::new(cluster.store(2));
    let seen = recover(&store, &wanted(true)).expect("it can be read");
    assert_eq!((seen.node, seen.lost.as_slice()), (NodeId(2), &[NodeId(1), NodeId(3)][..]));
    assert_eq!((seen.queued, seen.lineage.as_str()), (2, "test@1-00000009"));
    let done = recover(&store, &wanted(false)).expect("recovered");
    assert_eq!(done, seen, "a dry run says what is done");
    let again = recover(&store, &wanted(false));
    assert!(matches!(again, Err(RecoverError::Alone(NodeId(2)))), "{again:?}");
    drop(store);

    cluster.start_as(2, "test@1-00000009").await;
    let status = status_when(cluster.node(2), |s| s.is_leader).await;
    assert_eq!(status.voters.len(), 1);
    let view = view_at(cluster.node(2), LogIndex(last.0 + 1)).await;
    assert!(view.state.job(JobId(1)).is_some() && view.state.job(JobId(2)).is_some());
    cluster.start(1).await;
    let mut client = RaftClient::connect(cluster.address(2)).await.expect("connect");
    let vote = Some(pb::Vote { term: 99, node: 1, committed: false });
    let old =
        pb::VoteRequest { cluster: "test".to_owned(), to: 2, vote, ..pb::VoteRequest::default() };
    let status = client.vote(old).await.expect_err("of another lineage");
    assert!(status.message().contains("this node is of `test@1-00000009`"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_removed_down_to_the_last_voter() {
    let mut cluster = Cluster::three(calm).await;
    while cluster.peers.len() > 1 {
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        cluster.node(leader).remove(NodeId(follower)).await.expect("remove");
        status_when(cluster.node(leader), |s| !s.addresses.contains_key(&NodeId(follower))).await;
        cluster.stop(follower).await;
        cluster.propose(vec![submit(u128::from(follower))]).await;
    }
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let last = node.remove(NodeId(leader)).await;
    assert_eq!(last, Err(ChangeMembersError::LastVoter(NodeId(leader))));
    assert_eq!(node.remove(NodeId(77)).await, Err(ChangeMembersError::UnknownNode(NodeId(77))));
    assert_eq!(node.promote(NodeId(77)).await, Err(ChangeMembersError::UnknownNode(NodeId(77))));
    let elsewhere = node.add_learner(NodeId(leader), "http://127.0.0.1:1".to_owned()).await;
    assert!(matches!(elsewhere, Err(ChangeMembersError::OtherAddress { .. })), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_another_cluster_or_node_are_refused() {
    let cluster = Cluster::three(calm).await;
    let mut client = RaftClient::connect(cluster.address(1)).await.expect("connect");
    let vote = Some(pb::Vote { term: 99, node: 2, committed: false });
    let request = |cluster: &str, to| pb::VoteRequest {
        cluster: cluster.to_owned(),
        to,
        vote,
        ..pb::VoteRequest::default()
    };
    for (asked, says) in [(request("other", 1), "cluster `other`"), (request("test", 2), "node 2")]
    {
        let status = client.vote(asked).await.expect_err("it is not meant");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains(says), "{status}");
    }
    let status = client.vote(pb::VoteRequest { vote: None, ..request("test", 1) }).await;
    assert_eq!(status.expect_err("no vote").code(), tonic::Code::InvalidArgument);
    assert!(cluster.node(1).status().borrow().term < 99);
}
