//! A disk that holds one byte all over, whatever is written to it: what null, ones, full and zero have in common.

use disk::{Data, Disk, Errno, Extents, Facts, Io, Kind, Range, WriteFlags, ZeroFlags};

/// Reads share this many bytes.
const SHARED: u64 = 256 << 10;

pub(crate) struct Uniform {
    facts: Facts,
    /// [`SHARED`] of them.
    bytes: Data,
    kind: Kind,
    /// What writers are told, if they fail.
    refusal: Option<Errno>,
}

impl Uniform {
    /// A disk that forgets what is written to it.
    pub(crate) fn forgetful(size: u64, byte: u8, kind: Kind) -> Uniform {
        let bytes = match byte {
            0 => Data::zeroes(SHARED),
            byte => Data::fill(SHARED as usize, |into| into.fill(byte)),
        };
        let facts = Facts::capable(size);
        Uniform { facts, bytes, kind, refusal: None }
    }

    /// The same, where whatever changes the disk fails. There is nothing that a flush would make stable.
    pub(crate) fn refusing(self, errno: Errno) -> Uniform {
        let facts = Facts { flush: false, fua: false, ..self.facts };
        Uniform { facts, refusal: Some(errno), ..self }
    }

    /// The same for readers only, who are told nothing of extents.
    pub(crate) fn read_only(self) -> Uniform {
        let refusing = self.refusing(Errno::ROFS);
        let facts = Facts { extents: false, ..refusing.facts.without_write() };
        Uniform { facts, ..refusing }
    }

    fn change(&self) -> Io<'_, ()> {
        self.refusal.map_or(Io::ok(()), Into::into)
    }
}

impl Disk for Uniform {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        if self.bytes.says_zeroes() {
            return Io::ok(Data::zeroes(range.len));
        }
        if range.len <= SHARED {
            return Io::ok(self.bytes.slice(0, range.len));
        }
        let pieces = range.split_at_multiples(SHARED).map(|part| self.bytes.slice(0, part.len));
        Io::ok(Data::join(pieces.collect()))
    }
    fn write(&self, _: u64, _: Data, _: WriteFlags) -> Io<'_, ()> {
        self.change()
    }
    fn zero(&self, _: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.change()
    }
    fn trim(&self, _: Range, _: WriteFlags) -> Io<'_, ()> {
        self.change()
    }
    fn flush(&self) -> Io<'_, ()> {
        self.change()
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
    fn extents(&self, range: Range, _: usize) -> Io<'_, Extents> {
        Io::ok(Extents::one(range.len, self.kind))
    }
}
