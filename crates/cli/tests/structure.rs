//! The house is as ARCHITECTURE.md draws it: who uses whom, where unsafe code lives, how long files are, and that
//! every plugin and filter is a file, a manual and a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const LONGEST: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The lines of the fenced block of this kind in ARCHITECTURE.md.
fn block(kind: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let fence = format!("```{kind}");
    let lines = text.lines().skip_while(|line| *line != fence).skip(1).take_while(|line| *line != "```");
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "ARCHITECTURE.md has no block {fence}");
    lines
}

/// Each crate with those it may use, lowest last.
fn picture() -> Vec<(String, BTreeSet<String>)> {
    let line = |line: &String| {
        let (name, uses) = line.split_once("->").expect("crate -> crates");
        (name.trim().to_owned(), uses.split_whitespace().map(str::to_owned).collect())
    };
    block("picture").iter().map(line).collect()
}

/// A package's name in the house: `diskpipe-disk` is `disk`, `diskpipe` itself `cli`.
fn house_name(package: &str) -> Option<String> {
    if package == "diskpipe" {
        Some("cli".into())
    } else {
        package.strip_prefix("diskpipe-").map(str::to_owned)
    }
}

/// What each crate of the house uses: in its code and build script, and in its tests.
type Edges = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn edges() -> Edges {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(name) = house_name(package["name"].as_str().expect("a name")) else { continue };
        let (uses, tests) = edges.entry(name).or_default();
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let Some(on) = house_name(dependency["name"].as_str().expect("a name")) else { continue };
            let kind = if dependency["kind"] == "dev" { &mut *tests } else { &mut *uses };
            kind.insert(on);
        }
    }
    edges
}

#[test]
fn crates_use_only_what_the_picture_allows() {
    let picture = picture();
    let names: Vec<&String> = picture.iter().map(|(name, _)| name).collect();
    let mut wrong = vec![];
    for (i, (name, uses)) in picture.iter().enumerate() {
        for upward in uses.iter().filter(|used| !names[i + 1..].contains(used)) {
            wrong.push(format!("the picture itself: {name} uses {upward}, which is on no lower line"));
        }
    }
    let edges = edges();
    for (name, (uses, tests)) in &edges {
        let Some((_, allowed)) = picture.iter().find(|(drawn, _)| drawn == name) else {
            wrong.push(format!("the crate {name} is not in the picture"));
            continue;
        };
        wrong.extend(uses.difference(allowed).map(|used| format!("{name} uses {used}")));
        let strange = tests.difference(allowed).filter(|used| *used != "conformance");
        wrong.extend(strange.map(|used| format!("the tests of {name} use {used}")));
        if uses.contains("conformance") {
            wrong.push(format!("{name} uses conformance outside its tests"));
        }
    }
    wrong.extend(
        names.iter().filter(|name| !edges.contains_key(**name)).map(|name| format!("{name} does not exist")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `cargo xtask test` installs what builds need; so it must itself build where nothing is installed yet.
#[test]
fn xtask_builds_on_a_bare_machine() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--package", "xtask", "--edges", "normal,build", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8_lossy(&out.stdout);
    let crates = tree.lines().filter_map(|line| line.split(' ').next());
    let foreign: BTreeSet<&str> =
        crates.filter(|name| name.ends_with("-sys") && *name != "linux-raw-sys").collect();
    assert!(foreign.is_empty(), "xtask needs libraries of the system: {foreign:?}");
}

/// Every Rust file of the project, by its path in the workspace.
fn sources() -> BTreeMap<String, String> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.rs"])
        .current_dir(root())
        .output();
    let listed = out.ok().filter(|out| out.status.success()).map(|out| out.stdout).unwrap_or_default();
    let mut paths: Vec<PathBuf> = String::from_utf8_lossy(&listed)
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if paths.is_empty() {
        // Not a checkout: an unpacked archive, say.
        for dir in ["crates", "tests", "xtask", "fuzz"] {
            walk(Path::new(dir), &mut paths);
        }
    }
    let read =
        |path: PathBuf| Some((path.to_str()?.to_owned(), fs::read_to_string(root().join(&path)).ok()?));
    let sources: BTreeMap<_, _> = paths.into_iter().filter_map(read).collect();
    assert!(sources.len() > 50, "only {} source files found", sources.len());
    sources
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(dir)).into_iter().flatten().flatten() {
        let path = dir.join(entry.file_name());
        if entry.path().is_dir() && entry.file_name() != "target" {
            walk(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn long_files_say_why() {
    let long = sources().into_iter().filter(|(_, text)| {
        text.lines().count() > LONGEST && !text.lines().any(|line| line.starts_with("// Long because: "))
    });
    let long: Vec<String> =
        long.map(|(path, text)| format!("{path}: {} lines", text.lines().count())).collect();
    assert!(long.is_empty(), "over {LONGEST} lines without `// Long because: ...`:\n{}", long.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_named_files() {
    let named: BTreeSet<String> = block("unsafe").into_iter().collect();
    // The keyword, not the word: something unsafe follows it.
    let begins =
        |rest: &str| ["{", "(", "fn ", "impl", "extern ", "trait "].iter().any(|p| rest.starts_with(p));
    let has_unsafe = |text: &str| {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        code.flat_map(|line| line.split("unsafe").skip(1)).any(|rest| begins(rest.trim_start()))
    };
    let found =
        sources().into_iter().filter(|(path, text)| has_unsafe(text) && !path.ends_with("structure.rs"));
    let found: BTreeSet<String> = found.map(|(path, _)| path).collect();
    let unnamed: Vec<_> = found.difference(&named).collect();
    assert!(unnamed.is_empty(), "unsafe code in files that ARCHITECTURE.md does not name: {unnamed:#?}");
    let empty: Vec<_> = named.difference(&found).collect();
    assert!(empty.is_empty(), "ARCHITECTURE.md names files without unsafe code: {empty:#?}");
}

#[test]
fn crates_without_named_files_forbid_unsafe_code() {
    let named = block("unsafe");
    for (path, text) in sources() {
        let Some(dir) = path.strip_suffix("src/lib.rs").or(path.strip_suffix("src/main.rs")) else {
            continue;
        };
        let allows = named.iter().any(|file| file.starts_with(&format!("{dir}src/")));
        let wanted = if allows { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert!(text.contains(wanted), "{path} does not say {wanted}");
    }
}

#[test]
fn every_component_is_a_file_a_manual_and_a_line() {
    let plugins = plugins::PLUGINS.iter().map(|entry| ("plugins", entry.about));
    let filters = filters::FILTERS.iter().map(|entry| ("filters", entry.about));
    let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (kind, about) in plugins.chain(filters) {
        let file = about.name.replace('-', "_");
        let dir = root().join("crates").join(kind).join("src");
        assert!(dir.join(format!("{file}.rs")).is_file(), "{kind}: {} has no {file}.rs", about.name);
        let manual = fs::read_to_string(dir.join(format!("{file}.md")))
            .or_else(|_| fs::read_to_string(dir.join(format!("{}.md", about.name))));
        assert_eq!(manual.ok().as_deref(), Some(about.manual), "{kind}: the manual of {}", about.name);
        known.entry(kind).or_default().insert(file);
    }
    // And no file beside them that is none: what several are made of lives in common/.
    for (kind, mut names) in known {
        names.extend(["lib", "common"].map(String::from));
        for entry in
            fs::read_dir(root().join("crates").join(kind).join("src")).expect("a directory").flatten()
        {
            let stem =
                entry.path().file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().replace('-', "_");
            assert!(
                names.contains(&stem),
                "{} belongs to nothing in the list of {kind}",
                entry.path().display()
            );
        }
    }
}
