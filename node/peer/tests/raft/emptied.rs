//! A node whose disk was emptied does not take part under its old id: it has forgotten what it promised.

use crate::harness::{Cluster, PATIENCE, calm, start_node, status_when, submit, view_at};
use atelier_peer::ports::{Log, RaftStatus};
use atelier_peer::raft::{InitializeClusterError, RaftOptions};
use atelier_state::NodeId;
use std::collections::BTreeMap;
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_follower_is_found_out_and_the_others_go_on() {
    let mut cluster = Cluster::three(calm).await;
    cluster.propose(vec![submit(1)]).await;
    let follower = cluster.follower().await;
    cluster.stop(follower).await;
    std::fs::remove_dir_all(cluster.path(follower)).expect("remove");
    cluster.start(follower).await;

    let status = status_when(cluster.node(follower), |status| status.stopped.is_some()).await;
    let reason = status.stopped.expect("it was waited for");
    println!("{reason}");
    for part in [&*format!("node {follower}"), "emptied or exchanged", "`atelier member replace`"] {
        assert!(reason.contains(part), "`{reason}` says `{part}`");
    }
    assert_eq!(status.last_log.0, 0, "it took nothing");
    cluster.stop(follower).await;
    let last = cluster.propose(vec![submit(2)]).await;
    cluster.agree(last.log_index).await;
}

/// The one acknowledged copy beside the emptied node's is on a node that is down: nobody may lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_node_elects_nobody_who_lacks_what_it_had_acknowledged() {
    let mut cluster = Cluster::three(calm).await;
    let behind = cluster.follower().await;
    cluster.stop(behind).await;
    // Agreed upon by the two others alone.
    let promised = cluster.propose(vec![submit(1)]).await;
    let holders: Vec<u64> = cluster.peers.keys().copied().collect();
    let emptied = holders[0];
    for id in &holders {
        cluster.stop(*id).await;
    }
    std::fs::remove_dir_all(cluster.path(emptied)).expect("remove");
    cluster.start(behind).await;
    cluster.start(emptied).await;

    // The one that lags campaigns, and with its first question the emptied one learns what happened.
    status_when(cluster.node(emptied), |status| status.stopped.is_some()).await;
    let status = cluster.node(behind).status().borrow().clone();
    assert!(status.leader.is_none() && !status.is_leader, "{status:?}");
    cluster.stop(emptied).await;
    cluster.start(holders[1]).await;
    let last = cluster.propose(vec![submit(2)]).await;
    assert!(last.log_index > promised.log_index);
    cluster.agree(last.log_index).await;
    let view = cluster.node(behind).view().borrow().clone();
    assert!(view.state.job(atelier_state::JobId(1)).is_some(), "what was acknowledged is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_node_does_not_form_a_second_cluster() {
    let mut cluster = Cluster::three(calm).await;
    cluster.propose(vec![submit(1)]).await;
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.path(1)).expect("remove");
    cluster.start(1).await;
    let members: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), cluster.address(id))).collect();
    let formed = tokio::time::timeout(PATIENCE, cluster.node(1).initialize(members)).await;
    let error = formed.expect("in time").expect_err("there is a cluster");
    assert!(matches!(error, InitializeClusterError::Emptied(_)), "{error}");
    assert!(error.to_string().contains("`atelier member replace`"), "{error}");
    status_when(cluster.node(1), |status| status.stopped.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_added_is_found_out_too() {
    let mut cluster = Cluster::three(calm).await;
    let leader = cluster.leader().await;
    cluster.start(4).await;
    let address = cluster.address(4);
    cluster.node(leader).add_learner(NodeId(4), address).await.expect("add");
    let last = cluster.propose(vec![submit(1)]).await;
    view_at(cluster.node(4), last.log_index).await;
    cluster.node(leader).promote(NodeId(4)).await.expect("promote");
    status_when(cluster.node(4), |status| status.voters.len() == 4).await;
    cluster.stop(4).await;
    std::fs::remove_dir_all(cluster.path(4)).expect("remove");
    cluster.start(4).await;
    let status = status_when(cluster.node(4), |status| status.stopped.is_some()).await;
    assert!(status.stopped.is_some_and(|reason| reason.contains("emptied")));
    cluster.propose(vec![submit(2)]).await;
}

/// Members that are asked for their disks may start later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_when_its_last_member_has_come() {
    let mut cluster = Cluster::new(calm);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let members: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), cluster.address(id))).collect();
    cluster.stop(3).await;
    let first = cluster.node(1).clone();
    let forming = tokio::spawn(async move { first.initialize(members).await });
    assert!(cluster.node(2).status().borrow().voters.is_empty());
    cluster.start(3).await;
    forming.await.expect("join").expect("formed");
    status_when(cluster.node(2), |status| status.voters.len() == 3).await;
}

/// An older copy of a directory has forgotten what the node acknowledged since, and whom it promised its vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_directory_is_found_out_for_good() {
    let mut cluster = Cluster::three(calm).await;
    let first = cluster.propose(vec![submit(1)]).await;
    cluster.agree(first.log_index).await;
    let follower = cluster.follower().await;
    cluster.stop(follower).await;
    let (path, copy) = (cluster.path(follower), tempfile::tempdir().expect("a directory"));
    copy_files(&path, copy.path());
    cluster.start(follower).await;
    let second = cluster.propose(vec![submit(2)]).await;
    cluster.agree(second.log_index).await;
    // What the leader has not heard of was promised to nobody.
    let leader = cluster.node(cluster.leader().await);
    let has_heard = |status: &RaftStatus| {
        status.matched.get(&NodeId(follower)).is_some_and(|matched| *matched >= second.log_index)
    };
    status_when(leader, has_heard).await;
    cluster.stop(follower).await;
    std::fs::remove_dir_all(&path).expect("remove");
    copy_files(copy.path(), &path);
    cluster.start(follower).await;

    let status = status_when(cluster.node(follower), |status| status.stopped.is_some()).await;
    let reason = status.stopped.expect("it was waited for");
    println!("{reason}");
    for part in
        [&*format!("entry {}", second.log_index.0), "older copy", "`atelier member replace`"]
    {
        assert!(reason.contains(part), "`{reason}` says `{part}`");
    }
    cluster.stop(follower).await;
    let options = RaftOptions::new(NodeId(follower), "test", cluster.address(follower));
    let again = start_node(options, &path).await;
    let refused = again.err().expect("it was marked").to_string();
    assert!(refused.contains("older copy"), "{refused}");
    let last = cluster.propose(vec![submit(3)]).await;
    cluster.agree(last.log_index).await;
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("type").is_dir() {
            true => copy_files(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copy")),
        }
    }
}
