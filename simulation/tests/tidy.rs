//! Habits of the source that a machine can hold: sizes, stubs, and who may call what.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is two things.
const FILE_LINES_MAX: usize = 700;
/// A function longer than this hides something.
const FUNCTION_LINES_MAX: usize = 70;
/// The model is read beside the paper, top to bottom.
const LONG_FILES: [&str; 1] = ["node/diffusion/src/transformer.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").into()
}

fn sources_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("a folder of the workspace can be read");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources_below(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in ["proto", "node", "client", "simulation"] {
        sources_below(&root().join(folder), &mut paths);
    }
    assert!(paths.len() > 30, "the walk finds the sources");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source is UTF-8");
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            (name, text)
        })
        .collect()
}

/// First line and length of each function with a body, of a file that rustfmt has laid out.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let mut words = body.split_whitespace();
        let qualifier = |word: &&str| {
            word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(word)
        };
        let is_function = words.find(|word| !qualifier(word)) == Some("fn");
        let mut head = lines[start..].iter().map(|line| line.trim_end());
        let declared = head.find(|line| line.ends_with('{') || line.ends_with(';'));
        if !is_function || declared.is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - body.len()]);
        let length = lines[start..].iter().position(|l| *l == end).map_or(1, |n| n + 1);
        found.push((start + 1, length));
    }
    found
}

#[test]
fn functions_are_found_and_measured() {
    let text = "struct A {\n    f: fn() -> u8,\n}\ntrait B {\n    fn c(\n        &self,\n    );\n}\n\
                pub async fn d() {\n    e();\n}\n";
    assert_eq!(functions(text), [(9, 3)]);
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        for (line, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{name}:{line} has {length} lines"));
            }
        }
    }
    assert!(long.is_empty(), "functions above {FUNCTION_LINES_MAX} lines: {long:#?}");
}

#[test]
fn no_file_is_two_things() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(name, _)| !LONG_FILES.contains(&name.as_str()))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "files above {FILE_LINES_MAX} lines: {long:?}");
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_skipped() {
    // Written apart, so that this file is not found by its own search.
    let marks =
        [["to", "do!("], ["unimple", "mented!("], ["#[ig", "nore"], ["TO", "DO"], ["FIX", "ME"]];
    for (name, text) in sources() {
        for mark in &marks {
            assert!(!text.contains(&mark.concat()), "{name} holds {}", mark.concat());
        }
    }
}

#[test]
fn only_the_applier_applies_and_only_raft_knows_openraft() {
    for (name, text) in sources() {
        let product = (name.starts_with("node/peer/src") || name.starts_with("node/src"))
            && !name.contains("test");
        if product && name != "node/peer/src/raft/apply.rs" {
            assert!(!text.contains(".apply(index"), "{name} applies commands; raft/apply.rs does");
        }
        // The daemon names its modules in a log filter; it has no edge to it.
        if name.starts_with("node/peer/src") && !name.starts_with("node/peer/src/raft") {
            let uses = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!uses.clone().any(|l| l.contains("openraft::")), "{name} reaches openraft");
        }
    }
}

#[test]
fn unsafe_stays_in_the_engine() {
    let libraries = ["proto", "node/state", "node/peer", "client", "simulation"];
    let libraries = libraries.map(|krate| format!("{krate}/src/lib.rs"));
    let programs = ["node", "client", "simulation"].map(|krate| format!("{krate}/src/main.rs"));
    for file in libraries.into_iter().chain(programs) {
        let text = fs::read_to_string(root().join(&file)).expect("a crate root");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file} does not forbid unsafe");
    }
}
