//! Bytes over a disk, in memory: the latest write to each place.

use disk::{Data, Range};
use std::collections::BTreeMap;

/// Pieces of data by where they begin; they do not overlap.
#[derive(Clone, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, Data>,
    bytes: u64,
}

/// What data costs: the mere word "zeroes" costs nothing.
pub(super) fn cost(data: &Data) -> u64 {
    if data.says_zeroes() { 0 } else { data.len() }
}

/// A copy that nobody else changes: a disk may have lent its bytes.
pub(super) fn own(data: &Data) -> Data {
    if data.says_zeroes() { Data::zeroes(data.len()) } else { Data::copy_from(&data.to_vec()) }
}

impl Overlay {
    /// How many bytes of memory its data takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts data over everything.
    pub(super) fn put(&mut self, at: u64, data: &Data) {
        let r = Range::new(at, data.len());
        for (start, old) in self.touching(r) {
            self.pieces.remove(&start);
            self.bytes -= cost(&old);
            if start < r.start {
                self.add(start, old.slice(0, r.start - start));
            }
            let end = start + old.len();
            if end > r.end() {
                self.add(r.end(), old.slice(r.end() - start, end - r.end()));
            }
        }
        self.add(at, data.clone());
    }

    /// Puts data where there is none yet.
    pub(super) fn put_under(&mut self, at: u64, data: &Data) {
        for (part, there) in self.parts(Range::new(at, data.len())) {
            if there.is_none() {
                self.add(part.start, data.slice(part.start - at, part.len));
            }
        }
    }

    /// Puts all of another one where there is none yet.
    pub(super) fn put_all_under(&mut self, below: &Overlay) {
        for (at, data) in &below.pieces {
            self.put_under(*at, data);
        }
    }

    /// Puts all of another one over everything.
    pub(super) fn put_all(&mut self, above: &Overlay) {
        for (at, data) in &above.pieces {
            self.put(*at, data);
        }
    }

    /// A range in parts, each with its data if there is some.
    pub(super) fn parts(&self, r: Range) -> Vec<(Range, Option<Data>)> {
        let mut parts = Vec::new();
        let mut at = r.start;
        for (start, data) in self.touching(r) {
            let Some(part) = Range::new(start, data.len()).intersect(r) else { continue };
            if part.start > at {
                parts.push((Range::new(at, part.start - at), None));
            }
            parts.push((part, Some(data.slice(part.start - start, part.len))));
            at = part.end();
        }
        if at < r.end() {
            parts.push((Range::new(at, r.end() - at), None));
        }
        parts
    }

    /// All that is there, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Data)> {
        self.pieces.iter().map(|(at, data)| (*at, data))
    }

    fn add(&mut self, at: u64, data: Data) {
        self.bytes += cost(&data);
        self.pieces.insert(at, data);
    }

    fn touching(&self, r: Range) -> Vec<(u64, Data)> {
        let before = self.pieces.range(..r.start).next_back();
        let before = before.filter(|(start, data)| **start + data.len() > r.start);
        let inside = self.pieces.range(r.start..r.end());
        before.into_iter().chain(inside).map(|(start, data)| (*start, data.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Random, noise};

    #[test]
    fn it_holds_what_an_array_holds() {
        let mut random = Random(3);
        let (mut overlay, mut model) = (Overlay::default(), vec![None; 400]);
        for round in 0..3000 {
            let start = random.below(380);
            let data = match random.below(4) {
                0 => Data::zeroes(1 + random.below(20)),
                _ => Data::copy_from(&noise(round, 1 + random.below(20) as usize)),
            };
            let under = random.below(3) == 0;
            if under {
                overlay.put_under(start, &data)
            } else {
                overlay.put(start, &data)
            }
            for (place, byte) in model[start as usize..].iter_mut().zip(data.to_vec()) {
                if !under || place.is_none() {
                    *place = Some(byte);
                }
            }
            let r = Range::new(random.below(200), 200);
            let mut at = r.start;
            for (part, data) in overlay.parts(r) {
                assert_eq!(part.start, at);
                let bytes = data.map(|data| data.to_vec());
                for (n, place) in model[part.start as usize..part.end() as usize].iter().enumerate() {
                    assert_eq!(*place, bytes.as_ref().map(|bytes| bytes[n]));
                }
                at = part.end();
            }
            assert_eq!(at, r.end());
            assert_eq!(overlay.bytes(), overlay.iter().map(|(_, data)| cost(data)).sum::<u64>());
        }
    }
}
