//! What chunks carry. The bytes of OFFSET_DATA stay with the caller; everything else is decoded here.

use super::ChunkType;
use crate::errno::Errno;
use crate::error::{Error, Fields, Result};
use crate::limits::EXTENT_32_MAX;
use crate::resize;

/// A run of bytes with one status in a metadata context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// How long, in bytes; never 0.
    pub length: u64,
    /// What it is; the meaning belongs to the context.
    pub status: u64,
}

/// A decoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// Data of the disk.
    Data {
        /// Where it stands, in bytes from the start of the disk.
        offset: u64,
        /// At least one byte.
        data: &'a [u8],
    },
    /// Zeroes.
    Hole {
        /// Where they start.
        offset: u64,
        /// How many; never 0.
        length: u32,
    },
    /// The extents of one context, from the request's offset on.
    BlockStatus {
        /// The context's id.
        context: u32,
        /// At least one.
        extents: Vec<Extent>,
    },
    /// The size of the export, in bytes.
    Size(u64),
    /// The request failed, or a part of it.
    Error(ErrorPayload<'a>),
}

/// An error as a chunk tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPayload<'a> {
    /// What happened.
    pub errno: Errno,
    /// A sentence for a human, perhaps empty. Bytes that are not UTF-8 were replaced.
    pub message: std::borrow::Cow<'a, str>,
    /// Where it happened, if the server says so.
    pub offset: Option<u64>,
}

impl<'a> Payload<'a> {
    /// Decodes the whole payload of a chunk of this type.
    ///
    /// # Errors
    /// The payload breaks the rules of its type, or the type is unknown and not an error: the connection must end.
    pub fn decode(kind: ChunkType, bytes: &'a [u8]) -> Result<Payload<'a>> {
        match kind {
            ChunkType::None if bytes.is_empty() => Ok(Payload::None),
            ChunkType::None => Err(Error::invalid("NONE chunk", "is not empty")),
            ChunkType::OffsetData => {
                let mut fields = Fields::new(bytes, "OFFSET_DATA chunk");
                let offset = fields.u64()?;
                match fields.rest() {
                    [] => Err(Error::invalid("OFFSET_DATA chunk", "holds no data")),
                    data => Ok(Payload::Data { offset, data }),
                }
            }
            ChunkType::OffsetHole => decode_hole(bytes),
            ChunkType::BlockStatus => {
                decode_block_status(bytes).map(|(context, extents)| Payload::BlockStatus { context, extents })
            }
            ChunkType::BlockStatusExt => decode_block_status_ext(bytes)
                .map(|(context, extents)| Payload::BlockStatus { context, extents }),
            ChunkType::Resize => resize::decode_size(bytes).map(Payload::Size),
            kind if kind.is_error() => decode_error(kind, bytes).map(Payload::Error),
            _ => Err(Error::invalid("reply chunk", format!("has the unknown type {}", kind.to_wire()))),
        }
    }
}

fn decode_hole<'a>(bytes: &[u8]) -> Result<Payload<'a>> {
    let mut fields = Fields::new(bytes, "OFFSET_HOLE chunk");
    let (offset, length) = (fields.u64()?, fields.u32()?);
    fields.end()?;
    match length {
        0 => Err(Error::invalid("OFFSET_HOLE chunk", "is a hole of no bytes")),
        length => Ok(Payload::Hole { offset, length }),
    }
}

/// Decodes a BLOCK_STATUS payload: the context's id and its extents.
///
/// # Errors
/// No whole number of descriptors, none at all, or an extent of no bytes.
pub fn decode_block_status(bytes: &[u8]) -> Result<(u32, Vec<Extent>)> {
    const OF: &str = "BLOCK_STATUS chunk";
    let mut fields = Fields::new(bytes, OF);
    let context = fields.u32()?;
    let (descriptors, rest) = fields.rest().as_chunks::<8>();
    if descriptors.is_empty() || !rest.is_empty() {
        return Err(Error::invalid(
            OF,
            format!("{} bytes are not 4 and a positive multiple of 8", bytes.len()),
        ));
    }
    let word =
        |d: &[u8; 8], at: usize| u64::from(u32::from_be_bytes([d[at], d[at + 1], d[at + 2], d[at + 3]]));
    let extents = descriptors.iter().map(|d| Extent { length: word(d, 0), status: word(d, 4) });
    Ok((context, extents.map(|e| not_empty(e, OF)).collect::<Result<_>>()?))
}

/// Decodes a BLOCK_STATUS_EXT payload: the context's id and its extents.
///
/// # Errors
/// The count does not agree with the length or is 0, or an extent has no bytes.
pub fn decode_block_status_ext(bytes: &[u8]) -> Result<(u32, Vec<Extent>)> {
    const OF: &str = "BLOCK_STATUS_EXT chunk";
    let mut fields = Fields::new(bytes, OF);
    let (context, count) = (fields.u32()?, fields.u32()? as usize);
    if count == 0 || count.checked_mul(16) != Some(fields.len()) {
        return Err(Error::invalid(OF, format!("{count} descriptors do not fill {} bytes", bytes.len())));
    }
    let mut extents = Vec::with_capacity(count);
    for _ in 0..count {
        extents.push(not_empty(Extent { length: fields.u64()?, status: fields.u64()? }, OF)?);
    }
    Ok((context, extents))
}

fn not_empty(extent: Extent, of: &'static str) -> Result<Extent> {
    match extent.length {
        0 => Err(Error::invalid(of, "describes an extent of no bytes")),
        _ => Ok(extent),
    }
}

/// Decodes the payload of an error chunk, also of a type that is not known: all begin alike.
///
/// # Errors
/// The error is 0, or the message does not fit the payload.
pub fn decode_error(kind: ChunkType, bytes: &[u8]) -> Result<ErrorPayload<'_>> {
    const OF: &str = "error chunk";
    let mut fields = Fields::new(bytes, OF);
    let errno = Errno::from_wire(fields.u32()?).ok_or_else(|| Error::invalid(OF, "reports error 0"))?;
    let length = fields.u16()?.into();
    // A message beyond the specification's limit or in a broken encoding is no reason to lose the error number.
    let message = String::from_utf8_lossy(fields.bytes(length)?);
    let offset = match kind {
        ChunkType::ErrorOffset => Some(fields.u64()?),
        _ => None,
    };
    if matches!(kind, ChunkType::Error | ChunkType::ErrorOffset) {
        fields.end()?;
    }
    Ok(ErrorPayload { errno, message, offset })
}

/// How many of `extents` can be sent in 32-bit descriptors, cutting the last of them if it is too long: nothing may follow
/// an extent that was cut.
pub(super) fn cut_to_32_bits(extents: &[Extent]) -> impl ExactSizeIterator<Item = (u32, u32)> {
    let whole =
        extents.iter().position(|e| e.length > EXTENT_32_MAX.into()).map_or(extents.len(), |at| at + 1);
    extents[..whole].iter().map(|e| (e.length.min(EXTENT_32_MAX.into()) as u32, e.status as u32))
}
