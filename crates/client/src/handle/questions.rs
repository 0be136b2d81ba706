//! What a handle knows of the server and of the export.

use super::{Fault, Handle, Outcome, When, fault::errno};
use proto::{
    ReplyStyle, TransmissionFlags,
    handshake::{ExportInfo, Protocol},
};

/// One of the three block sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeType {
    /// Everything must be aligned to it.
    Minimum,
    /// What is aligned to it is served best.
    Preferred,
    /// The longest payload.
    Maximum,
}

impl SizeType {
    /// By its number, 0 to 2.
    ///
    /// # Errors
    /// EINVAL for others.
    pub fn of(number: i32) -> Outcome<SizeType> {
        match number {
            0 => Ok(SizeType::Minimum),
            1 => Ok(SizeType::Preferred),
            2 => Ok(SizeType::Maximum),
            _ => Err(Fault::invalid(format!(
                "size_type={number}: not 0 (minimum), 1 (preferred) or 2 (maximum)"
            ))),
        }
    }
}

impl Handle {
    /// How replies are, or will be, framed.
    pub(super) fn style(&self) -> ReplyStyle {
        self.machine.as_ref().map_or(self.replies, |machine| machine.replies())
    }

    fn facts(&self) -> Outcome<&ExportInfo> {
        self.need(When::Known)?;
        let none = || Fault::invalid("nothing is known of the export: ask for it with opt_info or opt_go");
        self.facts.as_ref().ok_or_else(none)
    }

    /// The size of the export in bytes.
    ///
    /// # Errors
    /// Nothing is known of it.
    pub fn size(&self) -> Outcome<u64> {
        self.facts().map(|facts| facts.size)
    }

    /// Whether the server says this of the export.
    ///
    /// # Errors
    /// As [`Handle::size`].
    pub fn offers(&self, flag: TransmissionFlags) -> Outcome<bool> {
        self.facts().map(|facts| facts.flags.has(flag))
    }

    /// A block size, 0 if the server has not told.
    ///
    /// # Errors
    /// As [`Handle::size`].
    pub fn block_size(&self, which: SizeType) -> Outcome<u32> {
        Ok(self.facts()?.block_sizes.map_or(0, |sizes| match which {
            SizeType::Minimum => sizes.minimum,
            SizeType::Preferred => sizes.preferred,
            SizeType::Maximum => sizes.maximum,
        }))
    }

    /// What the server calls the export.
    ///
    /// # Errors
    /// ENOTSUP: it does not say, or was not asked for the full information; else as [`Handle::size`].
    pub fn canonical_name(&self) -> Outcome<&str> {
        let none = || {
            Fault::new(errno::ENOTSUP, "the server has told no name of its own (was set_full_info called?)")
        };
        self.facts()?.name.as_deref().ok_or_else(none)
    }

    /// What the server says about the export.
    ///
    /// # Errors
    /// As [`Handle::canonical_name`].
    pub fn description(&self) -> Outcome<&str> {
        let none =
            || Fault::new(errno::ENOTSUP, "the server has told no description (was set_full_info called?)");
        self.facts()?.description.as_deref().ok_or_else(none)
    }

    /// Whether a metadata context was agreed on.
    ///
    /// # Errors
    /// Contexts were not haggled over yet.
    pub fn has_context(&self, name: &str) -> Outcome<bool> {
        self.need(When::Known)?;
        let none = || Fault::invalid("metadata contexts were not asked for yet");
        let contexts = self.contexts.as_ref().ok_or_else(none)?;
        Ok(contexts.iter().any(|context| context.name == name))
    }

    /// The dialect of the server.
    ///
    /// # Errors
    /// There is no connection.
    pub fn protocol(&self) -> Outcome<Protocol> {
        self.need(When::Known)?;
        self.protocol.ok_or_else(|| Fault::invalid("the server has not said anything yet"))
    }

    /// Whether the connection is encrypted.
    ///
    /// # Errors
    /// There is no connection.
    pub fn is_encrypted(&self) -> Outcome<bool> {
        self.need(When::Known).map(|()| self.tls)
    }

    /// How replies are framed.
    ///
    /// # Errors
    /// There is no connection.
    pub fn negotiated_replies(&self) -> Outcome<ReplyStyle> {
        self.need(When::Known).map(|()| self.style())
    }
}
