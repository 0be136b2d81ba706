//! The options that a client haggles with in the handshake, and the replies to them.

mod data;
mod info;
mod reply;

pub use data::{InfoRequest, MetaContextRequest, OptionHeader};
pub(crate) use data::{decode_export_name, put_option};
pub use info::{BlockSizes, Info, InfoType, Infos};
pub use reply::{ExportEntry, OptionReply, OptionReplyHeader, Refusal};

/// `NBDMAGIC`, the first eight bytes of every server.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, the next eight of a newstyle server, and the first eight of every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// The next eight bytes of an oldstyle server.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// The first eight bytes of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The number of an option, known here or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OptionType(pub u32);

/// The type of a reply to an option, known here or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyType(pub u32);

/// Numbers with names: constants, and `Display` and `Debug` that say the name.
macro_rules! named {
    ($type:ident, $($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        impl $type {
            $($(#[$doc])* pub const $name: $type = $type($value);)*

            /// The specification's name without its prefix, if the number is known here.
            pub fn name(self) -> Option<&'static str> {
                $(if self == Self::$name { return Some(stringify!($name)); })*
                None
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "unknown {:#x}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

named! { OptionType,
    /// Choose an export and start, without a chance of an error message.
    EXPORT_NAME = 1;
    /// End the session.
    ABORT = 2;
    /// List the exports.
    LIST = 3;
    /// Withdrawn from the specification.
    PEEK_EXPORT = 4;
    /// Change to TLS.
    STARTTLS = 5;
    /// Describe an export.
    INFO = 6;
    /// Describe an export and start.
    GO = 7;
    /// Use structured replies.
    STRUCTURED_REPLY = 8;
    /// List metadata contexts.
    LIST_META_CONTEXT = 9;
    /// Select metadata contexts.
    SET_META_CONTEXT = 10;
    /// Use extended headers.
    EXTENDED_HEADERS = 11;
}

named! { ReplyType,
    /// Done.
    ACK = 1;
    /// One export of a list.
    SERVER = 2;
    /// One fact about an export.
    INFO = 3;
    /// One metadata context.
    META_CONTEXT = 4;
    /// The option is not known or not supported.
    ERR_UNSUP = ERROR + 1;
    /// The server is configured not to.
    ERR_POLICY = ERROR + 2;
    /// The option's data is wrong, or it comes at the wrong time.
    ERR_INVALID = ERROR + 3;
    /// Not on this platform.
    ERR_PLATFORM = ERROR + 4;
    /// Not before TLS.
    ERR_TLS_REQD = ERROR + 5;
    /// No such export.
    ERR_UNKNOWN = ERROR + 6;
    /// The server is shutting down.
    ERR_SHUTDOWN = ERROR + 7;
    /// Not unless the client promises to keep to the block sizes.
    ERR_BLOCK_SIZE_REQD = ERROR + 8;
    /// The option or its reply is too big.
    ERR_TOO_BIG = ERROR + 9;
    /// Extended headers were negotiated, or must be.
    ERR_EXT_HEADER_REQD = ERROR + 10;
}

/// The bit that makes a reply an error.
const ERROR: u32 = 1 << 31;

impl ReplyType {
    /// Whether it is an error, known here or not.
    pub const fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// What an error means, in a few words.
    pub const fn meaning(self) -> &'static str {
        match self {
            ReplyType::ERR_UNSUP => "the option is not supported",
            ReplyType::ERR_POLICY => "the server's configuration forbids it",
            ReplyType::ERR_INVALID => "the option is not valid",
            ReplyType::ERR_PLATFORM => "not supported on the server's platform",
            ReplyType::ERR_TLS_REQD => "the server requires TLS",
            ReplyType::ERR_UNKNOWN => "there is no such export",
            ReplyType::ERR_SHUTDOWN => "the server is shutting down",
            ReplyType::ERR_BLOCK_SIZE_REQD => "the server requires block sizes to be negotiated",
            ReplyType::ERR_TOO_BIG => "the option or its reply is too big",
            ReplyType::ERR_EXT_HEADER_REQD => "extended headers are required",
            _ => "an error without a name",
        }
    }
}

#[cfg(test)]
mod tests;
