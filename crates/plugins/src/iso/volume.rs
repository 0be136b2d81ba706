//! What readers look at first: the descriptors from sector 16 on.

use super::{SECTOR, both_16, both_32, layout::Layout, names::Reader, options::Options, records};
use crate::common::tree::{ROOT, Tree};
use inspect::calendar::Moment;

/// The sector of the first descriptor.
pub(super) const FIRST: u64 = 16;
const SECTOR_BYTES: usize = SECTOR as usize;
/// Who made it, unless somebody else says so.
const APPLICATION: &str = "DISKPIPE";

/// How many sectors the descriptors take.
pub(super) fn count(options: &Options) -> u64 {
    if options.boot.is_empty() { 3 } else { 4 }
}

/// All descriptors.
pub(super) fn descriptors(
    tree: &Tree,
    layout: &Layout,
    options: &Options,
    catalog: Option<usize>,
) -> Vec<u8> {
    let mut all = volume(tree, layout, options, Reader::Plain);
    if let Some(catalog) = catalog {
        all.extend(boot(layout.sector(catalog)));
    }
    all.extend(volume(tree, layout, options, Reader::Joliet));
    all.extend(sector(vec![255, b'C', b'D', b'0', b'0', b'1', 1]));
    all
}

fn sector(mut bytes: Vec<u8>) -> Vec<u8> {
    debug_assert!(bytes.len() <= SECTOR_BYTES);
    bytes.resize(SECTOR_BYTES, 0);
    bytes
}

/// Where the list of what can be booted is (El Torito).
fn boot(catalog: u32) -> Vec<u8> {
    let mut b = b"\0CD001\x01EL TORITO SPECIFICATION".to_vec();
    b.resize(71, 0);
    b.extend(catalog.to_le_bytes());
    sector(b)
}

/// What the volume is, and where its root directory and tables of paths are.
fn volume(tree: &Tree, layout: &Layout, options: &Options, reader: Reader) -> Vec<u8> {
    let place = layout.view(reader);
    let text = |text: &str, len| padded(text, len, reader);
    let application = if options.application.is_empty() { APPLICATION } else { &options.application };
    let mut d = vec![if reader == Reader::Plain { 1 } else { 2 }];
    d.extend(b"CD001\x01\0");
    d.extend(text(&options.system, 32));
    d.extend(text(&options.volume, 32));
    d.extend([0; 8]);
    d.extend(both_32((layout.size / SECTOR) as u32));
    // That names are UCS-2 (level 3).
    let escape: &[u8] = if reader == Reader::Joliet { b"%/E" } else { b"" };
    d.extend(escape);
    d.resize(120, 0);
    d.extend(both_16(1));
    d.extend(both_16(1));
    d.extend(both_16(SECTOR as u16));
    d.extend(both_32(place.paths_len));
    d.extend(place.paths[0].to_le_bytes());
    d.extend([0; 4]);
    d.extend(place.paths[1].to_be_bytes());
    d.extend([0; 4]);
    d.extend(records::root(tree, layout, reader));
    debug_assert_eq!(d.len(), 190);
    d.extend(text(&options.volume_set, 128));
    d.extend(text(&options.publisher, 128));
    d.extend(text(&options.preparer, 128));
    d.extend(text(application, 128));
    for file in [&options.copyright, &options.abstract_file, &options.bibliography] {
        d.extend(text(file, 37));
    }
    let time = long_time(Moment::from_unix(tree.nodes[ROOT].attributes.modified));
    let never = [&[b'0'; 16][..], &[0]].concat();
    // Made, changed; it does not expire, and may be used from the beginning.
    for time in [&time, &time, &never, &time] {
        d.extend(time);
    }
    d.extend([1, 0]);
    sector(d)
}

/// Filled up with blanks; for Joliet in two bytes each.
fn padded(text: &str, len: usize, reader: Reader) -> Vec<u8> {
    let mut bytes: Vec<u8> = match reader {
        Reader::Plain => text.bytes().take(len).collect(),
        Reader::Joliet => text.encode_utf16().take(len / 2).flat_map(u16::to_be_bytes).collect(),
    };
    let blank: &[u8] = if reader == Reader::Plain { b" " } else { b"\0 " };
    while bytes.len() + blank.len() <= len {
        bytes.extend(blank);
    }
    bytes.resize(len, 0);
    bytes
}

/// A time in digits, with hundredths of seconds.
fn long_time(time: Moment) -> Vec<u8> {
    let time = time.clamp(Moment::beginning_of(1), Moment::end_of(9999));
    let Moment { year, month, day, hour, minute, second } = time;
    let mut text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00").into_bytes();
    text.push(0);
    text
}
