//! Paths in a file system. Symbolic links lead to places in it and nowhere else, whatever they say.

use crate::{File, FileSystem, Kind, file_system::no_directory};
use disk::{Errno, Error, Result};

/// So many links are followed on the way to one file.
const LINKS: usize = 40;
/// A target of a link has at most so many bytes.
pub const LONGEST_TARGET: u64 = 4096;

/// A file, and how it is called where no link is on the way.
pub struct Resolved {
    /// The file.
    pub file: File,
    /// The names of the directories that lead to it, and its own; none for the root.
    pub names: Vec<Vec<u8>>,
}

/// The file at a path, from the root on, whether the path begins with a slash or not. `..` does not lead out of the root.
/// A link at the end of the path is followed if `follow` says so, or if a slash is behind it.
///
/// # Errors
/// There is no such file, links lead in a circle, or the disk failed.
pub fn resolve(file_system: &dyn FileSystem, path: &[u8], follow: bool) -> Result<Resolved> {
    let root = file_system.root()?;
    // The way from the root: the directories on it, with their names.
    let mut way: Vec<(Vec<u8>, File)> = Vec::new();
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut followed = 0;
    let must_be_directory = path.ends_with(b"/") || path.ends_with(b"/.");
    while let Some(name) = todo.pop() {
        let here = way.last().map_or(&root, |(_, file)| file);
        if !here.is_directory() {
            return Err(no_directory());
        }
        match name.as_slice() {
            b"." => continue,
            b".." => {
                way.pop();
                continue;
            }
            _ => {}
        }
        let found = file_system.find(here, &name)?.ok_or_else(|| Error::from(Errno::NOENT))?;
        if found.kind == Kind::Link && (follow || must_be_directory || !todo.is_empty()) {
            followed += 1;
            if followed > LINKS {
                return Err(Error::new(
                    Errno::from_raw(40),
                    "too many symbolic links on the way; they may lead in a circle",
                ));
            }
            let target = file_system.target(&found)?;
            if target.first() == Some(&b'/') {
                way.clear();
            }
            todo.extend(components(&target));
            continue;
        }
        way.push((name, found));
    }
    let names = way.iter().map(|(name, _)| name.clone()).collect();
    let file = way.pop().map_or(root, |(_, file)| file);
    if must_be_directory && !file.is_directory() {
        return Err(no_directory());
    }
    Ok(Resolved { file, names })
}

/// The names in a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty()).rev().map(<[u8]>::to_vec).collect()
}
