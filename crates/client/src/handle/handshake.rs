//! The handshake, pumped: the machine of `proto` between the socket and the options that were asked.

use super::{
    Fault, Handle, Outcome, Phase,
    fault::errno,
    options::{Asked, What},
};
use crate::negotiate::tls_error;
use net::{Address, Stream, Wait};
use proto::{
    ClientFlags, Infos,
    handshake::{
        Negotiated, Tls,
        client::{ClientHandshake, Event, Wishes},
    },
    option::{OptionType, Refusal, ReplyType},
};
use std::io;

/// The number that programs know for a refusal.
pub(super) fn refused(refusal: &Refusal) -> Fault {
    let errno = match refusal.error {
        // Whatever the server's reason: TLS is not to be had.
        _ if refusal.option == OptionType::STARTTLS => errno::ENOTSUP,
        ReplyType::ERR_UNSUP | ReplyType::ERR_PLATFORM | ReplyType::ERR_TLS_REQD => errno::ENOTSUP,
        ReplyType::ERR_POLICY => errno::EPERM,
        ReplyType::ERR_UNKNOWN => errno::ENOENT,
        ReplyType::ERR_SHUTDOWN => errno::ESHUTDOWN,
        _ => errno::EINVAL,
    };
    Fault::new(errno, refusal.to_string())
}

impl Handle {
    /// What to ask about exports.
    pub(super) fn infos(&self) -> Infos {
        let mut infos = Infos::NONE;
        if self.settings.request_block_size {
            infos |= Infos::BLOCK_SIZE;
        }
        if self.settings.full_info {
            infos |= Infos::NAME | Infos::DESCRIPTION;
        }
        infos
    }

    /// A stream is there: wait for the server's greeting.
    pub(super) fn greet(&mut self, stream: Stream) -> Outcome<()> {
        let settings = &self.settings;
        let wishes = Wishes {
            export: settings.export.clone(),
            tls: settings.tls,
            structured_replies: settings.request_structured,
            extended_headers: settings.request_structured && settings.request_extended,
            contexts: Vec::new(),
            infos: self.infos(),
            // The options are asked one by one, so that each can be chosen.
            opt_mode: true,
            client_flags: ClientFlags(settings.handshake_flags),
        };
        self.machine = Some(ClientHandshake::new(wishes));
        self.stream = Some(stream);
        self.phase = Phase::Handshake;
        self.asked = Some(Asked::of(What::Initial));
        self.say("connection", || "connected; waiting for the server's greeting".into());
        self.shake_hands()
    }

    /// Goes on until the server must be waited for, or an option can be asked.
    pub(super) fn shake_hands(&mut self) -> Outcome<()> {
        let mut buffer = [0; 4096];
        while matches!(self.phase, Phase::Handshake) {
            let Some(machine) = &mut self.machine else { break };
            let event = machine.next();
            let output = machine.take_output();
            if !output.is_empty() {
                self.stats.chunks_sent += 1;
                self.output.push(output);
            }
            // What the server said before it hung up is of more use than that it did.
            let sent = self.send_some();
            match event {
                Err(e) => return Err(self.broken(e)),
                Ok(Event::NeedInput) => {
                    let Some(stream) = &self.stream else { break };
                    match stream.recv(&mut buffer, Wait::DontWait) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return sent,
                        Err(e) => return Err(Fault::system("recv", &e)),
                        Ok(0) => return self.hung_up(),
                        Ok(n) => {
                            self.stats.bytes_received += n as u64;
                            self.stats.chunks_received += 1;
                            if let Some(machine) = &mut self.machine {
                                machine.feed(&buffer[..n]);
                            }
                        }
                    }
                }
                Ok(Event::StartTls) => self.start_tls()?,
                Ok(Event::Ready(negotiated)) => return self.open(negotiated),
                Ok(event) => self.answered(event)?,
            }
        }
        Ok(())
    }

    fn hung_up(&mut self) -> Outcome<()> {
        if let Some(Asked { what: What::Abort, .. }) = &self.asked {
            return self.aborted();
        }
        let why = self.machine.as_ref().map(|machine| machine.closed().to_string());
        Err(Fault::new(0, why.unwrap_or_default()))
    }

    /// The goodbye was said in the handshake.
    pub(super) fn aborted(&mut self) -> Outcome<()> {
        let asked = self.asked.take();
        self.end(Phase::Closed);
        if let Some(asked) = asked {
            self.conclude(asked, Ok(0));
        }
        Ok(())
    }

    fn broken(&self, e: proto::Error) -> Fault {
        let fault = match e {
            proto::Error::Refused(refusal) => refused(&refusal),
            proto::Error::Magic { .. } => Fault::invalid(e.to_string()),
            e if self.settings.tls == Tls::Require && self.machine.as_ref().is_some_and(|m| !m.tls()) => {
                Fault::new(errno::ENOTSUP, e.to_string())
            }
            e => Fault::new(errno::EPROTO, e.to_string()),
        };
        fault.after("handshake")
    }

    /// The TLS handshake runs here and now, and waits for the server.
    fn start_tls(&mut self) -> Outcome<()> {
        let host = match &self.address {
            Some(Address::Tcp { host, .. }) => Some(host.as_str()),
            _ => None,
        };
        let failed = |e: io::Error| {
            let e = tls_error(e);
            Fault::new(e.errno().get(), e.to_string()).after("TLS")
        };
        let client = net::tls::Client::new(&self.settings.tls_settings).map_err(failed)?;
        if let (Some(stream), Some(machine)) = (&self.stream, &mut self.machine) {
            stream.begin_tls(&client, host).map_err(failed)?;
            machine.tls_started().map_err(|e| Fault::new(errno::EPROTO, e.to_string()))?;
        }
        self.tls = true;
        self.say("connection", || "TLS is running".into());
        Ok(())
    }

    /// The handshake is over.
    fn open(&mut self, negotiated: Negotiated) -> Outcome<()> {
        self.protocol = Some(negotiated.protocol);
        self.tls = negotiated.tls;
        self.replies = negotiated.replies;
        self.facts = Some(negotiated.info);
        self.contexts = Some(negotiated.contexts);
        if let Some(mut machine) = self.machine.take() {
            self.input.feed(&machine.take_input());
        }
        self.phase = Phase::Open;
        if let Some(asked) = self.asked.take() {
            self.conclude(asked, Ok(0));
        }
        let replies = self.replies;
        self.say("connection", || format!("open, with {replies:?} replies"));
        Ok(())
    }
}
