//! The directories, as bytes.

use super::{
    layout::{ENTRY, Plan},
    names::{Name, checksum},
};
use crate::common::tree::{Node, ROOT, Tree, What};
use inspect::calendar::Moment;

const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
/// Together they say that an entry is a part of a long name.
const LONG: u8 = 0x0f;

/// All directories one after the other, each filled up to whole clusters.
pub(super) fn all(tree: &Tree, names: &[Name], plan: &Plan, label: [u8; 11]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(plan.directories_size() as usize);
    for directory in tree.directories() {
        debug_assert_eq!(bytes.len() as u64, plan.offset(plan.first[directory]));
        let node = &tree.nodes[directory];
        if directory == ROOT {
            put(&mut bytes, label, LABEL, 0, 0, node);
        } else {
            put(&mut bytes, *b".          ", DIRECTORY, plan.first[directory], 0, node);
            // The root is called 0 here.
            let parent = if node.parent == ROOT { 0 } else { plan.first[node.parent] };
            put(&mut bytes, *b"..         ", DIRECTORY, parent, 0, &tree.nodes[node.parent]);
        }
        for child in tree.children(directory) {
            let (node, name) = (&tree.nodes[*child], &names[*child]);
            if let Some(long) = &name.long {
                put_long(&mut bytes, long, checksum(&name.short));
            }
            let kind = if matches!(node.what, What::Directory(_)) { DIRECTORY } else { ARCHIVE };
            put(&mut bytes, name.short, kind, plan.first[*child], tree.size(*child) as u32, node);
        }
        bytes.resize((bytes.len() as u64).next_multiple_of(plan.cluster()) as usize, 0);
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, name: [u8; 11], kind: u8, cluster: u32, size: u32, node: &Node) {
    let (time, date) = time_and_date(node.attributes.modified);
    let (_, read) = time_and_date(node.attributes.accessed);
    let [low, high] = [cluster as u16, (cluster >> 16) as u16];
    let start = bytes.len();
    bytes.extend(name);
    bytes.extend([kind, 0, 0]);
    // Made, read; then, behind half of the cluster's number, written.
    for number in [time, date, read, high, time, date, low] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(size.to_le_bytes());
    debug_assert_eq!((bytes.len() - start) as u64, ENTRY);
}

/// The end of the name comes first.
fn put_long(bytes: &mut Vec<u8>, name: &[u16], checksum: u8) {
    let count = name.len().div_ceil(13);
    for (number, part) in name.chunks(13).enumerate().rev() {
        // What is left over is a zero and then ones.
        let mut units = [0xffff; 13];
        units[..part.len()].copy_from_slice(part);
        if let Some(end) = units.get_mut(part.len()) {
            *end = 0;
        }
        let unit = |range: std::ops::Range<usize>| units[range].iter().flat_map(|unit| unit.to_le_bytes());
        let last = if number + 1 == count { 0x40 } else { 0 };
        bytes.push((number as u8 + 1) | last);
        bytes.extend(unit(0..5));
        bytes.extend([LONG, 0, checksum]);
        bytes.extend(unit(5..11));
        bytes.extend([0, 0]);
        bytes.extend(unit(11..13));
    }
}

/// As FAT has them: from 1980 to 2107, in steps of 2 seconds.
fn time_and_date(unix: i64) -> (u16, u16) {
    let moment = Moment::from_unix(unix).clamp(Moment::beginning_of(1980), Moment::end_of(2107));
    let [hour, minute, second] = [moment.hour, moment.minute, moment.second / 2].map(u16::from);
    let [month, day] = [moment.month, moment.day].map(u16::from);
    ((hour << 11) | (minute << 5) | second, ((moment.year - 1980) as u16) << 9 | (month << 5) | day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_of_fat_become_the_nearest_that_it_has() {
        assert_eq!(time_and_date(0), (0, (1 << 5) | 1));
        assert_eq!(time_and_date(i64::MAX / 2), ((23 << 11) | (59 << 5) | 29, (127 << 9) | (12 << 5) | 31));
        assert_eq!(time_and_date(951_782_401 + 3600 * 5), (5 << 11, (20 << 9) | (2 << 5) | 29));
    }

    #[test]
    fn a_name_that_fills_its_entries_has_no_end_mark() {
        let name: Vec<u16> = "exactly-13-ch".encode_utf16().collect();
        let mut bytes = Vec::new();
        put_long(&mut bytes, &name, 7);
        assert_eq!((bytes.len(), bytes[0], bytes[13], bytes[30]), (32, 0x41, 7, b'h'));
        put_long(&mut bytes, &[&name[..], &name[..1]].concat(), 7);
        assert_eq!((bytes.len(), bytes[32], bytes[35], bytes[64]), (96, 0x42, 0, 1));
    }
}
