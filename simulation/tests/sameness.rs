//! The same seed in two processes gives the same run, and no run asks the system for time or chance.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Seeds of each rig.
const SEEDS: u64 = 20;

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

/// Runs seeds in a process of their own, under the eyes of the witness; where it hurries, clocks run faster.
fn hashes(folder: &Path, rig: &str, (from, seeds): (u64, u64), hurries: bool) -> Hashes {
    let told = folder.join(format!("{rig}-{from}-{hurries}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_atelier-simulation"));
    if hurries {
        command.env("HURRY", "yes");
    }
    let output = command
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
    let (entropy, clocks) = (number(entropy), number(clocks));
    Hashes { lines: text.lines().map(str::to_owned).collect(), entropy, clocks }
}

/// Runs the same seeds in two processes whose clocks disagree; what one and what many worlds ask for.
fn check(rig: &str) -> (Hashes, Hashes) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    witness(folder.path());
    let first = hashes(folder.path(), rig, (1, SEEDS), false);
    let second = hashes(folder.path(), rig, (1, SEEDS), true);
    let last = hashes(folder.path(), rig, (SEEDS, 1), false);
    assert_eq!(first.lines, second.lines, "the same seeds, another run");
    assert_eq!(first.lines.len() as u64, SEEDS);
    assert_eq!(last.lines.last(), first.lines.last(), "it depends on what ran before");
    let distinct: BTreeSet<_> = first.lines.iter().collect();
    assert_eq!(distinct.len() as u64, SEEDS, "every seed has a run of its own");
    for (count, it) in [(1, &last), (SEEDS, &first), (SEEDS, &second)] {
        let Hashes { entropy, clocks, .. } = it;
        println!("{rig}, {count} worlds: {entropy} of entropy, {clocks} of clocks");
    }
    assert_eq!(last.entropy, first.entropy, "{rig}: worlds ask the system for chance");
    (last, first)
}

#[test]
fn a_seed_of_the_core_rig_is_the_same_run_in_another_process() {
    let (one, many) = check("core");
    assert_eq!((one.clocks, many.clocks), (0, 0), "the core rig looks at a real clock");
}

#[test]
fn a_seed_of_the_cluster_rig_is_the_same_run_in_another_process() {
    let (one, _) = check("cluster");
    // Its runtime counts for how long it was busy; and each process draws the keys of its hash maps.
    assert!(one.clocks > 0 && one.entropy > 0, "the witness sees what is asked for");
}
