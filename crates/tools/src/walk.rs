//! What a disk says of itself, from its start to its end.

use crate::{command_line::Word, copy::endpoint::Endpoint};
use anyhow::{Context, Result, bail};
use client::proto::meta_context::{STATE_HOLE, STATE_ZERO};
use disk::{Disk, Extents, Kind, Range};
use std::{collections::VecDeque, sync::Arc};

/// Extents asked for at once.
const LIMIT: usize = 4096;

/// Opens a disk for reading: a server, a file or a block device.
///
/// # Errors
/// It does not exist or cannot be read, or is a stream.
pub(crate) fn open(word: &Word) -> Result<(Endpoint, Arc<dyn Disk>)> {
    let endpoint = Endpoint::source(word)?;
    match endpoint.disk() {
        Some(disk) => Ok((endpoint, disk)),
        None => bail!("{word}: a stream has no map; a file, a block device or a server is needed"),
    }
}

/// What output calls disks: two of the same name are told apart.
pub(crate) fn names(words: &[Word]) -> Vec<String> {
    let names: Vec<String> = words.iter().map(ToString::to_string).collect();
    match &names[..] {
        [a, b] if a == b => vec![format!("{a} (A)"), format!("{b} (B)")],
        _ => names,
    }
}

/// A kind of extent as a value of the context base:allocation.
pub(crate) fn state(kind: Kind) -> u64 {
    u64::from(kind.hole) * STATE_HOLE + u64::from(kind.zero) * STATE_ZERO
}

/// Goes over the extents of a disk.
pub(crate) struct Walk<'a> {
    disk: &'a dyn Disk,
    name: String,
    size: u64,
    ahead: VecDeque<(Range, Kind)>,
    /// The disk is asked from here on.
    asked: u64,
    /// It does not say what it holds, or has failed to.
    silent: bool,
}

impl<'a> Walk<'a> {
    /// From the start. Errors call the disk by this name.
    pub(crate) fn new(disk: &'a dyn Disk, name: impl Into<String>) -> Walk<'a> {
        let facts = disk.facts();
        let (ahead, silent) = (VecDeque::new(), !facts.extents);
        Walk { disk, name: name.into(), size: facts.size, ahead, asked: 0, silent }
    }

    /// What is at `at`, and up to where it goes on so. `at` is in the disk, and never less than the last time.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn at(&mut self, at: u64) -> Result<(Range, Kind)> {
        loop {
            while let Some((range, kind)) = self.ahead.front() {
                if range.end() > at {
                    return Ok((Range::new(at, range.end() - at), *kind));
                }
                self.ahead.pop_front();
            }
            // Asked in whole blocks.
            let block = u64::from(self.disk.facts().blocks.minimum).max(1);
            self.asked = self.asked.max(at - at % block);
            let rest = Range::new(self.asked, self.size - self.asked);
            let extents = match self.silent {
                true => Extents::one(rest.len, Kind::DATA),
                false => {
                    let asked = self.disk.extents(rest, LIMIT).wait();
                    asked.with_context(|| format!("{}: asking for the map at {}", self.name, rest.start))?
                }
            };
            self.ahead.extend(extents.ranges(self.asked));
            self.asked += extents.covered();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::fake::Fake;

    #[test]
    fn the_walk_says_what_the_disk_says() {
        let mut bytes = vec![0; 64 << 10];
        bytes[8192..12288].fill(1);
        let disk = Fake::new(bytes);
        let mut walk = Walk::new(&disk, "x");
        let mut at = 0;
        let mut data = 0;
        while at < 64 << 10 {
            let (range, kind) = walk.at(at).unwrap();
            assert_eq!(range.start, at);
            data += if kind.zero { 0 } else { range.len };
            at = range.end();
        }
        assert!((4096..64 << 10).contains(&data), "{data}");
    }
}
