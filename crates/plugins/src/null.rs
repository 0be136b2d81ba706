//! A bit bucket: it reads as zeroes, and swallows what is written.

use crate::common::{one_disk::OneDisk, uniform::Uniform};
use disk::{Backend, Kind, Plugin, Result};
use params::{Params, Size};

/// A disk that reads as zeroes and forgets what is written to it.
#[derive(Params)]
pub(crate) struct Null {
    /// The size of the disk.
    #[param(magic, default = "0")]
    size: Size,
}

impl Plugin for Null {
    const NAME: &'static str = "null";
    const MANUAL: &'static str = include_str!("null.md");

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(OneDisk::new(Uniform::forgetful(self.size.bytes(), 0, Kind::HOLE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::{Data, WriteFlags};

    #[test]
    fn what_is_written_is_forgotten() {
        let disk = model::open::<Null>(&[("size", "1M")]).unwrap();
        disk.write(5, Data::copy_from(b"gone"), WriteFlags { fua: true }).wait().unwrap();
        assert!(disk.read(disk.facts().whole()).wait().unwrap().says_zeroes());
        assert_eq!(model::open::<Null>(&[]).unwrap().facts().size, 0);
    }
}
