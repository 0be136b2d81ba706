//! Makes overlays that begin with what another holds, and share it: a few small files, however much it is.
//!
//! What is shared is frozen, and gets a name of its own. Under the old name there is a fork like the others, so that whoever uses that
//! name goes on. At every moment the old name is of a file that holds all: an attempt that was stopped is begun again.

use anyhow::{Context, Result, ensure};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use store::{Header, Kind, Parent, chain, file};

/// Forks, and says which files there are now.
pub(super) fn fork(path: &Path, new: &[PathBuf], freeze: bool) -> Result<String> {
    for new in new {
        ensure!(!new.exists(), "{}: File exists", new.display());
    }
    let header = file::header(path)?;
    ensure!(header.kind == Kind::Overlay, "{}: this is the file of a cache", path.display());
    let under = chain::parents(path, &header).with_context(|| path.display().to_string())?.len();
    let most = chain::LONGEST;
    ensure!(
        under < most,
        "{}: it stands on {most} others already; commit or copy one of them",
        path.display()
    );
    let other = other_name(path, &header);
    // Who is frozen already and has no other name was made to be forked; with one, an attempt was stopped.
    let stays = if header.frozen { !other.exists() } else { freeze };
    if !stays && !other.exists() {
        fs::hard_link(path, &other).with_context(|| other.display().to_string())?;
        file::sync_dir(file::directory(&other))?;
    }
    if !header.frozen {
        file::open(path, true)?.freeze().with_context(|| path.display().to_string())?;
    }
    let mut out = String::new();
    let shared = if stays {
        path
    } else {
        ensure!(file::header(&other)?.id == header.id, "{}: not the same file", other.display());
        file::replace(path, child(&header, &other, path)?)?;
        let _ = writeln!(out, "{} goes on with what it held", path.display());
        &other
    };
    for new in new {
        file::create(new, child(&header, shared, new)?)?;
        let _ = writeln!(out, "{} begins with the same", new.display());
    }
    let _ = writeln!(out, "{} is what they share, and must stay", shared.display());
    Ok(out)
}

/// What is shared is called like this.
fn other_name(path: &Path, header: &Header) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let id = header.id.to_string();
    name.push(format!(".{}", &id[..8]));
    path.with_file_name(name)
}

/// The header of an overlay at `at` that stands on the one at `parent`.
fn child(header: &Header, parent: &Path, at: &Path) -> Result<Header> {
    let directory = |path: &Path| {
        fs::canonicalize(file::directory(path)).with_context(|| file::directory(path).display().to_string())
    };
    let (dir, name) = (directory(parent)?, parent.file_name().unwrap_or_default());
    // Beside each other they can be moved together.
    let path = if directory(at)? == dir { PathBuf::from(name) } else { dir.join(name) };
    let path = path.to_str().with_context(|| format!("{}: the name is not UTF-8", path.display()))?;
    let parent = Parent { id: header.id, path: path.to_owned() };
    let mut child = Header::new(Kind::Overlay, header.block, header.size)?;
    child.identity.clone_from(&header.identity);
    child.parent = Some(parent);
    Ok(child)
}
