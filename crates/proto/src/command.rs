//! Requests: what a client sends in the transmission phase.

use crate::bits::bits;
use crate::error::{Error, Result};
use crate::limits::CONTEXTS_MAX;
use crate::resize;

/// The magic number of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// The magic number of an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;

/// The size of a compact request header.
pub const COMPACT_LEN: usize = 28;
/// The size of an extended request header.
pub const EXTENDED_LEN: usize = 32;

/// Which request header a connection uses, from its first request to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HeaderStyle {
    /// 28 bytes, 32-bit lengths.
    #[default]
    Compact,
    /// 32 bytes, 64-bit lengths; after `NBD_OPT_EXTENDED_HEADERS`.
    Extended,
}

impl HeaderStyle {
    /// The size of a request header in bytes.
    #[inline]
    pub const fn request_len(self) -> usize {
        match self {
            HeaderStyle::Compact => COMPACT_LEN,
            HeaderStyle::Extended => EXTENDED_LEN,
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Read a range.
    Read,
    /// Write a range; the data follows the header.
    Write,
    /// End the session; there is no reply.
    Disc,
    /// Make all completed writes permanent.
    Flush,
    /// The range is no longer needed.
    Trim,
    /// The range will be read soon.
    Cache,
    /// Make the range read as zeroes.
    WriteZeroes,
    /// Describe the range in the negotiated metadata contexts.
    BlockStatus,
    /// Change the size of the export, or tell of its changes (a proposed extension: [`crate::resize`]).
    Resize,
    /// A number that has no meaning here.
    Unknown(u16),
}

impl Command {
    /// The command with this number.
    #[inline]
    pub const fn from_wire(number: u16) -> Command {
        match number {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disc,
            3 => Command::Flush,
            4 => Command::Trim,
            5 => Command::Cache,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            resize::COMMAND => Command::Resize,
            other => Command::Unknown(other),
        }
    }

    /// The number for the wire.
    #[inline]
    pub const fn to_wire(self) -> u16 {
        match self {
            Command::Read => 0,
            Command::Write => 1,
            Command::Disc => 2,
            Command::Flush => 3,
            Command::Trim => 4,
            Command::Cache => 5,
            Command::WriteZeroes => 6,
            Command::BlockStatus => 7,
            Command::Resize => resize::COMMAND,
            Command::Unknown(other) => other,
        }
    }

    /// The specification's name.
    pub const fn name(self) -> &'static str {
        match self {
            Command::Read => "READ",
            Command::Write => "WRITE",
            Command::Disc => "DISC",
            Command::Flush => "FLUSH",
            Command::Trim => "TRIM",
            Command::Cache => "CACHE",
            Command::WriteZeroes => "WRITE_ZEROES",
            Command::BlockStatus => "BLOCK_STATUS",
            Command::Resize => "RESIZE",
            Command::Unknown(_) => "unknown command",
        }
    }

    /// The flags that the specification allows with this command. FUA is allowed with all of them, because clients are
    /// known to set it anywhere.
    #[inline]
    pub const fn valid_flags(self) -> CommandFlags {
        const F: CommandFlags = CommandFlags::FUA;
        match self {
            Command::Read => CommandFlags(F.0 | CommandFlags::DF.0),
            Command::Write => CommandFlags(F.0 | CommandFlags::PAYLOAD_LEN.0),
            Command::WriteZeroes => CommandFlags(F.0 | CommandFlags::NO_HOLE.0 | CommandFlags::FAST_ZERO.0),
            Command::BlockStatus => CommandFlags(F.0 | CommandFlags::REQ_ONE.0 | CommandFlags::PAYLOAD_LEN.0),
            Command::Resize => CommandFlags(F.0 | CommandFlags::RESIZE_NOTIFY.0),
            _ => F,
        }
    }
}

bits! {
    /// How a request is to be carried out.
    pub struct CommandFlags: u16 {
        /// Reply only after the written data is permanent.
        FUA = 0;
        /// WRITE_ZEROES: keep the range allocated.
        NO_HOLE = 1;
        /// READ: answer with at most one content chunk.
        DF = 2;
        /// BLOCK_STATUS: one extent per context is enough.
        REQ_ONE = 3;
        /// WRITE_ZEROES: fail with ENOTSUP rather than write zeroes one by one.
        FAST_ZERO = 4;
        /// Extended headers only: the length is that of a payload that follows.
        PAYLOAD_LEN = 5;
        /// RESIZE: change nothing, but tell of every change from now on.
        RESIZE_NOTIFY = resize::NOTIFY_BIT;
    }
}

/// A request header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Flags, also those that have no meaning here.
    pub flags: CommandFlags,
    /// What is asked for.
    pub command: Command,
    /// The client's name for the request, repeated in its replies.
    pub cookie: u64,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How far it goes, in bytes: of the payload if there is one, else of the effect.
    pub length: u64,
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Request {
    /// Decodes the header at the front of `bytes`. `None`: fewer bytes than [`HeaderStyle::request_len`], read more.
    ///
    /// # Errors
    /// The magic number is not that of this style: the stream has lost its place and the connection must end.
    #[inline]
    pub fn decode(style: HeaderStyle, bytes: &[u8]) -> Result<Option<Request>> {
        match style {
            HeaderStyle::Compact => bytes.first_chunk().map(Request::decode_compact).transpose(),
            HeaderStyle::Extended => bytes.first_chunk().map(Request::decode_extended).transpose(),
        }
    }

    /// Decodes a compact header.
    ///
    /// # Errors
    /// The magic number is wrong.
    #[inline]
    pub fn decode_compact(bytes: &[u8; COMPACT_LEN]) -> Result<Request> {
        if be32(bytes, 0) != REQUEST_MAGIC {
            return Err(Error::Magic { of: "a request", found: be32(bytes, 0).into() });
        }
        Ok(Request { length: be32(bytes, 24).into(), ..Request::middle(bytes) })
    }

    /// Decodes an extended header.
    ///
    /// # Errors
    /// The magic number is wrong.
    #[inline]
    pub fn decode_extended(bytes: &[u8; EXTENDED_LEN]) -> Result<Request> {
        if be32(bytes, 0) != EXTENDED_REQUEST_MAGIC {
            return Err(Error::Magic { of: "an extended request", found: be32(bytes, 0).into() });
        }
        Ok(Request {
            length: (u64::from(be32(bytes, 24)) << 32) | u64::from(be32(bytes, 28)),
            ..Request::middle(bytes)
        })
    }

    /// The fields that both styles have in common.
    #[inline]
    fn middle(bytes: &[u8]) -> Request {
        let be64 = |at| (u64::from(be32(bytes, at)) << 32) | u64::from(be32(bytes, at + 4));
        Request {
            flags: CommandFlags(u16::from_be_bytes([bytes[4], bytes[5]])),
            command: Command::from_wire(u16::from_be_bytes([bytes[6], bytes[7]])),
            cookie: be64(8),
            offset: be64(16),
            length: 0,
        }
    }

    /// Encodes a compact header. The length must fit 32 bits: a longer one cannot be said in this style, and callers split
    /// requests long before; here it is cut to the largest length that can be said.
    #[inline]
    pub fn encode_compact(&self) -> [u8; COMPACT_LEN] {
        debug_assert!(
            self.length <= u32::MAX.into(),
            "a compact header cannot carry a length of {}",
            self.length
        );
        let mut out = [0; COMPACT_LEN];
        self.put_middle(&mut out, REQUEST_MAGIC);
        out[24..].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes());
        out
    }

    /// Encodes an extended header.
    #[inline]
    pub fn encode_extended(&self) -> [u8; EXTENDED_LEN] {
        let mut out = [0; EXTENDED_LEN];
        self.put_middle(&mut out, EXTENDED_REQUEST_MAGIC);
        out[24..].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    #[inline]
    fn put_middle(&self, out: &mut [u8], magic: u32) {
        out[..4].copy_from_slice(&magic.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.to_wire().to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
    }

    /// Appends the header to `out`.
    #[inline]
    pub fn encode_into(&self, style: HeaderStyle, out: &mut Vec<u8>) {
        match style {
            HeaderStyle::Compact => out.extend_from_slice(&self.encode_compact()),
            HeaderStyle::Extended => out.extend_from_slice(&self.encode_extended()),
        }
    }

    /// How many bytes of payload follow this header on the wire, whether or not the request is valid.
    ///
    /// An extended write must carry PAYLOAD_LEN, but qemu 10.0 sends it without, and its payload follows all the same:
    /// a write that no payload follows does not exist.
    #[inline]
    pub const fn payload_len(&self, style: HeaderStyle) -> u64 {
        let follows = match style {
            HeaderStyle::Compact => matches!(self.command, Command::Write),
            HeaderStyle::Extended => {
                matches!(self.command, Command::Write) || self.flags.has(CommandFlags::PAYLOAD_LEN)
            }
        };
        if follows { self.length } else { 0 }
    }
}

/// The payload of a BLOCK_STATUS request: report on this range, but only in these contexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockStatusPayload {
    /// How far to look, in bytes; the request's own length is that of the payload.
    pub length: u64,
    /// The contexts asked for, without repetition.
    pub contexts: Vec<u32>,
}

impl BlockStatusPayload {
    /// The largest payload worth reading, in bytes; a longer one is read away and answered with EINVAL.
    pub const MAX_LEN: u64 = 8 + 4 * CONTEXTS_MAX as u64;

    /// Decodes the payload.
    ///
    /// # Errors
    /// It is not 8 bytes and a number of 4-byte ids, or an id stands in it twice. The reply is EINVAL; the connection
    /// can go on.
    pub fn decode(bytes: &[u8]) -> Result<BlockStatusPayload> {
        const OF: &str = "BLOCK_STATUS payload";
        let Some((length, ids)) = bytes.split_first_chunk() else {
            return Err(Error::invalid(OF, format!("{} bytes are too short", bytes.len())));
        };
        let (ids, rest) = ids.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Error::invalid(OF, format!("{} bytes are not 8 and a multiple of 4", bytes.len())));
        }
        if ids.len() > CONTEXTS_MAX {
            return Err(Error::invalid(OF, format!("names {} contexts", ids.len())));
        }
        let contexts: Vec<u32> = ids.iter().map(|id| u32::from_be_bytes(*id)).collect();
        let mut sorted = contexts.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(OF, format!("names context {} twice", pair[0])));
        }
        Ok(BlockStatusPayload { length: u64::from_be_bytes(*length), contexts })
    }

    /// Appends the payload to `out`: `8 + 4 * contexts.len()` bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_be_bytes());
        for id in &self.contexts {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
