//! The requests of a random sequence, eight bytes each.

use conformance::{Random, Step};
use disk::{Data, Facts, Range, WriteFlags, ZeroFlags};

/// What, where, how long, how, and whether anybody waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Request([u8; Request::LEN]);

impl Request {
    pub const LEN: usize = 8;

    pub fn decode(bytes: &[u8]) -> Request {
        Request(bytes.try_into().expect("eight bytes"))
    }

    /// By which connection.
    pub fn disk(self) -> usize {
        self.flag(7).into()
    }

    /// 0: the request is dropped; 1 and 2: others are made meanwhile.
    pub fn care(self) -> u8 {
        self.0[6] % 8
    }

    /// How often it is looked at before it is dropped.
    pub fn polls(self) -> u8 {
        self.0[6] >> 3 & 7
    }

    fn flag(self, bit: u8) -> bool {
        self.0[5] & (1 << bit) != 0
    }

    /// What these facts allow of it.
    pub fn step(self, facts: &Facts) -> Option<Step> {
        let [kind, at @ .., _, _, _] = self.0;
        let range = range(at, facts)?;
        let fua = facts.fua && self.flag(0);
        Some(match kind % 12 {
            0..=2 => Step::Read(range),
            3..=5 if facts.write => {
                let data = if self.flag(1) {
                    Data::zeroes(range.len)
                } else {
                    Random::new(self.0[7].into()).bytes(range.len)
                };
                let data = if self.flag(3) { halves(data) } else { data };
                Step::Write { at: range.start, data, fua, placed: self.flag(2) }
            }
            6 | 7 if facts.zero => {
                let fast = facts.fast_zero && self.flag(1);
                Step::Zero(range, ZeroFlags { fua, may_trim: self.flag(2), fast })
            }
            8 if facts.trim => Step::Trim(range, WriteFlags { fua }),
            9 if facts.flush => Step::Flush,
            10 if facts.cache => Step::Cache(range),
            11 if facts.extents => Step::Extents(range, 1 + usize::from(self.0[7] % 9)),
            _ => return None,
        })
    }
}

/// A range that the disk takes: 12 bits of where, at bytes or pages, and 12 of how long.
fn range([a, b, c, d]: [u8; 4], facts: &Facts) -> Option<Range> {
    let unit = u64::from(facts.blocks.minimum);
    let places = facts.size / unit;
    let (at, len) = (u64::from(u16::from_be_bytes([a, b])), u64::from(u16::from_be_bytes([c, d])));
    let start = match at >> 14 {
        // Where layers with blocks of their own go wrong.
        0 => (at & 0x3f) * 4096 / unit,
        1 => (at & 0x1ff) * 512 / unit,
        2 => places.checked_sub(1 + (at & 0xfff))?,
        _ => at & 0x3fff,
    };
    let left = places.checked_sub(start)?;
    let most = left.min(u64::from(facts.blocks.maximum) / unit);
    let len = match len >> 14 {
        0 => 1 + (len & 0xff),
        1 => (1 + (len & 7)) * 4096 / unit,
        2 => most,
        _ => 1 + (len & 0x3fff),
    };
    let len = len.min(most);
    (len > 0).then_some(Range::new(start * unit, len * unit))
}

/// The same bytes in two pieces, the first of which says zeroes where it is zero.
fn halves(data: Data) -> Data {
    let half = data.len() / 2;
    let (first, second) = (data.slice(0, half), data.slice(half, data.len() - half));
    Data::join(vec![if first.is_zero() { Data::zeroes(half) } else { first }, second])
}
