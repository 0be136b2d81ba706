//! The smallest plugin there is: a fixed disk that can be read. The examples 1 to 4 teach how plugins are written; read
//! them in this order, and `Disk`, `Backend` and `Plugin` of the crate `disk` beside them.

use crate::common::one_disk::OneDisk;
use disk::{Backend, Data, Disk, Facts, Io, Plugin, Range, Result};
use params::Params;

/// A fixed disk of 100 MB with one empty partition, as an example of a plugin.
///
/// A plugin is a struct whose fields are its parameters. This one has none.
#[derive(Params)]
pub(crate) struct Example1 {}

/// In bytes.
const SIZE: u64 = 100 << 20;

/// A partition table: one partition of Linux, from sector 128 on, with 204545 sectors.
const FIRST_SECTOR: [u8; 512] = {
    let mut sector = [0; 512];
    let entry: [u8; 16] = [0, 2, 3, 0, 0x83, 0xbc, 0x31, 0x0c, 0x80, 0, 0, 0, 0x01, 0x1f, 0x03, 0];
    let mut at = 0;
    while at < entry.len() {
        sector[0x1be + at] = entry[at];
        at += 1;
    }
    (sector[510], sector[511]) = (0x55, 0xaa);
    sector
};

impl Plugin for Example1 {
    const NAME: &'static str = "example1";
    const MANUAL: &'static str = include_str!("example1.md");

    /// Looks at the parameters and makes a backend, which opens a disk for each client. `OneDisk` gives the same disk to
    /// all of them.
    fn start(self) -> Result<impl Backend + 'static> {
        Ok(OneDisk::new(FixedDisk { facts: Facts::read_only(SIZE) }))
    }
}

struct FixedDisk {
    facts: Facts,
}

/// A disk says what it is (`facts`) and answers requests. It is asked only for what its facts offer, and only for
/// ranges that lie on it.
impl Disk for FixedDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    /// `Io::ok` answers at once. Zeroes take no memory: `Data` only says how many there are.
    fn read(&self, range: Range) -> Io<'_, Data> {
        let table = Range::new(0, FIRST_SECTOR.len() as u64);
        let Some(part) = range.intersect(table) else { return Io::ok(Data::zeroes(range.len)) };
        let bytes = Data::copy_from(&FIRST_SECTOR[part.start as usize..part.end() as usize]);
        Io::ok(Data::join(vec![bytes, Data::zeroes(range.len - part.len)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn every_part_of_the_disk_is_the_same_disk() {
        let disk = model::open::<Example1>(&[]).unwrap();
        let start = model::bytes(&*disk, 0, 2000);
        assert_eq!((&start[..512], start[512..].iter().all(|b| *b == 0)), (&FIRST_SECTOR[..], true));
        assert_eq!(model::bytes(&*disk, 500, 20), start[500..520]);
        assert_eq!(model::bytes(&*disk, SIZE - 1, 1), [0]);
    }
}
