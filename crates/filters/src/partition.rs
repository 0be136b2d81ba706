//! `partition`: a partition of a disk as a disk of its own, found by its number.

use disk::{Backend, Client, Disk, Error, Filter, Io, Result, Window};
use inspect::{Source, partitions};
use params::{ParamError, Params, Size};
use std::sync::Arc;

/// Serve a partition of a disk.
#[derive(Params)]
pub(crate) struct Partition {
    /// The number of the partition, from 1 on. Logical partitions of an MBR begin with 5.
    partition: u32,
    /// The size of a sector of the disk, 512 or 4096, which its partition table is counted in. Without it, it is found out.
    partition_sectorsize: Option<Size>,
}

impl Filter for Partition {
    const NAME: &'static str = "partition";
    const MANUAL: &'static str = include_str!("partition.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        if self.partition == 0 {
            return Err(ParamError::bad("partition", "0", "partitions are counted from 1").into());
        }
        let sector = match self.partition_sectorsize.map(Size::bytes) {
            None => None,
            Some(512) => Some(512),
            Some(4096) => Some(4096),
            Some(other) => {
                let why = "a sector has 512 or 4096 bytes";
                return Err(ParamError::bad("partition-sectorsize", other.to_string(), why).into());
            }
        };
        Ok(Part { number: self.partition, sector, next })
    }
}

struct Part {
    number: u32,
    sector: Option<u32>,
    next: Arc<dyn Backend>,
}

impl Part {
    async fn open(&self, client: &Client<'_>) -> Result<Arc<dyn Disk>> {
        let disk = self.next.open(client).await?;
        let (below, number, sector) = (disk.clone(), self.number, self.sector);
        // The reader of tables waits for what it reads.
        let found = reactor::unblock(move || partition(below, number, sector)).await?;
        let range = found.map_err(|e| e.context(format!("partition={number}")))?;
        Ok(Arc::new(Window::new(disk, range.start, range.len)?))
    }
}

/// Where a partition lies.
fn partition(disk: Arc<dyn Disk>, number: u32, sector: Option<u32>) -> Result<disk::Range> {
    let size = disk.facts().size;
    let Some(table) = partitions::read(&Source::new(disk), sector)? else {
        return Err(Error::invalid("the disk has no partition table"));
    };
    let Some(found) = table.partitions.iter().find(|p| p.number == number) else {
        let numbers: Vec<String> = table.partitions.iter().map(|p| p.number.to_string()).collect();
        let there = if numbers.is_empty() { "none".into() } else { numbers.join(", ") };
        return Err(Error::invalid(format!("the disk has no such partition; there are {there}")));
    };
    match found.range.lies_within(size) {
        true => Ok(found.range),
        false => Err(Error::invalid(format!("it is {}, but the disk ends at {size}", found.range))),
    }
}

impl Backend for Part {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        Io::later(self.open(client))
    }
    fn next(&self) -> Option<&dyn Backend> {
        Some(&*self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, layer, opened};
    use disk::{Data, Range, WriteFlags};

    /// A disk of a mebibyte with an MBR of one partition of 16 sectors, from sector 2 on, and one beyond the end.
    fn disk() -> Arc<Memory> {
        let mut bytes = vec![0; 1 << 20];
        for (entry, start, count) in [(0x1be, 2u32, 16u32), (0x1ce, 2048, 16)] {
            bytes[entry + 4] = 0x83;
            bytes[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
            bytes[entry + 12..entry + 16].copy_from_slice(&count.to_le_bytes());
        }
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[1024..1027].copy_from_slice(b"one");
        Memory::new(bytes)
    }

    #[test]
    fn requests_go_to_the_partition() {
        let memory = disk();
        let disk = opened::<Partition>(&["partition=1"], &memory);
        assert_eq!(disk.facts().size, 16 * 512);
        assert_eq!(disk.read(Range::new(0, 3)).wait().unwrap().to_vec(), b"one");
        disk.write(8191, Data::copy_from(b"!"), WriteFlags::default()).wait().unwrap();
        assert_eq!(memory.bytes()[1024 + 8191], b'!');
        let large = opened::<Partition>(&["partition=1", "partition-sectorsize=4K"], &memory);
        assert_eq!(large.facts().size, 16 * 4096);
    }

    #[test]
    fn a_partition_that_is_not_there_is_refused() {
        let refused = |memory: &Arc<Memory>, number: u32| {
            let layer = layer::<Partition>(&[&format!("partition={number}")], memory).unwrap();
            layer.open(&Client::local("")).wait().err().unwrap().to_string()
        };
        let memory = disk();
        assert_eq!(refused(&memory, 7), "partition=7: the disk has no such partition; there are 1, 2");
        assert_eq!(
            refused(&memory, 2),
            "partition=2: it is 8192 bytes at 1048576, but the disk ends at 1048576"
        );
        let empty = Memory::new(vec![0; 4096]);
        assert_eq!(refused(&empty, 1), "partition=1: the disk has no partition table");
        for (params, why) in [
            (&["partition=0"][..], "partition=0: partitions are counted from 1"),
            (
                &["partition=1", "partition-sectorsize=1K"],
                "partition-sectorsize=1024: a sector has 512 or 4096 bytes",
            ),
            (&[], "partition"),
        ] {
            let error = layer::<Partition>(params, &memory).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
