//! What has changed since the file was told: the leaves, and the ranges marked as zero where there is no leaf.

use std::sync::{Mutex, PoisonError};

/// Changes that the file does not know yet.
#[derive(Default)]
pub(crate) struct Changes(Mutex<Taken>);

/// The same, taken out.
#[derive(Default)]
pub(crate) struct Taken {
    /// Leaves by number; each only once between two takings.
    pub(crate) leaves: Vec<u64>,
    /// First block and number of blocks.
    pub(crate) zeroed: Vec<(u64, u64)>,
}

impl Changes {
    /// A leaf has changed. Comes once per leaf between two flushes.
    pub(crate) fn leaf(&self, index: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).leaves.push(index);
    }

    /// Blocks without a leaf have become zero.
    pub(crate) fn zeroed(&self, block: u64, blocks: u64) {
        let zeroed = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).zeroed;
        match zeroed.last_mut() {
            Some((first, count)) if *first + *count == block => *count += blocks,
            _ => zeroed.push((block, blocks)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.leaves.is_empty() && taken.zeroed.is_empty()
    }

    /// All of them; they count as told from now on.
    pub(crate) fn take(&self) -> Taken {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
