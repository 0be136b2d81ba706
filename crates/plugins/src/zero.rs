//! A disk of no bytes at all.

use crate::common::{one_disk::OneDisk, uniform::Uniform};
use disk::{Backend, Kind, Plugin, Result};
use params::Params;

/// A read-only disk of zero bytes.
#[derive(Params)]
pub(crate) struct Zero {}

impl Plugin for Zero {
    const NAME: &'static str = "zero";
    const MANUAL: &'static str = include_str!("zero.md");

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(OneDisk::new(Uniform::forgetful(0, 0, Kind::HOLE).read_only()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn there_is_nothing_to_read_or_write() {
        let disk = model::open::<Zero>(&[]).unwrap();
        assert_eq!((disk.facts().size, disk.facts().write), (0, false));
    }
}
