//! NBD as bytes and pure state machines: no I/O, no async.
//!
//! Both ends of a connection share this crate. The codec turns headers into bytes and back ([`command`], [`reply`],
//! [`option`]); payload never enters it. The [`handshake`] machines are fed bytes and give events and bytes
//! out, so that a whole negotiation can run in memory. [`uri`] reads and writes NBD URIs.
//!
//! Words and numbers are those of the NBD specification, `doc/proto.md`, and of its branch `extension-ext-header`.
//! All integers on the wire are big-endian.
#![forbid(unsafe_code)]

mod bits;
mod error;

pub mod command;
pub mod errno;
pub mod flags;
pub mod handshake;
pub mod limits;
pub mod meta_context;
pub mod option;
pub mod reply;
pub mod resize;
pub mod uri;

pub use command::{Command, CommandFlags, HeaderStyle, Request};
pub use errno::Errno;
pub use error::{Error, Result};
pub use flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
pub use meta_context::Context;
pub use option::{BlockSizes, ExportEntry, Infos};
pub use reply::{ChunkHeader, ChunkType, Extent, ReplyFlags, ReplyHeader, ReplyStyle, ReplyTo, SimpleReply};
pub use uri::Uri;
