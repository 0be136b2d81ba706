//! Bytes from outside: files, and what scripts print.

use super::{layers::Layers, node::Node};
use disk::{Error, Result};
use rustix::{
    fs::{SeekFrom, seek},
    process::{Pid, Signal, kill_process_group},
};
use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

/// Read at once; whole chunks of zeroes become holes.
const CHUNK: usize = 32 << 10;
/// Bytes are kept in pieces of this size.
const PIECE: usize = 1 << 20;

/// The bytes of a file, from one on up to before another (or to its end). A regular file that ends earlier gives what
/// it has.
pub(super) fn file(path: &str, from: u64, to: Option<u64>) -> Result<Arc<Node>> {
    let read = || -> Result<Arc<Node>> {
        let mut file = File::open(path)?;
        let about = file.metadata()?;
        let mut taken = Taken::new(to.map(|to| to.saturating_sub(from)));
        if !about.is_file() {
            skip(&mut file, from)?;
            taken.read(&mut file)?;
            return taken.finish();
        }
        let (mut at, end) = (from, to.unwrap_or(u64::MAX).min(about.len()));
        while at < end {
            let data = match seek(&file, SeekFrom::Data(at)) {
                Ok(data) => data.clamp(at, end),
                Err(rustix::io::Errno::NXIO) => end,
                Err(_) => at,
            };
            taken.hole(data - at)?;
            let hole = seek(&file, SeekFrom::Hole(data)).unwrap_or(end).clamp(data, end);
            file.seek(io::SeekFrom::Start(data))?;
            let got = taken.read(&mut (&mut file).take(hole - data))?;
            if got < hole - data {
                break;
            }
            at = hole.max(at + 1);
        }
        taken.finish()
    };
    read().map_err(|e| e.context(path))
}

/// Passes over bytes of what cannot be sought, or can.
fn skip(file: &mut File, len: u64) -> io::Result<()> {
    if len > 0 && file.seek(io::SeekFrom::Start(len)).is_err() {
        io::copy(&mut file.take(len), &mut io::sink())?;
    }
    Ok(())
}

/// What a script prints, `most` bytes of it at most: then it is stopped.
pub(super) fn script(script: &str, most: Option<u64>) -> Result<Arc<Node>> {
    let mut child = shell()
        .arg("-c")
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| Error::from(e).context("the shell for this script cannot be started"))?;
    let mut taken = Taken::new(most);
    let read = match child.stdout.take() {
        Some(mut output) => taken.read(&mut output),
        None => Ok(0),
    };
    // Whoever has enough, or too much, does not wait for the rest.
    let stopped = read.is_err() || taken.is_full();
    if stopped {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait();
    read?;
    match status? {
        status if stopped || status.success() => taken.finish(),
        status => Err(Error::io(format!("the script failed: {status}"))),
    }
}

/// Scripts are written for `bash` more often than their authors know. Where `sh` is dash, whose `echo` knows `\n`, bash
/// is told to know it as well.
fn shell() -> Command {
    let is_there = |path: &&str| Path::new(path).exists();
    let Some(bash) = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"].into_iter().find(is_there) else {
        return Command::new("/bin/sh");
    };
    let mut command = Command::new(bash);
    if std::fs::canonicalize("/bin/sh").is_ok_and(|sh| sh.ends_with("dash")) {
        command.args(["-O", "xpg_echo"]);
    }
    command
}

/// Bytes on their way into a node.
struct Taken {
    layers: Layers,
    piece: Vec<u8>,
    /// How many bytes more are wanted; `None`: all that come.
    wanted: Option<u64>,
    /// How many more may be kept.
    room: u64,
}

impl Taken {
    fn new(wanted: Option<u64>) -> Taken {
        let ram = rustix::system::sysinfo();
        let room = ram.totalram.saturating_mul(ram.mem_unit.into()) / 4;
        Taken { layers: Layers::default(), piece: Vec::new(), wanted, room }
    }

    fn is_full(&self) -> bool {
        self.wanted == Some(0)
    }

    fn hole(&mut self, len: u64) -> Result<()> {
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(len));
        self.zeroes(len)
    }

    fn zeroes(&mut self, len: u64) -> Result<()> {
        self.flush()?;
        let end = self.layers.at.saturating_add(len);
        self.layers.go(end).map_err(Error::invalid)
    }

    /// Reads to the end, or until there is enough; how many bytes.
    fn read(&mut self, from: &mut impl Read) -> Result<u64> {
        let (mut chunk, mut total) = (vec![0; CHUNK], 0);
        loop {
            let most = self.wanted.map_or(CHUNK, |wanted| wanted.min(CHUNK as u64) as usize);
            let mut filled = 0;
            while filled < most {
                match from.read(&mut chunk[filled..most]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e.into()),
                }
            }
            if filled == 0 {
                return Ok(total);
            }
            total += filled as u64;
            self.wanted = self.wanted.map(|wanted| wanted - filled as u64);
            // Zeroes take no room if somebody said how many there shall be; else they must end some time.
            let zeroes = filled == CHUNK && disk::data::is_zero(&chunk);
            if !zeroes || self.wanted.is_none() {
                self.room = self.room.checked_sub(filled as u64).ok_or_else(|| {
                    let why = "this does not end within a quarter of the memory there is; \
                               a slice such as [:1M] takes only the beginning";
                    Error::invalid(why)
                })?;
            }
            if zeroes {
                self.zeroes(CHUNK as u64)?;
            } else {
                self.piece.extend(&chunk[..filled]);
                if self.piece.len() >= PIECE {
                    self.flush()?;
                }
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        let piece = Node::bytes(std::mem::take(&mut self.piece));
        piece.and_then(|node| self.layers.put(node)).map_err(Error::invalid)
    }

    fn finish(mut self) -> Result<Arc<Node>> {
        self.flush()?;
        self.layers.finish().map_err(Error::invalid)
    }
}
