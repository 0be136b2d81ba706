//! Where content goes: holes stay holes at the end of a regular file, and are zeroes everywhere else.

use disk::{Data, Piece, data::is_zero};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::AsFd,
};

/// Shorter runs of zeroes among what was read are written.
const SHORT: u64 = 64 << 10;
/// Shorter holes are written: no file system keeps them.
const SHORTEST_HOLE: u64 = 4 << 10;

/// A file that is written from beginning to end.
pub(crate) struct Out {
    file: File,
    /// Behind where the next byte goes there is nothing yet.
    may_skip: bool,
    /// What was skipped last makes the file longer yet.
    skipped: bool,
}

impl Out {
    /// Standard output.
    pub(crate) fn standard() -> io::Result<Out> {
        let mut file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let appends = rustix::fs::fcntl_getfl(&file)?.contains(rustix::fs::OFlags::APPEND);
        let may_skip = !appends
            && file.metadata().is_ok_and(|m| m.is_file())
            && file.stream_position().is_ok_and(|at| file.metadata().is_ok_and(|m| m.len() <= at));
        Ok(Out { file, may_skip, skipped: false })
    }

    /// A regular file that is empty.
    pub(crate) fn new(file: File) -> Out {
        Out { file, may_skip: true, skipped: false }
    }

    /// Appends.
    pub(crate) fn write(&mut self, data: &Data) -> io::Result<()> {
        for piece in data.pieces() {
            match piece {
                Piece::Zeroes(count) => self.zeroes(count)?,
                Piece::Bytes(bytes) => self.bytes(bytes)?,
                Piece::Lent(_) => {
                    let mut bytes = Vec::new();
                    piece.append_to(&mut bytes);
                    self.bytes(&bytes)?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.may_skip && bytes.len() as u64 >= SHORT && is_zero(bytes) {
            return self.zeroes(bytes.len() as u64);
        }
        self.skipped = false;
        self.file.write_all(bytes)
    }

    fn zeroes(&mut self, count: u64) -> io::Result<()> {
        static ZEROES: [u8; SHORT as usize] = [0; SHORT as usize];
        if self.may_skip && count >= SHORTEST_HOLE {
            self.skipped = true;
            let ahead = i64::try_from(count).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.file.seek(SeekFrom::Current(ahead))?;
            return Ok(());
        }
        let mut left = count;
        while left > 0 {
            let step = left.min(SHORT);
            self.file.write_all(&ZEROES[..step as usize])?;
            left -= step;
        }
        self.skipped &= count == 0;
        Ok(())
    }

    /// Gives the file its length.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.skipped {
            let at = self.file.stream_position()?;
            self.file.set_len(at)?;
        }
        Ok(())
    }
}
