//! What is to be sent: bytes of ours, and payloads that somebody lends until they are sent.

use super::Memory;
use net::{Stream, Wait};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

#[derive(Default)]
pub(super) struct Output {
    segments: VecDeque<Segment>,
    /// How much of the first is sent.
    sent: usize,
    /// Whether its last word is the goodbye.
    disconnecting: bool,
}

enum Segment {
    Bytes(Vec<u8>),
    Payload(Box<dyn Memory>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Bytes(bytes) => bytes,
            Segment::Payload(memory) => memory.bytes(),
        }
    }
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether nothing is sent of the first, or it is no part of a request.
    pub(super) fn is_whole(&self) -> bool {
        self.sent == 0 && !matches!(self.segments.front(), Some(Segment::Payload(_)))
    }

    pub(super) fn disconnecting(&mut self) {
        self.disconnecting = true;
    }

    pub(super) fn is_disconnecting(&self) -> bool {
        self.disconnecting
    }

    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.sent = 0;
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.segments.push_back(Segment::Bytes(bytes));
        }
    }

    pub(super) fn push_payload(&mut self, memory: Box<dyn Memory>) {
        if !memory.bytes().is_empty() {
            self.segments.push_back(Segment::Payload(memory));
        }
    }

    /// Send what there is room for. Returns how much.
    pub(super) fn send(&mut self, stream: &Stream) -> io::Result<u64> {
        const PIECES: usize = 16;
        let mut total = 0;
        while !self.segments.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, segment) in pieces.iter_mut().zip(&self.segments) {
                let from = if count == 0 { self.sent } else { 0 };
                *piece = IoSlice::new(&segment.bytes()[from..]);
                count += 1;
            }
            match stream.send_vectored(&pieces[..count], Wait::DontWait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
                Ok(n) => {
                    total += n as u64;
                    self.advance(n);
                }
            }
        }
        Ok(total)
    }

    fn advance(&mut self, n: usize) {
        self.sent += n;
        while let Some(first) = self.segments.front() {
            let length = first.bytes().len();
            if self.sent < length {
                break;
            }
            self.sent -= length;
            self.segments.pop_front();
        }
    }
}
