//! What one peer holds in memory: the newest checkpoint of each job, within bounds.

use super::Checkpoint;
use atelier_state::job::JobId;
use std::collections::BTreeMap;

/// Jobs whose checkpoint is held. Filled by the workers that send here: about one a slot of theirs.
/// At the brim the one that was renewed longest ago is dropped.
const CHECKPOINTS_MAX: usize = 256;
/// Bytes of all latents together; those of the largest picture are 4 MiB. At the brim as above.
const LATENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Checkpoints by their job.
#[derive(Debug, Default)]
pub(super) struct Held {
    checkpoints: BTreeMap<JobId, Entry>,
    // Of all entries.
    bytes: usize,
    // Counts what was put.
    puts: u64,
}

#[derive(Debug)]
struct Entry {
    checkpoint: Checkpoint,
    put: u64,
}

impl Held {
    /// Takes a checkpoint unless a newer one of its job is held.
    pub(super) fn put(&mut self, checkpoint: Checkpoint) {
        let job = checkpoint.job;
        let held = self.get(job);
        if held.is_some_and(|held| held.progress() > checkpoint.progress()) {
            return;
        }
        self.drop_one(job);
        self.puts += 1;
        self.bytes += checkpoint.point.latents.len();
        self.checkpoints.insert(job, Entry { checkpoint, put: self.puts });
        while self.checkpoints.len() > CHECKPOINTS_MAX || self.bytes > LATENT_BYTES_MAX {
            let oldest = self.checkpoints.iter().min_by_key(|(_, entry)| entry.put);
            let oldest = *oldest.expect("something fills the bounds").0;
            self.drop_one(oldest);
        }
    }

    pub(super) fn get(&self, job: JobId) -> Option<&Checkpoint> {
        self.checkpoints.get(&job).map(|entry| &entry.checkpoint)
    }

    /// Drops those that are not wanted; returns how many.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Checkpoint) -> bool) -> usize {
        let unwanted = self.checkpoints.values().filter(|entry| !wanted(&entry.checkpoint));
        let unwanted: Vec<JobId> = unwanted.map(|entry| entry.checkpoint.job).collect();
        unwanted.iter().for_each(|job| self.drop_one(*job));
        unwanted.len()
    }

    fn drop_one(&mut self, job: JobId) {
        if let Some(entry) = self.checkpoints.remove(&job) {
            self.bytes -= entry.checkpoint.point.latents.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::engine::Point;
    use atelier_state::job::Digest;
    use atelier_state::lease::FencingToken;

    fn checkpoint(job: u128, token: u64, image: u32, step: u32, bytes: usize) -> Checkpoint {
        Checkpoint {
            job: JobId(job),
            token: FencingToken(token),
            class: "class".to_owned(),
            order: Digest([0; 32]),
            point: Point { image, step, latents: vec![0; bytes].into() },
            pictures: Vec::new(),
        }
    }

    #[test]
    fn of_one_job_the_newest_lease_wins_and_then_the_furthest_step() {
        let mut held = Held::default();
        let check = |held: &mut Held, (token, image, step), expect| {
            held.put(checkpoint(1, token, image, step, 8));
            let (token, image, step) = expect;
            let progress = held.get(JobId(1)).expect("one is held").progress();
            assert_eq!(progress, (FencingToken(token), image, step));
            assert_eq!(held.bytes, 8);
        };
        check(&mut held, (5, 0, 7), (5, 0, 7));
        check(&mut held, (5, 0, 6), (5, 0, 7));
        check(&mut held, (5, 1, 0), (5, 1, 0));
        check(&mut held, (9, 0, 1), (9, 0, 1));
        check(&mut held, (5, 1, 3), (9, 0, 1));
    }

    #[test]
    fn at_the_brim_the_one_renewed_longest_ago_goes() {
        let mut held = Held::default();
        let quarter = LATENT_BYTES_MAX / 4;
        (1..=4).for_each(|job| held.put(checkpoint(job, 1, 0, 1, quarter)));
        held.put(checkpoint(1, 1, 0, 2, quarter));
        held.put(checkpoint(5, 1, 0, 1, 1));
        let jobs: Vec<u128> = held.checkpoints.keys().map(|job| job.0).collect();
        assert_eq!((jobs, held.bytes), (vec![1, 3, 4, 5], 3 * quarter + 1));

        let mut held = Held::default();
        (0..=CHECKPOINTS_MAX as u128).for_each(|job| held.put(checkpoint(job, 1, 0, 1, 1)));
        assert_eq!(held.checkpoints.len(), CHECKPOINTS_MAX);
        assert_eq!(held.get(JobId(0)), None);
        assert_eq!(held.retain(|held| held.job.0 < 3), CHECKPOINTS_MAX - 2);
        assert_eq!((held.checkpoints.len(), held.bytes), (2, 2));
    }
}
