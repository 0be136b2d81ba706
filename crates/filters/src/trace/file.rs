//! The file of a trace: which parts of a disk were read, each once, in the order of their first reading.
//!
//! A head (the magic number with the version, the size and the identity of the disk, a checksum), then chunks: length,
//! checksum, and pairs of numbers, each with seven bits to the byte, the low ones first. A pair is a part in units of
//! [`UNIT`]: how far from the end of the part before (in a chunk, at first 0) it begins, forwards or backwards, and
//! its length. A file that is cut off is good up to its last whole chunk.

use disk::{Error, Range, Result};
use std::io::Write;

/// Parts begin and end at multiples of this, or at the disk's end.
pub(crate) const UNIT: u64 = 4096;
/// At most so many parts are written or read: 64 MiB of memory, and days of reading.
pub(crate) const MOST_PARTS: usize = 1 << 20;
/// So many parts make a chunk. What waits for being one is lost when the server is killed.
const PARTS_AT_ONCE: usize = 64;
/// "DPTRACE" and the version.
const MAGIC: [u8; 8] = *b"DPTRACE\x01";
/// The longest identity that is kept, in bytes.
const LONGEST_IDENTITY: usize = 4096;

/// What a file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Of the disk, in bytes.
    pub(crate) size: u64,
    /// Of the disk, if it had one.
    pub(crate) identity: Option<String>,
    /// In the order of reading; none overlaps another.
    pub(crate) parts: Vec<Range>,
    /// Why what follows is not among them, if anything does.
    pub(crate) cut: Option<&'static str>,
}

/// A file that is being written.
pub(crate) struct Writer<W> {
    to: W,
    waiting: Vec<Range>,
    written: usize,
}

impl<W: Write> Writer<W> {
    /// Writes the head.
    pub(crate) fn new(mut to: W, size: u64, identity: Option<&str>) -> Result<Writer<W>> {
        let identity = identity.filter(|text| text.len() <= LONGEST_IDENTITY);
        let mut head = MAGIC.to_vec();
        head.extend(size.to_le_bytes());
        // An empty identity and none differ.
        let len = identity.map_or(0, |text| text.len() as u16 + 1);
        head.extend(len.to_le_bytes());
        head.extend(identity.unwrap_or_default().as_bytes());
        head.extend(crc32fast::hash(&head).to_le_bytes());
        to.write_all(&head)?;
        Ok(Writer { to, waiting: Vec::new(), written: 0 })
    }

    /// Adds a part; whether there is room for more.
    pub(crate) fn add(&mut self, part: Range) -> Result<bool> {
        match self.waiting.last_mut() {
            Some(last) if last.end() == part.start => last.len += part.len,
            _ => {
                if self.waiting.len() >= PARTS_AT_ONCE {
                    self.flush()?;
                }
                self.waiting.push(part);
                self.written += 1;
            }
        }
        Ok(self.written < MOST_PARTS)
    }

    /// Writes the parts that wait for a chunk to be full.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut chunk = vec![0; 8];
        let mut before = 0;
        for part in self.waiting.drain(..) {
            let (start, end) = (part.start / UNIT, part.end().div_ceil(UNIT));
            let distance = start.wrapping_sub(before) as i64;
            number(((distance << 1) ^ (distance >> 63)) as u64, &mut chunk);
            number(end - start, &mut chunk);
            before = end;
        }
        let (len, sum) = ((chunk.len() - 8) as u32, crc32fast::hash(&chunk[8..]));
        chunk[..4].copy_from_slice(&len.to_le_bytes());
        chunk[4..8].copy_from_slice(&sum.to_le_bytes());
        self.to.write_all(&chunk)?;
        Ok(self.to.flush()?)
    }
}

fn number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes a number from the front.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if (bits << shift) >> shift != bits {
            return None;
        }
        n |= bits << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

/// Reads a file. An error: this is none, or its head is broken. What is broken further on ends the parts.
pub(crate) fn read(bytes: &[u8]) -> Result<Trace> {
    let why = |text: &str| Error::invalid(text.to_owned());
    let rest = bytes.strip_prefix(&MAGIC[..7]).ok_or_else(|| why("this is not the file of a trace"))?;
    let [version, rest @ ..] = rest else { return Err(why("the file is cut off in its head")) };
    if *version != MAGIC[7] {
        return Err(why("the file was written by a newer version, which this one cannot read"));
    }
    let cut = || why("the file is cut off in its head");
    let (size, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (size, len) = (u64::from_le_bytes(*size), usize::from(u16::from_le_bytes(*len)));
    let (identity, rest) = rest.split_at_checked(len.saturating_sub(1)).ok_or_else(cut)?;
    let (sum, mut rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let head = &bytes[..18 + identity.len()];
    if u32::from_le_bytes(*sum) != crc32fast::hash(head) || size > i64::MAX as u64 {
        return Err(why("the file is damaged in its head"));
    }
    let identity = (len > 0).then(|| String::from_utf8_lossy(identity).into_owned());
    let mut trace = Trace { size, identity, parts: Vec::new(), cut: None };
    let mut seen = super::Seen::default();
    while !rest.is_empty() {
        let Some(chunk) = take_chunk(&mut rest) else {
            trace.cut = Some("it is cut off, as by the end of a server");
            break;
        };
        let Some(parts) = chunk.and_then(|chunk| parts(chunk, size)) else {
            trace.cut = Some("it is damaged");
            break;
        };
        for part in parts {
            // A file of ours has nothing twice; what another has is as good without.
            for new in seen.add(part) {
                if trace.parts.len() >= MOST_PARTS {
                    trace.cut = Some("it has too many parts");
                    return Ok(trace);
                }
                trace.parts.push(new);
            }
        }
    }
    Ok(trace)
}

/// `None`: it is cut off; `Some(None)`: its checksum is wrong.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (sum, after) = after.split_first_chunk::<4>()?;
    let (chunk, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some((crc32fast::hash(chunk) == u32::from_le_bytes(*sum)).then_some(chunk))
}

/// The parts of a chunk; `None` when one lies outside of the disk.
fn parts(mut chunk: &[u8], size: u64) -> Option<Vec<Range>> {
    let mut parts = Vec::new();
    let mut before = 0u64;
    while !chunk.is_empty() {
        let (distance, len) = (take_number(&mut chunk)?, take_number(&mut chunk)?);
        let distance = (distance >> 1) as i64 ^ -((distance & 1) as i64);
        let start = before.checked_add_signed(distance)?;
        before = start.checked_add(len)?;
        let (from, to) = (start.checked_mul(UNIT)?, before.checked_mul(UNIT)?.min(size));
        if from >= to {
            return None;
        }
        parts.push(Range::new(from, to - from));
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(size: u64, identity: Option<&str>, parts: &[Range]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, size, identity).unwrap();
        for part in parts {
            assert!(writer.add(*part).unwrap());
        }
        writer.flush().unwrap();
        bytes
    }

    /// Every second unit, all over the disk.
    fn scattered(count: u64) -> Vec<Range> {
        (0..count).map(|n| Range::new((n * 7919 % count) * 2 * UNIT, UNIT)).collect()
    }

    #[test]
    fn what_is_written_is_read_and_is_small() {
        let (size, parts) = (8 << 30, scattered(1000));
        for identity in [None, Some(""), Some("etag \"1\"")] {
            let bytes = written(size, identity, &parts);
            let expected =
                Trace { size, identity: identity.map(str::to_owned), parts: parts.clone(), cut: None };
            assert_eq!(read(&bytes).unwrap(), expected);
            assert!(bytes.len() < 1000 * 4, "{}", bytes.len());
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_good_up_to_there() {
        let parts = scattered(300);
        let bytes = written(1 << 30, Some("x"), &parts);
        for len in 0..bytes.len() {
            match read(&bytes[..len]) {
                Ok(trace) => {
                    assert!(parts.starts_with(&trace.parts) && trace.parts.len() < 300);
                    assert!(trace.cut.is_some() || trace.parts.len() % PARTS_AT_ONCE == 0, "{len}");
                }
                Err(e) => assert!(len < 24, "{len}: {e}"),
            }
        }
    }

    #[test]
    fn what_is_no_trace_is_told() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(told(b"\x7fELF"), "this is not the file of a trace");
        assert!(told(b"DPTRACE\x02").contains("newer version"));
        let mut bytes = written(1 << 20, None, &[]);
        bytes[10] ^= 1;
        assert_eq!(told(&bytes), "the file is damaged in its head");
    }

    proptest! {
        #[test]
        fn damage_is_noticed_or_harmless(at in 0usize..2000, bit in 0u8..8, count in 1u64..300) {
            let parts = scattered(count);
            let mut bytes = written(1 << 30, Some("x"), &parts);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(trace) = read(&bytes) {
                prop_assert!(parts.starts_with(&trace.parts));
                prop_assert!(trace.cut.is_some());
            }
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            super::super::try_file(&bytes);
        }
    }
}
