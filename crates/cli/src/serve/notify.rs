//! Tells the service manager how the server is: sd_notify(3), by the variable NOTIFY_SOCKET.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if one wants to know.
#[derive(Clone, Default)]
pub(crate) struct Manager(Option<OsString>);

impl Manager {
    /// The one that this process was started with.
    pub(crate) fn of_environment() -> Manager {
        Manager(std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()))
    }

    /// Clients can connect. The process may be another one than was started.
    pub(crate) fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS=Serving", std::process::id()));
    }

    /// The configuration is read again; `ready` follows.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The server is ending.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Answering what is under way");
    }

    /// A manager that cannot be told is none of the clients' concern.
    fn tell(&self, state: &str) {
        if let Some(socket) = &self.0 {
            let _ = send(socket, state);
        }
    }
}

fn send(to: &OsStr, state: &str) -> io::Result<()> {
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // Better to say nothing than to hang on a manager that does not listen.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("diskpipe-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            let manager = Manager(Some(address));
            let mut room = [0; 200];
            let mut told = || {
                let n = socket.recv(&mut room).unwrap();
                String::from_utf8(room[..n].to_vec()).unwrap()
            };
            manager.ready();
            assert!(told().starts_with(&format!("READY=1\nMAINPID={}\n", std::process::id())));
            manager.reloading();
            assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
            manager.stopping();
            assert!(told().starts_with("STOPPING=1\n"));
        }
        Manager(Some("/no/such/socket".into())).ready();
        Manager(None).ready();
    }
}
