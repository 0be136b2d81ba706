//! How a server writes replies: one call per chunk, the style of the connection hidden behind it.

use super::payload::{Extent, cut_to_32_bits};
use super::*;
use crate::errno::Errno;
use crate::limits::STRING_MAX;

/// What a server keeps of a request in order to answer it.
///
/// The functions append to a buffer of headers; the payload of a READ is not copied into it but sent right behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// The style of the connection.
    pub style: ReplyStyle,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset, which extended replies repeat.
    pub offset: u64,
}

impl ReplyTo {
    #[inline]
    fn chunk(&self, out: &mut Vec<u8>, done: bool, kind: ChunkType, length: u64) {
        let header = ChunkHeader {
            flags: ReplyFlags::NONE.with_if(done, ReplyFlags::DONE),
            kind,
            cookie: self.cookie,
            offset: self.offset,
            length,
        };
        match self.style {
            ReplyStyle::Extended => out.extend_from_slice(&header.encode_extended()),
            _ => out.extend_from_slice(&header.encode_structured()),
        }
    }

    /// The request succeeded and there is nothing (more) to say.
    #[inline]
    pub fn done(&self, out: &mut Vec<u8>) {
        match self.style {
            ReplyStyle::Simple => {
                out.extend_from_slice(&SimpleReply { error: None, cookie: self.cookie }.encode());
            }
            _ => self.chunk(out, true, ChunkType::None, 0),
        }
    }

    /// `length` bytes of data follow, read from `at`. In a simple reply this must be the whole answer, with `done` set.
    #[inline]
    pub fn data(&self, out: &mut Vec<u8>, done: bool, at: u64, length: u32) {
        if self.style == ReplyStyle::Simple {
            debug_assert!(done, "a simple reply has one part");
            return self.done(out);
        }
        self.chunk(out, done, ChunkType::OffsetData, 8 + u64::from(length));
        out.extend_from_slice(&at.to_be_bytes());
    }

    /// The `length` (not 0) bytes at `at` read as zeroes; nothing follows. Not for simple replies.
    #[inline]
    pub fn hole(&self, out: &mut Vec<u8>, done: bool, at: u64, length: u32) {
        debug_assert!(self.style.has_chunks(), "a simple reply cannot say that data is a hole");
        self.chunk(out, done, ChunkType::OffsetHole, 12);
        out.extend_from_slice(&at.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
    }

    /// The extents (at least one) of one context, beginning at the request's offset. Not for simple replies.
    ///
    /// Structured replies have 32-bit descriptors: the first extent that is too long for one is cut and ends the list, as
    /// the specification allows; the upper half of a status is left out.
    pub fn block_status(&self, out: &mut Vec<u8>, done: bool, context: u32, extents: &[Extent]) {
        debug_assert!(self.style.has_chunks() && !extents.is_empty());
        if self.style == ReplyStyle::Extended {
            self.chunk(out, done, ChunkType::BlockStatusExt, 8 + 16 * extents.len() as u64);
            out.extend_from_slice(&context.to_be_bytes());
            out.extend_from_slice(&(extents.len() as u32).to_be_bytes());
            for extent in extents {
                out.extend_from_slice(&extent.length.to_be_bytes());
                out.extend_from_slice(&extent.status.to_be_bytes());
            }
        } else {
            let extents = cut_to_32_bits(extents);
            self.chunk(out, done, ChunkType::BlockStatus, 4 + 8 * extents.len() as u64);
            out.extend_from_slice(&context.to_be_bytes());
            for (length, status) in extents {
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&status.to_be_bytes());
            }
        }
    }

    /// The size of the export is (now) so many bytes; `done` unless more such chunks follow. Not for simple replies.
    pub fn size(&self, out: &mut Vec<u8>, done: bool, size: u64) {
        debug_assert!(self.style.has_chunks(), "a simple reply cannot tell a size");
        self.chunk(out, done, ChunkType::Resize, resize::PAYLOAD_LEN);
        out.extend_from_slice(&size.to_be_bytes());
    }

    /// The request failed, and this ends its reply. The message is for a human; simple replies cannot carry it.
    pub fn error(&self, out: &mut Vec<u8>, errno: Errno, message: &str) {
        if self.style == ReplyStyle::Simple {
            return out.extend_from_slice(&SimpleReply { error: Some(errno), cookie: self.cookie }.encode());
        }
        let message = truncate(message, STRING_MAX);
        self.chunk(out, true, ChunkType::Error, 6 + message.len() as u64);
        put_error(out, errno, message);
    }

    /// The request failed at the offset `at`. Not for simple replies.
    pub fn error_at(&self, out: &mut Vec<u8>, done: bool, errno: Errno, message: &str, at: u64) {
        debug_assert!(self.style.has_chunks(), "a simple reply cannot say where an error happened");
        let message = truncate(message, STRING_MAX);
        self.chunk(out, done, ChunkType::ErrorOffset, 14 + message.len() as u64);
        put_error(out, errno, message);
        out.extend_from_slice(&at.to_be_bytes());
    }
}

fn put_error(out: &mut Vec<u8>, errno: Errno, message: &str) {
    out.extend_from_slice(&errno.to_wire().to_be_bytes());
    out.extend_from_slice(&(message.len() as u16).to_be_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// The front of `text`, at most `limit` bytes, cut between characters.
pub(crate) fn truncate(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
