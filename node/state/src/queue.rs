//! The order in which jobs are served.
//!
//! Inside a priority jobs go by their start tags, then by acceptance. Among the priorities the head
//! of each competes: a job of priority p is *due* once (9 - p) × ageing leases were granted since
//! it was accepted. Those that are due go first, in the order of acceptance; the others by how soon
//! they will be, the higher priority among equals. So with ageing a job at the head of its priority
//! is overtaken by at most (9 - p) × ageing jobs that came later, and without it priorities are
//! strict. Tags, stamps and the count of leases are part of the state: a new leader serves in the
//! same order.

use crate::fair::PRIORITIES;
use crate::job::{Job, JobId};
use crate::limits::PRIORITY_MAX;
use imbl::{OrdMap, OrdSet};
use std::cmp::Reverse;

/// A job's place among those of its priority. It follows from what was accepted and never changes,
/// so a job that comes back finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// 9 comes first.
    pub(crate) priority: Reverse<u8>,
    /// The start in the fair share.
    pub(crate) tag: u64,
    /// Among equals, who came first.
    pub(crate) sequence: u64,
}

/// What is kept of a job that waits for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) job: JobId,
    pub(crate) stamp: u64,
}

/// How far ageing goes at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ageing {
    /// Leases granted, ever.
    pub(crate) assigned: u64,
    /// Leases after which a job counts as one of the next priority; 0: never.
    pub(crate) jobs: u64,
}

/// Neighbours that are counted together: `rank` counts blocks, then walks one.
#[derive(Clone, Copy, Debug)]
struct Block {
    jobs: usize,
    // Of the job that began it.
    stamp: u64,
}

/// The jobs that wait: for a slot, or for the end of their back-off. Clones share their structure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    jobs: OrdMap<Place, Waiting>,
    // By the place that they begin at; where they begin depends on the past and is no truth.
    blocks: OrdMap<Place, Block>,
    delayed: OrdSet<(u64, JobId)>,
    // All of both, by acceptance.
    arrivals: OrdMap<(Reverse<u8>, u64), JobId>,
    counts: [usize; PRIORITIES],
}

/// A block with more jobs is split into two.
const BLOCK_JOBS_MAX: usize = 512;
/// A block with fewer jobs is joined with the next where both have at most twice as many.
const BLOCK_JOBS_MIN: usize = 128;

const _: () = assert!(4 * BLOCK_JOBS_MIN <= BLOCK_JOBS_MAX);

/// A rank up to here is exact; beyond, what other priorities have before a job is counted in
/// blocks.
const RANK_EXACT: usize = 256;

impl PartialEq for Queue {
    fn eq(&self, other: &Queue) -> bool {
        self.jobs == other.jobs
            && self.delayed == other.delayed
            && self.arrivals == other.arrivals
            && self.counts == other.counts
    }
}

impl Eq for Queue {}

impl Place {
    /// Returns the place of a job.
    pub(crate) fn of(job: &Job) -> Place {
        let Job { submit, tag, sequence, .. } = job;
        Place { priority: Reverse(submit.priority), tag: *tag, sequence: *sequence }
    }

    fn first(priority: Reverse<u8>) -> Place {
        Place { priority, tag: 0, sequence: 0 }
    }

    fn last(priority: Reverse<u8>) -> Place {
        Place { priority, tag: u64::MAX, sequence: u64::MAX }
    }
}

/// When the head of a priority is served, compared with other heads: the least goes first.
fn turn(place: Place, stamp: u64, ageing: Ageing) -> (u64, u64) {
    let below = u64::from(PRIORITY_MAX - place.priority.0);
    if ageing.jobs == 0 {
        return (below, 0);
    }
    let due = stamp.saturating_add(below.saturating_mul(ageing.jobs));
    if due <= ageing.assigned { (ageing.assigned, place.sequence) } else { (due, below) }
}

impl Queue {
    /// Counts the jobs that wait, for a slot or for the end of their back-off.
    pub(crate) fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Counts the jobs that wait for the end of their back-off.
    pub(crate) fn delayed_len(&self) -> usize {
        self.delayed.len()
    }

    /// Counts the jobs of a priority.
    pub(crate) fn len_of(&self, priority: u8) -> usize {
        self.counts[usize::from(priority)]
    }

    /// Returns the job of a priority that was accepted first.
    pub(crate) fn oldest_of(&self, priority: u8) -> Option<JobId> {
        let class = (Reverse(priority), 0)..=(Reverse(priority), u64::MAX);
        self.arrivals.range(class).next().map(|(_, job)| *job)
    }

    /// Walks the jobs that wait for a slot, in serving order.
    pub(crate) fn serving(&self, mut ageing: Ageing) -> impl Iterator<Item = JobId> {
        let waiting = (0..=PRIORITY_MAX).rev().filter(|priority| self.len_of(*priority) > 0);
        let mut classes: Vec<_> =
            waiting.map(|priority| self.class(Reverse(priority)).peekable()).collect();
        std::iter::from_fn(move || {
            let heads = classes.iter_mut().enumerate().filter_map(|(at, class)| {
                class.peek().map(|(place, it)| (turn(**place, it.stamp, ageing), at))
            });
            let (_, at) = heads.min()?;
            // Each that is served makes the others older.
            ageing.assigned += 1;
            classes[at].next().map(|(_, waiting)| waiting.job)
        })
    }

    /// Walks the jobs that wait for the end of their back-off, the earliest first.
    pub(crate) fn delayed(&self) -> impl Iterator<Item = (JobId, u64)> {
        self.delayed.iter().map(|(retry_at_ms, job)| (*job, *retry_at_ms))
    }

    /// Counts the jobs that are served before one that waits for a slot.
    ///
    /// Exact up to `RANK_EXACT`. Beyond, it ignores that jobs age while they wait, and is off by at
    /// most a block for each other priority. Its cost is a step for each of those, for each block,
    /// and for the jobs of one block: some hundreds with a hundred thousand jobs.
    pub(crate) fn rank(&self, job: &Job, ageing: Ageing) -> usize {
        let near = self.serving(ageing).take(RANK_EXACT).position(|it| it == job.id());
        near.unwrap_or_else(|| self.rank_far(job, ageing).max(RANK_EXACT))
    }

    fn rank_far(&self, job: &Job, ageing: Ageing) -> usize {
        let own = Place::of(job);
        let mine = turn(own, job.stamp, ageing);
        let mut rank = 0;
        let mut begin = None;
        for (place, block) in &self.blocks {
            if place.priority != own.priority {
                let is_before = turn(*place, block.stamp, ageing) < mine;
                rank += if is_before { block.jobs } else { 0 };
            } else if *place <= own {
                // All blocks of its own priority up to its block, which is walked below.
                rank += begin.replace((*place, block.jobs)).map_or(0, |(_, jobs)| jobs);
            }
        }
        let begin = begin.map_or(own, |(place, _)| place);
        (rank + self.jobs.range(begin..own).count()).min(self.jobs.len().saturating_sub(1))
    }

    fn class(&self, priority: Reverse<u8>) -> impl Iterator<Item = (&Place, &Waiting)> {
        self.jobs.range(Place::first(priority)..=Place::last(priority))
    }

    /// Adds a job. That its place is free is the caller's to know; in a snapshot the audit finds it.
    pub(crate) fn insert(&mut self, job: &Job) {
        let place = Place::of(job);
        self.arrivals.insert((place.priority, place.sequence), job.id());
        self.counts[usize::from(place.priority.0)] += 1;
        if job.is_delayed() {
            self.delayed.insert((job.retry_at_ms, job.id()));
        } else {
            let waiting = Waiting { job: job.id(), stamp: job.stamp };
            if self.jobs.insert(place, waiting).is_none() {
                self.count_in(place, job.stamp);
            }
        }
    }

    pub(crate) fn remove(&mut self, job: &Job) {
        let place = Place::of(job);
        let arrival = self.arrivals.remove(&(place.priority, place.sequence));
        assert_eq!(arrival, Some(job.id()), "a queued job is among the arrivals");
        self.counts[usize::from(place.priority.0)] -= 1;
        if job.is_delayed() {
            let entry = self.delayed.remove(&(job.retry_at_ms, job.id()));
            assert!(entry.is_some(), "a delayed job is among the delayed");
        } else {
            let waiting = self.jobs.remove(&place);
            assert!(waiting.is_some(), "a queued job has its place in the queue");
            self.count_out(place);
        }
    }

    /// Finds the block that a place belongs to: the last that begins at or before it.
    fn block_of(&self, place: Place) -> Option<(Place, Block)> {
        let first = Place::first(place.priority);
        let before = self.blocks.range(first..=place).next_back();
        before.map(|(begin, block)| (*begin, *block))
    }

    fn count_in(&mut self, place: Place, stamp: u64) {
        let (begin, mut block) = match self.block_of(place) {
            Some(found) => found,
            // Before all others of its priority: their first block begins here now.
            None => {
                let last = Place::last(place.priority);
                let next = self.blocks.range(place..=last).next().map(|(at, it)| (*at, *it));
                if let Some((at, _)) = next {
                    self.blocks.remove(&at);
                }
                let jobs = next.map_or(0, |(_, block)| block.jobs);
                (place, Block { jobs, stamp })
            }
        };
        block.jobs += 1;
        if block.jobs > BLOCK_JOBS_MAX {
            let half = block.jobs / 2;
            let middle = self.jobs.range(begin..).nth(half).expect("the block has more jobs");
            let upper = Block { jobs: block.jobs - half, stamp: middle.1.stamp };
            self.blocks.insert(*middle.0, upper);
            block.jobs = half;
        }
        self.blocks.insert(begin, block);
    }

    fn count_out(&mut self, place: Place) {
        let (begin, mut block) = self.block_of(place).expect("a waiting job is counted");
        assert!(block.jobs > 0);
        block.jobs -= 1;
        if block.jobs < BLOCK_JOBS_MIN {
            let last = Place::last(place.priority);
            let others = self.blocks.range(begin..=last).nth(1).map(|(at, it)| (*at, *it));
            if let Some((at, next)) = others
                && block.jobs + next.jobs <= 2 * BLOCK_JOBS_MIN
            {
                self.blocks.remove(&at);
                block.jobs += next.jobs;
            }
        }
        if block.jobs == 0 {
            self.blocks.remove(&begin);
        } else {
            self.blocks.insert(begin, block);
        }
    }

    /// Returns the job at a place; for the audit.
    pub(crate) fn at(&self, place: Place) -> Option<Waiting> {
        self.jobs.get(&place).copied()
    }

    /// Says whether a job waits for the end of its back-off; for the audit.
    pub(crate) fn is_delayed(&self, job: &Job) -> bool {
        self.delayed.contains(&(job.retry_at_ms, job.id()))
    }

    /// Says whether the counts agree with the jobs; for the audit.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut left = self.jobs.keys().peekable();
        let mut begins = self.blocks.iter().peekable();
        while let Some((begin, block)) = begins.next() {
            let end = begins.peek().map(|(place, _)| **place);
            let mut jobs = 0;
            while let Some(place) = left.next_if(|place| end.is_none_or(|end| **place < end)) {
                if *place < *begin || place.priority != begin.priority {
                    return false;
                }
                jobs += 1;
            }
            if jobs != block.jobs || jobs == 0 {
                return false;
            }
        }
        let counted: usize = self.counts.iter().sum();
        left.next().is_none()
            && self.jobs.len() + self.delayed.len() == self.arrivals.len()
            && counted == self.arrivals.len()
    }
}
