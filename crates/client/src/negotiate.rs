//! The handshake over a real stream: with a choice of export at once, or step by step.

use crate::connection::Connection;
use disk::{Errno, Error, Result};
use net::{Stream, Wait};
use proto::{
    Context, ExportEntry,
    handshake::{
        ExportInfo, Negotiated, Protocol,
        client::{ClientHandshake, Event, Wishes},
    },
    option::{Refusal, ReplyType},
    reply::ReplyStyle,
};
use std::{fmt, io, time::Duration};

/// Why a step of a negotiation failed.
#[derive(Debug)]
pub enum Failure {
    /// The server said no; other steps may be taken.
    Refused(Refusal),
    /// The connection is of no more use.
    Broken(Error),
}

/// The outcome of a step.
pub type Step<T> = std::result::Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(refusal) => refusal.fmt(f),
            Failure::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Refused(refusal) => refused(&refusal),
            Failure::Broken(error) => error,
        }
    }
}

impl From<proto::Error> for Failure {
    fn from(e: proto::Error) -> Failure {
        Failure::Broken(broken(e))
    }
}

fn refused(refusal: &Refusal) -> Error {
    let errno = match refusal.error {
        ReplyType::ERR_UNSUP | ReplyType::ERR_PLATFORM => Errno::NOTSUP,
        ReplyType::ERR_POLICY | ReplyType::ERR_TLS_REQD => Errno::PERM,
        ReplyType::ERR_UNKNOWN => Errno::NOENT,
        ReplyType::ERR_SHUTDOWN => Errno::SHUTDOWN,
        _ => Errno::INVAL,
    };
    Error::new(errno, refusal.to_string())
}

fn broken(e: proto::Error) -> Error {
    match e {
        proto::Error::Refused(refusal) => refused(&refusal),
        e => Error::io(e.to_string()),
    }
}

/// What TLS needs to begin.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// Whom to trust, and who to be.
    pub client: net::tls::Client,
    /// The name or address that the server's certificate must have, unless the settings name another.
    pub host: Option<String>,
}

/// A sentence about TLS, which is whole already.
pub(crate) fn tls_error(e: io::Error) -> Error {
    let errno = match e.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::PermissionDenied => Errno::ACCES,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Errno::INVAL,
        io::ErrorKind::Unsupported => Errno::NOTSUP,
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        io::ErrorKind::UnexpectedEof => Errno::SHUTDOWN,
        _ => Errno::PERM,
    };
    Error::new(errno, e.to_string())
}

/// A handshake under way. Steps block; nothing else can happen on the connection meanwhile.
///
/// With an oldstyle server, or one without options, there are no steps: [`Negotiation::is_over`] is true at
/// once, and [`Negotiation::go`] gives the one export there is.
pub struct Negotiation {
    stream: Stream,
    tls: Option<Encryption>,
    machine: ClientHandshake,
    over: Option<Negotiated>,
    /// What ended it before its time: the answer to every later step, too.
    broken: Option<(Errno, String)>,
    buffer: Vec<u8>,
}

impl Negotiation {
    /// Go through the handshake as far as `wishes` lead: to the transmission phase, or with `opt_mode` to the
    /// point where steps can be taken. `timeout` bounds each wait for the server. Wishes for TLS need
    /// [`Negotiation::start_with`].
    ///
    /// # Errors
    /// The server is none, refuses what is wished, or does not answer in time.
    pub fn start(stream: Stream, wishes: Wishes, timeout: Option<Duration>) -> Result<Negotiation> {
        Negotiation::start_with(stream, wishes, timeout, None)
    }

    /// As [`Negotiation::start`], with what TLS needs.
    ///
    /// # Errors
    /// As there; or one of the two ends does not trust the other.
    pub fn start_with(
        stream: Stream,
        wishes: Wishes,
        timeout: Option<Duration>,
        tls: Option<Encryption>,
    ) -> Result<Negotiation> {
        let machine = ClientHandshake::new(wishes);
        stream.set_recv_timeout(timeout)?;
        let mut negotiation =
            Negotiation { stream, tls, machine, over: None, broken: None, buffer: vec![0; 4096] };
        match negotiation.next()? {
            Event::Waiting => {}
            Event::Ready(negotiated) => negotiation.over = Some(negotiated),
            event => return Err(unexpected(&event)),
        }
        Ok(negotiation)
    }

    fn next(&mut self) -> Result<Event> {
        loop {
            let event = self.machine.next();
            // An error, too, may leave a polite farewell to be sent.
            let sent = self.stream.send_all(&self.machine.take_output());
            match event.map_err(broken)? {
                Event::NeedInput => sent.or_else(|e| match e.kind() {
                    // What the server said before it hung up is of more use than that it did.
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
                    _ => Err(e),
                })?,
                Event::StartTls => {
                    let Some(Encryption { client, host }) = &self.tls else {
                        return Err(Error::invalid("TLS was asked for without saying whom to trust"));
                    };
                    self.stream.begin_tls(client, host.as_deref()).map_err(tls_error)?;
                    self.machine.tls_started().map_err(broken)?;
                    continue;
                }
                event => return Ok(event),
            }
            match self.stream.recv(&mut self.buffer, Wait::Block) {
                Ok(0) => return Err(Error::new(Errno::SHUTDOWN, self.machine.closed().to_string())),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(Error::new(Errno::SHUTDOWN, self.machine.closed().to_string()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::new(Errno::TIMEDOUT, "the server did not answer in the handshake"));
                }
                Err(e) => return Err(Error::from(e).context("receiving from the server")),
                Ok(n) => self.machine.feed(&self.buffer[..n]),
            }
        }
    }

    /// Has the machine take a step, and waits for its outcome.
    fn step(&mut self, begin: impl FnOnce(&mut ClientHandshake) -> proto::Result<()>) -> Step<Event> {
        if let Some((errno, why)) = &self.broken {
            return Err(Failure::Broken(Error::new(*errno, why.clone())));
        }
        begin(&mut self.machine)?;
        match self.next() {
            Ok(Event::Refused(refusal)) => Err(Failure::Refused(refusal)),
            Ok(event) => Ok(event),
            Err(error) => {
                self.broken = Some((error.errno(), error.to_string()));
                Err(Failure::Broken(error))
            }
        }
    }

    /// Whether the export is chosen and no more steps can be taken.
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// The dialect that the server speaks.
    pub fn protocol(&self) -> Protocol {
        self.machine.protocol()
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.machine.tls()
    }

    /// How replies will be framed, as far as it is agreed.
    pub fn replies(&self) -> ReplyStyle {
        self.machine.replies()
    }

    /// The exports that the server shows.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn list(&mut self) -> Step<Vec<ExportEntry>> {
        match self.step(|machine| machine.list())? {
            Event::Exports(exports) => Ok(exports),
            event => Err(Failure::Broken(unexpected(&event))),
        }
    }

    /// What the server tells of an export, without opening it.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn info(&mut self, export: &str) -> Step<ExportInfo> {
        match self.step(|machine| machine.info(export))? {
            Event::Info(info) => Ok(info),
            event => Err(Failure::Broken(unexpected(&event))),
        }
    }

    /// Which metadata contexts an export has; all of them when there is no query. Their ids mean nothing.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn list_meta_context(&mut self, export: &str, queries: &[String]) -> Step<Vec<Context>> {
        self.contexts(|machine| machine.list_meta_context(export, queries))
    }

    /// Choose metadata contexts for a [`Negotiation::go`] with the same export.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn set_meta_context(&mut self, export: &str, queries: &[String]) -> Step<Vec<Context>> {
        self.contexts(|machine| machine.set_meta_context(export, queries))
    }

    fn contexts(
        &mut self,
        begin: impl FnOnce(&mut ClientHandshake) -> proto::Result<()>,
    ) -> Step<Vec<Context>> {
        match self.step(begin)? {
            Event::Contexts(contexts) => Ok(contexts),
            event => Err(Failure::Broken(unexpected(&event))),
        }
    }

    /// Open an export, by the old option where the server does not know GO. Afterwards take the connection with
    /// [`Negotiation::into_connection`].
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn go(&mut self, export: &str) -> Step<&Negotiated> {
        if self.over.is_none() {
            let extended = self.replies() == ReplyStyle::Extended; // which forbid the old option
            let event = match self.step(|machine| machine.go(export)) {
                Err(Failure::Refused(why)) if why.error == ReplyType::ERR_UNSUP && !extended => {
                    self.step(|machine| machine.export_name(export))
                }
                other => other,
            };
            match event? {
                Event::Ready(negotiated) => self.over = Some(negotiated),
                event => return Err(Failure::Broken(unexpected(&event))),
            }
        }
        self.over.as_ref().ok_or_else(|| Failure::Broken(Error::io("the negotiation is not over")))
    }

    /// Say goodbye without opening an export. A server that hangs up instead of answering is fine.
    pub fn abort(mut self) {
        if self.over.is_none() && self.machine.abort().is_ok() {
            let _ = self.next(); // either way the connection ends here
        }
    }

    /// The stream, to learn about the peer.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The open connection, and what was agreed on.
    ///
    /// # Errors
    /// No export was opened; or the server sent something before it was asked anything.
    pub fn into_connection(mut self) -> Result<(Connection, Negotiated)> {
        let Some(negotiated) = self.over else {
            return Err(Error::invalid("no export was opened"));
        };
        let early = self.machine.take_input().len();
        if early > 0 {
            return Err(Error::io(format!("the server sent {early} bytes before any request was made")));
        }
        self.stream.set_recv_timeout(None)?;
        let connection = Connection::new(self.stream, negotiated.replies, &negotiated.contexts);
        Ok((connection, negotiated))
    }
}

fn unexpected(event: &Event) -> Error {
    Error::io(format!("the handshake came to an unexpected end: {event:?}"))
}
