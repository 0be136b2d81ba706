//! Which blocks of the disk hold data: computed from the seed, never stored.
//!
//! The disk is cut into cells of equal length. In each, one run of blocks holds data; its length is uniform between
//! nothing and twice the average, and so is its place within what the cell leaves. The state of any block is thus
//! one hash away, on a disk of any size. The first cell is cut off at a random place, so that the beginning of the
//! disk is no different from any other part.

use crate::common::content::{Stream, mix};

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) data: bool,
    /// The first byte behind it. The next run may be of the same kind.
    pub(super) end: u64,
}

pub(super) enum Layout {
    /// All blocks are alike.
    Uniform(bool),
    Cells {
        stream: Stream,
        /// Bytes per block: all of it is data, or none.
        block: u64,
        /// Blocks per cell; at least 2.
        cell: u64,
        /// Where in its cell the disk begins.
        phase: u64,
        /// The smaller part of a cell on average, in blocks, and whether that is the data.
        average: f64,
        data_is_smaller: bool,
    },
}

impl Layout {
    /// `share` (0 to 1) of the disk holds data, in runs of `run_length` bytes on average and whole blocks.
    pub(super) fn new(seed: u64, share: f64, run_length: u64, block: u64) -> Layout {
        if share <= 0.0 || share >= 1.0 {
            return Layout::Uniform(share >= 1.0);
        }
        let run = (run_length as f64 / block as f64).max(1.0);
        // As a whole number of f64 and more than any disk needs: 2^51 blocks.
        let cell = (run / share).round().clamp(2.0, (1u64 << 51) as f64);
        Layout::Cells {
            stream: Stream::new(seed, 0),
            block,
            cell: cell as u64,
            phase: mix(Stream::new(seed, 1).number(0)) % cell as u64,
            average: cell * share.min(1.0 - share),
            data_is_smaller: share <= 0.5,
        }
    }

    /// The run that holds byte `at`, from there on.
    #[inline]
    pub(super) fn run(&self, at: u64) -> Run {
        match *self {
            Layout::Uniform(data) => Run { data, end: u64::MAX },
            Layout::Cells { ref stream, block, cell, phase, average, data_is_smaller } => {
                let place = at / block + phase;
                let (number, within) = (place / cell, place % cell);
                let (start, end) = cell_run(stream.number(number), cell, average, data_is_smaller);
                let (data, stop) = match within {
                    _ if within < start => (false, start),
                    _ if within < end => (true, end),
                    _ => (false, cell),
                };
                Run { data, end: (at / block + (stop - within)).saturating_mul(block) }
            }
        }
    }
}

/// Where the data of a cell begins and ends.
#[inline]
fn cell_run(random: u64, cell: u64, average: f64, data_is_smaller: bool) -> (u64, u64) {
    // Three numbers in [0, 1): the length, how its fraction is rounded, the place.
    let unit = |n: u64| (n >> 11) as f64 / (1u64 << 53) as f64;
    let (a, b, c) = (unit(random), unit(mix(random)), unit(mix(!random)));
    let smaller = ((a * 2.0 * average + b) as u64).min(cell);
    let len = if data_is_smaller { smaller } else { cell - smaller };
    let start = ((c * (cell - len + 1) as f64) as u64).min(cell - len);
    (start, start + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    /// Blocks of data, and runs of it, among the first `blocks`.
    fn count(layout: &Layout, blocks: u64) -> (u64, u64) {
        let (mut at, mut data, mut runs, mut before) = (0, 0, 0, false);
        while at < blocks * BLOCK {
            let run = layout.run(at);
            assert!(run.end > at && (run.end.is_multiple_of(BLOCK) || run.end == u64::MAX));
            let end = run.end.min(blocks * BLOCK);
            if run.data {
                data += (end - at) / BLOCK;
                runs += u64::from(!before);
            }
            (at, before) = (end, run.data);
        }
        (data, runs)
    }

    #[test]
    fn share_and_run_length_are_about_what_was_asked_for() {
        for percent in [0.5, 1.0, 10.0, 33.0, 50.0, 75.0, 99.0] {
            for run in [1u64, 4, 100, 4096] {
                let blocks = (run as f64 * 4000.0 * 100.0 / percent) as u64;
                let (data, runs) = count(&Layout::new(42, percent / 100.0, run * BLOCK, BLOCK), blocks);
                let share = data as f64 / blocks as f64 * 100.0;
                assert!((share / percent - 1.0).abs() < 0.05, "{share}% of {percent}%, runs of {run}");
                let length = data as f64 / runs as f64 / run as f64;
                // Neighbours that touch count as one, which happens when there is hardly a hole between.
                let most =
                    if percent > 40.0 || run == 1 { 1.2 * 100.0 / (100.0 - percent) + 1.0 } else { 1.15 };
                assert!((0.85..most).contains(&length), "{length} times {run} at {percent}%");
            }
        }
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        assert_eq!(count(&Layout::new(1, 0.0, 1 << 24, BLOCK), 1000), (0, 0));
        assert_eq!(count(&Layout::new(1, 1.0, 1 << 24, BLOCK), 1000), (1000, 1));
    }

    #[test]
    fn the_beginning_of_the_disk_is_like_the_rest() {
        let with_data = (0..4000).filter(|seed| Layout::new(*seed, 0.1, 1 << 24, BLOCK).run(0).data).count();
        assert!((300..500).contains(&with_data), "{with_data} of 4000 at 10%");
    }

    #[test]
    fn the_end_of_the_largest_disk_is_no_trouble() {
        for run_length in [1, 1 << 24, (1 << 63) - 1] {
            for share in [1e-9, 0.1, 0.999_999] {
                let layout = Layout::new(5, share, run_length, BLOCK);
                let last = (1 << 63) - 2;
                assert!(layout.run(last).end > last);
            }
        }
    }

    #[test]
    fn a_run_looks_the_same_from_each_of_its_blocks() {
        let layout = Layout::new(9, 0.3, 10 * BLOCK, BLOCK);
        let mut at = 0;
        for _ in 0..1000 {
            let run = layout.run(at);
            let mut inside = at;
            while inside < run.end {
                assert_eq!(layout.run(inside + 17), run);
                inside += BLOCK;
            }
            at = run.end;
        }
    }
}
