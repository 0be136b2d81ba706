//! Files that are one's own while they are open, by flock(2), and who of this process has which: to somebody who wants to
//! have such a file a second time, that is more than that it is locked.

use disk::{Errno, Error, Result};
use std::{
    fs::{File, TryLockError},
    os::unix::fs::MetadataExt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What this process has locked.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

struct Held {
    number: u64,
    /// Which file it is: device and inode.
    file: (u64, u64),
    write: bool,
    by: &'static str,
}

/// The lock of a file. It lasts until all descriptors are closed that the file had when it was locked; this is to be
/// dropped after them.
#[derive(Debug)]
pub struct Lock(u64);

impl Lock {
    /// Takes a file for ourselves, or for readers; `by` says for whom, such as `the filter cow`. Waits for a second: a program
    /// that a former owner has just started has all its descriptors, and with them its lock, until it is the program that
    /// it shall be.
    ///
    /// # Errors
    /// Somebody has it, or there are no locks.
    pub fn take(file: &File, write: bool, by: &'static str) -> Result<Lock> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let about = file.metadata()?;
        let id = (about.dev(), about.ino());
        match wait(file, write) {
            Ok(()) => {
                let number = LAST.fetch_add(1, Relaxed) + 1;
                held().push(Held { number, file: id, write, by });
                Ok(Lock(number))
            }
            Err(TryLockError::WouldBlock) => {
                let held = held();
                let ours = held.iter().find(|held| held.file == id && (write || held.write));
                let who = match ours {
                    Some(held) => format!("already used by this server, by {}", held.by),
                    None if write => "in use by another program".to_owned(),
                    None => "being written by another program".to_owned(),
                };
                Err(Error::new(Errno::BUSY, who))
            }
            Err(TryLockError::Error(e)) => Err(Error::from(e).context("it cannot be locked")),
        }
    }

    /// Now it is known for whom.
    pub(crate) fn is_of(&self, by: &'static str) {
        held().iter_mut().filter(|held| held.number == self.0).for_each(|held| held.by = by);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        held().retain(|held| held.number != self.0);
    }
}

fn held() -> MutexGuard<'static, Vec<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(file: &File, write: bool) -> std::result::Result<(), TryLockError> {
    let begin = Instant::now();
    loop {
        match if write { file.try_lock() } else { file.try_lock_shared() } {
            Err(TryLockError::WouldBlock) if begin.elapsed() < Duration::from_secs(1) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_at_once_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let another = || File::open(file.path()).unwrap();
        let former = another();
        former.lock().unwrap();
        let locked = std::thread::spawn({
            let file = another();
            move || wait(&file, true).is_ok()
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(former);
        assert!(locked.join().unwrap());
        let present = another();
        present.lock_shared().unwrap();
        assert!(wait(&another(), false).is_ok());
        assert!(matches!(wait(&another(), true), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn who_has_the_file_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let another = || File::open(file.path()).unwrap();
        let why = |write| Lock::take(&another(), write, "us").unwrap_err().to_string();
        let foreign = another();
        foreign.lock().unwrap();
        assert_eq!(why(true), "in use by another program");
        assert_eq!(why(false), "being written by another program");
        foreign.unlock().unwrap();
        let ours = another();
        let lock = Lock::take(&ours, true, "the filter cow").unwrap();
        assert_eq!(why(false), "already used by this server, by the filter cow");
        lock.is_of("the filter cache");
        assert_eq!(why(true), "already used by this server, by the filter cache");
        drop((ours, lock));
        let reading = another();
        let lock = Lock::take(&reading, false, "the filter cow").unwrap();
        assert_eq!(why(true), "already used by this server, by the filter cow");
        drop((reading, lock));
        assert!(Lock::take(&another(), true, "us").is_ok());
    }
}
