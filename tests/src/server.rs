//! Servers that live as long as their test.

use crate::run::{kill_group, program};
use std::{
    fs::File,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

/// A server on a unix socket; it ends when this is dropped.
pub struct Served {
    child: Child,
    dir: tempfile::TempDir,
    /// Its socket.
    pub socket: PathBuf,
    /// The NBD URI of its default export.
    pub uri: String,
}

/// Serves with our own binary: `serve(&["memory", "1M"])`.
///
/// # Panics
/// When the server does not come up within ten seconds, with what it said.
pub fn serve(args: &[&str]) -> Served {
    start("diskpipe", |socket| {
        let own = ["serve", "-f", "-U", socket].map(str::to_owned);
        own.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    })
}

/// Serves with another program; in its arguments `{socket}` stands for the path of the socket.
///
/// # Panics
/// When the server does not come up within ten seconds, with what it said.
pub fn peer(name: &str, args: &[&str]) -> Served {
    start(name, |socket| args.iter().map(|arg| arg.replace("{socket}", socket)).collect())
}

fn start(name: &str, args: impl FnOnce(&str) -> Vec<String>) -> Served {
    let dir = crate::scratch();
    let socket = dir.path().join("socket");
    let args = args(socket.to_str().expect("temporary directories have plain names"));
    let log = File::create(dir.path().join("log")).expect("a log file");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = program(name, &args);
    command.stdout(log.try_clone().expect("a second handle")).stderr(log).process_group(0);
    let child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let mut served = Served { child, dir, socket, uri };
    served.wait_until_it_listens(name);
    served
}

impl Served {
    fn wait_until_it_listens(&mut self, name: &str) {
        let start = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            let waited = start.elapsed() > Duration::from_secs(10);
            assert!(
                ended.is_none() && !waited,
                "{name} does not listen ({ended:?}); it said:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that the server has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A directory that lives as long as the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        kill_group(&self.child);
        let _ = self.child.wait();
    }
}
