//! The pieces of a trace: which are still to be read, under way, here, or no longer of interest.

use disk::{Blocks, Data, Range, Result};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

/// The longest piece, in bytes.
pub(super) const LONGEST: u64 = 1 << 20;
/// After so many reads in a row that the trace does not know, or knows as past, it is given up: whoever reads is no
/// longer doing what was done then.
const ASTRAY: u32 = 2000;

/// The pieces of one export. While the trace is read ahead, each request takes a lock for a moment; then none does.
pub(super) struct Pieces {
    state: Mutex<State>,
    /// There is room, or it is over.
    changed: Condvar,
    /// Nothing is here, on its way, or wanted any more: then requests need not look, and take no lock.
    quiet: AtomicBool,
    window: u64,
}

struct State {
    /// In the order of reading; they do not overlap.
    all: Vec<Piece>,
    /// Their numbers in the order of the disk.
    by_start: Vec<u32>,
    /// The first that was never considered.
    next: usize,
    /// The numbers of those that are here, so that the oldest is found.
    here: BTreeSet<u32>,
    /// Bytes under way or here.
    held: u64,
    /// The farthest piece that was read by a client.
    reached: u32,
    astray: u32,
    over: bool,
    hits: u64,
    misses: u64,
}

struct Piece {
    range: Range,
    state: Life,
}

enum Life {
    Wanted,
    /// Under way; who waits for it.
    Coming(Vec<Waker>),
    Here {
        data: Data,
        /// So many of its bytes have been read.
        used: u64,
    },
    Past,
}

/// What is known of a range that a client reads.
pub(super) enum Answer<'a> {
    Here(Data),
    /// It comes soon; `None` in the end: it is absent after all.
    Coming(std::pin::Pin<Box<dyn Future<Output = Option<Data>> + Send + 'a>>),
    Absent,
}

impl Pieces {
    /// Pieces of parts, as a disk of such blocks can be read.
    pub(super) fn new(parts: &[Range], blocks: Blocks, window: u64) -> Pieces {
        let longest = LONGEST.min(blocks.maximum.into());
        let block = u64::from(blocks.minimum);
        let mut all = Vec::new();
        for part in parts {
            // Of blocks larger than the units of a trace, neighbours share one: it belongs to the first.
            let (start, end) = (part.start.next_multiple_of(block), part.end() - part.end() % block);
            let whole = Range::new(start, end.saturating_sub(start));
            let pieces = whole.split_at_multiples(longest).filter(|range| !range.is_empty());
            all.extend(pieces.map(|range| Piece { range, state: Life::Wanted }));
        }
        let mut by_start: Vec<u32> = (0..all.len() as u32).collect();
        by_start.sort_by_key(|number| all[*number as usize].range.start);
        let state = State {
            all,
            by_start,
            next: 0,
            here: BTreeSet::new(),
            held: 0,
            reached: 0,
            astray: 0,
            over: false,
            hits: 0,
            misses: 0,
        };
        Pieces { state: Mutex::new(state), changed: Condvar::new(), quiet: AtomicBool::new(false), window }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called when something may have been the last.
    fn quieten(&self, state: &State) {
        if state.held == 0 && (state.over || state.next >= state.all.len()) {
            self.quiet.store(true, SeqCst);
        }
    }

    /// The next piece to read, if there is one and room for it.
    pub(super) fn next(&self) -> Option<(u32, Range)> {
        let mut state = self.state();
        while !state.over {
            let number = state.next;
            let piece = state.all.get(number)?;
            let range = piece.range;
            if matches!(piece.state, Life::Wanted) {
                while state.held + range.len > self.window {
                    // What was passed by goes first.
                    let oldest = *state.here.first()?;
                    if oldest >= state.reached {
                        return None;
                    }
                    state.discard(oldest);
                }
                state.held += range.len;
                state.all[number].state = Life::Coming(Vec::new());
                state.next += 1;
                return Some((number as u32, range));
            }
            state.next += 1;
        }
        None
    }

    /// Waits until there is something to read and room for it; `false`: there will not be.
    pub(super) fn wait_for_room(&self) -> bool {
        let mut state = self.state();
        loop {
            let Some(len) = state.all.get(state.next).map(|piece| piece.range.len) else { return false };
            if state.over {
                return false;
            }
            let passed = state.here.first().is_some_and(|oldest| *oldest < state.reached);
            if passed || state.held + len <= self.window {
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A piece has come, or failed to: then whoever wants it will ask for it and be told.
    pub(super) fn came(&self, number: u32, outcome: Result<Data>) {
        let mut state = self.state();
        let piece = &mut state.all[number as usize];
        let len = piece.range.len;
        let waiting = match std::mem::replace(&mut piece.state, Life::Past) {
            Life::Coming(waiting) => waiting,
            // It was written to meanwhile.
            _ => {
                state.held -= len;
                self.quieten(&state);
                return;
            }
        };
        match outcome {
            Ok(data) if !state.over => {
                state.all[number as usize].state = Life::Here { data, used: 0 };
                state.here.insert(number);
            }
            Ok(_) => state.held -= len,
            Err(e) => {
                tracing::debug!(target: "diskpipe", "prefetch: what was not asked for could not be read: {e}");
                state.held -= len;
            }
        }
        self.quieten(&state);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// What a client gets that reads a range.
    pub(super) fn read(&self, r: Range) -> Answer<'_> {
        if self.quiet.load(SeqCst) {
            return Answer::Absent;
        }
        let mut state = self.state();
        match state.look(r) {
            Look::Here => Answer::Here(self.take(&mut state, r)),
            Look::Coming => Answer::Coming(Box::pin(self.wait_for(r))),
            Look::Absent => {
                self.missed(&mut state, r);
                Answer::Absent
            }
        }
    }

    async fn wait_for(&self, r: Range) -> Option<Data> {
        poll_fn(|cx| {
            let mut state = self.state();
            match state.look(r) {
                Look::Here => Poll::Ready(Some(self.take(&mut state, r))),
                Look::Absent => {
                    self.missed(&mut state, r);
                    Poll::Ready(None)
                }
                Look::Coming => {
                    for number in state.over_range(r) {
                        if let Life::Coming(waiting) = &mut state.all[number as usize].state
                            && !waiting.iter().any(|waker| waker.will_wake(cx.waker()))
                        {
                            waiting.push(cx.waker().clone());
                        }
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The bytes of a range that is here. What has been read whole is let go.
    fn take(&self, state: &mut State, r: Range) -> Data {
        let mut parts = Vec::new();
        for number in state.over_range(r) {
            let piece = &mut state.all[number as usize];
            let (Some(part), Life::Here { data, used }) = (piece.range.intersect(r), &mut piece.state) else {
                continue;
            };
            parts.push(data.slice(part.start - piece.range.start, part.len));
            *used += part.len;
            if *used >= piece.range.len {
                state.discard(number);
            }
            state.reached = state.reached.max(number);
        }
        state.hits += 1;
        state.astray = 0;
        self.quieten(state);
        self.changed.notify_one();
        if parts.len() == 1 { parts.remove(0) } else { Data::join(parts) }
    }

    /// A client reads below what is not here: it need not be read ahead any more.
    fn missed(&self, state: &mut State, r: Range) {
        state.misses += 1;
        state.astray += 1;
        for number in state.over_range(r) {
            let piece = &mut state.all[number as usize];
            if matches!(piece.state, Life::Wanted) {
                state.astray = 0;
                if piece.range.start >= r.start && piece.range.end() <= r.end() {
                    piece.state = Life::Past;
                }
                state.reached = state.reached.max(number);
            }
        }
        if state.astray >= ASTRAY && !state.over {
            tracing::debug!(target: "diskpipe", "prefetch: given up, for other things are read than the trace says");
            self.end_of(state);
        }
        self.quieten(state);
    }

    /// A client writes to a range: what was read, or is being read, is of no use.
    pub(super) fn forget(&self, r: Range) {
        if self.quiet.load(SeqCst) {
            return;
        }
        let mut state = self.state();
        let mut waiting = Vec::new();
        for number in state.over_range(r) {
            match &mut state.all[number as usize].state {
                Life::Wanted => state.all[number as usize].state = Life::Past,
                // Its bytes count until it has come.
                Life::Coming(wakers) => {
                    waiting.append(wakers);
                    state.all[number as usize].state = Life::Past;
                }
                Life::Here { .. } => state.discard(number),
                Life::Past => {}
            }
        }
        self.quieten(&state);
        drop(state);
        self.changed.notify_one();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Reads nothing ahead any more, and lets everything go.
    pub(super) fn end(&self) {
        self.end_of(&mut self.state());
    }

    fn end_of(&self, state: &mut State) {
        state.over = true;
        for number in std::mem::take(&mut state.here) {
            state.discard(number);
        }
        self.quieten(state);
        self.changed.notify_one();
    }

    /// How many reads were answered from memory, and how many were not.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.hits, state.misses)
    }
}

enum Look {
    Here,
    Coming,
    Absent,
}

impl State {
    /// The numbers of the pieces that have bytes of a range, in the order of the disk.
    fn over_range(&self, r: Range) -> Vec<u32> {
        let end_of = |number: u32| self.all[number as usize].range.end();
        let first = self.by_start.partition_point(|number| end_of(*number) <= r.start);
        let touches = |number: &u32| self.all[*number as usize].range.start < r.end();
        self.by_start[first..].iter().copied().take_while(touches).collect()
    }

    /// Whether all bytes of a range are here, or will be.
    fn look(&self, r: Range) -> Look {
        let mut at = r.start;
        let mut coming = false;
        for number in self.over_range(r) {
            let piece = &self.all[number as usize];
            match piece.state {
                _ if piece.range.start > at => return Look::Absent,
                Life::Here { .. } => {}
                Life::Coming(_) => coming = true,
                Life::Wanted | Life::Past => return Look::Absent,
            }
            at = piece.range.end();
        }
        match at < r.end() {
            true => Look::Absent,
            false if coming => Look::Coming,
            false => Look::Here,
        }
    }

    /// Lets go of a piece that is here.
    fn discard(&mut self, number: u32) {
        let piece = &mut self.all[number as usize];
        if matches!(std::mem::replace(&mut piece.state, Life::Past), Life::Here { .. }) {
            self.held -= piece.range.len;
        }
        self.here.remove(&number);
    }
}
