//! What the end-to-end tests stand on: the binary, programs that run for a bounded time, servers that end with
//! their test, and loud skips where a peer is missing.
//!
//! One file in `tests/` per behaviour. A test begins with what it needs of others:
//!
//! ```no_run
//! fn nbdinfo_sees_the_size() {
//!     if !e2e::has(&["nbdinfo"]) {
//!         return;
//!     }
//!     let disk = e2e::serve(&["memory", "1M"]);
//!     let info = e2e::sh(&format!("nbdinfo --size '{}'", disk.uri)).succeeds();
//!     assert_eq!(info.stdout.trim(), "1048576");
//! }
//! ```
#![forbid(unsafe_code)]

mod binary;
mod run;
mod server;

pub use binary::{diskpipe, path};
pub use run::{Finished, is_installed, program, sh, sh_in, within};
pub use server::{Served, peer, serve};

use std::io::Write;

/// Whether all these programs are installed. If not, says so past the test runner's capture, in the line that
/// `cargo xtask test` counts: `SKIPPED: needs X`. The test then returns.
pub fn has(programs: &[&str]) -> bool {
    match programs.iter().find(|name| !is_installed(name)) {
        Some(absent) => {
            skip(&format!("needs {absent}"));
            false
        }
        None => true,
    }
}

/// Says why the running test does nothing: `skip("needs root")`.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // A write to the handle, unlike `eprintln`, is not held back by the test runner.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}: {test}");
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory of its own, gone when it is dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}
