//! Replies: what a server sends in the transmission phase. Simple replies (16 bytes), and the chunks of structured
//! (20 bytes) and extended (32 bytes) replies.
//!
//! A server holds a [`ReplyTo`] per request and appends whole headers to a buffer with it, whatever the style of the
//! connection; a client decodes a [`ReplyHeader`] and then, with the functions of [`payload`], what follows it.

mod header;
pub mod payload;
mod write;

pub use header::{ChunkHeader, ReplyHeader, SimpleReply};
pub use payload::{Extent, Payload};
pub use write::ReplyTo;
pub(crate) use write::truncate;

use crate::bits::bits;
use crate::command::HeaderStyle;
use crate::resize;

/// The magic number of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// The magic number of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// The magic number of an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// The size of a simple reply.
pub const SIMPLE_LEN: usize = 16;
/// The size of a structured chunk header.
pub const STRUCTURED_LEN: usize = 20;
/// The size of an extended chunk header.
pub const EXTENDED_LEN: usize = 32;

/// Which replies a connection uses; agreed in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReplyStyle {
    /// Simple replies only.
    #[default]
    Simple,
    /// Structured replies; a client must accept simple ones to everything but READ and BLOCK_STATUS.
    Structured,
    /// Extended replies only, with extended requests.
    Extended,
}

impl ReplyStyle {
    /// The request header that goes with these replies.
    #[inline]
    pub const fn header_style(self) -> HeaderStyle {
        match self {
            ReplyStyle::Extended => HeaderStyle::Extended,
            _ => HeaderStyle::Compact,
        }
    }

    /// Whether replies come in chunks, so that holes, block status and error messages can be sent.
    #[inline]
    pub const fn has_chunks(self) -> bool {
        !matches!(self, ReplyStyle::Simple)
    }
}

/// What a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkType {
    /// Nothing; it only ends the reply.
    None,
    /// Data at an offset.
    OffsetData,
    /// A range that reads as zeroes.
    OffsetHole,
    /// Extents of one context in 32-bit descriptors.
    BlockStatus,
    /// Extents of one context in 64-bit descriptors.
    BlockStatusExt,
    /// The size of the export, in reply to RESIZE.
    Resize,
    /// An error.
    Error,
    /// An error at an offset.
    ErrorOffset,
    /// A number that has no meaning here. With bit 15 set it is an error all the same.
    Unknown(u16),
}

impl ChunkType {
    /// The type with this number.
    #[inline]
    pub const fn from_wire(number: u16) -> ChunkType {
        match number {
            0 => ChunkType::None,
            1 => ChunkType::OffsetData,
            2 => ChunkType::OffsetHole,
            5 => ChunkType::BlockStatus,
            6 => ChunkType::BlockStatusExt,
            resize::REPLY_TYPE_RESIZE => ChunkType::Resize,
            0x8001 => ChunkType::Error,
            0x8002 => ChunkType::ErrorOffset,
            other => ChunkType::Unknown(other),
        }
    }

    /// The number for the wire.
    #[inline]
    pub const fn to_wire(self) -> u16 {
        match self {
            ChunkType::None => 0,
            ChunkType::OffsetData => 1,
            ChunkType::OffsetHole => 2,
            ChunkType::BlockStatus => 5,
            ChunkType::BlockStatusExt => 6,
            ChunkType::Resize => resize::REPLY_TYPE_RESIZE,
            ChunkType::Error => 0x8001,
            ChunkType::ErrorOffset => 0x8002,
            ChunkType::Unknown(other) => other,
        }
    }

    /// Whether it reports an error, also one of a type unknown here.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.to_wire() & 0x8000 != 0
    }
}

bits! {
    /// Flags of a chunk. Clients ignore those that they do not know.
    pub struct ReplyFlags: u16 {
        /// The last chunk of the reply.
        DONE = 0;
    }
}

#[cfg(test)]
mod tests;
