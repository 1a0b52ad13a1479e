//! One Raft participant: its runtime, its start and its end, and proposals.

use super::apply::{Marks, StateMachine};
use super::codec;
use super::confluence::Confluence;
use super::disk::{self, Disks, OwnDisk};
use super::log_storage::{LogBytes, LogStorage};
use super::network::NetworkFactory;
use super::options::RaftOptions;
use super::service::RaftService;
use super::snapshots::Shelf;
use super::status::{self, Heard};
use super::types::{Commands, Raft};
use crate::ports::upkeep::Upkeep;
use crate::ports::{Dial, Entropy, Log, ProposeError, Proposed, RaftStatus, Store, Tree};
use crate::storage::{DiskId, Identity, IdentityError, LoadError, identity};
use crate::tasks;
use crate::view::View;
use atelier_proto::peer::v1::raft_server::RaftServer;
use atelier_state::mutants::{self, Mutant};
use atelier_state::{Command, LogIndex, NodeId, Reply, State, limits};
use futures_util::future::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A node of the cluster's Raft group. A clone is another handle of the same node; the node ends with
/// [`RaftNode::shutdown`], or abruptly with the last handle.
#[derive(Clone)]
pub struct RaftNode {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) raft: Raft,
    confluence: Confluence,
    pub(super) options: RaftOptions,
    pub(super) status: watch::Receiver<RaftStatus>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) disk: OwnDisk,
    pub(super) disks: Disks,
    heard: Heard,
    view: watch::Receiver<View>,
    marks: Marks,
    // Ended at the end. The log's thread ends when openraft has dropped its handles.
    home: Mutex<Home>,
    log_thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why a node did not start. Nothing that was stored was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict one another.
    #[error("the options cannot be: {0}")]
    Options(String),
    /// The directory is another node's, or its mark is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is stored is damaged.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// openraft refused what is stored, or the system gave no threads.
    #[error("raft did not start: {0}")]
    Raft(String),
}

impl RaftNode {
    /// Starts a node over a store, on a runtime of its own. A store that was used before is continued.
    ///
    /// `entropy` draws the id of a directory that is new. Serve [`RaftNode::service`] at the address, then initialise the cluster on one node or add this one to it.
    ///
    /// # Errors
    /// As the variants of [`StartError`] say; the store is left as it is.
    ///
    /// # Cancel safety
    /// Dropping the future ends whatever was started.
    pub async fn start(
        options: RaftOptions,
        store: Arc<dyn Store>,
        dial: Arc<dyn Dial>,
        entropy: &dyn Entropy,
    ) -> Result<RaftNode, StartError> {
        let config = Arc::new(options.config().map_err(StartError::Options)?);
        let home = Home::of(&options).map_err(|error| raft_error(&error))?;
        let identity = Identity { node: options.node, cluster: options.cluster.clone() };
        let fresh = DiskId::draw(entropy);
        let has_threads = options.threads > 0;
        claim(&store, &identity).await?;
        let place = store.clone();
        let loaded = tasks::blocking(move || load(&place, fresh, has_threads)).await;
        let loaded = loaded.map_err(|error| raft_error(&error))??;
        // The others are told of the directory's id.
        store.settled(Tree::Log).await.map_err(LoadError::Store)?;
        let (machine, view) = loaded.machine;
        let marks = machine.marks();
        let (log_bytes, log_thread) = (loaded.log.bytes(), loaded.log_thread);
        let disks = Disks::default();
        let network = NetworkFactory::new(options.cluster.clone(), dial.clone(), disks.clone());
        let node = options.node.0;
        let disk = OwnDisk::new(node, loaded.disk, store);
        let starting =
            home.spawn(async move { Raft::new(node, config, network, loaded.log, machine).await });
        let raft = starting.await.map_err(|error| raft_error(&error))?;
        let raft = raft.map_err(|error| raft_error(&error))?;
        let heard = Heard::default();
        let watched = (log_bytes, heard.clone(), disk.clone());
        let status = spawn_status(&home, &raft, &options, watched);
        tracing::info!(node, cluster = options.cluster, address = options.address, "raft started");
        let inner = Inner {
            confluence: Confluence::start(&home, raft.clone()),
            raft,
            options,
            status,
            dial,
            disk,
            disks,
            heard,
            view,
            marks,
            home: Mutex::new(home),
            log_thread: Mutex::new(log_thread),
        };
        Ok(RaftNode { inner: Arc::new(inner) })
    }

    /// Makes the gRPC service that the other peers call.
    pub fn service(&self) -> RaftServer<RaftService> {
        let Inner { raft, options, disk, heard, .. } = &*self.inner;
        RaftService::server(raft.clone(), options.cluster.clone(), disk.clone(), heard.clone())
    }

    /// Says why this node takes no part any more; none while it does.
    pub fn stopped(&self) -> Option<String> {
        self.inner.status.borrow().stopped.clone()
    }

    /// Ends the node: openraft first, then the thread that writes the log. What was acknowledged is on the disk.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a node that ends by and by.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end in good order");
        }
        let runtime = lock(&self.inner.home).0.take();
        let log_thread = lock(&self.inner.log_thread).take();
        let ended = tasks::blocking(move || {
            drop(runtime);
            log_thread.map(JoinHandle::join)
        });
        if !matches!(ended.await, Ok(None | Some(Ok(())))) {
            tracing::warn!("the log's thread did not end in good order");
        }
    }

    async fn propose_entry(&self, commands: Vec<Command>) -> Result<Proposed, ProposeError> {
        if mutants::is(Mutant::AcknowledgedBeforeCommit)
            && let Some(early) = self.early(&commands)
        {
            let (confluence, commands) = (self.inner.confluence.clone(), checked(commands)?);
            tasks::spawn(async move { confluence.propose(commands).await });
            return Ok(early);
        }
        self.inner.confluence.propose(checked(commands)?).await
    }

    /// What a leader would answer to a submission that it has not replicated; for a bug that is planted.
    fn early(&self, commands: &[Command]) -> Option<Proposed> {
        let status = self.inner.status.borrow();
        let [Command::Submit(submit)] = commands else { return None };
        let log_index = LogIndex(status.last_log.0 + 1);
        let reply = Reply::Submitted { job: submit.job, duplicate: false, log_index };
        status.is_leader.then(|| Proposed { log_index, replies: vec![reply] })
    }
}

impl Log for RaftNode {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(self.propose_entry(commands))
    }

    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.inner.status.clone()
    }

    fn view(&self) -> watch::Receiver<View> {
        self.inner.view.clone()
    }
}

impl Upkeep for RaftNode {
    fn take_snapshot(&self) -> BoxFuture<'_, Result<(LogIndex, u64), String>> {
        Box::pin(
            async move { RaftNode::take_snapshot(self).await.map_err(|error| error.to_string()) },
        )
    }

    fn marked(&self, index: LogIndex) -> Option<State> {
        self.inner.marks.at(index)
    }
}

/// Where a node's part in Raft runs: on a runtime of its own, which may be dropped where blocking is not allowed, or
/// where it was started.
pub(super) struct Home(Option<Runtime>);

impl Home {
    fn of(options: &RaftOptions) -> std::io::Result<Home> {
        let runtime = (options.threads > 0).then(|| runtime(options));
        Ok(Home(runtime.transpose()?))
    }

    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.0 {
            Some(runtime) => runtime.spawn(future),
            None => tasks::spawn(future),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime(options: &RaftOptions) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .thread_name(format!("raft-{}", options.node))
        .enable_all()
        .build()
}

struct Loaded {
    log: LogStorage,
    log_thread: Option<JoinHandle<()>>,
    disk: DiskId,
    machine: (StateMachine, watch::Receiver<View>),
}

/// Marks a new directory, each tree once the one before is marked for good: a crash leaves what the next start goes on
/// with.
async fn claim(store: &Arc<dyn Store>, identity: &Identity) -> Result<(), StartError> {
    loop {
        let (place, own) = (store.clone(), identity.clone());
        let marked = tasks::blocking(move || identity::claim(place.as_ref(), &own)).await;
        match marked.map_err(|error| raft_error(&error))?? {
            Some(tree) => store.settled(tree).await.map_err(LoadError::Store)?,
            None => return Ok(()),
        }
    }
}

fn load(store: &Arc<dyn Store>, fresh: DiskId, has_threads: bool) -> Result<Loaded, StartError> {
    identity::check_fit(store.as_ref())?;
    let disk = identity::disk(store.as_ref(), fresh)?;
    let (shelf, meta, state) = Shelf::open(store)?;
    let (log, log_thread) = match has_threads {
        true => LogStorage::open(store).map(|(log, thread)| (log, Some(thread)))?,
        false => (LogStorage::open_here(store)?, None),
    };
    if log.purged() > meta.last_log_id {
        let purged = log.purged().map_or(0, |id| id.index());
        let reason = format!("the log was purged through {purged}, no snapshot goes that far");
        let (place, at) = (store.place(Tree::State), "snapshot".to_owned());
        return Err(LoadError::Corrupt { place, at, reason }.into());
    }
    let machine = StateMachine::new(shelf, meta, state);
    Ok(Loaded { log, log_thread, disk, machine })
}

fn spawn_status(
    home: &Home,
    raft: &Raft,
    options: &RaftOptions,
    watched: (LogBytes, Heard, OwnDisk),
) -> watch::Receiver<RaftStatus> {
    let first = RaftStatus { node: options.node, ..RaftStatus::default() };
    let (sender, receiver) = watch::channel(first);
    let (raft, metrics) = (raft.clone(), raft.metrics());
    home.spawn(status::publish(raft, metrics, options.clone(), watched, sender));
    receiver
}

/// Makes the payload of an entry, unless it would break a bound.
fn checked(commands: Vec<Command>) -> Result<Commands, ProposeError> {
    let refused = |reason: String| Err(ProposeError::Refused(reason));
    if commands.is_empty() || commands.len() > limits::ENTRY_COMMANDS_MAX {
        let (count, max) = (commands.len(), limits::ENTRY_COMMANDS_MAX);
        return refused(format!("{count} commands are not 1 to {max}"));
    }
    let commands = Commands::new(commands);
    let bytes = commands.encoded(codec::encode_commands).len();
    if bytes > limits::ENTRY_BYTES_MAX {
        let max = limits::ENTRY_BYTES_MAX;
        return refused(format!("the entry has {bytes} bytes, more than {max}"));
    }
    Ok(commands)
}

pub(super) fn propose_error(
    error: RaftError<super::types::TypeConfig, ClientWriteError<super::types::TypeConfig>>,
) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader { leader: leader_of(forward) }
        }
        RaftError::APIError(discarded @ ClientWriteError::LogEntryDiscarded(_)) => {
            ProposeError::Unknown(discarded.to_string())
        }
        RaftError::APIError(other) => ProposeError::Unknown(other.to_string()),
        RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.to_string()),
    }
}

pub(super) fn leader_of(
    forward: ForwardToLeader<super::types::TypeConfig>,
) -> Option<(NodeId, String)> {
    let address = disk::address_of(&forward.leader_node?).to_owned();
    Some((NodeId(forward.leader_id?), address))
}

fn raft_error(error: &dyn std::fmt::Display) -> StartError {
    StartError::Raft(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
