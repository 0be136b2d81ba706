//! Replies on their way in: one large receive, then every whole reply in it.
//!
//! Small payloads are copied out of the receive buffer. Of a payload that is not all there yet, the rest is
//! received where it will stay, together with the header that follows it.

use super::{
    answer::Checked,
    slots::{Counts, Pending, Slots},
    watch::is_watch,
};
use disk::BufMut;
use net::{Stream, Wait};
use proto::{ChunkHeader, ChunkType, Command, Context, ReplyHeader, ReplyStyle, SimpleReply, reply::payload};
use std::{
    io::{self, IoSliceMut},
    task::Waker,
};

/// A smaller buffer costs up to a third of the speed at 4 KiB.
const BUFFER: usize = 256 << 10;
/// The longest header with the offset of an OFFSET_DATA chunk: enough to know where a payload goes.
const HEADERS: usize = proto::reply::EXTENDED_LEN + 8;

pub(super) struct Inbox {
    style: ReplyStyle,
    contexts: Vec<u32>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    filling: Option<Filling>,
    /// Kept between receives, so that a steady load allocates nothing here.
    pub(super) wakers: Vec<Waker>,
}

/// A payload of which a part is still to come.
struct Filling {
    cookie: u64,
    buffer: BufMut,
    at: usize,
    until: usize,
    /// It ends its reply.
    last: bool,
}

/// Whether decoding can go on with what is there.
enum Next {
    More,
    Starved,
}

impl Inbox {
    pub(super) fn new(style: ReplyStyle, contexts: &[Context]) -> Inbox {
        let contexts = contexts.iter().map(|c| c.id).collect();
        Inbox {
            style,
            contexts,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            filling: None,
            wakers: Vec::new(),
        }
    }

    /// Receive once. Returns how many bytes came (0: the stream ended) and whether there was room for more.
    pub(super) fn receive(
        &mut self,
        stream: &Stream,
        wait: Wait,
        only_large: bool,
    ) -> io::Result<(usize, bool)> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // Before a large payload only its header is wanted here, the rest in its place.
        let most = if only_large && self.end < HEADERS { HEADERS } else { self.buffer.len() };
        let room = &mut self.buffer[self.end..most];
        let Some(filling) = &mut self.filling else {
            let n = stream.recv(room, wait)?;
            let full = n == room.len();
            self.end += n;
            return Ok((n, full));
        };
        let place = &mut filling.buffer[filling.at..filling.until];
        let (wanted, offered) = (place.len(), place.len() + room.len());
        let n = stream.recv_vectored(&mut [IoSliceMut::new(place), IoSliceMut::new(room)], wait)?;
        filling.at += n.min(wanted);
        self.end += n.saturating_sub(wanted);
        Ok((n, n == offered))
    }

    /// Decode every whole reply that was received; adds to `wakers` whom to wake.
    ///
    /// # Errors
    /// A sentence: what the server did wrong. The connection cannot go on.
    pub(super) fn decode(
        &mut self,
        slots: &mut Slots,
        counts: &Counts,
        wakers: &mut Vec<Waker>,
    ) -> Checked<()> {
        if let Some(filling) = self.filling.take_if(|f| f.at == f.until) {
            slots.pending(filling.cookie)?.reply.put_buffer(filling.buffer);
            if filling.last {
                wakers.extend(slots.finish(filling.cookie, counts)?);
            }
        }
        while self.filling.is_none() {
            let (header, len) = match ReplyHeader::decode(self.style, &self.buffer[self.start..self.end]) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(e) => return Err(format!("the server broke the protocol: {e}")),
            };
            let next = match header {
                ReplyHeader::Simple(reply) => self.simple(reply, len, slots, counts, wakers)?,
                ReplyHeader::Chunk(chunk) => self.chunk(chunk, len, slots, counts, wakers)?,
            };
            if let Next::Starved = next {
                break;
            }
        }
        Ok(())
    }

    fn simple(
        &mut self,
        reply: SimpleReply,
        len: usize,
        slots: &mut Slots,
        counts: &Counts,
        wakers: &mut Vec<Waker>,
    ) -> Checked<Next> {
        let Pending { request, reply: assembly, .. } = slots.pending(reply.cookie)?;
        let chunks_only = matches!(request.command, Command::Read | Command::BlockStatus | Command::Resize);
        if self.style != ReplyStyle::Simple && chunks_only {
            let command = request.command.name();
            return Err(format!(
                "the server answered {command} with a simple reply, against what was agreed"
            ));
        }
        self.start += len;
        match reply.error {
            Some(errno) => assembly.put_error(errno, ""),
            None if request.command == Command::Read => {
                let (offset, length) = (request.offset, request.length);
                assembly.claim(request, offset, length, false)?;
                let buffer = assembly.take_buffer(request);
                return self.payload(reply.cookie, buffer, 0, length as usize, true, slots, counts, wakers);
            }
            None => {}
        }
        wakers.extend(slots.finish(reply.cookie, counts)?);
        Ok(Next::More)
    }

    fn chunk(
        &mut self,
        chunk: ChunkHeader,
        len: usize,
        slots: &mut Slots,
        counts: &Counts,
        wakers: &mut Vec<Waker>,
    ) -> Checked<Next> {
        chunk.check().map_err(broke)?;
        let Pending { request, reply, .. } = slots.pending(chunk.cookie)?;
        if self.style == ReplyStyle::Extended && chunk.offset != request.offset {
            let (said, asked) = (chunk.offset, request.offset);
            return Err(format!("the server's reply repeats the offset {said}, but the request had {asked}"));
        }
        let fits = match chunk.kind {
            ChunkType::OffsetData | ChunkType::OffsetHole => request.command == Command::Read,
            ChunkType::BlockStatus => {
                request.command == Command::BlockStatus && self.style == ReplyStyle::Structured
            }
            ChunkType::BlockStatusExt => {
                request.command == Command::BlockStatus && self.style == ReplyStyle::Extended
            }
            ChunkType::Resize => request.command == Command::Resize,
            _ => true,
        };
        if !fits {
            let (kind, command) = (chunk.kind, request.command.name());
            return Err(format!("the server sent a chunk of type {kind:?} in reply to {command}"));
        }
        let there = self.end - self.start;
        if chunk.kind == ChunkType::OffsetData {
            let Some(offset) = self.buffer[self.start..self.end].get(len..len + 8) else {
                return Ok(Next::Starved);
            };
            let offset = u64::from_be_bytes(offset.try_into().map_err(|_| "eight bytes".to_string())?);
            let length = chunk.length - 8;
            let at = reply.claim(request, offset, length, false)?;
            let buffer = reply.take_buffer(request);
            self.start += len + 8;
            let (cookie, last) = (chunk.cookie, chunk.is_done());
            return self.payload(cookie, buffer, at, at + length as usize, last, slots, counts, wakers);
        }
        // All others are decoded from the buffer, whole. Their lengths were checked.
        let all = len + chunk.length as usize;
        if there < all {
            if self.buffer.len() < all {
                self.buffer.resize(all, 0);
            }
            return Ok(Next::Starved);
        }
        let bytes = &self.buffer[self.start + len..self.start + all];
        match payload::Payload::decode(chunk.kind, bytes).map_err(broke)? {
            payload::Payload::Hole { offset, length } => {
                reply.claim(request, offset, length.into(), true)?;
            }
            payload::Payload::BlockStatus { context, extents } => {
                if !self.contexts.contains(&context) {
                    return Err(format!(
                        "the server described metadata context {context}, which is not in use"
                    ));
                }
                reply.put_status(context, extents)?;
            }
            payload::Payload::Size(size) => {
                reply.put_size(request, size)?;
                if !chunk.is_done() && is_watch(request) {
                    wakers.extend(slots.news(chunk.cookie));
                }
            }
            payload::Payload::Error(error) => {
                let inside = error
                    .offset
                    .is_none_or(|at| at >= request.offset && at - request.offset <= request.length);
                if !inside {
                    return Err("the server reported an error outside of the request".into());
                }
                reply.put_error(error.errno, &error.message);
            }
            payload::Payload::None | payload::Payload::Data { .. } => {}
        }
        self.start += all;
        if self.buffer.len() > BUFFER && self.end - self.start <= BUFFER {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer.truncate(BUFFER);
            self.buffer.shrink_to_fit();
        }
        if chunk.is_done() {
            wakers.extend(slots.finish(chunk.cookie, counts)?);
        }
        Ok(Next::More)
    }

    /// The payload of a read stands at the front of the buffer: copy what is there, and have the rest received
    /// in its place.
    #[allow(clippy::too_many_arguments)] // the parts of one decoding step, passed on
    fn payload(
        &mut self,
        cookie: u64,
        mut buffer: BufMut,
        at: usize,
        until: usize,
        last: bool,
        slots: &mut Slots,
        counts: &Counts,
        wakers: &mut Vec<Waker>,
    ) -> Checked<Next> {
        let here = (until - at).min(self.end - self.start);
        buffer[at..at + here].copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        if at + here < until {
            self.filling = Some(Filling { cookie, buffer, at: at + here, until, last });
            return Ok(Next::Starved);
        }
        slots.pending(cookie)?.reply.put_buffer(buffer);
        if last {
            wakers.extend(slots.finish(cookie, counts)?);
        }
        Ok(Next::More)
    }
}

fn broke(e: proto::Error) -> String {
    format!("the server broke the protocol: {e}")
}
