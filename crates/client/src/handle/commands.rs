//! Requests: what is refused before the server sees it, and what becomes of the others.

use super::{
    Fault, Handle, Outcome, Phase, When,
    fault::errno,
    settings::{bits, strict},
};
use proto::{
    Command, CommandFlags, Extent, HeaderStyle, Request, TransmissionFlags, command::BlockStatusPayload,
    limits::PAYLOAD_MAX,
};

/// Memory that is read into, or that holds what is to be written. It must not change its size.
pub trait Memory: Send {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it. Memory to be written from may be empty here.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Whether it is known to be all zero before it is read into.
    fn is_zero(&self) -> bool {
        false
    }
}

impl Memory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Hears a part of a read: the bytes, the offset on the disk, one of [`chunk_status`], and an error number, which it may
/// change. A negative result fails the request.
pub type ChunkFn = Box<dyn FnMut(&[u8], u64, u32, &mut i32) -> i32 + Send>;

/// Hears extents of one context from an offset on, with an error number, which it may change. A negative result fails
/// the request.
pub type ExtentFn = Box<dyn FnMut(&str, u64, &[Extent], &mut i32) -> i32 + Send>;

/// Hears that something is complete, with its error number, 0 for success. 1 retires the request by itself.
pub type CommandFn = Box<dyn FnMut(&mut i32) -> i32 + Send>;

/// What a [`ChunkFn`] hears of.
pub mod chunk_status {
    /// Data.
    pub const DATA: u32 = 1;
    /// Zeroes.
    pub const HOLE: u32 = 2;
    /// An error at an offset; there are no bytes.
    pub const ERROR: u32 = 3;
}

/// How a request is to be carried out, and who hears when it is.
#[derive(Default)]
pub struct AioFlags {
    /// Flags of the command, as on the wire.
    pub flags: u32,
    /// Called once it is complete.
    pub completion: Option<CommandFn>,
}

impl From<u32> for AioFlags {
    fn from(flags: u32) -> Self {
        AioFlags { flags, completion: None }
    }
}

/// A request in flight.
pub(super) struct Pending {
    pub(super) request: Request,
    /// What a read fills.
    pub(super) memory: Option<Box<dyn Memory>>,
    /// How much of a read has come.
    pub(super) received: u64,
    pub(super) chunk: Option<ChunkFn>,
    pub(super) extent: Option<ExtentFn>,
    pub(super) completion: Option<CommandFn>,
    /// The first thing that went wrong.
    pub(super) error: Option<Fault>,
}

/// What a request needs besides its header.
#[derive(Default)]
struct Extras {
    payload: Option<Box<dyn Memory>>,
    memory: Option<Box<dyn Memory>>,
    chunk: Option<ChunkFn>,
    extent: Option<ExtentFn>,
}

/// What the specification calls a command, in the words of error messages.
pub(super) const fn word(command: Command) -> &'static str {
    match command {
        Command::Read => "read",
        Command::Write => "write",
        Command::Disc => "disconnect",
        Command::Flush => "flush",
        Command::Trim => "trim",
        Command::Cache => "cache",
        Command::WriteZeroes => "zero",
        Command::BlockStatus => "block-status",
        Command::Resize => "resize",
        Command::Unknown(_) => "request",
    }
}

impl Handle {
    /// Read from `offset` on as many bytes as `memory` has.
    ///
    /// # Errors
    /// Why it is not sent. What becomes of it is the outcome of the cookie.
    pub fn aio_pread(&mut self, memory: Box<dyn Memory>, offset: u64, how: AioFlags) -> Outcome<u64> {
        self.read(memory, offset, None, how, 0)
    }

    /// As [`Handle::aio_pread`]; each part of the answer is told.
    ///
    /// # Errors
    /// As there.
    pub fn aio_pread_structured(
        &mut self,
        memory: Box<dyn Memory>,
        offset: u64,
        chunk: ChunkFn,
        how: AioFlags,
    ) -> Outcome<u64> {
        self.read(memory, offset, Some(chunk), how, CommandFlags::DF.0)
    }

    fn read(
        &mut self,
        mut memory: Box<dyn Memory>,
        offset: u64,
        chunk: Option<ChunkFn>,
        how: AioFlags,
        valid: u16,
    ) -> Outcome<u64> {
        if self.settings.initialize && !memory.is_zero() {
            memory.bytes_mut().fill(0);
        }
        let count = memory.bytes().len() as u64;
        let extras = Extras { memory: Some(memory), chunk, ..Extras::default() };
        self.submit(Command::Read, offset, count, how, valid, extras)
    }

    /// Write all of `memory` from `offset` on.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_pwrite(&mut self, memory: Box<dyn Memory>, offset: u64, how: AioFlags) -> Outcome<u64> {
        let count = memory.bytes().len() as u64;
        let extras = Extras { payload: Some(memory), ..Extras::default() };
        let valid = CommandFlags::FUA.0 | CommandFlags::PAYLOAD_LEN.0;
        self.submit(Command::Write, offset, count, how, valid, extras)
    }

    /// Make what was written permanent.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_flush(&mut self, how: AioFlags) -> Outcome<u64> {
        self.submit(Command::Flush, 0, 0, how, 0, Extras::default())
    }

    /// Forget a range.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_trim(&mut self, count: u64, offset: u64, how: AioFlags) -> Outcome<u64> {
        self.submit(Command::Trim, offset, count, how, CommandFlags::FUA.0, Extras::default())
    }

    /// Have a range ready for reading.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_cache(&mut self, count: u64, offset: u64, how: AioFlags) -> Outcome<u64> {
        self.submit(Command::Cache, offset, count, how, 0, Extras::default())
    }

    /// Make a range read as zeroes.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_zero(&mut self, count: u64, offset: u64, how: AioFlags) -> Outcome<u64> {
        let valid = CommandFlags::FUA.0 | CommandFlags::NO_HOLE.0 | CommandFlags::FAST_ZERO.0;
        self.submit(Command::WriteZeroes, offset, count, how, valid, Extras::default())
    }

    /// Change the size of the export (a proposed extension).
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_resize(&mut self, size: u64, how: AioFlags) -> Outcome<u64> {
        self.submit(Command::Resize, size, 0, how, 0, Extras::default())
    }

    /// Ask for the extents of a range, in all contexts or, with a filter, in those named there.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_block_status(
        &mut self,
        count: u64,
        offset: u64,
        filter: Option<&[String]>,
        extent: ExtentFn,
        how: AioFlags,
    ) -> Outcome<u64> {
        let mut extras = Extras { extent: Some(extent), ..Extras::default() };
        if let Some(names) = filter {
            self.need(When::Connected)?;
            if self.strict(strict::COMMANDS) {
                self.can(TransmissionFlags::BLOCK_STATUS_PAYLOAD, "filters of contexts", errno::ENOTSUP)?;
            }
            let known = self.contexts.as_deref().unwrap_or_default();
            let id = |name: &String| {
                let found = known.iter().find(|context| context.name == *name);
                found.map(|context| context.id).ok_or_else(|| {
                    Fault::invalid(format!("“{name}” is none of the contexts of this connection"))
                })
            };
            let contexts = names.iter().map(id).collect::<Outcome<Vec<u32>>>()?;
            if contexts.is_empty() {
                return Err(Fault::invalid("a filter without contexts would leave nothing to tell"));
            }
            let mut payload = Vec::new();
            BlockStatusPayload { length: count, contexts }.encode_into(&mut payload);
            extras.payload = Some(Box::new(payload));
        }
        let valid = CommandFlags::REQ_ONE.0 | CommandFlags::PAYLOAD_LEN.0;
        self.submit(Command::BlockStatus, offset, count, how, valid, extras)
    }

    /// Say goodbye, after everything in flight. Nothing more can be asked then.
    ///
    /// # Errors
    /// As [`Handle::aio_pread`].
    pub fn aio_disconnect(&mut self, flags: u32) -> Outcome<()> {
        self.need(When::Connected)?;
        bits(flags, 0)?;
        self.send_request(Request {
            flags: CommandFlags::NONE,
            command: Command::Disc,
            cookie: self.next_cookie,
            offset: 0,
            length: 0,
        });
        self.next_cookie += 1;
        self.output.disconnecting();
        self.pump()
    }

    fn strict(&self, bit: u32) -> bool {
        self.settings.strict & bit != 0
    }

    fn can(&self, flag: TransmissionFlags, what: &str, errno: i32) -> Outcome<()> {
        match self.flags()?.has(flag) {
            true => Ok(()),
            false => Err(Fault::new(errno, format!("the server does not offer {what}"))),
        }
    }

    fn flags(&self) -> Outcome<TransmissionFlags> {
        let facts = self.facts.as_ref();
        facts.map(|facts| facts.flags).ok_or_else(|| Fault::invalid("no export is open"))
    }

    fn submit(
        &mut self,
        command: Command,
        offset: u64,
        count: u64,
        how: AioFlags,
        valid: u16,
        extras: Extras,
    ) -> Outcome<u64> {
        self.need(When::Connected)?;
        if self.output.is_disconnecting() {
            return Err(Fault::invalid("the connection was told to end"));
        }
        let extended = self.replies.header_style() == HeaderStyle::Extended;
        let mask = if self.strict(strict::FLAGS) { u32::from(valid) } else { 0xffff };
        let mut flags = CommandFlags(bits(how.flags, mask)? as u16);
        if self.strict(strict::AUTO_FLAG) {
            let payload = extended && extras.payload.is_some();
            flags.0 = flags.0 & !CommandFlags::PAYLOAD_LEN.0
                | if payload { CommandFlags::PAYLOAD_LEN.0 } else { 0 };
        }
        if self.strict(strict::COMMANDS) {
            self.check_offer(command, flags)?;
        }
        self.check_range(command, offset, count, extended)?;
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let length = match (&extras.payload, command) {
            // The effect length is in the payload.
            (Some(payload), Command::BlockStatus) => payload.bytes().len() as u64,
            _ => count,
        };
        self.send_request(Request { flags, command, cookie, offset, length });
        if let Some(payload) = extras.payload {
            self.output.push_payload(payload);
        }
        let pending = Pending {
            request: Request { flags, command, cookie, offset, length: count },
            memory: extras.memory,
            received: 0,
            chunk: extras.chunk,
            extent: extras.extent,
            completion: how.completion,
            error: None,
        };
        self.commands.insert(cookie, pending);
        // What is wrong with the connection is the outcome of the cookie, and of the next pump.
        if let Err(fault) = self.send_some() {
            self.die(fault);
        }
        Ok(cookie)
    }

    fn send_request(&mut self, request: Request) {
        let mut bytes = Vec::with_capacity(32);
        request.encode_into(self.replies.header_style(), &mut bytes);
        self.output.push(bytes);
        self.stats.chunks_sent += 1;
    }

    /// What the server says that it cannot is not asked of it.
    fn check_offer(&self, command: Command, flags: CommandFlags) -> Outcome<()> {
        use TransmissionFlags as F;
        let offer = self.flags()?;
        match command {
            Command::Write if offer.has(F::READ_ONLY) => {
                return Err(Fault::new(
                    errno::EPERM,
                    "the server does not offer writing: the export is read-only",
                ));
            }
            Command::Trim | Command::WriteZeroes if offer.has(F::READ_ONLY) => {
                let text = format!("the server does not offer {}: the export is read-only", word(command));
                return Err(Fault::invalid(text));
            }
            Command::Flush => self.can(F::SEND_FLUSH, "flush", errno::EINVAL)?,
            Command::Trim => self.can(F::SEND_TRIM, "trim", errno::EINVAL)?,
            Command::Cache => self.can(F::SEND_CACHE, "cache", errno::EINVAL)?,
            Command::WriteZeroes => self.can(F::SEND_WRITE_ZEROES, "zero", errno::EINVAL)?,
            Command::Resize => self.can(F::SEND_RESIZE, "resize", errno::ENOTSUP)?,
            Command::BlockStatus => {
                if !self.replies.has_chunks() {
                    return Err(Fault::new(
                        errno::ENOTSUP,
                        "block status needs structured replies, and the server has none",
                    ));
                }
                if self.contexts.as_ref().is_none_or(Vec::is_empty) {
                    let text = "no metadata context was agreed on: add_meta_context comes before connecting, and the \
                                server must have it";
                    return Err(Fault::new(errno::ENOTSUP, text));
                }
            }
            _ => {}
        }
        let with = |flag, offer, what| match flags.has(flag) {
            true => self.can(offer, what, errno::EINVAL),
            false => Ok(()),
        };
        with(CommandFlags::FUA, F::SEND_FUA, "the flag FUA")?;
        with(CommandFlags::DF, F::SEND_DF, "the flag DF")?;
        with(CommandFlags::FAST_ZERO, F::SEND_FAST_ZERO, "the flag FAST_ZERO")
    }

    fn check_range(&self, command: Command, offset: u64, count: u64, extended: bool) -> Outcome<()> {
        if matches!(command, Command::Flush | Command::Resize) {
            return Ok(());
        }
        if self.strict(strict::ZERO_SIZE) && count == 0 {
            return Err(Fault::invalid("count=0: a request for no bytes"));
        }
        let facts = self.facts.as_ref();
        let size = facts.map_or(0, |facts| facts.size);
        if self.strict(strict::BOUNDS) && offset.checked_add(count).is_none_or(|end| end > size) {
            let beyond = matches!(command, Command::Write | Command::WriteZeroes | Command::Trim);
            let errno = if beyond { errno::ENOSPC } else { errno::EINVAL };
            // Offsets are signed in most programs.
            let (offset, end) = (offset as i64, size);
            let text = format!("{count} bytes at {offset}: the export ends at {end}");
            return Err(Fault::new(errno, text));
        }
        let sizes = facts.and_then(|facts| facts.block_sizes);
        if let Some(sizes) = sizes.filter(|_| self.strict(strict::ALIGN)) {
            let minimum = u64::from(sizes.minimum);
            if (offset | count) & (minimum - 1) != 0 {
                let text = format!("{count} bytes at {offset}: not aligned to blocks of {minimum}");
                return Err(Fault::invalid(text));
            }
        }
        let payload = matches!(command, Command::Read | Command::Write);
        let most = match sizes {
            _ if !payload && extended => u64::MAX,
            _ if !payload => u32::MAX.into(),
            Some(sizes) if self.strict(strict::PAYLOAD) => u64::from(sizes.maximum.min(PAYLOAD_MAX)),
            _ => PAYLOAD_MAX.into(),
        };
        if count > most {
            return Err(Fault::new(
                errno::ERANGE,
                format!("{count} bytes are too many for one request: {most} at most"),
            ));
        }
        Ok(())
    }

    /// A request is answered: its owner hears of it.
    pub(super) fn complete(&mut self, cookie: u64) {
        let Some(mut pending) = self.commands.remove(&cookie) else { return };
        // Released first: whoever hears of the end may use the memory.
        (pending.memory, pending.chunk, pending.extent) = (None, None, None);
        let mut retire = false;
        self.last_state.set(self.state());
        if let Some(mut completion) = pending.completion {
            // What it makes of the number, or of itself, changes nothing: the outcome is known.
            let mut errno = pending.error.as_ref().map_or(0, |fault| fault.errno.max(1));
            retire = completion(&mut errno) == 1;
        }
        if !retire {
            let failed = format!("{}: the request failed", word(pending.request.command));
            self.done.push_back((cookie, pending.error.map(|fault| fault.after(&failed))));
        }
    }

    /// How many requests are in flight.
    ///
    /// # Errors
    /// ENOTCONN: there was no connection yet.
    pub fn in_flight(&self) -> Outcome<usize> {
        match self.phase {
            Phase::Dead => Ok(self.commands.len()),
            _ => self.need(When::Known).and_then(|()| match self.phase {
                Phase::Negotiating => self.need(When::Connected).map(|()| 0),
                _ => Ok(self.commands.len()),
            }),
        }
    }

    /// Whether a request is complete; then it is retired, and its cookie means nothing any more.
    ///
    /// # Errors
    /// Why it failed; or EINVAL: no cookie is below 1.
    pub fn command_completed(&mut self, cookie: i64) -> Outcome<bool> {
        let Some(cookie) = u64::try_from(cookie).ok().filter(|cookie| *cookie >= 1) else {
            return Err(Fault::invalid(format!("cookie={cookie}: they count from 1")));
        };
        let Some(at) = self.done.iter().position(|(done, _)| *done == cookie) else { return Ok(false) };
        match self.done.remove(at) {
            Some((_, Some(fault))) => Err(fault),
            _ => Ok(true),
        }
    }

    /// The cookie of a request that is complete and not retired, or 0 if there is none but some are in flight.
    ///
    /// # Errors
    /// EINVAL: nothing is complete or in flight.
    pub fn peek_completed(&self) -> Outcome<u64> {
        match self.done.front() {
            Some((cookie, _)) => Ok(*cookie),
            None if self.commands.is_empty() => Err(Fault::invalid("no request is in flight")),
            None => Ok(0),
        }
    }

    /// Pump until a request is complete, and retire it.
    ///
    /// # Errors
    /// Why it failed, or EINTR; then it is still in flight, and nobody will ask for it.
    pub fn wait(&mut self, cookie: u64) -> Outcome<()> {
        while self.commands.contains_key(&cookie) {
            if let Err(fault) = self.poll(-1) {
                // Its outcome is this one, also if it is still in flight.
                let _ = self.command_completed(cookie as i64);
                if let Some(pending) = self.commands.get_mut(&cookie) {
                    pending.completion = Some(Box::new(|_| 1));
                }
                return Err(fault);
            }
        }
        self.command_completed(cookie as i64).map(|_| ())
    }

    /// Say goodbye and wait for the end, first of what is in flight unless it is to be abandoned.
    ///
    /// # Errors
    /// EINVAL for flags without a meaning, or what broke.
    pub fn shutdown(&mut self, flags: u32) -> Outcome<()> {
        const ABANDON_PENDING: u32 = 1 << 16;
        self.need(When::Connected)?;
        bits(flags, ABANDON_PENDING)?;
        if flags & ABANDON_PENDING == 0 {
            while !self.commands.is_empty() && matches!(self.phase, Phase::Open) {
                self.poll(-1)?;
            }
        } else if !self.output.is_whole() {
            // In the middle of a request no other can begin.
            self.end(Phase::Dead);
            return Ok(());
        } else {
            self.output.clear();
        }
        self.aio_disconnect(0)?;
        while matches!(self.phase, Phase::Open) {
            self.poll(-1)?;
        }
        Ok(())
    }
}
