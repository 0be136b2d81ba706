//! What a disk is, so that it is known again.

use crate::{
    command_line::Word,
    copy::{
        endpoint::Endpoint,
        hash::{Algorithm, hex},
        ranges::Ranges,
    },
};
use anyhow::{Context, Result, bail};
use disk::{Data, Disk, Kind, Range};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// So many places are looked at.
const SAMPLES: u64 = 64;
/// Of each so many bytes.
const SAMPLE: u64 = 4096;
/// How many extents are asked for to find data.
const EXTENTS: usize = 64;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// As on the command line: a path, a URI, a command.
    name: String,
    /// In bytes; of a destination that grows, those of the source.
    pub(crate) size: u64,
    /// Of an export.
    description: Option<String>,
    /// Of a file: device and inode; of a block device: its number.
    file: Option<(u64, u64)>,
    /// When a file was changed last: seconds and nanoseconds of its content, then of its inode.
    changed: Option<(i64, i64, i64, i64)>,
    /// A hash over samples of the content, where nothing else tells whether it is the same.
    samples: Option<String>,
}

impl Identity {
    /// Of the source: all that tells whether it is the same, with the same content.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn of_source(word: &Word, endpoint: &Endpoint, disk: &dyn Disk) -> Result<Identity> {
        let mut identity = Identity::of(word, endpoint, disk.facts().size, disk)?;
        if identity.changed.is_none() {
            identity.samples = Some(samples(disk).context("looking at the source")?);
        }
        Ok(identity)
    }

    /// Of the destination, for a source of this size. Its content is not part of it.
    ///
    /// # Errors
    /// It is a file, and nothing can be found out about it.
    pub(crate) fn of_destination(word: &Word, endpoint: &Endpoint, size: u64) -> Result<Identity> {
        let disk = endpoint.disk().context("the destination is no disk")?;
        let grows = matches!(endpoint, Endpoint::File(file) if file.grows());
        let size = if grows { size } else { disk.facts().size };
        Ok(Identity { changed: None, ..Identity::of(word, endpoint, size, &*disk)? })
    }

    fn of(word: &Word, endpoint: &Endpoint, size: u64, disk: &dyn Disk) -> Result<Identity> {
        let name = match word {
            Word::Command(command) => format!("[ {} ]", command.join(" ")),
            Word::Plain(text) => match endpoint {
                // From wherever the next run is started.
                Endpoint::File(_) => std::fs::canonicalize(text)
                    .with_context(|| word.to_string())?
                    .to_string_lossy()
                    .into_owned(),
                _ => text.to_string_lossy().into_owned(),
            },
        };
        let description = disk.facts().description.as_ref().map(ToString::to_string);
        let mut identity = Identity { name, size, description, file: None, changed: None, samples: None };
        if let Endpoint::File(file) = endpoint {
            let about = file.metadata().with_context(|| word.to_string())?;
            if about.file_type().is_block_device() {
                identity.file = Some((about.rdev(), 0));
            } else {
                identity.file = Some((about.dev(), about.ino()));
                identity.changed =
                    Some((about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()));
            }
        }
        Ok(identity)
    }

    /// What is no longer as it was, if anything.
    pub(crate) fn difference(&self, was: &Identity) -> Option<&'static str> {
        if self.name != was.name {
            Some("it is another one")
        } else if self.size != was.size {
            Some("its size has changed")
        } else if self.description != was.description {
            Some("its description has changed")
        } else if self.file != was.file {
            Some("another file has this name now")
        } else if self.changed != was.changed {
            Some("it has been changed")
        } else if self.samples != was.samples {
            Some("its content has changed")
        } else {
            None
        }
    }

    #[cfg(test)]
    pub(super) fn example(size: u64) -> Identity {
        Identity {
            name: "nbd://x".into(),
            size,
            description: None,
            file: Some((1, u64::MAX)),
            changed: Some((-1, 2, 3, 4)),
            samples: Some("00".into()),
        }
    }
}

/// The first data of a part of the disk; where there are none, its start.
fn sample(disk: &dyn Disk, part: Range) -> disk::Result<Range> {
    let block = u64::from(disk.facts().blocks.minimum);
    let mut start = part.start;
    if disk.facts().extents {
        let extents = disk.extents(part, EXTENTS).wait()?;
        let data = extents.ranges(part.start).find(|(_, kind): &(Range, Kind)| !kind.zero);
        start = data.map_or(part.start, |(range, _)| range.start / block * block);
    }
    Ok(Range::new(start, SAMPLE.next_multiple_of(block).min(part.end() - start)))
}

/// Equal parts of a disk, whole blocks but for its end.
fn parts(disk: &dyn Disk) -> impl Iterator<Item = Range> {
    let facts = disk.facts();
    let step = (facts.size / SAMPLES).max(SAMPLE).next_multiple_of(facts.blocks.minimum.into());
    Range::new(0, facts.size).split_at_multiples(step)
}

/// A hash over where a disk has data, and the first of them, in many places.
fn samples(disk: &dyn Disk) -> disk::Result<String> {
    let mut hash = Algorithm::Sha256.begin();
    for part in parts(disk) {
        let sample = sample(disk, part)?;
        hash.update(&sample.start.to_le_bytes());
        hash.update(&disk.read(sample).wait()?.to_vec());
    }
    Ok(hex(&hash.finalize()))
}

/// Makes sure, in many places, that the destination holds what the source does, where it is said to be copied.
///
/// # Errors
/// It does not, or one of them cannot be read.
pub(crate) fn must_agree(source: &dyn Disk, destination: &dyn Disk, done: &Ranges) -> Result<()> {
    let block = source.facts().blocks.minimum.max(destination.facts().blocks.minimum).into();
    for part in parts(source) {
        let sample = sample(source, part).context("looking at the source")?;
        // All of the sample, or what is copied behind it, in whole blocks.
        let Some(copied) = done.within(part).find(|range| range.end() > sample.start) else { continue };
        let start = copied.start.max(sample.start).next_multiple_of(block);
        let len = SAMPLE.max(block).min(copied.end().saturating_sub(start)) / block * block;
        let range = Range::new(start, len);
        if range.is_empty() {
            continue;
        }
        let here = source.read(range).wait().context("looking at the source")?;
        let there = match range.lies_within(destination.facts().size) {
            true => destination.read(range).wait().context("looking at the destination")?,
            // A new file grows with what is written to it, and there are zeroes behind.
            false => Data::zeroes(len),
        };
        if here.to_vec() != there.to_vec() {
            bail!("it does not hold what was copied to it: it differs at {start}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::fake::{Fake, islands};

    #[test]
    fn other_content_gives_another_sample() {
        let bytes = islands(2 << 20, 3);
        let of = |bytes: &[u8]| samples(&*Fake::new(bytes.to_vec()).open().0).unwrap();
        assert_eq!(of(&bytes), of(&bytes));
        let mut other = bytes.clone();
        let first = other.iter().position(|byte| *byte != 0).unwrap();
        other[first] ^= 1;
        assert_ne!(of(&bytes), of(&other));
        assert_ne!(of(&vec![0; 2 << 20]), of(&vec![0; (2 << 20) + 1]));
        of(&[]);
    }

    #[test]
    fn a_destination_must_hold_what_was_copied_and_nothing_else() {
        let bytes = islands(1 << 20, 9);
        let mut there = bytes.clone();
        there[512 << 10..].fill(0x77);
        let (source, destination) = (Fake::new(bytes).open().0, Fake::new(there).open().0);
        let agree = |done: Range| must_agree(&*source, &*destination, &done.into());
        agree(Range::new(0, 512 << 10)).unwrap();
        assert!(agree(Range::new(0, 1 << 20)).is_err());
        agree(Range::new(0, 0)).unwrap();
    }
}
