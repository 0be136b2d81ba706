//! The driver's answers to the machine's questions.

#[cfg(doc)]
use super::Event;
use super::{Purpose, Question, ServerHandshake, State};
use crate::error::{Error, Result};
use crate::flags::{ClientFlags, TransmissionFlags};
use crate::handshake::{ExportInfo, Negotiated, Protocol};
use crate::meta_context::{self, Context};
use crate::option::{ExportEntry, Info, Infos, OptionReply, OptionType, ReplyType};
use crate::reply::ReplyStyle;

impl ServerHandshake {
    fn answered(&mut self, what: &'static str) -> Result<Question> {
        match std::mem::replace(&mut self.state, State::Option) {
            State::Asked(question) => Ok(question),
            other => {
                self.state = other;
                Err(Error::Unasked(what))
            }
        }
    }

    fn wrong_answer<T>(&mut self, question: Question, what: &'static str) -> Result<T> {
        self.state = State::Asked(question);
        Err(Error::Unasked(what))
    }

    /// Answers [`Event::List`].
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn exports(&mut self, exports: &[ExportEntry]) -> Result<()> {
        match self.answered("exports")? {
            Question::List => {
                for entry in exports {
                    self.reply(OptionType::LIST, OptionReply::Server(entry.clone()));
                }
                self.reply(OptionType::LIST, OptionReply::Ack);
                Ok(())
            }
            other => self.wrong_answer(other, "exports"),
        }
    }

    /// Answers [`Event::MetaContexts`] with the full names of all contexts that the export has. The machine selects from
    /// them what the client asked for, and numbers them from 1 in the order given.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn contexts<S: AsRef<str>>(&mut self, available: &[S]) -> Result<()> {
        let (request, set) = match self.answered("contexts")? {
            Question::MetaContexts { request, set } => (request, set),
            other => return self.wrong_answer(other, "contexts"),
        };
        let select = if set { meta_context::sets } else { meta_context::lists };
        let all = !set && request.queries.is_empty();
        let chosen: Vec<Context> = (1..)
            .zip(available)
            .map(|(id, name)| Context { id, name: name.as_ref().to_owned() })
            .filter(|context| all || request.queries.iter().any(|query| select(query, &context.name)))
            .collect();
        let option = if set { OptionType::SET_META_CONTEXT } else { OptionType::LIST_META_CONTEXT };
        for context in &chosen {
            // In a list the id is reserved.
            let id = if set { context.id } else { 0 };
            self.reply(option, OptionReply::MetaContext(Context { id, name: context.name.clone() }));
        }
        self.reply(option, OptionReply::Ack);
        if set {
            self.contexts = (request.export, chosen);
        }
        Ok(())
    }

    /// Answers [`Event::Export`]. Flags that depend on what was negotiated (DF, RESIZE, BLOCK_STATUS_PAYLOAD) are taken back here
    /// where they do not apply, so that the driver may always offer them.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn export(&mut self, mut info: ExportInfo) -> Result<()> {
        let (name, purpose, infos) = match self.answered("an export")? {
            Question::Export { name, purpose, infos } => (name, purpose, infos),
            other => return self.wrong_answer(other, "an export"),
        };
        let contexts = match &self.contexts {
            (export, contexts) if *export == name => contexts.clone(),
            _ => Vec::new(),
        };
        info.flags |= TransmissionFlags::HAS_FLAGS;
        if !self.replies.has_chunks() {
            info.flags = info.flags.without(TransmissionFlags::SEND_DF | TransmissionFlags::SEND_RESIZE);
        }
        if self.replies != ReplyStyle::Extended || contexts.is_empty() {
            info.flags = info.flags.without(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        }
        match purpose {
            Purpose::ExportName => {
                self.buffers.output.extend_from_slice(&info.size.to_be_bytes());
                self.buffers.output.extend_from_slice(&info.flags.0.to_be_bytes());
                if !self.client_flags.has(ClientFlags::NO_ZEROES) {
                    self.buffers.output.extend_from_slice(&[0; 124]);
                }
            }
            Purpose::Info => self.reply_infos(OptionType::INFO, &name, infos, &info),
            Purpose::Go => self.reply_infos(OptionType::GO, &name, infos, &info),
        }
        if purpose != Purpose::Info {
            let protocol = match self.client_flags.has(ClientFlags::FIXED_NEWSTYLE) {
                true => Protocol::FixedNewstyle,
                false => Protocol::Newstyle,
            };
            self.state = State::Ready(Box::new(Negotiated {
                protocol,
                tls: self.tls,
                export: name,
                info,
                replies: self.replies,
                contexts,
            }));
        }
        Ok(())
    }

    fn reply_infos(&mut self, option: OptionType, name: &str, infos: Infos, info: &ExportInfo) {
        self.reply(option, OptionReply::Info(Info::Export { size: info.size, flags: info.flags }));
        if infos.has(Infos::NAME) {
            let name = info.name.as_deref().unwrap_or(name).to_owned();
            self.reply(option, OptionReply::Info(Info::Name(name)));
        }
        if let Some(description) = info.description.as_ref().filter(|_| infos.has(Infos::DESCRIPTION)) {
            self.reply(option, OptionReply::Info(Info::Description(description.clone())));
        }
        // A client that did not ask is told all the same if it could otherwise send what cannot be served.
        if let Some(sizes) =
            info.block_sizes.filter(|sizes| infos.has(Infos::BLOCK_SIZE) || sizes.minimum > 1)
        {
            self.reply(option, OptionReply::Info(Info::BlockSize(sizes)));
        }
        self.reply(option, OptionReply::Ack);
    }

    /// After [`Event::StartTls`]: TLS is running. What was negotiated in the clear is forgotten.
    ///
    /// # Errors
    /// [`Error::Unasked`], or bytes were fed that the client sent in the clear.
    pub fn tls_started(&mut self) -> Result<()> {
        match self.answered("TLS")? {
            Question::StartTls => {
                if !self.buffers.unread().is_empty() {
                    self.fail("the client sent more after STARTTLS without waiting for the answer");
                    return Ok(());
                }
                self.tls = true;
                self.replies = ReplyStyle::Simple;
                self.contexts = Default::default();
                Ok(())
            }
            other => self.wrong_answer(other, "TLS"),
        }
    }

    /// Answers any question but [`Event::StartTls`] with an error and words for the user. The client may try something
    /// else, unless it asked with EXPORT_NAME: then the next step is an error and the connection ends.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn refuse(&mut self, error: ReplyType, message: &str) -> Result<()> {
        let option = match self.answered("a refusal")? {
            Question::List => OptionType::LIST,
            Question::Export { purpose: Purpose::Info, .. } => OptionType::INFO,
            Question::Export { purpose: Purpose::Go, .. } => OptionType::GO,
            Question::Export { purpose: Purpose::ExportName, .. } => OptionType::EXPORT_NAME,
            Question::MetaContexts { set: true, .. } => OptionType::SET_META_CONTEXT,
            Question::MetaContexts { set: false, .. } => OptionType::LIST_META_CONTEXT,
            // The answer is on its way.
            question @ Question::StartTls => return self.wrong_answer(question, "a refusal"),
        };
        self.answer_error(option, error, message);
        Ok(())
    }
}
