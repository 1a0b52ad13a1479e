//! The log against a map in memory, over restarts at any moment.

use super::codec;
use super::log_storage::LogStorage;
use super::types::{Commands, Entry, LogId, TypeConfig, Vote};
use crate::ports::Store;
use crate::storage::MemoryStore;
use atelier_state::{Author, Command, NodeId, RemoveNode};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Op {
    Append(u64),
    /// Keeps so many of the entries.
    Truncate(usize),
    /// Purges so many of the entries.
    Purge(usize),
    /// Purges all, and so many more: a snapshot came.
    PurgeBeyond(u64),
    Vote,
    Commit,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..40_u64).prop_map(Op::Append),
        2 => (0..60_usize).prop_map(Op::Truncate),
        2 => (0..60_usize).prop_map(Op::Purge),
        1 => (0..100_000_u64).prop_map(Op::PurgeBeyond),
        1 => Just(Op::Vote),
        1 => Just(Op::Commit),
        3 => Just(Op::Restart),
    ]
}

#[derive(Default)]
struct Model {
    /// Those that were purged too: a crash may come before a purge is written.
    all: BTreeMap<u64, Entry>,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index() + 1)
    }

    fn id(&self, index: u64) -> LogId {
        LogId::new(LeaderId { term: self.term, node_id: 1 }, index)
    }
}

async fn run(ops: Vec<Op>) {
    let mut store = MemoryStore::new();
    let mut log = open(&store);
    let mut model = Model { term: 1, ..Model::default() };
    for op in ops {
        match op {
            Op::Append(count) => append(&mut log, &mut model, count).await,
            Op::Truncate(keep) => truncate(&mut log, &mut model, keep).await,
            Op::Purge(count) => {
                let last = model.entries.values().take(count).next_back().map(|e| e.log_id);
                purge(&mut log, &mut model, last).await;
            }
            Op::PurgeBeyond(more) => {
                let last = model.id(model.next() + more);
                purge(&mut log, &mut model, Some(last)).await;
            }
            Op::Vote => {
                model.term += 1;
                let vote = Vote::new(model.term, 1);
                log.save_vote(&vote).await.expect("save_vote");
                model.vote = Some(vote);
            }
            Op::Commit => {
                model.committed = model.last();
                log.save_committed(model.committed).await.expect("save_committed");
            }
            Op::Restart => {
                store = store.after_crash();
                log = open(&store);
                restart(&mut log, &mut model).await;
            }
        }
        check(&mut log, &model).await;
    }
}

/// What was not waited for, a purge and the hint of what is committed, may be lost.
async fn restart(log: &mut LogStorage, model: &mut Model) {
    let purged = log.get_log_state().await.expect("get_log_state").last_purged_log_id;
    assert!(purged <= model.purged);
    model.purged = purged;
    model.entries = model.all.clone();
    model.entries.retain(|index, _| purged.is_none_or(|purged| *index > purged.index()));
    let committed = log.read_committed().await.expect("read_committed");
    assert!(committed <= model.committed);
    model.committed = committed;
}

fn open(store: &MemoryStore) -> LogStorage {
    let store: Arc<dyn Store> = Arc::new(store.clone());
    LogStorage::open(&store).expect("what a crash leaves can be opened").0
}

async fn append(log: &mut LogStorage, model: &mut Model, count: u64) {
    let next = model.next();
    let entry = |index| Entry {
        log_id: model.id(index),
        payload: EntryPayload::Normal(Commands::new(vec![Command::RemoveNode(RemoveNode {
            node: NodeId(index),
            author: Author::default(),
        })])),
    };
    let entries: Vec<Entry> = (next..next + count).map(entry).collect();
    let (done, result) = TypeConfig::oneshot();
    log.append(entries.clone(), IOFlushed::signal(done)).await.expect("append");
    result.await.expect("the writer answers").expect("durable");
    for entry in entries {
        model.entries.insert(entry.log_id.index(), entry.clone());
        model.all.insert(entry.log_id.index(), entry);
    }
}

async fn truncate(log: &mut LogStorage, model: &mut Model, keep: usize) {
    let after = model.entries.values().take(keep).next_back().map(|e| e.log_id).or(model.purged);
    if after.is_none_or(|id| model.committed.is_some_and(|committed| id < committed)) {
        return;
    }
    log.truncate_after(after).await.expect("truncate_after");
    model.entries.retain(|index, _| Some(*index) <= after.map(|id| id.index()));
    model.all.retain(|index, _| Some(*index) <= after.map(|id| id.index()));
    model.term += 1;
}

async fn purge(log: &mut LogStorage, model: &mut Model, through: Option<LogId>) {
    let Some(through) = through else { return };
    log.purge(through).await.expect("purge");
    model.entries.retain(|index, _| *index > through.index());
    model.purged = Some(through);
}

async fn check(log: &mut LogStorage, model: &Model) {
    let state = log.get_log_state().await.expect("get_log_state");
    assert_eq!(state.last_purged_log_id, model.purged);
    assert_eq!(state.last_log_id, model.last());
    assert_eq!(log.read_vote().await.expect("read_vote"), model.vote);
    assert_eq!(log.read_committed().await.expect("read_committed"), model.committed);
    let entries = log.try_get_log_entries(..).await.expect("read");
    assert_eq!(entries, model.entries.values().cloned().collect::<Vec<_>>());
    let bytes: usize = entries.iter().map(|entry| codec::encode_entry(entry).len()).sum();
    assert_eq!(log.bytes().get(), bytes as u64);
}

proptest! {
    #[test]
    fn the_log_is_a_map_over_restarts(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(ops));
    }
}
