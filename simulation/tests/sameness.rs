//! The same seed in two processes gives the same run, and no run asks the system for time or chance.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seeds of each rig.
const SEEDS: u64 = 20;
/// Readings of the clock that a world may cost: its runtime looks at one when it is made, and virtual time
/// goes on from there. A world makes thousands of events.
const CLOCKS_MAX: u64 = 8;

struct Hashes {
    lines: Vec<String>,
    entropy: u64,
    clocks: u64,
}

/// Compiles the library that counts what is asked of the system.
fn witness(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sameness/witness.c");
    let library = folder.join("witness.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("cc runs: it links this test too");
    assert!(built.success());
    library
}

/// Runs seeds in a process of their own, under the eyes of the witness.
fn hashes(folder: &Path, rig: &str, (from, seeds): (u64, u64)) -> Hashes {
    let told = folder.join(format!("{rig}-{from}-{seeds}"));
    let output = Command::new(env!("CARGO_BIN_EXE_atelier-simulation"))
        .args(["hash", "--rig", rig, "--from", &from.to_string()])
        .args(["--seeds", &seeds.to_string()])
        .env("LD_PRELOAD", folder.join("witness.so"))
        .env("WITNESS", &told)
        .output()
        .expect("the simulation runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let told = std::fs::read_to_string(told).expect("the witness has told something");
    let (entropy, clocks) = told.trim().split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse().expect("a number");
    Hashes {
        lines: text.lines().map(str::to_owned).collect(),
        entropy: number(entropy),
        clocks: number(clocks),
    }
}

fn check(rig: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    witness(folder.path());
    let few = hashes(folder.path(), rig, (SEEDS, 1));
    let all = || hashes(folder.path(), rig, (1, SEEDS));
    let (first, second) = (all(), all());
    assert_eq!(first.lines, second.lines, "the same seeds, another run");
    assert_eq!(first.lines.len() as u64, SEEDS);
    assert_eq!(few.lines.last(), first.lines.last(), "a seed's run depends on what ran before it");
    let distinct: BTreeSet<_> = first.lines.iter().collect();
    assert_eq!(distinct.len() as u64, SEEDS, "every seed has a run of its own");
    println!(
        "{rig}: start-up and one world: {} of entropy, {} of clocks; {SEEDS} worlds: {}, {}",
        few.entropy, few.clocks, first.entropy, first.clocks
    );
    assert!(few.clocks + few.entropy > 0, "the witness sees what a process asks for at its start");
    assert_eq!(few.entropy, first.entropy, "{rig}: worlds ask the system for chance");
    let clocks = first.clocks - few.clocks;
    assert!(
        clocks <= CLOCKS_MAX * (SEEDS - 1),
        "{rig}: {clocks} readings of a real clock by {} worlds",
        SEEDS - 1
    );
}

#[test]
fn a_seed_of_the_core_rig_is_the_same_run_in_another_process() {
    check("core");
}

#[test]
fn a_seed_of_the_cluster_rig_is_the_same_run_in_another_process() {
    check("cluster");
}
