//! A server on the client's own thread: it says its next piece when the client has used up the last one and waits.

use super::Ask;
use rustix::pipe::PipeFlags;
use std::{collections::VecDeque, os::fd::OwnedFd, task::Context};

/// The first pieces as the asks say, the rest in pieces of this size.
pub(super) fn pieces<'a>(said: &'a [u8], asks: &[Ask], size: usize) -> VecDeque<&'a [u8]> {
    let mut rest = said;
    let mut pieces = VecDeque::new();
    for ask in asks {
        let (piece, behind) = rest.split_at(ask.answer_len().min(rest.len()));
        if !piece.is_empty() {
            pieces.push_back(piece);
        }
        rest = behind;
    }
    // Too many tiny ones would only take time.
    let (tiny, rest) = rest.split_at((size * 300).min(rest.len()));
    pieces.extend(tiny.chunks(size).chain(rest.chunks(65536)));
    pieces
}

pub(super) struct Feeder<'a> {
    pieces: VecDeque<&'a [u8]>,
    /// To see whether anything is left in the pipe.
    input: OwnedFd,
    output: Option<OwnedFd>,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(pieces: VecDeque<&'a [u8]>) -> (OwnedFd, Feeder<'a>) {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (input, output) = rustix::pipe::pipe_with(flags).expect("descriptors enough");
        let feeder = Feeder { pieces, input: input.try_clone().expect("a descriptor"), output: Some(output) };
        (input, feeder)
    }

    /// Looks whether the client needs more; asks to be called again.
    pub(super) fn feed(&mut self, cx: &Context<'_>) {
        let Some(output) = &self.output else { return };
        cx.waker().wake_by_ref();
        if rustix::io::ioctl_fionread(&self.input).expect("a pipe") > 0 {
            return;
        }
        match self.pieces.pop_front() {
            // After the last one, the stream ends.
            None => self.output = None,
            Some(piece) => {
                let sent = rustix::io::write(output, piece).expect("an empty pipe has room");
                if sent < piece.len() {
                    self.pieces.push_front(&piece[sent..]);
                }
            }
        }
    }
}
