//! Bytes to and from our server, in the clear and over TLS: whatever a test does to one it can do to the other.

use crate::{PATIENCE, Run, Server};
use net::{How, Stream, Wait, tls};
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the clear.
    Plain,
    /// Over TLS, with a key that both know.
    Tls,
}

/// Sent as it is to a server that has greeted.
const FLAGS: &[u8] = b"\0\0\0\x03";

/// Where a key is, made once and kept beside the build.
fn keys() -> &'static Path {
    static KEYS: OnceLock<PathBuf> = OnceLock::new();
    KEYS.get_or_init(|| {
        let place = crate::target_directory().join("tmp");
        let kept = place.join("e2e-keys-1");
        if !kept.exists() {
            fs::create_dir_all(&place).expect("a directory beside the build");
            let fresh = tempfile::tempdir_in(&place).expect("a directory beside the build").keep();
            Run::diskpipe().args(["keygen", "psk", "--user", "alice"]).arg(&fresh).end().good();
            // Another test may have been faster. Its key is as good.
            if fs::rename(&fresh, &kept).is_err() {
                let _ = fs::remove_dir_all(&fresh);
            }
        }
        kept
    })
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Plain, Way::Tls];

    /// What our `serve` is told.
    pub fn options(self) -> String {
        match self {
            Way::Plain => String::new(),
            Way::Tls => format!("--tls=require --tls-psk={}/keys.psk", keys().display()),
        }
    }

    /// Our own `serve`, with these arguments separated by spaces.
    pub fn server(self, arguments: &str) -> Server {
        Server::ours(&format!("{} {arguments}", self.options()))
    }

    /// What clients of others and our own are told.
    pub fn uri(self, server: &Server) -> String {
        let socket = server.socket();
        match self {
            Way::Plain => server.uri(),
            Way::Tls => format!(
                "nbds+unix://alice@/?socket={}&tls-psk-file={}/keys.psk",
                socket.display(),
                keys().display()
            ),
        }
    }

    /// A client whose next words are options: both ends have greeted, and encryption, if there is to be any, has begun.
    ///
    /// # Panics
    /// When the server does anything else.
    pub fn connect(self, server: &Server) -> Wire {
        let mut wire = Wire::raw(server);
        let mut greeting = [0; 18];
        wire.read_exact(&mut greeting).expect("the server greets");
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        wire.write_all(FLAGS).expect("the server listens");
        if self == Way::Tls {
            let mut reply = [0; 20];
            wire.write_all(b"IHAVEOPT\0\0\0\x05\0\0\0\0").expect("the server listens");
            wire.read_exact(&mut reply).expect("the server answers");
            assert_eq!(reply[12..16], [0, 0, 0, 1], "TLS may begin");
            wire.stream.begin_tls(client(), None).expect("TLS begins");
        }
        wire
    }
}

/// Our client's side, made once.
fn client() -> &'static tls::Client {
    static CLIENT: OnceLock<tls::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let psk_file = Some(keys().join("keys.psk"));
        let settings =
            tls::ClientSettings { psk_file, user: Some("alice".into()), ..tls::ClientSettings::default() };
        tls::Client::new(&settings).expect("the keys are good")
    })
}

/// A connection to a server.
pub struct Wire {
    stream: Stream,
}

impl Wire {
    /// A client that has not said a word.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn raw(server: &Server) -> Wire {
        let stream = Stream::from_socket(server.connect().into()).expect("it is a socket");
        let wire = Wire { stream };
        wire.limit(PATIENCE);
        wire
    }

    /// How long a read may wait.
    ///
    /// # Panics
    /// When the system refuses that.
    pub fn limit(&self, limit: Duration) {
        self.stream.set_recv_timeout(Some(limit)).expect("a time limit can be set");
    }

    /// How long a write may wait.
    ///
    /// # Panics
    /// When the system refuses that.
    pub fn write_limit(&self, limit: Duration) {
        self.stream.set_send_timeout(Some(limit)).expect("a time limit can be set");
    }

    /// Says that nothing more will be written.
    pub fn end_writing(&self) {
        let _ = self.stream.shutdown(How::Write);
    }

    /// Chooses the default export in the oldest way there is. The server's size comes back.
    ///
    /// # Panics
    /// When the server does anything else.
    pub fn choose(&mut self) -> u64 {
        self.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").expect("the server listens");
        let mut export = [0; 10];
        self.read_exact(&mut export).expect("the server tells of the export");
        u64::from_be_bytes(export[..8].try_into().expect("eight bytes"))
    }

    /// The server must hang up, whatever it may say before.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn hung_up(&mut self) {
        let mut rest = Vec::new();
        let end = self.read_to_end(&mut rest);
        let gone =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        assert!(end.as_ref().is_ok() || end.as_ref().is_err_and(gone), "{end:?}");
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.recv(into, Wait::Block)
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.send_vectored(&[IoSlice::new(from)], Wait::Block)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Command types, as the specification numbers them.
pub mod command {
    /// NBD_CMD_READ.
    pub const READ: u16 = 0;
    /// NBD_CMD_WRITE.
    pub const WRITE: u16 = 1;
    /// NBD_CMD_DISC.
    pub const DISCONNECT: u16 = 2;
    /// NBD_CMD_FLUSH.
    pub const FLUSH: u16 = 3;
}

/// A request without flags, with a compact header; offset and length in bytes. A write's payload comes after it.
pub fn request(kind: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The cookie and the error of the next simple reply. A read's payload comes after it.
///
/// # Errors
/// At the end of the connection.
///
/// # Panics
/// When it is no simple reply.
pub fn reply(stream: &mut impl Read) -> io::Result<(u64, u32)> {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes)?;
    assert_eq!(bytes[..4], 0x6744_6698_u32.to_be_bytes());
    let error = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
    Ok((u64::from_be_bytes(bytes[8..].try_into().expect("eight bytes")), error))
}
