//! Wakes whoever watches a job when that job has changed.
//!
//! One task looks at each new view for all watches together; without it every entry of the log
//! would wake them all. It owns who is watched and how that job was when it looked last; what a
//! change means is for the watch to see, in a view that is at least as new.

use crate::view::View;
use atelier_state::{Job, JobId, State};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Jobs that are looked at in one go; others get their turn between.
const LOOK_JOBS: usize = 512;

/// The jobs that are watched at this peer.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    // As many as there are watches, which the front door bounds.
    watched: Mutex<BTreeMap<JobId, Watched>>,
}

#[derive(Debug)]
struct Watched {
    seen: Option<Arc<Job>>,
    changed: watch::Sender<()>,
}

/// Tells of the changes of one job, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Sight {
    lookout: Arc<Lookout>,
    job: JobId,
    changed: watch::Receiver<()>,
}

impl Lookout {
    /// Looks at each new view until `stop`, or until there are no more.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut view: watch::Receiver<View>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
            }
            let state = view.borrow_and_update().state.clone();
            self.look(&state).await;
        }
    }

    async fn look(&self, state: &State) {
        let mut from = Bound::Unbounded;
        while let Some(last) = self.look_from(from, state) {
            from = Bound::Excluded(last);
            tokio::task::yield_now().await;
        }
    }

    /// Looks at the next jobs, and returns the last of them where more may follow.
    fn look_from(&self, from: Bound<JobId>, state: &State) -> Option<JobId> {
        let mut watched = self.watched();
        let mut last = None;
        for (count, (job, watched)) in watched.range_mut((from, Bound::Unbounded)).enumerate() {
            if count == LOOK_JOBS {
                return last;
            }
            watched.look(state.job_shared(*job));
            last = Some(*job);
        }
        None
    }

    /// Tells of each change of a job that comes after this view. Look at it after this call.
    pub(crate) fn watch(self: &Arc<Self>, job: JobId, view: &View) -> Sight {
        let mut watched = self.watched();
        let entry = watched.entry(job).or_insert_with(|| Watched {
            seen: view.state.job_shared(job).cloned(),
            changed: watch::Sender::new(()),
        });
        let changed = entry.changed.subscribe();
        drop(watched);
        Sight { lookout: self.clone(), job, changed }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<JobId, Watched>> {
        // Each change is one insertion, one removal or one assignment.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn look(&mut self, now: Option<&Arc<Job>>) {
        let is_same = match (&self.seen, now) {
            (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.seen = now.cloned();
            self.changed.send_replace(());
        }
    }
}

impl Sight {
    /// Waits for a change since the last call.
    ///
    /// # Cancel safety
    /// Safe: a change is not lost.
    pub(crate) async fn changed(&mut self) {
        // The sender is in the table for as long as this lives.
        let _ = self.changed.changed().await;
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        let mut watched = self.lookout.watched();
        if watched.get(&self.job).is_some_and(|entry| entry.changed.receiver_count() == 1) {
            watched.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_state::{Cancel, Command, LogIndex, Submit};
    use futures_util::FutureExt;

    fn submit(job: u128) -> Command {
        Command::Submit(Submit {
            job: JobId(job),
            tenant: "t".into(),
            idempotency_key: None,
            priority: 5,
            kind: "text_to_image/v1".into(),
            parameters: Default::default(),
            traceparent: String::new(),
            submitted_ms: 1,
            attempts_max: 3,
            deadline_ms: 0,
            max_runtime_s: 0,
            cost: 1,
            retry_of: None,
        })
    }

    fn cancel(job: u128) -> Command {
        Command::Cancel(Cancel { job: JobId(job), reason: String::new(), finished_ms: 2 })
    }

    fn view(commands: &[Command]) -> View {
        let mut state = State::new();
        for (at, command) in (1..).zip(commands) {
            state.apply(LogIndex(at), command);
        }
        View { applied: state.applied(), state }
    }

    #[tokio::test]
    async fn a_change_wakes_those_who_watch_that_job_and_nobody_else() {
        let lookout = Arc::new(Lookout::default());
        let jobs = 1..=2 * LOOK_JOBS as u128 + 1;
        let commands: Vec<_> = jobs.clone().map(submit).collect();
        let mut now = view(&commands);
        let watch = |job| lookout.watch(JobId(job), &now);
        let mut sights: Vec<_> = jobs.clone().map(watch).collect();
        let mut second = lookout.watch(JobId(700), &now);
        now.state.apply(LogIndex(commands.len() as u64 + 1), &cancel(700));
        lookout.look(&now.state).await;
        let woken = |sight: &mut Sight| sight.changed().now_or_never().is_some();
        assert!(woken(&mut second));
        let all: Vec<_> = sights
            .iter_mut()
            .zip(jobs)
            .filter_map(|(sight, job)| woken(sight).then_some(job))
            .collect();
        assert_eq!(all, [700]);
        lookout.look(&now.state).await;
        assert!(!woken(&mut second), "nothing has changed since");
    }

    #[tokio::test]
    async fn a_job_that_comes_or_is_forgotten_has_changed() {
        let lookout = Arc::new(Lookout::default());
        let mut sight = lookout.watch(JobId(1), &View::default());
        lookout.look(&view(&[submit(1)]).state).await;
        assert!(sight.changed().now_or_never().is_some());
        lookout.look(&State::new()).await;
        assert!(sight.changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn nobody_is_remembered_who_has_left() {
        let lookout = Arc::new(Lookout::default());
        let (first, second) =
            (lookout.watch(JobId(1), &View::default()), lookout.watch(JobId(1), &View::default()));
        drop(first);
        assert_eq!(lookout.watched().len(), 1);
        drop(second);
        assert_eq!(lookout.watched().len(), 0);
    }
}
