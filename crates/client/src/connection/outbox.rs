//! Requests on their way out: many small ones gathered into one send, large payloads from where they lie.

use disk::{Data, Piece};
use net::{Stream, Wait};
use proto::{HeaderStyle, Request};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

/// Payloads up to this size are copied behind their header; that is cheaper than a piece of their own.
const COPIED: usize = 16 << 10;
/// How many pieces go into one send.
const PIECES: usize = 64;
/// With this many bytes waiting, sending does not wait for more.
pub(super) const PLENTY: usize = 256 << 10;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// What is still to be sent, in order.
#[derive(Default)]
pub(super) struct Outbox {
    segments: VecDeque<Segment>,
    /// The bytes of all [`Segment::Gathered`], one after the other.
    gathered: Vec<u8>,
    /// How many bytes of `gathered` were sent.
    gathered_sent: usize,
    queued: usize,
}

enum Segment {
    /// The next so many bytes of `gathered`.
    Gathered(usize),
    /// A payload in one piece of memory, sent from the given byte on.
    Data(Data, usize),
    /// Zeroes.
    Zeroes(u64),
}

impl Outbox {
    /// Append a request and its payload. Bytes that a disk lends are copied: they may change before they are
    /// sent, and a server that answers "written" must have been sent what was there when it was asked.
    pub(super) fn push(&mut self, style: HeaderStyle, request: &Request, payload: Option<&Data>) {
        let before = self.gathered.len();
        request.encode_into(style, &mut self.gathered);
        self.note_gathered(before);
        let Some(payload) = payload else { return };
        if payload.len() <= COPIED as u64 {
            let before = self.gathered.len();
            for piece in payload.pieces() {
                match piece {
                    Piece::Bytes(bytes) => self.gathered.extend_from_slice(bytes),
                    other => {
                        let at = self.gathered.len();
                        self.gathered.resize(at + other.len() as usize, 0);
                        other.copy_to(&mut self.gathered[at..]);
                    }
                }
            }
            self.note_gathered(before);
            return;
        }
        let mut at = 0;
        for piece in payload.pieces() {
            let len = piece.len();
            match piece {
                Piece::Zeroes(n) => self.segments.push_back(Segment::Zeroes(n)),
                Piece::Bytes(_) => self.segments.push_back(Segment::Data(payload.slice(at, len), 0)),
                Piece::Lent(_) => {
                    self.segments.push_back(Segment::Data(payload.slice(at, len).contiguous(), 0));
                }
            }
            at += len;
        }
        self.queued += payload.len() as usize;
    }

    /// Append bytes that are no request header: the payload of a BLOCK_STATUS.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        let before = self.gathered.len();
        self.gathered.extend_from_slice(bytes);
        self.note_gathered(before);
    }

    fn note_gathered(&mut self, before: usize) {
        let len = self.gathered.len() - before;
        self.queued += len;
        match self.segments.back_mut() {
            Some(Segment::Gathered(n)) => *n += len,
            _ => self.segments.push_back(Segment::Gathered(len)),
        }
    }

    /// Bytes not sent yet.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Forget everything: the connection is over.
    pub(super) fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Send until all is sent or (without waiting) there is no room. Returns whether all was sent.
    pub(super) fn send(&mut self, stream: &Stream, wait: Wait) -> io::Result<bool> {
        while self.queued > 0 {
            let sent = match self.send_once(stream, wait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
            };
            self.sent(sent);
        }
        Ok(true)
    }

    fn send_once(&self, stream: &Stream, wait: Wait) -> io::Result<usize> {
        // Not by `as_slices`: the queue is a ring, and one segment in its first slice need not be all.
        if let (1, Some(Segment::Gathered(_))) = (self.segments.len(), self.segments.front()) {
            return stream.send_vectored(&[IoSlice::new(&self.gathered[self.gathered_sent..])], wait);
        }
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut used = 0;
        let mut gathered = self.gathered_sent;
        for segment in &self.segments {
            if used == PIECES {
                break;
            }
            let piece = match segment {
                Segment::Gathered(n) => {
                    gathered += n;
                    &self.gathered[gathered - n..gathered]
                }
                Segment::Data(data, sent) => data.as_bytes().map_or(&[][..], |bytes| &bytes[*sent..]),
                Segment::Zeroes(n) => &ZEROES[..(*n).min(ZEROES.len() as u64) as usize],
            };
            pieces[used] = IoSlice::new(piece);
            used += 1;
            // A long run of zeroes needs several pieces: the rest goes with the next send.
            if matches!(segment, Segment::Zeroes(n) if *n > piece.len() as u64) {
                break;
            }
        }
        stream.send_vectored(&pieces[..used], wait)
    }

    /// Drop the first `n` bytes.
    fn sent(&mut self, mut n: usize) {
        self.queued -= n;
        while n > 0 {
            let Some(first) = self.segments.front_mut() else { break };
            let (whole, part) = match first {
                Segment::Gathered(len) => {
                    let part = n.min(*len);
                    self.gathered_sent += part;
                    *len -= part;
                    (*len == 0, part)
                }
                Segment::Data(data, sent) => {
                    let part = n.min(data.len() as usize - *sent);
                    *sent += part;
                    (*sent as u64 == data.len(), part)
                }
                Segment::Zeroes(len) => {
                    let part = n.min(*len as usize);
                    *len -= part as u64;
                    (*len == 0, part)
                }
            };
            n -= part;
            if whole {
                self.segments.pop_front();
            }
        }
        if self.gathered_sent == self.gathered.len() {
            self.gathered.clear();
            self.gathered_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Command, CommandFlags};

    #[test]
    fn order_holds_when_the_queue_goes_round() {
        let (near, far) = Stream::pair().unwrap();
        let large = Data::fill(COPIED + 1, |b| b.fill(7));
        let request = Request {
            flags: CommandFlags::NONE,
            command: Command::Write,
            cookie: 1,
            offset: 0,
            length: large.len(),
        };
        let (mut outbox, mut expected, mut got) = (Outbox::default(), Vec::new(), Vec::new());
        let mut buffer = vec![0; 1 << 20];
        for round in 1..50 {
            for _ in 0..round % 4 {
                outbox.push(HeaderStyle::Compact, &request, Some(&large));
                request.encode_into(HeaderStyle::Compact, &mut expected);
                expected.extend(large.to_vec());
            }
            while !outbox.send(&near, Wait::DontWait).unwrap() {
                let n = far.recv(&mut buffer, Wait::DontWait).unwrap();
                got.extend_from_slice(&buffer[..n]);
            }
            while let Ok(n) = far.recv(&mut buffer, Wait::DontWait) {
                got.extend_from_slice(&buffer[..n]);
            }
            assert!(got == expected, "round {round}");
        }
    }

    #[test]
    fn everything_arrives_in_order_through_a_narrow_pipe() {
        let (near, far) = Stream::pair().unwrap();
        let big = Data::fill(300_000, |b| b.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8));
        let payloads = [
            Data::copy_from(b"small"),
            big.clone(),
            Data::zeroes(200_000),
            Data::join(vec![big.slice(7, 50_000), Data::zeroes(3), big.slice(0, 20_000)]),
            Data::copy_from(b"end"),
        ];
        let (mut outbox, mut expected, mut got) = (Outbox::default(), Vec::new(), Vec::new());
        let mut buffer = vec![0; 70_001];
        for (i, payload) in payloads.iter().cycle().take(61).enumerate() {
            let request = Request {
                flags: CommandFlags::NONE,
                command: Command::Write,
                cookie: i as u64,
                offset: 0,
                length: payload.len(),
            };
            outbox.push(HeaderStyle::Compact, &request, Some(payload));
            request.encode_into(HeaderStyle::Compact, &mut expected);
            expected.extend(payload.to_vec());
            // A little is sent in between, so that the queue is often begun again in its middle.
            outbox.send(&near, Wait::DontWait).unwrap();
            let n = far.recv(&mut buffer, Wait::DontWait).unwrap();
            got.extend_from_slice(&buffer[..n]);
        }
        loop {
            let all = outbox.send(&near, Wait::DontWait).unwrap();
            while let Ok(n) = far.recv(&mut buffer, Wait::DontWait) {
                got.extend_from_slice(&buffer[..n]);
            }
            if all {
                break;
            }
        }
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        assert_eq!((outbox.queued(), outbox.gathered.len()), (0, 0));
    }
}
