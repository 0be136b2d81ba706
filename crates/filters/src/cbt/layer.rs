//! The disk that one connection has: changes are marked before they are passed on.

use super::tracker::Tracker;
use crate::common::gate::{OnItsWay, Passing};
use disk::{Data, Disk, Facts, Io, Range, Result, Status, WriteFlags, ZeroFlags, resize::Resizing};
use std::sync::Arc;

pub(super) struct Layer {
    pub(super) facts: Facts,
    /// Since which epochs the first contexts of the facts tell of changes; the others are those of the disk below.
    pub(super) since: Vec<u32>,
    pub(super) passing: Passing,
    pub(super) tracker: Arc<Tracker>,
    pub(super) next: Arc<dyn Disk>,
}

/// A change that was passed on. When nobody waits for its outcome any more it may still come about, in an epoch that
/// begins before it does.
struct UnderWay<'a> {
    tracker: &'a Tracker,
    range: Range,
    _way: OnItsWay<'a>,
    done: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.tracker.abandon(self.range);
        }
    }
}

impl Layer {
    #[inline]
    fn change<'a>(&'a self, r: Range, call: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        let Some(way) = self.passing.enter() else {
            return Io::later(async move {
                let way = self.passing.wait().await;
                self.change_later(way, r, call).await
            });
        };
        match self.tracker.mark(r) {
            Err(e) => e.into(),
            Ok(false) => Io::later(self.change_later(way, r, call)),
            Ok(true) => match call() {
                Io::Later(io) => Io::later(self.outcome(way, r, Io::Later(io))),
                ready => ready,
            },
        }
    }

    async fn change_later<'a>(
        &'a self,
        way: OnItsWay<'a>,
        r: Range,
        call: impl FnOnce() -> Io<'a, ()> + Send + 'a,
    ) -> Result<()> {
        self.tracker.open_and_mark(r).await?;
        self.outcome(way, r, call()).await
    }

    async fn outcome<'a>(&'a self, way: OnItsWay<'a>, range: Range, io: Io<'a, ()>) -> Result<()> {
        let mut under_way = UnderWay { tracker: &self.tracker, range, _way: way, done: false };
        let outcome = io.await;
        under_way.done = true;
        outcome
    }
}

impl Disk for Layer {
    disk::forward!(next: next, read, cache, extents);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn write(&self, at: u64, data: Data, flags: WriteFlags) -> Io<'_, ()> {
        self.change(Range::new(at, data.len()), move || self.next.write(at, data, flags))
    }
    fn zero(&self, r: Range, flags: ZeroFlags) -> Io<'_, ()> {
        self.change(r, move || self.next.zero(r, flags))
    }
    fn trim(&self, r: Range, flags: WriteFlags) -> Io<'_, ()> {
        self.change(r, move || self.next.trim(r, flags))
    }
    fn flush(&self) -> Io<'_, ()> {
        if !self.tracker.wants_a_look() {
            return self.next.flush();
        }
        Io::later(async move {
            self.next.flush().await?;
            let tracker = self.tracker.clone();
            if let Err(e) = reactor::unblock(move || tracker.close_regions(false)).await? {
                tracing::warn!(target: "diskpipe", "cbt: {e}; after a loss of power, more would count as changed");
            }
            Ok(())
        })
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        match self.since.get(context) {
            Some(epoch) => Io::ok(self.tracker.status(*epoch, r, limit)),
            None => self.next.status(context - self.since.len(), r, limit),
        }
    }
    fn resizing(&self) -> Option<&dyn Resizing> {
        // What is added elsewhere would not be marked as changed before somebody sees it.
        self.next.resizing().filter(|next| !next.is_followed()).map(|_| self as _)
    }
}

impl Resizing for Layer {
    fn size(&self) -> u64 {
        self.next.resizing().map_or(self.facts.size, Resizing::size)
    }
    fn resize(&self, to: u64) -> Io<'_, u64> {
        let Some(next) = self.next.resizing().filter(|_| self.facts.write) else {
            return disk::Error::new(disk::Errno::PERM, "a disk that is only read cannot be resized").into();
        };
        Io::later(async move {
            let _turn = self.tracker.resizing().await;
            self.tracker.before_resize(to).await?;
            let outcome = next.resize(to).await;
            self.tracker.after_resize(next.size()).await?;
            outcome
        })
    }
    fn changed(&self, seen: u64) -> Io<'_, (u64, u64)> {
        match self.next.resizing() {
            Some(next) => next.changed(seen),
            None => disk::Errno::NOTSUP.into(),
        }
    }
}
