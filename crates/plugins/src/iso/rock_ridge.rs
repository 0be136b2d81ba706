//! What directories say to readers who know Rock Ridge: names, owners, permissions, links and devices as they are.
//!
//! Each fact is a field (SUSP 1.10, RRIP 1.10). Fields that find no room in a record are continued elsewhere.

use super::{SECTOR, both_32, options::Options, records::short_time};
use crate::common::tree::{Node, Tree, What};
use inspect::calendar::Moment;

/// Bytes of a field that says where more fields are.
const CONTINUATION: usize = 28;
/// The longest part of a name or of a link's target in a field.
const LONGEST: usize = 240;
const SECTOR_BYTES: usize = SECTOR as usize;
/// Of the mode: the type, the permissions to read, write and execute.
const TYPE: u32 = 0o170_000;
const READ: u32 = 0o444;
const EXECUTE: u32 = 0o111;

/// What a record is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The root, in itself: here readers find out that this is Rock Ridge.
    Root,
    /// A directory in itself or in one of its own.
    Itself,
    /// Something with a name.
    Named,
}

/// The fields of a record.
pub(super) fn fields(tree: &Tree, options: &Options, node: usize, role: Role) -> Vec<Vec<u8>> {
    let node = &tree.nodes[node];
    let mut fields = Vec::new();
    if role == Role::Root {
        fields.push(field(b"SP", &[0xbe, 0xef, 0]));
    }
    fields.push(owner(node, options));
    fields.push(times(node));
    if role == Role::Named {
        name(&node.name, &mut fields);
        match &node.what {
            What::Link(target) => link(target, &mut fields),
            What::Device(number) => {
                let [major, minor] = [rustix::fs::major(*number), rustix::fs::minor(*number)];
                fields.push(field(b"PN", &[both_32(major), both_32(minor)].concat()));
            }
            _ => {}
        }
    }
    if role == Role::Root {
        fields.push(extension());
    }
    fields
}

/// Puts fields into a record as far as there is room, and the rest at the end of `continued`, which begins at this
/// sector.
pub(super) fn pack(fields: Vec<Vec<u8>>, room: usize, sector: u32, continued: &mut Vec<u8>) -> Vec<u8> {
    // What goes into the record, and into each continuation, which lies within one sector and may go on elsewhere.
    let (mut groups, mut rest) = (Vec::new(), fields);
    loop {
        let room = if groups.is_empty() { room } else { SECTOR_BYTES };
        if rest.iter().map(Vec::len).sum::<usize>() <= room {
            groups.push(rest.concat());
            break;
        }
        let mut len = 0;
        let fits = rest.iter().take_while(|field| {
            len += field.len();
            len + CONTINUATION <= room
        });
        let fits = fits.count();
        groups.push(rest.drain(..fits).collect::<Vec<_>>().concat());
    }
    let mut end = continued.len();
    let last = groups.len() - 1;
    let places: Vec<(usize, usize)> = (1..=last)
        .map(|group| {
            let len = groups[group].len() + if group < last { CONTINUATION } else { 0 };
            if SECTOR_BYTES - end % SECTOR_BYTES < len {
                end = end.next_multiple_of(SECTOR_BYTES);
            }
            end += len;
            (end - len, len)
        })
        .collect();
    continued.resize(end, 0);
    for (group, bytes) in groups.iter_mut().enumerate() {
        if let Some((start, len)) = places.get(group) {
            let at = sector.wrapping_add((start / SECTOR_BYTES) as u32);
            let place = [at, (start % SECTOR_BYTES) as u32, *len as u32].map(both_32).concat();
            bytes.extend(field(b"CE", &place));
        }
        if let Some((start, len)) = group.checked_sub(1).map(|before| places[before]) {
            continued[start..start + len].copy_from_slice(bytes);
        }
    }
    groups.swap_remove(0)
}

fn field(kind: &[u8; 2], content: &[u8]) -> Vec<u8> {
    let mut field = vec![kind[0], kind[1], content.len() as u8 + 4, 1];
    field.extend(content);
    field
}

/// Mode, links and owners.
fn owner(node: &Node, options: &Options) -> Vec<u8> {
    let a = &node.attributes;
    let is_directory = matches!(node.what, What::Directory(_));
    let mut mode = a.mode;
    let (mut uid, mut gid) = (a.uid, a.gid);
    if options.rational {
        let may_execute = is_directory || mode & EXECUTE != 0;
        mode = mode & TYPE | READ | if may_execute { EXECUTE } else { 0 };
        (uid, gid) = (0, 0);
    }
    let wanted = match node.what {
        What::Directory(_) => options.directory_mode,
        What::File(_) => options.file_mode,
        _ => None,
    };
    mode = wanted.map_or(mode, |wanted| mode & TYPE | wanted & !TYPE);
    (uid, gid) = (options.uid.unwrap_or(uid), options.gid.unwrap_or(gid));
    let links = u32::try_from(a.links).unwrap_or(u32::MAX);
    field(b"PX", &[mode, links, uid, gid].map(both_32).concat())
}

/// Of content, access and attributes.
fn times(node: &Node) -> Vec<u8> {
    let a = &node.attributes;
    let times = [a.modified, a.accessed, a.changed].map(|time| short_time(Moment::from_unix(time)));
    field(b"TF", &[&[0x0e][..], &times.concat()].concat())
}

fn name(name: &[u8], fields: &mut Vec<Vec<u8>>) {
    let mut parts = name.chunks(LONGEST).peekable();
    while let Some(part) = parts.next() {
        let goes_on = u8::from(parts.peek().is_some());
        fields.push(field(b"NM", &[&[goes_on], part].concat()));
    }
}

/// Where a link leads, name by name.
fn link(target: &[u8], fields: &mut Vec<Vec<u8>>) {
    let mut components: Vec<Vec<u8>> = Vec::new();
    if target.first() == Some(&b'/') {
        components.push(vec![8, 0]);
    }
    for name in target.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match name {
            b"." => components.push(vec![2, 0]),
            b".." => components.push(vec![4, 0]),
            name => {
                let mut parts = name.chunks(LONGEST).peekable();
                while let Some(part) = parts.next() {
                    let goes_on = u8::from(parts.peek().is_some());
                    components.push([&[goes_on, part.len() as u8], part].concat());
                }
            }
        }
    }
    let mut content: Vec<u8> = Vec::new();
    let mut all = Vec::new();
    for component in components {
        if !content.is_empty() && content.len() + component.len() > LONGEST + 2 {
            all.push(std::mem::take(&mut content));
        }
        content.extend(component);
    }
    all.push(content);
    let last = all.len() - 1;
    let number = |(number, content): (usize, Vec<u8>)| {
        field(b"SL", &[&[u8::from(number < last)], &content[..]].concat())
    };
    fields.extend(all.into_iter().enumerate().map(number));
}

/// The name of the extension, as its readers look for it.
fn extension() -> Vec<u8> {
    let id = b"RRIP_1991A";
    let about = b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
    let source = b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN \
                   PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION.";
    let lens = [id.len() as u8, about.len() as u8, source.len() as u8, 1];
    field(b"ER", &[&lens[..], id, about, source].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a record, with those that it says are elsewhere.
    fn read(record: &[u8], sector: u32, continued: &[u8]) -> Vec<Vec<u8>> {
        let (mut found, mut rest) = (Vec::new(), record);
        while let Some(len) = rest.get(2) {
            let (field, more) = rest.split_at(usize::from(*len));
            rest = more;
            if !field.starts_with(b"CE") {
                found.push(field.to_vec());
                continue;
            }
            let number = |at: usize| u32::from_le_bytes(field[at..at + 4].try_into().unwrap()) as usize;
            let (at, offset, len) = (number(4) - sector as usize, number(12), number(20));
            assert!(rest.is_empty() && offset + len <= SECTOR_BYTES, "within a sector");
            rest = &continued[at * SECTOR_BYTES + offset..][..len];
        }
        found
    }

    #[test]
    fn fields_without_room_are_found_where_the_record_says() {
        let mut continued = Vec::new();
        let mut all = Vec::new();
        for count in 0..60 {
            let fields: Vec<Vec<u8>> =
                (0..count).map(|n| field(b"XX", &vec![n as u8; (n * 37 + count) % 250])).collect();
            let record = pack(fields.clone(), 40 + count, 100, &mut continued);
            assert!(record.len() <= 40 + count);
            all.push((fields, record));
        }
        for (fields, record) in all {
            assert_eq!(read(&record, 100, &continued), fields);
        }
    }

    #[test]
    fn links_keep_every_name() {
        let shown = |target: &[u8]| {
            let mut fields = Vec::new();
            link(target, &mut fields);
            let mut text = Vec::new();
            for field in &fields {
                let mut rest = &field[5..];
                while let [flags, len, more @ ..] = rest {
                    let (name, after) = more.split_at(usize::from(*len));
                    match flags {
                        8 => text.push(b'/'),
                        2 => text.extend(b"./"),
                        4 => text.extend(b"../"),
                        1 => text.extend(name),
                        _ => text.extend([name, b"/"].concat()),
                    }
                    rest = after;
                }
            }
            text
        };
        let long = ["x".repeat(255), "y".repeat(200), "z".repeat(241)].join("/");
        for target in ["a", "../a", "./b/c", "/etc/x", &long, &"ab/".repeat(1300)] {
            let found = String::from_utf8(shown(target.as_bytes())).unwrap();
            assert_eq!(found.trim_end_matches('/'), target.trim_end_matches('/'));
        }
    }
}
