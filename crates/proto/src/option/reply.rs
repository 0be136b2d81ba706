//! What a server answers to options.

use std::fmt;

use super::data::put_string;
use super::{Info, OPTION_REPLY_MAGIC, OptionType, ReplyType};
use crate::error::{Error, Fields, Result};
use crate::limits::{OPTION_REPLY_MAX, STRING_MAX};
use crate::meta_context::Context;

/// The header of a reply to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: OptionType,
    /// The kind of answer.
    pub reply: ReplyType,
    /// How many bytes of data follow.
    pub length: u32,
}

impl OptionReplyHeader {
    /// The size of the header in bytes.
    pub const LEN: usize = 20;

    /// Decodes the header at the front of `bytes`; `None`: read more.
    ///
    /// # Errors
    /// The magic number is wrong, or more data is announced than [`OPTION_REPLY_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Option<OptionReplyHeader>> {
        let Some(magic) = bytes.first_chunk().map(|magic| u64::from_be_bytes(*magic)) else {
            return Ok(None);
        };
        if magic != OPTION_REPLY_MAGIC {
            return Err(Error::Magic { of: "a reply to an option", found: magic });
        }
        if bytes.len() < OptionReplyHeader::LEN {
            return Ok(None);
        }
        let mut fields = Fields::new(&bytes[8..], "option reply");
        let (option, reply) = (OptionType(fields.u32()?), ReplyType(fields.u32()?));
        let length = fields.u32()?;
        if length > OPTION_REPLY_MAX {
            return Err(Error::TooBig {
                of: "reply to an option",
                bytes: length.into(),
                limit: OPTION_REPLY_MAX.into(),
            });
        }
        Ok(Some(OptionReplyHeader { option, reply, length }))
    }

    /// Encodes the header.
    pub fn encode(&self) -> [u8; OptionReplyHeader::LEN] {
        let mut out = [0; OptionReplyHeader::LEN];
        out[..8].copy_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&self.option.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.reply.0.to_be_bytes());
        out[16..].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// One export of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ExportEntry {
    /// Its name.
    pub name: String,
    /// Words about it, perhaps none.
    pub description: String,
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The option that was refused.
    pub option: OptionType,
    /// The kind of error.
    pub error: ReplyType,
    /// The server's words, perhaps none.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused {}: {}", self.option, self.error.meaning())?;
        if self.error.name().is_none() {
            write!(f, " ({})", self.error)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// A decoded reply to an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionReply {
    /// Done.
    Ack,
    /// One export of a list.
    Server(ExportEntry),
    /// One fact about an export.
    Info(Info),
    /// One metadata context.
    MetaContext(Context),
    /// Refused.
    Error {
        /// The kind of error.
        error: ReplyType,
        /// The server's words, perhaps none.
        message: String,
    },
}

impl OptionReply {
    /// Decodes the data of a reply of this type.
    ///
    /// # Errors
    /// The data does not have the form of its type, or the type is neither known nor an error.
    pub fn decode(reply: ReplyType, data: &[u8]) -> Result<OptionReply> {
        match reply {
            ReplyType::ACK => {
                Fields::new(data, "ACK reply").end()?;
                Ok(OptionReply::Ack)
            }
            ReplyType::SERVER => {
                let mut fields = Fields::new(data, "SERVER reply");
                let length = fields.u32()? as usize;
                let name = fields.string(length, "export name")?.to_owned();
                let description = fields.string(fields.len(), "export description")?.to_owned();
                Ok(OptionReply::Server(ExportEntry { name, description }))
            }
            ReplyType::INFO => Info::decode(data).map(OptionReply::Info),
            ReplyType::META_CONTEXT => {
                let mut fields = Fields::new(data, "META_CONTEXT reply");
                let id = fields.u32()?;
                let name = fields.string(fields.len(), "metadata context name")?.to_owned();
                Ok(OptionReply::MetaContext(Context { id, name }))
            }
            error if error.is_error() => {
                // For human eyes only: do not lose the error over a bad encoding or too many words.
                let message = String::from_utf8_lossy(&data[..data.len().min(STRING_MAX)]).into_owned();
                Ok(OptionReply::Error { error, message })
            }
            unknown => Err(Error::invalid("option reply", format!("has the unknown type {:#x}", unknown.0))),
        }
    }

    /// Appends the whole reply, header and data, to `out`.
    pub fn encode_into(&self, option: OptionType, out: &mut Vec<u8>) {
        let (reply, data) = match self {
            OptionReply::Ack => (ReplyType::ACK, Vec::new()),
            OptionReply::Server(entry) => {
                let mut data = Vec::with_capacity(4 + entry.name.len() + entry.description.len());
                put_string(&mut data, &entry.name);
                data.extend_from_slice(entry.description.as_bytes());
                (ReplyType::SERVER, data)
            }
            OptionReply::Info(info) => (ReplyType::INFO, info.encode()),
            OptionReply::MetaContext(context) => {
                let mut data = context.id.to_be_bytes().to_vec();
                data.extend_from_slice(context.name.as_bytes());
                (ReplyType::META_CONTEXT, data)
            }
            OptionReply::Error { error, message } => {
                (*error, crate::reply::truncate(message, STRING_MAX).as_bytes().to_vec())
            }
        };
        out.extend_from_slice(&OptionReplyHeader { option, reply, length: data.len() as u32 }.encode());
        out.extend_from_slice(&data);
    }
}
