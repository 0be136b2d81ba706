//! File descriptors that the program inherited, named by their number: the one unsafe corner here.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes an inherited file descriptor over; it is closed when the file is dropped. `None` when no such
/// descriptor was inherited.
pub fn take(number: RawFd) -> Option<File> {
    if number < 3 {
        return None;
    }
    // SAFETY: the borrow ends before anything else happens, and `fcntl(F_GETFD)` of a number that is no
    // descriptor, the one thing done with it, only fails.
    let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    // Everything that this program opens is close-on-exec, and nothing close-on-exec is ever inherited. So a
    // descriptor without that flag has no owner in this program yet.
    if flags.contains(rustix::io::FdFlags::CLOEXEC) {
        return None;
    }
    // SAFETY: the descriptor is open and, as just seen, nobody owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    // It has an owner now: a second call for the same number must find it taken.
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(file)
}
