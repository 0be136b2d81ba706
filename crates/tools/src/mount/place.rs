//! Where the file appears.

use anyhow::{Context, Result, bail};
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

/// A mount point, and the file in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What is mounted over: a directory, or a regular file.
    pub(crate) mount_point: PathBuf,
    /// The file's name in the directory; `None` where a file is mounted over and the disk takes its place.
    pub(crate) name: Option<OsString>,
}

impl Place {
    /// A directory has the disk as `nbd` in it; a regular file is hidden by the disk; what is not there is the name of
    /// the disk in a directory that is.
    ///
    /// # Errors
    /// It is none of these.
    pub(crate) fn find(path: &Path) -> Result<Place> {
        let inside = |directory: &Path, name: &OsStr| Place {
            mount_point: directory.to_owned(),
            name: Some(name.to_owned()),
        };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(inside(path, OsStr::new("nbd"))),
            Ok(found) if found.is_file() => Ok(Place { mount_point: path.to_owned(), name: None }),
            Ok(_) => bail!("{}: neither a directory nor a regular file", path.display()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                match (directory, path.file_name()) {
                    (Some(directory), Some(name)) if directory.is_dir() => Ok(inside(directory, name)),
                    _ => Err(e).with_context(|| path.display().to_string()),
                }
            }
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_a_file_or_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let find = |path: &Path| {
            let Place { mount_point, name } = Place::find(path).unwrap();
            (mount_point, name)
        };
        assert_eq!(find(directory.path()), (directory.path().to_owned(), Some("nbd".into())));
        assert_eq!(find(&file), (file.clone(), None));
        assert_eq!(find(&directory.path().join("disk")), (directory.path().to_owned(), Some("disk".into())));
        for bad in
            [&file.join("x"), &directory.path().join("no/where"), Path::new("/dev/null"), Path::new("nosuch")]
        {
            assert!(Place::find(bad).is_err(), "{}", bad.display());
        }
    }
}
