//! The names that the program goes by: started as `nbdkit` it is `diskpipe serve`, and so on; and
//! `diskpipe install-names`, which makes those names.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What the program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Serve,
    Copy,
    Info,
}

/// Other tools' names, and what we do under them.
const NAMES: &[(&str, Job)] = &[("nbdkit", Job::Serve), ("nbdcopy", Job::Copy), ("nbdinfo", Job::Info)];

/// The job and the name that `argv[0]` asks for; `None` under our own name and unknown ones.
pub(crate) fn of(program: &OsStr) -> Option<(&'static str, Job)> {
    let name = Path::new(program).file_name()?;
    NAMES.iter().find(|(known, _)| name == *known).copied()
}

/// Makes a link to `binary` in `directory` for every name. What is not such a link already is left alone, and is
/// an error, unless `force` says to replace it.
pub(crate) fn install(directory: &Path, binary: &Path, force: bool) -> Result<Vec<PathBuf>> {
    let links: Vec<PathBuf> = NAMES.iter().map(|(name, _)| directory.join(name)).collect();
    // All or nothing: look at every name before the first change.
    for link in &links {
        match fs::symlink_metadata(link) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| link.display().to_string()),
            Ok(found) if found.is_dir() => bail!("{}: is a directory", link.display()),
            Ok(_) if force || is_ours(link, binary) => {}
            Ok(_) => bail!("{}: exists and is not a link to diskpipe; --force replaces it", link.display()),
        }
    }
    for link in &links {
        // A link made beside and renamed over never leaves the name without a program.
        let beside = directory.join(format!(".diskpipe-{}-{}", std::process::id(), file_name(link)));
        symlink(binary, &beside).with_context(|| format!("cannot make a link in {}", directory.display()))?;
        fs::rename(&beside, link).with_context(|| {
            let _ = fs::remove_file(&beside);
            format!("cannot make {}", link.display())
        })?;
    }
    Ok(links)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A link to this program, or to an earlier place of it.
fn is_ours(link: &Path, binary: &Path) -> bool {
    fs::read_link(link)
        .is_ok_and(|target| target == binary || target.file_name() == Some(OsStr::new("diskpipe")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_the_job_wherever_the_link_stands() {
        assert_eq!(of(OsStr::new("nbdkit")), Some(("nbdkit", Job::Serve)));
        assert_eq!(of(OsStr::new("/usr/local/bin/nbdcopy")), Some(("nbdcopy", Job::Copy)));
        assert_eq!(of(OsStr::new("./nbdinfo")), Some(("nbdinfo", Job::Info)));
        for other in ["diskpipe", "", "/", "nbdkit-old", "xnbdkit"] {
            assert_eq!(of(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn names_are_links_and_can_be_installed_again() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("bin/diskpipe");
        install(dir.path(), &binary, false).unwrap();
        assert_eq!(fs::read_link(dir.path().join("nbdcopy")).unwrap(), binary);
        let elsewhere = dir.path().join("other/diskpipe");
        assert_eq!(install(dir.path(), &elsewhere, false).unwrap().len(), NAMES.len());
        assert_eq!(fs::read_link(dir.path().join("nbdkit")).unwrap(), elsewhere);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), NAMES.len());
    }

    #[test]
    fn a_foreign_file_stays_and_nothing_else_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("nbdinfo");
        fs::write(&foreign, "mine").unwrap();
        let binary = Path::new("/x/diskpipe");
        let error = install(dir.path(), binary, false).unwrap_err().to_string();
        assert!(
            error.ends_with("nbdinfo: exists and is not a link to diskpipe; --force replaces it"),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        install(dir.path(), binary, true).unwrap();
        assert_eq!(fs::read_link(&foreign).unwrap(), binary);
    }
}
