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
