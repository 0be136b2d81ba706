//! The binary that is tested: built once, optimised, as people run it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Where `diskpipe` is. Builds it the first time; the environment's `DISKPIPE` names another one to test.
pub fn diskpipe() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("DISKPIPE") {
        Some(given) => PathBuf::from(given).canonicalize().expect("DISKPIPE names a file"),
        None => build(),
    })
}

/// Builds under cargo's own lock, so that test binaries that run at once do not meet.
fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "diskpipe"])
        .current_dir(root)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "diskpipe does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let binary = target.join("release/diskpipe");
    assert!(binary.is_file(), "{} was not built", binary.display());
    binary
}

/// `PATH` with the binary in it, and where administrators' programs are.
pub fn path() -> OsString {
    let own = diskpipe().parent().expect("a file is in a directory").to_owned();
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let all = std::iter::once(own).chain(std::env::split_paths(&inherited)).chain(admin);
    std::env::join_paths(all).expect("no directory in PATH has a colon in its name")
}
