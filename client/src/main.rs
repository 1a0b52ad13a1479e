//! The command line `atelier`: speaks with a cluster, or starts a small one to try.
//!
//! ```text
//!   args ──► cli::run ──► generate │ job │ status │ member │ demo │ bench ──► atelier_client ──► any peer
//!                │            └── progress, timeline, files                 ▲
//!                │            └── demo: atelierd × 3 ───────────────────────┘
//!                └── output (text, TSV or JSON) on stdout, failure (what, why, hint) on stderr
//! ```

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

const _: () = assert!(!atelier_client::mutants::ARE_IN, "what ships has no planted bugs");

fn main() -> ExitCode {
    cli::run()
}
