//! S1 to S8 after every command, by the product's own audit.

use atelier_state::{Command, Reply, State, audit};

/// Checks one command and the state that it left.
///
/// # Errors
/// Which invariant is broken, and how.
pub fn check(
    before: &State,
    command: &Command,
    reply: &Reply,
    after: &State,
) -> Result<(), String> {
    let step = audit::check_step(before, command, reply, after);
    step.and_then(|()| audit::check(after)).map_err(|violation| violation.to_string())
}
