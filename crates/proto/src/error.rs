//! What a peer did wrong. Nothing a peer sends makes this crate panic; it ends here instead.

use std::borrow::Cow;
use std::fmt;

/// The result of decoding or negotiating.
pub type Result<T> = std::result::Result<T, Error>;

/// A breach of the protocol, or a refusal that ends the negotiation. Displayed, it is a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A magic number is wrong: the peer does not speak NBD, or the stream has lost its place.
    Magic {
        /// What was expected here, for example `a request`.
        of: &'static str,
        /// The value found.
        found: u64,
    },
    /// The bytes hold a shape that the specification forbids.
    Invalid {
        /// What was being decoded, for example `OFFSET_HOLE chunk`.
        of: &'static str,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// Something is larger than the limit (see [`crate::limits`]).
    TooBig {
        /// What is too big, for example `export name`.
        of: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The largest size that is accepted, in bytes.
        limit: u64,
    },
    /// The peer behaved against the protocol, or this side cannot go on with it: a whole sentence.
    Session(String),
    /// The server refused an option that the client cannot do without.
    Refused(crate::option::Refusal),
    /// The driver of a handshake machine answered a question that was not asked.
    Unasked(&'static str),
}

impl Error {
    pub(crate) fn invalid(of: &'static str, why: impl Into<Cow<'static, str>>) -> Error {
        Error::Invalid { of, why: why.into() }
    }

    pub(crate) fn session(text: impl Into<String>) -> Error {
        Error::Session(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Magic { of, found } => write!(f, "expected {of}, but its magic number is {found:#x}"),
            Error::Invalid { of, why } => write!(f, "{of}: {why}"),
            Error::TooBig { of, bytes, limit } => {
                write!(f, "{of} of {bytes} bytes is longer than the limit of {limit} bytes")
            }
            Error::Session(text) => f.write_str(text),
            Error::Refused(refusal) => refusal.fmt(f),
            Error::Unasked(what) => write!(f, "the handshake did not ask for {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// Reads big-endian fields off the front of a slice; the shared tool of all payload decoders.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    of: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(rest: &'a [u8], of: &'static str) -> Fields<'a> {
        Fields { rest, of }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((front, rest)) => {
                self.rest = rest;
                Ok(front)
            }
            None => Err(Error::invalid(
                self.of,
                format!("ends after {} bytes where {count} more are expected", self.rest.len()),
            )),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string of `count` bytes, which the specification limits to 4096 bytes of UTF-8 without NUL.
    pub(crate) fn string(&mut self, count: usize, what: &'static str) -> Result<&'a str> {
        let limit = crate::limits::STRING_MAX;
        if count > limit {
            return Err(Error::TooBig { of: what, bytes: count as u64, limit: limit as u64 });
        }
        let text =
            std::str::from_utf8(self.bytes(count)?).map_err(|_| Error::invalid(what, "is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Error::invalid(what, "contains a NUL character"));
        }
        Ok(text)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left over.
    pub(crate) fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(Error::invalid(self.of, format!("has {extra} bytes too many"))),
        }
    }
}
