//! A disk of no bytes at all.

use crate::one_disk::OneDisk;
use disk::{Backend, Data, Disk, Facts, Io, Plugin, Range, Result};
use params::Params;

/// A read-only disk of zero bytes.
#[derive(Params)]
pub(crate) struct Zero {}

impl Plugin for Zero {
    const NAME: &'static str = "zero";
    const MANUAL: &'static str = include_str!("zero.md");

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(OneDisk::new(ZeroDisk(Facts { cache: true, ..Facts::read_only(0) })))
    }
}

struct ZeroDisk(Facts);

impl Disk for ZeroDisk {
    fn facts(&self) -> &Facts {
        &self.0
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(Data::zeroes(range.len))
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
    fn there_is_nothing_to_read_or_write() {
        let disk = model::open::<Zero>(&[]).unwrap();
        assert_eq!((disk.facts().size, disk.facts().write), (0, false));
    }
}
