//! Our own binary.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The binary under test: what the variable `DISKPIPE` names, else this checkout's, built as people run it.
pub fn diskpipe() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("DISKPIPE").map_or_else(build, PathBuf::from))
}

/// Where this package was built.
pub fn target_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a program knows its place");
    test.ancestors().nth(3).expect("target/PROFILE/deps/TEST").to_owned()
}

fn build() -> PathBuf {
    let messages = cargo_build("diskpipe");
    messages
        .iter()
        .filter(|message| message["target"]["name"] == "diskpipe")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where the binary is")
}

/// A shared library of this checkout, built as people run it.
pub(crate) fn build_library(package: &str, name: &str) -> PathBuf {
    let messages = cargo_build(package);
    let of_it = messages.iter().filter(|message| message["target"]["name"] == name);
    let mut files = of_it.filter_map(|message| message["filenames"].as_array()).flatten();
    files
        .find_map(|file| file.as_str().filter(|file| file.ends_with(".so")).map(PathBuf::from))
        .expect("cargo says where the library is")
}

fn cargo_build(package: &str) -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--package", package, "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target_directory())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{package} cannot be built");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
