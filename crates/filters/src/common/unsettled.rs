//! Changes of the disk below whose requests were dropped, because their client is gone: they may come about later, over what
//! is written there since, or behind what was read and is kept. A flush of that disk waits for them. For filters that keep
//! what they read, or write more than they were asked to.

use disk::{Disk, Error};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, Ordering::SeqCst},
};

/// Those of an export, or of all disks that lead to one place.
#[derive(Default)]
pub(crate) struct Unsettled {
    /// Whether there are any. Written under the lock of `disks`.
    any: AtomicBool,
    /// Below which they are under way, unless that is closed.
    disks: Mutex<Vec<Weak<dyn Disk>>>,
    settling: async_lock::Mutex<()>,
    /// A flush failed that no client asked for.
    failure: Mutex<Option<Error>>,
}

/// A change under way.
pub(crate) struct Begun<'a> {
    of: &'a Unsettled,
    disk: &'a Arc<dyn Disk>,
    is_over: bool,
}

/// Those that are waited for; they go back when that is given up.
struct Taken<'a> {
    of: &'a Unsettled,
    disks: Vec<Weak<dyn Disk>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unsettled {
    /// A change of this disk begins.
    pub(crate) fn begin<'a>(&'a self, disk: &'a Arc<dyn Disk>) -> Begun<'a> {
        Begun { of: self, disk, is_over: false }
    }

    /// Waits for all. To be done before the disk below is changed, or read for keeps.
    pub(crate) async fn settle(&self) {
        if !self.any.load(SeqCst) {
            return;
        }
        let _turn = self.settling.lock().await;
        let mut taken = Taken { of: self, disks: std::mem::take(&mut *lock(&self.disks)) };
        while let Some(disk) = taken.disks.last() {
            if let Some(disk) = disk.upgrade().filter(|disk| disk.facts().flush)
                && let Err(e) = disk.flush().await
            {
                lock(&self.failure).get_or_insert(e);
            }
            taken.disks.pop();
        }
    }

    /// What went wrong when nobody was there to hear it.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }
}

impl Begun<'_> {
    /// It was answered.
    pub(crate) fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut disks = lock(&self.of.disks);
            if !disks.iter().any(|disk| std::ptr::addr_eq(disk.as_ptr(), Arc::as_ptr(self.disk))) {
                disks.push(Arc::downgrade(self.disk));
            }
            self.of.any.store(true, SeqCst);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut disks = lock(&self.of.disks);
        disks.append(&mut self.disks);
        self.of.any.store(!disks.is_empty(), SeqCst);
    }
}
