//! A filter that may issue a request again: retry. Write data stays shared meanwhile.

use super::{Op, OpKind};
use crate::{Data, Disk, Extents, Facts, Io, Range, Status, WriteFlags, ZeroFlags};
use std::sync::Arc;

/// What the filter does with attempts.
pub trait EveryAttempt: Send + Sync {
    /// Calls `call` as often as it takes and returns the outcome.
    fn attempt<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        call: impl Fn() -> Io<'a, T> + Send + Sync + 'a,
    ) -> Io<'a, T>;
}

/// Makes a [`Disk`] of an [`EveryAttempt`].
pub struct Again<F> {
    filter: F,
    next: Arc<dyn Disk>,
}

impl<F: EveryAttempt> Again<F> {
    /// `filter` decides how often a request to `next` is attempted.
    pub fn new(filter: F, next: Arc<dyn Disk>) -> Self {
        Again { filter, next }
    }
}

impl<F: EveryAttempt> Disk for Again<F> {
    crate::forward!(next: next, resizing);
    fn facts(&self) -> &Facts {
        self.next.facts()
    }
    fn read(&self, r: Range) -> Io<'_, Data> {
        self.filter.attempt(Op::new(OpKind::Read, r), move || self.next.read(r))
    }
    fn write(&self, at: u64, data: Data, f: WriteFlags) -> Io<'_, ()> {
        let op = Op::new(OpKind::Write, Range::new(at, data.len())).fua(f.fua);
        self.filter.attempt(op, move || self.next.write(at, data.clone(), f))
    }
    fn zero(&self, r: Range, f: ZeroFlags) -> Io<'_, ()> {
        let op = Op::new(OpKind::Zero { may_trim: f.may_trim, fast: f.fast }, r).fua(f.fua);
        self.filter.attempt(op, move || self.next.zero(r, f))
    }
    fn trim(&self, r: Range, f: WriteFlags) -> Io<'_, ()> {
        self.filter.attempt(Op::new(OpKind::Trim, r).fua(f.fua), move || self.next.trim(r, f))
    }
    fn flush(&self) -> Io<'_, ()> {
        self.filter.attempt(Op::new(OpKind::Flush, self.facts().whole()), move || self.next.flush())
    }
    fn cache(&self, r: Range) -> Io<'_, ()> {
        self.filter.attempt(Op::new(OpKind::Cache, r), move || self.next.cache(r))
    }
    fn extents(&self, r: Range, limit: usize) -> Io<'_, Extents> {
        self.filter.attempt(Op::new(OpKind::Extents, r), move || self.next.extents(r, limit))
    }
    fn status(&self, context: usize, r: Range, limit: usize) -> Io<'_, Vec<Status>> {
        self.filter.attempt(Op::new(OpKind::Extents, r), move || self.next.status(context, r, limit))
    }
}
