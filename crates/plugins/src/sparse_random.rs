//! Islands of data in a sea of holes, all of it computed from a seed: for trying and timing copies of large disks.

mod layout;

use crate::common::{
    content::{self, Stream, mismatch},
    one_disk::OneDisk,
};
use disk::{
    Backend, Data, Disk, Errno, Error, Extents, Facts, Io, Kind, Piece, Plugin, Range, Result, WriteFlags,
    ZeroFlags,
};
use layout::Layout;
use params::{Params, Size, Value, Wrong};

/// How many runs are looked at for one request for extents, should they all be of one kind.
const MOST_RUNS: usize = 1 << 20;

/// A sparse disk with random data, for testing copies.
#[derive(Params)]
pub(crate) struct SparseRandom {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
    /// The disk follows from this number; without it every start has another disk.
    seed: Option<u64>,
    /// How much of the disk holds data, in percent.
    #[param(default = "10")]
    percent: Percent,
    /// What is data or a hole as a whole, in bytes: a power of 2, at least 1024.
    #[param(default = "4096")]
    blocksize: Size,
    /// How long a run of data is on average.
    #[param(default = "16M")]
    runlength: Size,
    /// Whether each byte of the data is random, rather than each block a random byte repeated.
    #[param(default = "false")]
    random_content: bool,
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Percent(f64);

impl Value for Percent {
    const KIND: params::Kind = params::Kind::Other("PERCENT");

    fn from_text(text: &str) -> std::result::Result<Self, Wrong> {
        let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
        match number.ok().filter(|n| (0.0..=100.0).contains(n)) {
            Some(n) => Ok(Percent(n)),
            None => Err("not a number of percent from 0 to 100".into()),
        }
    }
}

impl Plugin for SparseRandom {
    const NAME: &'static str = "sparse-random";
    const MANUAL: &'static str = include_str!("sparse_random.md");

    fn start(self) -> Result<impl Backend + 'static> {
        if self.runlength.bytes() == 0 {
            return Err(Error::invalid("runlength=0: a run of data must have some length"));
        }
        let block = self.blocksize.bytes();
        if block < 1024 || !block.is_power_of_two() {
            let why = format!("blocksize={}: not a power of 2 that is at least 1024", self.blocksize);
            return Err(Error::invalid(why));
        }
        let facts = Facts::capable(self.size.bytes());
        let seed = content::seed(self.seed);
        let layout = Layout::new(seed, self.percent.0 / 100.0, self.runlength.bytes(), block);
        let content = Stream::new(seed, 2);
        Ok(OneDisk::new(RandomDisk { facts, layout, block, content, random_content: self.random_content }))
    }
}

struct RandomDisk {
    facts: Facts,
    layout: Layout,
    block: u64,
    content: Stream,
    random_content: bool,
}

impl RandomDisk {
    /// The byte that a block repeats; never 0, since that would be a hole.
    #[inline]
    fn byte(&self, block: u64) -> u8 {
        1 + (((self.content.number(block) >> 32) * 255) >> 32) as u8
    }

    /// The content from byte `at` on, which lies within one run of data.
    #[inline]
    fn fill(&self, at: u64, into: &mut [u8]) {
        if self.random_content {
            return self.content.fill(at, into);
        }
        for part in Range::new(at, into.len() as u64).split_at_multiples(self.block) {
            let offset = (part.start - at) as usize;
            into[offset..offset + part.len as usize].fill(self.byte(part.start / self.block));
        }
    }

    /// Whether these bytes are the content from byte `at` on, within one run of data.
    fn is_content(&self, at: u64, bytes: &[u8]) -> bool {
        if self.random_content {
            return content::verify(at, &Data::copy_from(bytes), |at, into| self.content.fill(at, into))
                .is_ok();
        }
        Range::new(at, bytes.len() as u64).split_at_multiples(self.block).all(|part| {
            let (offset, byte) = ((part.start - at) as usize, self.byte(part.start / self.block));
            // No early end, so that it is done in vectors.
            bytes[offset..offset + part.len as usize].iter().fold(0, |all, b| all | (b ^ byte)) == 0
        })
    }

    /// The runs of a range, cut to it.
    fn runs(&self, range: Range) -> impl Iterator<Item = (Range, bool)> {
        let (mut at, end) = (range.start, range.end());
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let run = self.layout.run(at);
            let part = Range::new(at, run.end.min(end) - at);
            at = part.end();
            Some((part, run.data))
        })
    }

    /// Whether written bytes are what the disk holds anyway.
    fn verify_bytes(&self, at: u64, bytes: &[u8]) -> Result<()> {
        for (part, data) in self.runs(Range::new(at, bytes.len() as u64)) {
            let here = &bytes[(part.start - at) as usize..][..part.len as usize];
            let right = if data { self.is_content(part.start, here) } else { disk::data::is_zero(here) };
            if !right {
                return Err(mismatch(part));
            }
        }
        Ok(())
    }

    /// Whether a range is a hole.
    fn verify_hole(&self, range: Range) -> Result<()> {
        match self.runs(range).find(|(_, data)| *data) {
            None => Ok(()),
            Some((part, _)) => {
                Err(Error::new(Errno::IO, format!("trimming or zeroing data that is not zero ({part})")))
            }
        }
    }
}

impl Disk for RandomDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn read(&self, range: Range) -> Io<'_, Data> {
        let first = self.layout.run(range.start);
        if first.end >= range.end() {
            return Io::ok(match first.data {
                true => content::read(range, |at, into| self.fill(at, into)),
                false => Data::zeroes(range.len),
            });
        }
        let parts = self.runs(range).map(|(part, data)| match data {
            true => content::read(part, |at, into| self.fill(at, into)),
            false => Data::zeroes(part.len),
        });
        Io::ok(Data::join(parts.collect()))
    }

    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        if let Some(bytes) = data.as_bytes() {
            return self.verify_bytes(at, bytes).into();
        }
        let mut at = at;
        for piece in data.pieces() {
            let verified = match piece {
                Piece::Zeroes(len) => self.verify_hole(Range::new(at, len)),
                Piece::Bytes(bytes) => self.verify_bytes(at, bytes),
                Piece::Lent(_) => {
                    let mut copy = disk::BufMut::new(piece.len() as usize);
                    piece.copy_to(&mut copy);
                    self.verify_bytes(at, &copy)
                }
            };
            if let Err(e) = verified {
                return e.into();
            }
            at += piece.len();
        }
        Io::ok(())
    }

    fn zero(&self, range: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.verify_hole(range).into()
    }

    fn trim(&self, range: Range, _: WriteFlags) -> Io<'_, ()> {
        self.verify_hole(range).into()
    }

    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }

    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }

    fn extents(&self, range: Range, limit: usize) -> Io<'_, Extents> {
        let mut extents = Extents::new();
        for (part, data) in self.runs(range).take(MOST_RUNS) {
            extents.push(part.len, if data { Kind::DATA } else { Kind::HOLE });
            if extents.len() > limit {
                break;
            }
        }
        Io::ok(extents)
    }
}

#[cfg(test)]
mod tests;
