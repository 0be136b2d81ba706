//! The names that the program goes by: started as `nbdkit` it is `diskpipe serve`, and so on; and
//! `diskpipe install-names`, which makes those names.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tools::Tool;

/// What the program does.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    Serve,
    /// What `serve` would serve.
    Explain,
    Tool(&'static Tool),
}

/// Other programs' names, and what we do under them.
fn names() -> impl Iterator<Item = (&'static str, Job)> {
    std::iter::once(("nbdkit", Job::Serve))
        .chain(tools::TOOLS.iter().filter_map(|tool| Some((tool.alias?, Job::Tool(tool)))))
}

/// The job and the name that `argv[0]` asks for; `None` under our own name and unknown ones.
pub(crate) fn of_program(program: &OsStr) -> Option<(&'static str, Job)> {
    let name = Path::new(program).file_name()?;
    names().find(|(known, _)| name == *known)
}

/// The job that `diskpipe COMMAND` asks for.
pub(crate) fn of_command(command: &str) -> Option<Job> {
    match command {
        "serve" => Some(Job::Serve),
        "explain" => Some(Job::Explain),
        _ => tools::TOOLS.iter().find(|tool| tool.name == command).map(Job::Tool),
    }
}

/// Makes a link to `binary` in `directory` for every name. What is not such a link already is left alone, and is
/// an error, unless `force` says to replace it.
pub(crate) fn install(directory: &Path, binary: &Path, force: bool) -> Result<Vec<PathBuf>> {
    let links: Vec<PathBuf> = names().map(|(name, _)| directory.join(name)).collect();
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
        let of = |program: &str| {
            of_program(OsStr::new(program)).map(|(name, job)| match job {
                Job::Serve => (name, "serve"),
                Job::Explain => (name, "explain"),
                Job::Tool(tool) => (name, tool.name),
            })
        };
        assert_eq!(of("nbdkit"), Some(("nbdkit", "serve")));
        assert_eq!(of("/usr/local/bin/nbdcopy"), Some(("nbdcopy", "copy")));
        assert_eq!(of("./nbdinfo"), Some(("nbdinfo", "info")));
        for other in ["diskpipe", "", "/", "nbdkit-old", "xnbdkit"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(matches!(of_command("serve"), Some(Job::Serve)));
        assert!(matches!(of_command("copy"), Some(Job::Tool(tool)) if tool.name == "copy"));
        assert!(of_command("nbdcopy").is_none());
    }

    #[test]
    fn names_are_links_and_can_be_installed_again() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("bin/diskpipe");
        install(dir.path(), &binary, false).unwrap();
        assert_eq!(fs::read_link(dir.path().join("nbdcopy")).unwrap(), binary);
        let elsewhere = dir.path().join("other/diskpipe");
        assert_eq!(install(dir.path(), &elsewhere, false).unwrap().len(), names().count());
        assert_eq!(fs::read_link(dir.path().join("nbdkit")).unwrap(), elsewhere);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), names().count());
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
