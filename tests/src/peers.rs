//! Programs of others that tests run.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where programs are looked for: beside our own; in the system's directories before others, since a Python that
/// somebody put before the system's knows nothing of the module that `nbdsh` needs; and where administrators'
/// programs are, which users often have not in their PATH.
pub fn path() -> OsString {
    let mut path = crate::diskpipe().parent().expect("a file is in a directory").as_os_str().to_owned();
    path.push(":/usr/bin:/bin:/usr/sbin:/sbin");
    if let Some(own) = std::env::var_os("PATH") {
        path.push(":");
        path.push(own);
    }
    path
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether one of these programs is not here. Then says so, past the test runner's capturing, with the name of the test.
pub fn absent(programs: &[&str]) -> bool {
    let absent: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if absent.is_empty() {
        return false;
    }
    crate::skip(&format!("needs {}", absent.join(" and ")));
    true
}
