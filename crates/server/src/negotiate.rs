//! The handshake of one connection: drives `proto`'s machine with a backend.

use crate::{resize, serve::Options, to_wire, transmit::Broken};
use disk::{Backend, Certificate, Client, Disk, Error, Facts, Io};
use net::{Stream, Wait};
use proto::{
    ExportEntry,
    handshake::{
        Negotiated, Protocol, oldstyle,
        server::{Event, Purpose, ServerHandshake},
    },
    option::ReplyType,
    reply::ReplyStyle,
};
use std::sync::Arc;

/// What the handshake led to.
pub(crate) struct Agreed {
    pub(crate) negotiated: Negotiated,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) facts: Facts,
    /// What the client sent behind the handshake.
    pub(crate) first: Vec<u8>,
}

/// Greets the client and answers its options; `None` when it leaves in good order, or without a word.
#[inline(never)] // see `connection::converse`
pub(crate) fn negotiate(
    stream: &Stream,
    backend: &dyn Backend,
    options: &Options,
    client: &Client<'_>,
) -> Result<Option<Agreed>, Broken> {
    if options.oldstyle {
        return oldstyle(stream, backend, options, client).map(Some);
    }
    let mut opener = Opener { backend, options, client: client.clone(), opened: None };
    let mut machine = ServerHandshake::new(options.policy.clone());
    // Few options are longer, and those come in pieces: a busy connection keeps the stack that it has used.
    let mut room = [0; 512];
    let mut heard = false;
    loop {
        let event = machine.next();
        if !matches!(event, Ok(Event::List | Event::Export { .. } | Event::MetaContexts { .. })) {
            // A question is answered first, so that one send carries all answers.
            let output = machine.take_output();
            if !output.is_empty()
                && let Err(e) = stream.send_all(&output)
            {
                // Who says goodbye need not wait for the answer, and who looks whether somebody listens wants none.
                return if matches!(event, Ok(Event::Aborted)) || !heard { Ok(None) } else { Err(e.into()) };
            }
        }
        match event.map_err(|e| Broken::Protocol(e.to_string()))? {
            Event::NeedInput => match stream.recv(&mut room, Wait::Block) {
                Ok(0) | Err(_) if !heard => return Ok(None),
                Ok(0) => return Err(Broken::Short),
                Ok(n) => {
                    heard = true;
                    machine.feed(&room[..n]);
                }
                Err(e) => return Err(e.into()),
            },
            Event::List => opener.list(&mut machine),
            Event::Export { name, purpose, .. } => opener.export(&mut machine, &name, purpose),
            Event::MetaContexts { export, .. } => opener.contexts(&mut machine, &export),
            Event::StartTls => {
                let Some(tls) = &options.tls else {
                    return Err(Broken::Protocol("the server promised TLS, but has no keys for it".into()));
                };
                let facts = stream.accept_tls(tls)?;
                options.log.debug(&format!(
                    "connection {}: {} with {}, client {}",
                    client.connection,
                    facts.version,
                    facts.cipher,
                    facts.peer.as_deref().unwrap_or("unknown")
                ));
                let certificate = facts.issuer.clone().zip(facts.peer.clone());
                opener.encrypted(certificate.map(|(issuer, subject)| Certificate { subject, issuer }));
                machine.tls_started().map_err(|e| Broken::Protocol(e.to_string()))?;
            }
            Event::Aborted => return Ok(None),
            Event::Ready(negotiated) => {
                let Some((_, disk, facts)) = opener.opened else {
                    return Err(Broken::Protocol("the handshake ended without an export".into()));
                };
                return Ok(Some(Agreed { negotiated, disk, facts, first: machine.take_input() }));
            }
        }
    }
}

struct Opener<'a> {
    backend: &'a dyn Backend,
    options: &'a Options,
    client: Client<'a>,
    /// The export opened last, kept for the GO that follows an INFO or a question for contexts.
    opened: Option<(String, Arc<dyn Disk>, Facts)>,
}

impl Opener<'_> {
    /// What was opened for a client in the clear is not for one over TLS, who may be shown something else.
    fn encrypted(&mut self, certificate: Option<Certificate>) {
        self.client.tls = true;
        self.client.certificate = certificate.map(Arc::new);
        if let Some((name, disk, _)) = self.opened.take()
            && let Err(e) = disk.close().wait()
        {
            self.failed(&format!("closing export {name:?}"), &e);
        }
    }

    fn open(&mut self, name: &str) -> disk::Result<(&dyn Disk, &Facts, Option<String>)> {
        let mut canonical = None;
        if name.is_empty() {
            canonical = self.backend.default_export(&self.client).wait()?;
        }
        if self.opened.as_ref().is_none_or(|(opened, ..)| opened != name) {
            // The other one is closed before this one opens: some backends serve one client at a time.
            if let Some((_, disk, _)) = self.opened.take() {
                disk.close().wait()?;
            }
            let export = canonical.as_deref().unwrap_or(name);
            let client = Client { export, ..self.client.clone() };
            let disk = self.backend.open(&client).wait()?;
            let facts = facts_for(disk.facts(), client.read_only);
            self.opened = Some((name.to_owned(), disk, facts));
        }
        let (_, disk, facts) = self.opened.as_mut().expect("opened just now");
        if let Some(resizing) = disk.resizing() {
            facts.size = resizing.size();
        }
        Ok((&**disk, facts, canonical.filter(|c| c != name)))
    }

    fn list(&self, machine: &mut ServerHandshake) {
        let asked = self.backend.exports(&self.client).wait();
        let answered = match asked {
            Ok(exports) => {
                let entry = |e: disk::Export| ExportEntry {
                    name: e.name,
                    description: e.description.unwrap_or_default(),
                };
                machine.exports(&exports.into_iter().map(entry).collect::<Vec<_>>())
            }
            Err(e) => {
                self.failed("listing exports", &e);
                machine.refuse(ReplyType::ERR_PLATFORM, &e.to_string())
            }
        };
        answered.expect("the machine asked for this");
    }

    fn export(&mut self, machine: &mut ServerHandshake, name: &str, purpose: Purpose) {
        let allowed = self.options.resize;
        let answered = match self.open(name) {
            Ok((disk, facts, canonical)) => {
                let resizable = resize::is_offered(allowed, disk, facts);
                machine.export(to_wire::export_info(facts, resizable, canonical))
            }
            Err(e) => {
                self.failed(&format!("opening export {name:?}"), &e);
                let _ = purpose;
                machine.refuse(ReplyType::ERR_UNKNOWN, &e.to_string())
            }
        };
        answered.expect("the machine asked for this");
    }

    fn contexts(&mut self, machine: &mut ServerHandshake, name: &str) {
        let answered = match self.open(name) {
            Ok((_, facts, _)) => {
                let more = facts.contexts.iter().map(|c| &**c);
                machine.contexts(&std::iter::once(to_wire::BASE).chain(more).collect::<Vec<_>>())
            }
            Err(e) => {
                self.failed(&format!("opening export {name:?}"), &e);
                machine.refuse(ReplyType::ERR_UNKNOWN, &e.to_string())
            }
        };
        answered.expect("the machine asked for this");
    }

    fn failed(&self, what: &str, error: &Error) {
        self.options.log.error(&format!("connection {}: {what}: {error}", self.client.connection));
    }
}

fn facts_for(facts: &Facts, read_only: bool) -> Facts {
    if read_only { facts.clone().without_write() } else { facts.clone() }
}

fn oldstyle(
    stream: &Stream,
    backend: &dyn Backend,
    options: &Options,
    client: &Client<'_>,
) -> Result<Agreed, Broken> {
    let opened = backend.default_export(client).and_then(|name| {
        Io::later(async move {
            let client = Client { export: name.as_deref().unwrap_or(client.export), ..client.clone() };
            backend.open(&client).await
        })
    });
    let disk = opened.wait().map_err(|e| {
        options.log.error(&format!("connection {}: opening the export: {e}", client.connection));
        Broken::Short
    })?;
    let facts = facts_for(disk.facts(), client.read_only);
    let mut info = to_wire::export_info(&facts, false, None);
    info.flags = info
        .flags
        .without(proto::TransmissionFlags::SEND_DF | proto::TransmissionFlags::BLOCK_STATUS_PAYLOAD);
    stream.send_all(&oldstyle::greeting(info.size, info.flags))?;
    let negotiated = Negotiated {
        protocol: Protocol::Oldstyle,
        tls: false,
        export: String::new(),
        info,
        replies: ReplyStyle::Simple,
        contexts: Vec::new(),
    };
    Ok(Agreed { negotiated, disk, facts, first: Vec::new() })
}
