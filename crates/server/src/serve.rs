//! The server: accepts connections, gives each a thread, and ends in good order.

use crate::connection;
use disk::Backend;
use net::{How, Listener, Stop, Stream};
use proto::handshake::server::Policy;
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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
    /// What may be negotiated.
    pub policy: Policy,
    /// Speak only the oldstyle handshake, of the default export.
    pub oldstyle: bool,
    /// Clients may only read.
    pub read_only: bool,
    /// A handshake that takes longer is cut off.
    pub handshake_limit: Duration,
    /// How long requests in flight may take when the server stops.
    pub stop_limit: Duration,
    /// Where lines go.
    pub log: Arc<dyn Log>,
}

impl Default for Options {
    /// Everything may be negotiated but TLS; a minute for the handshake, 4 seconds to stop; lines on standard error.
    fn default() -> Self {
        Options {
            policy: Policy::default(),
            oldstyle: false,
            read_only: false,
            handshake_limit: Duration::from_secs(60),
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
}

struct Connection {
    number: u64,
    stream: Arc<Stream>,
    since: Instant,
    negotiated: Arc<AtomicBool>,
}

/// Threads of connections need little: payload lies on the heap.
const STACK: usize = 512 << 10;

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
        Ok(Server {
            shared: Arc::new(Shared {
                backend: disk::serialized::backend(backend),
                options,
                stop: Stop::new()?,
                last_number: AtomicU64::new(0),
                connections: Mutex::default(),
                one_ended: Condvar::new(),
            }),
        })
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
        let log = &shared.options.log;
        while !shared.stop.is_set() {
            match net::accept_any(listeners, &shared.stop, shared.until_next_limit()) {
                Ok(Some((_, stream))) => shared.start(stream),
                Ok(None) => shared.cut_off_late_handshakes(),
                Err(e) => {
                    // Out of descriptors or memory: clients wait in the backlog until some have gone.
                    log.error(&format!("accepting a connection: {e}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
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
                let _ = net::accept_any(&[], &shared.stop, None);
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

    fn admit(&self, stream: Stream) -> (u64, Arc<Stream>, Arc<AtomicBool>) {
        let number = self.last_number.fetch_add(1, Relaxed) + 1;
        let (stream, negotiated) = (Arc::new(stream), Arc::new(AtomicBool::new(false)));
        self.connections().push(Connection {
            number,
            stream: stream.clone(),
            since: Instant::now(),
            negotiated: negotiated.clone(),
        });
        (number, stream, negotiated)
    }

    fn run(&self, (number, stream, negotiated): (u64, Arc<Stream>, Arc<AtomicBool>)) {
        connection::serve(&stream, &*self.backend, &self.options, number, &negotiated);
        self.connections().retain(|c| c.number != number);
        self.one_ended.notify_all();
    }

    fn start(self: &Arc<Self>, stream: Stream) {
        let connection = self.admit(stream);
        let number = connection.0;
        let shared = self.clone();
        let thread = std::thread::Builder::new().name(format!("nbd {number}")).stack_size(STACK);
        if let Err(e) = thread.spawn(move || shared.run(connection)) {
            self.options.log.error(&format!("connection {number}: no thread for it: {e}"));
            self.connections().retain(|c| c.number != number);
        }
    }

    /// How long until the first handshake under way is too late.
    fn until_next_limit(&self) -> Option<Duration> {
        let limit = self.options.handshake_limit;
        let connections = self.connections();
        let late =
            connections.iter().filter(|c| !c.negotiated.load(Relaxed)).map(|c| c.since + limit).min()?;
        // A moment longer, so that it is past then.
        Some(late.saturating_duration_since(Instant::now()) + Duration::from_millis(10))
    }

    fn cut_off_late_handshakes(&self) {
        let limit = self.options.handshake_limit;
        for c in self.connections().iter() {
            if !c.negotiated.load(Relaxed) && c.since.elapsed() >= limit {
                let seconds = limit.as_secs();
                self.options.log.error(&format!(
                    "connection {}: cut off, because its handshake took more than {seconds} seconds",
                    c.number
                ));
                let _ = c.stream.shutdown(How::Both);
            }
        }
    }

    /// Lets every connection answer what it was asked, and end.
    fn drain(&self) {
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
