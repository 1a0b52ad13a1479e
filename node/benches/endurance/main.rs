//! What the queue does over time and under its greatest load, by three peers with an instant engine
//! on loopback: `make bench-endurance`.
//!
//! Each part writes its own section of `node/BENCH.md`. `ONLY=half-load,waiting` runs some of them.
//! `MINUTES`, `JOBS` and `ROUNDS` change how long they take; below what they are by default nothing
//! is written.

#[path = "../../../client/src/cli/bench/load.rs"]
#[allow(dead_code, unused_imports, reason = "its tests run with the command line")]
mod load;
#[path = "../queue/peer.rs"]
mod peer;
#[path = "../report/mod.rs"]
mod report;
#[path = "../../tests/support/mod.rs"]
mod support;

mod batch;
mod half_load;
mod hour;
mod pace;
mod queue;
mod retained;
mod sample;
mod waiting;

use std::path::Path;

use report::Report;
use support::Setup;
use tracing_subscriber::EnvFilter;

const PARTS: [&str; 5] = ["half-load", "waiting", "retained", "hour", "batch"];
/// Jobs that a peer holds at a time.
const SLOTS: u32 = 64;

/// As in the daemon, whose part this program plays too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "start") {
        // What `sample` counts.
        let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(sample::LOGGED));
        log.with_writer(std::io::stderr).with_ansi(false).init();
        return peer::run(Path::new(arguments.last().expect("the path of a configuration")));
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted: Vec<&str> = only.split(',').filter(|part| !part.is_empty()).collect();
    for part in &wanted {
        assert!(PARTS.contains(part), "ONLY={only}: expected some of {PARTS:?}, got `{part}`");
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for part in PARTS {
        if wanted.is_empty() || wanted.contains(&part) {
            println!("--- {part}");
            runtime.block_on(measure(part));
        }
    }
}

async fn measure(part: &str) {
    match part {
        "half-load" => half_load::measure().await,
        "waiting" => waiting::measure().await,
        "retained" => retained::measure().await,
        "hour" => hour::measure().await,
        "batch" => batch::measure().await,
        other => unreachable!("{other} is no part"),
    }
}

/// Three peers that draw at once.
fn instant() -> Setup {
    let program = std::env::current_exe().expect("this program's file");
    Setup { slots: SLOTS, program, ..Setup::default() }
}

/// A number from the environment, and whether it is less than a whole run takes.
fn extent(name: &str, whole: u64) -> (u64, bool) {
    let number = support::number(name, whole);
    (number, number < whole)
}

/// Writes a section, unless the run was a short one.
fn write(report: &Report, short: bool) {
    if short {
        println!("a short run; nothing is written");
    } else {
        report.write();
    }
}
