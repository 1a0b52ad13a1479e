//! Support of this crate's tests: a still clock, a log that always works, and an engine without a
//! device.

use crate::ports::engine::{
    DrawRequest, Engine, EngineError, EngineEvent, EngineInfo, EngineState, EngineStep, Picture,
    StageTimes,
};
use crate::ports::{Clock, Entropy, Log, ProposeError, Proposed, RaftStatus};
use crate::view::View;
use atelier_state::{Command, LogIndex, NodeId};
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Stands at zero; its sleeps are tokio's, so that a paused runtime skips them.
pub(crate) struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_ms(&self) -> u64 {
        1_800_000_000_000
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Counts instead of drawing.
#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        bytes.iter_mut().zip(count.iter().cycle()).for_each(|(byte, count)| *byte = *count);
    }
}

/// A log of one node that applies at once, unless it is told to fail.
pub(crate) struct MemoryLog {
    pub(crate) status: watch::Sender<RaftStatus>,
    pub(crate) view: watch::Sender<View>,
    /// What the next proposals answer instead of being applied.
    pub(crate) failure: Mutex<Option<ProposeError>>,
    /// What the log has and the view does not show yet, from [`MemoryLog::lag`] on.
    ahead: Mutex<Option<View>>,
}

impl MemoryLog {
    /// A log that this node leads.
    pub(crate) fn led_by_itself() -> Self {
        let status = RaftStatus {
            node: NodeId(1),
            leader: Some(NodeId(1)),
            is_leader: true,
            term: 1,
            voters: [NodeId(1)].into(),
            addresses: [(NodeId(1), "http://127.0.0.1:7861".to_owned())].into(),
            applied: LogIndex(1),
            quorum_acked: true,
            ..RaftStatus::default()
        };
        let (status, view) = (watch::Sender::new(status), watch::Sender::new(View::default()));
        Self { status, view, failure: Mutex::default(), ahead: Mutex::default() }
    }

    /// Applies commands as one entry.
    pub(crate) fn apply(&self, commands: &[Command]) -> Proposed {
        let mut ahead = self.ahead.lock().expect("no test panics here");
        let mut state = ahead
            .as_ref()
            .map_or_else(|| self.view.borrow().state.clone(), |view| view.state.clone());
        let log_index = LogIndex(state.applied().0 + 1);
        let replies = commands.iter().map(|command| state.apply(log_index, command)).collect();
        let view = View { state, applied: log_index };
        self.status.send_modify(|status| {
            (status.last_log, status.committed) = (log_index, log_index);
        });
        match ahead.as_mut() {
            Some(ahead) => *ahead = view,
            None => self.show(view),
        }
        Proposed { log_index, replies }
    }

    /// From here on the view stays as it is.
    pub(crate) fn lag(&self) {
        *self.ahead.lock().expect("no test panics here") = Some(self.view.borrow().clone());
    }

    /// Lets the view show everything again.
    pub(crate) fn catch_up(&self) {
        let ahead = self.ahead.lock().expect("no test panics here").take();
        ahead.into_iter().for_each(|view| self.show(view));
    }

    fn show(&self, view: View) {
        self.status.send_modify(|status| status.applied = view.applied);
        self.view.send_replace(view);
    }
}

impl Log for MemoryLog {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        let failure = self.failure.lock().expect("no test panics here").clone();
        Box::pin(async move { failure.map_or_else(|| Ok(self.apply(&commands)), Err) })
    }

    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.status.subscribe()
    }

    fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }
}

/// Draws at once and without a device: the same parameters give the same bytes, on every peer.
pub(crate) struct PaperEngine {
    state: watch::Receiver<EngineState>,
    /// Between two steps.
    pace: Duration,
}

/// Steps of a paper picture.
pub(crate) const PAPER_STEPS: u32 = 4;
/// Bytes of a paper picture: more than one chunk.
const PAPER_BYTES: usize = 150_000;

impl PaperEngine {
    pub(crate) fn new(pace: Duration) -> Self {
        let info = EngineInfo {
            class: "paper".to_owned(),
            model: "none".to_owned(),
            default_width: 128,
            default_height: 128,
            default_steps: PAPER_STEPS,
            guided: false,
            files: Arc::default(),
        };
        Self { state: watch::channel(EngineState::Ready(info)).1, pace }
    }
}

impl Engine for PaperEngine {
    fn draw(
        &self,
        request: DrawRequest,
        events: mpsc::Sender<EngineEvent>,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<Vec<Picture>, EngineError>> {
        let pace = self.pace;
        Box::pin(async move {
            for step in 1..=PAPER_STEPS {
                tokio::select! {
                    () = stop.cancelled() => return Err(EngineError::Stopped),
                    () = tokio::time::sleep(pace) => {}
                }
                let (stage, steps) = ("denoise".to_owned(), PAPER_STEPS);
                let step = EngineStep {
                    stage,
                    image: 0,
                    step,
                    steps,
                    spent: StageTimes::default(),
                    preview: None,
                };
                // As the port says: a listener that is slow loses steps.
                let _ = events.try_send(EngineEvent::Step(step));
            }
            let mut data = vec![0; PAPER_BYTES];
            blake3::Hasher::new().update(&request.parameters).finalize_xof().fill(&mut data);
            Ok(vec![Picture { image: 0, media_type: "image/png".to_owned(), data: data.into() }])
        })
    }

    fn ready(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }
}
