//! The house rules of the workspace: dependencies point one way, `core` stays pure, and Raft's library stays in its
//! folder. Reads the manifests and the sources; a new crate has to be given its place here first.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A crate of the workspace and the crates of the workspace it may build on.
const PLACES: [(&str, &[&str]); 9] = [
    ("unanimo-core", &[]),
    // Compiles in seconds, and stays so: no driver, no wire, no disk.
    ("unanimo-simulation", &["unanimo-core"]),
    ("unanimo-journal", &[]),
    ("unanimo-table", &[]),
    ("unanimo-proto", &["unanimo-core"]),
    ("unanimo-client", &["unanimo-core", "unanimo-proto"]),
    (
        "unanimo-coordinator",
        &[
            "unanimo-core",
            "unanimo-journal",
            "unanimo-proto",
            "unanimo-table",
        ],
    ),
    (
        "unanimo-participant",
        &[
            "unanimo-client",
            "unanimo-core",
            "unanimo-journal",
            "unanimo-proto",
            "unanimo-table",
        ],
    ),
    (
        "unanimo-testkit",
        &[
            "unanimo-core",
            "unanimo-journal",
            "unanimo-participant",
            "unanimo-proto",
            "unanimo-table",
        ],
    ),
];

/// Folders whose crates stand on top and may use everything.
const ON_TOP: [&str; 4] = ["examples", "full-stack", "jepsen-style-tests", "bench"];

/// The only crates from outside that `core` may build on. None of them has a clock, IO or randomness.
const CORE_BUILDS_ON: [&str; 3] = ["bytes", "sha2", "thiserror"];

/// What the code of `core` must not name: inputs and the time are arguments, effects are values, and maps iterate in
/// an order that replays repeat.
const CORE_NEVER_NAMES: [&str; 17] = [
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "env",
    "fs",
    "io",
    "net",
    "openraft",
    "prost",
    "rand",
    "sled",
    "thread",
    "tokio",
    "tonic",
    "tracing",
    "uuid",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "misc", "shared", "util", "utils"];

/// The one folder that knows Raft's library.
const RAFT_FOLDER: &str = "coordinator/src/raft/";

/// What is known of one crate.
struct Crate {
    /// Below the root, for example `examples/bank-transfer`.
    folder: String,
    name: String,
    /// Needed to build it.
    dependencies: Vec<String>,
    /// Needed to test it.
    test_dependencies: Vec<String>,
    /// Path below the root, and text.
    sources: Vec<(String, String)>,
}

/// Everything that breaks a house rule.
fn violations(crates: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    for one in crates {
        found.extend(wrong_name(one));
        found.extend(wrong_edges(one, crates));
        if one.name == "unanimo-core" {
            found.extend(impure(one));
        }
        found.extend(raft_outside(one));
    }
    found
}

fn wrong_name(one: &Crate) -> Option<String> {
    let last = one.name.rsplit('-').next().unwrap_or(&one.name);
    let folder = one.folder.rsplit('/').next().unwrap_or(&one.folder);
    let empty = EMPTY_NAMES.contains(&last) || EMPTY_NAMES.contains(&folder);
    empty.then(|| format!("{}: a crate is named after what it is for", one.name))
}

fn wrong_edges(one: &Crate, crates: &[Crate]) -> Vec<String> {
    let top = one.folder.split('/').next().unwrap_or(&one.folder);
    if ON_TOP.contains(&top) {
        return Vec::new();
    }
    let Some((_, allowed)) = PLACES.iter().find(|(name, _)| *name == one.name) else {
        return vec![format!("{}: give it its place in the layering first", one.name)];
    };
    let ours = |name: &&String| crates.iter().any(|other| other.name == **name);
    let all = one.dependencies.iter().chain(&one.test_dependencies);
    let wrong = all.filter(ours).filter(|name| !allowed.contains(&name.as_str()));
    wrong
        .map(|name| format!("{} must not depend on {name}", one.name))
        .collect()
}

fn impure(core: &Crate) -> Vec<String> {
    let strange = core
        .dependencies
        .iter()
        .filter(|name| !CORE_BUILDS_ON.contains(&name.as_str()));
    let mut found: Vec<String> = strange
        .map(|name| format!("unanimo-core must not depend on {name}"))
        .collect();
    for (path, text) in core
        .sources
        .iter()
        .filter(|(path, _)| path.starts_with("core/src/"))
    {
        for word in CORE_NEVER_NAMES.iter().filter(|word| names(text, word)) {
            found.push(format!("{path} names {word}"));
        }
    }
    found
}

fn raft_outside(one: &Crate) -> Vec<String> {
    let depends = one
        .dependencies
        .iter()
        .chain(&one.test_dependencies)
        .any(|name| name == "openraft");
    let mut found = Vec::new();
    if depends && one.name != "unanimo-coordinator" {
        found.push(format!("{} must not depend on openraft", one.name));
    }
    for (path, text) in &one.sources {
        if !path.starts_with(RAFT_FOLDER) && names(text, "openraft") {
            found.push(format!("{path} names openraft, which only {RAFT_FOLDER} may"));
        }
    }
    found
}

/// Whether the word stands anywhere outside comments and texts: what is not code depends on nothing.
fn names(text: &str, word: &str) -> bool {
    let without_texts = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let code = text.lines().map(without_texts);
    let code: Vec<String> = code
        .map(|line| line.split("//").next().unwrap_or_default().to_owned())
        .collect();
    let mut words = code
        .iter()
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.any(|other| other == word)
}

/// The crates of this workspace as they are on disk.
fn workspace() -> Vec<Crate> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = read_toml(&root.join("Cargo.toml"));
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|folder| read_crate(&root, folder.as_str().unwrap()))
        .collect()
}

fn read_toml(path: &Path) -> toml::Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn read_crate(root: &Path, folder: &str) -> Crate {
    let manifest = read_toml(&root.join(folder).join("Cargo.toml"));
    let mut paths = Vec::new();
    collect_sources(&root.join(folder), &mut paths);
    let source = |path: PathBuf| {
        let below = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        (below, fs::read_to_string(path).unwrap())
    };
    // This file has to spell out what it forbids.
    let sources = paths
        .into_iter()
        .map(source)
        .filter(|(path, _)| path != "core/tests/layering.rs");
    let mut dependencies = names_in(&manifest, "dependencies");
    dependencies.extend(names_in(&manifest, "build-dependencies"));
    Crate {
        folder: folder.to_owned(),
        name: manifest["package"]["name"].as_str().unwrap().to_owned(),
        dependencies,
        test_dependencies: names_in(&manifest, "dev-dependencies"),
        sources: sources.collect(),
    }
}

/// The packages of one kind of dependency, those of single platforms included.
fn names_in(manifest: &toml::Table, kind: &str) -> Vec<String> {
    let platforms = manifest.get("target").and_then(|targets| targets.as_table());
    let platforms = platforms.into_iter().flat_map(|targets| targets.values());
    let tables = manifest
        .get(kind)
        .into_iter()
        .chain(platforms.filter_map(|platform| platform.get(kind)));
    let entries = tables.filter_map(|table| table.as_table()).flatten();
    // A renamed dependency counts under its own name.
    let package = |(name, entry): (&String, &toml::Value)| {
        let renamed = entry.get("package").and_then(|package| package.as_str());
        renamed.unwrap_or(name).to_owned()
    };
    entries.map(package).collect()
}

fn collect_sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect_sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_workspace_keeps_the_house_rules() {
    let crates = workspace();
    assert!(crates.len() >= PLACES.len(), "the manifests were found");
    assert!(
        crates.iter().all(|one| !one.sources.is_empty()),
        "the sources were found"
    );
    let found = violations(&crates);
    assert!(found.is_empty(), "{found:#?}");
}

fn made_up(folder: &str, name: &str, dependencies: &[&str], source: (&str, &str)) -> Crate {
    Crate {
        folder: folder.to_owned(),
        name: name.to_owned(),
        dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        test_dependencies: Vec::new(),
        sources: vec![(source.0.to_owned(), source.1.to_owned())],
    }
}

#[test]
fn every_house_rule_can_be_broken() {
    let fine = (
        "core/src/lib.rs",
        "use std::collections::BTreeMap; // a HashMap would not replay",
    );
    let cases = [
        (made_up("core", "unanimo-core", &["bytes"], fine), None),
        (
            made_up("core", "unanimo-core", &["tokio"], fine),
            Some("unanimo-core must not depend on tokio"),
        ),
        (
            made_up("core", "unanimo-core", &["unanimo-participant"], fine),
            Some("unanimo-core must not depend on unanimo-participant"),
        ),
        (
            made_up(
                "core",
                "unanimo-core",
                &[],
                ("core/src/id.rs", "use std::{fmt, fs};"),
            ),
            Some("core/src/id.rs names fs"),
        ),
        (
            made_up(
                "core",
                "unanimo-core",
                &[],
                ("core/src/id.rs", "std::time::Instant::now()"),
            ),
            Some("core/src/id.rs names Instant"),
        ),
        (
            made_up(
                "core",
                "unanimo-core",
                &[],
                ("core/src/id.rs", "let m: HashMap<u8, u8>;"),
            ),
            Some("core/src/id.rs names HashMap"),
        ),
        (
            made_up(
                "coordinator",
                "unanimo-coordinator",
                &["unanimo-participant"],
                ("x.rs", ""),
            ),
            Some("unanimo-coordinator must not depend on unanimo-participant"),
        ),
        (
            made_up(
                "participant",
                "unanimo-participant",
                &["unanimo-coordinator"],
                ("x.rs", ""),
            ),
            Some("unanimo-participant must not depend on unanimo-coordinator"),
        ),
        (
            made_up(
                "coordinator",
                "unanimo-coordinator",
                &[],
                ("coordinator/src/raft/a.rs", "openraft::Raft"),
            ),
            None,
        ),
        (
            made_up(
                "coordinator",
                "unanimo-coordinator",
                &[],
                ("coordinator/src/driver.rs", "openraft::Raft"),
            ),
            Some("coordinator/src/driver.rs names openraft, which only coordinator/src/raft/ may"),
        ),
        (
            made_up(
                "coordinator",
                "unanimo-coordinator",
                &[],
                (
                    "coordinator/src/main.rs",
                    "filter(\"openraft=warn\") // openraft is loud",
                ),
            ),
            None,
        ),
        (
            made_up("journal", "unanimo-journal", &["openraft"], ("x.rs", "")),
            Some("unanimo-journal must not depend on openraft"),
        ),
        (
            made_up(
                "examples/a",
                "a",
                &["unanimo-coordinator", "unanimo-participant"],
                ("x.rs", ""),
            ),
            None,
        ),
        (
            made_up("extra", "unanimo-extra", &[], ("x.rs", "")),
            Some("unanimo-extra: give it its place in the layering first"),
        ),
        (
            made_up("examples/utils", "bank-utils", &[], ("x.rs", "")),
            Some("bank-utils: a crate is named after what it is for"),
        ),
    ];
    for (one, expected) in cases {
        let name = one.name.clone();
        let mut crates = vec![one];
        for (other, _) in PLACES.iter().filter(|(other, _)| *other != name) {
            crates.push(made_up(other, other, &[], ("x.rs", "")));
        }
        let found = violations(&crates);
        match expected {
            None => assert_eq!(found, Vec::<String>::new()),
            Some(expected) => assert!(found.iter().any(|what| what == expected), "{expected}: {found:?}"),
        }
    }
}
