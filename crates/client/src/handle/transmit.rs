//! The transmission phase: sending what is queued, and making sense of replies as they come.

use super::{
    Fault, Handle, Outcome, Phase, chunk_status,
    commands::Pending,
    fault::errno,
    receive::{Data, Place},
};
use net::Wait;
use proto::{
    ChunkHeader, ChunkType, Command, ReplyHeader, ReplyStyle,
    reply::{Payload, payload::ErrorPayload},
};
use std::io;

/// Runs of data from this size on are received where they belong, without a copy.
const IN_PLACE: usize = 32 << 10;

fn breach(text: impl std::fmt::Display) -> Fault {
    Fault::new(errno::EPROTO, text.to_string())
}

impl Handle {
    /// Sends what there is room for.
    pub(super) fn send_some(&mut self) -> Outcome<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let sent = self.output.send(stream).map_err(|e| Fault::system("send", &e))?;
        self.stats.bytes_sent += sent;
        Ok(())
    }

    /// Sends and receives all that can be without waiting.
    pub(super) fn transmit(&mut self) -> Outcome<()> {
        self.send_some()?;
        let mut has_received = false;
        loop {
            self.understand()?;
            if !matches!(self.phase, Phase::Open) {
                return Ok(());
            }
            // Nothing more is to come: another receive would only find that out.
            let quiet = self.commands.is_empty() && !self.output.is_disconnecting();
            if has_received && quiet && self.input.is_between_replies() {
                return Ok(());
            }
            has_received = true;
            let Some(stream) = &self.stream else { return Ok(()) };
            let in_place = match self.input.place {
                Place::Data(data) if data.left >= IN_PLACE => Some(data),
                _ => None,
            };
            let received = match in_place.and_then(|data| Some((data, self.commands.get_mut(&data.cookie)?)))
            {
                Some((data, Pending { memory: Some(memory), .. })) => {
                    match memory.bytes_mut().get_mut(data.at..data.at + data.left) {
                        Some(into) => {
                            let n = stream.recv(into, Wait::DontWait);
                            if let Ok(n) = n {
                                let left = data.left - n;
                                self.input.place = Place::Data(Data { at: data.at + n, left, ..data });
                            }
                            n
                        }
                        None => return Err(breach("a buffer changed its size while it was read into")),
                    }
                }
                _ => {
                    let least = match self.input.place {
                        Place::Chunk(chunk) if chunk.kind != ChunkType::OffsetData => chunk.length as usize,
                        _ => 64,
                    };
                    let missing = least.saturating_sub(self.input.unread().len());
                    // Where only large data can come, little more than its header: the rest needs no copy then.
                    let is_large = |pending: &Pending| {
                        pending.memory.as_ref().is_some_and(|memory| memory.bytes().len() >= IN_PLACE)
                    };
                    let few = !self.commands.is_empty() && self.commands.values().all(is_large);
                    let room = self.input.room(missing);
                    let most = if few { missing.max(64).min(room.len()) } else { room.len() };
                    let n = stream.recv(&mut room[..most], Wait::DontWait);
                    if let Ok(n) = n {
                        self.input.received(n);
                    }
                    n
                }
            };
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(Fault::system("recv", &e)),
                Ok(0) => {
                    let asked = self.output.is_disconnecting() && self.commands.is_empty();
                    self.end(if asked { Phase::Closed } else { Phase::Dead });
                    return Ok(());
                }
                Ok(n) => self.stats.bytes_received += n as u64,
            }
        }
    }

    /// Takes as many replies out of the input as are there.
    fn understand(&mut self) -> Outcome<()> {
        while matches!(self.phase, Phase::Open) {
            let more = match self.input.place {
                Place::Between => match self.input.header(self.replies).map_err(breach)? {
                    None => false,
                    Some(header) => {
                        self.stats.chunks_received += 1;
                        self.begin(header)?;
                        true
                    }
                },
                Place::Chunk(chunk) => self.chunk(chunk)?,
                Place::Data(data) => self.data(data)?,
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn pending(&mut self, cookie: u64) -> Outcome<&mut Pending> {
        let nobody = || breach(format!("the server answered a request that was not made (cookie {cookie})"));
        self.commands.get_mut(&cookie).ok_or_else(nobody)
    }

    fn begin(&mut self, header: ReplyHeader) -> Outcome<()> {
        let style = self.replies;
        match header {
            ReplyHeader::Simple(reply) => {
                let pending = self.pending(reply.cookie)?;
                let request = pending.request;
                if let Some(error) = reply.error {
                    pending.error.get_or_insert_with(|| Fault::new(error.to_host(), ""));
                    self.complete(reply.cookie);
                } else if request.command == Command::Read {
                    if style != ReplyStyle::Simple {
                        return Err(breach(
                            "the server sent data in a simple reply after agreeing to structured ones",
                        ));
                    }
                    let left = request.length as usize;
                    self.input.place =
                        Place::Data(Data { cookie: reply.cookie, first: 0, at: 0, left, done: true });
                } else {
                    if request.command == Command::BlockStatus {
                        let fault = breach("the server told nothing of the blocks");
                        pending.error.get_or_insert(fault);
                    }
                    self.complete(reply.cookie);
                }
            }
            ReplyHeader::Chunk(chunk) => {
                chunk.check().map_err(breach)?;
                self.pending(chunk.cookie)?;
                self.input.place = Place::Chunk(chunk);
            }
        }
        Ok(())
    }

    /// A chunk, once enough of it is there.
    fn chunk(&mut self, chunk: ChunkHeader) -> Outcome<bool> {
        let is_data = chunk.kind == ChunkType::OffsetData;
        let needed = if is_data { 8 } else { chunk.length as usize };
        let Some(bytes) = self.input.unread().get(..needed) else { return Ok(false) };
        if is_data {
            let offset = bytes.iter().fold(0, |offset, byte| offset << 8 | u64::from(*byte));
            self.input.used(needed);
            let left = (chunk.length - 8) as usize;
            let first = self.within(chunk.cookie, offset, left as u64)?;
            let data = Data { cookie: chunk.cookie, first, at: first, left, done: chunk.is_done() };
            self.input.place = Place::Data(data);
            return Ok(true);
        }
        let bytes = bytes.to_vec();
        self.input.used(needed);
        self.input.place = Place::Between;
        self.payload(&chunk, Payload::decode(chunk.kind, &bytes).map_err(breach)?)?;
        if chunk.is_done() {
            self.finish(chunk.cookie);
        }
        Ok(true)
    }

    /// Where in the memory of a read a range of the disk stands.
    fn within(&mut self, cookie: u64, offset: u64, length: u64) -> Outcome<usize> {
        let request = self.pending(cookie)?.request;
        let at = offset.checked_sub(request.offset);
        match at.filter(|at| at.checked_add(length).is_some_and(|end| end <= request.length)) {
            Some(at) if request.command == Command::Read => Ok(at as usize),
            _ => Err(breach(format!("the server sent {length} bytes at {offset} that nobody asked for"))),
        }
    }

    fn payload(&mut self, chunk: &ChunkHeader, payload: Payload<'_>) -> Outcome<()> {
        let cookie = chunk.cookie;
        match payload {
            Payload::None => {}
            Payload::Data { .. } => return Err(breach("data where none can be")),
            Payload::Hole { offset, length } => {
                let at = self.within(cookie, offset, length.into())?;
                let pending = self.pending(cookie)?;
                let range = at..at + length as usize;
                if let Some(memory) = &mut pending.memory
                    // As nothing has come before, what was zero still is.
                    && !(memory.is_zero() && pending.received == 0)
                    && let Some(bytes) = memory.bytes_mut().get_mut(range.clone())
                {
                    bytes.fill(0);
                }
                pending.received += u64::from(length);
                pending.tell(range, chunk_status::HOLE);
            }
            Payload::BlockStatus { context, extents } => {
                let contexts = self.contexts.as_deref().unwrap_or_default();
                let Some(context) = contexts.iter().find(|known| known.id == context).cloned() else {
                    return Err(breach(format!(
                        "the server told of a context that was not agreed on ({context})"
                    )));
                };
                let pending = self.pending(cookie)?;
                let Some(extent) = &mut pending.extent else {
                    return Err(breach("the server told of blocks that nobody asked about"));
                };
                let mut errno = pending.error.as_ref().map_or(0, |fault| fault.errno);
                let outcome = extent(&context.name, pending.request.offset, &extents, &mut errno);
                pending.heard(outcome, errno);
                pending.received = 1;
            }
            Payload::Size(size) => {
                if self.pending(cookie)?.request.command != Command::Resize {
                    return Err(breach("the server told of a size that nobody asked for"));
                }
                if let Some(facts) = &mut self.facts {
                    facts.size = size;
                }
            }
            Payload::Error(error) => self.error(cookie, error)?,
        }
        Ok(())
    }

    fn error(&mut self, cookie: u64, error: ErrorPayload<'_>) -> Outcome<()> {
        let at = match error.offset {
            Some(offset) if self.pending(cookie)?.request.command == Command::Read => {
                Some(self.within(cookie, offset, 0)?)
            }
            _ => None,
        };
        let pending = self.pending(cookie)?;
        let errno = error.errno.to_host();
        if let (Some(at), Some(chunk)) = (at, &mut pending.chunk) {
            let mut changed = errno;
            let outcome = chunk(&[], pending.request.offset + at as u64, chunk_status::ERROR, &mut changed);
            pending.heard(outcome, changed);
        }
        pending.error.get_or_insert_with(|| Fault::new(errno, error.message.into_owned()));
        Ok(())
    }

    /// Data that is here is put where it belongs.
    fn data(&mut self, mut data: Data) -> Outcome<bool> {
        let n = data.left.min(self.input.unread().len());
        let bytes = &self.input.unread()[..n];
        let pending = self.commands.get_mut(&data.cookie);
        let into = pending.and_then(|pending| pending.memory.as_mut());
        match into.and_then(|memory| memory.bytes_mut().get_mut(data.at..data.at + n)) {
            Some(into) => into.copy_from_slice(bytes),
            None => return Err(breach("a buffer changed its size while it was read into")),
        }
        self.input.used(n);
        (data.at, data.left) = (data.at + n, data.left - n);
        self.input.place = Place::Data(data);
        if data.left > 0 {
            return Ok(false);
        }
        self.input.place = Place::Between;
        let pending = self.pending(data.cookie)?;
        pending.received += (data.at - data.first) as u64;
        pending.tell(data.first..data.at, chunk_status::DATA);
        if data.done {
            self.finish(data.cookie);
        }
        Ok(true)
    }

    /// A reply is over; whether it was whole is seen now.
    fn finish(&mut self, cookie: u64) {
        if let Some(pending) = self.commands.get_mut(&cookie)
            && pending.error.is_none()
        {
            let short = match pending.request.command {
                Command::Read => pending.received < pending.request.length,
                Command::BlockStatus => pending.received == 0,
                _ => false,
            };
            if short {
                pending.error = Some(breach("the server answered only in part"));
            }
        }
        self.complete(cookie);
    }
}

impl Pending {
    /// Tells of a part of a read.
    fn tell(&mut self, range: std::ops::Range<usize>, status: u32) {
        let (Some(chunk), Some(memory)) = (&mut self.chunk, &self.memory) else { return };
        let Some(bytes) = memory.bytes().get(range.clone()) else { return };
        let mut errno = self.error.as_ref().map_or(0, |fault| fault.errno);
        let outcome = chunk(bytes, self.request.offset + range.start as u64, status, &mut errno);
        self.heard(outcome, errno);
    }

    /// What a callback made of it.
    fn heard(&mut self, outcome: i32, errno: i32) {
        if outcome < 0 && self.error.is_none() {
            let errno = if errno == 0 { errno::EPROTO } else { errno };
            self.error = Some(Fault::new(errno, ""));
        }
    }
}
