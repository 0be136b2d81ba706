//! Our Python module, built from this checkout, and programs that use it.

use crate::{Run, program::build_library};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The system's Python, which has the peer's module, too.
const PYTHON: &str = "python3";

/// Puts the module together in a directory, for `PYTHONPATH`.
pub fn python_module(into: &Path) {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| build_library("diskpipe-python", "_nbd"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/python/python/nbd");
    let package = into.join("nbd");
    fs::create_dir_all(&package).expect("a directory can be made");
    for file in fs::read_dir(sources).expect("the sources are there").flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), package.join(file.file_name())).expect("a file can be copied");
        }
    }
    fs::copy(library, package.join("_nbd.abi3.so")).expect("the library can be copied");
}

/// A Python program with our module.
pub fn python(program: &str) -> Run {
    static MODULE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let module = MODULE.get_or_init(|| {
        let directory = crate::directory();
        python_module(directory.path());
        directory
    });
    Run::new(PYTHON)
        .args(["-c", program])
        .env("PYTHONPATH", module.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// A Python program with the peer's module.
pub fn peers_python(program: &str) -> Run {
    Run::new(PYTHON).args(["-c", program]).env("PYTHONDONTWRITEBYTECODE", "1")
}
