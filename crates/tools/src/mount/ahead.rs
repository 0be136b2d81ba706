//! Reads in a row are answered out of larger ones.
//!
//! Where the server is near, that is for small reads, and the next larger one is made when it is needed: memory that was just
//! received is still in the processor's cache. Where the server is far away, all reads in a row are read ahead, and the next piece is
//! under way before it is asked for: the more is under way, the less the way counts.
//!
//! What was read ahead serves the reads that follow, for a moment at most, and never past a write, nor past the next time
//! that the file is opened. A program that wants every
//! read to reach the server opens the file with `O_DIRECT`.

use disk::{Data, Range};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Reads of so many bytes and more are long enough, where the server is near.
const SMALL: u64 = 128 << 10;
/// How far the first read ahead goes, in bytes; each one that follows goes twice as far ...
const FIRST: u64 = 64 << 10;
/// ... up to here, and up to `MOST` where somebody had to wait for it.
const USUAL: u64 = 512 << 10;
const MOST: u64 = 4 << 20;
/// So long what was read ahead is good.
pub(crate) const GOOD: Duration = Duration::from_secs(1);
/// A server is far away whose answers take longer than this, and a microsecond for each KiB ...
const FAR: Duration = Duration::from_micros(500);
/// ... so often in a row; it is near when an answer took half of that.
const OFTEN: u32 = 2;
/// So many programs that read in a row are told apart.
const STREAMS: usize = 4;

/// What was read ahead.
pub(crate) struct Ahead {
    /// So long it is good.
    good: Duration,
    state: Mutex<State>,
    /// There is something to fetch, or nothing ever again.
    jobs: Condvar,
    /// Something was fetched, or will not be.
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    streams: [Stream; STREAMS],
    /// Counts reads, so that the stream that is not read for longest is known.
    reads: u64,
    /// What fetchers shall fetch, and the value of `forgotten` then.
    jobs: VecDeque<(Range, u64)>,
    /// How many there are: without any, nobody fetches but who reads.
    fetchers: usize,
    over: bool,
    /// How many answers in a row took long.
    late: u32,
    /// Writes that are under way.
    writing: u32,
    /// How often what was read became worthless.
    forgotten: u64,
}

/// Reads in a row.
#[derive(Default)]
struct Stream {
    /// Where the last read ended.
    next: u64,
    /// When it was, in `reads`.
    last: u64,
    /// How far the last one went ahead.
    window: u64,
    /// Whether a read had to wait for what was under way.
    waited: bool,
    /// One behind the other, without gaps.
    pieces: VecDeque<Piece>,
}

struct Piece {
    range: Range,
    /// When it was asked for.
    since: Instant,
    /// `None` while it is under way.
    data: Option<Data>,
}

impl Stream {
    fn forget(&mut self) {
        self.pieces.clear();
        (self.window, self.waited) = (0, false);
    }

    /// Whether all of a range was asked for.
    fn has(&self, range: Range) -> bool {
        let (first, last) = (self.pieces.front(), self.pieces.back());
        first.is_some_and(|first| first.range.start <= range.start)
            && last.is_some_and(|last| range.end() <= last.range.end())
    }

    /// A range, if all of it is here; it was asked for.
    fn get(&self, range: Range) -> Option<Data> {
        let mut parts = Vec::new();
        for piece in &self.pieces {
            let (start, end) = (piece.range.start.max(range.start), piece.range.end().min(range.end()));
            if start < end {
                parts.push(piece.data.as_ref()?.slice(start - piece.range.start, end - start));
            }
        }
        if parts.len() == 1 { parts.pop() } else { Some(Data::join(parts)) }
    }

    fn grow(&mut self, least: u64) -> u64 {
        let most = if self.waited { MOST } else { USUAL.max(self.window) };
        self.waited = false;
        self.window = (self.window * 2).clamp(FIRST, most).max(least);
        self.window
    }
}

impl State {
    /// What is on its way is not kept either.
    fn forget(&mut self) {
        self.streams.iter_mut().for_each(Stream::forget);
        self.forgotten += 1;
    }

    /// The stream that a read goes on with, or else the one that can be spared most, which begins with it. And whether it
    /// goes on.
    fn stream(&mut self, range: Range) -> (usize, bool) {
        self.reads += 1;
        let last = self.reads;
        let goes_on = |stream: &Stream| stream.has(range) || (stream.next == range.start && range.start > 0);
        let found = self.streams.iter().position(goes_on);
        // One that was never more than a single read goes first.
        let spare = || (0..STREAMS).min_by_key(|n| (self.streams[*n].window > 0, self.streams[*n].last));
        let n = found.or_else(spare).unwrap_or_default();
        let stream = &mut self.streams[n];
        if found.is_none() {
            stream.forget();
        }
        (stream.next, stream.last) = (range.end(), last);
        (n, found.is_some())
    }

    /// Whether the server is far away.
    fn is_far(&self) -> bool {
        self.late >= OFTEN
    }

    /// Learns from an answer, which took so long, how far away the server is.
    fn note(&mut self, length: u64, took: Duration) {
        let late = FAR + Duration::from_micros(length >> 10);
        if took > late {
            self.late = self.late.saturating_add(1);
        } else if took < late / 2 || !self.is_far() {
            self.late = 0;
        }
    }

    /// When the last piece is begun, the next one is sent for. Returns whether a fetcher is to be woken.
    fn go_on(&mut self, n: usize, size: u64) -> bool {
        let able = self.fetchers > 0 && self.writing == 0 && self.is_far();
        let stream = &mut self.streams[n];
        while stream.pieces.front().is_some_and(|piece| piece.range.end() < stream.next) {
            stream.pieces.pop_front();
        }
        let Some(Piece { range, data: Some(_), .. }) = stream.pieces.back() else { return false };
        let end = range.end();
        if !able || stream.next <= range.start || end >= size {
            return false;
        }
        let range = Range::new(end, stream.grow(0).min(size - end));
        stream.pieces.push_back(Piece { range, since: Instant::now(), data: None });
        self.jobs.push_back((range, self.forgotten));
        true
    }
}

impl Ahead {
    /// Nothing yet; what will be is good for so long.
    pub(crate) fn new(good: Duration) -> Ahead {
        Ahead { good, state: Mutex::default(), jobs: Condvar::new(), arrived: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a range of a disk of this size.
    ///
    /// # Errors
    /// Those of `fetch`, for this range.
    pub(crate) fn read<E>(
        &self,
        range: Range,
        size: u64,
        fetch: impl Fn(Range) -> Result<Data, E>,
    ) -> Result<Data, E> {
        let mut state = self.state();
        let (n, in_a_row) = state.stream(range);
        let since = Instant::now();
        let mut pieces = state.streams[n].pieces.iter();
        let first = pieces.find(|piece| piece.range.end() > range.start);
        if first.is_some_and(|piece| since.duration_since(piece.since) >= self.good) {
            state.streams[n].forget();
        }
        while state.streams[n].has(range) {
            if let Some(data) = state.streams[n].get(range) {
                if state.go_on(n, size) {
                    self.jobs.notify_one();
                }
                return Ok(data);
            }
            state.streams[n].waited = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let long = range.len >= SMALL;
        if !in_a_row || state.writing > 0 || (long && !state.is_far()) {
            state.streams[n].forget();
            drop(state);
            let data = fetch(range)?;
            if long {
                self.state().note(range.len, since.elapsed());
            }
            return Ok(data);
        }
        let window = state.streams[n].grow(range.len);
        let longer = Range::new(range.start, window.min(size - range.start));
        let forgotten = state.forgotten;
        drop(state);
        // An error further on is none of this range.
        let Ok(data) = fetch(longer) else { return fetch(range) };
        let wanted = data.slice(0, range.len);
        let mut state = self.state();
        state.note(longer.len, since.elapsed());
        // Meanwhile the stream may have become another's.
        if state.forgotten == forgotten && state.streams[n].next == range.end() {
            let pieces = &mut state.streams[n].pieces;
            pieces.clear();
            pieces.push_back(Piece { range: longer, since, data: Some(data) });
            if state.go_on(n, size) {
                self.jobs.notify_one();
            }
        }
        Ok(wanted)
    }

    /// Fetches what will be read, for all who read, until [`Ahead::end`].
    pub(crate) fn fetch<E>(&self, fetch: impl Fn(Range) -> Result<Data, E>) {
        let mut state = self.state();
        state.fetchers += 1;
        while !state.over {
            let Some((range, forgotten)) = state.jobs.pop_front() else {
                state = self.jobs.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if state.forgotten == forgotten {
                drop(state);
                let since = Instant::now();
                let data = fetch(range).ok();
                state = self.state();
                state.note(range.len, since.elapsed());
                if state.forgotten == forgotten {
                    let is_it = |piece: &Piece| piece.data.is_none() && piece.range == range;
                    for stream in &mut state.streams {
                        let Some(at) = stream.pieces.iter().position(is_it) else { continue };
                        match &data {
                            Some(data) => stream.pieces[at].data = Some(data.clone()),
                            // Who reads there finds out himself.
                            None => stream.pieces.truncate(at),
                        }
                    }
                }
            }
            self.arrived.notify_all();
        }
        state.fetchers -= 1;
        // Nobody waits for what does not come.
        state.forget();
        self.arrived.notify_all();
    }

    /// Nothing will be read any more.
    pub(crate) fn end(&self) {
        self.state().over = true;
        self.jobs.notify_all();
    }

    /// Before what was read is changed; until the guard is dropped, nothing is kept.
    pub(crate) fn write(&self) -> Writing<'_> {
        let mut state = self.state();
        state.forget();
        state.writing += 1;
        drop(state);
        self.arrived.notify_all();
        Writing(self)
    }

    /// Before the file is opened: who opens it sees what the server has then.
    pub(crate) fn forget(&self) {
        self.state().forget();
        self.arrived.notify_all();
    }
}

/// A write is under way.
pub(crate) struct Writing<'a>(&'a Ahead);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.state().writing -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, sync::mpsc};

    const SIZE: u64 = 10 << 20;
    /// However slow the machine is.
    const FOREVER: Duration = Duration::from_secs(1 << 30);

    fn bytes(range: Range) -> Data {
        Data::copy_from(&(range.start..range.end()).map(|at| (at / 512) as u8).collect::<Vec<_>>())
    }

    #[test]
    fn a_row_of_small_reads_makes_few_long_ones() {
        let (ahead, asked) = (Ahead::new(FOREVER), RefCell::new(Vec::new()));
        let fetch = |range: Range| {
            asked.borrow_mut().push(range.len);
            Ok::<_, ()>(bytes(range))
        };
        for at in (0..SIZE).step_by(4096) {
            let range = Range::new(at, 4096);
            assert_eq!(ahead.read(range, SIZE, fetch).unwrap().to_vec(), bytes(range).to_vec());
        }
        let asked = asked.into_inner();
        assert_eq!(asked[..5], [4096, FIRST, 2 * FIRST, 4 * FIRST, USUAL]);
        assert!(asked.len() < 30, "{asked:?}");
    }

    #[test]
    fn reads_here_and_there_are_not_stretched() {
        let ahead = Ahead::new(FOREVER);
        for at in [0, 1 << 20, 8192, 5 << 20, 2 << 20] {
            let fetch = |range: Range| {
                assert_eq!(range.len, 4096);
                Ok::<_, ()>(bytes(range))
            };
            ahead.read(Range::new(at, 4096), SIZE, fetch).unwrap();
        }
    }

    /// Reads 512 bytes of a disk that has this byte everywhere now; the first one.
    fn read_one_of(ahead: &Ahead, at: u64, fill: u8) -> u8 {
        let fetch = |range: Range| Ok::<_, ()>(Data::copy_from(&vec![fill; range.len as usize]));
        ahead.read(Range::new(at, 512), SIZE, fetch).unwrap().to_vec()[0]
    }

    #[test]
    fn a_write_makes_everything_be_read_again() {
        let ahead = Ahead::new(FOREVER);
        let read = |at, fill| read_one_of(&ahead, at, fill);
        read(0, 1);
        assert_eq!((read(512, 1), read(1024, 2)), (1, 1));
        drop(ahead.write());
        assert_eq!(read(1536, 3), 3);
        assert_eq!(read(2048, 4), 3);
        let writing = ahead.write();
        assert_eq!((read(2560, 5), read(3072, 6)), (5, 6));
        drop(writing);
        // One that began before the write ended keeps nothing.
        let fetch = |range: Range| {
            drop(ahead.write());
            Ok::<_, ()>(bytes(range))
        };
        ahead.read(Range::new(3584, 512), SIZE, fetch).unwrap();
        assert_eq!(read(4096, 9), 9);
    }

    #[test]
    fn who_opens_the_file_sees_what_others_wrote_to_the_server() {
        let ahead = Ahead::new(FOREVER);
        let read = |at, fill| read_one_of(&ahead, at, fill);
        read(0, 1);
        assert_eq!((read(512, 1), read(1024, 2)), (1, 1));
        ahead.forget();
        assert_eq!(read(1536, 3), 3);
    }

    #[test]
    fn what_is_old_is_read_again() {
        let ahead = Ahead::new(Duration::ZERO);
        assert!((0..10).all(|n| read_one_of(&ahead, n * 512, n as u8) == n as u8));
    }

    #[test]
    fn an_error_further_on_does_not_matter_yet() {
        let ahead = Ahead::new(FOREVER);
        let fetch = |range: Range| if range.end() > 2048 { Err(range.start) } else { Ok(bytes(range)) };
        for at in [0, 512, 1024, 1536] {
            ahead.read(Range::new(at, 512), SIZE, fetch).unwrap();
        }
        assert_eq!(ahead.read(Range::new(2048, 512), SIZE, fetch).unwrap_err(), 2048);
    }

    #[test]
    fn several_who_read_in_a_row_do_not_disturb_each_other() {
        let (ahead, asked) = (Ahead::new(FOREVER), RefCell::new(0));
        let fetch = |range: Range| {
            *asked.borrow_mut() += 1;
            Ok::<_, ()>(bytes(range))
        };
        for at in (0..SIZE / 4).step_by(4096) {
            for start in [0, 3 << 20, 6 << 20] {
                let range = Range::new(start + at, 4096);
                assert_eq!(ahead.read(range, SIZE, fetch).unwrap().to_vec(), bytes(range).to_vec());
            }
        }
        assert!(asked.into_inner() < 40);
    }

    #[test]
    fn how_far_a_server_is_shows_in_its_answers() {
        let mut state = State::default();
        let mut after = |length, micros| {
            state.note(length, Duration::from_micros(micros));
            state.is_far()
        };
        assert!(!after(4096, 2000), "once is no custom");
        assert!(!after(4096, 50));
        assert!(!after(SMALL, 2000));
        assert!(after(MOST, 6000));
        assert!(after(MOST, 4000), "most of that is the length");
        assert!(!after(MOST, 2000));
    }

    /// Calls `then` while a thread fetches with `fetch`.
    fn with_fetcher(ahead: &Ahead, fetch: impl Fn(Range) -> Result<Data, ()> + Send, then: impl FnOnce()) {
        struct Ends<'a>(&'a Ahead);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| ahead.fetch(fetch));
            let _ends = Ends(ahead);
            while ahead.state().fetchers == 0 {
                std::thread::yield_now();
            }
            then();
        });
    }

    /// So long that it is far away, whatever its length.
    fn far_away() {
        std::thread::sleep(Duration::from_millis(10));
    }

    fn somebody_waits(ahead: &Ahead) -> bool {
        ahead.state().streams.iter().any(|stream| stream.waited)
    }

    #[test]
    fn what_is_far_away_is_under_way_before_it_is_asked_for() {
        let (ahead, asked) = (Ahead::new(FOREVER), Mutex::new(Vec::new()));
        let fetcher = |range: Range| {
            asked.lock().unwrap().push(range.len);
            far_away();
            while !somebody_waits(&ahead) {
                std::thread::yield_now();
            }
            Ok(bytes(range))
        };
        let alone = RefCell::new(0);
        with_fetcher(&ahead, fetcher, || {
            for at in (0..SIZE).step_by(SMALL as usize) {
                let range = Range::new(at, SMALL);
                let fetch = |range| {
                    *alone.borrow_mut() += 1;
                    far_away();
                    Ok::<_, ()>(bytes(range))
                };
                assert_eq!(ahead.read(range, SIZE, fetch).unwrap().to_vec(), bytes(range).to_vec());
            }
        });
        assert_eq!(alone.into_inner(), 3);
        let asked = asked.into_inner().unwrap();
        assert_eq!(asked[..6], [2, 4, 8, 16, 32, 15].map(|n| n * SMALL));
    }

    #[test]
    fn what_is_under_way_when_something_is_written_is_not_read() {
        let ahead = Ahead::new(FOREVER);
        let ((go, wait), (begin, begun)) = (mpsc::channel::<()>(), mpsc::channel());
        let fetcher = move |range: Range| {
            let _ = begin.send(());
            let fill = if wait.recv().is_ok() { 1 } else { 2 };
            far_away();
            Ok(Data::copy_from(&vec![fill; range.len as usize]))
        };
        with_fetcher(&ahead, fetcher, || {
            let read = |at: u64, fill: u8| {
                let fetch = |range: Range| {
                    far_away();
                    Ok::<_, ()>(Data::copy_from(&vec![fill; range.len as usize]))
                };
                ahead.read(Range::new(at * SMALL, SMALL), SIZE, fetch).unwrap().to_vec()[0]
            };
            // The fetcher is sent for the fourth, and keeps who needs that waiting.
            assert_eq!([read(0, 1), read(1, 1), read(2, 1)], [1; 3]);
            begun.recv().unwrap();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| read(3, 2));
                while !somebody_waits(&ahead) {
                    std::thread::yield_now();
                }
                drop(ahead.write());
                assert_eq!(waits.join().unwrap(), 2, "who waited reads what there is now");
            });
            // The fetcher comes with its old bytes; what it is sent for later is new.
            go.send(()).unwrap();
            drop(go);
            assert!((4..SIZE / SMALL).all(|n| read(n, 2) == 2));
        });
    }
}
