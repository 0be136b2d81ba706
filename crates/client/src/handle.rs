//! One connection as a machine on one descriptor, which its owner pumps: what libnbd's users know as a handle.
//!
//! [`Connection`](crate::Connection) drives itself and takes whole requests; a [`Handle`] does nothing unless it is
//! called. Its owner waits for its descriptor in the direction that it names and tells it so, or lets [`Handle::poll`]
//! do both. Everything can be looked at and chosen on the way: the handshake option by option, single chunks of
//! replies, requests that break the protocol on purpose. The Python module stands on it.
//!
//! A request has a cookie. Its callbacks are called while the handle is pumped, from the thread that pumps. What a
//! failed call leaves behind is said by the state, not by the error.

mod commands;
mod connect;
pub mod fault;
mod handshake;
mod options;
mod output;
mod questions;
mod receive;
mod settings;
mod transmit;
mod uri;

pub use commands::{AioFlags, ChunkFn, CommandFn, ExtentFn, Memory, chunk_status};
pub use fault::{Fault, Outcome};
pub use options::{ContextFn, ListFn};
pub use questions::SizeType;
pub use settings::{Settings, strict, transport};

use commands::Pending;
use connect::Started;
use fault::errno;
use net::{Address, Connecting, Stream};
use options::Asked;
use output::Output;
use proto::{
    Context, ReplyStyle,
    handshake::{ExportInfo, Protocol, client::ClientHandshake},
};
use receive::Input;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Where a handle stands. The order is that of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// New: settings can be made.
    Created,
    /// On the way to a server, or waiting for its word in the handshake.
    Connecting,
    /// With `opt_mode`: an option may be asked.
    Negotiating,
    /// Requests can be made.
    Ready,
    /// As [`State::Ready`], and in the middle of a request or of a reply.
    Processing,
    /// Ended in order.
    Closed,
    /// Ended by an error.
    Dead,
}

/// What a handle's state was when it was last left, or last called back: for those who cannot wait until nobody uses it.
#[derive(Clone, Debug, Default)]
pub struct LastState(Arc<AtomicU8>);

impl LastState {
    /// The state then.
    pub fn get(&self) -> State {
        const ALL: [State; 7] = [
            State::Created,
            State::Connecting,
            State::Negotiating,
            State::Ready,
            State::Processing,
            State::Closed,
            State::Dead,
        ];
        ALL[usize::from(self.0.load(Relaxed)) % ALL.len()]
    }

    fn set(&self, state: State) {
        self.0.store(state as u8, Relaxed);
    }
}

impl State {
    /// Its name, in capitals, and what it means.
    pub const fn describe(self) -> (&'static str, &'static str) {
        match self {
            State::Created => ("START", "nothing is connected yet"),
            State::Connecting => ("CONNECTING", "on the way to the server, or waiting for its word"),
            State::Negotiating => ("NEGOTIATING", "options can be haggled over"),
            State::Ready => ("READY", "requests can be made"),
            State::Processing => ("PROCESSING", "in the middle of a request or a reply"),
            State::Closed => ("CLOSED", "the connection was shut down"),
            State::Dead => ("DEAD", "the connection has failed"),
        }
    }
}

/// States in which something may be done.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Always.
    Any,
    /// Only before connecting.
    Created,
    /// Before connecting, and between options.
    CreatedOrNegotiating,
    /// Only between options.
    Negotiating,
    /// Only with an open export.
    Connected,
    /// Once something is known of the export.
    Known,
    /// Once connected, also when that is over.
    Met,
}

impl When {
    fn allows(self, state: State) -> bool {
        use State::{Closed, Connecting, Created, Negotiating, Processing, Ready};
        match self {
            When::Any => true,
            When::Created => state == Created,
            When::CreatedOrNegotiating => matches!(state, Created | Negotiating),
            When::Negotiating => state == Negotiating,
            When::Connected => matches!(state, Ready | Processing),
            When::Known => matches!(state, Negotiating | Ready | Processing | Closed),
            When::Met => matches!(state, Connecting | Negotiating | Ready | Processing | Closed),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            When::Any => "this is for any handle",
            When::Created => "this is for a new handle",
            When::CreatedOrNegotiating => "this is for a handle that is new, or between options",
            When::Negotiating => "this is for a handle between options (opt_mode)",
            When::Connected => "this is for a handle that is connected",
            When::Known | When::Met => "this is for a handle that is, or was, connected",
        }
    }
}

enum Phase {
    Created,
    Connecting(Connecting),
    Handshake,
    Negotiating,
    Open,
    Closed,
    Dead,
}

/// What went over the wire. Chunks are requests, options, and replies or parts of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Chunks sent.
    pub chunks_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Chunks received.
    pub chunks_received: u64,
}

/// Hears what a handle does: the name of the call, and a message.
pub type DebugFn = Box<dyn FnMut(&str, &str) + Send>;

/// Called when a signal has cut a wait short: whether to give the wait up.
pub type InterruptFn = Box<dyn FnMut() -> bool + Send>;

/// The machine.
pub struct Handle {
    name: String,
    settings: Settings,
    debug: bool,
    debugger: Option<DebugFn>,
    interrupt: Option<InterruptFn>,
    last_state: LastState,
    phase: Phase,
    stream: Option<Stream>,
    address: Option<Address>,
    started: Option<Started>,
    machine: Option<ClientHandshake>,
    asked: Option<Asked>,
    /// The outcome of the last option.
    answer: Outcome<i32>,
    protocol: Option<Protocol>,
    tls: bool,
    replies: ReplyStyle,
    facts: Option<ExportInfo>,
    contexts: Option<Vec<Context>>,
    input: Input,
    output: Output,
    next_cookie: u64,
    commands: HashMap<u64, Pending>,
    /// Completed, but not retired: cookie and error.
    done: VecDeque<(u64, Option<Fault>)>,
    stats: Stats,
}

impl Default for Handle {
    fn default() -> Self {
        Handle::new()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {} in flight)", self.name, self.state(), self.commands.len())
    }
}

impl Handle {
    /// A new handle, with a name of its own. LIBNBD_DEBUG=1 in the environment makes it talkative.
    pub fn new() -> Handle {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Handle {
            name: format!("nbd{}", COUNT.fetch_add(1, Relaxed)),
            settings: Settings::default(),
            debug: std::env::var_os("LIBNBD_DEBUG").is_some_and(|value| value == "1"),
            debugger: None,
            interrupt: None,
            last_state: LastState::default(),
            phase: Phase::Created,
            stream: None,
            address: None,
            started: None,
            machine: None,
            asked: None,
            answer: Ok(0),
            protocol: None,
            tls: false,
            replies: ReplyStyle::Simple,
            facts: None,
            contexts: None,
            input: Input::default(),
            output: Output::default(),
            next_cookie: 1,
            commands: HashMap::new(),
            done: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Created => State::Created,
            Phase::Connecting(_) | Phase::Handshake => State::Connecting,
            Phase::Negotiating => State::Negotiating,
            Phase::Open if self.output.is_empty() && self.input.is_between_replies() => State::Ready,
            Phase::Open => State::Processing,
            Phase::Closed => State::Closed,
            Phase::Dead => State::Dead,
        }
    }

    /// The state, for others than those who use the handle.
    pub fn last_state(&self) -> LastState {
        self.last_state.clone()
    }

    /// Holds the state against what a call is for.
    ///
    /// # Errors
    /// ENOTCONN where nothing is connected yet, EINVAL else.
    pub fn need(&self, when: When) -> Outcome<()> {
        let state = self.state();
        if when.allows(state) {
            return Ok(());
        }
        let errno = match (state, when) {
            (State::Created, _) => errno::ENOTCONN,
            _ => errno::EINVAL,
        };
        Err(Fault::new(errno, format!("not in the state {}: {}", state.describe().0, when.words())))
    }

    /// The name, for messages: `nbd1` and so on, until it is changed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another name.
    pub fn set_name(&mut self, name: String) {
        self.name = name;
    }

    /// What was sent and received so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether messages are made.
    pub fn debugs(&self) -> bool {
        self.debug
    }

    /// Make messages or not.
    pub fn set_debug(&mut self, on: bool) {
        self.debug = on;
    }

    /// Who hears messages; `None`: standard error.
    pub fn set_debugger(&mut self, debugger: Option<DebugFn>) {
        self.debugger = debugger;
    }

    /// Who decides whether a signal ends a wait. Without, each one does.
    pub fn set_interrupt(&mut self, interrupt: InterruptFn) {
        self.interrupt = Some(interrupt);
    }

    /// Make a message, if messages are made.
    pub fn say(&mut self, context: &str, message: impl FnOnce() -> String) {
        if !self.debug {
            return;
        }
        let message = message();
        match &mut self.debugger {
            Some(debugger) => debugger(context, &message),
            None => eprintln!("libnbd: debug: {}: {context}: {message}", self.name),
        }
    }

    /// The descriptor to wait for.
    ///
    /// # Errors
    /// EINVAL: nothing is connected.
    pub fn descriptor(&self) -> Outcome<BorrowedFd<'_>> {
        match (&self.phase, &self.stream) {
            (Phase::Connecting(connecting), _) => Ok(connecting.as_fd()),
            (_, Some(stream)) => Ok(stream.as_fd()),
            _ => Err(Fault::invalid("the handle has no connection now")),
        }
    }

    /// The number of [`Handle::descriptor`].
    ///
    /// # Errors
    /// As there.
    pub fn fd(&self) -> Outcome<i32> {
        self.descriptor().map(|fd| fd.as_raw_fd())
    }

    /// Which directions to wait for: whether to read, and whether to write.
    pub fn direction(&self) -> (bool, bool) {
        match self.phase {
            Phase::Connecting(_) => (false, true),
            Phase::Handshake | Phase::Open => (true, !self.output.is_empty()),
            _ => (false, false),
        }
    }

    /// The descriptor can be read from: go on.
    ///
    /// # Errors
    /// EINVAL when nothing is connected; else why the connection ended, which is then over.
    pub fn notify_read(&mut self) -> Outcome<()> {
        match self.state() {
            State::Created | State::Negotiating | State::Closed | State::Dead => {
                let name = self.state().describe().0;
                Err(Fault::invalid(format!("nothing is to be received in the state {name}")))
            }
            _ => self.pump(),
        }
    }

    /// The descriptor can be written to: go on.
    ///
    /// # Errors
    /// EINVAL when there is nothing to send; else as [`Handle::notify_read`].
    pub fn notify_write(&mut self) -> Outcome<()> {
        if !self.direction().1 {
            let name = self.state().describe().0;
            return Err(Fault::invalid(format!("nothing is to be sent in the state {name}")));
        }
        self.pump()
    }

    /// Do everything that can be done without waiting.
    pub(crate) fn pump(&mut self) -> Outcome<()> {
        let outcome = match &self.phase {
            Phase::Connecting(_) => self.connect_on(),
            Phase::Handshake => self.shake_hands(),
            Phase::Open => self.transmit(),
            _ => Ok(()),
        };
        let outcome = outcome.map_err(|fault| self.die(fault));
        self.last_state.set(self.state());
        outcome
    }

    /// Wait for the descriptor at most `timeout` milliseconds, forever if negative, and go on. Returns whether there was
    /// anything to do.
    ///
    /// # Errors
    /// EINVAL when nothing is connected, EINTR when a signal ended the wait; else as [`Handle::notify_read`].
    pub fn poll(&mut self, timeout: i32) -> Outcome<bool> {
        self.poll_with(None, timeout).map(|n| n == 1)
    }

    /// As [`Handle::poll`], and wait for another descriptor as well. Returns 0 when the time is over, 1 when there was
    /// something to do, 2 when only the other descriptor is ready to be read.
    ///
    /// # Errors
    /// As [`Handle::poll`].
    pub fn poll_with(&mut self, other: Option<BorrowedFd<'_>>, timeout: i32) -> Outcome<i32> {
        let (read, write) = self.direction();
        if !read && !write {
            let name = self.state().describe().0;
            return Err(Fault::invalid(format!("nothing is to be waited for in the state {name}")));
        }
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, write);
        let end = u64::try_from(timeout).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
        let ready = loop {
            let mut fds = vec![PollFd::from_borrowed_fd(self.descriptor()?, flags)];
            fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left
                .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(0),
                Ok(_) => break !fds[0].revents().is_empty(),
                Err(e) => {
                    let goes_on = e == rustix::io::Errno::INTR
                        && self.interrupt.as_mut().is_some_and(|gives_up| !gives_up());
                    if !goes_on {
                        return Err(Fault::new(e.raw_os_error(), "the wait was cut short"));
                    }
                }
            }
        };
        if !ready {
            return Ok(2);
        }
        self.pump()?;
        Ok(1)
    }

    /// End by an error: everything in flight fails, and nothing more can be done.
    fn die(&mut self, fault: Fault) -> Fault {
        if matches!(self.phase, Phase::Created) {
            return fault; // another attempt may be made
        }
        self.say("connection", || format!("ended: {fault}"));
        self.end(Phase::Dead);
        fault
    }

    /// End: what is in flight fails with ENOTCONN.
    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.stream = None;
        self.output.clear();
        self.input = Input::default();
        let mut cookies: Vec<u64> = self.commands.keys().copied().collect();
        cookies.sort_unstable();
        for cookie in cookies {
            if let Some(pending) = self.commands.get_mut(&cookie) {
                pending.error.get_or_insert_with(|| Fault::new(errno::ENOTCONN, ""));
            }
            self.complete(cookie);
        }
        if let Some(asked) = self.asked.take() {
            let gone = Fault::new(errno::ENOTCONN, "the connection ended before the server answered");
            self.conclude(asked, Err(gone));
        }
    }
}
