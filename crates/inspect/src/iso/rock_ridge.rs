//! Rock Ridge: what a POSIX file system says of a file, in entries behind its record.

use super::{short_time, zone};
use crate::{
    Source,
    bytes::{byte, le32, part},
    file_system::Time,
    path::LONGEST_TARGET,
};
use disk::Result;

/// The entries of one record go on elsewhere so many times at most.
const CONTINUATIONS: usize = 32;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Empty: none.
    pub(super) name: Vec<u8>,
    pub(super) mode: Option<u16>,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: (u32, u32),
    pub(super) target: Vec<u8>,
    pub(super) modified: Option<Time>,
    /// A directory that was moved here because its own place is too deep.
    pub(super) relocated: bool,
    /// The block of such a directory, where its place is.
    pub(super) child: Option<u64>,
    pub(super) compressed: bool,
    /// The last component of the target goes on in the next entry.
    open: bool,
}

/// Reads the entries in `area`, and where they go on.
pub(super) fn read(source: &Source, block: u64, area: &[u8]) -> Result<Found> {
    let mut found = Found::default();
    let mut area = area.to_vec();
    for _ in 0..CONTINUATIONS {
        let Some((at, len)) = found.take(&area, block) else { break };
        area = source.bytes(at, len)?;
    }
    found.name.truncate(255);
    Ok(found)
}

impl Found {
    /// Takes the entries, and says where they go on.
    fn take(&mut self, area: &[u8], block: u64) -> Option<(u64, usize)> {
        let mut rest = area;
        let mut more = None;
        while rest.len() >= 4 {
            let length = usize::from(rest[2]);
            if length < 4 || length > rest.len() {
                break;
            }
            let (entry, behind) = rest.split_at(length);
            match &entry[..2] {
                b"CE" => {
                    let at = u64::from(le32(entry, 4)) * block + u64::from(le32(entry, 12));
                    more = Some((at, le32(entry, 20).min(32 << 10) as usize));
                }
                b"ST" => break,
                b"NM" => match byte(entry, 4) & 6 {
                    0 if self.name.len() <= 255 => self.name.extend(part(entry, 5, length)),
                    // "." and "..", or too long.
                    _ => {}
                },
                b"PX" => {
                    self.mode = Some(le32(entry, 4) as u16);
                    (self.links, self.uid, self.gid) = (le32(entry, 12), le32(entry, 20), le32(entry, 28));
                }
                b"PN" => self.device = device(le32(entry, 4), le32(entry, 12)),
                b"SL" => self.link(part(entry, 5, length)),
                b"TF" => self.modified = modified(byte(entry, 4), part(entry, 5, length)).or(self.modified),
                b"RE" => self.relocated = true,
                b"CL" => self.child = Some(le32(entry, 4).into()),
                b"ZF" => self.compressed = true,
                _ => {}
            }
            rest = behind;
        }
        more
    }

    /// Appends the components of a target.
    fn link(&mut self, components: &[u8]) {
        let mut rest = components;
        while rest.len() >= 2 && (self.target.len() as u64) < LONGEST_TARGET {
            let (flags, len) = (rest[0], usize::from(rest[1]));
            if !self.open && !self.target.is_empty() && !self.target.ends_with(b"/") {
                self.target.push(b'/');
            }
            match flags & 0x0e {
                2 => self.target.push(b'.'),
                4 => self.target.extend(b".."),
                8 => self.target = b"/".to_vec(),
                _ => self.target.extend(part(rest, 2, len)),
            }
            self.open = flags & 1 != 0;
            rest = part(rest, 2 + len, rest.len());
        }
    }
}

/// Programs write the whole number into the lower half, or major and minor number into one half each.
fn device(high: u32, low: u32) -> (u32, u32) {
    match high {
        0 => ((low & 0xf_ff00) >> 8, low & 0xff | low >> 12 & 0xf_ff00),
        _ => (high, low),
    }
}

/// The second of the times that the flags announce, in the short form or the long one.
fn modified(flags: u8, times: &[u8]) -> Option<Time> {
    if flags & 2 == 0 {
        return None;
    }
    let before = usize::from(flags & 1);
    if flags & 0x80 == 0 {
        return Some(short_time(part(times, before * 7, 7)));
    }
    let long = part(times, before * 17, 17);
    let number = |at: usize, len: usize| {
        std::str::from_utf8(part(long, at, len)).ok().and_then(|digits| digits.parse::<i64>().ok())
    };
    let small = |at: usize| number(at, 2).map(|n| n as u8);
    let moment = crate::calendar::Moment {
        year: number(0, 4)?,
        month: small(4)?,
        day: small(6)?,
        hour: small(8)?,
        minute: small(10)?,
        second: small(12)?,
    };
    Some(Time { seconds: moment.to_unix() - zone(byte(long, 16)), nanoseconds: 0 })
}
