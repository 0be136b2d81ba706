//! The bytes of one read or write: shared, sliceable, and able to say "zeroes" without holding any.

use crate::{
    buf::{Buf, BufMut},
    error::Result,
    shared::Lent,
};
use std::{fmt, sync::Arc};

/// The payload of a request. Cloning shares it.
#[derive(Clone)]
pub struct Data(Repr);

#[derive(Clone)]
enum Repr {
    Zeroes(u64),
    Buf { buf: Buf, start: u32, len: u32 },
    Lent(Lent),
    Rope(Arc<[Data]>, u64),
}

/// A contiguous part of [`Data`].
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    /// So many zeroes.
    Zeroes(u64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes that a disk lends and others may be writing to; for the kernel, or to be copied out.
    Lent(&'a Lent),
}

impl Piece<'_> {
    /// In bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Zeroes(n) => *n,
            Piece::Bytes(b) => b.len() as u64,
            Piece::Lent(l) => l.as_raw().1 as u64,
        }
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy to `out`.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Piece::Zeroes(n) => out.resize(out.len() + *n as usize, 0),
            Piece::Bytes(b) => out.extend_from_slice(b),
            Piece::Lent(l) => l.append_to(out),
        }
    }

    /// Copies it out; `into` has its length.
    pub fn copy_to(&self, into: &mut [u8]) {
        match self {
            Piece::Zeroes(_) => into.fill(0),
            Piece::Bytes(b) => into.copy_from_slice(b),
            Piece::Lent(l) => l.copy_to(into),
        }
    }
}

impl Data {
    /// `len` zeroes, which take no memory.
    #[inline]
    pub const fn zeroes(len: u64) -> Data {
        Data(Repr::Zeroes(len))
    }

    /// A buffer of `len` bytes (below 4 GiB) that `fill` must fill: what it holds before is unspecified.
    #[inline]
    pub fn fill(len: usize, fill: impl FnOnce(&mut [u8])) -> Data {
        let mut buf = BufMut::new(len);
        fill(&mut buf);
        buf.into()
    }

    /// As [`Data::fill`], where filling may fail.
    ///
    /// # Errors
    /// Those of `fill`.
    #[inline]
    pub fn try_fill(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Data> {
        let mut buf = BufMut::new(len);
        fill(&mut buf)?;
        Ok(buf.into())
    }

    /// A copy of these bytes.
    pub fn copy_from(bytes: &[u8]) -> Data {
        Data::fill(bytes.len(), |b| b.copy_from_slice(bytes))
    }

    /// One after the other.
    pub fn join(parts: Vec<Data>) -> Data {
        let mut flat: Vec<Data> = Vec::with_capacity(parts.len());
        for part in parts {
            match part.0 {
                _ if part.is_empty() => {}
                Repr::Rope(inner, _) => flat.extend(inner.iter().cloned()),
                Repr::Zeroes(n) => match flat.last_mut() {
                    Some(Data(Repr::Zeroes(m))) => *m += n,
                    _ => flat.push(Data::zeroes(n)),
                },
                _ => flat.push(part),
            }
        }
        match flat.len() {
            0 => Data::zeroes(0),
            1 => flat.remove(0),
            _ => {
                let len = flat.iter().map(Data::len).sum();
                Data(Repr::Rope(flat.into(), len))
            }
        }
    }

    /// In bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Repr::Zeroes(n) => *n,
            Repr::Buf { len, .. } => u64::from(*len),
            Repr::Lent(lent) => lent.as_raw().1 as u64,
            Repr::Rope(_, len) => *len,
        }
    }

    /// Whether it holds no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it says "zeroes" all through, without looking at bytes.
    #[inline]
    pub fn says_zeroes(&self) -> bool {
        matches!(self.0, Repr::Zeroes(_))
    }

    /// Whether every byte is zero, looking at them where need be.
    pub fn is_zero(&self) -> bool {
        self.pieces().all(|p| match p {
            Piece::Zeroes(_) => true,
            Piece::Bytes(b) => is_zero(b),
            Piece::Lent(l) => {
                let mut copy = BufMut::new(l.as_raw().1);
                l.copy_to(&mut copy);
                is_zero(&copy)
            }
        })
    }

    /// The bytes, where they lie in one piece of ordinary memory: no copy.
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Repr::Buf { buf, start, len } => Some(buf.as_slice(*start as usize, *len as usize)),
            _ => None,
        }
    }

    /// The same bytes in one piece of ordinary memory; a copy where they are not.
    pub fn contiguous(&self) -> Data {
        match &self.0 {
            Repr::Buf { .. } => self.clone(),
            _ => Data::fill(self.len() as usize, |b| self.copy_to(b)),
        }
    }

    /// The parts in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let list = match &self.0 {
            Repr::Rope(parts, _) => &parts[..],
            _ => std::slice::from_ref(self),
        };
        list.iter().map(|data| match &data.0 {
            Repr::Zeroes(n) => Piece::Zeroes(*n),
            Repr::Buf { buf, start, len } => Piece::Bytes(buf.as_slice(*start as usize, *len as usize)),
            Repr::Lent(lent) => Piece::Lent(lent),
            Repr::Rope(..) => unreachable!("`join` makes flat ropes"),
        })
    }

    /// Copies all bytes out; `into` has their length.
    pub fn copy_to(&self, into: &mut [u8]) {
        let mut at = 0;
        for piece in self.pieces() {
            let len = piece.len() as usize;
            piece.copy_to(&mut into[at..at + len]);
            at += len;
        }
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len() as usize];
        self.copy_to(&mut out);
        out
    }

    /// `len` bytes from `start` on (within the data), shared.
    pub fn slice(&self, start: u64, len: u64) -> Data {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len()), "slice outside the data");
        match &self.0 {
            Repr::Zeroes(_) => Data::zeroes(len),
            Repr::Buf { buf, start: first, .. } => {
                Data(Repr::Buf { buf: buf.clone(), start: first + start as u32, len: len as u32 })
            }
            Repr::Lent(lent) => Data(Repr::Lent(lent.slice(start as usize, len as usize))),
            Repr::Rope(parts, _) => {
                let (mut skip, mut want, mut out) = (start, len, Vec::new());
                for part in parts.iter() {
                    let here = part.len().saturating_sub(skip).min(want);
                    if here > 0 {
                        out.push(part.slice(skip, here));
                        want -= here;
                    }
                    skip = skip.saturating_sub(part.len());
                }
                Data::join(out)
            }
        }
    }
}

impl From<BufMut> for Data {
    #[inline]
    fn from(buf: BufMut) -> Data {
        let (buf, len) = buf.into_parts();
        let len = u32::try_from(len).expect("requests are far smaller than 4 GiB");
        Data(Repr::Buf { buf, start: 0, len })
    }
}

impl From<Lent> for Data {
    #[inline]
    fn from(lent: Lent) -> Data {
        Data(Repr::Lent(lent))
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Zeroes(n) => write!(f, "{n} zeroes"),
            Repr::Rope(parts, _) => f.debug_list().entries(parts.iter()).finish(),
            _ => write!(f, "{} bytes", self.len()),
        }
    }
}

/// Whether every byte is zero: 16 bytes at a time, and soon done where they are not.
#[inline]
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut blocks = bytes.chunks_exact(128);
    for block in &mut blocks {
        let mut any = 0u128;
        for word in block.chunks_exact(16) {
            any |= u128::from_ne_bytes(word.try_into().expect("16 bytes"));
        }
        if any != 0 {
            return false;
        }
    }
    blocks.remainder().iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::SharedMemory;

    fn samples() -> Vec<(Data, Vec<u8>)> {
        let memory = SharedMemory::new(4096).unwrap();
        memory.write(0, b"0123456789");
        let rope = Data::join(vec![
            Data::copy_from(b"ab"),
            Data::zeroes(2),
            Data::zeroes(1),
            memory.lend(3, 4).into(),
            Data::zeroes(0),
        ]);
        vec![
            (Data::zeroes(5), vec![0; 5]),
            (Data::copy_from(b"hello"), b"hello".to_vec()),
            (memory.lend(1, 3).into(), b"123".to_vec()),
            (rope, b"ab\0\0\x003456".to_vec()),
        ]
    }

    #[test]
    fn every_slice_of_every_kind_has_the_right_bytes() {
        for (data, bytes) in samples() {
            assert_eq!(data.to_vec(), bytes);
            assert_eq!(data.contiguous().as_bytes().unwrap(), bytes);
            for start in 0..=bytes.len() {
                for end in start..=bytes.len() {
                    let slice = data.slice(start as u64, (end - start) as u64);
                    assert_eq!(slice.to_vec(), &bytes[start..end]);
                    assert_eq!(slice.is_zero(), bytes[start..end].iter().all(|b| *b == 0));
                }
            }
        }
    }

    #[test]
    fn zeroes_stay_zeroes() {
        assert!(Data::zeroes(1 << 40).slice(7, 1 << 39).says_zeroes());
        assert!(Data::join(vec![Data::zeroes(3), Data::zeroes(4)]).says_zeroes());
    }

    #[test]
    fn a_single_byte_anywhere_is_not_zero() {
        let mut bytes = vec![0u8; 300];
        assert!(is_zero(&bytes));
        for at in 0..bytes.len() {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }
}
