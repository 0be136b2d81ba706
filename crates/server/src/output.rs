//! What the client is sent: headers and small payloads in one buffer, large payloads lent to the kernel.

use crate::raw::Gather;
use disk::{Data, Piece};
use net::{Stream, Wait};
use reactor::Spin;
use std::io::{self, IoSlice};

/// Payloads up to this size are copied behind their headers: faster than a piece of their own.
const COPY: u64 = 16 << 10;
/// With so many bytes queued it is time to send: a batch of 64 small reads, and no more large ones than the processor's
/// cache holds.
const ENOUGH: u64 = 320 << 10;
/// As much of it in large payloads, over TCP on one host: more does not fit into the socket's bounded buffer, and to wait
/// there in the middle of a payload takes a third of the speed.
const ENOUGH_LOCAL_TCP: u64 = 64 << 10;
/// With so much of it still to be sent out of memory that is lent, a moment's wait for room is polled for: nothing else is
/// to be done, since nothing is copied beforehand. With copies, the other thread makes better use of the core.
const POLL: u64 = 256 << 10;
/// Where others wait for their turn to send, this is.
const AMPLE: u64 = 192 << 10;
const ENOUGH_PARTS: usize = 256;

pub(crate) struct Output {
    bytes: Vec<u8>,
    /// Before `bytes[run..]`: runs of `bytes` and payloads, in order.
    parts: Vec<Part>,
    run: usize,
    queued: u64,
    /// Of the first part (or run): sent already.
    sent: u64,
    gather: Gather,
    /// With so many bytes of large payloads it is time to send.
    enough_large: u64,
    /// Some of it is memory that a disk lends.
    lends: bool,
    /// Looks for room before sleeping, where that pays.
    spin: Spin,
}

enum Part {
    Bytes { start: usize, len: usize },
    Data(Data),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Part::Bytes { len, .. } => *len as u64,
            Part::Data(data) => data.len(),
        }
    }
}

impl Output {
    /// With nothing in it.
    pub(crate) fn new(stream: &Stream) -> Self {
        let enough_large = if stream.is_local_tcp() { ENOUGH_LOCAL_TCP } else { ENOUGH };
        let (bytes, parts, gather) = Default::default();
        let spin = Spin::new();
        Output { bytes, parts, run: 0, queued: 0, sent: 0, gather, enough_large, lends: false, spin }
    }

    /// Where headers go. What is appended counts when [`Output::note`] is called.
    #[inline]
    pub(crate) fn header(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the bytes of a payload.
    pub(crate) fn payload(&mut self, data: Data) {
        let len = data.len();
        if len <= COPY {
            data.pieces().for_each(|piece| piece.append_to(&mut self.bytes));
        } else {
            self.end_run();
            self.queued += len;
            self.lends |= matches!(data.pieces().next(), Some(Piece::Lent(_)));
            self.parts.push(Part::Data(data));
        }
    }

    /// As [`Output::payload`], of one piece of data that the caller has at hand.
    pub(crate) fn piece(&mut self, piece: &Piece<'_>, data: impl FnOnce() -> Data) {
        if piece.len() > COPY {
            return self.payload(data());
        }
        piece.append_to(&mut self.bytes);
    }

    fn end_run(&mut self) {
        if self.run < self.bytes.len() {
            let part = Part::Bytes { start: self.run, len: self.bytes.len() - self.run };
            self.queued += part.len();
            self.parts.push(part);
            self.run = self.bytes.len();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.run == self.bytes.len()
    }

    /// Whether it should be sent before more is added.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.queued >= self.enough_large
            || self.queued + (self.bytes.len() - self.run) as u64 >= ENOUGH
            || self.parts.len() >= ENOUGH_PARTS
    }

    /// Whether sending it is worth a turn.
    pub(crate) fn is_ample(&self) -> bool {
        self.queued >= AMPLE || self.is_large()
    }

    /// Sends as much as goes; all of it with [`Wait::Block`].
    pub(crate) fn send(&mut self, stream: &Stream, wait: Wait) -> io::Result<()> {
        self.end_run();
        let mut first = 0;
        let outcome = loop {
            if first == self.parts.len() {
                break Ok(());
            }
            let polls = wait == Wait::Block && self.lends && self.queued >= POLL && self.spin.is_allowed();
            let sent =
                if polls { self.send_polling(first, stream) } else { self.send_once(first, stream, wait) };
            match sent {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n as u64;
                    while first < self.parts.len() && self.sent >= self.parts[first].len() {
                        self.sent -= self.parts[first].len();
                        self.queued -= self.parts[first].len();
                        // Gives the payload's memory back at once.
                        self.parts[first] = Part::Bytes { start: 0, len: 0 };
                        first += 1;
                    }
                }
                Err(e) => break Err(e),
            }
        };
        self.parts.drain(..first);
        if self.parts.is_empty() {
            self.bytes.clear();
            self.run = 0;
            self.lends = false;
            if self.bytes.capacity() > 4 << 20 {
                self.bytes = Vec::new();
            }
        }
        outcome
    }

    fn send_polling(&mut self, first: usize, stream: &Stream) -> io::Result<usize> {
        let spin = std::mem::take(&mut self.spin);
        let mut attempt = |may_sleep| {
            let wait = if may_sleep { Wait::Block } else { Wait::DontWait };
            match self.send_once(first, stream, wait) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !may_sleep => None,
                done => Some(done),
            }
        };
        let sent = attempt(false).or_else(|| spin.attempt(attempt));
        self.spin = spin;
        sent.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    #[allow(unsafe_code, reason = "the pieces are borrowed from `self` until the call returns")]
    fn send_once(&mut self, first: usize, stream: &Stream, wait: Wait) -> io::Result<usize> {
        if let [Part::Bytes { start, len }] = self.parts[first..] {
            // The usual case has a cheaper call.
            let rest = &self.bytes[start..start + len][self.sent as usize..];
            return stream.send_vectored(&[IoSlice::new(rest)], wait);
        }
        self.gather.clear();
        let mut skip = self.sent;
        for part in &self.parts[first..] {
            match part {
                Part::Bytes { start, len } => {
                    self.gather.bytes(&self.bytes[*start..start + len][skip as usize..]);
                    skip = 0;
                }
                Part::Data(data) => {
                    for piece in data.pieces() {
                        let here = skip.min(piece.len());
                        skip -= here;
                        self.gather.piece(&piece, here);
                    }
                }
            }
            if self.gather.is_full() {
                break;
            }
        }
        // SAFETY: `parts` and `bytes` live in `self` and are not touched before the call returns.
        unsafe { self.gather.send(stream, wait) }
    }
}
