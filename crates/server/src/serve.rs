//! The server: accepts connections, gives each a thread, and ends in good order.

use crate::{
    clock::Clock,
    connection::{self, Admitted},
    spares::Spares,
    stack,
};
use disk::{Backend, Wish};
use net::{How, Listener, Stop, Stream};
use proto::handshake::server::Policy;
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Where the server's own lines go.
pub trait Log: Send + Sync {
    /// Something went wrong, or a client did.
    fn error(&self, line: &str);
    /// For those who want to follow.
    fn debug(&self, line: &str) {
        let _ = line;
    }
}

struct Stderr;
impl Log for Stderr {
    fn error(&self, line: &str) {
        eprintln!("{line}");
    }
}

/// How to serve.
#[derive(Clone)]
pub struct Options {
    /// What may be negotiated. Anything but TLS off needs `tls`, too.
    pub policy: Policy,
    /// The keys for TLS, and what they demand of clients.
    pub tls: Option<net::tls::Server>,
    /// Speak only the oldstyle handshake, of the default export.
    pub oldstyle: bool,
    /// Clients may only read.
    pub read_only: bool,
    /// Clients that may write may also change the size of a disk that can change it (the proposed RESIZE).
    pub resize: bool,
    /// A client that takes longer for its handshake is cut off. What the backend needs does not count.
    pub handshake_limit: Duration,
    /// A client that says nothing for so long, with nothing under way, or does not take its replies, is cut off;
    /// `None`: clients may be idle for ever.
    pub idle_limit: Option<Duration>,
    /// Ask TCP clients now and then whether they are still there.
    pub keepalive: bool,
    /// So many requests of one connection may be under way at once, at least 1; more wait in the socket. With 1,
    /// answers come in the order of the requests.
    pub in_flight: usize,
    /// How long requests in flight may take when the server stops.
    pub stop_limit: Duration,
    /// Where lines go.
    pub log: Arc<dyn Log>,
}

impl Default for Options {
    /// Everything may be negotiated but TLS; a minute for the handshake, 4 seconds to stop; 1024 requests of a
    /// connection under way; lines on standard error.
    fn default() -> Self {
        Options {
            policy: Policy::default(),
            tls: None,
            oldstyle: false,
            read_only: false,
            resize: false,
            handshake_limit: Duration::from_secs(60),
            idle_limit: None,
            keepalive: false,
            in_flight: 1024,
            stop_limit: Duration::from_secs(4),
            log: Arc::new(Stderr),
        }
    }
}

/// Serves one backend.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    options: Options,
    stop: Stop,
    last_number: AtomicU64,
    connections: Mutex<Vec<Connection>>,
    one_ended: Condvar,
    spares: Spares<Admitted>,
}

struct Connection {
    number: u64,
    stream: Arc<Stream>,
    clock: Arc<Clock>,
}

/// While clients cannot be accepted, the log hears of it now and then, not at every try.
const SHORTAGE_TOLD_EVERY: Duration = Duration::from_secs(10);

impl Server {
    /// A server with default options.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::with_options(backend, Options::default()).expect("one descriptor is to be had")
    }

    /// A server. The backend is held to its thread model.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn with_options(backend: Arc<dyn Backend>, options: Options) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            backend: disk::serialized::backend(backend),
            options,
            stop: Stop::new()?,
            last_number: AtomicU64::new(0),
            connections: Mutex::default(),
            one_ended: Condvar::new(),
            spares: Spares::new(),
        });
        let weak = Arc::downgrade(&shared);
        shared.backend.hosted(&Wish::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.stop.set();
            }
        }));
        Ok(Server { shared })
    }

    /// Ends [`Server::serve`], now or when it begins. May be called from any thread.
    pub fn stop(&self) {
        self.shared.stop.set();
    }

    /// Something that ends the server from elsewhere: a signal handler's thread, a filter.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + Clone + 'static {
        let shared = self.shared.clone();
        move || shared.stop.set()
    }

    /// Accepts connections until [`Server::stop`]; then requests in flight are answered, as long as that takes no
    /// longer than `stop_limit`, and the connections closed.
    ///
    /// # Errors
    /// When the listeners cannot be waited for.
    pub fn serve(&self, listeners: &[Listener]) -> io::Result<()> {
        let shared = &self.shared;
        let mut shortage_told: Option<Instant> = None;
        loop {
            match net::accept_any(listeners, &shared.stop, shared.until_next_limit()) {
                Ok(Some((_, stream))) => {
                    shared.options.log.debug("accepted connection");
                    shared.start(stream);
                }
                Ok(None) if shared.stop.is_set() => break,
                Ok(None) => {}
                Err(e) => {
                    // Out of descriptors or memory: clients wait in the backlog until some have gone.
                    if shortage_told.is_none_or(|told| told.elapsed() > SHORTAGE_TOLD_EVERY) {
                        let line = format!("accepting a connection: {}; clients wait", disk::Error::from(e));
                        shared.options.log.error(&line);
                        shortage_told = Some(Instant::now());
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            // Not only when nobody comes: a stream of new clients must not cover for the late ones.
            shared.cut_off_late_handshakes();
        }
        shared.drain();
        Ok(())
    }

    /// Serves one client on this thread, to its end or until [`Server::stop`].
    pub fn serve_stream(&self, stream: Stream) {
        let shared = self.shared.clone();
        let connection = shared.admit(stream);
        let watcher = std::thread::spawn({
            let shared = shared.clone();
            move || {
                while !shared.stop.is_set() {
                    let _ = net::accept_any(&[], &shared.stop, shared.until_next_limit());
                    shared.cut_off_late_handshakes();
                }
                shared.drain();
            }
        });
        shared.run(connection);
        shared.stop.set();
        let _ = watcher.join();
    }

    /// As [`Server::serve_stream`], without a thread beside this one: [`Server::stop`] is not heard meanwhile.
    pub fn serve_to_the_end(&self, stream: Stream) {
        self.shared.run(self.shared.admit(stream));
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, stream: Stream) -> Admitted {
        let number = self.last_number.fetch_add(1, Relaxed) + 1;
        if self.options.keepalive
            && let Err(e) = stream.set_keepalive(true)
        {
            self.options.log.error(&format!("connection {number}: no keepalive: {e}"));
        }
        let admitted = Admitted::new(number, stream);
        let (stream, clock) = (admitted.stream.clone(), admitted.clock.clone());
        self.connections().push(Connection { number, stream, clock });
        admitted
    }

    fn run(&self, admitted: Admitted) {
        connection::serve(&admitted, &*self.backend, &self.options);
        self.connections().retain(|c| c.number != admitted.number);
        // Before anybody is told: it is closed.
        drop(admitted);
        self.one_ended.notify_all();
    }

    fn start(self: &Arc<Self>, stream: Stream) {
        let Err(connection) = self.spares.give(self.admit(stream)) else { return };
        let number = connection.number;
        let shared = self.clone();
        if let Err(e) = stack::spawn("nbd", move || shared.run_one_after_another(connection)) {
            self.options.log.error(&format!("connection {number}: no thread for it: {e}"));
            self.connections().retain(|c| c.number != number);
        }
    }

    /// A thread's life.
    fn run_one_after_another(&self, first: Admitted) {
        let mut next = Some(first);
        while let Some(connection) = next {
            self.run(connection);
            // Nothing of the last client stays while the thread waits.
            disk::release_idle_buffers();
            reactor::forget();
            next = self.spares.take();
        }
    }

    /// How long until the first handshake under way can be too late.
    fn until_next_limit(&self) -> Option<Duration> {
        let limit = self.options.handshake_limit;
        let connections = self.connections();
        let under_way = connections.iter().filter(|c| !c.clock.is_over());
        // One whose clock stands now may run right after.
        let left = under_way.map(|c| c.clock.left(limit).unwrap_or(limit)).min()?;
        // A moment longer, so that it is past then.
        Some(left + Duration::from_millis(10))
    }

    /// The connections' own threads then see their end, and say why.
    fn cut_off_late_handshakes(&self) {
        let limit = self.options.handshake_limit;
        for c in self.connections().iter() {
            if c.clock.left(limit) == Some(Duration::ZERO) {
                c.clock.run_out();
                let _ = c.stream.shutdown(How::Both);
            }
        }
    }

    /// Lets every connection answer what it was asked, and end.
    fn drain(&self) {
        self.spares.end();
        let deadline = Instant::now() + self.options.stop_limit;
        let mut connections = self.connections();
        for c in connections.iter() {
            // A thread that waits for input sees its end.
            let _ = c.stream.shutdown(How::Read);
        }
        while !connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let n = connections.len();
                self.options.log.error(&format!("stopping with requests of {n} connections unanswered"));
                for c in connections.iter() {
                    let _ = c.stream.shutdown(How::Both);
                }
                return;
            }
            connections =
                self.one_ended.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
