//! Our Python module, built from this checkout, and programs that use it.

use crate::{
    Run,
    program::{build_library, target_directory},
};
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
            place(&file.path(), &package.join(file.file_name()));
        }
    }
    place(library, &package.join("_nbd.abi3.so"));
}

/// Renamed into its place: another test may be using what is there.
fn place(from: &Path, to: &Path) {
    let content = fs::read(from).expect("a file can be read");
    if fs::read(to).is_ok_and(|old| old == content) {
        return;
    }
    let mut beside = to.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, content).and_then(|()| fs::rename(&beside, to)).expect("a file can be written");
}

/// Where the module is: beside the binary under test, so that `diskpipe shell` finds it, too.
pub fn python_path() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = target_directory().join("release/python");
        python_module(&place);
        place
    })
}

/// A Python program with our module.
pub fn python(program: &str) -> Run {
    peers_python(program).env("PYTHONPATH", python_path())
}

/// A Python program with the peer's module.
pub fn peers_python(program: &str) -> Run {
    Run::new(PYTHON).args(["-c", program]).env("PYTHONDONTWRITEBYTECODE", "1")
}
