//! One connection from its first byte to its last, and the one clear line that the log gets when it goes wrong.

use crate::{
    clock::{Clock, Timed},
    negotiate::{Agreed, negotiate},
    serve::Options,
    transmit::{Broken, End, Whose, transmit},
};
use disk::{Backend, Client, Peer, Wish};
use net::Stream;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tracing::Span;

/// A connection before its first byte.
pub(crate) struct Admitted {
    pub(crate) number: u64,
    pub(crate) stream: Arc<Stream>,
    pub(crate) clock: Arc<Clock>,
    peer: Peer,
    span: Span,
}

impl Admitted {
    /// To be made on the thread that accepts: those who keep spans take 4 KiB for each thread that makes one.
    pub(crate) fn new(number: u64, stream: Stream) -> Self {
        let peer = peer(&stream);
        let span = tracing::error_span!(
            "connection",
            number,
            peer = %Shown(&peer),
            export = tracing::field::Empty
        );
        Admitted { number, stream: Arc::new(stream), clock: Arc::new(Clock::new()), peer, span }
    }
}

/// Serves one client. Nothing that happens here reaches other connections, not even a panic.
pub(crate) fn serve(admitted: &Admitted, backend: &dyn Backend, options: &Options) {
    let Admitted { number, stream, clock, peer, span } = admitted;
    let number = *number;
    let dismissed = Arc::new(AtomicBool::new(false));
    let client = Client {
        connection: number,
        export: "",
        read_only: options.read_only,
        looks: false,
        tls: false,
        certificate: None,
        peer: peer.clone(),
        label: stream.security_label().map(Into::into),
        dismiss: {
            let dismissed = dismissed.clone();
            Wish::new(move || dismissed.store(true, Relaxed))
        },
        hang_up: {
            let stream = Arc::downgrade(stream);
            Wish::new(move || {
                if let Some(stream) = stream.upgrade() {
                    let _ = stream.shutdown(net::How::Both);
                }
            })
        },
    };
    // Whatever is told on this thread from now on carries it.
    let _inside = span.enter();
    let served =
        catch_unwind(AssertUnwindSafe(|| converse(stream, backend, options, &client, &dismissed, clock)));
    let log = &options.log;
    match served {
        Ok(Ok(())) => log.debug(&format!("connection {number}: closed")),
        Ok(Err(why)) => log.error(&format!("connection {number}: {why}")),
        Err(_) => log.error(&format!("connection {number}: closed because its handler panicked")),
    }
    let _ = stream.shutdown(net::How::Both);
    if catch_unwind(AssertUnwindSafe(|| backend.disconnected(number))).is_err() {
        log.error(&format!("connection {number}: the handler of its end panicked"));
    }
}

/// Neither this nor its chapters are inlined: what one of them needs of the stack, the next one has again.
#[inline(never)]
fn converse(
    stream: &Arc<Stream>,
    backend: &dyn Backend,
    options: &Options,
    client: &Client<'_>,
    dismissed: &AtomicBool,
    clock: &Clock,
) -> Result<(), String> {
    let timed = Timed { clock, next: backend };
    timed.preconnect(client).wait().map_err(|e| format!("refused: {e}"))?;
    let agreed = match negotiate(stream, &timed, options, client) {
        Ok(Some(agreed)) => agreed,
        Ok(None) | Err(Broken::Io(_) | Broken::Short) if clock.has_run_out() => {
            let limit = options.handshake_limit.as_secs_f32();
            return Err(format!("cut off, because its handshake took more than {limit} seconds"));
        }
        Ok(None) => return Ok(()),
        Err(Broken::Io(e)) => return Err(format!("handshake: {}", sentence(&e))),
        Err(Broken::Short) => return Err("handshake: the client closed the connection".into()),
        Err(Broken::Protocol(why)) => return Err(format!("handshake: {why}")),
        Err(Broken::Idle) => return Err("handshake: the client says nothing".into()),
    };
    clock.end();
    let Agreed { negotiated, disk, facts, first } = agreed;
    tracing::Span::current().record("export", negotiated.export.as_str());
    options.log.debug(&format!(
        "connection {}: export {:?}, {} bytes, flags {}",
        client.connection, negotiated.export, negotiated.info.size, negotiated.info.flags
    ));
    let whose = Whose { number: client.connection, dismissed };
    let ended = transmit(stream, &*disk, &facts, &negotiated, &first, options, whose);
    let closed = disk.close().wait();
    match ended {
        Ok(End::Disconnected | End::Closed) => closed.map_err(|e| format!("closing the disk: {e}")),
        Err(Broken::Io(e)) => Err(sentence(&e)),
        Err(Broken::Short) => Err("the client closed the connection in the middle of a request".into()),
        Err(Broken::Protocol(why)) => Err(why),
        Err(Broken::Idle) => {
            let limit = options.idle_limit.unwrap_or_default().as_secs_f32();
            Err(format!("cut off, because nothing was heard of the client for {limit} seconds"))
        }
    }
}

/// Where a client comes from, in a few letters.
struct Shown<'a>(&'a Peer);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Peer::Unknown => f.write_str("unknown"),
            Peer::Ip(address) => address.fmt(f),
            Peer::Unix { pid: Some(pid), .. } => write!(f, "unix:{pid}"),
            Peer::Unix { .. } => f.write_str("unix"),
            Peer::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

fn sentence(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
            "the client went away before it had its answers".into()
        }
        _ => disk::Error::from(std::io::Error::new(e.kind(), e.to_string())).to_string(),
    }
}

fn peer(stream: &Stream) -> Peer {
    match stream.peer() {
        net::Peer::Tcp(address) => Peer::Ip(address),
        net::Peer::Unix { pid, uid, gid } => {
            Peer::Unix { pid: u32::try_from(pid).ok().filter(|p| *p > 0), uid: Some(uid), gid: Some(gid) }
        }
        net::Peer::Vsock { cid, port } => Peer::Vsock { cid, port },
        net::Peer::Unknown => Peer::Unknown,
    }
}
