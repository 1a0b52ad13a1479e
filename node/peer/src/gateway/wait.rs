//! Telling how jobs end, many of them by one stream.
//!
//! A wait is what a watch is without steps and places: it looks at its job when that has changed,
//! and says so once it has ended. It owns no task; all waits of a stream end with it.

use super::convert;
use super::error::unavailable;
use super::lookout::{Lookout, Sight};
use crate::ports::{Clock, RaftStatus};
use crate::view::View;
use atelier_proto::client::v1 as wire;
use atelier_state::{JobId, LogIndex};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use futures_util::{FutureExt, Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Jobs that one stream waits for at a time. Filled by its client; at the bound the stream ends
/// with RESOURCE_EXHAUSTED, and whoever waits for more opens another.
const JOBS_MAX: usize = 10_000;
/// Ends that one answer tells; more go into the next.
const ENDS_MAX: usize = 256;
/// Something is told at least this often, so that clients and proxies know that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The waits of one stream.
pub(super) struct Waits {
    pub(super) requests: BoxStream<'static, Result<wire::AwaitRequest, Status>>,
    pub(super) lookout: Arc<Lookout>,
    pub(super) view: watch::Receiver<View>,
    pub(super) raft: watch::Receiver<RaftStatus>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) clock: Arc<dyn Clock>,
}

/// How one wait comes out.
enum End {
    Ended(Box<wire::Job>),
    Unknown(JobId),
}

struct Waiting {
    waits: Waits,
    open: FuturesUnordered<BoxFuture<'static, End>>,
    /// The client names no more jobs.
    closed: bool,
    ended: bool,
}

/// What woke the stream up.
enum Event {
    Asked(wire::AwaitRequest),
    Closed,
    End(End),
    KeepAlive,
    Leaving,
}

impl Waits {
    /// All answers, up to the end of the last job that was named.
    pub(super) fn answers(self) -> impl Stream<Item = Result<wire::AwaitReply, Status>> + Send {
        let open = FuturesUnordered::new();
        let waiting = Waiting { waits: self, open, closed: false, ended: false };
        stream::unfold(waiting, |mut waiting| async move {
            if waiting.ended {
                return None;
            }
            let answer = waiting.next().await;
            waiting.ended = answer.is_err();
            answer.transpose().map(|answer| (answer, waiting))
        })
    }
}

impl Waiting {
    /// The next answer; none when there is nothing left to wait for.
    async fn next(&mut self) -> Result<Option<wire::AwaitReply>, Status> {
        let mut keep_alive = self.waits.clock.sleep(KEEP_ALIVE).fuse();
        loop {
            if *self.waits.draining.borrow() {
                let text = "this peer is leaving; wait for the jobs at another peer";
                return Err(unavailable(text, self.leader().as_deref()));
            }
            if self.closed && self.open.is_empty() {
                return Ok(None);
            }
            match self.woken(&mut keep_alive).await? {
                Event::Asked(request) => self.take(request)?,
                Event::Closed => self.closed = true,
                Event::End(first) => return Ok(Some(self.all_ends(first))),
                Event::KeepAlive => return Ok(Some(wire::AwaitReply::default())),
                Event::Leaving => {}
            }
        }
    }

    async fn woken(
        &mut self,
        keep_alive: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<Event, Status> {
        Ok(tokio::select! {
            asked = self.waits.requests.next(), if !self.closed => match asked.transpose()? {
                Some(request) => Event::Asked(request),
                None => Event::Closed,
            },
            Some(end) = self.open.next() => Event::End(end),
            () = keep_alive => Event::KeepAlive,
            _ = self.waits.draining.changed() => Event::Leaving,
        })
    }

    fn take(&mut self, request: wire::AwaitRequest) -> Result<(), Status> {
        let count = self.open.len() + request.job_ids.len();
        if count > JOBS_MAX {
            let text =
                format!("{count} jobs in a stream, expected at most {JOBS_MAX}; open another");
            return Err(Status::resource_exhausted(text));
        }
        let after = LogIndex(request.after_index);
        for id in &request.job_ids {
            let job = convert::job_id(id)?;
            let sight = self.waits.lookout.watch(job, &self.waits.view.borrow());
            self.open.push(end_of(job, after, sight, self.waits.view.clone()).boxed());
        }
        Ok(())
    }

    /// This end, and whatever has ended besides.
    fn all_ends(&mut self, first: End) -> wire::AwaitReply {
        let mut reply = wire::AwaitReply::default();
        let mut next = Some(first);
        while let Some(end) = next {
            match end {
                End::Ended(job) => reply.jobs.push(*job),
                End::Unknown(job) => reply.unknown.push(job.to_string()),
            }
            let told = reply.jobs.len() + reply.unknown.len();
            next = if told < ENDS_MAX { self.open.next().now_or_never().flatten() } else { None };
        }
        reply
    }

    fn leader(&self) -> Option<String> {
        let raft = self.waits.raft.borrow();
        raft.leader.and_then(|leader| raft.addresses.get(&leader).cloned())
    }
}

/// Waits for the end of a job, once the view has come as far as its acceptance.
async fn end_of(
    job: JobId,
    after: LogIndex,
    mut sight: Sight,
    mut view: watch::Receiver<View>,
) -> End {
    if view.wait_for(|view| view.applied >= after).await.is_err() {
        // The log is gone, and the peer with it; the stream ends by its own means.
        std::future::pending::<()>().await;
    }
    loop {
        match view.borrow().state.job(job) {
            None => return End::Unknown(job),
            Some(job) if job.phase.is_terminal() => {
                return End::Ended(Box::new(convert::job(job, 0)));
            }
            Some(_) => {}
        }
        sight.changed().await;
    }
}
