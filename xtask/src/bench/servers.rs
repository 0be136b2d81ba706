//! The servers that are compared: ours and the installed peers, each with a disk of the same size.

use super::load::{Ask, Target};
use crate::{packages, run};
use anyhow::{Context, Result, bail};
use net::Address;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// In MiB: more than the processor's caches, less than anybody's memory.
const SIZE: u64 = 256;

/// What holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Memory,
    File,
}

/// Makes a command line.
type Start = dyn Fn(&Place) -> Vec<String>;

/// A server, as it is started.
pub(super) struct Kind {
    pub(super) name: String,
    pub(super) store: Store,
    /// What must be installed for it.
    program: &'static str,
    /// The command, given where its files are and what to listen on.
    command: Box<Start>,
    export: &'static str,
    /// All of the disk is written to first.
    filled: bool,
    /// What clients need, where it speaks nothing but TLS.
    tls: Option<net::tls::Client>,
}

/// Where a server's files and its socket are.
pub(super) struct Place {
    dir: PathBuf,
    port: Option<u16>,
    file: PathBuf,
}

impl Place {
    fn socket(&self) -> String {
        self.dir.join("socket").display().to_string()
    }
    fn file(&self) -> String {
        self.file.display().to_string()
    }
    /// As nbdkit's grammar has it, which is ours.
    fn listen(&self) -> Vec<String> {
        match self.port {
            Some(port) => vec!["-i".into(), "127.0.0.1".into(), "-p".into(), port.to_string()],
            None => vec!["-U".into(), self.socket()],
        }
    }
    /// What a plugin is given to serve.
    fn plugin(&self, store: Store) -> Vec<String> {
        match store {
            Store::Memory => vec!["memory".into(), format!("{SIZE}M")],
            Store::File => vec!["file".into(), self.file()],
        }
    }
}

impl Kind {
    fn new(name: &str, store: Store, command: impl Fn(&Place) -> Vec<String> + 'static) -> Kind {
        let filled = store == Store::Memory;
        let (name, command) = (name.into(), Box::new(command));
        Kind { name, store, program: "sh", command, export: "", filled, tls: None }
    }

    /// The limit, see [`super::echo`].
    pub(super) fn echo(store: Store) -> Kind {
        Kind::new("limit", store, move |place| {
            let program = run::target_dir().join("release/xtask").display().to_string();
            // The standard library's memory in huge pages, as far as the allocator's knobs reach.
            let mut command = words(&[
                "env",
                "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
                &program,
                "bench",
                "--measuring",
                "--echo",
            ]);
            command.push(match store {
                Store::Memory => format!("{SIZE}M"),
                Store::File => place.file(),
            });
            command.push("--at".into());
            command.push(place.port.map_or_else(|| place.socket(), |port| port.to_string()));
            command
        })
    }

    pub(super) fn nbdkit(store: Store) -> Kind {
        let command =
            move |place: &Place| [words(&["nbdkit", "-f"]), place.listen(), place.plugin(store)].concat();
        Kind { program: "nbdkit", ..Kind::new("nbdkit", store, command) }
    }

    /// nbdkit with any plugin.
    pub(super) fn plugin(plugin: Vec<String>) -> Kind {
        let command =
            move |place: &Place| [words(&["nbdkit", "-f"]), place.listen(), plugin.clone()].concat();
        Kind { program: "nbdkit", filled: false, ..Kind::new("nbdkit", Store::Memory, command) }
    }

    pub(super) fn diskpipe(store: Store) -> Kind {
        Kind::filtered("diskpipe", store, &[], &[])
    }

    /// Ours, with filters and what these want to know; `LOG` is a file of its own.
    pub(super) fn filtered(name: &str, store: Store, filters: &[&str], params: &[&str]) -> Kind {
        let (filters, params) = (words(filters), words(params));
        Kind::new(name, store, move |place| {
            let filters = filters.iter().map(|filter| format!("--filter={filter}")).collect();
            let ours = vec![diskpipe(), "serve".into(), "-f".into()];
            let own = place.dir.join("log").display().to_string();
            let params = params.iter().map(|param| param.replace("LOG", &own)).collect();
            [ours, place.listen(), filters, place.plugin(store), params].concat()
        })
    }

    /// With further words at the end of its command, as ours and nbdkit allow it, for such clients only.
    pub(super) fn over_tls(self, words: Vec<String>, client: net::tls::Client) -> Kind {
        let before = self.command;
        let command = Box::new(move |place: &Place| [before(place), words.clone()].concat());
        Kind { command, tls: Some(client), ..self }
    }

    /// With all of the disk written to through it.
    pub(super) fn filled(self) -> Kind {
        Kind { filled: true, ..self }
    }

    pub(super) fn qemu_nbd() -> Kind {
        let command = |place: &Place| {
            let listen = match place.port {
                Some(port) => vec!["-b".into(), "127.0.0.1".into(), "-p".into(), port.to_string()],
                None => vec!["-k".into(), place.socket()],
            };
            [words(&["qemu-nbd", "-f", "raw", "-t", "-e", "16"]), listen, vec![place.file()]].concat()
        };
        Kind { program: "qemu-nbd", ..Kind::new("qemu-nbd", Store::File, command) }
    }

    /// It goes to the background by itself, and as root it must be in a process namespace of its own: there it ends,
    /// with all its children, when the namespace's first process is killed.
    pub(super) fn nbd_server() -> Kind {
        let command = |place: &Place| {
            let config = place.dir.join("nbd-server.conf").display().to_string();
            let script = format!("nbd-server -C {config} -p {config}.pid; exec sleep 1000");
            words(&["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script])
        };
        Kind { program: "nbd-server", export: "disk", ..Kind::new("nbd-server", Store::File, command) }
    }
}

pub(super) fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn diskpipe() -> String {
    run::target_dir().join("release/diskpipe").display().to_string()
}

/// A server that runs; it is killed when this is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) target: Target,
    dir: tempfile::TempDir,
    _image: Option<Image>,
}

/// A file with data all over; it goes with its last user.
#[derive(Clone)]
pub(super) struct Image(Arc<tempfile::TempDir>);

impl Image {
    fn new() -> Result<Image> {
        let image = Image(Arc::new(scratch()?));
        fill_file(&image.path())?;
        Ok(image)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("disk.raw")
    }
}

impl Server {
    /// Starts one of its own.
    pub(super) fn start(kind: &Kind) -> Result<Server> {
        Server::beside(kind, false, &mut None)
    }

    /// Starts one of several. All files are one: where its pages happen to lie makes a difference of a third.
    pub(super) fn beside(kind: &Kind, tcp: bool, image: &mut Option<Image>) -> Result<Server> {
        if !packages::is_installed(kind.program) {
            bail!("{} is not installed", kind.program);
        }
        let dir = scratch()?;
        let port = if tcp { Some(free_port()?) } else { None };
        let image = match image {
            Some(image) => Some(image.clone()),
            None if kind.store == Store::File => Some(image.insert(Image::new()?).clone()),
            None => None,
        };
        let file = image.as_ref().map(Image::path).unwrap_or_default();
        let place = Place { dir: dir.path().to_owned(), port, file };
        if kind.program == "nbd-server" {
            let listen = match port {
                Some(port) => format!("listenaddr = 127.0.0.1\n\tport = {port}"),
                None => format!("unixsock = {}", place.socket()),
            };
            let text = format!("[generic]\n\t{listen}\n[disk]\n\texportname = {}\n", place.file());
            fs::write(place.dir.join("nbd-server.conf"), text)?;
        }
        let command = (kind.command)(&place);
        let log = fs::File::create(place.dir.join("errors"))?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", kind.name))?;
        let address = match port {
            Some(port) => Address::Tcp { host: "127.0.0.1".into(), port },
            None => Address::Unix(place.socket().into()),
        };
        let target = Target { address, export: kind.export.into(), structured: false, tls: kind.tls.clone() };
        let mut server = Server { child, target, dir, _image: image };
        server.wait_until_it_answers().with_context(|| {
            let log = fs::read_to_string(place.dir.join("errors")).unwrap_or_default();
            format!("{} does not answer; it said: {}", kind.name, log.trim())
        })?;
        if kind.filled {
            super::load::fill(&server.target)?;
        }
        Ok(server)
    }

    /// As other tools name it.
    pub(super) fn uri(&self) -> String {
        match &self.target.address {
            Address::Unix(path) => format!("nbd+unix:///?socket={}", path.display()),
            other => other.to_string(),
        }
    }

    /// Empties the file that is its log, if it has one.
    pub(super) fn forget_log(&self) -> Result<()> {
        let log = self.dir.path().join("log");
        match fs::File::options().write(true).open(log) {
            Ok(file) => Ok(file.set_len(0)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.target.open(Ask::Connect) {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > Duration::from_secs(10) => return Err(e),
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
pub(super) fn scratch() -> Result<tempfile::TempDir> {
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
