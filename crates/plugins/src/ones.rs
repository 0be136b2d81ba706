//! A disk full of one byte, which forgets what is written to it.

use crate::common::{one_disk::OneDisk, uniform::Uniform};
use disk::{Backend, Kind, Plugin, Result};
use params::{Params, Size};

/// A disk that holds 0xff, or another byte, all over.
#[derive(Params)]
pub(crate) struct Ones {
    /// The size of the disk.
    #[param(magic, default = "0")]
    size: Size,
    /// The byte, 0 to 255.
    #[param(default = "0xff")]
    byte: u8,
}

impl Plugin for Ones {
    const NAME: &'static str = "ones";
    const MANUAL: &'static str = include_str!("ones.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let kind = if self.byte == 0 { Kind::ZERO } else { Kind::DATA };
        Ok(OneDisk::new(Uniform::forgetful(self.size.bytes(), self.byte, kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::{Data, WriteFlags};

    #[test]
    fn every_byte_is_the_one_asked_for() {
        let disk = |more: &[(&str, &str)]| model::open::<Ones>(&[&[("size", "1M")], more].concat()).unwrap();
        for (more, byte) in
            [(&[][..], 0xff), (&[("byte", "7")], 7), (&[("byte", "0x80")], 0x80), (&[("byte", "0")], 0)]
        {
            let disk = disk(more);
            disk.write(5, Data::copy_from(b"gone"), WriteFlags::default()).wait().unwrap();
            for len in [1, 4096, 1 << 20] {
                assert!(model::bytes(&*disk, 0, len).iter().all(|b| *b == byte));
            }
        }
        assert!(model::open::<Ones>(&[("byte", "256")]).is_err());
        assert_eq!(model::open::<Ones>(&[]).unwrap().facts().size, 0);
    }
}
