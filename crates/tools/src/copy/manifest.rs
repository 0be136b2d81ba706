//! The digests of a disk's blocks, in a file: what it held, to check it later or to find what has changed.
//!
//! Text, in lines: a header, a digest for each block or `zero N` for blocks of zeroes, and the hash of all, which is
//! also what proves the file sound.

use crate::copy::{
    aside::Aside,
    hash::{Algorithm, Outer, Way, hex},
    ranges::Ranges,
};
use anyhow::{Context, Result, bail};
use disk::Range;
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

const MAGIC: &str = "diskpipe manifest 1";
/// No line is longer, in bytes.
const LINE: u64 = 200;

/// What is known of one block, or of several in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The digest of one.
    Digest(Box<[u8]>),
    /// So many are all zero.
    Zeroes(u64),
}

impl Entry {
    /// How many blocks it is about.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Entry::Digest(_) => 1,
            Entry::Zeroes(count) => *count,
        }
    }
}

/// A manifest that is being written. It appears under its name when it is whole.
pub(crate) struct Written {
    file: BufWriter<Aside>,
    path: PathBuf,
    /// Zeroes that may go on.
    zeroes: u64,
}

impl Written {
    /// Begins one for a disk of this size.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn new(path: &Path, way: Way, size: u64) -> Result<Written> {
        let why = || path.display().to_string();
        let mut file = BufWriter::new(Aside::new(path).with_context(why)?);
        let Way { algorithm, block } = way;
        writeln!(file, "{MAGIC}\nsize {size}\nblock {block}\nalgorithm {}", algorithm.name())
            .with_context(why)?;
        Ok(Written { file, path: path.into(), zeroes: 0 })
    }

    /// The next blocks.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Zeroes(count) => {
                self.zeroes += count;
                return Ok(());
            }
            Entry::Digest(digest) => {
                self.end_zeroes()?;
                writeln!(self.file, "{}", hex(digest))
            }
        }
        .with_context(|| self.path.display().to_string())
    }

    fn end_zeroes(&mut self) -> Result<()> {
        if self.zeroes > 0 {
            let count = std::mem::take(&mut self.zeroes);
            writeln!(self.file, "zero {count}").with_context(|| self.path.display().to_string())?;
        }
        Ok(())
    }

    /// That was all.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn finish(mut self, hash: &str) -> Result<()> {
        self.end_zeroes()?;
        let why = || self.path.display().to_string();
        writeln!(self.file, "blkhash {hash}").with_context(why)?;
        let file = self.file.into_inner().map_err(|e| e.into_error()).with_context(why)?;
        file.finish().with_context(why)
    }
}

/// A manifest that was written before.
pub(crate) struct Manifest<R> {
    pub(crate) way: Way,
    /// Of the disk, in bytes.
    pub(crate) size: u64,
    lines: R,
    /// Blocks that were not read yet.
    left: u64,
}

impl Manifest<BufReader<File>> {
    /// Opens one, and makes sure that it is sound.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let why = || path.display().to_string();
        let mut file = File::open(path).with_context(why)?;
        check(BufReader::new(&file)).with_context(why)?;
        file.rewind().with_context(why)?;
        Manifest::new(BufReader::new(file)).with_context(why)
    }
}

/// Reads a whole manifest. Returns the hash that it ends with.
///
/// # Errors
/// It is damaged, or none.
pub(crate) fn check(lines: impl BufRead) -> Result<String> {
    let mut manifest = Manifest::new(lines)?;
    let mut outer = Outer::new(manifest.way);
    while let Some(entry) = manifest.next()? {
        outer.take(&entry);
    }
    let (size, last) = (manifest.size, manifest.line()?);
    let hash = outer.finish(size);
    if last.strip_prefix("blkhash ") != Some(&hash) || !manifest.line()?.is_empty() {
        bail!("the manifest is damaged: its end does not fit what comes before");
    }
    Ok(hash)
}

/// Reads a manifest. For the fuzzer.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    // Many blocks of zeroes take long, and are no error.
    if !bytes
        .windows(11)
        .any(|window| window.starts_with(b"zero ") && window[5..].iter().all(u8::is_ascii_digit))
    {
        let _ = check(bytes);
    }
}

impl<R: BufRead> Manifest<R> {
    fn new(lines: R) -> Result<Self> {
        let mut it = Manifest { way: Way::default(), size: 0, lines, left: 0 };
        if it.line()? != MAGIC {
            bail!("not a manifest");
        }
        let mut field = |name: &str| -> Result<String> {
            let line = it.line()?;
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            Ok(value.with_context(|| format!("the manifest is damaged: {name} is missing"))?.to_string())
        };
        let (size, block, algorithm) = (field("size")?, field("block")?, field("algorithm")?);
        let number = |text: &str| text.parse().ok().filter(|n| *n <= i64::MAX as u64);
        let damaged = |text: &str| format!("the manifest is damaged: {text}");
        it.size = number(&size).with_context(|| damaged(&size))?;
        it.way.block = number(&block).with_context(|| damaged(&block))?;
        it.way.algorithm = Algorithm::parse(&algorithm).with_context(|| damaged(&algorithm))?;
        if !it.way.is_sound() {
            bail!("{}", damaged(&block));
        }
        it.way.must_suit(it.size)?;
        it.left = it.way.blocks(it.size);
        Ok(it)
    }

    /// The next line; empty at the end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.by_ref().take(LINE).read_line(&mut line).context("the manifest cannot be read")?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.to_string()),
            None if line.is_empty() => Ok(line),
            None => bail!("the manifest is damaged: a line does not end"),
        }
    }

    /// The next blocks; `None` at the end.
    fn next(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        let line = self.line()?;
        let entry = match line.strip_prefix("zero ") {
            Some(count) => count.parse().ok().map(Entry::Zeroes),
            None => unhex(&line).map(Entry::Digest),
        };
        let entry = entry.with_context(|| format!("the manifest is damaged: {line}"))?;
        let blocks = entry.blocks();
        if blocks == 0 || blocks > self.left {
            bail!("the manifest is damaged: it describes more than the disk");
        }
        self.left -= blocks;
        Ok(Some(entry))
    }
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    if text.len() < 32 || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// What a disk should hold, or held; met by what it does hold.
pub(crate) struct Expected {
    manifest: Manifest<BufReader<File>>,
    /// Where it was read to, and what is left of it.
    entry: Option<Entry>,
    /// Differences are wanted, and not wrong.
    wanted: bool,
    changed: Ranges,
}

impl Expected {
    /// Every difference from this manifest is an error.
    pub(crate) fn all_of(manifest: Manifest<BufReader<File>>) -> Expected {
        Expected { manifest, entry: None, wanted: false, changed: Ranges::new() }
    }

    /// The differences from this manifest are looked for.
    pub(crate) fn changes_since(manifest: Manifest<BufReader<File>>) -> Expected {
        Expected { wanted: true, ..Expected::all_of(manifest) }
    }

    pub(crate) fn into_changed(self) -> Ranges {
        self.changed
    }

    /// What the disk holds from block number `at` on. Comes in order.
    ///
    /// # Errors
    /// That is not what it should.
    pub(crate) fn meets(&mut self, at: u64, found: &Entry) -> Result<()> {
        let (mut at, mut left) = (at, found.blocks());
        while left > 0 {
            let entry = match self.entry.take() {
                Some(entry) => entry,
                None => self.manifest.next()?.context("the disk is larger than the manifest says")?,
            };
            let blocks = entry.blocks().min(left);
            let same = match (&entry, found) {
                (Entry::Zeroes(_), Entry::Zeroes(_)) => true,
                (Entry::Digest(a), Entry::Digest(b)) => a == b,
                _ => false,
            };
            if !same {
                let block = self.manifest.way.block;
                let range = Range::new(at * block, blocks * block);
                if !self.wanted {
                    bail!("the disk is not what the manifest says: it differs at {}", range.start);
                }
                self.changed.add(range);
            }
            if entry.blocks() > blocks {
                self.entry = Some(Entry::Zeroes(entry.blocks() - blocks));
            }
            at += blocks;
            left -= blocks;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::hash::Hashes;
    use disk::Data;
    use proptest::prelude::*;

    const WAY: Way = Way { algorithm: Algorithm::Sha256, block: 4096 };

    fn write(path: &Path, bytes: &[u8]) -> String {
        let size = bytes.len() as u64;
        let hashes = Hashes::new(WAY, Some(Written::new(path, WAY, size).unwrap()), None);
        hashes.data(0, &Data::copy_from(bytes));
        hashes.finish(size).unwrap()
    }

    fn disk(size: usize) -> Vec<u8> {
        crate::copy::fake::islands(size, 3)
    }

    #[test]
    fn a_disk_meets_its_own_manifest_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let mut bytes = disk(500_000);
        let hash = write(&path, &bytes);
        assert_eq!(check(BufReader::new(File::open(&path).unwrap())).unwrap(), hash);
        let meet = |bytes: &[u8], expected: fn(Manifest<BufReader<File>>) -> Expected| {
            let hashes = Hashes::new(WAY, None, Some(expected(Manifest::open(&path).unwrap())));
            hashes.data(0, &Data::copy_from(bytes));
            let outcome = hashes.finish(bytes.len() as u64);
            (outcome, hashes.changed())
        };
        assert_eq!(meet(&bytes, Expected::all_of).0.unwrap(), hash);
        bytes[200_000] ^= 1;
        bytes[409_600..450_000].fill(0);
        let wrong = meet(&bytes, Expected::all_of).0.unwrap_err().to_string();
        assert_eq!(wrong, "the disk is not what the manifest says: it differs at 196608");
        let (outcome, changed) = meet(&bytes, Expected::changes_since);
        outcome.unwrap();
        assert!(changed.within(Range::new(196_608, 4096)).count() == 1);
        assert!(changed.bytes() <= 4096 * 12 && changed.iter().all(|r| r.start >= 196_608), "{changed:?}");
    }

    #[test]
    fn a_manifest_that_was_touched_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        write(&path, &disk(50_000));
        let text = std::fs::read_to_string(&path).unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            // Of hexadecimal digits and of names the case does not matter, and is not touched here.
            assert!(check(&*bytes).is_err(), "byte {at}");
            assert!(check(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        assert!(check(format!("{text}more\n").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_manifest_says_it_is_read_or_refused(size in "[0-9]{1,20}", block in 0u32..40,
                rest in "(zero [0-9]{1,4}\n|[0-9a-f]{64}\n){0,5}(blkhash )?.{0,20}") {
            let block = 1u64 << block;
            let _ = check(format!("{MAGIC}\nsize {size}\nblock {block}\nalgorithm sha256\n{rest}").as_bytes());
            let _ = check(rest.as_bytes());
        }
    }
}
