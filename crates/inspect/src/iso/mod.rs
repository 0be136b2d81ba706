//! ISO 9660, with the names of Rock Ridge or else of Joliet.

mod record;
mod rock_ridge;

use crate::{
    About, Entry, File, FileSystem, Kind, Place, Run, Source,
    bytes::{byte, le16, le32, part, text},
    file_system::{Node, Time, Whereabouts, no_directory},
};
use disk::{Error, Range, Result};
use record::Record;
use std::ops::ControlFlow;

/// Volume descriptors, and directories, come in sectors of this many bytes.
const SECTOR: u64 = 2048;
/// A directory has at most so many bytes.
const LARGEST_DIRECTORY: u64 = 256 << 20;

/// Where the content of a file is, and where a link leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    parts: Vec<Range>,
    target: Option<Vec<u8>>,
    /// Compressed by Linux' extension zisofs.
    compressed: bool,
}

/// Which names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
    /// With the number of bytes before each system use area that belong to something else.
    RockRidge(u8),
}

pub(crate) struct Iso {
    source: Source,
    /// Bytes of a logical block.
    block: u64,
    root: Record,
    names: Names,
    about: About,
}

impl Iso {
    /// # Errors
    /// It is none, or it is damaged.
    pub(crate) fn open(source: Source) -> Result<Iso> {
        let (mut primary, mut joliet) = (None, None);
        for number in 16..80 {
            let descriptor = source.bytes(number * SECTOR, SECTOR as usize)?;
            if part(&descriptor, 1, 5) != b"CD001" {
                break;
            }
            match byte(&descriptor, 0) {
                1 => primary = primary.or(Some(descriptor)),
                2 if matches!(part(&descriptor, 88, 3), b"%/@" | b"%/C" | b"%/E") => {
                    joliet = joliet.or(Some(descriptor))
                }
                255 => break,
                _ => {}
            }
        }
        let primary =
            primary.ok_or_else(|| Error::io("the ISO 9660 file system has no primary volume descriptor"))?;
        let block = u64::from(le16(&primary, 128));
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(Error::io("the primary volume descriptor is damaged"));
        }
        let root = |descriptor: &[u8]| {
            Record::parse(part(descriptor, 156, 34), 0)
                .ok_or_else(|| Error::io("the root directory is damaged"))
        };
        let about = About {
            kind: "ISO 9660",
            label: text(part(&primary, 40, 32)),
            uuid: created(&primary),
            notes: Vec::new(),
        };
        let mut iso = Iso { source, block, root: root(&primary)?, names: Names::Plain, about };
        if let Some(skip) = iso.rock_ridge()? {
            iso.names = Names::RockRidge(skip);
        } else if let Some(descriptor) = joliet {
            iso.names = Names::Joliet;
            iso.root = root(&descriptor)?;
        }
        let size = u64::from(le32(&primary, 80)) * block;
        if size > iso.source.size() {
            iso.about.notes.push(format!(
                "the file system is larger than the place that it is in; {} bytes of it are missing",
                size - iso.source.size()
            ));
        }
        Ok(iso)
    }

    /// Whether there are entries of Rock Ridge: the first record of the root directory says so.
    fn rock_ridge(&self) -> Result<Option<u8>> {
        let bytes = self.source.beginning(self.root.start(self.block), SECTOR as usize)?;
        let Some(first) = Record::parse(&bytes, 0) else { return Ok(None) };
        let area = first.system_use();
        // SP, then anything of Rock Ridge, of which PX is always there.
        if part(area, 0, 2) != b"SP" || part(area, 4, 2) != [0xbe, 0xef] {
            return Ok(None);
        }
        let skip = byte(area, 6);
        let found = rock_ridge::read(&self.source, self.block, part(area, 0, area.len()))?;
        Ok(found.mode.is_some().then_some(skip))
    }

    /// The records of a directory, from its extent.
    fn records(&self, extent: Range, each: &mut dyn FnMut(Record) -> Result<ControlFlow<()>>) -> Result<()> {
        if extent.len > LARGEST_DIRECTORY || !extent.lies_within(self.source.size()) {
            return Err(Error::io(format!("a directory of {extent} lies beyond the end")));
        }
        for sector in (0..extent.len).step_by(SECTOR as usize) {
            let bytes = self.source.bytes(extent.start + sector, SECTOR.min(extent.len - sector) as usize)?;
            let mut at = 0;
            while byte(&bytes, at) != 0 {
                let Some(record) = Record::parse(&bytes[at..], extent.start + sector + at as u64) else {
                    return Err(Error::io("the directory is damaged"));
                };
                at += record.length();
                if each(record)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The name and the file of a record; `None` where it is none of its own.
    fn entry(&self, record: &Record) -> Result<Option<Entry>> {
        let extent = Range::new(record.start(self.block), record.size());
        let is_directory = record.is_directory();
        let mut file = File {
            id: if is_directory { extent.start } else { record.at },
            kind: if is_directory { Kind::Directory } else { Kind::Regular },
            permissions: if is_directory { 0o555 } else { 0o444 },
            links: 1,
            uid: 0,
            gid: 0,
            size: extent.len,
            modified: record.time(),
            whereabouts: Whereabouts::Iso(Box::default()),
        };
        let mut extents = Extents { parts: vec![extent], ..Extents::default() };
        let mut name = match self.names {
            Names::Joliet => record.joliet_name(),
            _ => record.plain_name(),
        };
        if let Names::RockRidge(skip) = self.names {
            let area = record.system_use();
            let found = rock_ridge::read(&self.source, self.block, part(area, skip.into(), area.len()))?;
            if found.relocated {
                // Its place is where a link to it stands.
                return Ok(None);
            }
            if !found.name.is_empty() {
                name = found.name;
            }
            if let Some(mode) = found.mode {
                file.kind = match Kind::from_mode(mode) {
                    Kind::Character(..) => Kind::Character(found.device.0, found.device.1),
                    Kind::Block(..) => Kind::Block(found.device.0, found.device.1),
                    kind => kind,
                };
                file.permissions = mode & 0o7777;
                (file.links, file.uid, file.gid) = (found.links, found.uid, found.gid);
            }
            file.modified = found.modified.unwrap_or(file.modified);
            if let Some(child) = found.child {
                let start = child * self.block;
                let own = self.source.beginning(start, SECTOR as usize)?;
                let own = Record::parse(&own, start).ok_or_else(|| Error::io("the directory is damaged"))?;
                file.kind = Kind::Directory;
                file.size = own.size();
                extents.parts = vec![Range::new(start, own.size())];
            }
            if file.kind == Kind::Directory {
                file.id = extents.parts[0].start;
            }
            extents.compressed = found.compressed;
            if file.kind == Kind::Link {
                file.size = found.target.len() as u64;
                extents.target = Some(found.target);
            }
        }
        file.whereabouts = Whereabouts::Iso(Box::new(extents));
        Ok(Some(Entry { name, node: Node::Known(file) }))
    }

    fn extents(file: &File) -> Result<&Extents> {
        match &file.whereabouts {
            Whereabouts::Iso(extents) => Ok(extents),
            _ => Err(Error::invalid("a file of another file system")),
        }
    }
}

impl FileSystem for Iso {
    fn about(&self) -> &About {
        &self.about
    }

    fn source(&self) -> &Source {
        &self.source
    }

    fn root(&self) -> Result<File> {
        let start = self.root.start(self.block);
        // The record in the descriptor has no room for Rock Ridge; the directory's own has.
        let own = self.source.beginning(start, SECTOR as usize)?;
        let own = Record::parse(&own, start).ok_or_else(|| Error::io("the root directory is damaged"))?;
        let extent = Range::new(start, self.root.size());
        let mut root = match self.entry(&own)? {
            Some(Entry { node: Node::Known(file), .. }) => file,
            _ => return Err(Error::io("the root directory is damaged")),
        };
        (root.kind, root.size, root.id) = (Kind::Directory, extent.len, extent.start);
        root.whereabouts = Whereabouts::Iso(Box::new(Extents { parts: vec![extent], ..Extents::default() }));
        Ok(root)
    }

    fn entries(
        &self,
        directory: &File,
        each: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        if !directory.is_directory() {
            return Err(no_directory());
        }
        let extent = Iso::extents(directory)?.parts.first().copied().ok_or_else(no_directory)?;
        // The extents of a file that has several, but for the last.
        let mut parts: Vec<Range> = Vec::new();
        self.records(extent, &mut |record| {
            if record.is_self_or_parent() {
                return Ok(ControlFlow::Continue(()));
            }
            if record.goes_on() {
                parts.push(Range::new(record.start(self.block), record.size()));
                return Ok(ControlFlow::Continue(()));
            }
            let before = std::mem::take(&mut parts);
            let Some(mut entry) = self.entry(&record)? else { return Ok(ControlFlow::Continue(())) };
            if let Node::Known(file) = &mut entry.node
                && let Whereabouts::Iso(extents) = &mut file.whereabouts
                && file.kind == Kind::Regular
            {
                extents.parts.splice(0..0, before);
                file.size = extents.parts.iter().map(|part| part.len).sum();
                if record.is_interleaved() {
                    return Err(Error::invalid("a file is interleaved with others, which is not supported"));
                }
            }
            each(entry)
        })
    }

    fn file(&self, entry: &Entry) -> Result<File> {
        match &entry.node {
            Node::Known(file) => Ok(file.clone()),
            Node::Inode(_) => Err(Error::invalid("a file of another file system")),
        }
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        // Plain names are upper case, and are asked for in either.
        one == other || self.names == Names::Plain && one.eq_ignore_ascii_case(other)
    }

    fn target(&self, link: &File) -> Result<Vec<u8>> {
        Iso::extents(link)?.target.clone().ok_or_else(|| Error::invalid("not a symbolic link"))
    }

    fn run(&self, file: &File, at: u64) -> Result<Run> {
        let extents = Iso::extents(file)?;
        if extents.compressed {
            return Err(Error::invalid("is compressed (zisofs), in a way that is not supported"));
        }
        let mut before = 0;
        for part in &extents.parts {
            if at - before < part.len {
                let within = at - before;
                return Ok(Run { len: part.len - within, place: Place::At(part.start + within) });
            }
            before += part.len;
        }
        Err(Error::io("the content ends before the file does"))
    }
}

/// When the volume was made, which is what udev and blkid take for its UUID: `2024-01-31-12-00-00-00`.
fn created(primary: &[u8]) -> String {
    let digits = text(part(primary, 813, 16));
    if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.bytes().all(|b| b == b'0')
    {
        return String::new();
    }
    let places = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16];
    places.map(|place| &digits[place]).join("-")
}

/// A time in seven bytes.
fn short_time(bytes: &[u8]) -> Time {
    let moment = crate::calendar::Moment {
        year: 1900 + i64::from(byte(bytes, 0)),
        month: byte(bytes, 1),
        day: byte(bytes, 2),
        hour: byte(bytes, 3),
        minute: byte(bytes, 4),
        second: byte(bytes, 5),
    };
    Time { seconds: moment.to_unix() - zone(byte(bytes, 6)), nanoseconds: 0 }
}

/// Seconds that a zone is ahead of UTC: fifteen minutes are the unit, and east is positive. No zone is farther away than
/// 12 hours to the west or 13 to the east; genisoimage writes such for times beyond 2029, which are in UTC.
fn zone(offset: u8) -> i64 {
    let quarters = i64::from(offset as i8);
    if (-48..=52).contains(&quarters) { quarters * 900 } else { 0 }
}
