//! The server's side of the newstyle handshake.
//!
//! The machine answers by itself what needs no knowledge of exports, and asks its driver for the rest: an event that is a
//! question is followed by exactly one of [`ServerHandshake::exports`], [`ServerHandshake::export`],
//! [`ServerHandshake::contexts`], [`ServerHandshake::tls_started`] or [`ServerHandshake::refuse`]. The driver may take its
//! time: nothing is read from the client meanwhile.

mod answers;

use super::{Buffers, Negotiated, Tls};
use crate::error::{Error, Result};
use crate::flags::{ClientFlags, HandshakeFlags};
use crate::limits::{OPTION_DATA_MAX, OPTION_DRAIN_MAX, OPTIONS_MAX};
use crate::meta_context::Context;
use crate::option::{
    InfoRequest, Infos, MetaContextRequest, NBD_MAGIC, OPTION_MAGIC, OptionHeader, OptionReply, OptionType,
    ReplyType,
};
use crate::reply::ReplyStyle;

/// What the server is willing to negotiate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// TLS. With [`Tls::Require`] nothing but STARTTLS and ABORT is answered before it.
    pub tls: Tls,
    /// Structured replies; without them there are no metadata contexts but over extended headers.
    pub structured_replies: bool,
    /// Metadata contexts.
    pub meta_contexts: bool,
    /// Extended headers.
    pub extended_headers: bool,
    /// What the greeting offers. Without FIXED_NEWSTYLE only EXPORT_NAME is served.
    pub handshake_flags: HandshakeFlags,
    /// How many options a client may send.
    pub options_max: u32,
}

impl Default for Policy {
    /// Everything but TLS.
    fn default() -> Policy {
        Policy {
            tls: Tls::Off,
            structured_replies: true,
            meta_contexts: true,
            extended_headers: true,
            handshake_flags: HandshakeFlags::ALL,
            options_max: OPTIONS_MAX,
        }
    }
}

/// What a client wants to do with an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only to hear about it.
    Info,
    /// To use it.
    Go,
    /// To use it, by the old option that leaves no room for an error message.
    ExportName,
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Receive more bytes and feed them.
    NeedInput,
    /// Answer with [`ServerHandshake::exports`], or refuse.
    List,
    /// Answer with [`ServerHandshake::export`], or refuse.
    Export {
        /// The name, empty for the default export.
        name: String,
        /// What for.
        purpose: Purpose,
        /// What the client wants to be told beyond the size and flags.
        infos: Infos,
    },
    /// Answer with [`ServerHandshake::contexts`], or refuse. The driver may open the export for this and keep it for the
    /// GO that most likely follows.
    MetaContexts {
        /// The export's name.
        export: String,
        /// Whether the client selects contexts (SET) or only wants to see them (LIST).
        set: bool,
        /// What it asked for, for the log: the machine does the selecting.
        queries: Vec<String>,
    },
    /// Send the output, run the TLS handshake, then call [`ServerHandshake::tls_started`].
    StartTls,
    /// The client has left in good order; send the output and close.
    Aborted,
    /// The handshake is over; send the output and go on with [`ServerHandshake::take_input`].
    Ready(Negotiated),
}

/// The machine.
#[derive(Debug)]
pub struct ServerHandshake {
    policy: Policy,
    buffers: Buffers,
    state: State,
    client_flags: ClientFlags,
    tls: bool,
    shutting_down: bool,
    options: u32,
    replies: ReplyStyle,
    /// The contexts set last, and the export that they were set for.
    contexts: (String, Vec<Context>),
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Option,
    Data(OptionHeader),
    /// Read this many bytes of data away; the answer is written already.
    Drain(u32),
    Asked(Question),
    Ready(Box<Negotiated>),
    Over,
    Failed(Error),
}

#[derive(Debug)]
enum Question {
    List,
    Export { name: String, purpose: Purpose, infos: Infos },
    MetaContexts { request: MetaContextRequest, set: bool },
    StartTls,
}

impl ServerHandshake {
    /// A new connection. The greeting is in the output.
    pub fn new(policy: Policy) -> ServerHandshake {
        let mut buffers = Buffers::default();
        buffers.output.extend_from_slice(&NBD_MAGIC.to_be_bytes());
        buffers.output.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        buffers.output.extend_from_slice(&policy.handshake_flags.0.to_be_bytes());
        ServerHandshake {
            policy,
            buffers,
            state: State::ClientFlags,
            client_flags: ClientFlags::NONE,
            tls: false,
            shutting_down: false,
            options: 0,
            replies: ReplyStyle::Simple,
            contexts: Default::default(),
        }
    }

    /// Bytes received from the client.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffers.feed(bytes);
    }

    /// Bytes to be sent to the client, taken out.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffers.output)
    }

    /// After [`Event::Ready`]: what was fed beyond the handshake, the client's first requests.
    pub fn take_input(&mut self) -> Vec<u8> {
        self.buffers.take_rest()
    }

    /// From now on every option but ABORT is answered with ERR_SHUTDOWN.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// The next thing to do.
    ///
    /// # Errors
    /// The client broke the protocol, or asked in a way that can only be refused by closing. Also [`Error::Unasked`], if
    /// the last question is still open.
    // Not an iterator: it is fallible and waits for input.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Event> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::ClientFlags => match self.buffers.take_array() {
                    Some(flags) => self.on_client_flags(ClientFlags(u32::from_be_bytes(flags))),
                    None => return self.wait_in(State::ClientFlags),
                },
                State::Option => match OptionHeader::decode(self.buffers.unread()) {
                    Ok(Some(header)) => {
                        self.buffers.take(OptionHeader::LEN);
                        self.on_header(header);
                    }
                    Ok(None) => return self.wait_in(State::Option),
                    Err(error) => self.state = State::Failed(error),
                },
                State::Data(header) => match self.buffers.take(header.length as usize).map(<[u8]>::to_vec) {
                    Some(data) => {
                        if let Some(event) = self.on_option(header.option, &data) {
                            return Ok(event);
                        }
                    }
                    None => return self.wait_in(State::Data(header)),
                },
                State::Drain(left) => {
                    let now = self.buffers.unread().len().min(left as usize);
                    self.buffers.take(now);
                    self.state = match left - now as u32 {
                        0 => State::Option,
                        left => return self.wait_in(State::Drain(left)),
                    }
                }
                State::Asked(question) => {
                    self.state = State::Asked(question);
                    return Err(Error::Unasked("a step: its last question is still open"));
                }
                State::Ready(negotiated) => return Ok(Event::Ready(*negotiated)),
                State::Over => return Err(Error::Unasked("a step: it is over")),
                State::Failed(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    fn wait_in(&mut self, state: State) -> Result<Event> {
        self.state = state;
        Ok(Event::NeedInput)
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.state = State::Failed(Error::session(why));
    }

    fn on_client_flags(&mut self, flags: ClientFlags) {
        // Client and handshake flags are numbered alike.
        let offered = ClientFlags(self.policy.handshake_flags.0.into());
        let unknown = flags.without(offered).0;
        if unknown != 0 {
            // Something that speaks another protocol ends up here: show what it said.
            return self.fail(format!("the client set flags that it was not offered: {unknown:#x}"));
        }
        self.client_flags = flags;
        self.state = State::Option;
    }

    fn on_header(&mut self, header: OptionHeader) {
        let OptionHeader { option, length } = header;
        self.options += 1;
        if self.options > self.policy.options_max {
            return self.fail(format!("the client sent more than {} options", self.policy.options_max));
        }
        let fixed = self.client_flags.has(ClientFlags::FIXED_NEWSTYLE);
        if !fixed && option != OptionType::EXPORT_NAME {
            return self.fail(format!(
                "the client sent the option {option} without having agreed to fixed newstyle"
            ));
        }
        if length <= OPTION_DATA_MAX {
            self.state = State::Data(header);
        } else if option == OptionType::EXPORT_NAME || length > OPTION_DRAIN_MAX {
            self.fail(format!("the client sent the option {option} with {length} bytes of data"));
        } else {
            let message = format!("{length} bytes of data are more than {OPTION_DATA_MAX}");
            self.reply_error(option, ReplyType::ERR_TOO_BIG, message);
            self.state = State::Drain(length);
        }
    }

    /// Handles a whole option. `None`: it is answered, or has failed; go on.
    fn on_option(&mut self, option: OptionType, data: &[u8]) -> Option<Event> {
        // Whatever comes of it, the next thing is another option, unless said otherwise below.
        self.state = State::Option;
        if let Err((error, why)) = self.may_answer(option) {
            self.answer_error(option, error, why);
            return None;
        }
        match option {
            OptionType::EXPORT_NAME => match crate::option::decode_export_name(data) {
                Ok(name) => {
                    let name = name.to_owned();
                    return self.ask(Question::Export {
                        name,
                        purpose: Purpose::ExportName,
                        infos: Infos::NONE,
                    });
                }
                Err(error) => self.state = State::Failed(error),
            },
            OptionType::ABORT => {
                self.reply(option, OptionReply::Ack);
                self.state = State::Over;
                return Some(Event::Aborted);
            }
            OptionType::LIST if data.is_empty() => return self.ask(Question::List),
            OptionType::STARTTLS if data.is_empty() => return self.on_starttls(),
            OptionType::STRUCTURED_REPLY if data.is_empty() => self.on_structured_reply(),
            OptionType::EXTENDED_HEADERS if data.is_empty() => self.on_extended_headers(),
            OptionType::LIST
            | OptionType::STARTTLS
            | OptionType::STRUCTURED_REPLY
            | OptionType::EXTENDED_HEADERS => {
                self.reply_error(option, ReplyType::ERR_INVALID, format!("{option} has no data"));
            }
            OptionType::INFO | OptionType::GO => match InfoRequest::decode(data) {
                Ok(InfoRequest { export: name, infos }) => {
                    let purpose = if option == OptionType::GO { Purpose::Go } else { Purpose::Info };
                    return self.ask(Question::Export { name, purpose, infos });
                }
                Err(error) => self.reply_invalid(option, error),
            },
            OptionType::LIST_META_CONTEXT | OptionType::SET_META_CONTEXT => {
                return self.on_meta_context(option, data);
            }
            _ => self.reply_error(option, ReplyType::ERR_UNSUP, format!("no option {option} here")),
        }
        None
    }

    /// Whether the server is in a state and mood to look at this option at all.
    fn may_answer(&self, option: OptionType) -> std::result::Result<(), (ReplyType, &'static str)> {
        if option == OptionType::ABORT {
            return Ok(());
        }
        if self.shutting_down {
            return Err((ReplyType::ERR_SHUTDOWN, "the server is shutting down"));
        }
        if self.policy.tls == Tls::Require && !self.tls && option != OptionType::STARTTLS {
            return Err((ReplyType::ERR_TLS_REQD, "nothing is answered before STARTTLS"));
        }
        if option == OptionType::EXPORT_NAME && self.replies == ReplyStyle::Extended {
            return Err((ReplyType::ERR_INVALID, "EXPORT_NAME cannot follow extended headers"));
        }
        Ok(())
    }

    fn ask(&mut self, question: Question) -> Option<Event> {
        let event = match &question {
            Question::List => Event::List,
            Question::Export { name, purpose, infos } => {
                Event::Export { name: name.clone(), purpose: *purpose, infos: *infos }
            }
            Question::MetaContexts { request, set } => Event::MetaContexts {
                export: request.export.clone(),
                set: *set,
                queries: request.queries.clone(),
            },
            Question::StartTls => Event::StartTls,
        };
        self.state = State::Asked(question);
        Some(event)
    }

    fn on_starttls(&mut self) -> Option<Event> {
        let option = OptionType::STARTTLS;
        if self.tls {
            self.reply_error(option, ReplyType::ERR_INVALID, "TLS is running already".into());
        } else if self.policy.tls == Tls::Off {
            self.reply_error(option, ReplyType::ERR_POLICY, "TLS is not configured".into());
        } else if !self.buffers.unread().is_empty() {
            // Plain bytes that would be taken for ones received over TLS: somebody in the middle may have put them there.
            self.fail("the client sent more after STARTTLS without waiting for the answer");
        } else {
            self.reply(option, OptionReply::Ack);
            return self.ask(Question::StartTls);
        }
        None
    }

    fn on_structured_reply(&mut self) {
        let option = OptionType::STRUCTURED_REPLY;
        if !self.policy.structured_replies {
            self.reply_error(option, ReplyType::ERR_UNSUP, "structured replies are not configured".into());
        } else if self.replies == ReplyStyle::Extended {
            let why = "extended headers are negotiated already";
            self.reply_error(option, ReplyType::ERR_EXT_HEADER_REQD, why.into());
        } else {
            self.replies = ReplyStyle::Structured;
            self.reply(option, OptionReply::Ack);
        }
    }

    fn on_extended_headers(&mut self) {
        let option = OptionType::EXTENDED_HEADERS;
        if self.policy.extended_headers {
            self.replies = ReplyStyle::Extended;
            self.reply(option, OptionReply::Ack);
        } else {
            self.reply_error(option, ReplyType::ERR_UNSUP, "extended headers are not configured".into());
        }
    }

    fn on_meta_context(&mut self, option: OptionType, data: &[u8]) -> Option<Event> {
        let set = option == OptionType::SET_META_CONTEXT;
        if set {
            // The last SET counts, also when it fails.
            self.contexts = Default::default();
        }
        if !self.policy.meta_contexts {
            self.reply_error(option, ReplyType::ERR_UNSUP, "metadata contexts are not configured".into());
        } else if !self.replies.has_chunks() {
            let why = "structured replies or extended headers must be negotiated first";
            self.reply_error(option, ReplyType::ERR_INVALID, why.into());
        } else {
            match MetaContextRequest::decode(data) {
                Ok(request) => return self.ask(Question::MetaContexts { request, set }),
                Err(error) => self.reply_invalid(option, error),
            }
        }
        None
    }

    fn reply(&mut self, option: OptionType, reply: OptionReply) {
        reply.encode_into(option, &mut self.buffers.output);
    }

    fn reply_error(&mut self, option: OptionType, error: ReplyType, message: String) {
        self.reply(option, OptionReply::Error { error, message });
    }

    fn reply_invalid(&mut self, option: OptionType, error: Error) {
        let kind = match error {
            Error::TooBig { .. } => ReplyType::ERR_TOO_BIG,
            _ => ReplyType::ERR_INVALID,
        };
        self.reply_error(option, kind, error.to_string());
    }

    /// Like [`Self::reply_error`], but EXPORT_NAME has no room for an answer: the connection ends.
    fn answer_error(&mut self, option: OptionType, error: ReplyType, message: &str) {
        if option == OptionType::EXPORT_NAME {
            self.fail(format!("EXPORT_NAME leaves no way to refuse but to disconnect: {message}"));
        } else {
            self.reply_error(option, error, message.to_owned());
            self.state = State::Option;
        }
    }
}

#[cfg(test)]
mod tests;
