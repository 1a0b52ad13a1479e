//! Where a peer's tasks run, and how all of them end or stand still at once.
//!
//! In a daemon a task is tokio's and ends with the process. In a simulated world many peers share
//! one thread; there the tasks of each form a [`Group`], which whatever they spawn joins, openraft's
//! own tasks too. A group can be paused as by SIGSTOP and killed as by SIGKILL: not one of its tasks
//! runs another line.

use futures_util::future::Either;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

tokio::task_local! {
    static GROUP: Group;
}

/// Handles of tasks that are kept at least, before those that have ended are dropped.
const HANDLES_MIN: usize = 64;

/// The tasks of one peer in a world of several on one thread. Clones are the same group.
#[derive(Clone)]
pub struct Group {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    standing: Standing,
    paused: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    prune_at: usize,
    rng: SmallRng,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Runs,
    Paused,
    Killed,
}

impl Group {
    /// Makes an empty group, whose randomness follows from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Group {
        let shared = Shared {
            standing: Standing::Runs,
            paused: Vec::new(),
            tasks: Vec::new(),
            prune_at: HANDLES_MIN,
            rng: SmallRng::seed_from_u64(seed),
        };
        Group { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Spawns a task of the group. One of a group that was killed never runs.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = tokio::spawn(self.member(future));
        let mut shared = self.lock();
        shared.tasks.push(task.abort_handle());
        if shared.tasks.len() >= shared.prune_at {
            shared.tasks.retain(|task| !task.is_finished());
            shared.prune_at = HANDLES_MIN.max(2 * shared.tasks.len());
        }
        task
    }

    /// Lets every task stand where it is, until [`Group::resume`].
    pub fn pause(&self) {
        let mut shared = self.lock();
        if shared.standing == Standing::Runs {
            shared.standing = Standing::Paused;
        }
    }

    /// Lets the tasks go on. Time has passed for them meanwhile.
    pub fn resume(&self) {
        let woken = {
            let mut shared = self.lock();
            if shared.standing == Standing::Paused {
                shared.standing = Standing::Runs;
            }
            std::mem::take(&mut shared.paused)
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends every task where it stands.
    pub fn kill(&self) {
        let (tasks, paused) = {
            let mut shared = self.lock();
            shared.standing = Standing::Killed;
            (std::mem::take(&mut shared.tasks), std::mem::take(&mut shared.paused))
        };
        tasks.iter().for_each(AbortHandle::abort);
        drop(paused);
    }

    fn member<F: Future>(&self, future: F) -> Member<F> {
        let future = Some(Box::pin(GROUP.scope(self.clone(), future)));
        Member { group: self.clone(), future }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Each change is a few assignments, so a panic cannot have left it half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

/// A future that runs only while its group does.
pub struct Member<F> {
    group: Group,
    // None once the group was killed.
    future: Option<Pin<Box<tokio::task::futures::TaskLocalFuture<Group, F>>>>,
}

impl<F: Future> Future for Member<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let standing = {
            let mut shared = self.group.lock();
            if shared.standing == Standing::Paused {
                shared.paused.push(context.waker().clone());
            }
            shared.standing
        };
        match (standing, &mut self.future) {
            (Standing::Runs, Some(future)) => future.as_mut().poll(context),
            (Standing::Killed, future) => {
                future.take();
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }
}

/// Spawns a task where the current one belongs.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match GROUP.try_with(Group::clone) {
        Ok(group) => group.spawn(future),
        Err(_) => tokio::spawn(future),
    }
}

/// Makes a future one of the current task's group, for a set that spawns it by other means.
pub fn joined<F: Future>(future: F) -> Either<F, Member<F>> {
    match GROUP.try_with(Group::clone) {
        Ok(group) => Either::Right(group.member(future)),
        Err(_) => Either::Left(future),
    }
}

/// Does work that blocks: on a thread for such work, but in a group where it is asked for, since
/// what other threads do follows from no seed.
///
/// # Errors
/// When the work panicked on its thread.
///
/// # Cancel safety
/// The work goes on after the future was dropped.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match GROUP.try_with(|_| ()) {
        Ok(()) => Ok(work()),
        Err(_) => tokio::task::spawn_blocking(work).await,
    }
}

/// Returns the seed of a source of randomness: the group's next, or one that nobody can tell.
pub(crate) fn seed() -> u64 {
    match GROUP.try_with(|group| group.lock().rng.next_u64()) {
        Ok(seed) => seed,
        Err(_) => rand::rng().next_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A task that counts once a second, and spawns another that does.
    fn counting(group: &Group) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        group.spawn(async move {
            let inner = counted.clone();
            spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    inner.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut set = tokio::task::JoinSet::new();
            set.spawn(joined(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }));
            set.join_next().await;
        });
        count
    }

    async fn after(seconds: u64, count: &AtomicU32) -> u32 {
        tokio::time::sleep(Duration::from_millis(1_000 * seconds + 500)).await;
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_was_killed_runs_no_further_line() {
        let group = Group::new(1);
        let count = counting(&group);
        assert_eq!(after(2, &count).await, 4);
        group.kill();
        assert_eq!(after(60, &count).await, 4);
        let late = counting(&group);
        assert_eq!(after(60, &late).await, 0, "nothing of it begins any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_was_paused_goes_on_where_it_stood() {
        let (group, other) = (Group::new(1), Group::new(2));
        let (count, undisturbed) = (counting(&group), counting(&other));
        assert_eq!(after(2, &count).await, 4);
        group.pause();
        assert_eq!(after(60, &count).await, 4);
        group.resume();
        assert_eq!(after(2, &count).await, 4 + 2 + 4, "the sleeps that had ended, and two more");
        assert_eq!(undisturbed.load(Ordering::Relaxed), 2 * 65);
    }

    #[tokio::test]
    async fn work_that_blocks_stays_on_the_thread_of_a_group_and_leaves_it_otherwise() {
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        let inside = Group::new(1).spawn(async move { blocking(thread).await });
        assert_eq!(inside.await.expect("a task").expect("the work"), here);
        assert_ne!(blocking(thread).await.expect("the work"), here);
    }
}
