//! The order in which jobs are served: priority first, then acceptance.

use crate::job::{Job, JobId};
use imbl::OrdMap;
use std::cmp::Reverse;

/// A job's place. It follows from what was accepted and never changes, so a job that comes back
/// finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// 9 is served first.
    pub(crate) priority: Reverse<u8>,
    /// Among equals, who came first.
    pub(crate) sequence: u64,
}

/// The jobs that wait. Clones share their structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    jobs: OrdMap<Place, JobId>,
    // How many wait in each block of `BLOCK` neighbouring sequences: `rank` counts blocks, then
    // walks one.
    blocks: OrdMap<Place, usize>,
}

const BLOCK: u64 = 256;

impl Place {
    /// Returns the place of a job.
    pub(crate) fn of(job: &Job) -> Place {
        Place { priority: Reverse(job.submit.priority), sequence: job.sequence }
    }

    fn block(self) -> Place {
        Place { priority: self.priority, sequence: self.sequence / BLOCK * BLOCK }
    }
}

impl Queue {
    /// Counts the jobs that wait.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Walks the jobs in serving order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Place, &JobId)> {
        self.jobs.iter()
    }

    /// Returns the job at a place.
    pub(crate) fn at(&self, place: Place) -> Option<JobId> {
        self.jobs.get(&place).copied()
    }

    /// Counts the jobs that are served before a place.
    ///
    /// Its cost is one step for each block of 256 neighbours before the place, and at most 256
    /// more.
    pub(crate) fn rank(&self, place: Place) -> usize {
        let block = place.block();
        let before: usize = self.blocks.range(..block).map(|(_, count)| count).sum();
        let rank = before + self.jobs.range(block..place).count();
        assert!(rank <= self.jobs.len());
        rank
    }

    pub(crate) fn insert(&mut self, place: Place, job: JobId) {
        if self.jobs.insert(place, job).is_none() {
            *self.blocks.entry(place.block()).or_insert(0) += 1;
        }
    }

    pub(crate) fn remove(&mut self, place: Place) {
        let job = self.jobs.remove(&place);
        assert!(job.is_some(), "a queued job has its place in the queue");
        let count = self.blocks.get_mut(&place.block()).expect("a waiting job is counted");
        assert!(*count > 0);
        *count -= 1;
        if *count == 0 {
            self.blocks.remove(&place.block());
        }
    }

    /// Says whether the counts agree with the jobs; for the audit.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut blocks = OrdMap::new();
        for place in self.jobs.keys() {
            *blocks.entry(place.block()).or_insert(0) += 1;
        }
        blocks == self.blocks
    }
}
