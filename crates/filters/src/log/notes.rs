//! What a thread notes of its requests until that becomes lines: a ring of its own, which it alone fills and whoever
//! holds the journal's lock empties. Behind the payload of a write every locked instruction waits until all bytes have
//! left the processor's store buffer; here is none. A request that is answered before the next one comes, as almost all
//! are, takes one note: when it was answered is added to it.

use super::line::{Line, Text};
use disk::{Range, WriteFlags, ZeroFlags};
use std::sync::{
    OnceLock,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Notes are made in parts of so many, each when it is first needed.
const PART: u64 = 128;
const PARTS: u64 = 64;
/// As many notes wait on a thread at most.
const ROOM: u64 = PART * PARTS;

/// With more, the writer is woken before its time.
const MANY: u64 = ROOM / 4 * 3;

/// Whether this is a good place to look whether there are many.
#[inline(always)]
pub(super) fn is_end_of_part(place: u64) -> bool {
    place % PART == PART - 1
}

/// The place of a note that is in no ring.
pub(super) const NOWHERE: u64 = u64::MAX;

/// A request in a few words, enough for its lines. What concerns all bytes has no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) connection: u64,
    /// From 1 on, below 2^48, which takes years to reach.
    pub(super) id: u64,
    pub(super) act: Act,
    pub(super) flags: u8,
    pub(super) range: Range,
}

/// What the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Read,
    Write,
    Zero,
    Trim,
    Flush,
    Cache,
}

impl Act {
    pub(super) const ALL: [Act; 6] = [Act::Read, Act::Write, Act::Zero, Act::Trim, Act::Flush, Act::Cache];

    fn name(self) -> &'static str {
        ["Read", "Write", "Zero", "Trim", "Flush", "Cache"][self as usize]
    }
}

/// It is answered, with success.
const LEAVE: u8 = 1;
const FUA: u8 = 2;
const TRIM: u8 = 4;
const FAST: u8 = 8;

pub(super) fn write_flags(f: WriteFlags) -> u8 {
    if f.fua { FUA } else { 0 }
}

pub(super) fn zero_flags(f: ZeroFlags) -> u8 {
    [(f.fua, FUA), (f.may_trim, TRIM), (f.fast, FAST)].iter().map(|(on, flag)| u8::from(*on) * flag).sum()
}

impl Note {
    #[inline]
    pub(super) fn is_answer(&self) -> bool {
        self.flags & LEAVE != 0
    }

    /// What else a line says of it as it comes: names in bytes that are copied all, and how many count.
    #[inline]
    pub(super) fn switches(&self) -> impl Iterator<Item = (&'static [u8; 8], usize, bool)> {
        const ALL: [(&[u8; 8], usize, u8); 3] =
            [(b" trim=  ", 6, TRIM), (b" fua=   ", 5, FUA), (b" fast=  ", 6, FAST)];
        let some = match self.act {
            Act::Zero => 0..3,
            Act::Write | Act::Trim => 1..2,
            Act::Read | Act::Flush | Act::Cache => 0..0,
        };
        let flags = self.flags;
        ALL[some].iter().map(move |(name, len, flag)| (*name, *len, flags & flag != 0))
    }

    /// What it is about, for a script.
    pub(super) fn line(&self) -> Line {
        let line = Line::enter(self.act.name(), self.id).on(self.connection);
        if self.is_answer() { line.leave() } else { line }
    }

    /// What else its line says.
    pub(super) fn say<'a>(&self, out: &'a mut Text) -> &'a mut Text {
        if self.is_answer() {
            return out.str("return=0");
        }
        let out = if self.act == Act::Flush { out } else { out.range(self.range) };
        self.switches().fold(out, |out, (name, len, on)| {
            out.0.extend_from_slice(&name[..len]);
            out.str(if on { "1" } else { "0" })
        })
    }

    /// That the request with this number was answered.
    #[inline]
    pub(super) fn answered(act: Act, id: u64, connection: u64) -> Note {
        Note { connection, id, act, flags: LEAVE, range: Range::new(0, 0) }
    }
}

/// When it was noted; how long the answer took (or 0), above the length; number, act and flags; where it begins. So a
/// line of the cache has two: behind a write each one more is waited for.
type Packed = [AtomicU64; 4];

/// In the place of an act: from here on, requests are of the connection with this number.
const CONNECTION: u8 = 0xFF;

fn what(id: u64, act: u8, flags: u8) -> u64 {
    id << 16 | u64::from(act) << 8 | u64::from(flags)
}

/// The ring of a thread. Times are in ticks.
pub(super) struct Notes {
    /// The ring's number, not 0: no two threads have one ring at the same time.
    pub(super) thread: u64,
    parts: [OnceLock<Box<[Packed; PART as usize]>>; PARTS as usize],
    /// So many notes were made, and of which connection the last was.
    made: AtomicU64,
    connection: AtomicU64,
    /// So many were taken, and of which connection the last was.
    taken: AtomicU64,
    taken_of: AtomicU64,
    /// Of the next one to take, the line that it came has been made.
    half: AtomicBool,
}

impl Default for Notes {
    fn default() -> Notes {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let (made, connection, taken, taken_of, half) = Default::default();
        Notes {
            thread: LAST.fetch_add(1, Relaxed) + 1,
            parts: [const { OnceLock::new() }; PARTS as usize],
            made,
            connection,
            taken,
            taken_of,
            half,
        }
    }
}

impl Notes {
    /// Adds a note of this time, and returns its place, or `None` when there is no room until some notes are taken, or
    /// never for such a one. Only the thread whose ring it is does so. The note stays in registers: what is put down in
    /// pieces and taken up as a whole waits for the store buffer, too.
    #[inline(always)]
    pub(super) fn push(&self, time: u64, note: Note) -> Option<u64> {
        if self.connection.load(Relaxed) != note.connection && !self.connect(note.connection) {
            return None;
        }
        if note.range.len >> 32 != 0 {
            return None;
        }
        self.put(time, note.range.len, what(note.id, note.act as u8, note.flags), note.range.start)
    }

    #[inline(always)]
    fn put(&self, time: u64, len: u64, what: u64, start: u64) -> Option<u64> {
        let made = self.made.load(Relaxed);
        if made - self.taken.load(Acquire) == ROOM {
            return None;
        }
        let part = self.parts[(made / PART % PARTS) as usize].get_or_init(empty);
        let words = &part[(made % PART) as usize];
        words[0].store(time, Relaxed);
        words[1].store(len, Relaxed);
        words[2].store(what, Relaxed);
        words[3].store(start, Relaxed);
        self.made.store(made + 1, Release);
        Some(made)
    }

    #[cold]
    fn connect(&self, connection: u64) -> bool {
        let done = self.put(0, 0, what(connection, CONNECTION, 0), 0).is_some();
        if done {
            self.connection.store(connection, Relaxed);
        }
        done
    }

    /// Adds to the note at a place that its request was answered at this time, if it is the last one. Only the thread whose
    /// ring it is does so.
    #[inline(always)]
    pub(super) fn answer(&self, place: u64, time: u64) -> bool {
        if place == NOWHERE || self.made.load(Relaxed) != place + 1 {
            return false;
        }
        let Some(part) = self.parts[(place / PART % PARTS) as usize].get() else { return false };
        let [came, answered, ..] = &part[(place % PART) as usize];
        let took = time.saturating_sub(came.load(Relaxed)).max(1);
        if took >> 32 != 0 {
            return false;
        }
        answered.store(took << 32 | answered.load(Relaxed), Relaxed);
        true
    }

    /// Whether soon there is no more room.
    pub(super) fn are_many(&self) -> bool {
        self.made.load(Relaxed) - self.taken.load(Relaxed) > MANY
    }

    /// The notes that there are, the oldest first. Only one thread at a time may look.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        let (at, half) = (self.taken.load(Relaxed), self.half.load(Relaxed));
        let connection = self.taken_of.load(Relaxed);
        Waiting { notes: self, at, half, connection, made: self.made.load(Acquire) }
    }
}

#[cold]
fn empty() -> Box<[Packed; PART as usize]> {
    Box::new([const { [const { AtomicU64::new(0) }; 4] }; PART as usize])
}

/// Notes of a thread, from one on; each is there twice if it has been answered.
pub(super) struct Waiting<'a> {
    notes: &'a Notes,
    at: u64,
    half: bool,
    connection: u64,
    made: u64,
}

impl Waiting<'_> {
    /// The next one, and its time.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<(u64, Note)> {
        while self.at != self.made {
            let part = self.notes.parts[(self.at / PART % PARTS) as usize].get()?;
            let [came, answered, what, start] =
                std::array::from_fn(|i| part[(self.at % PART) as usize][i].load(Relaxed));
            let (id, act, connection) = (what >> 16, (what >> 8) as u8, self.connection);
            if act == CONNECTION {
                (self.at, self.connection) = (self.at + 1, id);
                continue;
            }
            let act = Act::ALL[act as usize % Act::ALL.len()];
            if !self.half {
                let range = Range::new(start, answered & u64::from(u32::MAX));
                return Some((came, Note { connection, id, act, flags: what as u8, range }));
            }
            match answered >> 32 {
                0 if self.at + 1 == self.made => return None,
                // There are others behind it, so this will not be added any more.
                0 => (self.at, self.half) = (self.at + 1, false),
                took => return Some((came + took, Note::answered(act, id, connection))),
            }
        }
        None
    }

    /// Goes on to what is behind this one.
    #[inline]
    pub(super) fn skip(&mut self, note: &Note) {
        self.half = !note.is_answer();
        self.at += u64::from(note.is_answer());
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.notes.half.store(self.half, Relaxed);
        self.notes.taken_of.store(self.connection, Relaxed);
        // The room of what was passed is free.
        self.notes.taken.store(self.at, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(id: u64) -> Note {
        let range = Range::new(id * 512, 512);
        Note { connection: 0, id, act: Act::ALL[id as usize % 6], flags: (id as u8 % 16) & !LEAVE, range }
    }

    /// What comes out next: its time, its number and whether it is an answer.
    fn take(waiting: &mut Waiting<'_>) -> Option<(u64, u64, bool)> {
        let (time, next) = waiting.peek()?;
        let asked = note(next.id);
        let answered = Note::answered(asked.act, asked.id, asked.connection);
        let expected = if next.is_answer() { answered } else { asked };
        assert_eq!(next, expected);
        waiting.skip(&next);
        Some((time, next.id, next.is_answer()))
    }

    #[test]
    fn notes_come_out_as_they_went_in_and_leave_room() {
        let notes = Notes::default();
        let (mut made, mut taken) = (0, 0);
        for turn in 0..20 {
            while let Some(place) = notes.push(made * 2, note(made + 1)) {
                assert_eq!(place, made);
                assert!(notes.answer(place, made * 2 + 1));
                made += 1;
            }
            assert_eq!(made - taken / 2, ROOM);
            let mut waiting = notes.waiting();
            for _ in 0..turn * 2001 {
                let Some(next) = take(&mut waiting) else { break };
                assert_eq!(next, (taken, taken / 2 + 1, taken % 2 == 1));
                taken += 1;
            }
        }
        assert!(taken > ROOM * 20);
    }

    #[test]
    fn an_answer_that_comes_after_another_request_is_a_note_of_its_own() {
        let notes = Notes::default();
        let all = || -> Vec<_> {
            let mut waiting = notes.waiting();
            std::iter::from_fn(|| take(&mut waiting)).collect()
        };
        let first = notes.push(10, note(1)).unwrap();
        assert_eq!(all(), [(10, 1, false)]);
        assert_eq!(all(), []);
        let second = notes.push(20, note(2)).unwrap();
        assert!(!notes.answer(first, 30));
        assert_eq!(all(), [(20, 2, false)]);
        assert!(notes.answer(second, 40));
        notes.push(50, Note::answered(note(1).act, 1, 0)).unwrap();
        assert_eq!(all(), [(40, 2, true), (50, 1, true)]);
        let third = notes.push(60, note(3)).unwrap();
        assert!(notes.answer(third, 70));
        assert_eq!(all(), [(60, 3, false), (70, 3, true)]);
        assert_eq!(all(), []);
    }

    #[test]
    fn each_note_is_of_its_connection_and_what_is_too_long_is_no_note() {
        let notes = Notes::default();
        for connection in [1, 1, 7, 1 << 40, 7] {
            let note = Note { connection, ..note(5) };
            let place = notes.push(10, note).unwrap();
            assert!(notes.answer(place, 12));
            let mut waiting = notes.waiting();
            assert_eq!(waiting.peek(), Some((10, note)));
            waiting.skip(&note);
            let answered = Note::answered(note.act, 5, connection);
            assert_eq!(waiting.peek(), Some((12, answered)));
            waiting.skip(&answered);
        }
        assert_eq!(notes.push(0, Note { range: Range::new(0, 1 << 32), ..note(6) }), None);
        let place = notes.push(100, note(6)).unwrap();
        assert!(!notes.answer(place, 100 + (1 << 32)), "it takes too long");
        assert!(notes.answer(place, 99), "a counter may step back by a little");
        assert_eq!(notes.waiting().peek(), Some((100, Note { connection: 0, ..note(6) })));
    }

    #[test]
    fn one_thread_makes_notes_while_another_takes_them() {
        const COUNT: u64 = 50_000;
        let notes = Notes::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 1..=COUNT {
                    let place = std::iter::from_fn(|| {
                        std::thread::yield_now();
                        Some(notes.push(id * 2, note(id)))
                    });
                    let place = place.flatten().next().unwrap();
                    assert!(notes.answer(place, id * 2 + 1));
                }
            });
            let mut taken = 2;
            while taken < COUNT * 2 + 2 {
                let mut waiting = notes.waiting();
                while let Some(next) = take(&mut waiting) {
                    assert_eq!(next, (taken, taken / 2, taken % 2 == 1));
                    taken += 1;
                }
                drop(waiting);
                std::thread::yield_now();
            }
        });
    }
}
