//! The stacks of connections: what a handshake or the opening of a disk once used of one, an idle client gives back. Unsafe,
//! because a stack is memory that nobody owns.

use rustix::mm::{Advice, madvise};
use std::{
    cell::Cell,
    io,
    thread::{self, JoinHandle},
};

/// Threads of connections need little: payload lies on the heap.
pub(crate) const SIZE: usize = 512 << 10;
/// Of the machine's memory, or a multiple of it.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };
/// Below the function that gives back, what it calls may use so much.
const MARGIN: usize = 1 << 10;

thread_local! {
    /// From this address on, up to where it has got, the thread's stack may be given back; 0 where that is not known.
    static LOWEST: Cell<usize> = const { Cell::new(0) };
}

/// Starts a thread whose stack can be given back.
///
/// # Errors
/// When the system has no room for one more.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(SIZE).spawn(move || {
        // What the system keeps above us is of the same piece of memory, and far less than the half of it.
        LOWEST.set(here() - SIZE / 2);
        work();
    })
}

/// Gives back what of this thread's stack is not in use.
#[inline(never)] // its frame is the lowest
pub(crate) fn release() {
    let (from, to) = (LOWEST.get().next_multiple_of(PAGE), (here() - MARGIN) / PAGE * PAGE);
    if LOWEST.get() != 0 && from < to {
        // SAFETY: below its lowest frame nothing on a stack is alive. All of the range is this thread's stack: it begins less
        // than half a stack's size below the thread's first frame. It reads as zeroes, should it be used again.
        let _ = unsafe { madvise(from as *mut _, to - from, Advice::LinuxDontNeed) };
    }
}

/// About where the stack has got.
#[inline(always)]
fn here() -> usize {
    let mark = 0u8;
    std::hint::black_box(&raw const mark).addr()
}
