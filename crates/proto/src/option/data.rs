//! What a client sends: the header of an option, and the data of those that have any.

use super::{InfoType, Infos, OPTION_MAGIC, OptionType};
use crate::error::{Error, Fields, Result};

/// The header of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub option: OptionType,
    /// How many bytes of data follow.
    pub length: u32,
}

impl OptionHeader {
    /// The size of the header in bytes.
    pub const LEN: usize = 16;

    /// Decodes the header at the front of `bytes`; `None`: read more.
    ///
    /// # Errors
    /// The magic number is wrong. It is looked at as soon as its eight bytes are there.
    pub fn decode(bytes: &[u8]) -> Result<Option<OptionHeader>> {
        let Some(magic) = bytes.first_chunk().map(|magic| u64::from_be_bytes(*magic)) else {
            return Ok(None);
        };
        if magic != OPTION_MAGIC {
            return Err(Error::Magic { of: "an option", found: magic });
        }
        if bytes.len() < OptionHeader::LEN {
            return Ok(None);
        }
        let mut fields = Fields::new(&bytes[8..], "option");
        Ok(Some(OptionHeader { option: OptionType(fields.u32()?), length: fields.u32()? }))
    }

    /// Encodes the header.
    pub fn encode(&self) -> [u8; OptionHeader::LEN] {
        let mut out = [0; OptionHeader::LEN];
        out[..8].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
        out[8..12].copy_from_slice(&self.option.0.to_be_bytes());
        out[12..].copy_from_slice(&self.length.to_be_bytes());
        out
    }
}

/// Appends a whole option to `out`. The data is far shorter than 4 GiB: names and queries are limited.
pub(crate) fn put_option(out: &mut Vec<u8>, option: OptionType, data: &[u8]) {
    out.extend_from_slice(&OptionHeader { option, length: data.len() as u32 }.encode());
    out.extend_from_slice(data);
}

pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The data of EXPORT_NAME: the name and nothing else.
///
/// # Errors
/// Longer than 4096 bytes, not UTF-8, or with a NUL.
pub(crate) fn decode_export_name(data: &[u8]) -> Result<&str> {
    Fields::new(data, "EXPORT_NAME").string(data.len(), "export name")
}

/// The data of INFO and GO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export; empty for the default one.
    pub export: String,
    /// What the client wants to be told beyond the size and flags.
    pub infos: Infos,
}

impl InfoRequest {
    /// Decodes the data. Information types that are not known here are passed over, as the specification wants.
    ///
    /// # Errors
    /// The data is too short or too long for what it says of itself, or the name is not a proper string.
    pub fn decode(data: &[u8]) -> Result<InfoRequest> {
        let mut fields = Fields::new(data, "INFO or GO option");
        let length = fields.u32()? as usize;
        let export = fields.string(length, "export name")?.to_owned();
        let mut infos = Infos::NONE;
        for _ in 0..fields.u16()? {
            infos |= Infos::of(InfoType(fields.u16()?));
        }
        fields.end()?;
        Ok(InfoRequest { export, infos })
    }

    /// Encodes the data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.export.len() + 14);
        put_string(&mut out, &self.export);
        let types = self.infos.types();
        out.extend_from_slice(&(types.len() as u16).to_be_bytes());
        for kind in types {
            out.extend_from_slice(&kind.0.to_be_bytes());
        }
        out
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaContextRequest {
    /// The export; empty for the default one.
    pub export: String,
    /// Which contexts; none means all when listing, and none when setting.
    pub queries: Vec<String>,
}

impl MetaContextRequest {
    /// Decodes the data.
    ///
    /// # Errors
    /// The data is too short or too long for what it says of itself, or a string is not a proper one.
    pub fn decode(data: &[u8]) -> Result<MetaContextRequest> {
        let mut fields = Fields::new(data, "LIST or SET_META_CONTEXT option");
        let length = fields.u32()? as usize;
        let export = fields.string(length, "export name")?.to_owned();
        let count = fields.u32()? as usize;
        // Each query takes at least its length field: do not believe a count that cannot be.
        if count > fields.len() / 4 {
            return Err(Error::invalid(
                "LIST or SET_META_CONTEXT option",
                format!("{count} queries do not fit"),
            ));
        }
        let mut queries = Vec::with_capacity(count);
        for _ in 0..count {
            let length = fields.u32()? as usize;
            queries.push(fields.string(length, "metadata context query")?.to_owned());
        }
        fields.end()?;
        Ok(MetaContextRequest { export, queries })
    }

    /// Encodes the data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        out.extend_from_slice(&(self.queries.len() as u32).to_be_bytes());
        for query in &self.queries {
            put_string(&mut out, query);
        }
        out
    }
}
