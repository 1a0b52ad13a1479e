//! The catalogue of planted bugs is whole, and nothing that ships can have one.

use atelier_simulation::mutants::CATALOGUE;
use cargo_metadata::MetadataCommand;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_bug_has_a_row_that_says_what_it_models() {
    assert!(CATALOGUE.len() >= 24);
    let names: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
    let models: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.models).collect();
    assert_eq!((names.len(), models.len()), (CATALOGUE.len(), CATALOGUE.len()));
    let bugs: BTreeSet<_> = CATALOGUE.iter().map(|entry| format!("{:?}", entry.bug)).collect();
    assert_eq!(bugs.len(), CATALOGUE.len(), "each is planted once");
    let text = read("node/state/src/mutants.rs");
    let (_, listed) = text.split_once("pub enum Mutant {").expect("the bugs are an enum");
    let (listed, _) = listed.split_once('}').expect("it ends");
    let listed = listed.lines().filter(|line| line.trim_end().ends_with(',')).count();
    let rows = bugs.iter().filter(|bug| bug.starts_with("Product")).count();
    assert_eq!(listed, rows, "a bug that has no row is never hunted");
}

#[test]
fn nothing_that_ships_can_have_a_planted_bug() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec();
    let metadata = metadata.expect("cargo metadata reads the workspace");
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let asks = |features: &[String]| features.iter().any(|it| it.contains("mutants"));
        for dependency in &package.dependencies {
            assert!(!asks(&dependency.features), "{name} asks {} for bugs", dependency.name);
        }
        for (feature, parts) in &package.features {
            let may = feature == "mutants" && name != "atelier-node";
            assert!(may || !asks(parts), "the feature {feature} of {name} brings bugs");
            assert!(may || feature != "mutants", "{name} has the feature");
        }
    }
    // Whatever is asked for on the command line: both programs refuse to be compiled.
    assert!(read("node/src/main.rs").contains("const _: () = assert!(!atelier_peer::MUTANTS"));
    let client = "const _: () = assert!(!atelier_client::mutants::ARE_IN";
    assert!(read("client/src/main.rs").contains(client));
}
