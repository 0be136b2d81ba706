//! Counters that threads add to without waiting for each other.

use disk::shapes::{Op, OpKind};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What is told apart.
pub(super) const NAMES: [&str; 7] = ["read", "write", "zero", "trim", "flush", "cache", "extents"];

/// Latencies are sorted into so many classes, of up to 1, 2, 4, ... microseconds; the last one is 8.4 seconds.
pub(super) const CLASSES: usize = 24;

/// One set of counters.
#[derive(Default)]
pub(super) struct Counts(pub(super) [Kind; NAMES.len()]);

/// The counters of one kind of operation.
#[derive(Default)]
pub(super) struct Kind {
    pub(super) operations: AtomicU64,
    pub(super) errors: AtomicU64,
    /// Of operations that succeeded.
    pub(super) bytes: AtomicU64,
    pub(super) nanoseconds: AtomicU64,
    /// How many took so long, and longer than the class before; what takes longer still is in none.
    pub(super) classes: [AtomicU64; CLASSES],
}

impl Counts {
    pub(super) fn add(&self, op: Op, succeeded: bool, took: Duration) {
        let index = match op.kind {
            OpKind::Read => 0,
            OpKind::Write => 1,
            OpKind::Zero { .. } => 2,
            OpKind::Trim => 3,
            OpKind::Flush => 4,
            OpKind::Cache => 5,
            OpKind::Extents => 6,
        };
        let kind = &self.0[index];
        kind.operations.fetch_add(1, Relaxed);
        if !succeeded {
            kind.errors.fetch_add(1, Relaxed);
        } else if op.kind != OpKind::Flush {
            kind.bytes.fetch_add(op.range.len, Relaxed);
        }
        kind.nanoseconds.fetch_add(took.as_nanos() as u64, Relaxed);
        if let Some(class) = kind.classes.get(class(took)) {
            class.fetch_add(1, Relaxed);
        }
    }
}

/// The class of a latency.
fn class(took: Duration) -> usize {
    // Rounded up, so that exactly 2 microseconds are "up to 2".
    let microseconds = took.as_nanos().div_ceil(1000).max(1) as u64;
    microseconds.next_power_of_two().trailing_zeros() as usize
}

/// The upper bound of a class, in seconds.
pub(super) fn bound(class: usize) -> f64 {
    (1u64 << class) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_within_its_class() {
        for nanoseconds in [0, 1, 999, 1000, 1001, 2000, 2001, 1_000_000, 8_388_608_000, 8_388_608_001] {
            let took = Duration::from_nanos(nanoseconds);
            let class = class(took);
            assert!(took.as_secs_f64() <= bound(class) + 1e-12, "{took:?}");
            assert!(class == 0 || took.as_secs_f64() > bound(class - 1) - 1e-12, "{took:?}");
        }
        assert_eq!(bound(0), 1e-6);
        assert_eq!(class(Duration::from_nanos(8_388_608_000)), CLASSES - 1);
    }
}
