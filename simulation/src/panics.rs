//! Panics of a run. A task that panics ends alone and the run goes on, so whoever judges must be told.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    // A run has one thread.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Notes panics from now on, beside whatever else is done with them.
pub fn watch() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let at = panic
                .location()
                .map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
            let text = panic.payload_as_str().unwrap_or("a panic without a text");
            let noted = SEEN.try_with(|seen| seen.borrow_mut().push(format!("{text}{at}")));
            if noted.is_err() || !IS_QUIET.load(Ordering::Relaxed) {
                before(panic);
            }
        }));
    });
}

/// Says whether panics are told at once too.
pub fn be_quiet(is_quiet: bool) {
    IS_QUIET.store(is_quiet, Ordering::Relaxed);
}

/// Hands over the panics of this thread since the last call.
pub fn take() -> Vec<String> {
    SEEN.with(RefCell::take)
}
