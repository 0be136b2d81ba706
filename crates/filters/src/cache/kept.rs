//! The file of a cache that outlives the server: whether it still fits the disk below.

use disk::{Error, Facts, Result};
use std::path::Path;
use store::{Blocks, Header, Kind, LEAF_BLOCKS, State};

/// Stands for the identity of a disk below that the cache is changing itself.
pub(super) const CHANGING: &str = "(written by the cache)";

/// Opens the file of a cache, if there is one.
///
/// # Errors
/// It is in use, damaged, or of something else.
pub(super) fn open(path: &Path) -> Result<Option<Blocks>> {
    open_to(path, true)
}

fn open_to(path: &Path, write: bool) -> Result<Option<Blocks>> {
    let named = |e: Error| e.context("cache-file");
    let blocks = match store::file::open(path, write) {
        Err(e) if e.errno() == disk::Errno::NOENT => return Ok(None),
        blocks => blocks.map_err(named)?,
    };
    match blocks.header() {
        Some(header) if header.kind == Kind::Cache => Ok(Some(blocks)),
        _ => Err(named(Error::invalid("this is the file of an overlay").context(path.display()))),
    }
}

/// The header of a file, if there is one that would be of use over this disk.
///
/// # Errors
/// As of [`open`] and [`blocks`].
pub(super) fn glance(path: &Path, below: &Facts) -> Result<Option<Header>> {
    let Some(blocks) = open_to(path, false)? else { return Ok(None) };
    let changed = changed(path, &blocks, below)?;
    Ok(blocks.header().filter(|_| changed.is_none()).cloned())
}

/// What is said of a disk, as far as it can be kept.
fn identity(below: &Facts) -> &str {
    below.identity.as_deref().filter(|identity| identity.len() <= store::LONGEST).unwrap_or_default()
}

fn create(path: &Path, block: u64, below: &Facts) -> Result<Blocks> {
    let mut header = Header::new(Kind::Cache, block.max(below.blocks.minimum.into()), below.size)?;
    header.identity = identity(below).to_owned();
    store::file::create(path, header).map_err(|e| e.context("cache-file"))
}

/// What has changed about the disk below, if it is not the one that this cache is of.
///
/// # Errors
/// It is another one, and there is something in the file that it does not have.
fn changed(path: &Path, blocks: &Blocks, below: &Facts) -> Result<Option<String>> {
    let Some(header) = blocks.header() else { return Ok(None) };
    let now = identity(below);
    let changed = if header.size != below.size {
        format!("it had {} bytes, and has {}", header.size, below.size)
    } else if ![now, CHANGING].contains(&&*header.identity) && !now.is_empty() && !header.identity.is_empty()
    {
        format!("it was {}, and is {now}", header.identity)
    } else if !header.block.is_multiple_of(below.blocks.minimum.into()) {
        format!("the cache has blocks of {} bytes, and it {}", header.block, below.blocks.minimum)
    } else {
        return Ok(None);
    };
    let dirty = blocks.totals().dirty * header.block;
    if dirty > 0 {
        return Err(Error::invalid(format!(
            "cache-file={}: the disk below is not as it was: {changed}; and {dirty} bytes that clients wrote have not \
             reached it: bring it back as it was, or remove the file and lose them",
            path.display()
        )));
    }
    Ok(Some(changed))
}

/// The blocks of this disk, from the file that was opened, or from a new one.
///
/// # Errors
/// The disk below is another one, and there is something in the file that it does not have.
pub(super) fn blocks(opened: Option<Blocks>, path: &Path, block: u64, below: &Facts) -> Result<Blocks> {
    let Some((blocks, header)) =
        opened.and_then(|blocks| blocks.header().cloned().map(|header| (blocks, header)))
    else {
        return create(path, block, below);
    };
    let now = identity(below);
    let file = path.display();
    if let Some(changed) = changed(path, &blocks, below)? {
        tracing::warn!(target: "diskpipe", "cache-file={file}: the disk below is not as it was: {changed}; what was cached of it is dropped");
        drop(blocks);
        std::fs::remove_file(path)?;
        return create(path, block, below);
    }
    if header.identity == CHANGING {
        tracing::info!(target: "diskpipe", "cache-file={file}: the last server had no orderly end; what clients wrote is kept");
        forget_clean(&blocks, header.block)?;
    } else if header.identity.is_empty() {
        blocks.set_identity(now)?;
    }
    Ok(blocks)
}

/// Forgets the clean blocks: somebody else may have changed the disk below since, which could not be told from what the
/// cache itself wrote.
pub(super) fn forget_clean(blocks: &Blocks, size: u64) -> Result<()> {
    let (mut block, end) = (0, blocks.map().blocks());
    let mut gone = Vec::new();
    while block < end {
        let (state, same) = blocks.map().run(block, end - block);
        if matches!(state, State::Copied | State::Zero) {
            let mut at = block;
            while at < block + same {
                let (leaf, first) = blocks.leaf(at);
                let last = LEAF_BLOCKS.min(first + (block + same - at) as usize);
                let count = leaf.change(first, last, state, State::Base).max(1);
                gone.push((blocks.place(leaf, at), count as u64 * size));
                at += count as u64;
            }
        }
        block += same;
    }
    blocks.sync()?;
    gone.into_iter().for_each(|(place, len)| blocks.bytes().discard(place, len));
    Ok(())
}

/// The server ends in good order: the disk below is as the cache knows it.
///
/// # Errors
/// Those of the file.
pub(super) fn close(blocks: &Blocks, below: Option<&Facts>) -> Result<()> {
    blocks.close()?;
    match below {
        Some(below) => blocks.set_identity(identity(below)),
        None => Ok(()),
    }
}
