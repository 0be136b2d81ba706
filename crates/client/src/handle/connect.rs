//! Ways to a server, and servers that are started for a handle.

use super::{
    Fault, Handle, Outcome, Phase, State, When,
    fault::{errno, reason},
};
use net::{Address, Connecting, Progress, Stream};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{self, Command},
};

/// A server that was started.
pub(super) enum Started {
    /// It has the connection as its standard input and output, and ends by itself when that ends.
    Command(process::Child),
    /// It has a listening socket, and would listen forever: it is told to end.
    Activated(net::Child),
}

impl Started {
    fn pid(&self) -> Option<Pid> {
        match self {
            Started::Command(child) => Pid::from_raw(child.id() as i32),
            Started::Activated(child) => child.id().and_then(|id| Pid::from_raw(id as i32)),
        }
    }
}

impl Drop for Handle {
    /// The connection first: the server may be waiting for its end.
    fn drop(&mut self) {
        self.commands.clear();
        self.output.clear();
        self.stream = None;
        if let Some(Started::Command(mut child)) = self.started.take() {
            let _ = child.wait(); // its status has no reader
        }
    }
}

/// A port by number or by the name of a service.
fn port(text: &str) -> Outcome<u16> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let services = fs::read_to_string("/etc/services").unwrap_or_default();
    let known = services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, number) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (name == text || words.any(|alias| alias == text)).then(|| number.parse().ok())?
    });
    match known {
        Some(number) => Ok(number),
        None if text == "nbd" => Ok(proto::limits::PORT),
        None => Err(Fault::new(0, format!("{text}: neither a port number nor a known service"))),
    }
}

impl Handle {
    /// Begin to connect. [`Handle::pump`](Handle::poll) on until the state is another one.
    ///
    /// # Errors
    /// It is connected already; or what the system said at once.
    pub fn aio_connect(&mut self, address: Address) -> Outcome<()> {
        self.need(When::Created)?;
        let begun = Connecting::begin(&address);
        self.address = Some(address);
        match begun {
            Err(e) => Err(self.unreachable(&e)),
            Ok(connecting) => {
                self.phase = Phase::Connecting(connecting);
                self.pump()
            }
        }
    }

    /// As [`Handle::aio_connect`], to a host and a port or service by their names.
    ///
    /// # Errors
    /// As there; and a service that is not known.
    pub fn aio_connect_tcp(&mut self, host: &str, service: &str) -> Outcome<()> {
        self.need(When::Created)?;
        self.aio_connect(Address::Tcp { host: host.to_owned(), port: port(service)? })
    }

    /// Over TCP another attempt may be made with the same handle.
    fn unreachable(&mut self, e: &io::Error) -> Fault {
        let (place, phase) = match &self.address {
            Some(address @ Address::Tcp { .. }) => (address.to_string(), Phase::Created),
            Some(address) => (address.to_string(), Phase::Dead),
            None => (String::new(), Phase::Dead),
        };
        self.phase = phase;
        Fault::system(&format!("{place}: cannot connect"), e)
    }

    pub(super) fn connect_on(&mut self) -> Outcome<()> {
        let Phase::Connecting(connecting) = std::mem::replace(&mut self.phase, Phase::Dead) else {
            return Ok(());
        };
        match connecting.progress() {
            Err(e) => Err(self.unreachable(&e)),
            Ok(Progress::Waiting(connecting)) => {
                self.phase = Phase::Connecting(connecting);
                Ok(())
            }
            Ok(Progress::Connected(stream)) => {
                // As every client here does: a peer that vanished is noticed some day.
                let _ = stream.set_keepalive(true);
                self.greet(stream)
            }
        }
    }

    /// Go on with a connected socket.
    ///
    /// # Errors
    /// It is none, or the handle has another one.
    pub fn aio_connect_socket(&mut self, socket: OwnedFd) -> Outcome<()> {
        self.need(When::Created)?;
        let stream = Stream::from_socket(socket).map_err(|e| Fault::system("it cannot be used", &e))?;
        self.greet(stream).map_err(|fault| self.die(fault))
    }

    /// Start a program that speaks NBD on its standard input and output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn aio_connect_command(&mut self, command: &[String]) -> Outcome<()> {
        self.need(When::Created)?;
        let Some((program, arguments)) = command.split_first() else {
            return Err(Fault::invalid("there is no command to run"));
        };
        let started = UnixStream::pair().and_then(|(near, far)| {
            let input = OwnedFd::from(far.try_clone()?);
            let child =
                Command::new(program).args(arguments).stdin(input).stdout(OwnedFd::from(far)).spawn()?;
            Ok((near, child))
        });
        let (near, child) =
            started.map_err(|e| Fault::system(&format!("{program}: cannot be started"), &e))?;
        self.started = Some(Started::Command(child));
        self.aio_connect_socket(near.into())
    }

    /// Start a server by socket activation. It is told to end with the handle.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn aio_connect_activated(&mut self, command: &[String]) -> Outcome<()> {
        self.need(When::Created)?;
        if command.is_empty() {
            return Err(Fault::invalid("there is no command to run"));
        }
        let name = Some(&*self.settings.activation_name).filter(|name| !name.is_empty());
        let (child, address) = net::socket_activation_named(command, name).map_err(|e| {
            let errno = match e.kind() {
                io::ErrorKind::NotFound => errno::ENOENT,
                io::ErrorKind::PermissionDenied => errno::EACCES,
                _ => 0,
            };
            let text = e.to_string();
            let bare = text.strip_suffix(&format!(": {}", reason(errno))).unwrap_or(&text);
            Fault::new(errno, bare.to_owned())
        })?;
        self.started = Some(Started::Activated(child));
        self.aio_connect(address)
    }

    /// As [`Handle::aio_connect`], to a unix domain socket.
    ///
    /// # Errors
    /// As there.
    pub fn aio_connect_unix(&mut self, path: PathBuf) -> Outcome<()> {
        self.aio_connect(Address::Unix(path))
    }

    /// Pump until the connection can be used, or options can be asked.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connected(&mut self) -> Outcome<()> {
        while self.state() == State::Connecting {
            self.poll(-1)?;
        }
        Ok(())
    }

    /// Whether somebody knows how to reach the server again.
    pub fn address(&self) -> Option<&Address> {
        match self.started {
            Some(Started::Command(_)) => None,
            _ => self.address.as_ref(),
        }
    }

    /// The process id of a server that was started.
    ///
    /// # Errors
    /// ESRCH: none was, or it has ended.
    pub fn subprocess(&self) -> Outcome<i32> {
        let pid = self.started.as_ref().and_then(Started::pid);
        let none = || Fault::new(errno::ESRCH, "no server was started, or it has ended");
        pid.map(Pid::as_raw_pid).ok_or_else(none)
    }

    /// Send a signal to a server that was started; 0 stands for SIGTERM.
    ///
    /// # Errors
    /// ESRCH as [`Handle::subprocess`], EINVAL: no such signal.
    pub fn kill_subprocess(&mut self, signal: i32) -> Outcome<()> {
        let pid = self.subprocess()?;
        let signal = match signal {
            0 => Some(Signal::TERM),
            number => Signal::from_named_raw(number),
        };
        let signal = signal.ok_or_else(|| Fault::invalid("there is no such signal"))?;
        if let Some(Started::Command(child)) = &mut self.started
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            // Reaped: the number may be somebody else's by now.
            return Ok(());
        }
        let killed = Pid::from_raw(pid).map_or(Ok(()), |pid| kill_process(pid, signal));
        killed.map_err(|e| Fault::new(e.raw_os_error(), "the server cannot be signalled"))
    }
}
