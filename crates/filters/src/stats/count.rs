//! The counters of `stats`: each thread adds to its own, nobody waits.

use disk::{
    Range,
    shapes::{Op, OpKind},
};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What is counted separately, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Read,
    Write,
    Trim,
    Zero,
    Extents,
    Cache,
    Flush,
}

impl Line {
    pub(super) const ALL: [Line; 7] =
        [Line::Read, Line::Write, Line::Trim, Line::Zero, Line::Extents, Line::Cache, Line::Flush];

    pub(super) fn name(self) -> &'static str {
        ["read", "write", "trim", "zero", "extents", "cache", "flush"][self as usize]
    }

    fn of(kind: OpKind) -> Line {
        match kind {
            OpKind::Read => Line::Read,
            OpKind::Write => Line::Write,
            OpKind::Trim => Line::Trim,
            OpKind::Zero { .. } => Line::Zero,
            OpKind::Extents => Line::Extents,
            OpKind::Cache => Line::Cache,
            OpKind::Flush => Line::Flush,
        }
    }
}

/// So many requests of each kind (on each thread) are timed one by one.
const EXACT: u64 = 1000;
/// Of those after them, one in so many is timed for all: no divisor of how many come at once.
const EVERY: u64 = 7;

/// Lengths are below 2^64: by the bits above the lowest one that are needed for them.
const SIZES: usize = 64;
/// Zero bits at the end of the offset: 0 to 63, and 64 for offset 0.
const ALIGNMENTS: usize = 65;

/// Requests of nearly one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// From 2^bits to below 2^(bits+1) bytes.
    pub(super) bits: usize,
    pub(super) bytes: u64,
    /// How many there are for each number of zero bits at the end of the offset; the last: offset 0.
    pub(super) aligned: [u64; ALIGNMENTS],
}

impl Group {
    pub(super) fn requests(&self) -> u64 {
        self.aligned.iter().sum()
    }
}

/// All counters of a thread: only it adds, and whoever reads sees some moment of each.
#[derive(Default)]
pub(super) struct Counts {
    lines: [Counter; Line::ALL.len()],
}

struct Counter {
    /// Requests that concern no bytes; all others are counted by their size.
    without_bytes: AtomicU64,
    ticks: AtomicU64,
    /// So many came.
    came: AtomicU64,
    /// By size, made when the first such request comes.
    sizes: [OnceLock<Box<Sizes>>; SIZES],
}

impl Default for Counter {
    fn default() -> Self {
        let (without_bytes, ticks, came) = Default::default();
        Counter { without_bytes, ticks, came, sizes: [const { OnceLock::new() }; SIZES] }
    }
}

struct Sizes {
    /// Beyond 2^bits for each.
    beyond: AtomicU64,
    aligned: [AtomicU64; ALIGNMENTS],
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { beyond: AtomicU64::new(0), aligned: [const { AtomicU64::new(0) }; ALIGNMENTS] }
    }
}

#[inline]
fn add(to: &AtomicU64, more: u64) {
    // No other thread adds, so it need not be one step.
    to.store(to.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Counts {
    /// For how many requests one that comes now should be timed; 0: not at all. To look at a counter twice takes a fiftieth
    /// of a small request.
    #[inline]
    pub(super) fn weight(&self, kind: OpKind) -> u64 {
        let came = &self.lines[Line::of(kind) as usize].came;
        let before = came.load(Relaxed);
        add(came, 1);
        match before {
            ..EXACT => 1,
            _ if before.is_multiple_of(EVERY) => EVERY,
            _ => 0,
        }
    }

    /// Counts a request that took so many ticks.
    #[inline]
    pub(super) fn add(&self, op: Op, took: u64) {
        let line = Line::of(op.kind);
        let counter = &self.lines[line as usize];
        if took > 0 {
            add(&counter.ticks, took);
        }
        // A flush concerns no bytes.
        let Range { start, len } = op.range;
        if line == Line::Flush || len == 0 {
            add(&counter.without_bytes, 1);
            return;
        }
        let bits = len.ilog2();
        let sizes = counter.sizes[bits as usize].get_or_init(Box::default);
        if !len.is_power_of_two() {
            add(&sizes.beyond, len - (1 << bits));
        }
        add(&sizes.aligned[start.trailing_zeros() as usize], 1);
    }
}

/// The sum of one line over several counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) ops: u64,
    pub(super) bytes: u64,
    pub(super) time: Duration,
    pub(super) groups: Vec<Group>,
}

/// Adds up every line.
pub(super) fn sums(counts: &[&Counts], nanos_per_tick: f64) -> Vec<(Line, Sum)> {
    Line::ALL.iter().map(|line| (*line, sum(counts, *line, nanos_per_tick))).collect()
}

fn sum(counts: &[&Counts], line: Line, nanos_per_tick: f64) -> Sum {
    let (mut sum, mut ticks) = (Sum::default(), 0u64);
    for counter in counts.iter().map(|counts| &counts.lines[line as usize]) {
        sum.ops += counter.without_bytes.load(Relaxed);
        ticks = ticks.saturating_add(counter.ticks.load(Relaxed));
        for (bits, sizes) in counter.sizes.iter().enumerate() {
            let Some(sizes) = sizes.get() else { continue };
            let at = match sum.groups.binary_search_by_key(&bits, |group| group.bits) {
                Ok(at) => at,
                Err(at) => {
                    sum.groups.insert(at, Group { bits, bytes: 0, aligned: [0; ALIGNMENTS] });
                    at
                }
            };
            let group = &mut sum.groups[at];
            let mut requests = 0u64;
            for (all, more) in group.aligned.iter_mut().zip(&sizes.aligned) {
                let more = more.load(Relaxed);
                *all += more;
                requests += more;
            }
            let bytes = requests.saturating_mul(1 << bits).saturating_add(sizes.beyond.load(Relaxed));
            group.bytes = group.bytes.saturating_add(bytes);
        }
    }
    sum.time = Duration::from_nanos((ticks as f64 * nanos_per_tick).round() as u64);
    for group in &sum.groups {
        sum.ops += group.requests();
        sum.bytes = sum.bytes.saturating_add(group.bytes);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_requests_are_timed_for_all() {
        let counts = Counts::default();
        let weights: Vec<u64> = (0..8000).map(|_| counts.weight(OpKind::Read)).collect();
        assert!(weights[..1000].iter().all(|weight| *weight == 1));
        let rest: u64 = weights[1000..].iter().sum();
        assert!((7000 - 7..=7000 + 7).contains(&rest), "{rest}");
        assert_eq!(counts.weight(OpKind::Write), 1, "each kind by itself");
    }
}
