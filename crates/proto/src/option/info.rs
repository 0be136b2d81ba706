//! The pieces of information that INFO and GO are answered with.

use crate::bits::bits;
use crate::error::{Error, Fields, Result};
use crate::flags::TransmissionFlags;

/// The number of a piece of information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoType(pub u16);

impl InfoType {
    /// Size and transmission flags.
    pub const EXPORT: InfoType = InfoType(0);
    /// The export's canonical name.
    pub const NAME: InfoType = InfoType(1);
    /// A description for humans.
    pub const DESCRIPTION: InfoType = InfoType(2);
    /// Block sizes.
    pub const BLOCK_SIZE: InfoType = InfoType(3);
}

bits! {
    /// A set of pieces of information that a client asks for; size and flags always come.
    pub struct Infos: u16 {
        /// The export's canonical name.
        NAME = 1;
        /// A description for humans.
        DESCRIPTION = 2;
        /// Block sizes; to ask is also to promise to keep to them.
        BLOCK_SIZE = 3;
    }
}

impl Infos {
    pub(super) fn of(kind: InfoType) -> Infos {
        match kind.0 {
            1..=3 => Infos(1 << kind.0),
            _ => Infos::NONE,
        }
    }

    pub(super) fn types(self) -> Vec<InfoType> {
        (1..=3).filter(|bit| self.0 & (1 << bit) != 0).map(InfoType).collect()
    }
}

/// The sizes that requests should keep to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of this: a power of two, 1 to 64 KiB.
    pub minimum: u32,
    /// Requests of this size and alignment are served best: a power of two, at least 512 and the minimum.
    pub preferred: u32,
    /// The longest payload: a multiple of the minimum, or `u32::MAX` for no limit.
    pub maximum: u32,
}

impl BlockSizes {
    /// Checks the relations that the specification demands.
    ///
    /// # Errors
    /// A sentence naming the size that is wrong.
    pub fn check(&self) -> Result<()> {
        let BlockSizes { minimum, preferred, maximum } = *self;
        let wrong = |why: String| Err(Error::invalid("block sizes", why));
        if !minimum.is_power_of_two() || minimum > 64 * 1024 {
            return wrong(format!("the minimum {minimum} is not a power of two from 1 to 65536"));
        }
        if !preferred.is_power_of_two() || preferred < 512.max(minimum) {
            return wrong(format!(
                "the preferred size {preferred} is not a power of two of at least 512 and the minimum"
            ));
        }
        if maximum != u32::MAX && (maximum < minimum || maximum % minimum != 0) {
            return wrong(format!("the maximum {maximum} is not a multiple of the minimum {minimum}"));
        }
        Ok(())
    }
}

/// One piece of information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Info {
    /// What every export has.
    Export {
        /// Its size in bytes.
        size: u64,
        /// What it can do.
        flags: TransmissionFlags,
    },
    /// Its canonical name.
    Name(String),
    /// Words about it.
    Description(String),
    /// Sizes that requests should keep to. As the server sent them: see [`BlockSizes::check`].
    BlockSize(BlockSizes),
    /// A type that is not known here; clients pass over it.
    Unknown(InfoType),
}

impl Info {
    /// Decodes the data of an INFO reply.
    ///
    /// # Errors
    /// The data does not have the form of its type.
    pub fn decode(data: &[u8]) -> Result<Info> {
        let mut fields = Fields::new(data, "INFO reply");
        let info = match InfoType(fields.u16()?) {
            InfoType::EXPORT => Info::Export { size: fields.u64()?, flags: TransmissionFlags(fields.u16()?) },
            InfoType::NAME => Info::Name(fields.string(fields.len(), "export name")?.to_owned()),
            InfoType::DESCRIPTION => {
                Info::Description(fields.string(fields.len(), "export description")?.to_owned())
            }
            InfoType::BLOCK_SIZE => Info::BlockSize(BlockSizes {
                minimum: fields.u32()?,
                preferred: fields.u32()?,
                maximum: fields.u32()?,
            }),
            unknown => {
                fields.rest();
                Info::Unknown(unknown)
            }
        };
        fields.end()?;
        Ok(info)
    }

    /// Encodes the data of an INFO reply.
    pub fn encode(&self) -> Vec<u8> {
        let with = |kind: InfoType, parts: &[&[u8]]| {
            let mut out = kind.0.to_be_bytes().to_vec();
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out
        };
        match self {
            Info::Export { size, flags } => {
                with(InfoType::EXPORT, &[&size.to_be_bytes(), &flags.0.to_be_bytes()])
            }
            Info::Name(name) => with(InfoType::NAME, &[name.as_bytes()]),
            Info::Description(text) => with(InfoType::DESCRIPTION, &[text.as_bytes()]),
            Info::BlockSize(sizes) => with(
                InfoType::BLOCK_SIZE,
                &[&sizes.minimum.to_be_bytes(), &sizes.preferred.to_be_bytes(), &sizes.maximum.to_be_bytes()],
            ),
            Info::Unknown(kind) => with(*kind, &[]),
        }
    }
}
