//! Overlays that stand on others: a file names its parent, which is frozen, and that may name another.

use crate::{Header, Id, Parent, file};
use disk::{Error, Result};
use std::path::{Path, PathBuf};

/// The longest chain.
const LONGEST: usize = 256;

/// The files that an overlay stands on, nearest first: all of them frozen, and made for disks of the same size in
/// blocks of the same size.
///
/// # Errors
/// One of them is missing, is another than it was, or does not fit.
pub fn parents(path: &Path, header: &Header) -> Result<Vec<(PathBuf, Id)>> {
    let mut chain = Vec::new();
    let (mut path, mut next) = (path.to_owned(), header.parent.clone());
    while let Some(Parent { id, path: parent }) = next {
        if chain.len() == LONGEST {
            return Err(Error::invalid(format!("it stands on more than {LONGEST} others")));
        }
        path = path.parent().unwrap_or(Path::new("")).join(parent);
        let found = file::header(&path).map_err(|e| e.context("it stands on another overlay"))?;
        let wrong = if found.id != id {
            Some(format!("is {}, not {id}, which it stands on", found.id))
        } else if !found.frozen {
            Some("may change, so that nothing can stand on it".to_owned())
        } else if (found.size, found.block) != (header.size, header.block) {
            Some("has another size".to_owned())
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(Error::invalid(format!("{} {wrong}", path.display())));
        }
        next = found.parent;
        chain.push((path.clone(), id));
    }
    Ok(chain)
}
