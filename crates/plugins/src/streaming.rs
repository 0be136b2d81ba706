//! A pipe as a disk that is written, or read, once from its start to its end.

use crate::common::script::Order;
use disk::{Backend, Client, Data, Disk, Error, Facts, Io, Plugin, Range, Result, WriteFlags};
use params::{Params, Size};
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// So much is skipped, or filled with zeroes, at once.
const STEP: usize = 64 << 10;

/// A pipe, socket or file that is written or read once, from its start to its end.
#[derive(Params)]
pub(crate) struct Streaming {
    /// What clients write goes there: to a pipe, which is made if there is nothing of this name, a Unix socket on which
    /// somebody listens, or a file, which is emptied first.
    #[param(alias = "pipe")]
    write: Option<PathBuf>,
    /// What clients read comes from there.
    read: Option<PathBuf>,
    /// The size of the disk; the largest that there can be if it is not given.
    #[param(default = "9223372036854775807")]
    size: Size,
}

impl Plugin for Streaming {
    const NAME: &'static str = "streaming";
    const MANUAL: &'static str = include_str!("streaming.md");

    fn start(self) -> Result<impl Backend + 'static> {
        let (path, writes) = match (self.write, self.read) {
            (Some(path), None) => (path, true),
            (None, Some(path)) => (path, false),
            (Some(_), Some(_)) => {
                return Err(Error::invalid("write= and read= cannot be used at the same time"));
            }
            (None, None) => return Err(Error::invalid("you must supply the write= or read= parameter")),
        };
        let stream = Stream { path, writes, state: Mutex::default() };
        Ok(StreamingBackend { stream: Arc::new(stream), size: self.size.bytes(), order: Order::in_line() })
    }
}

struct StreamingBackend {
    stream: Arc<Stream>,
    size: u64,
    /// Requests are carried out in the order in which they came, whoever waits for them.
    order: Order,
}

impl Backend for StreamingBackend {
    fn open<'a>(&'a self, client: &'a Client<'a>) -> Io<'a, Arc<dyn Disk>> {
        let facts = match self.stream.writes && !client.read_only {
            true => Facts { multi_conn: false, ..Facts::writable(self.size) },
            false => Facts { multi_conn: false, ..Facts::read_only(self.size) },
        };
        let (stream, order) = (self.stream.clone(), self.order.clone());
        Io::ok(Arc::new(StreamingDisk { stream, facts, order }))
    }

    /// Makes the pipe, so that others find it as soon as the server is there.
    fn get_ready(&self) -> Result<()> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let path = &self.stream.path;
        if path.exists() {
            return Ok(());
        }
        let made = mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0);
        made.map_err(|e| Error::from(e).context(format!("{}: making a pipe", path.display())))
    }

    /// The other end sees the end of the stream.
    fn finish(&self) {
        // A request that still waits for the other end is not waited for; the process ends anyway.
        if let Ok(mut state) = self.stream.state.try_lock() {
            state.end = None;
        }
    }
}

/// What all clients, one after the other, write to or read from.
struct Stream {
    path: PathBuf,
    writes: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Opened when it is first used, since that may have to wait for somebody at the other end.
    end: Option<File>,
    /// How far the stream has come, in bytes.
    at: u64,
    /// Nobody knows how far it has come.
    is_broken: bool,
}

struct StreamingDisk {
    stream: Arc<Stream>,
    facts: Facts,
    order: Order,
}

impl Stream {
    /// The state, for a request at `at`, which must not lie behind.
    fn forward(&self, at: u64) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_broken {
            return Err(Error::io("the stream has failed before"));
        }
        if at < state.at {
            let why = format!("the stream is at {} already and cannot go back to {at}", state.at);
            return Err(Error::io(why));
        }
        if state.end.is_none() {
            let named = |e: std::io::Error| Error::from(e).context(self.path.display());
            state.end = Some(open(&self.path, self.writes).map_err(named)?);
        }
        Ok(state)
    }
}

impl State {
    /// Does something to the stream that takes it `len` bytes further.
    fn advance(&mut self, len: u64, act: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let Some(end) = &mut self.end else { return Err(Error::io("the stream is not open")) };
        match act(end) {
            Ok(()) => {
                self.at += len;
                Ok(())
            }
            Err(e) => {
                self.is_broken = true;
                Err(match e.kind() {
                    ErrorKind::UnexpectedEof => {
                        Error::io(format!("the stream ends before byte {}", self.at + len))
                    }
                    ErrorKind::BrokenPipe => Error::io("nobody reads the stream any more"),
                    _ => e.into(),
                })
            }
        }
    }
}

fn open(path: &Path, writes: bool) -> std::io::Result<File> {
    if std::fs::metadata(path)?.file_type().is_socket() {
        return Ok(OwnedFd::from(UnixStream::connect(path)?).into());
    }
    match writes {
        true => File::options().write(true).truncate(true).open(path),
        false => File::open(path),
    }
}

impl Stream {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        if self.writes {
            return Err(Error::io("the stream can only be written"));
        }
        let mut state = self.forward(at)?;
        let mut gap = [0; STEP];
        while state.at < at {
            let step = (at - state.at).min(STEP as u64) as usize;
            state.advance(step as u64, |end| end.read_exact(&mut gap[..step]))?;
        }
        state.advance(into.len() as u64, |end| end.read_exact(into))
    }

    fn write(&self, at: u64, data: &Data) -> Result<()> {
        let mut state = self.forward(at)?;
        while state.at < at {
            let step = (at - state.at).min(STEP as u64) as usize;
            state.advance(step as u64, |end| end.write_all(&[0; STEP][..step]))?;
        }
        let data = data.contiguous();
        state.advance(data.len(), |end| end.write_all(data.as_bytes().unwrap_or_default()))
    }

    /// What was written is with the other end; a file is made stable.
    fn flush(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.end {
            Some(end) if end.metadata()?.is_file() => Ok(end.sync_data()?),
            _ => Ok(()),
        }
    }
}

impl StreamingDisk {
    fn run<T: Send + 'static>(&self, act: impl FnOnce(&Stream) -> Result<T> + Send + 'static) -> Io<'_, T> {
        let stream = self.stream.clone();
        let work = self.order.run(move || act(&stream));
        Io::later(async move { work.await.unwrap_or_else(|| Err(Error::io("the operation panicked"))) })
    }
}

impl Disk for StreamingDisk {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.run(move |stream| Data::try_fill(r.len as usize, |into| stream.read(r.start, into)))
    }
    fn write(&self, at: u64, data: Data, _: WriteFlags) -> Io<'_, ()> {
        self.run(move |stream| stream.write(at, &data))
    }
    fn flush(&self) -> Io<'_, ()> {
        self.run(Stream::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model;
    use disk::Data;

    fn open(parameter: &str, path: &Path, size: &str) -> Result<Arc<dyn Disk>> {
        model::open::<Streaming>(&[(parameter, &path.display().to_string()), ("size", size)])
    }

    #[test]
    fn gaps_are_filled_with_zeroes_and_nothing_goes_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disk = open("pipe", file.path(), "1M").unwrap();
        let write = |at, bytes: &[u8]| disk.write(at, Data::copy_from(bytes), WriteFlags::default()).wait();
        write(0, b"abc").unwrap();
        write(100_000, b"def").unwrap();
        let error = write(100_002, b"x").unwrap_err();
        assert_eq!(error.to_string(), "the stream is at 100003 already and cannot go back to 100002");
        assert_eq!(error.errno(), disk::Errno::IO);
        write(100_003, b"g").unwrap();
        disk.flush().wait().unwrap();
        let expected = [b"abc".as_slice(), &[0; 99_997], b"defg"].concat();
        assert!(std::fs::read(file.path()).unwrap() == expected);
        assert!(disk.read(disk::Range::new(0, 1)).wait().is_err());
    }

    #[test]
    fn reading_skips_what_was_not_asked_for_and_ends_with_the_stream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let disk = open("read", file.path(), "1M").unwrap();
        let read = |at, len| disk.read(disk::Range::new(at, len)).wait();
        assert!(read(10, 20).unwrap().to_vec() == bytes[10..30]);
        assert!(read(150_000, 1000).unwrap().to_vec() == bytes[150_000..151_000]);
        assert!(read(150_999, 1).is_err());
        assert!(read(151_000, 1).unwrap().to_vec() == bytes[151_000..151_001]);
        assert_eq!(read(199_999, 2).unwrap_err().to_string(), "the stream ends before byte 200001");
        assert_eq!(read(300_000, 1).unwrap_err().to_string(), "the stream has failed before");
        assert!(!disk.facts().write);
    }

    #[test]
    fn one_direction_must_be_chosen() {
        let error = |args: &[(&str, &str)]| model::open::<Streaming>(args).err().unwrap().to_string();
        assert_eq!(error(&[]), "you must supply the write= or read= parameter");
        assert!(error(&[("read", "a"), ("write", "b")]).contains("cannot be used at the same time"));
    }
}
