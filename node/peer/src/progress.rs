//! How far a running job has come, for whoever watches.
//!
//! Owns the newest step of each running attempt ([`ProgressBoard`], on the worker) and the way to
//! it from any peer ([`ProgressFollower`]). It must not know the log: progress is never logged, and
//! losing it costs nothing. A watcher that is slow sees the newest step and not the ones between; so
//! nothing is kept of a preview but the newest one of each attempt, and one for each who follows it.

use crate::lines::Lines;
use crate::ports::engine::{EngineStep, Preview, StageTimes};
use crate::ports::{Clock, Purpose, RaftStatus};
use crate::tasks;
use crate::view::View;
use atelier_proto::peer::v1::{ProgressReply, WatchProgressRequest};
use atelier_state::job::JobId;
use atelier_state::lease::FencingToken;
use atelier_state::roster::NodeId;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::task::AbortOnDropHandle;

/// Before a worker is asked again that has not begun, or cannot be reached.
const RETRY: Duration = Duration::from_millis(250);
/// Then the watcher is told that nothing comes. Eight elections long.
const RETRIES_MAX: u32 = 40;
/// For a worker to answer that it knows the attempt.
const HEAD_WAIT: Duration = Duration::from_secs(3);

/// The newest step of each attempt that runs on this worker.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    // One entry an attempt, so bounded by the slots.
    attempts: Mutex<Attempts>,
}

type Attempts = BTreeMap<(JobId, FencingToken), watch::Sender<Option<EngineStep>>>;

impl ProgressBoard {
    /// Opens an attempt; it closes, and its watchers with it, when the writer is dropped.
    pub fn begin(self: &Arc<Self>, job: JobId, token: FencingToken) -> ProgressWriter {
        self.lock().insert((job, token), watch::Sender::new(None));
        ProgressWriter { board: self.clone(), attempt: (job, token) }
    }

    /// Watches an attempt, with previews or without; none when it does not run here.
    pub fn watch(
        &self,
        job: JobId,
        token: FencingToken,
        previews: bool,
    ) -> Option<BoxStream<'static, EngineStep>> {
        let steps = self.lock().get(&(job, token))?.subscribe();
        let wanted = move |step: EngineStep| {
            let preview = step.preview.filter(|_| previews);
            EngineStep { preview, ..step }
        };
        let steps = WatchStream::new(steps).map(move |step| step.map(wanted));
        Some(steps.filter_map(std::future::ready).boxed())
    }

    fn lock(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the steps of one attempt.
#[derive(Debug)]
pub struct ProgressWriter {
    board: Arc<ProgressBoard>,
    attempt: (JobId, FencingToken),
}

impl ProgressWriter {
    /// Replaces the newest step.
    pub fn publish(&self, step: EngineStep) {
        if let Some(newest) = self.board.lock().get(&self.attempt) {
            newest.send_replace(Some(step));
        }
    }
}

impl Drop for ProgressWriter {
    fn drop(&mut self) {
        self.board.lock().remove(&self.attempt);
    }
}

/// Watches attempts wherever they run.
#[derive(Clone)]
pub struct ProgressFollower {
    /// Name of the cluster; peers of another one refuse.
    pub cluster: String,
    /// Attempts that run here.
    pub board: Arc<ProgressBoard>,
    /// The way to other peers.
    pub lines: Arc<Lines>,
    /// Which node this is, and where the others listen.
    pub status: watch::Receiver<RaftStatus>,
    /// Where nodes listen that are no members.
    pub view: watch::Receiver<View>,
    /// For waits.
    pub clock: Arc<dyn Clock>,
}

impl ProgressFollower {
    /// Follows one attempt on a node: its newest step, then each further one as it comes. The
    /// stream ends with the attempt, or when the node does not answer for ten seconds; it never
    /// fails. A worker that has not begun is waited for. Drop the stream when the lease has ended.
    /// Steps have previews only where they are asked for: those who do not ask are sent no pixels.
    pub fn follow(
        &self,
        job: JobId,
        token: FencingToken,
        node: NodeId,
        previews: bool,
    ) -> BoxStream<'static, EngineStep> {
        let following = Following {
            follower: self.clone(),
            attempt: (job, token),
            node,
            previews,
            steps: None,
            retries_left: RETRIES_MAX,
        };
        stream::unfold(following, Following::next).boxed()
    }

    async fn connect(
        &self,
        (job, token): (JobId, FencingToken),
        node: NodeId,
        previews: bool,
    ) -> Option<Steps> {
        let address = {
            let status = self.status.borrow();
            if node == status.node {
                return Some(self.board.watch(job, token, previews)?.map(Ok).boxed());
            }
            let of_member = status.addresses.get(&node).cloned();
            let of_node = || self.view.borrow().state.node(node).map(|node| node.address.clone());
            of_member.or_else(of_node)?
        };
        let mut peer = self.lines.peer(&address, Purpose::Control).ok()?;
        let request = WatchProgressRequest {
            job: job.to_bytes().to_vec().into(),
            token: token.0,
            cluster: self.cluster.clone(),
            previews,
        };
        let reply = tokio::select! {
            biased;
            reply = peer.watch_progress(request) => reply.ok()?,
            () = self.clock.sleep(HEAD_WAIT) => return None,
        };
        Some(newest(reply.into_inner()))
    }
}

type Steps = BoxStream<'static, Result<EngineStep, tonic::Status>>;

/// Reads a worker's steps as they come, and gives out the newest. Were they read only when a client
/// asks for its next event, clients that are slow would leave previews unread until the one
/// connection to that worker is full, and every other call to it would stand still.
fn newest(mut steps: tonic::Streaming<ProgressReply>) -> Steps {
    let (writer, reader) = watch::channel(None);
    // Ends with the stream that owns it.
    let task = AbortOnDropHandle::new(tasks::spawn(async move {
        while let Some(step) = steps.next().await {
            let failed = step.is_err();
            writer.send_replace(Some(step.map(step_from_wire)));
            if failed {
                return;
            }
        }
    }));
    let owned = move |step| {
        let _owner = &task;
        std::future::ready(step)
    };
    WatchStream::new(reader).filter_map(owned).boxed()
}

/// One watcher.
struct Following {
    follower: ProgressFollower,
    attempt: (JobId, FencingToken),
    node: NodeId,
    previews: bool,
    steps: Option<Steps>,
    retries_left: u32,
}

impl Following {
    /// Boxed, because it is a state of the stream.
    fn next(mut self) -> BoxFuture<'static, Option<(EngineStep, Following)>> {
        Box::pin(async move {
            loop {
                let Some(steps) = &mut self.steps else {
                    let Following { attempt, node, previews, .. } = self;
                    self.steps = self.follower.connect(attempt, node, previews).await;
                    if self.steps.is_none() {
                        self.pause().await?;
                    }
                    continue;
                };
                match steps.next().await {
                    Some(Ok(step)) => {
                        self.retries_left = RETRIES_MAX;
                        return Some((step, self));
                    }
                    Some(Err(_)) => {
                        self.steps = None;
                        self.pause().await?;
                    }
                    None => return None,
                }
            }
        })
    }

    async fn pause(&mut self) -> Option<()> {
        self.retries_left = self.retries_left.checked_sub(1)?;
        self.follower.clock.sleep(RETRY).await;
        Some(())
    }
}

pub(crate) fn step_to_wire(step: EngineStep) -> ProgressReply {
    let EngineStep { stage, image, step, steps, spent, preview } = step;
    let StageTimes { encode_us, denoise_us, decode_us } = spent;
    let preview = Preview::into_bytes(preview);
    ProgressReply { stage, image, step, steps, encode_us, denoise_us, decode_us, preview }
}

fn step_from_wire(reply: ProgressReply) -> EngineStep {
    let ProgressReply { stage, image, step, steps, encode_us, denoise_us, decode_us, preview } =
        reply;
    let spent = StageTimes { encode_us, denoise_us, decode_us };
    EngineStep { stage, image, step, steps, spent, preview: Preview::new(preview) }
}
