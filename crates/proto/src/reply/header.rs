//! The headers of replies.

use super::*;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::limits;

/// A simple reply. After a successful READ the data follows, as many bytes as were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimpleReply {
    /// `None`: success.
    pub error: Option<Errno>,
    /// The request's cookie.
    pub cookie: u64,
}

/// The header of a structured or extended chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Flags, also unknown ones.
    pub flags: ReplyFlags,
    /// What the payload is.
    pub kind: ChunkType,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset, repeated by extended headers; 0 with structured ones, which do not have it.
    pub offset: u64,
    /// The length of the payload in bytes.
    pub length: u64,
}

/// Any reply header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply.
    Simple(SimpleReply),
    /// A chunk of a structured or extended reply.
    Chunk(ChunkHeader),
}

impl SimpleReply {
    /// Encodes the reply.
    #[inline]
    pub fn encode(&self) -> [u8; SIMPLE_LEN] {
        let mut out = [0; SIMPLE_LEN];
        out[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        out[4..8].copy_from_slice(&self.error.map_or(0, Errno::to_wire).to_be_bytes());
        out[8..].copy_from_slice(&self.cookie.to_be_bytes());
        out
    }
}

impl ChunkHeader {
    /// Encodes a structured header. Its payload must fit 32 bits; `offset` is not sent.
    #[inline]
    pub fn encode_structured(&self) -> [u8; STRUCTURED_LEN] {
        debug_assert!(
            self.length <= u32::MAX.into(),
            "a structured chunk cannot carry {} bytes",
            self.length
        );
        let mut out = [0; STRUCTURED_LEN];
        self.put_front(&mut out, STRUCTURED_REPLY_MAGIC);
        out[16..].copy_from_slice(&(self.length as u32).to_be_bytes());
        out
    }

    /// Encodes an extended header.
    #[inline]
    pub fn encode_extended(&self) -> [u8; EXTENDED_LEN] {
        let mut out = [0; EXTENDED_LEN];
        self.put_front(&mut out, EXTENDED_REPLY_MAGIC);
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..].copy_from_slice(&self.length.to_be_bytes());
        out
    }

    #[inline]
    fn put_front(&self, out: &mut [u8], magic: u32) {
        out[..4].copy_from_slice(&magic.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.0.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.to_wire().to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
    }

    /// Whether this chunk ends its reply.
    #[inline]
    pub const fn is_done(&self) -> bool {
        self.flags.has(ReplyFlags::DONE)
    }

    /// Checks the payload's length against the rules of its type, before anybody makes room for it.
    ///
    /// # Errors
    /// A length that the type cannot have, a NONE chunk that is not the last, or a type that is neither known nor an
    /// error: the specification wants the connection to end.
    #[inline]
    pub fn check(&self) -> Result<()> {
        let wrong = |why: &'static str| {
            Err(Error::invalid(
                "reply chunk",
                format!("{:?} with a payload of {} bytes: {why}", self.kind, self.length),
            ))
        };
        match self.kind {
            ChunkType::None if self.length != 0 => wrong("must be empty"),
            ChunkType::None if !self.is_done() => wrong("must be the last of its reply"),
            ChunkType::OffsetData if self.length < 9 => wrong("must be an offset and at least one byte"),
            ChunkType::OffsetData if self.length > 8 + u64::from(limits::PAYLOAD_MAX) => wrong("too long"),
            ChunkType::OffsetHole if self.length != 12 => wrong("must be 12 bytes"),
            ChunkType::BlockStatus if self.length < 12 || self.length % 8 != 4 => {
                wrong("must be 4 bytes and a positive multiple of 8")
            }
            ChunkType::BlockStatusExt if self.length < 24 || self.length % 16 != 8 => {
                wrong("must be 8 bytes and a positive multiple of 16")
            }
            ChunkType::BlockStatus | ChunkType::BlockStatusExt if self.length > limits::BLOCK_STATUS_MAX => {
                wrong("too long")
            }
            ChunkType::Resize if self.length != resize::PAYLOAD_LEN => wrong("must be 8 bytes"),
            ChunkType::Error if self.length < 6 => wrong("must be at least 6 bytes"),
            ChunkType::ErrorOffset if self.length < 14 => wrong("must be at least 14 bytes"),
            kind if kind.is_error() && self.length > limits::ERROR_CHUNK_MAX => wrong("too long"),
            ChunkType::Unknown(_) if !self.kind.is_error() => wrong("no such type was negotiated"),
            _ => Ok(()),
        }
    }
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn be64(bytes: &[u8], at: usize) -> u64 {
    (u64::from(be32(bytes, at)) << 32) | u64::from(be32(bytes, at + 4))
}

#[inline]
fn chunk(bytes: &[u8], offset: u64, length: u64) -> ChunkHeader {
    ChunkHeader {
        flags: ReplyFlags(u16::from_be_bytes([bytes[4], bytes[5]])),
        kind: ChunkType::from_wire(u16::from_be_bytes([bytes[6], bytes[7]])),
        cookie: be64(bytes, 8),
        offset,
        length,
    }
}

impl ReplyHeader {
    /// Decodes the header at the front of `bytes`, and says how many bytes it took. `None`: read more.
    ///
    /// The length of a chunk's payload is not yet checked: see [`ChunkHeader::check`].
    ///
    /// # Errors
    /// The magic number is not one that this style allows: the stream has lost its place.
    #[inline]
    pub fn decode(style: ReplyStyle, bytes: &[u8]) -> Result<Option<(ReplyHeader, usize)>> {
        let Some(magic) = bytes.first_chunk().map(|magic| u32::from_be_bytes(*magic)) else {
            return Ok(None);
        };
        match (style, magic) {
            (ReplyStyle::Simple | ReplyStyle::Structured, SIMPLE_REPLY_MAGIC) => {
                Ok(bytes.first_chunk::<SIMPLE_LEN>().map(|bytes| {
                    let error = Errno::from_wire(be32(bytes, 4));
                    (ReplyHeader::Simple(SimpleReply { error, cookie: be64(bytes, 8) }), SIMPLE_LEN)
                }))
            }
            (ReplyStyle::Structured, STRUCTURED_REPLY_MAGIC) => Ok(bytes
                .first_chunk::<STRUCTURED_LEN>()
                .map(|bytes| (ReplyHeader::Chunk(chunk(bytes, 0, be32(bytes, 16).into())), STRUCTURED_LEN))),
            (ReplyStyle::Extended, EXTENDED_REPLY_MAGIC) => {
                Ok(bytes.first_chunk::<EXTENDED_LEN>().map(|bytes| {
                    (ReplyHeader::Chunk(chunk(bytes, be64(bytes, 16), be64(bytes, 24))), EXTENDED_LEN)
                }))
            }
            (ReplyStyle::Simple, _) => Err(Error::Magic { of: "a simple reply", found: magic.into() }),
            (ReplyStyle::Structured, _) => {
                Err(Error::Magic { of: "a structured reply", found: magic.into() })
            }
            (ReplyStyle::Extended, _) => Err(Error::Magic { of: "an extended reply", found: magic.into() }),
        }
    }

    /// The cookie of the request that this answers.
    #[inline]
    pub const fn cookie(&self) -> u64 {
        match self {
            ReplyHeader::Simple(reply) => reply.cookie,
            ReplyHeader::Chunk(chunk) => chunk.cookie,
        }
    }
}
