//! The servers that are compared: ours and the installed peers, each with a disk of the same size.

use super::load::Target;
use crate::{packages, run};
use anyhow::{Context, Result, bail};
use net::Address;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// In MiB: more than the processor's caches, less than anybody's memory.
const SIZE: u64 = 256;

/// What holds the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Memory,
    File,
}

/// A server, as it is started.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) store: Store,
    /// What must be installed for it.
    pub(super) program: &'static str,
    /// The command, given the directory and either a unix socket or a TCP port.
    command: fn(&Place) -> Vec<String>,
    pub(super) export: &'static str,
}

/// Where a server's files and its socket are.
pub(super) struct Place {
    dir: PathBuf,
    port: Option<u16>,
}

impl Place {
    fn socket(&self) -> String {
        self.dir.join("socket").display().to_string()
    }
    fn file(&self) -> String {
        self.dir.join("disk.raw").display().to_string()
    }
    /// As nbdkit's grammar has it, which is ours.
    fn listen(&self) -> Vec<String> {
        match self.port {
            Some(port) => vec!["-i".into(), "127.0.0.1".into(), "-p".into(), port.to_string()],
            None => vec!["-U".into(), self.socket()],
        }
    }
}

/// All, the one that ratios are to first for each store.
pub(super) const KINDS: &[Kind] = &[
    Kind { name: "nbdkit", store: Store::Memory, program: "nbdkit", command: nbdkit_memory, export: "" },
    Kind { name: "diskpipe", store: Store::Memory, program: "sh", command: diskpipe_memory, export: "" },
    Kind { name: "nbdkit", store: Store::File, program: "nbdkit", command: nbdkit_file, export: "" },
    Kind { name: "diskpipe", store: Store::File, program: "sh", command: diskpipe_file, export: "" },
    Kind { name: "qemu-nbd", store: Store::File, program: "qemu-nbd", command: qemu_nbd, export: "" },
    Kind {
        name: "nbd-server",
        store: Store::File,
        program: "nbd-server",
        command: nbd_server,
        export: "disk",
    },
];

fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().iter().map(|word| (*word).to_owned()).collect()
}

fn served(program: &[&str], place: &Place, plugin: &[&str]) -> Vec<String> {
    let mut command = words(&[program, &["-f"]]);
    command.extend(place.listen());
    command.extend(words(&[plugin]));
    command
}

fn diskpipe() -> String {
    run::target_dir().join("release/diskpipe").display().to_string()
}

fn nbdkit_memory(place: &Place) -> Vec<String> {
    served(&["nbdkit"], place, &["memory", &format!("{SIZE}M")])
}

fn diskpipe_memory(place: &Place) -> Vec<String> {
    served(&[&diskpipe(), "serve"], place, &["memory", &format!("{SIZE}M")])
}

fn nbdkit_file(place: &Place) -> Vec<String> {
    served(&["nbdkit"], place, &["file", &place.file()])
}

fn diskpipe_file(place: &Place) -> Vec<String> {
    served(&[&diskpipe(), "serve"], place, &["file", &place.file()])
}

fn qemu_nbd(place: &Place) -> Vec<String> {
    let port = place.port.map(|port| port.to_string());
    let socket = place.socket();
    let listen = match &port {
        Some(port) => vec!["-b", "127.0.0.1", "-p", port],
        None => vec!["-k", &socket],
    };
    words(&[&["qemu-nbd", "-f", "raw", "-t", "-e", "16"], &listen, &[&place.file()]])
}

/// It goes to the background by itself, and as root it must be in a process namespace of its own: there it ends,
/// with all its children, when the namespace's first process is killed.
fn nbd_server(place: &Place) -> Vec<String> {
    let config = place.dir.join("nbd-server.conf").display().to_string();
    let script = format!("nbd-server -C {config} -p {config}.pid; exec sleep 1000");
    words(&[&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script]])
}

/// A server that runs; it is killed when this is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) target: Target,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(super) fn start(kind: &Kind, tcp: bool) -> Result<Server> {
        if !packages::is_installed(kind.program) {
            bail!("{} is not installed", kind.program);
        }
        let dir = scratch()?;
        let port = if tcp { Some(free_port()?) } else { None };
        let place = Place { dir: dir.path().to_owned(), port };
        if kind.store == Store::File {
            fill_file(Path::new(&place.file()))?;
        }
        if kind.program == "nbd-server" {
            let listen = match port {
                Some(port) => format!("listenaddr = 127.0.0.1\n\tport = {port}"),
                None => format!("unixsock = {}", place.socket()),
            };
            let text = format!("[generic]\n\t{listen}\n[disk]\n\texportname = {}\n", place.file());
            fs::write(place.dir.join("nbd-server.conf"), text)?;
        }
        let command = (kind.command)(&place);
        let log = fs::File::create(place.dir.join("log"))?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", kind.name))?;
        let address = match port {
            Some(port) => Address::Tcp { host: "127.0.0.1".into(), port },
            None => Address::Unix(place.socket().into()),
        };
        let mut server = Server { child, target: Target { address, export: kind.export.into() }, _dir: dir };
        server.wait_until_it_answers().with_context(|| {
            let log = fs::read_to_string(place.dir.join("log")).unwrap_or_default();
            format!("{} does not answer; it said: {}", kind.name, log.trim())
        })?;
        if kind.store == Store::Memory {
            super::load::fill(&server.target)?;
        }
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.target.open() {
                Ok(client) => return Ok(client.close()?),
                Err(e) if start.elapsed() > Duration::from_secs(10) => return Err(e.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory in memory, if there is such: the servers are compared, not the medium and its write-back.
fn scratch() -> Result<tempfile::TempDir> {
    let shared = Path::new("/dev/shm");
    Ok(if shared.is_dir() { tempfile::tempdir_in(shared)? } else { tempfile::tempdir()? })
}

/// A port that is free now; nobody else is likely to take it within a moment.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn fill_file(path: &Path) -> Result<()> {
    let mut file = fs::File::create(path)?;
    let block = vec![0x5A; 1 << 20];
    for _ in 0..SIZE {
        file.write_all(&block)?;
    }
    Ok(())
}
