//! A disk whose content says where it is: every 8 bytes hold their own offset.

use crate::{content, one_disk::OneDisk};
use disk::{Backend, Data, Disk, Facts, Io, Plugin, Range, Result};
use params::{Params, Size};

/// A read-only disk that holds its own offsets, as 64-bit big-endian numbers.
#[derive(Params)]
pub(crate) struct Pattern {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
}

impl Plugin for Pattern {
    const NAME: &'static str = "pattern";
    const MANUAL: &'static str = include_str!("pattern.md");

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(OneDisk::new(PatternDisk(Facts { cache: true, ..Facts::read_only(self.size.bytes()) })))
    }
}

struct PatternDisk(Facts);

impl Disk for PatternDisk {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(content::read(range, |at, into| content::words(at, into, |word| (word * 8).to_be_bytes())))
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn every_eight_bytes_hold_their_offset() {
        let disk = model::open::<Pattern>(&[("size", "9223372036854775807")]).unwrap();
        let last = disk.facts().size - 7;
        assert_eq!(model::bytes(&*disk, 8, 9), [0, 0, 0, 0, 0, 0, 0, 8, 0]);
        assert_eq!(model::bytes(&*disk, last, 7), last.to_be_bytes()[..7]);
        let whole = model::bytes(&*disk, 0, 1 << 20);
        let mut dice = model::Dice(1);
        for _ in 0..300 {
            let r = dice.range(1 << 20);
            assert!(model::bytes(&*disk, r.start, r.len) == whole[r.start as usize..r.end() as usize], "{r}");
        }
        assert!(!disk.facts().write);
    }
}
