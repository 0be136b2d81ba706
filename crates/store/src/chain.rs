//! Overlays that stand on others: a file names its parent, which is frozen, and that may name another.

use crate::{Blocks, Header, Id, Kind, LEAF_BLOCKS, Parent, State, file};
use disk::{Data, Error, Result};
use std::path::{Path, PathBuf};

/// An overlay stands on no more than so many others: each costs every read of what none of them has.
pub const LONGEST: usize = 64;

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

/// An overlay and all that it stands on, opened together: what is above the disk below.
pub struct Chain {
    /// The overlay first.
    pub layers: Vec<(PathBuf, Blocks)>,
}

/// Where the bytes of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the disk below.
    Below,
    /// Nowhere: it is zero.
    Zero,
    /// In this layer.
    Layer(usize),
}

impl Chain {
    /// Opens an overlay, for writing or only for reading, and what it stands on for reading.
    ///
    /// # Errors
    /// As of [`file::open`] and [`parents`]; it is a cache.
    pub fn open(path: &Path, write: bool) -> Result<Chain> {
        let blocks = file::open(path, write)?;
        let above = parents(path, header_of(&blocks)?).map_err(|e| e.context(path.display()))?;
        let mut layers = vec![(path.to_owned(), blocks)];
        for (path, _) in above {
            let blocks = file::open(&path, false)?;
            layers.push((path, blocks));
        }
        if let Some((path, _)) = layers
            .iter()
            .find(|(_, blocks)| blocks.header().is_some_and(|header| header.kind != Kind::Overlay))
        {
            return Err(Error::invalid(format!("{}: this is the file of a cache", path.display())));
        }
        Ok(Chain { layers })
    }

    /// What the overlay says of itself.
    ///
    /// # Errors
    /// Never: what was opened has a header.
    pub fn header(&self) -> Result<&Header> {
        header_of(&self.layers[0].1)
    }

    /// Where a block is, and how many from it on, at most `limit`, are known to be there, too.
    pub fn run(&self, block: u64, limit: u64) -> (Found, u64) {
        let mut count = limit;
        for (at, (_, blocks)) in self.layers.iter().enumerate() {
            let (state, same) = blocks.map().run(block, count);
            count = same;
            match state {
                State::Base => {}
                State::Zero => return (Found::Zero, count),
                _ => return (Found::Layer(at), count),
            }
        }
        (Found::Below, count)
    }

    /// Calls `each` with all that is above the disk below, in order: first block, number, and where. What is found in
    /// one place and lies together comes at once.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn each<E>(
        &self,
        mut each: impl FnMut(u64, u64, Found) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let all = self.layers[0].1.header().map_or(0, Header::blocks);
        let mut pending: Option<(u64, u64, Found)> = None;
        let mut at = 0;
        while at < all {
            let (found, count) = self.run(at, all - at);
            match &mut pending {
                Some((_, blocks, before)) if *before == found => *blocks += count,
                _ => {
                    if let Some((block, blocks, found)) = pending.take()
                        && found != Found::Below
                    {
                        each(block, blocks, found)?;
                    }
                    pending = Some((at, count, found));
                }
            }
            at += count;
        }
        match pending {
            Some((block, blocks, found)) if found != Found::Below => each(block, blocks, found),
            _ => Ok(()),
        }
    }

    /// Reads blocks of a layer, at most `limit`, from one on that is there; says how many.
    ///
    /// # Errors
    /// The file failed.
    pub fn read(&self, layer: usize, block: u64, limit: u64) -> Result<(Data, u64)> {
        let blocks = &self.layers[layer].1;
        let header = header_of(blocks)?;
        let (leaf, index) = blocks.leaf(block);
        let count = limit.min((LEAF_BLOCKS - index) as u64);
        let len = (count * header.block).min(header.size - block * header.block);
        Ok((blocks.bytes().read(blocks.place(leaf, block), len)?, count))
    }
}

fn header_of(blocks: &Blocks) -> Result<&Header> {
    blocks.header().ok_or_else(|| Error::invalid("it has no header"))
}
