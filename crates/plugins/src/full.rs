//! A disk that has run out of space.

use crate::common::{one_disk::OneDisk, uniform::Uniform};
use disk::{Backend, Errno, Kind, Plugin, Result};
use params::{Params, Size};

/// A disk that reads as zeroes and has no space for anything else.
#[derive(Params)]
pub(crate) struct Full {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
}

impl Plugin for Full {
    const NAME: &'static str = "full";
    const MANUAL: &'static str = include_str!("full.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let disk = Uniform::forgetful(self.size.bytes(), 0, Kind::HOLE);
        Ok(OneDisk::new(disk.refusing(Errno::NOSPC)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::{Data, Range, WriteFlags, ZeroFlags};

    #[test]
    fn everything_that_writes_finds_no_space() {
        let disk = model::open::<Full>(&[("size", "1M")]).unwrap();
        let range = Range::new(0, 512);
        let outcomes = [
            disk.write(0, Data::zeroes(512), WriteFlags::default()),
            disk.zero(range, ZeroFlags::default()),
            disk.trim(range, WriteFlags::default()),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.wait().unwrap_err().errno(), Errno::NOSPC);
        }
        assert!(disk.read(range).wait().unwrap().says_zeroes());
    }
}
