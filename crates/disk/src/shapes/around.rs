//! A filter that treats every request alike: delay, stats, rate, pause, error.

use super::{Op, OpKind};
use crate::{Data, Disk, Extents, Facts, Io, Range, Status, WriteFlags, ZeroFlags, shared::Place};
use std::sync::Arc;

/// What the filter does around every request.
pub trait EveryRequest: Send + Sync {
    /// Whether writes may be received directly into the disk below (see [`Disk::place`]). Not where a write may be
    /// refused, which must leave the old bytes, or must be seen only later.
    fn may_place(&self) -> bool {
        false
    }

    /// Runs `call`, or refuses to, and returns the outcome.
    fn around<'a, T: Send + 'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, T> + Send + 'a) -> Io<'a, T>;

    /// As `around`, for a flush.
    fn flush<'a>(&'a self, op: Op, call: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        self.around(op, call)
    }

    /// As `around`, for the orderly end of the connection.
    fn close<'a>(&'a self, call: impl FnOnce() -> Io<'a, ()> + Send + 'a) -> Io<'a, ()> {
        call()
    }
}

/// Makes a [`Disk`] of an [`EveryRequest`].
pub struct Around<F> {
    filter: F,
    facts: Facts,
    next: Arc<dyn Disk>,
}

impl<F: EveryRequest> Around<F> {
    /// `filter` around every request of `next`.
    pub fn new(filter: F, next: Arc<dyn Disk>) -> Self {
        Around { facts: next.facts().clone(), filter, next }
    }

    /// As [`Around::new`], with facts of its own; they may promise no more than those of `next`.
    pub fn with_facts(filter: F, facts: Facts, next: Arc<dyn Disk>) -> Self {
        Around { filter, facts, next }
    }
}

impl<F: EveryRequest> Disk for Around<F> {
    crate::forward!(next: next, resizing);
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.filter.around(Op::new(OpKind::Read, r), move || self.next.read(r))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        let op = Op::new(OpKind::Write, Range::new(at, data.len())).fua(f.fua);
        self.filter.around(op, move || self.next.write(at, data, f))
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        let op = Op::new(OpKind::Zero { may_trim: f.may_trim, fast: f.fast }, r).fua(f.fua);
        self.filter.around(op, move || self.next.zero(r, f))
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.filter.around(Op::new(OpKind::Trim, r).fua(f.fua), move || self.next.trim(r, f))
    }
    fn flush(&self) -> Io<'_, ()> {
        self.filter.flush(Op::new(OpKind::Flush, self.facts.whole()), move || self.next.flush())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.filter.around(Op::new(OpKind::Cache, r), move || self.next.cache(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.filter.around(Op::new(OpKind::Extents, r), move || self.next.extents(r, limit))
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        self.filter.around(Op::new(OpKind::Extents, r), move || self.next.status(context, r, limit))
    }
    fn place(&self, r: Range) -> Option<Place<'_>> {
        if self.filter.may_place() { self.next.place(r) } else { None }
    }
    fn placed(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.filter.around(Op::new(OpKind::Write, r).fua(f.fua), move || self.next.placed(r, f))
    }
    fn close(&self) -> Io<'_, ()> {
        self.filter.close(move || self.next.close())
    }
}
