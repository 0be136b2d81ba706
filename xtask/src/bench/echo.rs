//! The limit: a server that does the least any server can do. One thread per connection takes all requests that have come
//! with one receive, believes what they say, and sends all answers at once. Where it holds a file, payload is read and
//! written with one system call per request.

use super::load::send_all;
use anyhow::Result;
use net::{Listener, Stop, Stream, Wait};
use proto::{
    Command, Extent, HeaderStyle, ReplyTo, Request,
    handshake::{
        ExportInfo,
        server::{Event, Policy, ServerHandshake},
    },
};
use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    ops::{Deref, DerefMut},
    os::unix::fs::FileExt,
    sync::{PoisonError, RwLock},
};

/// Payloads up to this size are copied behind their headers.
const SMALL: usize = 16 << 10;
/// Larger ones go through a buffer that stays in the processor's cache.
const PIECE: usize = 256 << 10;

/// What is served.
pub(super) enum Image {
    Memory(RwLock<Pages>),
    File(File),
}

/// Memory in whole pages: the kernel copies a third faster to and from those.
pub(super) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    pub(super) fn new(len: usize) -> Pages {
        let bytes = vec![0; len + 4096];
        Pages { start: bytes.as_ptr().align_offset(4096), bytes, len }
    }
}

impl Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Image {
    fn size(&self) -> Result<u64> {
        Ok(match self {
            Image::Memory(bytes) => bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64,
            Image::File(file) => file.metadata()?.len(),
        })
    }
}

/// Serves until it is killed.
pub(super) fn serve(listeners: &[Listener], image: &Image) -> Result<()> {
    let stop = Stop::new()?;
    std::thread::scope(|scope| {
        loop {
            if let Some((_, stream)) = net::accept_any(listeners, &stop, None)? {
                // How a client leaves is its own business.
                scope.spawn(move || drop(converse(&stream, image)));
            }
        }
    })
}

fn converse(stream: &Stream, image: &Image) -> Result<()> {
    let mut machine = ServerHandshake::new(Policy { extended_headers: false, ..Policy::default() });
    let mut room = Pages::new(256 << 10);
    let style = loop {
        let event = machine.next()?;
        stream.send_all(&machine.take_output())?;
        match event {
            Event::NeedInput => match stream.recv(&mut room, Wait::Block)? {
                0 => return Ok(()),
                n => machine.feed(&room[..n]),
            },
            Event::Export { .. } => machine.export(export(image)?)?,
            Event::MetaContexts { .. } => machine.contexts(&[proto::meta_context::BASE_ALLOCATION])?,
            Event::Ready(negotiated) => break negotiated.replies,
            _ => return Ok(()),
        }
    };
    let first = machine.take_input();
    room[..first.len()].copy_from_slice(&first);
    let mut echo = Echo { stream, image, room, have: first.len(), out: Vec::new(), piece: Pages::new(PIECE) };
    loop {
        if !echo.answer_all(|request| ReplyTo { style, cookie: request.cookie, offset: request.offset })? {
            return Ok(());
        }
        match stream.recv(&mut echo.room[echo.have..], Wait::Block)? {
            0 => return Ok(()),
            n => echo.have += n,
        }
    }
}

fn export(image: &Image) -> Result<ExportInfo> {
    use proto::TransmissionFlags as F;
    let flags = F::HAS_FLAGS.with_if(true, F::SEND_FLUSH);
    Ok(ExportInfo { size: image.size()?, flags, block_sizes: None, name: None, description: None })
}

struct Echo<'a> {
    stream: &'a Stream,
    image: &'a Image,
    room: Pages,
    have: usize,
    out: Vec<u8>,
    piece: Pages,
}

impl Echo<'_> {
    /// Answers what has come as a whole; `false`: the client has left.
    fn answer_all(&mut self, to: impl Fn(&Request) -> ReplyTo) -> Result<bool> {
        let mut at = 0;
        while let Some(request) = Request::decode(HeaderStyle::Compact, &self.room[at..self.have])? {
            let body = at + HeaderStyle::Compact.request_len();
            let (offset, len) = (request.offset as usize, request.length as usize);
            match request.command {
                Command::Read => {
                    at = body;
                    to(&request).data(&mut self.out, true, request.offset, len as u32);
                    self.read(offset, len)?;
                }
                Command::Write if body + len > self.have && len > SMALL => {
                    self.send()?;
                    self.write_from_socket(body, offset, len)?;
                    at = 0;
                    to(&request).done(&mut self.out);
                }
                Command::Write if body + len > self.have => break,
                Command::Write => {
                    at = body + len;
                    let payload = &self.room[body..at];
                    match self.image {
                        Image::Memory(bytes) => {
                            let mut bytes = bytes.write().unwrap_or_else(PoisonError::into_inner);
                            bytes[offset..offset + len].copy_from_slice(payload);
                        }
                        Image::File(file) => file.write_all_at(payload, request.offset)?,
                    }
                    to(&request).done(&mut self.out);
                }
                Command::BlockStatus => {
                    at = body;
                    let everything = [Extent { length: request.length, status: 0 }];
                    to(&request).block_status(&mut self.out, true, 1, &everything);
                }
                Command::Disc => return Ok(false),
                _ => {
                    at = body;
                    to(&request).done(&mut self.out);
                }
            }
        }
        self.room.copy_within(at..self.have, 0);
        self.have -= at;
        self.send()?;
        Ok(true)
    }

    fn send(&mut self) -> Result<()> {
        self.stream.send_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn read(&mut self, offset: usize, len: usize) -> Result<()> {
        match self.image {
            Image::Memory(bytes) => {
                let bytes = bytes.read().unwrap_or_else(PoisonError::into_inner);
                let payload = &bytes[offset..offset + len];
                if len <= SMALL {
                    self.out.extend_from_slice(payload);
                } else {
                    let mut pieces = [IoSlice::new(&self.out), IoSlice::new(payload)];
                    send_all(self.stream, &mut pieces)?;
                    self.out.clear();
                }
            }
            Image::File(file) if len <= SMALL => {
                let start = self.out.len();
                self.out.resize(start + len, 0);
                file.read_exact_at(&mut self.out[start..], offset as u64)?;
            }
            Image::File(file) => {
                for done in (0..len).step_by(PIECE) {
                    let piece = &mut self.piece[..(len - done).min(PIECE)];
                    file.read_exact_at(piece, (offset + done) as u64)?;
                    send_all(self.stream, &mut [IoSlice::new(&self.out), IoSlice::new(piece)])?;
                    self.out.clear();
                }
            }
        }
        Ok(())
    }

    /// The payload that begins at `body` goes straight to where it belongs, what follows it into the emptied buffer.
    fn write_from_socket(&mut self, body: usize, offset: usize, len: usize) -> Result<()> {
        let here = std::mem::take(&mut self.have) - body;
        match self.image {
            Image::Memory(bytes) => {
                let mut bytes = bytes.write().unwrap_or_else(PoisonError::into_inner);
                let to = &mut bytes[offset..offset + len];
                to[..here].copy_from_slice(&self.room[body..body + here]);
                self.have = receive(self.stream, &mut to[here..], &mut self.room)?;
            }
            Image::File(file) => {
                self.piece[..here].copy_from_slice(&self.room[body..body + here]);
                let mut have = here;
                for done in (0..len).step_by(PIECE) {
                    let piece = &mut self.piece[..(len - done).min(PIECE)];
                    let room = if done + piece.len() == len { &mut self.room[..] } else { &mut [] };
                    self.have = receive(self.stream, &mut piece[have..], room)?;
                    file.write_all_at(piece, (offset + done) as u64)?;
                    have = 0;
                }
            }
        }
        Ok(())
    }
}

/// Fills `to`; how many bytes behind it went into `next`.
fn receive(stream: &Stream, to: &mut [u8], next: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < to.len() {
        let mut pieces = [IoSliceMut::new(&mut to[done..]), IoSliceMut::new(next)];
        let n = stream.recv_vectored(&mut pieces, Wait::Block)?;
        anyhow::ensure!(n > 0, "the client left in the middle of a request");
        done += n;
    }
    Ok(done - to.len())
}
