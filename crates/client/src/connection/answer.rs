//! What comes of a reply: one chunk or many, in any order, put together and checked.

use super::watch::is_watch;
use disk::{BufMut, Data, Errno, Error, Result};
use proto::{Command, Extent, Request};

/// The error is a sentence: the server broke the protocol, and the connection must end.
pub(super) type Checked<T> = std::result::Result<T, String>;

/// What a metadata context says, from the start of the requested range on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextStatus {
    /// The context's id in this connection.
    pub context: u32,
    /// At least one extent; the last may go beyond the range.
    pub extents: Vec<Extent>,
}

/// The answer to a request that succeeded.
#[derive(Debug)]
pub enum Answer {
    /// There is nothing to say.
    Done,
    /// What was read.
    Data(Data),
    /// The answer to BLOCK_STATUS: one entry per context.
    Status(Vec<ContextStatus>),
    /// The answer to RESIZE: the size of the export, in bytes.
    Size(u64),
}

/// A reply that is still being received.
#[derive(Default)]
pub(super) struct Assembly {
    /// Room for the whole read, made when its first bytes come. Away while the receiver fills it.
    buffer: Option<BufMut>,
    /// Which parts came, in order of their place. Stays empty while one chunk covers all (the usual case).
    parts: Vec<Part>,
    /// How many bytes of the read came.
    covered: u64,
    status: Vec<ContextStatus>,
    size: Option<u64>,
    error: Option<Error>,
}

#[derive(Clone, Copy)]
struct Part {
    /// From the start of the request.
    start: u64,
    len: u64,
    hole: bool,
}

impl Assembly {
    /// Note that `len` bytes at disk offset `offset` came, as data or as a hole; returns where in the request.
    ///
    /// # Errors
    /// A sentence: they lie outside the request, or came already.
    pub(super) fn claim(&mut self, request: &Request, offset: u64, len: u64, hole: bool) -> Checked<usize> {
        let start = offset
            .checked_sub(request.offset)
            .filter(|start| start.checked_add(len).is_some_and(|end| len > 0 && end <= request.length));
        let Some(start) = start else {
            return Err(format!(
                "the server sent {len} bytes at {offset} in reply to a read of {} bytes at {}",
                request.length, request.offset
            ));
        };
        let at = self.parts.partition_point(|part| part.start < start);
        let follows = at == 0 || self.parts[at - 1].start + self.parts[at - 1].len <= start;
        let precedes = self.parts.get(at).is_none_or(|next| start + len <= next.start);
        // Without parts, something covered means that one chunk was all.
        if !follows || !precedes || (self.parts.is_empty() && self.covered > 0) {
            return Err(format!("the server sent {len} bytes at {offset} twice in reply to one read"));
        }
        if len < request.length || hole {
            self.parts.insert(at, Part { start, len, hole });
        }
        self.covered += len;
        Ok(start as usize)
    }

    /// The buffer for the data of the whole request, to be given back with [`Assembly::put_buffer`].
    pub(super) fn take_buffer(&mut self, request: &Request) -> BufMut {
        self.buffer.take().unwrap_or_else(|| BufMut::new(request.length as usize))
    }

    pub(super) fn put_buffer(&mut self, buffer: BufMut) {
        self.buffer = Some(buffer);
    }

    /// Note what a context says.
    ///
    /// # Errors
    /// A sentence: it said so before.
    pub(super) fn put_status(&mut self, context: u32, extents: Vec<Extent>) -> Checked<()> {
        if self.status.iter().any(|s| s.context == context) {
            return Err(format!("the server described metadata context {context} twice in one reply"));
        }
        self.status.push(ContextStatus { context, extents });
        Ok(())
    }

    /// Note the size of the export; the last one counts.
    ///
    /// # Errors
    /// A sentence: it was told before, in a reply that tells only one.
    pub(super) fn put_size(&mut self, request: &Request, size: u64) -> Checked<()> {
        if self.size.replace(size).is_some() && !is_watch(request) {
            return Err("the server told the size twice in reply to one RESIZE".into());
        }
        Ok(())
    }

    pub(super) fn take_size(&mut self) -> Option<u64> {
        self.size.take()
    }

    /// Note an error; the first one counts.
    pub(super) fn put_error(&mut self, errno: proto::Errno, message: &str) {
        let errno = Errno::from_raw(errno.to_host());
        self.error.get_or_insert_with(|| match message {
            "" => errno.into(),
            message => Error::new(errno, message.to_string()),
        });
    }

    /// The outcome of a request on a connection that broke.
    pub(super) fn failed(error: Error) -> Assembly {
        Assembly { error: Some(error), ..Assembly::default() }
    }

    /// The reply is complete: is it whole?
    ///
    /// # Errors
    /// A sentence: it is not.
    pub(super) fn check(&self, request: &Request) -> Checked<()> {
        if request.command == Command::Read && self.covered != request.length && self.error.is_none() {
            let (asked, came) = (request.length, self.covered);
            return Err(format!("the server ended its reply to a read of {asked} bytes after {came} bytes"));
        }
        if request.command == Command::Resize
            && self.size.is_none()
            && self.error.is_none()
            && !is_watch(request)
        {
            return Err("the server ended its reply to RESIZE without telling the size".into());
        }
        Ok(())
    }

    /// The answer of a complete reply. Leaves this empty, for another request.
    pub(super) fn take(&mut self, request: &Request) -> Result<Answer> {
        self.covered = 0;
        if self.error.is_some() {
            let failed = std::mem::take(self);
            return Err(failed.error.unwrap_or_else(|| Errno::IO.into()));
        }
        let size = self.size.take();
        match request.command {
            Command::Read => Ok(Answer::Data(self.data(request))),
            Command::BlockStatus if self.status.is_empty() => {
                Err(Error::io("the server did not describe the range"))
            }
            Command::BlockStatus => Ok(Answer::Status(std::mem::take(&mut self.status))),
            Command::Resize => Ok(size.map_or(Answer::Done, Answer::Size)),
            _ => Ok(Answer::Done),
        }
    }

    fn data(&mut self, request: &Request) -> Data {
        // Every byte is covered, so what has no buffer is a hole.
        let Some(buffer) = self.buffer.take() else {
            self.parts.clear();
            return Data::zeroes(request.length);
        };
        let data = Data::from(buffer);
        if !self.parts.iter().any(|part| part.hole) {
            self.parts.clear();
            return data;
        }
        let mut joined: Vec<Data> = Vec::new();
        let mut run: Option<Part> = None;
        let mut put = |part: Option<Part>| {
            if let Some(part) = part {
                let zeroes = || Data::zeroes(part.len);
                joined.push(if part.hole { zeroes() } else { data.slice(part.start, part.len) });
            }
        };
        for part in self.parts.drain(..) {
            match &mut run {
                Some(last) if last.hole == part.hole => last.len += part.len,
                _ => put(run.replace(part)),
            }
        }
        put(run);
        Data::join(joined)
    }
}
