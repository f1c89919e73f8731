//! Planted bugs are in no program that is meant for use: only whoever asks for the feature `mutants` gets them. That the
//! `unanimo` program has none is shown by `coordinator/tests/mutants.rs`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

/// The feature, as manifests name it.
const FEATURE: &str = "mutants";

fn read_toml(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// What in a manifest gives the feature to somebody who has not asked for it.
fn leaks(manifest: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(features) = manifest.get("features").and_then(|features| features.as_table()) {
        for (name, enables) in features.iter().filter(|(name, _)| *name != FEATURE) {
            let enables = enables.as_array().unwrap().iter();
            let leaking = enables.filter(|enabled| enabled.as_str().unwrap().contains(FEATURE));
            found.extend(leaking.map(|enabled| format!("feature {name} enables {enabled}")));
        }
    }
    find_dependencies(manifest, &mut found);
    found
}

/// Looks through all tables of dependencies, wherever they are: of the workspace, of platforms, of tests.
fn find_dependencies(table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if !key.ends_with("dependencies") {
            find_dependencies(inner, found);
            continue;
        }
        for (name, entry) in inner {
            let enabled = entry.get("features").and_then(|features| features.as_array());
            let enabled = enabled.into_iter().flatten();
            if enabled
                .into_iter()
                .any(|feature| feature.as_str() == Some(FEATURE))
            {
                found.push(format!("{key} enables it in {name}"));
            }
        }
    }
}

#[test]
fn no_manifest_gives_planted_bugs_to_whoever_has_not_asked_for_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = read_toml(&root.join("Cargo.toml"));
    assert_eq!(leaks(&workspace), Vec::<String>::new());
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut with_feature = 0;
    for folder in members.iter().map(|folder| folder.as_str().unwrap()) {
        let manifest = read_toml(&root.join(folder).join("Cargo.toml"));
        assert_eq!(leaks(&manifest), Vec::<String>::new(), "{folder}");
        with_feature += usize::from(
            manifest
                .get("features")
                .is_some_and(|features| features.get(FEATURE).is_some()),
        );
    }
    assert!(with_feature >= 6, "the manifests were found");
}

#[test]
fn every_way_to_leak_is_seen() {
    let leaky = [
        "[features]\ndefault = ['mutants']\nmutants = []",
        "[features]\nfast = ['unanimo-core/mutants']",
        "[dependencies]\nunanimo-core = { path = '.', features = ['mutants'] }",
        "[dev-dependencies.unanimo-core]\nfeatures = ['mutants']",
        "[workspace.dependencies]\nunanimo-core = { path = '.', features = ['mutants'] }",
        "[target.'cfg(unix)'.dependencies]\nunanimo-core = { path = '.', features = ['mutants'] }",
    ];
    for text in leaky {
        assert_eq!(leaks(&text.parse().unwrap()).len(), 1, "{text}");
    }
    let tight = "[features]\nmutants = ['unanimo-core/mutants']\n[dependencies]\ntokio = { version = '1' }\nbytes = '1'";
    assert_eq!(leaks(&tight.parse().unwrap()), Vec::<String>::new());
}

#[cfg(not(feature = "mutants"))]
#[test]
fn without_the_feature_no_bug_is_on_whatever_the_program_does() {
    use unanimo_core::mutants::{Mutant, is_on};

    // Known when it is compiled, so that nothing of them is.
    const { assert!(!is_on(Mutant::M1) && !is_on(Mutant::M30)) };
}

#[cfg(feature = "mutants")]
#[test]
fn a_process_has_the_first_bug_that_it_is_given_and_no_other() {
    use unanimo_core::mutants::{Mutant, is_on, plant};

    assert!(Mutant::ALL.into_iter().all(|mutant| !is_on(mutant)));
    plant(Mutant::M4);
    plant(Mutant::M6);
    let on: Vec<_> = Mutant::ALL.into_iter().filter(|mutant| is_on(*mutant)).collect();
    assert_eq!(on, [Mutant::M4]);
    assert_eq!(Mutant::named("M4"), Some(Mutant::M4));
    assert_eq!(Mutant::named("M31"), None);
}
