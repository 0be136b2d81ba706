//! Socket activation, both ways: sockets that this process was started with, and starting a server with one.

use crate::{address::Address, listener::Listener, raw, reason};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::{
    fs, io,
    os::fd::AsFd,
    path::PathBuf,
    process::{self, ExitStatus},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic},
    thread,
    time::{Duration, Instant},
};

/// The first descriptor that the convention hands over.
const FIRST: i32 = 3;
/// How long a server may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listening sockets that this process was started with (LISTEN_PID, LISTEN_FDS and, for their names,
/// LISTEN_FDNAMES, as systemd sets them). `None` when it was started without. Takes them: a second call finds none.
///
/// # Errors
/// A sentence: LISTEN_FDS is no number, there are more or fewer names than sockets, or a descriptor is not a
/// listening socket.
pub fn listen_fds() -> io::Result<Option<Vec<Listener>>> {
    static TAKEN: atomic::AtomicBool = atomic::AtomicBool::new(false);
    let number = |key: &str| std::env::var(key).ok();
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else { return Ok(None) };
    // The variables stay in the environment: children have another process id and ignore them.
    if pid.parse() != Ok(process::id()) || TAKEN.swap(true, atomic::Ordering::Relaxed) {
        return Ok(None);
    }
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("LISTEN_FDS={count}: {why}"));
    let count: i32 = count.parse().map_err(|_| bad("not a number of sockets"))?;
    if !(1..=1024).contains(&count) {
        return Err(bad("not a number of sockets from 1 to 1024"));
    }
    let text = number("LISTEN_FDNAMES").filter(|names| !names.is_empty());
    let names: Vec<&str> = text.iter().flat_map(|text| text.split(':')).collect();
    if !names.is_empty() && names.len() != count as usize {
        let text = names.join(":");
        return Err(bad(&format!("LISTEN_FDNAMES={text} names {} sockets", names.len())));
    }
    let take = |fd: i32| {
        let socket = raw::inherited(fd).ok_or_else(|| bad(&format!("descriptor {fd} is not open")))?;
        let listener = Listener::from_socket(socket);
        let listener = listener.map_err(|e| bad(&format!("descriptor {fd}: {}", reason(&e))))?;
        Ok(listener.named(names.get((fd - FIRST) as usize).copied()))
    };
    (FIRST..FIRST + count).map(take).collect::<io::Result<_>>().map(Some)
}

/// A server that was started by [`socket_activation`]. Dropping it ends the server: SIGTERM, then SIGKILL
/// after five seconds.
#[derive(Debug)]
pub struct Child {
    program: String,
    shared: Arc<Shared>,
    directory: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Starting,
    Running(Pid),
    Failed(Option<io::Error>),
    /// Reaped; its process id may belong to somebody else by now.
    Gone(Option<ExitStatus>),
}

impl Shared {
    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }
}

/// Start `command` (program and arguments) as a server with a listening unix socket, by the socket activation
/// convention: LISTEN_FDS=1, LISTEN_PID, and the socket as descriptor 3. The address can be connected to at
/// once, and more than once. The server gets SIGTERM when this process ends, however it ends.
///
/// # Errors
/// A sentence that names the program.
pub fn socket_activation(command: &[String]) -> io::Result<(Child, Address)> {
    socket_activation_named(command, None)
}

/// As [`socket_activation`], and the socket has a name for the server (LISTEN_FDNAMES).
///
/// # Errors
/// As there.
pub fn socket_activation_named(command: &[String], name: Option<&str>) -> io::Result<(Child, Address)> {
    let directory = temporary_directory()?;
    let path = directory.join("socket");
    let program = command.first().cloned().unwrap_or_default();
    let child = Child { program, shared: Arc::default(), directory };
    let listener = Listener::unix(&path, false)?;
    // Servers expect an ordinary socket. And a copy at a number of 3 or more means that descriptor 3 is
    // taken, so that the pipe by which the child reports a failed start is never in its way.
    rustix::io::ioctl_fionbio(&listener, false)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&listener, FIRST)?;
    let mut start = raw::activated(command, socket.as_fd(), name)?;
    let shared = child.shared.clone();
    // The child's parent-death signal is bound to the thread that started it, so this one stays with it.
    thread::Builder::new().name("child".into()).spawn(move || {
        let spawned = start.spawn();
        drop((listener, socket));
        match spawned {
            Err(e) => shared.set(State::Failed(Some(e))),
            Ok(mut child) => match Pid::from_raw(child.id() as i32) {
                None => shared.set(State::Gone(None)),
                Some(pid) => {
                    shared.set(State::Running(pid));
                    // Wait without reaping, so that the id stays ours until nobody signals it any more.
                    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                    while matches!(waitid(WaitId::Pid(pid), ended), Err(rustix::io::Errno::INTR)) {}
                    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                    *state = State::Gone(child.wait().ok());
                    shared.changed.notify_all();
                }
            },
        }
    })?;
    let mut state = child.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while let State::Starting = &*state {
        state = child.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    if let State::Failed(e) = &mut *state {
        let (kind, why) = e.take().map_or((io::ErrorKind::Other, String::new()), |e| (e.kind(), reason(&e)));
        return Err(io::Error::new(kind, format!("{}: cannot start the server: {why}", child.program)));
    }
    drop(state);
    Ok((child, Address::Unix(path)))
}

/// A directory that only this user can enter.
fn temporary_directory() -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    static COUNTER: atomic::AtomicU32 = atomic::AtomicU32::new(0);
    loop {
        let n = COUNTER.fetch_add(1, atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("diskpipe-{}-{n}", process::id()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {}", path.display(), reason(&e)))),
            Ok(()) => return Ok(path),
        }
    }
}

impl Child {
    /// The program, as the command named it.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// How it ended by itself, if it has, or does so within `patience`.
    pub fn ended(&self, patience: Duration) -> Option<ExitStatus> {
        match *self.wait(self.lock(), patience) {
            State::Gone(status) => status,
            _ => None,
        }
    }

    /// The server's process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        match &*self.lock() {
            State::Running(pid) => Some(pid.as_raw_nonzero().get().unsigned_abs()),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most `patience` for its end.
    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, patience: Duration) -> MutexGuard<'a, State> {
        let deadline = Instant::now() + patience;
        while let State::Running(_) = &*state {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Send a signal unless it has ended; waits at most `patience` for its end.
    fn end(&self, signal: Signal, patience: Duration) {
        let state = self.lock();
        if let State::Running(pid) = &*state {
            let _ = kill_process(*pid, signal); // it may have changed its user; then there is nothing to do
        }
        drop(self.wait(state, patience));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end(Signal::TERM, PATIENCE);
        self.end(Signal::KILL, Duration::from_secs(1));
        let _ = fs::remove_dir_all(&self.directory); // leaving a socket behind harms nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{connect::connect, stream::Wait};

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| w.to_string()).collect()
    }

    #[test]
    fn the_child_gets_the_socket_its_own_id_and_ends_with_the_handle() {
        // A server in shell: it says its variables on a file, then sleeps; the connection waits in the queue.
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script =
            "echo $LISTEN_FDS $LISTEN_PID $$ $(readlink /proc/$$/fd/3) >$0.new; mv $0.new $0; exec sleep 60";
        let (child, address) =
            socket_activation(&words(&["sh", "-c", script, out.to_str().unwrap()])).unwrap();
        let _stream = connect(&address, Some(Duration::from_secs(5))).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !out.exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let said = fs::read_to_string(&out).unwrap();
        let said: Vec<&str> = said.split_whitespace().collect();
        let id = child.id().unwrap().to_string();
        assert_eq!(&said[..3], ["1", &id, &id]);
        assert!(said[3].starts_with("socket:"), "{said:?}");
        drop(child);
        let Address::Unix(path) = address else { panic!() };
        assert!(!path.exists());
        assert!(!PathBuf::from(format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = socket_activation(&words(&["no-such-program"])).unwrap_err();
        assert!(error.to_string().starts_with("no-such-program: cannot start the server: "), "{error}");
        assert!(socket_activation(&[]).is_err());
    }

    #[test]
    fn without_the_variables_nothing_is_inherited() {
        if std::env::var_os("LISTEN_PID").is_none() {
            assert!(listen_fds().unwrap().is_none());
        }
    }

    #[test]
    fn a_server_that_ends_at_once_leaves_a_dead_connection_and_its_status() {
        let (child, address) = socket_activation(&words(&["sh", "-c", "exit 3"])).unwrap();
        if let Ok(stream) = connect(&address, Some(Duration::from_secs(5))) {
            let end = stream.recv(&mut [0; 1], Wait::Block);
            assert!(matches!(end, Ok(0) | Err(_)));
        }
        assert_eq!(child.ended(Duration::from_secs(60)).and_then(|status| status.code()), Some(3));
        assert_eq!((child.program(), child.id()), ("sh", None));
    }
}
