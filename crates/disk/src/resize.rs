//! Disks whose size changes while they are open.
//!
//! `facts().size` stays what it was when a disk was opened. A disk that says more in [`Disk::resizing`] has a size that
//! its clients share: each may change it and is told when another one does. Requests then lie within the *present* size.
//! Filters that know nothing of this leave `resizing` at its default, and so make of it a disk of a fixed size.
//!
//! A plugin shares a [`Size`] among all who open the same data and gives each of them a [`Resizable`].

use crate::{Disk, Errno, Error, Facts, Io, Result};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

/// What a disk can do whose size changes.
pub trait Resizing: Send + Sync {
    /// The present size, in bytes. It never shrinks while others than the one who shrinks it have the disk open.
    fn size(&self) -> u64;

    /// Changes the size, and returns what it is then. New bytes read as zeroes. Nothing may be under way in a part
    /// that goes away.
    ///
    /// # Errors
    /// `EPERM` when the disk would shrink while others have it open, or cannot be written; `ENOSPC` when it cannot
    /// have that size; what the disk below reports.
    fn resize(&self, size: u64) -> Io<'_, u64>;

    /// The size, once it was changed since `seen`, and what to pass next time. The first time that is 0, and the
    /// answer is the present size, at once. Of several changes in between only the last is told.
    fn changed(&self, seen: u64) -> Io<'_, (u64, u64)>;

    /// Whether the size is changed elsewhere too, so that it is the present one only while somebody waits in
    /// [`Resizing::changed`]. Whoever holds requests against the size of such a disk waits there.
    fn is_followed(&self) -> bool {
        false
    }
}

/// The size of a disk, shared by all who have it open.
pub struct Size {
    bytes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// So many have the disk open.
    users: usize,
    /// Counts the changes, from 1 on.
    changes: u64,
    /// Who waits for the next change; each has a number of its own.
    waiting: Vec<(u64, Waker)>,
    last_number: u64,
}

impl Size {
    /// Of a disk that has `bytes` bytes now and that nobody has opened.
    pub fn new(bytes: u64) -> Arc<Size> {
        let state = State { users: 0, changes: 1, waiting: Vec::new(), last_number: 0 };
        Arc::new(Size { bytes: AtomicU64::new(bytes), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody opens `disk`, whose facts may say any size that is not smaller than this one. `change` gives the
    /// data below a new size: it is told the old one and the new one, on a thread that may wait, and never twice
    /// at once.
    pub fn open(
        self: &Arc<Self>,
        disk: Arc<dyn Disk>,
        change: impl Fn(u64, u64) -> Result<()> + Send + Sync + 'static,
    ) -> Resizable {
        // With the lock held, nobody shrinks it meanwhile.
        let mut state = self.state();
        state.users += 1;
        let facts = Facts { size: self.bytes.load(Relaxed), ..disk.facts().clone() };
        drop(state);
        Resizable { facts, next: disk, size: self.clone(), change: Arc::new(change) }
    }

    fn change(&self, to: u64, change: &dyn Fn(u64, u64) -> Result<()>) -> Result<u64> {
        let mut state = self.state();
        let from = self.bytes.load(Relaxed);
        if to < from && state.users > 1 {
            let why = match state.users - 1 {
                1 => "the disk cannot shrink while another client has it open".to_owned(),
                others => format!("the disk cannot shrink while {others} other clients have it open"),
            };
            return Err(Error::new(Errno::PERM, why));
        }
        if to != from {
            change(from, to)?;
            self.bytes.store(to, Relaxed);
            state.changes += 1;
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(|(_, waker)| waker.wake());
        }
        Ok(to)
    }
}

/// A disk that somebody opened, whose size all who opened it share.
pub struct Resizable {
    /// With the size as it was when this was made.
    facts: Facts,
    next: Arc<dyn Disk>,
    size: Arc<Size>,
    change: Arc<dyn Fn(u64, u64) -> Result<()> + Send + Sync>,
}

impl Drop for Resizable {
    fn drop(&mut self) {
        self.size.state().users -= 1;
    }
}

/// Who waits for a change is forgotten when it waits no longer.
struct Waiting<'a> {
    size: &'a Size,
    number: u64,
}

impl Waiting<'_> {
    fn poll(&self, seen: u64, cx: &mut Context<'_>) -> Poll<Result<(u64, u64)>> {
        let mut state = self.size.state();
        if state.changes != seen {
            return Poll::Ready(Ok((self.size.bytes.load(Relaxed), state.changes)));
        }
        match state.waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.waiting.push((self.number, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.size.state().waiting.retain(|(number, _)| *number != self.number);
    }
}

impl Resizing for Resizable {
    fn size(&self) -> u64 {
        self.size.bytes.load(Relaxed)
    }

    fn resize(&self, to: u64) -> Io<'_, u64> {
        if !self.facts.write {
            return Error::new(Errno::PERM, "a disk that is only read cannot be resized").into();
        }
        if i64::try_from(to).is_err() {
            return Error::new(Errno::NOSPC, format!("no disk can have {to} bytes")).into();
        }
        let minimum = self.facts.blocks.minimum;
        if !to.is_multiple_of(minimum.into()) {
            let why = format!("a size of {to} bytes is no multiple of the minimum block size {minimum}");
            return Error::invalid(why).into();
        }
        let (size, change) = (self.size.clone(), self.change.clone());
        // The work begins here, so that dropping the `Io` does not undo it.
        let work = reactor::unblock(move || size.change(to, &*change));
        Io::later(async move { work.await? })
    }

    fn changed(&self, seen: u64) -> Io<'_, (u64, u64)> {
        let mut state = self.size.state();
        if state.changes != seen {
            return Io::ok((self.size(), state.changes));
        }
        state.last_number += 1;
        let waiting = Waiting { size: &self.size, number: state.last_number };
        drop(state);
        Io::later(poll_fn(move |cx| waiting.poll(seen, cx)))
    }
}

impl Disk for Resizable {
    crate::forward!(next: next, read, write, zero, trim, flush, cache, extents, status);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn resizing(&self) -> Option<&dyn Resizing> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Range, checked::Checked};
    use std::time::Duration;

    struct Zeroes(Facts);
    impl Disk for Zeroes {
        fn facts(&self) -> &Facts {
            &self.0
        }
        fn read(&self, r: Range) -> Io<'_, Data> {
            Io::ok(Data::zeroes(r.len))
        }
    }

    /// Up to 4096 bytes.
    fn open(size: &Arc<Size>) -> Arc<dyn Disk> {
        let disk = size.open(Arc::new(Zeroes(Facts::writable(4096))), |_, to| match to {
            ..=4096 => Ok(()),
            _ => Err(Errno::NOSPC.into()),
        });
        Arc::new(Checked::new(Arc::new(disk)))
    }

    fn resize(disk: &Arc<dyn Disk>, to: u64) -> std::result::Result<u64, Errno> {
        disk.resizing().unwrap().resize(to).wait().map_err(|e| e.errno())
    }

    #[test]
    fn all_who_have_it_open_share_one_size_and_later_ones_begin_with_it() {
        let size = Size::new(1024);
        let (a, b) = (open(&size), open(&size));
        assert_eq!(resize(&a, 2048), Ok(2048));
        assert_eq!((b.facts().size, b.resizing().unwrap().size()), (1024, 2048));
        assert_eq!(b.read(Range::new(1024, 1024)).wait().unwrap().len(), 1024);
        assert_eq!(open(&size).facts().size, 2048);
    }

    #[test]
    fn only_who_is_alone_may_shrink_it() {
        let size = Size::new(1024);
        let (a, b) = (open(&size), open(&size));
        assert_eq!(resize(&a, 512), Err(Errno::PERM));
        assert_eq!(resize(&a, 1024), Ok(1024));
        drop(b);
        assert_eq!(resize(&a, 512), Ok(512));
    }

    #[test]
    fn what_fails_changes_nothing_and_tells_nobody() {
        let size = Size::new(1024);
        let disk = open(&size);
        assert_eq!(resize(&disk, 8192), Err(Errno::NOSPC));
        assert_eq!(resize(&disk, u64::MAX), Err(Errno::NOSPC));
        let resizing = disk.resizing().unwrap();
        let (now, seen) = resizing.changed(0).wait().unwrap();
        assert_eq!((now, resizing.size()), (1024, 1024));
        assert!(matches!(resizing.changed(seen), Io::Later(_)));
    }

    #[test]
    fn a_change_reaches_who_waits_on_another_thread() {
        let size = Size::new(1024);
        let (a, b) = (open(&size), open(&size));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                resize(&a, 2048).unwrap();
            });
            let resizing = b.resizing().unwrap();
            let (_, seen) = resizing.changed(0).wait().unwrap();
            assert_eq!(resizing.changed(seen).wait().unwrap().0, 2048);
        });
        assert!(size.state().waiting.is_empty());
    }

    #[test]
    fn who_gives_up_waiting_is_forgotten() {
        let size = Size::new(1024);
        let disk = open(&size);
        let resizing = disk.resizing().unwrap();
        let mut later = resizing.changed(1);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(std::pin::Pin::new(&mut later).poll(&mut cx).is_pending());
        }
        assert_eq!(size.state().waiting.len(), 1);
        drop(later);
        assert!(size.state().waiting.is_empty());
    }
}
