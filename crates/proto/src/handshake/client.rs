//! The client's side of the handshake, with newstyle and oldstyle servers.
//!
//! The machine first does by itself what the [`Wishes`] ask for. With `opt_mode` it then stops at [`Event::Waiting`], and
//! the driver takes steps: [`ClientHandshake::list`], [`ClientHandshake::info`], [`ClientHandshake::go`] and so on, each
//! followed by `next` until its outcome comes as an event.

mod steps;

use std::collections::VecDeque;

use super::{Buffers, ExportInfo, Negotiated, Protocol, Tls, oldstyle};
use crate::error::{Error, Result};
use crate::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use crate::limits::{OPTION_REPLIES_MAX, SIZE_MAX};
use crate::meta_context::Context;
use crate::option::{
    ExportEntry, Info, InfoRequest, Infos, MetaContextRequest, NBD_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC,
    OptionReply, OptionReplyHeader, OptionType, Refusal, ReplyType,
};
use crate::reply::ReplyStyle;

/// What the client hopes to agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// The export; empty for the default one. Oldstyle servers have one export without a name and never hear this.
    pub export: String,
    /// TLS.
    pub tls: Tls,
    /// Ask for structured replies.
    pub structured_replies: bool,
    /// Ask for extended headers, before structured replies.
    pub extended_headers: bool,
    /// The metadata contexts to select, by their full names. What the server does not have is left out.
    pub contexts: Vec<String>,
    /// What to ask about the export beyond its size and flags.
    pub infos: Infos,
    /// Stop before choosing an export, and let the driver take steps. Only fixed newstyle servers can; with others the
    /// machine goes on to [`Event::Ready`].
    pub opt_mode: bool,
    /// What to accept of the server's greeting.
    pub client_flags: ClientFlags,
}

impl Default for Wishes {
    /// The default export, with everything the server can do but TLS and metadata contexts.
    fn default() -> Wishes {
        Wishes {
            export: String::new(),
            tls: Tls::Off,
            structured_replies: true,
            extended_headers: true,
            contexts: Vec::new(),
            infos: Infos::BLOCK_SIZE,
            opt_mode: false,
            client_flags: ClientFlags::ALL,
        }
    }
}

/// What the driver has to do next, or the outcome of its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Send the output, receive more bytes and feed them.
    NeedInput,
    /// The server agreed to TLS: run the TLS handshake, then call [`ClientHandshake::tls_started`].
    StartTls,
    /// Take a step.
    Waiting,
    /// The outcome of [`ClientHandshake::list`].
    Exports(Vec<ExportEntry>),
    /// The outcome of [`ClientHandshake::info`].
    Info(ExportInfo),
    /// The outcome of [`ClientHandshake::list_meta_context`] (ids are 0) and [`ClientHandshake::set_meta_context`].
    Contexts(Vec<Context>),
    /// The server agreed to [`ClientHandshake::structured_reply`] or [`ClientHandshake::extended_headers`].
    Accepted(OptionType),
    /// The server refused the step; another one may be taken.
    Refused(Refusal),
    /// The server agreed to [`ClientHandshake::abort`]; close.
    Aborted,
    /// The handshake is over; go on with [`ClientHandshake::take_input`].
    Ready(Negotiated),
}

/// The machine.
#[derive(Debug)]
pub struct ClientHandshake {
    wishes: Wishes,
    buffers: Buffers,
    state: State,
    /// What to do without being asked.
    plan: VecDeque<OptionType>,
    protocol: Protocol,
    server_flags: HandshakeFlags,
    tls: bool,
    replies: ReplyStyle,
    /// The contexts set last, and the export that they were set for.
    contexts: (String, Vec<Context>),
}

#[derive(Debug)]
enum State {
    Magic,
    Oldstyle,
    HandshakeFlags,
    /// Between two options.
    Idle,
    Reply(Box<Step>),
    /// After EXPORT_NAME, which is answered without a header.
    Export(String),
    StartTls,
    Over,
    Failed(Error),
}

/// An option under way.
#[derive(Debug)]
struct Step {
    option: OptionType,
    /// The export that it is about, if any.
    export: String,
    /// The driver asked for it, and is told the outcome.
    asked: bool,
    exports: Vec<ExportEntry>,
    contexts: Vec<Context>,
    info: ExportInfo,
    /// Whether the one piece of information that must come has come.
    has_export_info: bool,
    /// Bytes of replies so far.
    received: u64,
}

impl ClientHandshake {
    /// A new connection. The server speaks first.
    pub fn new(wishes: Wishes) -> ClientHandshake {
        ClientHandshake {
            wishes,
            buffers: Buffers::default(),
            state: State::Magic,
            plan: VecDeque::new(),
            protocol: Protocol::FixedNewstyle,
            server_flags: HandshakeFlags::NONE,
            tls: false,
            replies: ReplyStyle::Simple,
            contexts: Default::default(),
        }
    }

    /// Bytes received from the server.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffers.feed(bytes);
    }

    /// Bytes to be sent to the server, taken out.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffers.output)
    }

    /// After [`Event::Ready`]: what was fed beyond the handshake (nothing, with a sane server).
    pub fn take_input(&mut self) -> Vec<u8> {
        self.buffers.take_rest()
    }

    /// The dialect that the server speaks; known after its greeting, [`Protocol::FixedNewstyle`] before.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether TLS is running.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// What the server's greeting offered, as far as it is known.
    pub fn server_flags(&self) -> HandshakeFlags {
        self.server_flags
    }

    /// What to ask of exports from now on, beyond size and flags.
    pub fn set_infos(&mut self, infos: Infos) {
        self.wishes.infos = infos;
    }

    /// How replies will be framed, as far as it is agreed.
    pub fn replies(&self) -> ReplyStyle {
        self.replies
    }

    /// The server closed the connection in the middle of the handshake: what that most likely means.
    pub fn closed(&self) -> Error {
        Error::session(match &self.state {
            State::Magic if self.buffers.unread().is_empty() => {
                "the server closed the connection without a word".to_owned()
            }
            State::Magic | State::Oldstyle | State::HandshakeFlags => {
                "the server closed the connection in the middle of its greeting".to_owned()
            }
            State::Export(name) => {
                format!("the server closed the connection instead of opening the export “{name}”")
            }
            State::Reply(step) => {
                format!("the server closed the connection instead of answering {}", step.option)
            }
            _ => "the server closed the connection during the handshake".to_owned(),
        })
    }

    /// The next thing to do.
    ///
    /// # Errors
    /// The server broke the protocol, or refused what the client cannot do without ([`Error::Refused`]). Where the
    /// protocol allows a polite end, an ABORT stands in the output.
    // Not an iterator: it is fallible and waits for input.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Event> {
        loop {
            let outcome = match std::mem::replace(&mut self.state, State::Over) {
                State::Magic => self.on_magic(),
                State::Oldstyle => self.on_oldstyle(),
                State::HandshakeFlags => self.on_handshake_flags(),
                State::Idle => self.on_idle(),
                State::Reply(step) => self.on_reply(step),
                State::Export(name) => self.on_export(name),
                State::StartTls => {
                    self.state = State::StartTls;
                    Ok(Some(Event::StartTls))
                }
                State::Over => Err(Error::Unasked("a step: it is over")),
                State::Failed(error) => Err(error),
            };
            match outcome {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    fn wait_in(&mut self, state: State) -> Result<Option<Event>> {
        self.state = state;
        Ok(Some(Event::NeedInput))
    }

    fn on_magic(&mut self) -> Result<Option<Event>> {
        if let Some(magic) = self.buffers.unread().first_chunk().map(|magic| u64::from_be_bytes(*magic))
            && magic != NBD_MAGIC
        {
            return Err(Error::Magic { of: "an NBD server", found: magic });
        }
        let Some(magics) = self.buffers.take_array::<16>() else { return self.wait_in(State::Magic) };
        self.state = match u128::from_be_bytes(magics) as u64 {
            OPTION_MAGIC => State::HandshakeFlags,
            OLDSTYLE_MAGIC => State::Oldstyle,
            found => return Err(Error::Magic { of: "a newstyle or oldstyle NBD server", found }),
        };
        Ok(None)
    }

    fn on_oldstyle(&mut self) -> Result<Option<Event>> {
        const REST: usize = oldstyle::GREETING_LEN - 16;
        let Some(rest) = self.buffers.take_array::<REST>() else { return self.wait_in(State::Oldstyle) };
        self.protocol = Protocol::Oldstyle;
        let (size, flags) = oldstyle::decode_rest(&rest)?;
        self.needs_no_tls("an oldstyle server")?;
        let info = ExportInfo { size, flags, ..Default::default() };
        self.ready(String::new(), info).map(Some)
    }

    fn on_handshake_flags(&mut self) -> Result<Option<Event>> {
        let Some(flags) = self.buffers.take_array() else { return self.wait_in(State::HandshakeFlags) };
        self.server_flags = HandshakeFlags(u16::from_be_bytes(flags));
        // Client and handshake flags are numbered alike; what the server offers beyond them is ignored.
        let flags = ClientFlags(self.server_flags.0.into()) & self.wishes.client_flags & ClientFlags::ALL;
        self.buffers.output.extend_from_slice(&flags.0.to_be_bytes());
        self.state = State::Idle;
        if !flags.has(ClientFlags::FIXED_NEWSTYLE) {
            self.protocol = Protocol::Newstyle;
            self.needs_no_tls("a server without fixed newstyle")?;
            self.plan.push_back(OptionType::EXPORT_NAME);
            return Ok(None);
        }
        if self.wishes.tls != Tls::Off {
            self.plan.push_back(OptionType::STARTTLS);
        }
        if self.wishes.extended_headers {
            self.plan.push_back(OptionType::EXTENDED_HEADERS);
        }
        if self.wishes.structured_replies {
            self.plan.push_back(OptionType::STRUCTURED_REPLY);
        }
        if !self.wishes.opt_mode {
            self.plan.extend([OptionType::SET_META_CONTEXT, OptionType::GO]);
        }
        Ok(None)
    }

    fn needs_no_tls(&self, server: &str) -> Result<()> {
        match self.wishes.tls {
            Tls::Require => Err(Error::session(format!("TLS is required, but {server} cannot do it"))),
            _ => Ok(()),
        }
    }

    fn on_idle(&mut self) -> Result<Option<Event>> {
        self.state = State::Idle;
        let Some(option) = self.plan.pop_front() else { return Ok(Some(Event::Waiting)) };
        match option {
            OptionType::STRUCTURED_REPLY if self.replies == ReplyStyle::Extended => {}
            OptionType::SET_META_CONTEXT => {
                if self.replies.has_chunks() && !self.wishes.contexts.is_empty() {
                    let (export, queries) = (self.wishes.export.clone(), self.wishes.contexts.clone());
                    self.send_meta_context(option, export, queries, false);
                }
            }
            OptionType::GO => self.send_info(option, self.wishes.export.clone(), false),
            OptionType::EXPORT_NAME => self.send_export_name(self.wishes.export.clone()),
            _ => self.send(option, String::new(), &[], false),
        }
        Ok(None)
    }

    fn on_reply(&mut self, mut step: Box<Step>) -> Result<Option<Event>> {
        let Some(header) = OptionReplyHeader::decode(self.buffers.unread())? else {
            return self.wait_in(State::Reply(step));
        };
        let length = header.length as usize;
        if self.buffers.unread().len() < OptionReplyHeader::LEN + length {
            return self.wait_in(State::Reply(step));
        }
        if header.option != step.option {
            return Err(Error::session(format!(
                "the server answered the option {} while {} was asked",
                header.option, step.option
            )));
        }
        step.received += OptionReplyHeader::LEN as u64 + u64::from(header.length);
        if step.received > OPTION_REPLIES_MAX {
            return Err(Error::TooBig {
                of: "answer to an option",
                bytes: step.received,
                limit: OPTION_REPLIES_MAX,
            });
        }
        self.buffers.take(OptionReplyHeader::LEN);
        let data = self.buffers.take(length).unwrap_or_default();
        match OptionReply::decode(header.reply, data)? {
            OptionReply::Ack => return self.on_ack(*step),
            OptionReply::Error { error, message } => {
                return self.on_refusal(Refusal { option: step.option, error, message }, *step);
            }
            reply => step.collect(reply)?,
        }
        self.state = State::Reply(step);
        Ok(None)
    }

    fn on_ack(&mut self, step: Step) -> Result<Option<Event>> {
        self.state = State::Idle;
        let event = match step.option {
            OptionType::STARTTLS => {
                if !self.buffers.unread().is_empty() {
                    return Err(Error::session("the server sent more after agreeing to TLS, in the clear"));
                }
                self.state = State::StartTls;
                return Ok(None);
            }
            OptionType::STRUCTURED_REPLY => {
                self.replies = ReplyStyle::Structured;
                Event::Accepted(step.option)
            }
            OptionType::EXTENDED_HEADERS => {
                self.replies = ReplyStyle::Extended;
                Event::Accepted(step.option)
            }
            OptionType::LIST => Event::Exports(step.exports),
            OptionType::LIST_META_CONTEXT => Event::Contexts(step.contexts),
            OptionType::SET_META_CONTEXT => {
                self.contexts = (step.export, step.contexts.clone());
                Event::Contexts(step.contexts)
            }
            OptionType::INFO | OptionType::GO if !step.has_export_info => {
                return Err(Error::session(format!(
                    "the server accepted {} without telling the size of the export",
                    step.option
                )));
            }
            OptionType::INFO => Event::Info(step.info),
            OptionType::GO => return self.ready(step.export, step.info).map(Some),
            OptionType::ABORT => {
                self.state = State::Over;
                Event::Aborted
            }
            other => Event::Accepted(other),
        };
        Ok(step.asked.then_some(event))
    }

    fn on_refusal(&mut self, refusal: Refusal, step: Step) -> Result<Option<Event>> {
        self.state = State::Idle;
        if step.option == OptionType::SET_META_CONTEXT {
            self.contexts = Default::default();
        }
        if refusal.option == OptionType::ABORT {
            self.state = State::Over;
            return Ok(Some(Event::Aborted));
        }
        if step.asked {
            return Ok(Some(Event::Refused(refusal)));
        }
        let essential = match refusal.option {
            OptionType::GO
                if refusal.error == ReplyType::ERR_UNSUP && self.replies != ReplyStyle::Extended =>
            {
                self.plan.push_front(OptionType::EXPORT_NAME);
                false
            }
            OptionType::GO => true,
            OptionType::STARTTLS => self.wishes.tls == Tls::Require,
            // A driver that takes steps can begin TLS itself.
            _ if self.wishes.opt_mode && refusal.error == ReplyType::ERR_TLS_REQD => false,
            _ => matches!(refusal.error, ReplyType::ERR_TLS_REQD | ReplyType::ERR_SHUTDOWN),
        };
        if essential {
            crate::option::put_option(&mut self.buffers.output, OptionType::ABORT, &[]);
            return Err(Error::Refused(refusal));
        }
        Ok(None)
    }

    fn on_export(&mut self, name: String) -> Result<Option<Event>> {
        let no_zeroes = self.server_flags.has(HandshakeFlags::NO_ZEROES)
            && self.wishes.client_flags.has(ClientFlags::NO_ZEROES);
        let length = if no_zeroes { 10 } else { 134 };
        let Some(&[s0, s1, s2, s3, s4, s5, s6, s7, f0, f1, ..]) = self.buffers.take(length) else {
            return self.wait_in(State::Export(name));
        };
        let size = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let flags = TransmissionFlags(u16::from_be_bytes([f0, f1]));
        self.ready(name, ExportInfo { size, flags, ..Default::default() }).map(Some)
    }

    fn ready(&mut self, export: String, info: ExportInfo) -> Result<Event> {
        if info.size > SIZE_MAX {
            return Err(Error::session(format!(
                "the server says that the export has {} bytes: larger than 2^63 - 1",
                info.size
            )));
        }
        let (set_for, contexts) = std::mem::take(&mut self.contexts);
        let contexts = if set_for == export { contexts } else { Vec::new() };
        self.state = State::Over;
        Ok(Event::Ready(Negotiated {
            protocol: self.protocol,
            tls: self.tls,
            export,
            info,
            replies: self.replies,
            contexts,
        }))
    }

    fn send(&mut self, option: OptionType, export: String, data: &[u8], asked: bool) {
        crate::option::put_option(&mut self.buffers.output, option, data);
        self.state = State::Reply(Box::new(Step {
            option,
            export,
            asked,
            exports: Vec::new(),
            contexts: Vec::new(),
            info: ExportInfo::default(),
            has_export_info: false,
            received: 0,
        }));
    }

    fn send_info(&mut self, option: OptionType, export: String, asked: bool) {
        let data = InfoRequest { export: export.clone(), infos: self.wishes.infos }.encode();
        self.send(option, export, &data, asked);
    }

    fn send_meta_context(&mut self, option: OptionType, export: String, queries: Vec<String>, asked: bool) {
        let request = MetaContextRequest { export, queries };
        let data = request.encode();
        self.send(option, request.export, &data, asked);
    }

    fn send_export_name(&mut self, export: String) {
        crate::option::put_option(&mut self.buffers.output, OptionType::EXPORT_NAME, export.as_bytes());
        self.state = State::Export(export);
    }
}

impl Step {
    /// Keeps a reply that is not the last one.
    fn collect(&mut self, reply: OptionReply) -> Result<()> {
        match (self.option, reply) {
            (OptionType::LIST, OptionReply::Server(entry)) => self.exports.push(entry),
            (OptionType::INFO | OptionType::GO, OptionReply::Info(info)) => match info {
                Info::Export { size, flags } => {
                    self.has_export_info = true;
                    self.info.size = size;
                    self.info.flags = flags;
                }
                Info::Name(name) => self.info.name = Some(name),
                Info::Description(text) => self.info.description = Some(text),
                Info::BlockSize(sizes) => {
                    sizes.check()?;
                    self.info.block_sizes = Some(sizes);
                }
                Info::Unknown(_) => {}
            },
            (
                OptionType::LIST_META_CONTEXT | OptionType::SET_META_CONTEXT,
                OptionReply::MetaContext(context),
            ) => self.contexts.push(context),
            (option, reply) => {
                return Err(Error::session(format!("the server answered {option} with {reply:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
