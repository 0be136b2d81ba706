//! What a thread notes of its requests until that becomes lines: a ring of its own, which it alone fills and whoever
//! holds the journal's lock empties. Behind the payload of a write every locked instruction waits until all bytes have
//! left the processor's store buffer; here is none.

use super::line::{Line, Text};
use disk::{Range, WriteFlags, ZeroFlags};
use std::sync::{
    OnceLock,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Notes are made in parts of so many, each when it is first needed.
const PART: u64 = 128;
const PARTS: u64 = 32;
/// As many notes wait on a thread at most.
const ROOM: u64 = PART * PARTS;

/// A request in a few words, enough for its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Nanoseconds on the machine's own clock; set when the note is added.
    pub(super) time: u64,
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

    /// What else a line says of it as it comes.
    #[inline]
    pub(super) fn switches(&self) -> impl Iterator<Item = (&'static [u8], bool)> {
        const ALL: [(&[u8], u8); 3] = [(b" trim", TRIM), (b" fua", FUA), (b" fast", FAST)];
        let some = match self.act {
            Act::Zero => 0..3,
            Act::Write | Act::Trim => 1..2,
            Act::Read | Act::Flush | Act::Cache => 0..0,
        };
        let flags = self.flags;
        ALL[some].iter().map(move |(name, flag)| (*name, flags & flag != 0))
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
        self.switches().fold(out, |out, (name, on)| {
            out.0.extend_from_slice(name);
            out.str(if on { "=1" } else { "=0" })
        })
    }

    /// That the request with this number was answered.
    #[inline]
    pub(super) fn answered(act: Act, id: u64, connection: u64) -> Note {
        Note { time: 0, connection, id, act, flags: LEAVE, range: Range::new(0, 0) }
    }

    #[inline]
    fn unpack(packed: &Packed) -> Note {
        let [time, connection, what, start, len] = std::array::from_fn(|i| packed[i].load(Relaxed));
        let act = Act::ALL[(what >> 8) as usize % 256 % Act::ALL.len()];
        Note { time, connection, id: what >> 16, act, flags: what as u8, range: Range::new(start, len) }
    }
}

type Packed = [AtomicU64; 5];

/// The ring of a thread.
pub(super) struct Notes {
    /// The thread's, not 0.
    pub(super) thread: u64,
    parts: [OnceLock<Box<[Packed; PART as usize]>>; PARTS as usize],
    /// So many notes were made, and so many taken.
    made: AtomicU64,
    taken: AtomicU64,
}

impl Default for Notes {
    fn default() -> Notes {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let (made, taken) = Default::default();
        Notes {
            thread: LAST.fetch_add(1, Relaxed) + 1,
            parts: [const { OnceLock::new() }; PARTS as usize],
            made,
            taken,
        }
    }
}

impl Notes {
    /// Adds a note of this time, and returns the number of its request, or 0 when there is no room until some notes are
    /// taken. Only the thread whose ring it is does so. The note stays in registers: what is put down in pieces and taken
    /// up as a whole waits for the store buffer, too.
    #[inline]
    pub(super) fn push(&self, time: u64, make: impl Fn(u64) -> Note) -> u64 {
        let made = self.made.load(Relaxed);
        if made - self.taken.load(Acquire) == ROOM {
            return 0;
        }
        let part = self.parts[(made / PART % PARTS) as usize].get_or_init(empty);
        let [first, second, third, fourth, fifth] = &part[(made % PART) as usize];
        let note = make(self.thread);
        first.store(time, Relaxed);
        second.store(note.connection, Relaxed);
        third.store(note.id << 16 | (note.act as u64) << 8 | u64::from(note.flags), Relaxed);
        fourth.store(note.range.start, Relaxed);
        fifth.store(note.range.len, Relaxed);
        self.made.store(made + 1, Release);
        note.id
    }

    /// The notes that there are, the oldest first. Only one thread at a time may look.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        Waiting { notes: self, at: self.taken.load(Relaxed), made: self.made.load(Acquire) }
    }
}

#[cold]
fn empty() -> Box<[Packed; PART as usize]> {
    Box::new([const { [const { AtomicU64::new(0) }; 5] }; PART as usize])
}

/// Notes of a thread, from one on.
pub(super) struct Waiting<'a> {
    notes: &'a Notes,
    at: u64,
    made: u64,
}

impl Waiting<'_> {
    /// The next one.
    #[inline]
    pub(super) fn peek(&self) -> Option<Note> {
        if self.at == self.made {
            return None;
        }
        let part = self.notes.parts[(self.at / PART % PARTS) as usize].get()?;
        Some(Note::unpack(&part[(self.at % PART) as usize]))
    }

    /// Goes on to the one behind it.
    #[inline]
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The room of what was passed is free.
        self.notes.taken.store(self.at, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(id: u64) -> Note {
        let range = Range::new(id * 512, 512);
        Note { time: id, connection: 3, id, act: Act::ALL[id as usize % 6], flags: id as u8 % 16, range }
    }

    #[test]
    fn notes_come_out_as_they_went_in_and_leave_room() {
        let notes = Notes::default();
        let (mut made, mut taken) = (0, 0);
        for turn in 0..20 {
            while notes.push(made + 1, |_| note(made + 1)) != 0 {
                made += 1;
            }
            assert_eq!(made - taken, ROOM);
            let mut waiting = notes.waiting();
            for _ in 0..turn * 400 {
                let Some(next) = waiting.peek() else { break };
                assert_eq!(next, note(taken + 1));
                waiting.skip();
                taken += 1;
            }
        }
        assert!(taken > ROOM * 10);
    }

    #[test]
    fn one_thread_makes_notes_while_another_takes_them() {
        const COUNT: u64 = 50_000;
        let notes = Notes::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 1..=COUNT {
                    while notes.push(id, |_| note(id)) == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut taken = 0;
            while taken < COUNT {
                let mut waiting = notes.waiting();
                while let Some(next) = waiting.peek() {
                    assert_eq!(next, note(taken + 1));
                    waiting.skip();
                    taken += 1;
                }
                drop(waiting);
                std::thread::yield_now();
            }
        });
    }
}
