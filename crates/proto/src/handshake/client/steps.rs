//! Steps for the driver, at [`Event::Waiting`].

#[cfg(doc)]
use super::Event;
use super::{ClientHandshake, State};
use crate::error::{Error, Result};
use crate::option::OptionType;
use crate::reply::ReplyStyle;

impl ClientHandshake {
    fn waiting(&self) -> Result<()> {
        match self.state {
            State::Idle if self.plan.is_empty() => Ok(()),
            _ => Err(Error::Unasked("a step of the driver now")),
        }
    }

    /// Lists the exports: [`Event::Exports`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`], as with all steps, if the machine is not at [`Event::Waiting`].
    pub fn list(&mut self) -> Result<()> {
        self.waiting()?;
        self.send(OptionType::LIST, String::new(), &[], true);
        Ok(())
    }

    /// Asks about an export: [`Event::Info`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn info(&mut self, export: &str) -> Result<()> {
        self.waiting()?;
        self.send_info(OptionType::INFO, export.to_owned(), true);
        Ok(())
    }

    /// Asks which contexts an export has, all of them if there is no query: [`Event::Contexts`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn list_meta_context(&mut self, export: &str, queries: &[String]) -> Result<()> {
        self.waiting()?;
        self.send_meta_context(OptionType::LIST_META_CONTEXT, export.to_owned(), queries.to_vec(), true);
        Ok(())
    }

    /// Selects contexts for a GO with the same export, in place of those selected before: [`Event::Contexts`] or
    /// [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn set_meta_context(&mut self, export: &str, queries: &[String]) -> Result<()> {
        self.waiting()?;
        self.send_meta_context(OptionType::SET_META_CONTEXT, export.to_owned(), queries.to_vec(), true);
        Ok(())
    }

    /// Asks for structured replies: [`Event::Accepted`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn structured_reply(&mut self) -> Result<()> {
        self.waiting()?;
        self.send(OptionType::STRUCTURED_REPLY, String::new(), &[], true);
        Ok(())
    }

    /// Asks for extended headers: [`Event::Accepted`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn extended_headers(&mut self) -> Result<()> {
        self.waiting()?;
        self.send(OptionType::EXTENDED_HEADERS, String::new(), &[], true);
        Ok(())
    }

    /// Asks for TLS: [`Event::StartTls`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn starttls(&mut self) -> Result<()> {
        self.waiting()?;
        self.send(OptionType::STARTTLS, String::new(), &[], true);
        Ok(())
    }

    /// Chooses an export and ends the handshake: [`Event::Ready`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn go(&mut self, export: &str) -> Result<()> {
        self.waiting()?;
        self.send_info(OptionType::GO, export.to_owned(), true);
        Ok(())
    }

    /// Chooses an export by the old option, for servers without GO: [`Event::Ready`], or the server closes.
    ///
    /// # Errors
    /// [`Error::Unasked`], also after extended headers, which forbid it.
    pub fn export_name(&mut self, export: &str) -> Result<()> {
        self.waiting()?;
        if self.replies == ReplyStyle::Extended {
            return Err(Error::Unasked("EXPORT_NAME: extended headers forbid it"));
        }
        self.send_export_name(export.to_owned());
        Ok(())
    }

    /// Says good-bye: [`Event::Aborted`], or the server closes, which is as good.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn abort(&mut self) -> Result<()> {
        self.waiting()?;
        self.send(OptionType::ABORT, String::new(), &[], true);
        Ok(())
    }

    /// After [`Event::StartTls`]: TLS is running. What was negotiated in the clear is forgotten by both sides.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn tls_started(&mut self) -> Result<()> {
        match self.state {
            State::StartTls => {
                self.state = State::Idle;
                self.tls = true;
                self.replies = ReplyStyle::Simple;
                self.contexts = Default::default();
                Ok(())
            }
            _ => Err(Error::Unasked("TLS")),
        }
    }
}
