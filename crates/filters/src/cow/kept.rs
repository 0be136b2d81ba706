//! Where overlays are, and who has which: in one temporary file, in a file that is kept, or in one for each client.

use super::{names::file_name, overlay::Overlay};
use disk::{Errno, Error, Facts, Result};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use store::{Blocks, Header, Id, Kind, Store, chain};

/// Where overlays are.
pub(super) enum Where {
    /// In a file that goes with the server.
    Temporary(Arc<Store>),
    /// In this file: only one.
    File(PathBuf),
    /// In files of this directory.
    Directory(PathBuf),
}

/// All overlays of a server.
pub(super) struct Overlays {
    place: Where,
    /// Of new ones, in bytes.
    block: u64,
    force: bool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By what their clients are known by.
    overlays: HashMap<String, Arc<Overlay>>,
    /// What several of them stand on.
    parents: HashMap<Id, Weak<Overlay>>,
    /// The one file, opened before the first client came.
    early: Option<Blocks>,
}

impl Overlays {
    pub(super) fn new(place: Where, block: u64, force: bool) -> Overlays {
        Overlays { place, block, force, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what cannot work.
    pub(super) fn get_ready(&self) -> Result<()> {
        match &self.place {
            Where::Temporary(store) => store.open().map(drop),
            Where::File(path) => {
                match open(path) {
                    Ok(blocks) => self.lock().early = Some(blocks),
                    Err(e) if e.errno() == Errno::NOENT => {
                        let dir = path.parent().unwrap_or(path);
                        may_be_written(dir).map_err(|e| e.context("cow-file"))?;
                    }
                    Err(e) => return Err(e.context("cow-file")),
                }
                Ok(())
            }
            Where::Directory(dir) => may_be_written(dir).map_err(|e| e.context("cow-per-client")),
        }
    }

    /// The overlay of a client over a disk of these facts.
    pub(super) fn get(&self, key: &str, below: &Facts) -> Result<Arc<Overlay>> {
        let mut open = self.lock();
        if let Some(overlay) = open.overlays.get(key) {
            let before = overlay.size;
            if before != below.size {
                let now = below.size;
                return Err(Error::io(format!(
                    "the disk below had {before} bytes and has {now} now, but changes were kept for the former"
                )));
            }
            return Ok(overlay.clone());
        }
        let overlay = match &self.place {
            Where::Temporary(store) => {
                store.open()?;
                Overlay::temporary(self.block, below, store)?
            }
            Where::File(path) => {
                if let Some(other) = open.overlays.keys().next() {
                    return Err(Error::new(
                        Errno::BUSY,
                        format!(
                            "cow-file has the changes to one export, and export {other:?} was asked for before {key:?}; \
                             cow-per-client has a file for each"
                        ),
                    ));
                }
                self.kept(&mut open, path, below)?
            }
            Where::Directory(dir) => self.kept(&mut open, &dir.join(file_name(key)?), below)?,
        };
        let overlay = Arc::new(overlay);
        open.overlays.insert(key.to_owned(), overlay.clone());
        Ok(overlay)
    }

    /// As [`Overlays::get`], for one who only looks: the file stays as it is, or is not made.
    pub(super) fn glance(&self, key: &str, below: &Facts) -> Result<Arc<Overlay>> {
        let path = match &self.place {
            Where::Temporary(_) => return self.get(key, below),
            Where::File(path) => path.clone(),
            Where::Directory(dir) => dir.join(file_name(key)?),
        };
        let overlay = match store::file::open(&path, false) {
            Err(e) if e.errno() == Errno::NOENT => {
                may_be_written(store::file::directory(&path))?;
                Overlay::temporary(self.block, below, &Arc::new(Store::new()))
            }
            opened => opened.and_then(|blocks| {
                let (header, _) = self.fits(&blocks, below).map_err(|e| e.context(path.display()))?;
                if header.frozen {
                    return Err(Error::invalid("others stand on it, so that it must not change"))
                        .map_err(|e| e.context(path.display()));
                }
                let parents = parents(&mut self.lock(), &path, &header, below)?;
                Overlay::kept(&header, blocks, parents, below)
            }),
        };
        overlay.map(Arc::new)
    }

    /// The overlay in a file, made if it is not there.
    fn kept(&self, open_now: &mut Open, path: &Path, below: &Facts) -> Result<Overlay> {
        let blocks = match open_now.early.take() {
            Some(blocks) => Ok(blocks),
            None => open(path),
        };
        let blocks = match blocks {
            Err(e) if e.errno() == Errno::NOENT => create(path, self.block, below)?,
            other => other?,
        };
        let checked = self.check(open_now, path, &blocks, below);
        match checked {
            Ok((header, parents)) => {
                Overlay::kept(&header, blocks, parents, below).map_err(|e| e.context(path.display()))
            }
            Err(e) => {
                // It stays ours for the next client, whose disk below may be the right one.
                if matches!(self.place, Where::File(_)) {
                    open_now.early = Some(blocks);
                }
                Err(e.context(path.display()))
            }
        }
    }

    /// Whether a file is the overlay of the disk below, and what it stands on.
    fn check(
        &self,
        open: &mut Open,
        path: &Path,
        blocks: &Blocks,
        below: &Facts,
    ) -> Result<(Header, Vec<Arc<Overlay>>)> {
        let (header, now) = self.fits(blocks, below)?;
        if let Some(now) = now {
            let before = &header.identity;
            tracing::warn!(target: "diskpipe", "{}: {}", path.display(), other_disk(before, now));
            blocks.set_identity(now)?;
        }
        let parents = parents(open, path, &header, below)?;
        Ok((header, parents))
    }

    /// Whether blocks are of an overlay over the disk below; and what that says of itself now, when it is another and is
    /// taken all the same.
    fn fits<'a>(&self, blocks: &Blocks, below: &'a Facts) -> Result<(Header, Option<&'a str>)> {
        let header = blocks.header().cloned().ok_or_else(|| Error::invalid("it has no header"))?;
        if header.kind != Kind::Overlay {
            return Err(Error::invalid("this is the file of a cache"));
        }
        if header.size != below.size {
            let (before, now) = (header.size, below.size);
            return Err(Error::invalid(format!(
                "it was made for a disk of {before} bytes, but the disk below has {now}"
            )));
        }
        let now = below.identity.as_deref().unwrap_or_default();
        let before = &*header.identity;
        if now.is_empty() || before.is_empty() || now == before {
            return Ok((header, None));
        }
        if !self.force {
            let differs = other_disk(before, now);
            return Err(Error::invalid(format!("{differs}; cow-force=true takes it all the same")));
        }
        Ok((header, Some(now)))
    }

    /// The server ends: nothing is lost of what was not flushed.
    pub(super) fn finish(&self) {
        let all = std::mem::take(&mut self.lock().overlays);
        all.iter().for_each(|(key, overlay)| close(key, overlay));
    }
}

/// What an overlay stands on.
fn parents(open: &mut Open, path: &Path, header: &Header, below: &Facts) -> Result<Vec<Arc<Overlay>>> {
    let mut parents = Vec::new();
    for (at, parent) in chain::parents(path, header)? {
        let known = open.parents.get(&parent).and_then(Weak::upgrade);
        let parent = match known {
            Some(parent) => parent,
            None => {
                let blocks = store::file::open(&at, false)?;
                let header = blocks.header().cloned().ok_or_else(|| Error::invalid("it has no header"))?;
                let overlay = Arc::new(Overlay::kept(&header, blocks, vec![], below)?);
                open.parents.insert(parent, Arc::downgrade(&overlay));
                overlay
            }
        };
        parents.push(parent);
    }
    open.parents.retain(|_, parent| parent.strong_count() > 0);
    Ok(parents)
}

fn other_disk(before: &str, now: &str) -> String {
    format!("the disk below is not as it was: it was {before}, and is {now}")
}

/// Closes an overlay in good order.
fn close(key: &str, overlay: &Overlay) {
    if let Err(e) = overlay.blocks.close() {
        tracing::error!(target: "diskpipe", "cow: what was written to export {key:?} last is not kept: {e}");
    }
}

fn open(path: &Path) -> Result<Blocks> {
    let blocks = store::file::open(path, true)?;
    match blocks.header() {
        Some(header) if header.kind != Kind::Overlay => {
            Err(Error::invalid("this is the file of a cache").context(path.display()))
        }
        _ => Ok(blocks),
    }
}

fn create(path: &Path, block: u64, below: &Facts) -> Result<Blocks> {
    let mut header = Header::new(Kind::Overlay, block.max(below.blocks.minimum.into()), below.size)?;
    // What is too long to be kept is not compared, either.
    let identity = below.identity.as_deref().filter(|identity| identity.len() <= store::LONGEST);
    header.identity = identity.unwrap_or_default().to_owned();
    store::file::create(path, header)
}

/// Whether files can be made in a directory.
fn may_be_written(dir: &Path) -> Result<()> {
    tempfile::tempfile_in(dir).map(drop).map_err(|e| Error::from(e).context(dir.display()))
}

/// A client that has an overlay. Dropped, it leaves.
pub(super) struct Leave {
    overlays: Arc<Overlays>,
    key: String,
}

impl Leave {
    pub(super) fn new(overlays: &Arc<Overlays>, key: String) -> Leave {
        Leave { overlays: overlays.clone(), key }
    }
}

impl Drop for Leave {
    /// The last of its clients closes a file of a directory, so that a thousand of them need not be open, and tools can
    /// look at it.
    fn drop(&mut self) {
        if !matches!(self.overlays.place, Where::Directory(_)) {
            return;
        }
        // Closed under the lock: who comes next finds it closed.
        let mut open = self.overlays.lock();
        if open.overlays.get(&self.key).is_some_and(|overlay| Arc::strong_count(overlay) == 1)
            && let Some(overlay) = open.overlays.remove(&self.key)
        {
            close(&self.key, &overlay);
        }
    }
}
