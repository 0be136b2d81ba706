//! Copies with a stream at one end or both: bytes in order, of a length that is not known.

use crate::copy::{
    engine::Plan,
    map::{Map, Next, Piece, Regions},
    transfer::Ends,
    watch::Watch,
    window::Flow,
};
use disk::{BufMut, Data, Disk, Error, Extents, Io, Piece as Bytes, Range, Result};
use reactor::{InFlight, Interest, Readiness};
use std::{
    collections::VecDeque,
    fs::File,
    future::{Future, poll_fn},
    io::{self, Read, Write},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// What is read from a stream at once, if there is so much.
const CHUNK: usize = 256 << 10;

/// A pipe, a socket, a terminal, a character device.
pub(crate) struct Stream {
    file: Arc<File>,
}

impl Stream {
    /// Makes the buffer of a pipe as large as an ordinary user may.
    pub(crate) fn new(file: File) -> Stream {
        let _ = rustix::pipe::fcntl_setpipe_size(&file, 1 << 20); // not a pipe, or not allowed: it works as it is
        Stream { file: Arc::new(file) }
    }

    /// Writes data; zeroes as bytes.
    fn put(&self, data: &Data) -> Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        for piece in data.pieces() {
            match piece {
                Bytes::Bytes(bytes) => (&*self.file).write_all(bytes).map_err(writing)?,
                Bytes::Zeroes(len) => {
                    for part in Range::new(0, len).split_at_multiples(ZEROES.len() as u64) {
                        (&*self.file).write_all(&ZEROES[..part.len as usize]).map_err(writing)?;
                    }
                }
                Bytes::Lent(_) => {
                    let copy = Data::fill(piece.len() as usize, |buffer| piece.copy_to(buffer));
                    (&*self.file).write_all(copy.as_bytes().unwrap_or_default()).map_err(writing)?;
                }
            }
        }
        Ok(())
    }
}

fn reading(e: io::Error) -> Error {
    Error::from(e).context("reading from the source")
}

fn writing(e: io::Error) -> Error {
    Error::from(e).context("writing to the destination")
}

/// From stream to stream. Returns how many bytes.
///
/// # Errors
/// Either failed.
pub(crate) fn pass_on(from: &Stream, to: &Stream, watch: &Watch) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        // Whatever comes is passed on at once: somebody may be typing.
        let n = match (&*from.file).read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(reading(e)),
        };
        if let Some(hashes) = &watch.hashes {
            hashes.append(&Data::copy_from(&buffer[..n]));
        }
        (&*to.file).write_all(&buffer[..n]).map_err(writing)?;
        total += n as u64;
        watch.tally.read.fetch_add(n as u64, Relaxed);
        watch.tally.written.fetch_add(n as u64, Relaxed);
        watch.progress.add(n as u64);
        if let Some(pace) = &watch.pace {
            pace.begun(n as u64, Instant::now());
            while let Some(wait) = pace.wait(Instant::now()) {
                std::thread::sleep(wait);
            }
        }
    }
}

/// All of a disk into a stream, in order, reading ahead.
///
/// # Errors
/// The disk or the stream failed.
pub(crate) fn out(plan: &Plan, from: &dyn Disk, to: &Stream, watch: &Watch) -> Result<()> {
    let regions = Regions::new(from.facts().whole(), 1);
    let ends = plan.ends(from, from, watch);
    let map = Map::new(&regions, plan.cut(&ends), plan.extents && from.facts().extents);
    reactor::block_on(
        Out { plan, from, to, map, flight: InFlight::new(), row: VecDeque::new(), first: 0 }.copy(watch),
    )
}

struct Out<'a> {
    plan: &'a Plan,
    from: &'a dyn Disk,
    to: &'a Stream,
    map: Map<'a>,
    flight: InFlight<Ahead<'a>>,
    /// What was begun and not yet written, in order.
    row: VecDeque<Entry>,
    /// The number of the first of the row.
    first: u64,
}

enum Entry {
    Waiting(u64),
    Ready(Data),
}

enum Ahead<'a> {
    Read(u64, Io<'a, Data>),
    Extents(Io<'a, Extents>),
}

enum Came {
    Data(u64, Result<Data>),
    Extents(Result<Extents>),
}

impl Future for Ahead<'_> {
    type Output = Came;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        match self.get_mut() {
            Ahead::Read(number, io) => Pin::new(io).poll(cx).map(|data| Came::Data(*number, data)),
            Ahead::Extents(io) => Pin::new(io).poll(cx).map(Came::Extents),
        }
    }
}

impl Out<'_> {
    async fn copy(mut self, watch: &Watch) -> Result<()> {
        let outcome = self.all(watch).await;
        if outcome.is_err() {
            self.let_answers_come().await;
        }
        outcome
    }

    /// A server that cannot deliver its answers may complain of it where the user reads it. So they are taken, unless
    /// that takes long.
    async fn let_answers_come(&mut self) {
        let mut patience = pin!(reactor::sleep(Duration::from_secs(1)));
        poll_fn(|cx| {
            loop {
                match self.flight.poll_next(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return patience.as_mut().poll(cx),
                }
            }
        })
        .await;
    }

    async fn all(&mut self, watch: &Watch) -> Result<()> {
        loop {
            self.begin()?;
            if self.write_what_is_ready(watch)? {
                while let Some(wait) = watch.pace.as_ref().and_then(|pace| pace.wait(Instant::now())) {
                    reactor::sleep(wait).await;
                }
                continue;
            }
            match self.flight.next().await {
                None => return Ok(()),
                Some(Came::Extents(answer)) => self.map.learn(answer.as_ref().ok()),
                Some(Came::Data(number, data)) => {
                    let data = data.map_err(|e| e.context("reading from the source"))?;
                    self.arrived(number, data)?;
                }
            }
        }
    }

    fn arrived(&mut self, number: u64, data: Data) -> Result<()> {
        let entry = self.row.get_mut((number - self.first) as usize);
        let Some(entry) = entry.filter(|entry| matches!(**entry, Entry::Waiting(len) if len == data.len()))
        else {
            return Err(Error::io("reading from the source: data of another length came"));
        };
        *entry = Entry::Ready(data);
        Ok(())
    }

    /// Returns whether anything was written.
    fn write_what_is_ready(&mut self, watch: &Watch) -> Result<bool> {
        let mut any = false;
        while let Some(Entry::Ready(data)) = self.row.front() {
            if let Some(hashes) = &watch.hashes {
                hashes.append(data);
            }
            self.to.put(data)?;
            if !data.says_zeroes() {
                watch.tally.read.fetch_add(data.len(), Relaxed);
                watch.pace.iter().for_each(|pace| pace.begun(data.len(), Instant::now()));
            }
            watch.tally.written.fetch_add(data.len(), Relaxed);
            watch.progress.add(data.len());
            self.row.pop_front();
            self.first += 1;
            any = true;
        }
        Ok(any)
    }

    fn begin(&mut self) -> Result<()> {
        loop {
            let may_ask = self.plan.requests > 1 || self.flight.is_empty();
            while may_ask && let Some(range) = self.map.ask() {
                self.flight.push(Ahead::Extents(self.from.extents(range, 64 << 10)));
            }
            let waiting = |entry: &Entry| match entry {
                Entry::Waiting(len) => *len,
                Entry::Ready(data) if data.says_zeroes() => 0,
                Entry::Ready(data) => data.len(),
            };
            let queued: u64 = self.row.iter().map(waiting).sum();
            if self.flight.len() >= self.plan.requests || self.row.len() >= 256 || queued >= self.plan.window
            {
                return Ok(());
            }
            let number = self.first + self.row.len() as u64;
            match self.map.next() {
                Next::Piece(Piece::Zero(range)) => self.row.push_back(Entry::Ready(Data::zeroes(range.len))),
                Next::Piece(Piece::Data(range)) => {
                    self.row.push_back(Entry::Waiting(range.len));
                    self.flight.push(Ahead::Read(number, self.from.read(range)));
                }
                Next::Wait | Next::End => return Ok(()),
            }
        }
    }
}

/// All of a stream onto a disk, from its beginning. Returns how many bytes.
///
/// # Errors
/// Either failed, or more came than the disk has room for.
pub(crate) fn into(plan: &Plan, from: &Stream, to: &dyn Disk, watch: &Watch) -> Result<u64> {
    let flow = plan.flow(None);
    let ends = plan.ends(to, to, watch);
    let input = Arc::new(Input {
        ready: Readiness::new(from.file.clone()),
        stream: Stream { file: from.file.clone() },
    });
    reactor::block_on(copy_in(plan, ends, &flow, &input, watch))
}

struct Input {
    ready: Readiness<Arc<File>>,
    stream: Stream,
}

impl Input {
    /// The next bytes, as many as `want` except at the end; writes go on meanwhile.
    async fn chunk(&self, want: usize) -> Result<Data> {
        let mut buffer = BufMut::new(want);
        let mut there = 0;
        while there < want {
            self.ready.wait(Interest { read: true, write: false }).await;
            // Ready means that some bytes, or the end, can be read without waiting.
            let n = match (&*self.stream.file).read(&mut buffer[there..]) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    continue;
                }
                Err(e) => return Err(reading(e)),
            };
            there += n;
        }
        buffer.truncate(there);
        Ok(buffer.into())
    }
}

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Event>> + 'a>>;

enum Event {
    Chunk(Data),
    Written(u64),
}

async fn copy_in<'a>(
    plan: &Plan,
    ends: Ends<'a>,
    flow: &'a Flow,
    input: &Input,
    watch: &Watch,
) -> Result<u64> {
    let facts = ends.to.facts();
    let chunk = ends.request_size as usize;
    let mut flight: InFlight<Pending<'_>> = InFlight::new();
    let read = || -> Pending<'_> { Box::pin(async { Ok(Event::Chunk(input.chunk(chunk).await?)) }) };
    let (mut at, mut queued, mut reading, mut ended) = (0u64, 0u64, false, false);
    loop {
        let room = queued < plan.window && flight.len() < plan.requests.max(2);
        if !ended && !reading && (room || queued == 0) {
            reading = true;
            flight.push(read());
        }
        match flight.next().await {
            None => return Ok(at),
            Some(event) => match event? {
                Event::Written(len) => {
                    queued -= len;
                    watch.progress.add(len);
                }
                Event::Chunk(data) => {
                    reading = false;
                    let len = data.len();
                    ended = len < chunk as u64;
                    if len == 0 {
                        continue;
                    }
                    let range = Range::new(at, len);
                    if !range.lies_within(facts.size) {
                        let text = format!(
                            "the destination is full: it has {} bytes, and the source more",
                            facts.size
                        );
                        return Err(Error::new(disk::Errno::NOSPC, text));
                    }
                    at += len;
                    watch.tally.read.fetch_add(len, Relaxed);
                    if let Some(hashes) = &watch.hashes {
                        hashes.append(&data);
                    }
                    if let Some(pace) = &watch.pace {
                        pace.begun(len, Instant::now());
                        while let Some(wait) = pace.wait(Instant::now()) {
                            reactor::sleep(wait).await;
                        }
                    }
                    match ends.start_padded(range, data, flow).await? {
                        None => watch.progress.add(len),
                        Some(transfer) if plan.requests == 1 => {
                            transfer.await?;
                            watch.progress.add(len);
                        }
                        Some(transfer) => {
                            queued += len;
                            flight
                                .push(Box::pin(async move { transfer.await.map(|()| Event::Written(len)) }));
                        }
                    }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{
        fake::{Fake, Seen, islands},
        progress::{Progress, Style},
        transfer::Zeroes,
    };
    use std::os::fd::OwnedFd;

    fn plan() -> Plan {
        Plan {
            request_size: 4096,
            requests: 8,
            window: 16 << 10,
            queue: 16 << 10,
            sparse: Some(4096),
            extents: true,
            zeroes: Zeroes::Hole,
            threads: 1,
            unit: 1,
        }
    }

    fn pipe() -> (File, File) {
        let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn a_disk_flows_out_in_order_without_reading_its_holes() {
        let bytes = islands(200_123, 23);
        for requests in [1, 8] {
            let (from, source) = Fake::new(bytes.clone()).open();
            let (mut read, write) = pipe();
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                read.read_to_end(&mut all).unwrap();
                all
            });
            let watch = Watch::new(Progress::new(Style::Silent, None));
            out(&Plan { requests, ..plan() }, &*from, &Stream::new(write), &watch).unwrap();
            assert!(reader.join().unwrap() == bytes);
            let read: u64 = source.seen().iter().map(|s| if let Seen::Read(r) = s { r.len } else { 0 }).sum();
            assert!(read < bytes.len() as u64);
        }
    }

    #[test]
    fn a_stream_flows_into_a_disk_and_its_zeroes_become_holes() {
        let mut bytes = islands(100_001, 29);
        bytes[40_960..61_440].fill(0);
        for (requests, block) in [(1, 1), (8, 1), (8, 4096)] {
            let (read, mut write) = pipe();
            let sent = bytes.clone();
            let writer = std::thread::spawn(move || {
                for part in sent.chunks(7777) {
                    write.write_all(part).unwrap();
                }
            });
            let (to, destination) = Fake::new(vec![5; 131_072]).with_block(block).open();
            let watch = Watch::new(Progress::new(Style::Silent, None));
            let total = into(&Plan { requests, ..plan() }, &Stream::new(read), &*to, &watch).unwrap();
            writer.join().unwrap();
            assert_eq!(total, 100_001);
            assert!(destination.bytes()[..bytes.len()] == bytes);
            assert!(destination.bytes()[bytes.len()..].iter().all(|b| *b == 5), "what lies behind stays");
            assert!(destination.seen().iter().any(|s| matches!(s, Seen::Zero(..))));
        }
    }

    #[test]
    fn more_than_fits_is_an_error() {
        let (read, mut write) = pipe();
        let writer = std::thread::spawn(move || {
            let _ = write.write_all(&[1; 10_000]);
        });
        let (to, _) = Fake::new(vec![0; 5000]).open();
        let watch = Watch::new(Progress::new(Style::Silent, None));
        let e = into(&plan(), &Stream::new(read), &*to, &watch).unwrap_err();
        assert_eq!(e.errno(), disk::Errno::NOSPC, "{e}");
        writer.join().unwrap();
    }

    #[test]
    fn a_failing_disk_ends_the_stream_with_an_error() {
        let (from, _) = Fake::new(vec![1; 100_000])
            .failing(|s| matches!(s, Seen::Read(r) if r.start > 50_000).then_some(disk::Errno::IO))
            .open();
        let (mut read, write) = pipe();
        let reader = std::thread::spawn(move || read.read_to_end(&mut Vec::new()).unwrap());
        let watch = Watch::new(Progress::new(Style::Silent, Some(100_000)));
        assert!(out(&plan(), &*from, &Stream::new(write), &watch).is_err());
        assert!(reader.join().unwrap() < 100_000);
    }
}
