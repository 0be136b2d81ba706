//! Single questions about an export: `--can`, `--is`.

use crate::info::server::{Export, Speech};
use client::proto::flags::TransmissionFlags as Flags;

/// A property, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// There is an answer at all.
    Connect,
    /// A flag of the export.
    Flag(Flags),
    /// The absence of a flag of the export.
    NotFlag(Flags),
    /// A flag that needs replies in chunks, too.
    ChunkFlag(Flags),
    /// Replies in chunks.
    Structured,
    /// Requests and replies with 64-bit lengths.
    Extended,
    /// Encryption.
    Tls,
}

impl Property {
    /// By its name; `-` and `_` are the same, and so are capitals and small letters.
    pub(crate) fn named(name: &str) -> Option<Property> {
        Some(match name.replace('_', "-").to_ascii_lowercase().as_str() {
            "connect" | "open" | "read" => Property::Connect,
            "write" => Property::NotFlag(Flags::READ_ONLY),
            "read-only" | "readonly" => Property::Flag(Flags::READ_ONLY),
            "rotational" => Property::Flag(Flags::ROTATIONAL),
            "cache" => Property::Flag(Flags::SEND_CACHE),
            "df" => Property::ChunkFlag(Flags::SEND_DF),
            "fast-zero" => Property::Flag(Flags::SEND_FAST_ZERO),
            "flush" => Property::Flag(Flags::SEND_FLUSH),
            "fua" => Property::Flag(Flags::SEND_FUA),
            "multi-conn" => Property::Flag(Flags::CAN_MULTI_CONN),
            "trim" => Property::Flag(Flags::SEND_TRIM),
            "zero" => Property::Flag(Flags::SEND_WRITE_ZEROES),
            "structured-reply" | "structured" => Property::Structured,
            "extended-headers" | "extended" => Property::Extended,
            "tls" => Property::Tls,
            _ => return None,
        })
    }

    /// Whether it is true of an export.
    pub(crate) fn holds(self, speech: &Speech, export: &Export) -> bool {
        match self {
            Property::Connect => true,
            Property::Flag(flag) => export.flags.has(flag),
            Property::NotFlag(flag) => !export.flags.has(flag),
            Property::ChunkFlag(flag) => speech.replies.has_chunks() && export.flags.has(flag),
            Property::Structured => speech.replies.has_chunks(),
            Property::Extended => speech.replies == client::proto::reply::ReplyStyle::Extended,
            Property::Tls => speech.tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_both_kinds_of_dashes_and_of_letters() {
        assert_eq!(Property::named("fast_zero"), Property::named("fast-zero"));
        assert_eq!(Property::named("readonly"), Property::named("read-only"));
        assert_eq!(Property::named("FUA"), Property::named("fua"));
        assert_eq!(Property::named("foo"), None);
        assert_eq!(Property::named(""), None);
    }
}
