//! `cargo xtask fuzz`: the fuzz targets, built with the stable compiler and run for a bounded time.
//!
//! The same coverage instrumentation that cargo-fuzz asks for is asked for here, without it having to be installed.
//! What is fuzzed has no unsafe code, so that the address sanitizer (which needs a nightly compiler) has nothing to
//! find.

use crate::run;
use anyhow::{Context, Result, bail};
use std::{fs, path::PathBuf, process::Command};

const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=yes -Coverflow-checks=yes -Ccodegen-units=1";

/// The targets, by name.
pub(crate) fn targets() -> Result<Vec<String>> {
    let dir = run::root().join("fuzz/targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("{} cannot be listed", dir.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<String> = files
        .filter(|file| file.extension().is_some_and(|ext| ext == "rs"))
        .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets and runs each for so many seconds. Returns which found nothing.
pub(crate) fn each_for(seconds: u64) -> Result<Vec<(String, bool)>> {
    let built = build()?;
    targets()?.into_iter().map(|name| Ok((name.clone(), one(&built, &name, seconds)?))).collect()
}

/// Runs one target.
pub(crate) fn only(name: &str, seconds: u64) -> Result<bool> {
    if !targets()?.iter().any(|target| target == name) {
        bail!("there is no fuzz target {name}; there are {}", targets()?.join(", "));
    }
    one(&build()?, name, seconds)
}

/// Builds all targets and returns the directory they are in.
fn build() -> Result<PathBuf> {
    let triple = host()?;
    // A target directory of its own: these flags would make every other build start anew.
    let dir = run::target_dir().join("fuzz");
    // With a triple, build scripts and macros stay without the flags.
    let mut cargo = run::cargo(&[
        "build",
        "--release",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--bins",
        "--target",
        &triple,
    ]);
    cargo.env("RUSTFLAGS", INSTRUMENTED).env("CARGO_TARGET_DIR", &dir);
    if !run::watched(cargo, |_| {})?.success() {
        bail!("the fuzz targets cannot be built");
    }
    Ok(dir.join(triple).join("release"))
}

/// Runs a target over its kept corpus and its seeds. New inputs join the corpus; one that breaks the target goes to
/// `fuzz/artifacts`.
fn one(built: &std::path::Path, name: &str, seconds: u64) -> Result<bool> {
    let fuzz = run::root().join("fuzz");
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|dir| fuzz.join(dir).join(name));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(built.join(name));
    command.current_dir(&fuzz).arg(&corpus);
    let seeds = fuzz.join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args([
        &format!("-max_total_time={seconds}"),
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-verbosity=0",
        "-print_funcs=0",
    ]);
    let dictionary = fuzz.join("nbd.dict");
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    Ok(run::watched(command, |_| {})?.success())
}

fn host() -> Result<String> {
    let out = Command::new("rustc").arg("-vV").output().context("rustc cannot be run")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}
