//! The smallest plugin with a disk that can be written: memory that the disk lends to whoever reads it.

use crate::common::one_disk::OneDisk;
use disk::{
    Backend, Data, Disk, Error, Facts, Io, Piece, Plugin, Range, Result, WriteFlags, shared::SharedMemory,
};
use params::{Params, Size};
use std::sync::Arc;

/// A disk in memory that all clients share, as an example of a plugin.
#[derive(Params)]
pub(crate) struct Example4 {
    /// The size of the disk.
    #[param(magic)]
    size: Size,
    /// What the disk begins with.
    #[param(default = "")]
    text: String,
}

impl Plugin for Example4 {
    const NAME: &'static str = "example4";
    const MANUAL: &'static str = include_str!("example4.md");

    /// An error is a sentence that names the parameter.
    fn start(self) -> Result<impl Backend + 'static> {
        if self.text.len() as u64 > self.size.bytes() {
            return Err(Error::invalid(format!("text=...: longer than size={}", self.size)));
        }
        let memory =
            usize::try_from(self.size.bytes().max(1)).map_err(|_| std::io::ErrorKind::OutOfMemory.into());
        let memory = memory.and_then(SharedMemory::new);
        let memory = memory.map_err(|e| Error::from(e).context(format!("size={}", self.size)))?;
        memory.write(0, self.text.as_bytes());
        Ok(OneDisk::new(SharedDisk { facts: Facts::writable(self.size.bytes()), memory }))
    }
}

struct SharedDisk {
    facts: Facts,
    memory: Arc<SharedMemory>,
}

impl Disk for SharedDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    /// No copy is made: the bytes go from here to the client's socket.
    fn read(&self, range: Range) -> Io<'_, Data> {
        Io::ok(self.memory.lend(range.start as usize, range.len as usize).into())
    }

    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        let mut at = at as usize;
        for piece in data.pieces() {
            match piece {
                Piece::Bytes(bytes) => self.memory.write(at, bytes),
                Piece::Zeroes(len) => self.memory.clear(at, len as usize),
                // Perhaps lent by this very disk, so it is copied out first.
                Piece::Lent(_) => {
                    let mut copy = Vec::new();
                    piece.append_to(&mut copy);
                    self.memory.write(at, &copy);
                }
            }
            at += piece.len() as usize;
        }
        Io::ok(())
    }

    fn flush(&self) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;

    #[test]
    fn it_begins_with_its_text_and_keeps_what_is_written() {
        let disk = model::open::<Example4>(&[("size", "8"), ("text", "hello")]).unwrap();
        assert_eq!(model::bytes(&*disk, 0, 8), b"hello\0\0\0");
        model::compare(&*model::open::<Example4>(&[("size", "1000001")]).unwrap(), 9, 500);
        let error = model::open::<Example4>(&[("size", "4"), ("text", "hello")]).err().unwrap();
        assert_eq!(error.to_string(), "text=...: longer than size=4");
        assert!(model::open::<Example4>(&[("size", "7E")]).is_err());
    }
}
