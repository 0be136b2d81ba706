//! Small reads in a row are answered out of a larger one.
//!
//! What was read ahead serves the reads that follow, for a moment at most, and never past a write, nor past the next time
//! that the file is opened. A program that wants every
//! read to reach the server opens the file with `O_DIRECT`.

use disk::{Data, Range};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Reads of so many bytes and more are long enough.
const SMALL: u64 = 128 << 10;
/// How far the first read ahead goes, in bytes; each one that follows goes twice as far.
const FIRST: u64 = 64 << 10;
const MOST: u64 = 512 << 10;
/// So long what was read ahead is good.
const GOOD: Duration = Duration::from_secs(1);

/// What was read ahead.
#[derive(Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the last read ended.
    next: u64,
    /// How far the last one went ahead.
    window: u64,
    kept: Option<(Range, Data, Instant)>,
    /// Writes that are under way.
    writing: u32,
    /// How often what was read became worthless.
    forgotten: u64,
}

impl State {
    /// What is on its way is not kept either.
    fn forget(&mut self) {
        self.kept = None;
        self.forgotten += 1;
    }
}

impl Ahead {
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
        let in_a_row = state.next == range.start && range.start > 0;
        state.next = range.end();
        if let Some((kept, data, since)) = &state.kept
            && kept.start <= range.start
            && range.end() <= kept.end()
            && since.elapsed() < GOOD
        {
            return Ok(data.slice(range.start - kept.start, range.len));
        }
        if !in_a_row || range.len >= SMALL || state.writing > 0 {
            state.window = 0;
            drop(state);
            return fetch(range);
        }
        state.window = (state.window * 2).clamp(FIRST, MOST);
        let longer = Range::new(range.start, state.window.max(range.len).min(size - range.start));
        let (forgotten, since) = (state.forgotten, Instant::now());
        drop(state);
        // An error further on is none of this range.
        let Ok(data) = fetch(longer) else { return fetch(range) };
        let wanted = data.slice(0, range.len);
        let mut state = self.state();
        if state.forgotten == forgotten {
            state.kept = Some((longer, data, since));
        }
        Ok(wanted)
    }

    /// Before what was read is changed; until the guard is dropped, nothing is kept.
    pub(crate) fn write(&self) -> Writing<'_> {
        let mut state = self.state();
        state.forget();
        state.writing += 1;
        Writing(self)
    }

    /// Before the file is opened: who opens it sees what the server has then.
    pub(crate) fn forget(&self) {
        self.state().forget();
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
    use std::cell::RefCell;

    const SIZE: u64 = 10 << 20;

    fn bytes(range: Range) -> Data {
        Data::copy_from(&(range.start..range.end()).map(|at| (at / 512) as u8).collect::<Vec<_>>())
    }

    #[test]
    fn a_row_of_small_reads_makes_few_long_ones() {
        let (ahead, asked) = (Ahead::default(), RefCell::new(Vec::new()));
        let fetch = |range: Range| {
            asked.borrow_mut().push(range.len);
            Ok::<_, ()>(bytes(range))
        };
        for at in (0..SIZE).step_by(4096) {
            let range = Range::new(at, 4096);
            assert_eq!(ahead.read(range, SIZE, fetch).unwrap().to_vec(), bytes(range).to_vec());
        }
        let asked = asked.into_inner();
        assert_eq!(asked[..5], [4096, FIRST, 2 * FIRST, 4 * FIRST, MOST]);
        assert!(asked.len() < 30, "{asked:?}");
    }

    #[test]
    fn reads_here_and_there_are_not_stretched() {
        let ahead = Ahead::default();
        for at in [0, 1 << 20, 4096, 5 << 20, 2 << 20] {
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
        let ahead = Ahead::default();
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
        let ahead = Ahead::default();
        let read = |at, fill| read_one_of(&ahead, at, fill);
        read(0, 1);
        assert_eq!((read(512, 1), read(1024, 2)), (1, 1));
        ahead.forget();
        assert_eq!(read(1536, 3), 3);
    }

    #[test]
    fn an_error_further_on_does_not_matter_yet() {
        let ahead = Ahead::default();
        let fetch = |range: Range| if range.end() > 2048 { Err(range.start) } else { Ok(bytes(range)) };
        for at in [0, 512, 1024, 1536] {
            ahead.read(Range::new(at, 512), SIZE, fetch).unwrap();
        }
        assert_eq!(ahead.read(Range::new(2048, 512), SIZE, fetch).unwrap_err(), 2048);
    }
}
