//! Following one job from its present phase to its last, over changes of the worker.
//!
//! A watch is a state that is asked for its next event; it owns no task, so it ends when its client
//! leaves, and a client that reads slowly holds up nobody. Facts come from the view, steps from the
//! worker that holds the lease at the moment; when the lease moves, the old worker's steps are
//! dropped and the new one's are followed.

use super::error::unavailable;
use super::lookout::Sight;
use super::{convert, not_found};
use crate::ports::engine::{EngineStep, Preview};
use crate::ports::{Clock, RaftStatus};
use crate::progress::ProgressFollower;
use crate::view::View;
use atelier_proto::client::v1 as wire;
use atelier_state::{FencingToken, Job, JobId, NodeId, Phase};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// An event is told at least this often, so that clients and proxies know that the watch lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Between two looks at the place in the queue, which changes with every other job.
const POSITION_PAUSE: Duration = Duration::from_millis(500);
/// Before a worker is asked for its steps at all: a job that ends sooner has none worth a call.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// Before a worker's steps are asked for again after their stream ended.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// A watch of one job.
pub(super) struct Watch {
    pub(super) job: JobId,
    pub(super) sight: Sight,
    pub(super) previews: bool,
    pub(super) view: watch::Receiver<View>,
    pub(super) raft: watch::Receiver<RaftStatus>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) progress: ProgressFollower,
    pub(super) clock: Arc<dyn Clock>,
}

struct Following {
    watch: Watch,
    /// What was told last; none before the first event.
    told: Option<wire::JobEvent>,
    /// The lease whose steps are followed.
    lease: Option<(NodeId, FencingToken)>,
    /// Its steps; none before they are asked for, and between the end of a stream and its reopening.
    steps: Option<BoxStream<'static, EngineStep>>,
    /// Before they are asked for.
    pause: Duration,
    newest: Option<wire::Progress>,
    /// Of the newest step; none once it was told.
    preview: Option<Preview>,
    /// The place in the queue and when it was counted: counting walks the queue.
    position: (u64, Duration),
    ended: bool,
}

impl Watch {
    /// All events of the job, the present one first, up to the terminal one.
    pub(super) fn events(self) -> impl Stream<Item = Result<wire::JobEvent, Status>> + Send {
        let following = Following {
            watch: self,
            told: None,
            lease: None,
            steps: None,
            pause: FOLLOW_PAUSE,
            newest: None,
            preview: None,
            position: (0, Duration::ZERO),
            ended: false,
        };
        stream::unfold(following, |mut following| async move {
            if following.ended {
                return None;
            }
            let event = following.next().await;
            following.ended = match &event {
                Ok(event) => is_terminal(event),
                Err(_) => true,
            };
            Some((event, following))
        })
    }
}

/// What woke a watch up.
enum Event {
    Changed,
    Step(EngineStep),
    StepsEnded,
    Reopen,
    KeepAlive,
    Leaving,
}

impl Following {
    async fn next(&mut self) -> Result<wire::JobEvent, Status> {
        let mut keep_alive = self.watch.clock.sleep(KEEP_ALIVE).fuse();
        loop {
            if *self.watch.draining.borrow() {
                let text = "this peer is leaving; watch the job at another peer";
                return Err(unavailable(text, self.leader().as_deref()));
            }
            let event = self.look()?;
            if self.told.as_ref() != Some(&event) {
                return Ok(self.tell(event));
            }
            match self.woken(&mut keep_alive).await {
                Event::KeepAlive => {
                    let event = self.look()?;
                    return Ok(self.tell(event));
                }
                Event::Step(step) => self.take(step),
                Event::StepsEnded => {
                    self.steps = None;
                    self.pause = REOPEN_PAUSE;
                }
                Event::Reopen => self.open(),
                Event::Changed | Event::Leaving => {}
            }
        }
    }

    fn tell(&mut self, event: wire::JobEvent) -> wire::JobEvent {
        // The log stands elsewhere with every entry; that alone is no news of the job.
        self.told = Some(event.clone());
        let log_index = self.watch.view.borrow().applied.0;
        let preview = Preview::into_bytes(self.preview.take());
        wire::JobEvent { log_index, preview, ..event }
    }

    /// The job as it is now; where its lease has moved its steps are forgotten. Log index and preview
    /// are left open.
    fn look(&mut self) -> Result<wire::JobEvent, Status> {
        let view = self.watch.view.borrow().clone();
        let job = view.state.job(self.watch.job).ok_or_else(|| not_found(self.watch.job))?;
        let lease = job.lease().map(|lease| (lease.node, lease.token));
        if job.phase.is_terminal() {
            self.last_steps();
        } else if lease != self.lease {
            self.lease = lease;
            (self.newest, self.preview, self.steps) = (None, None, None);
            self.pause = FOLLOW_PAUSE;
        }
        let position = self.position_of(&view, job);
        let job = convert::job(job, position);
        let progress = self.newest.clone();
        Ok(wire::JobEvent { job: Some(job), progress, ..wire::JobEvent::default() })
    }

    /// Takes what the last attempt told before its end: facts may overtake its steps.
    fn last_steps(&mut self) {
        while let Some(Some(Some(step))) = self.steps.as_mut().map(|s| s.next().now_or_never()) {
            self.take(step);
        }
    }

    fn take(&mut self, mut step: EngineStep) {
        // An event is told of each new step, so a preview never waits for one.
        self.preview = step.preview.take();
        self.newest = self.progress_of(&step);
    }

    /// The place in the queue, counted anew after a pause.
    fn position_of(&mut self, view: &View, job: &Job) -> u64 {
        let now = self.watch.clock.now();
        let (known, counted) = self.position;
        if job.phase != Phase::Queued {
            self.position = (0, now);
        } else if known == 0 || now.saturating_sub(counted) >= POSITION_PAUSE {
            self.position = (convert::position(&view.state, self.watch.job), now);
        }
        self.position.0
    }

    fn open(&mut self) {
        let job = self.watch.job;
        let previews = self.watch.previews;
        let follow = |(node, token)| self.watch.progress.follow(job, token, node, previews);
        self.steps = self.lease.map(follow);
    }

    fn progress_of(&self, step: &EngineStep) -> Option<wire::Progress> {
        let (node, token) = self.lease?;
        Some(wire::Progress {
            node: node.0,
            token: token.0,
            stage: step.stage.clone(),
            step: step.step,
            steps: step.steps,
            image: step.image,
            encode_us: step.spent.encode_us,
            denoise_us: step.spent.denoise_us,
            decode_us: step.spent.decode_us,
        })
    }

    async fn woken(&mut self, keep_alive: &mut (impl Future<Output = ()> + Unpin)) -> Event {
        let reopens = self.lease.is_some() && self.steps.is_none();
        let is_queued = self.position.0 > 0;
        let step = async {
            match &mut self.steps {
                Some(steps) => steps.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.watch.sight.changed() => Event::Changed,
            step = step => step.map_or(Event::StepsEnded, Event::Step),
            () = self.watch.clock.sleep(self.pause), if reopens => Event::Reopen,
            () = self.watch.clock.sleep(POSITION_PAUSE), if is_queued => Event::Changed,
            () = keep_alive => Event::KeepAlive,
            _ = self.watch.draining.changed() => Event::Leaving,
        }
    }

    fn leader(&self) -> Option<String> {
        let raft = self.watch.raft.borrow();
        raft.leader.and_then(|leader| raft.addresses.get(&leader).cloned())
    }
}

fn is_terminal(event: &wire::JobEvent) -> bool {
    let phase = event.job.as_ref().map(wire::Job::phase);
    matches!(phase, Some(wire::Phase::Succeeded | wire::Phase::Failed | wire::Phase::Cancelled))
}
