//! Servers that live as long as their test.

use crate::run::Run;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing takes that long, not even where many tests share one slow processor.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child and all that it starts, ended with this value.
pub struct Process {
    child: Child,
    group: Pid,
}

impl Process {
    /// Starts it in a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command, words: &str) -> Process {
        let child = command.process_group(0).spawn().unwrap_or_else(|e| panic!("`{words}`: {e}"));
        let group = Pid::from_child(&child);
        Process { child, group }
    }

    /// Its standard input and output, which must be pipes and can be had once.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let pipes = (self.child.stdin.take(), self.child.stdout.take());
        (pipes.0.expect("a pipe"), pipes.1.expect("a pipe"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it does within this time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        let mut nap = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(5));
        }
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever it left in its group goes as well.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A server, ours or a peer's, on a socket in a directory of its own.
pub struct Server {
    /// The process itself.
    pub process: Process,
    directory: TempDir,
    words: String,
}

impl Server {
    /// Our own `serve`, with these arguments separated by spaces.
    pub fn ours(arguments: &str) -> Server {
        Server::start(|socket| Run::diskpipe().words("serve -f -U").arg(socket).words(arguments))
    }

    /// The peer whose grammar we share.
    pub fn nbdkit(arguments: &str) -> Server {
        Server::start(|socket| Run::new("nbdkit").words("-f -U").arg(socket).words(arguments))
    }

    /// QEMU's, for as many clients as come.
    pub fn qemu(arguments: &str) -> Server {
        Server::start(|socket| {
            Run::new("qemu-nbd").words("--persistent --shared=16 --socket").arg(socket).words(arguments)
        })
    }

    /// The oldest one, with the sections of its configuration that describe exports. `None`: it cannot be run here, which
    /// was said.
    ///
    /// It stays in a process namespace of its own: as a daemon it has been seen to kill more than itself.
    pub fn nbd_server(exports: &str) -> Option<Server> {
        let confine = ["--pid", "--fork", "--mount-proc", "--kill-child"];
        if !Run::new("unshare").args(confine).arg("true").end().status.success() {
            crate::skip("needs root, to give nbd-server a process namespace");
            return None;
        }
        Some(Server::start(|socket| {
            let generic = format!("[generic]\nunixsock = {}\nallowlist = true\n", socket.display());
            let config = socket.with_file_name("config");
            fs::write(&config, format!("{generic}{exports}")).expect("its configuration can be written");
            let script = r#"nbd-server -C "$1" -p "$1.pid"; sleep 300"#;
            Run::new("unshare").args(confine).args(["sh", "-c", script, "sh"]).arg(&config)
        }))
    }

    /// QEMU's other one, with a file as its export `disk`.
    pub fn storage_daemon(file: &Path) -> Server {
        Server::start(|socket| {
            Run::new("qemu-storage-daemon")
                .arg("--blockdev")
                .arg(format!("driver=file,node-name=disk,discard=unmap,filename={}", file.display()))
                .arg("--nbd-server")
                .arg(format!("addr.type=unix,max-connections=0,addr.path={}", socket.display()))
                .words("--export type=nbd,id=e,node-name=disk,name=disk,writable=on")
        })
    }

    /// Whatever serves on the socket that it is given.
    ///
    /// # Panics
    /// When it does not, within a minute.
    pub fn start(command: impl FnOnce(&Path) -> Run) -> Server {
        let directory = crate::directory();
        let socket = directory.path().join("socket");
        let mut run = command(&socket);
        let log = File::create(directory.path().join("log")).expect("the log can be made");
        run.command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let process = Process::start(&mut run.command, &run.words);
        let mut server = Server { process, directory, words: run.words };
        server.until("clients can connect", |server| match server.process.wait(Duration::ZERO) {
            Some(status) => panic!("`{}`: {status}\n{}", server.words, server.log()),
            // Looked for, not tried: some serve their first client only.
            None => listens(&socket),
        });
        server
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The URI of its default export.
    pub fn uri(&self) -> String {
        self.uri_of("")
    }

    /// The URI of an export.
    pub fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    /// A raw connection.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        stream
    }

    /// What it has said until now.
    pub fn log(&self) -> String {
        fs::read(self.directory.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.count("task")
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        self.count("fd")
    }

    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.process.id())).map_or(0, Iterator::count)
    }

    /// Waits for something to become true.
    ///
    /// # Panics
    /// When it does not, within a minute.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Server) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "`{}`: not within {PATIENCE:?}: {what}\n{}",
                self.words,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to end, and takes how it did and all that it said.
    pub fn stop(mut self) -> (Option<ExitStatus>, String) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(PATIENCE);
        (status, self.log())
    }
}

/// Whether somebody listens there, by the kernel's own list: flag 10000 is `__SO_ACCEPTCON`.
pub fn listens(socket: &Path) -> bool {
    let socket = socket.to_string_lossy();
    fs::read_to_string("/proc/net/unix")
        .is_ok_and(|list| list.lines().any(|line| line.contains(" 00010000 ") && line.ends_with(&*socket)))
}
