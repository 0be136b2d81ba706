//! Disks that tell clients something about themselves or about the server.

use disk::{Backend, Client, Data, Disk, Errno, Error, Facts, Io, Peer, Plugin, Range, Result};
use params::{Choice, Params};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Serve what is known of the client and the server, as a disk.
#[derive(Params)]
pub(crate) struct Info {
    /// What the disk holds.
    #[param(magic, default = "exportname")]
    mode: Mode,
}

#[derive(Clone, Copy, Choice, PartialEq, Eq)]
enum Mode {
    /// The export's name.
    Exportname,
    /// What the export's name says in base64.
    Base64exportname,
    /// The client's address.
    Address,
    /// The time of day.
    Time,
    /// How long the server has run.
    Uptime,
    /// How long the client has been there.
    Conntime,
    /// The server's version.
    Version,
}

impl Plugin for Info {
    const NAME: &'static str = "info";
    const MANUAL: &'static str = include_str!("info.md");
    const DUMP: &'static [(&'static str, &'static str)] = &[("info_address", "yes"), ("info_base64", "yes")];

    fn start(self) -> Result<impl Backend + 'static> {
        Ok(InfoBackend { mode: self.mode, start: Instant::now() })
    }
}

struct InfoBackend {
    mode: Mode,
    start: Instant,
}

impl InfoBackend {
    fn open_now(&self, client: &Client<'_>) -> Result<Content> {
        let text = |text: &str| Content::Fixed(Data::copy_from(text.as_bytes()));
        Ok(match self.mode {
            Mode::Exportname => text(client.export),
            Mode::Base64exportname => {
                let decoded = crate::data::decode_base64(client.export);
                let why = |e| Error::new(Errno::NOENT, format!("the export's name is not base64: {e}"));
                Content::Fixed(Data::copy_from(&decoded.map_err(why)?))
            }
            Mode::Address => text(&address(&client.peer)?),
            Mode::Version => text(env!("CARGO_PKG_VERSION")),
            Mode::Time => Content::Now,
            Mode::Uptime => Content::Since(self.start),
            Mode::Conntime => Content::Since(Instant::now()),
        })
    }
}

/// As people write it. Of Unix sockets only that they are: their paths are nobody's business.
fn address(peer: &Peer) -> Result<String> {
    match peer {
        Peer::Ip(SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => Ok(SocketAddr::new(v4.into(), v6.port()).to_string()),
            None => Ok(SocketAddr::V6(*v6).to_string()),
        },
        Peer::Ip(v4) => Ok(v4.to_string()),
        Peer::Unix { .. } => Ok("unix".to_owned()),
        Peer::Vsock { cid, port } => Ok(format!("{cid}:{port}")),
        Peer::Unknown => Err(Error::new(Errno::NOTSUP, "the client came by no socket, so it has no address")),
    }
}

impl Backend for InfoBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        self.open_now(client).map(|content| Arc::new(InfoDisk::new(content, self.mode)) as _).into()
    }
}

enum Content {
    Fixed(Data),
    /// The time of day when it is read.
    Now,
    /// The time that has passed when it is read.
    Since(Instant),
}

/// Seconds (8 bytes) and microseconds (4 bytes), the highest byte first.
const TIME: u64 = 12;

struct InfoDisk {
    facts: Facts,
    content: Content,
}

impl InfoDisk {
    fn new(content: Content, mode: Mode) -> InfoDisk {
        let size = match &content {
            Content::Fixed(data) => data.len(),
            _ => TIME,
        };
        // Only what is the same for every connection may be read through several.
        let multi_conn = matches!(mode, Mode::Exportname | Mode::Base64exportname | Mode::Version);
        InfoDisk { facts: Facts { cache: true, multi_conn, ..Facts::read_only(size) }, content }
    }
}

impl Disk for InfoDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, range: Range) -> Io<'_, Data> {
        let passed = match &self.content {
            Content::Fixed(data) => return Io::ok(data.slice(range.start, range.len)),
            Content::Now => {
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
            }
            Content::Since(start) => start.elapsed(),
        };
        let bytes = [&passed.as_secs().to_be_bytes()[..], &passed.subsec_micros().to_be_bytes()].concat();
        Io::ok(Data::copy_from(&bytes[range.start as usize..range.end() as usize]))
    }
    fn cache(&self, _: Range) -> Io<'_, ()> {
        Io::ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use params::Args;

    fn open(mode: &str, client: &Client<'_>) -> Result<Vec<u8>> {
        let info = Info::parse(&mut Args::new([("mode", mode)]))?.start()?;
        let disk = info.open(client).wait()?;
        Ok(if disk.facts().size == 0 { vec![] } else { disk.read(disk.facts().whole()).wait()?.to_vec() })
    }

    #[test]
    fn names_become_disks_as_they_are_or_decoded() {
        for name in ["", "hello", "a b/é"] {
            assert_eq!(open("exportname", &Client::local(name)).unwrap(), name.as_bytes());
        }
        assert_eq!(open("base64exportname", &Client::local("AAECVao=\n")).unwrap(), [0, 1, 2, 0x55, 0xaa]);
        let error = open("base64exportname", &Client::local("hello")).unwrap_err();
        assert!(error.errno() == Errno::NOENT && error.to_string().contains("not base64"), "{error}");
        assert_eq!(open("version", &Client::local("x")).unwrap(), env!("CARGO_PKG_VERSION").as_bytes());
    }

    #[test]
    fn addresses_are_written_as_usual() {
        let from = |peer| {
            String::from_utf8(open("address", &Client { peer, ..Client::default() }).unwrap()).unwrap()
        };
        let ip = |text: &str| Peer::Ip(text.parse().unwrap());
        assert_eq!(from(ip("127.0.0.1:5")), "127.0.0.1:5");
        assert_eq!(from(ip("[::1]:58912")), "[::1]:58912");
        assert_eq!(from(ip("[::ffff:10.0.0.1]:9")), "10.0.0.1:9");
        assert_eq!(from(Peer::Unix { pid: None, uid: None, gid: None }), "unix");
        assert!(open("address", &Client::local("")).is_err());
    }

    #[test]
    fn times_go_on_from_read_to_read() {
        let seconds = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
        assert!(seconds(&open("time", &Client::local("")).unwrap()) > 1_700_000_000);
        for mode in ["uptime", "conntime"] {
            let info = Info::parse(&mut Args::new([("mode", mode)])).unwrap().start().unwrap();
            let disk = info.open(&Client::local("")).wait().unwrap();
            let first = disk.read(disk.facts().whole()).wait().unwrap().to_vec();
            std::thread::sleep(Duration::from_millis(2));
            let later = disk.read(Range::new(8, 4)).wait().unwrap().to_vec();
            assert!(seconds(&first) < 3600 && first.len() == 12 && later != first[8..], "{mode}");
        }
    }
}
