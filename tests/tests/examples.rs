//! Every example in every manual and in the README does what it says: it is run as people would type it.
//!
//! An example is a fenced block ```` ```sh ````. One that cannot be run says so, and why:
//! ```` ```sh,no_run (needs a partitioned disk) ````; it is then shown as skipped.

use e2e::Run;
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::OnceLock,
};

/// The longest that an example may take, in seconds: nobody waits longer for one.
const LIMIT: u64 = 300;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut trials = vec![];
    for file in texts(root) {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).unwrap_or_default();
        trials.extend(examples(&text).into_iter().map(|example| trial(&name, example)));
    }
    assert!(trials.len() > 20, "only {} examples found", trials.len());
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    conclusion.exit_code()
}

struct Example {
    line: usize,
    /// What follows ```` ```sh ````.
    how: String,
    script: String,
}

/// The manuals, the README and the other texts of the project.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for dir in ["crates", "docs"] {
        walk(&root.join(dir), &mut found);
    }
    found.sort();
    found
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "md") {
            found.push(path);
        }
    }
}

fn examples(text: &str) -> Vec<Example> {
    let mut found = vec![];
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let how = match info.strip_prefix("sh") {
            Some("") => "",
            Some(rest) if rest.starts_with(',') => &rest[1..],
            _ => continue,
        };
        found.push(Example { line: number + 1, how: how.trim().to_owned(), script: body.join("\n") });
    }
    found
}

fn trial(file: &str, example: Example) -> Trial {
    let name = format!("{file}:{}", example.line);
    if let Some(why) = example.how.strip_prefix("no_run") {
        let why = why.trim_matches([' ', '(', ')']);
        let why = if why.is_empty() { "not to be run in a test" } else { why };
        return Trial::test(format!("{name} (SKIPPED: {why})"), || Ok(())).with_ignored_flag(true);
    }
    Trial::test(name, move || match example.how.as_str() {
        "" => run(&example.script),
        how => Err(format!("```sh,{how}: neither `sh` nor `sh,no_run (why)`").into()),
    })
}

fn run(script: &str) -> Result<(), Failed> {
    // As the README has it for those who have just cloned the project.
    let script = script.replace("cargo run --release --", "diskpipe");
    // Where the module is needed, it is built first.
    let module = if script.contains("diskpipe shell") || script.contains("python3") {
        e2e::python_path().as_os_str().to_owned()
    } else {
        std::env::var_os("PYTHONPATH").unwrap_or_default()
    };
    let dir = e2e::directory();
    let mut path = e2e::diskpipe().parent().expect("a file is in a directory").as_os_str().to_owned();
    path.push(":");
    path.push(e2e::path());
    let shell = ["sh", "-eu", "-c", &script];
    let run =
        if confined() { Run::new("unshare").args(CONFINE).args(shell) } else { Run::new("env").args(shell) };
    let ended = run.env("PATH", path).env("PYTHONPATH", module).in_directory(dir.path()).seconds(LIMIT).end();
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("{script}\n{}\n--- stdout\n{}\n--- stderr\n{}", ended.status, ended.text(), ended.stderr)
        .into())
}

/// With its first process, all that an example left in the background ends too.
const CONFINE: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether processes can be given a namespace of their own here.
fn confined() -> bool {
    static CONFINED: OnceLock<bool> = OnceLock::new();
    *CONFINED.get_or_init(|| Run::new("unshare").args(CONFINE).arg("true").end().status.success())
}
