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

fn main() -> ExitCode {
    cli::run()
}
