//! The handshake as two pure state machines: [`server::ServerHandshake`] and [`client::ClientHandshake`].
//!
//! Both are driven alike: send what `take_output` gives, call `next`, act on the event, and on `NeedInput` receive bytes
//! and `feed` them. What was fed but not used when the handshake is over (`take_input`) belongs to the transmission
//! phase. An error ends the session; what `take_output` still holds then may be sent before closing.

pub mod client;
pub mod oldstyle;
pub mod server;

use crate::flags::TransmissionFlags;
use crate::meta_context::Context;
use crate::option::BlockSizes;
use crate::reply::ReplyStyle;

/// How an end of a connection feels about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tls {
    /// Never.
    #[default]
    Off,
    /// If the other end wants or offers it.
    Allow,
    /// Not without.
    Require,
}

/// Which dialect of the handshake was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The server speaks once and names no export.
    Oldstyle,
    /// Only the option EXPORT_NAME.
    Newstyle,
    /// Options with answers.
    FixedNewstyle,
}

impl Protocol {
    /// The name that users know: `oldstyle`, `newstyle` or `newstyle-fixed`.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Oldstyle => "oldstyle",
            Protocol::Newstyle => "newstyle",
            Protocol::FixedNewstyle => "newstyle-fixed",
        }
    }
}

/// What a server tells of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportInfo {
    /// Its size in bytes.
    pub size: u64,
    /// What it can do.
    pub flags: TransmissionFlags,
    /// Sizes that requests should keep to.
    pub block_sizes: Option<BlockSizes>,
    /// Its canonical name, where that is not the name asked for.
    pub name: Option<String>,
    /// Words for humans.
    pub description: Option<String>,
}

/// The outcome of a handshake: all that the transmission phase needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The dialect that was spoken.
    pub protocol: Protocol,
    /// Whether the connection runs over TLS.
    pub tls: bool,
    /// The export, by the name that the client asked for.
    pub export: String,
    /// What the server told of it; the flags are those on the wire.
    pub info: ExportInfo,
    /// How replies, and with them requests, are framed.
    pub replies: ReplyStyle,
    /// The metadata contexts that BLOCK_STATUS reports on.
    pub contexts: Vec<Context>,
}

/// The bytes in front of a machine and behind it.
#[derive(Debug, Default)]
struct Buffers {
    input: Vec<u8>,
    /// How much of `input` is used up; moved out when more comes, so that feeding byte by byte stays cheap.
    used: usize,
    output: Vec<u8>,
}

impl Buffers {
    fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.extend_from_slice(bytes);
    }

    fn unread(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Takes the next `count` bytes, if they are all there.
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let bytes = self.input.get(self.used..)?.get(..count)?;
        self.used += count;
        Some(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N).and_then(|bytes| bytes.try_into().ok())
    }

    fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.unread().to_vec();
        self.input.clear();
        self.used = 0;
        rest
    }
}

#[cfg(test)]
mod tests;
