//! What a disk should hold, and the requests that are made of both.

use crate::{checks::soon, random::Random};
use disk::{Data, Disk, Errno, Error, Extents, Facts, Io, Range, WriteFlags, ZeroFlags};

/// A disk up to this size is modelled whole; of larger ones three parts of this size.
const WHOLE: u64 = 2 << 20;
const PART: u64 = 256 << 10;

/// The bytes of a disk, or of some areas of a large one.
#[derive(Clone)]
pub struct Model {
    areas: Vec<(u64, Vec<u8>)>,
}

/// One request.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads.
    Read(Range),
    /// Writes; by way of a place where `placed` and the disk has one.
    Write {
        /// From this byte on.
        at: u64,
        /// What.
        data: Data,
        /// Whether it must be stable at once.
        fua: bool,
        /// Whether to receive it into the disk's own place.
        placed: bool,
    },
    /// Zeroes.
    Zero(Range, ZeroFlags),
    /// Trims.
    Trim(Range, WriteFlags),
    /// Flushes.
    Flush,
    /// Caches.
    Cache(Range),
    /// Asks for extents.
    Extents(Range, usize),
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// Of a read.
    Data(Data),
    /// Of a question for extents.
    Extents(Extents),
    /// Of all others.
    Done,
}

impl Step {
    /// Any request that the facts offer, within `area`.
    pub fn random(random: &mut Random, facts: &Facts, area: Range) -> Step {
        let range = random.range(area, facts.blocks, 64 << 10);
        let fua = facts.fua && random.once_in(4);
        loop {
            return match random.below(16) {
                0..=4 => Step::Read(range),
                5..=8 if facts.write => {
                    let data =
                        if random.once_in(8) { Data::zeroes(range.len) } else { random.bytes(range.len) };
                    Step::Write { at: range.start, data, fua, placed: random.once_in(2) }
                }
                9..=10 if facts.zero => {
                    let fast = facts.fast_zero && random.once_in(3);
                    Step::Zero(range, ZeroFlags { fua, may_trim: random.once_in(2), fast })
                }
                11 if facts.trim => Step::Trim(range, WriteFlags { fua }),
                12 if facts.flush => Step::Flush,
                13 if facts.cache => Step::Cache(range),
                14 if facts.extents => Step::Extents(range, 1 + random.below(8) as usize),
                15 => Step::Read(random.range(area, facts.blocks, 4096)),
                _ => continue,
            };
        }
    }

    /// Asks `disk`.
    pub fn ask<'a>(&self, disk: &'a dyn Disk) -> Io<'a, Answer> {
        match self.clone() {
            Step::Read(r) => disk.read(r).map(|data| Ok(Answer::Data(data))),
            Step::Write { at, data, fua, placed } => {
                let flags = WriteFlags { fua };
                let range = Range::new(at, data.len());
                match if placed { disk.place(range) } else { None } {
                    Some(place) => {
                        place.copy_from(0, data.contiguous().as_bytes().unwrap_or_default());
                        disk.placed(range, flags)
                    }
                    None => disk.write(at, data, flags),
                }
                .map(|()| Ok(Answer::Done))
            }
            Step::Zero(r, flags) => disk.zero(r, flags).map(|()| Ok(Answer::Done)),
            Step::Trim(r, flags) => disk.trim(r, flags).map(|()| Ok(Answer::Done)),
            Step::Flush => disk.flush().map(|()| Ok(Answer::Done)),
            Step::Cache(r) => disk.cache(r).map(|()| Ok(Answer::Done)),
            Step::Extents(r, limit) => disk.extents(r, limit).map(|e| Ok(Answer::Extents(e))),
        }
    }

    /// The bytes it may change.
    pub fn touches(&self) -> Option<Range> {
        match self {
            Step::Write { at, data, .. } => Some(Range::new(*at, data.len())),
            Step::Zero(r, _) | Step::Trim(r, _) => Some(*r),
            _ => None,
        }
    }

    /// What those bytes are afterwards, where that is known.
    pub fn becomes(&self) -> Option<Vec<u8>> {
        match self {
            Step::Write { data, .. } => Some(data.to_vec()),
            Step::Zero(r, _) => Some(vec![0; r.len as usize]),
            _ => None,
        }
    }
}

impl Model {
    /// Reads what the disk holds now.
    pub fn of(disk: &dyn Disk) -> Model {
        let facts = disk.facts();
        let unit = u64::from(facts.blocks.minimum).max(4096);
        let size = facts.size;
        let areas = if size <= WHOLE {
            vec![Range::new(0, size)]
        } else {
            let middle = size / 2 / unit * unit;
            let end = (size - PART).next_multiple_of(unit);
            vec![Range::new(0, PART), Range::new(middle, PART.min(end - middle)), Range::new(end, size - end)]
        };
        let areas = areas.into_iter().filter(|area| !area.is_empty());
        Model { areas: areas.map(|area| (area.start, read_all(disk, area))).collect() }
    }

    /// The modelled areas; at least one unless the disk is empty.
    pub fn areas(&self) -> impl Iterator<Item = Range> + '_ {
        self.areas.iter().map(|(start, bytes)| Range::new(*start, bytes.len() as u64))
    }

    /// One of the areas.
    pub fn any_area(&self, random: &mut Random) -> Range {
        let area = self.areas().nth(random.below(self.areas.len() as u64) as usize);
        area.expect("there is an area")
    }

    /// What the range, within one area, should hold.
    pub fn bytes(&self, range: Range) -> &[u8] {
        let (start, bytes) = self.area_of(range);
        &self.areas[start].1[bytes]
    }

    /// The range now holds these bytes.
    pub fn set(&mut self, range: Range, new: &[u8]) {
        let (area, within) = self.area_of(range);
        self.areas[area].1[within].copy_from_slice(new);
    }

    fn area_of(&self, range: Range) -> (usize, std::ops::Range<usize>) {
        let area = self.areas().position(|area| area.start <= range.start && range.end() <= area.end());
        let area = area.expect("requests stay in one area");
        let start = (range.start - self.areas[area].0) as usize;
        (area, start..start + range.len as usize)
    }

    /// Holds an answer against the model, and takes over what a write did.
    pub fn check(&mut self, disk: &dyn Disk, step: &Step, answer: Result<Answer, Error>) {
        match (step, answer) {
            (Step::Zero(_, ZeroFlags { fast: true, .. }), Err(e)) if e.errno() == Errno::NOTSUP => {}
            (_, Err(e)) => panic!("{step:?} failed: {e}"),
            (Step::Read(r), Ok(Answer::Data(data))) => same(&data, self.bytes(*r), *r, "read"),
            (Step::Extents(r, limit), Ok(Answer::Extents(extents))) => {
                crate::checks::extents::check(&extents, *r, *limit, |zero| {
                    self.bytes(zero).iter().all(|b| *b == 0)
                });
            }
            (Step::Trim(r, _), Ok(_)) => self.adopt(disk, *r, None),
            (step, Ok(_)) => {
                if let (Some(range), Some(new)) = (step.touches(), step.becomes()) {
                    self.set(range, &new);
                }
            }
        }
    }

    /// After a request whose outcome is not known: each byte is the old or the new one, and stays so.
    pub fn adopt(&mut self, disk: &dyn Disk, range: Range, new: Option<&[u8]>) {
        let now = read_all(disk, range);
        if let Some(new) = new {
            for (i, ((now, old), new)) in now.iter().zip(self.bytes(range)).zip(new).enumerate() {
                let at = range.start + i as u64;
                assert!(
                    now == old || now == new,
                    "byte {at} is {now:#04x}, neither old {old:#04x} nor new {new:#04x}"
                );
            }
        }
        no_poison(&now, range);
        self.set(range, &now);
    }

    /// Reads all areas and compares.
    pub fn compare(&self, disk: &dyn Disk) {
        for area in self.areas() {
            same(&Data::copy_from(&read_all(disk, area)), self.bytes(area), area, "the whole");
        }
    }
}

/// Reads a range in as large requests as the disk takes.
pub(crate) fn read_all(disk: &dyn Disk, range: Range) -> Vec<u8> {
    let step = u64::from(disk.facts().blocks.maximum).min(1 << 20);
    let mut bytes = Vec::with_capacity(range.len as usize);
    for part in range.split_at_multiples(step) {
        bytes.extend(soon(disk.read(part)).unwrap_or_else(|e| panic!("reading {part} failed: {e}")).to_vec());
    }
    bytes
}

/// Fails with the first byte that differs.
pub(crate) fn same(data: &Data, expected: &[u8], range: Range, what: &str) {
    let got = data.to_vec();
    assert_eq!(got.len(), expected.len(), "{what}: {range}");
    if let Some(i) = (0..got.len()).find(|i| got[*i] != expected[*i]) {
        let (at, is, should) = (range.start + i as u64, got[i], expected[i]);
        panic!("{what} of {range}: byte {at} is {is:#04x} and should be {should:#04x}");
    }
}

/// Fails when bytes that nobody wrote look like those of a recycled buffer. (Debug builds fill such with 0xDE.)
pub(crate) fn no_poison(bytes: &[u8], range: Range) {
    if let Some(i) = bytes.windows(12).position(|w| w.iter().all(|b| *b == 0xDE)) {
        panic!("{range}: bytes of a recycled buffer at {}", range.start + i as u64);
    }
}
