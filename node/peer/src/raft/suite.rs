//! openraft's own suite for logs and state machines, on sled.

use super::apply::StateMachine;
use super::log_storage::LogStorage;
use super::snapshots::Shelf;
use super::types::TypeConfig;
use crate::ports::Store;
use crate::storage::SledStore;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;

struct Builder;

impl StoreBuilder<TypeConfig, LogStorage, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStorage, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store: Arc<dyn Store> = Arc::new(SledStore::open(directory.path()).expect("open"));
        let (log, _thread) = LogStorage::open(&store).expect("open the log");
        let (shelf, meta, state) = Shelf::open(&store).expect("open the snapshots");
        Ok((directory, log, StateMachine::new(shelf, meta, state).0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(Builder).await.expect("the suite passes");
}
