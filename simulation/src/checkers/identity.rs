//! A job that is new has the id that it was submitted under: only so is a repeat the same job.

use crate::operations::{Answer, Call, Key, Operation};

/// Looks at every submission.
///
/// # Errors
/// Says which one was told of another job than it asked for, though that one was new.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let submissions = history.iter().filter(|it| matches!(it.call, Call::Submit { .. }));
    for operation in submissions {
        let Some(Answer::Submitted { job, duplicate: false }) = operation.answer() else {
            continue;
        };
        if operation.key != Key::Job(*job) {
            let asked = operation.key;
            return Err(format!("{asked} was submitted, and the new job {job} came of it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::{Outcome, Recorder};

    /// One submission of job 1, and the job that was told.
    fn told(job: u64, duplicate: bool) -> Result<(), String> {
        let mut recorder = Recorder::default();
        let call = Call::Submit { key: None, attempts_max: 1 };
        let ticket = recorder.call(0, 1, Key::Job(1), call);
        let answer = Answer::Submitted { job, duplicate };
        recorder.returns(1, ticket, Outcome::Ok { answer, index: Some(1) });
        check(recorder.operations())
    }

    #[test]
    fn a_new_job_under_another_id_is_found_and_a_repeat_may_name_the_first() {
        assert_eq!((told(1, false), told(1, true), told(7, true)), (Ok(()), Ok(()), Ok(())));
        assert!(told(7, false).is_err());
    }
}
