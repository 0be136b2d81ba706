//! What every end-to-end test needs: our own binary, the peers' programs, and children that never outlive their test.
#![forbid(unsafe_code)]

mod agree;
mod device;
mod first_files;
mod image;
mod machine;
mod mounted;
mod peers;
mod program;
mod python;
mod qmp;
mod run;
mod server;
mod wire;

pub use agree::{both_agree, words};
pub use device::Loop;
pub use image::{PARTITION, RealDisk, check_file_system, same_content};
pub use machine::Machine;
pub use mounted::{MEMORY, Mounted, can_mount, unmount};
pub use peers::{absent, path};
pub use program::{diskpipe, target_directory};
pub use python::{peers_python, python, python_module, python_path};
pub use qmp::Qmp;
pub use run::{Ended, Run};
pub use server::{PATIENCE, Process, Server, listens};
pub use wire::{Way, Wire, command, reply, request};

use std::io::Write;

/// A directory of a test's own, gone when the test ends.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("diskpipe-e2e-").tempdir().expect("a temporary directory can be made")
}

/// Says why the running test ends without having tested, in words that begin with `needs`. A write to the handle,
/// unlike `println!`, is not kept by the test runner.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {why}: {}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Leaves a test, loudly, unless these programs are here.
#[macro_export]
macro_rules! needs {
    ($($program:expr),+ $(,)?) => {
        if $crate::absent(&[$($program),+]) {
            return;
        }
    };
}
