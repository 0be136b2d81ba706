//! What goes along with a copy: how far it is, how fast it may be, whether it should end.

use crate::copy::{hash::Hashes, pace::Pace, progress::Progress, ranges::Ranges, stop::Stop, tally::Tally};
use disk::{Data, Range};
use std::sync::{Mutex, PoisonError};

/// Shared by all workers.
pub(crate) struct Watch {
    pub(crate) progress: Progress,
    pub(crate) tally: Tally,
    pub(crate) pace: Option<Pace>,
    pub(crate) stop: Stop,
    /// What was copied, where somebody wants to know.
    pub(crate) done: Option<Mutex<Ranges>>,
    /// Hashes what is copied.
    pub(crate) hashes: Option<Hashes>,
}

impl Watch {
    /// Only looks on.
    pub(crate) fn new(progress: Progress) -> Watch {
        Watch {
            progress,
            tally: Tally::default(),
            pace: None,
            stop: Stop::default(),
            done: None,
            hashes: None,
        }
    }

    /// These bytes are copied: the destination has taken them.
    pub(crate) fn copied(&self, range: Range) {
        self.progress.add(range.len);
        if let Some(done) = &self.done {
            done.lock().unwrap_or_else(PoisonError::into_inner).add(range);
        }
    }

    /// All that was copied until now.
    pub(crate) fn so_far(&self) -> Ranges {
        let done = self.done.as_ref().map(|done| done.lock().unwrap_or_else(PoisonError::into_inner).clone());
        done.unwrap_or_default()
    }

    /// The destination has lost these again.
    pub(crate) fn lost(&self, ranges: &Ranges) {
        if let Some(done) = &self.done {
            done.lock().unwrap_or_else(PoisonError::into_inner).remove_all(ranges);
        }
        self.progress.take_back(ranges.bytes());
    }

    /// The source holds this.
    pub(crate) fn has_data(&self, at: u64, data: &Data) {
        if let Some(hashes) = &self.hashes {
            hashes.data(at, data);
        }
    }

    /// The source has zeroes there.
    pub(crate) fn has_zeroes(&self, range: Range) {
        if let Some(hashes) = &self.hashes {
            hashes.zeroes(range);
        }
    }
}
