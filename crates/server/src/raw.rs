//! Payload that the kernel copies from and into memory which disks lend. Unsafe, because such memory is not ours.

use disk::{BufMut, Piece, shared::Place};
use net::{RawIoVec, Stream, Wait};
use std::io;

/// So many zeroes are sent at once where a reply must spell them out.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A list of pieces for one `sendmsg`, made again for every call.
#[derive(Default)]
pub(crate) struct Gather(Vec<RawIoVec>);

impl Gather {
    /// The kernel takes no more at once.
    const MOST: usize = 1024;

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= Self::MOST
    }

    fn push(&mut self, ptr: *const u8, len: usize) {
        if len > 0 && !self.is_full() {
            self.0.push(RawIoVec { ptr: ptr.cast_mut(), len });
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.push(bytes.as_ptr(), bytes.len());
    }

    /// `piece` without its first `skip` bytes.
    pub(crate) fn piece(&mut self, piece: &Piece<'_>, skip: u64) {
        let skip = skip as usize;
        match piece {
            Piece::Bytes(bytes) => self.bytes(&bytes[skip..]),
            Piece::Lent(lent) => {
                let (ptr, len) = lent.as_raw();
                // Within what was lent: the caller skips no more than the piece has.
                self.push(ptr.wrapping_add(skip), len - skip);
            }
            Piece::Zeroes(n) => {
                let mut rest = *n as usize - skip;
                while rest > 0 && !self.is_full() {
                    let here = rest.min(ZEROES.len());
                    self.push(ZEROES.as_ptr(), here);
                    rest -= here;
                }
            }
        }
    }

    /// Sends what was gathered.
    ///
    /// # Safety
    /// All pieces must still live, unmoved.
    pub(crate) unsafe fn send(&self, stream: &Stream, wait: Wait) -> io::Result<usize> {
        // SAFETY: the caller keeps the pieces alive; a lender's bytes may change meanwhile, as documented there.
        unsafe { stream.send_raw(&self.0, wait) }
    }
}

/// Where the payload of a write goes.
pub(crate) enum Destination<'d> {
    /// Into the disk.
    Place(Place<'d>),
    /// Into a buffer of ours.
    Buffer(BufMut),
}

impl Destination<'_> {
    pub(crate) fn copy_from(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Destination::Place(place) => place.copy_from(at, bytes),
            Destination::Buffer(buf) => buf[at..at + bytes.len()].copy_from_slice(bytes),
        }
    }

    /// Receives what is missing from byte `at` on, and what follows it into `next`. Returns the bytes received.
    pub(crate) fn receive(
        &mut self,
        at: usize,
        next: &mut [u8],
        stream: &Stream,
        wait: Wait,
    ) -> io::Result<usize> {
        let (ptr, len) = match self {
            Destination::Place(place) => place.as_raw(),
            Destination::Buffer(buf) => (buf.as_mut_ptr(), buf.len()),
        };
        assert!(at <= len);
        let pieces = [
            RawIoVec { ptr: ptr.wrapping_add(at), len: len - at },
            RawIoVec { ptr: next.as_mut_ptr(), len: next.len() },
        ];
        // SAFETY: both pieces are writable while `self` and `next` are borrowed, and no reference into them is used
        // meanwhile; a place's disk keeps its memory.
        unsafe { stream.recv_raw(&pieces, wait) }
    }
}
