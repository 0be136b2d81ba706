//! Files as the partitions of one disk, with a partition table made for them.

use crate::{
    common::{
        content::mix,
        partition_table::{self, ALIGNMENT, Guid, Layout, MAX_PRIMARY, SECTOR, Wanted},
        regions::Regions,
    },
    file,
};
use disk::{Backend, Client, Disk, Error, Io, Plugin, Range, Result};
use params::{Choice, Kind, Params, Placed, Size, Value, Wrong};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Serve files as the partitions of one disk.
#[derive(Params)]
pub(crate) struct Partitioning {
    /// A file with a partition's content; repeat it for the next.
    #[param(magic, placeholder = "FILENAME")]
    file: Vec<Placed<PathBuf>>,
    /// The kind of partition table; without it MBR for up to four files that fit, else GPT.
    partition_type: Option<TableType>,
    /// The partitions of all following files begin at multiples of this (1M before any is given).
    alignment: Vec<Placed<Size>>,
    /// The type of all following files in an MBR, such as `0x82`, or `default` for `0x83`, Linux.
    mbr_id: Vec<Placed<MbrId>>,
    /// The type of all following files in a GPT, or `default` for `0FC63DAF-8483-4772-8E79-3D69D8477DE4`, Linux.
    type_guid: Vec<Placed<TypeGuid>>,
}

#[derive(Clone, Copy, Choice, PartialEq, Eq)]
enum TableType {
    Mbr,
    Gpt,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct MbrId(u8);

impl MbrId {
    const LINUX: MbrId = MbrId(0x83);
}

impl Value for MbrId {
    const KIND: Kind = Kind::Other("0xN|default");

    fn from_text(text: &str) -> std::result::Result<Self, Wrong> {
        if text == "default" {
            return Ok(MbrId::LINUX);
        }
        u8::from_text(text).map(MbrId).map_err(|_| "not a type such as 0x82, nor default".into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct TypeGuid(Guid);

impl Value for TypeGuid {
    const KIND: Kind = Kind::Other("GUID|default");

    fn from_text(text: &str) -> std::result::Result<Self, Wrong> {
        if text == "default" {
            return Ok(TypeGuid(Guid::LINUX));
        }
        <Guid as Value>::from_text(text).map(TypeGuid)
    }
}

impl Plugin for Partitioning {
    const NAME: &'static str = "partitioning";
    const MANUAL: &'static str = include_str!("partitioning.md");

    fn start(self) -> Result<impl Backend + 'static> {
        if self.file.is_empty() {
            return Err(Error::invalid("at least one file= parameter must be supplied"));
        }
        for Placed { value, .. } in &self.alignment {
            if value.bytes() < SECTOR || !value.bytes().is_multiple_of(SECTOR) {
                return Err(Error::invalid(format!("alignment={value}: not a multiple of the sector, 512")));
            }
        }
        let (mut files, mut wanted) = (Vec::new(), Vec::new());
        for (number, Placed { value: path, place }) in self.file.iter().enumerate() {
            let size = file::open_path(path, true)?.facts().size;
            if size == 0 {
                let why = format!("{}: zero length partitions are not allowed", path.display());
                return Err(Error::invalid(why));
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            wanted.push(Wanted {
                size,
                alignment: before(&self.alignment, *place).map_or(ALIGNMENT, Size::bytes),
                mbr_type: before(&self.mbr_id, *place).unwrap_or(MbrId::LINUX).0,
                gpt_type: before(&self.type_guid, *place).map_or(Guid::LINUX, |guid| guid.0),
                id: identify(&name, size, number as u64 + 1),
                name,
                bootable: number == 0,
            });
            files.push((path.clone(), size));
        }
        let mbr = || partition_table::mbr(&wanted);
        let gpt = || partition_table::gpt(&wanted, identify("", files.len() as u64, 0));
        let layout = match self.partition_type {
            Some(TableType::Mbr) => mbr(),
            Some(TableType::Gpt) => gpt(),
            None if wanted.len() > MAX_PRIMARY => gpt(),
            None => mbr().or_else(|_| gpt()),
        };
        Ok(PartitionedFiles { files, layout: layout? })
    }
}

/// What was given last before this place.
fn before<T: Copy>(given: &[Placed<T>], place: usize) -> Option<T> {
    given.iter().rfind(|one| one.place < place).map(|one| one.value)
}

/// A GUID that stays the same when the server is started again: clients that come back shall find the same disk.
fn identify(name: &str, size: u64, number: u64) -> Guid {
    let seed = name.bytes().fold(mix(size ^ mix(number)), |seed, byte| mix(seed ^ u64::from(byte)));
    Guid::from_random(mix(seed), mix(!seed))
}

struct PartitionedFiles {
    /// With the sizes that they had at the start.
    files: Vec<(PathBuf, u64)>,
    layout: Layout,
}

impl PartitionedFiles {
    fn regions(&self, read_only: bool) -> Result<Regions> {
        let partitions = self.layout.partitions.iter().zip(&self.files);
        let mut pieces: Vec<(u64, Piece<'_>)> =
            partitions.map(|(range, (path, size))| (range.start, Piece::File(path, *size))).collect();
        pieces.extend(self.layout.tables.iter().map(|(at, bytes)| (*at, Piece::Table(bytes))));
        pieces.sort_by_key(|(at, _)| *at);
        let mut regions = Regions::new();
        for (at, piece) in pieces {
            regions.zeroes_to(at)?;
            match piece {
                Piece::Table(bytes) => regions.bytes(bytes)?,
                Piece::File(path, size) => {
                    let disk = file::open_path(path, read_only)?;
                    file::same_size(path, disk.facts().size, size)?;
                    regions.disk_part(disk, Range::new(0, size))?;
                }
            }
        }
        regions.zeroes_to(self.layout.size)?;
        Ok(regions)
    }
}

enum Piece<'a> {
    Table(&'a [u8]),
    File(&'a Path, u64),
}

impl Backend for PartitionedFiles {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let regions = self.regions(client.read_only);
        regions.map(|regions| Arc::new(regions.into_disk()) as Arc<dyn Disk>).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::{Data, Errno, WriteFlags};
    use std::fs;

    fn files(dir: &Path, sizes: &[usize]) -> Vec<String> {
        let make = |(number, size): (usize, &usize)| {
            let path = dir.join(format!("part{number}"));
            fs::write(&path, vec![b'a' + number as u8; *size]).unwrap();
            path.display().to_string()
        };
        sizes.iter().enumerate().map(make).collect()
    }

    #[test]
    fn parameters_hold_for_the_files_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let f = files(dir.path(), &[1, 2, 3]);
        let disk = model::open::<Partitioning>(&[
            ("file", &f[0]),
            ("mbr-id", "0x82"),
            ("alignment", "4K"),
            ("file", &f[1]),
            ("mbr-id", "default"),
            ("file", &f[2]),
        ]);
        let table = model::bytes(&*disk.unwrap(), 0x1be, 48);
        let entry =
            |n: usize| (table[n * 16 + 4], u32::from_le_bytes(table[n * 16 + 8..][..4].try_into().unwrap()));
        assert_eq!([entry(0), entry(1), entry(2)], [(0x83, 2048), (0x82, 2056), (0x83, 2064)]);
    }

    #[test]
    fn partitions_are_writable_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let f = files(dir.path(), &[1000, 2000]);
        for table in ["mbr", "gpt"] {
            let args = [("file", &*f[0]), ("file", &*f[1]), ("partition-type", table)];
            let disk = model::open::<Partitioning>(&args).unwrap();
            let write = |at, bytes: &[u8]| {
                let done = disk.write(at, Data::copy_from(bytes), WriteFlags::default()).wait();
                done.map_err(|e| e.errno())
            };
            write((1 << 20) + 998, b"bb\0\0").unwrap();
            assert!(fs::read(&f[0]).unwrap().ends_with(b"abb") && fs::read(&f[0]).unwrap().len() == 1000);
            fs::write(&f[0], [b'a'; 1000]).unwrap();
            assert_eq!(write((1 << 20) + 1000, b"x"), Err(Errno::IO));
            assert_eq!(write(0x1be, b"xyz"), Err(Errno::IO));
            write(0, &model::bytes(&*disk, 0, 34 * 512)).unwrap();
        }
    }

    #[test]
    fn many_files_or_large_ones_get_a_gpt() {
        let dir = tempfile::tempdir().unwrap();
        let f = files(dir.path(), &[1; 5]);
        let is_gpt = |args: &[(&str, &str)]| {
            model::bytes(&*model::open::<Partitioning>(args).unwrap(), 512, 8) == b"EFI PART"
        };
        let args: Vec<_> = f.iter().map(|f| ("file", f.as_str())).collect();
        assert!(is_gpt(&args) && !is_gpt(&args[..4]));
        assert!(!is_gpt(&[&args[..], &[("partition-type", "mbr")]].concat()));
        let large = fs::OpenOptions::new().write(true).open(&f[0]).unwrap();
        if large.set_len(3 << 40).is_ok() {
            assert!(is_gpt(&args[..1]));
            let error = model::open::<Partitioning>(&[args[0], ("partition-type", "mbr")]).err().unwrap();
            assert!(error.to_string().contains("2 TiB"), "{error}");
        }
    }

    #[test]
    fn what_makes_no_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let f = files(dir.path(), &[0, 1]);
        let refused = |args: &[(&str, &str)]| model::open::<Partitioning>(args).err().unwrap().to_string();
        assert!(refused(&[]).contains("at least one file="));
        assert!(refused(&[("file", &f[0])]).ends_with("part0: zero length partitions are not allowed"));
        for (key, value) in [
            ("alignment", "100"),
            ("alignment", "0"),
            ("alignment", "513"),
            ("mbr-id", "0x100"),
            ("mbr-id", "linux"),
            ("type-guid", "zz"),
            ("partition-type", "foo"),
        ] {
            let error = refused(&[(key, value), ("file", &f[1])]);
            assert!(error.starts_with(&format!("{key}={value}: ")), "{error}");
        }
    }
}
