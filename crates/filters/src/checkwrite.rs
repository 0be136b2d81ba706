//! `checkwrite`: writes succeed only if they change nothing, to test programs that copy.

use crate::common::wrap::{difference, each_read_only};
use disk::{Backend, Data, Disk, Error, Facts, Filter, Io, Range, Result, WriteFlags, ZeroFlags};
use params::Params;
use std::sync::Arc;

/// Compare what is written with what is there.
#[derive(Params)]
pub(crate) struct CheckWrite;

impl Filter for CheckWrite {
    const NAME: &'static str = "checkwrite";
    const MANUAL: &'static str = include_str!("checkwrite.md");

    fn start(self, next: Arc<dyn Backend>) -> Result<impl Backend + 'static> {
        Ok(each_read_only(next, |disk, client| {
            let facts = Facts {
                write: true,
                flush: true,
                fua: true,
                trim: true,
                zero: true,
                fast_zero: true,
                // Nothing ever changes.
                multi_conn: true,
                ..disk.facts().clone()
            };
            let facts = if client.read_only { facts.without_write() } else { facts };
            Ok(Arc::new(Comparing { facts, next: disk }))
        }))
    }
}

struct Comparing {
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl Comparing {
    fn compare(&self, r: Range, data: Option<Data>) -> Io<'_, ()> {
        if !self.facts.write {
            return Error::io("this client may only read").into();
        }
        Io::later(async move {
            match difference(&*self.next, r, data.as_ref()).await? {
                None => Ok(()),
                Some(at) => {
                    Err(Error::io(format!("what is written differs from what is there at byte {at}")))
                }
            }
        })
    }
}

impl Disk for Comparing {
    disk::forward!(next: next, read, cache, extents, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.compare(Range::new(at, data.len()), Some(data))
    }
    fn place(&self, _: Range) -> Option<disk::shared::Place<'_>> {
        None
    }
    fn zero(&self, r: Range, _: ZeroFlags) -> Io<'_, ()> {
        self.compare(r, None)
    }
    fn trim(&self, r: Range, _: WriteFlags) -> Io<'_, ()> {
        self.compare(r, None)
    }
    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{Memory, noise, opened};

    #[test]
    fn only_what_is_there_can_be_written() {
        let mut bytes = noise(1, 3 << 20);
        bytes[1 << 20..2 << 20].fill(0);
        let memory = Memory::new(bytes.clone());
        let disk = opened::<CheckWrite>(&[], &memory);
        let flags = WriteFlags::default();
        disk.write(5, Data::copy_from(&bytes[5..(3 << 20) - 9]), flags).wait().unwrap();
        disk.zero(Range::new(1 << 20, 1 << 20), ZeroFlags::default()).wait().unwrap();
        disk.trim(Range::new(1 << 20, 1 << 20), flags).wait().unwrap();
        let mut other = bytes[..2 << 20].to_vec();
        other[1_234_567] ^= 1;
        let why = disk.write(0, Data::copy_from(&other), flags).wait().unwrap_err().to_string();
        assert_eq!(why, "what is written differs from what is there at byte 1234567");
        disk.zero(Range::new((1 << 20) - 512, 1024), ZeroFlags::default()).wait().unwrap_err();
        assert_eq!(memory.bytes(), bytes);
    }
}
