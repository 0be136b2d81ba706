//! The unsafe corner: messages over lent memory, vsock addresses, and what a child does before its `exec`.
//! Everything else in this crate is safe code.

use crate::address::Peer;
use crate::stream::{Kind, PIPE_PIECE, Stream, Wait, piped};
use rustix::event::PollFlags;
use std::{
    ffi::{CString, OsStr, c_char, c_int},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::Command,
};

/// A piece of memory that somebody lends to the kernel, laid out as the kernel's `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawIoVec {
    /// First byte. A sender only reads through it.
    pub ptr: *mut u8,
    /// Number of bytes.
    pub len: usize,
}

// The kernel reads these as iovecs.
const _: () = assert!(size_of::<RawIoVec>() == size_of::<libc::iovec>());
const _: () = assert!(std::mem::offset_of!(RawIoVec, len) == std::mem::offset_of!(libc::iovec, iov_len));

/// Pieces that are readable as long as this lives; their bytes may change meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Readable<'a>(&'a [RawIoVec]);

/// Pieces that are writable as long as this lives, and into which nobody uses a reference.
#[derive(Clone, Copy)]
pub(crate) struct Writable<'a>(&'a [RawIoVec]);

impl<'a> Readable<'a> {
    pub(crate) fn of(slices: &'a [IoSlice<'_>]) -> Self {
        // SAFETY: an IoSlice is laid out as an iovec, by its documentation, and so is a RawIoVec, as asserted below.
        Readable(unsafe { std::slice::from_raw_parts(slices.as_ptr().cast(), slices.len()) })
    }

    /// # Safety
    /// They are readable until the borrow ends.
    unsafe fn promised(pieces: &'a [RawIoVec]) -> Self {
        Readable(pieces)
    }

    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(crate) fn as_raw(self) -> &'a [RawIoVec] {
        self.0
    }
}

impl<'a> Writable<'a> {
    pub(crate) fn of(slices: &'a mut [IoSliceMut<'_>]) -> Self {
        // SAFETY: as in `Readable::of`; the slices are borrowed for as long as this lives.
        Writable(unsafe { std::slice::from_raw_parts(slices.as_ptr().cast(), slices.len()) })
    }

    /// # Safety
    /// They are writable until the borrow ends, and nobody uses a reference into them.
    unsafe fn promised(pieces: &'a [RawIoVec]) -> Self {
        Writable(pieces)
    }

    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(crate) fn as_raw(self) -> &'a [RawIoVec] {
        self.0
    }
}

/// The kernel takes at most this many pieces in one message.
pub(crate) const MAX_PIECES: usize = 1024;

impl Stream {
    /// As [`Stream::send_vectored`], from memory that somebody lends. At most 1024 pieces are looked at.
    ///
    /// # Safety
    /// Every piece must stay readable until the call returns. Its bytes may change meanwhile: then it is
    /// unspecified which of them are sent.
    ///
    /// # Errors
    /// As [`Stream::send_vectored`].
    pub unsafe fn send_raw(&self, from: &[RawIoVec], wait: Wait) -> io::Result<usize> {
        if let Some(tls) = self.tls.get() {
            // SAFETY: the caller's promise.
            return tls.send(&self.kind, unsafe { Readable::promised(from) }, wait);
        }
        match &self.kind {
            // SAFETY: the caller's promise.
            Kind::Socket(fd) => unsafe { send(fd.as_fd(), from, wait) },
            Kind::Pair { output, .. } => piped(output.as_fd(), PollFlags::OUT, wait, || {
                let Some(mut first) = from.iter().copied().find(|piece| piece.len > 0) else { return Ok(0) };
                first.len = first.len.min(PIPE_PIECE);
                let pieces = if wait == Wait::DontWait { &[first][..] } else { from };
                // SAFETY: the caller's promise; a shortened piece is within the one promised.
                unsafe { write(output.as_fd(), pieces) }
            }),
        }
    }

    /// As [`Stream::recv_vectored`], into memory that somebody lends. At most 1024 pieces are looked at.
    ///
    /// # Safety
    /// Every piece must stay writable until the call returns, and no reference into it may be used meanwhile.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub unsafe fn recv_raw(&self, into: &[RawIoVec], wait: Wait) -> io::Result<usize> {
        if let Some(tls) = self.tls.get() {
            // SAFETY: the caller's promise.
            return tls.recv(&self.kind, unsafe { Writable::promised(into) }, wait);
        }
        match &self.kind {
            // SAFETY: the caller's promise.
            Kind::Socket(fd) => unsafe { recv(fd.as_fd(), into, wait) },
            Kind::Pair { input, .. } => piped(input.as_fd(), PollFlags::IN, wait, || {
                // SAFETY: the caller's promise.
                unsafe { read(input.as_fd(), into) }
            }),
        }
    }
}

fn message(pieces: &[RawIoVec]) -> libc::msghdr {
    // SAFETY: all-zeroes is a valid msghdr: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len().min(MAX_PIECES) as _;
    message
}

fn outcome(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// `sendmsg` without SIGPIPE; interrupted calls are repeated.
///
/// # Safety
/// Every piece must be readable until the call returns.
unsafe fn send(fd: BorrowedFd<'_>, pieces: &[RawIoVec], wait: Wait) -> io::Result<usize> {
    let message = message(pieces);
    let flags = libc::MSG_NOSIGNAL | dont_wait(wait);
    loop {
        // SAFETY: the message points at `pieces`, whose memory the caller keeps alive.
        match outcome(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// `recvmsg`; interrupted calls are repeated. 0 is the end of the stream.
///
/// # Safety
/// Every piece must be writable until the call returns, and nobody may hold a reference into it.
unsafe fn recv(fd: BorrowedFd<'_>, pieces: &[RawIoVec], wait: Wait) -> io::Result<usize> {
    let mut message = message(pieces);
    let flags = libc::MSG_CMSG_CLOEXEC | dont_wait(wait);
    loop {
        // SAFETY: the message points at `pieces`, whose memory the caller keeps alive and unshared.
        match outcome(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// `writev`, for descriptors that are not sockets.
///
/// # Safety
/// As [`send`].
unsafe fn write(fd: BorrowedFd<'_>, pieces: &[RawIoVec]) -> io::Result<usize> {
    let n = pieces.len().min(MAX_PIECES) as c_int;
    // SAFETY: RawIoVec has iovec's layout; the caller keeps the memory readable.
    outcome(unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr().cast(), n) })
}

/// `readv`, for descriptors that are not sockets.
///
/// # Safety
/// As [`recv`].
unsafe fn read(fd: BorrowedFd<'_>, pieces: &[RawIoVec]) -> io::Result<usize> {
    let n = pieces.len().min(MAX_PIECES) as c_int;
    // SAFETY: RawIoVec has iovec's layout; the caller keeps the memory writable and unshared.
    outcome(unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr().cast(), n) })
}

fn dont_wait(wait: Wait) -> c_int {
    match wait {
        Wait::Block => 0,
        Wait::DontWait => libc::MSG_DONTWAIT,
    }
}

/// Take a descriptor that this process was started with, and make it close-on-exec. `None` when it is not open,
/// or somebody in this process has it already.
pub(crate) fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks at the descriptor's flags, and fails harmlessly on a closed one.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    // Whatever this program opens is close-on-exec, and nothing close-on-exec is inherited: with that flag, the
    // descriptor has an owner here.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: it is open and, as just seen, nobody owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(owned)
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zeroes is a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as _;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Connect `fd`, a vsock socket.
pub(crate) fn connect_vsock(fd: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let address = vsock_address(cid, port);
    // SAFETY: the address is a whole sockaddr_vm of the length given.
    let r = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as _) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bind `fd`, a vsock socket, to `port` on every context of this machine.
pub(crate) fn bind_vsock(fd: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    let address = vsock_address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is a whole sockaddr_vm of the length given.
    let r = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as _) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The (cid, port) of the peer of a vsock socket.
pub(crate) fn vsock_peer(fd: BorrowedFd<'_>) -> Option<(u32, u32)> {
    let mut address = vsock_address(0, 0);
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and `length` is the size of the first.
    let r = unsafe { libc::getpeername(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    (r == 0 && i32::from(address.svm_family) == libc::AF_VSOCK).then_some((address.svm_cid, address.svm_port))
}

/// The credentials of the peer of a unix socket. (Not through rustix: a process id of 0, which a peer in
/// another namespace has, is outside the values of its type.)
pub(crate) fn unix_peer(fd: BorrowedFd<'_>) -> Option<Peer> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&who) as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and `length` is the size of the first.
    let r = unsafe {
        let into = (&raw mut who).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut length)
    };
    (r == 0).then_some(Peer::Unix { pid: who.pid, uid: who.uid, gid: who.gid })
}

/// The label that the system's security module gives the peer; `None` where there is no such module.
pub(crate) fn security_label(fd: BorrowedFd<'_>) -> Option<String> {
    // Longer than labels are; what does not fit is refused by the kernel.
    let mut label = [0u8; 4096];
    let mut length = label.len() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and `length` is the size of the first.
    let r = unsafe {
        let into = label.as_mut_ptr().cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERSEC, into, &raw mut length)
    };
    let label = label.get(..length as usize).filter(|_| r == 0)?;
    let text = std::str::from_utf8(label).ok()?.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

const PID_DIGITS: usize = 10;
const LISTEN_PID: &str = "LISTEN_PID=";

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// Everything that a child needs to be started by socket activation, allocated before the fork.
struct Exec {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// `LISTEN_PID=` and room for the digits, which only the child knows.
    listen_pid: Box<[u8; LISTEN_PID.len() + PID_DIGITS + 1]>,
    socket: RawFd,
}

// SAFETY: the pointers are into `arguments`, `environment` and `listen_pid`, heap memory that moves along.
unsafe impl Send for Exec {}
// SAFETY: as above; the closure that holds it runs once, in the child.
unsafe impl Sync for Exec {}

impl Exec {
    fn new(command: &[String], socket: RawFd, name: Option<&str>) -> io::Result<Exec> {
        let c_string = |s: &OsStr| CString::new(s.as_bytes()).map_err(io::Error::other);
        let arguments = command.iter().map(|s| c_string(s.as_ref())).collect::<io::Result<Vec<_>>>()?;
        let mut environment = vec![c_string("LISTEN_FDS=1".as_ref())?];
        if let Some(name) = name {
            environment.push(c_string(format!("LISTEN_FDNAMES={name}").as_ref())?);
        }
        for (key, value) in std::env::vars_os() {
            if !matches!(key.as_bytes(), b"LISTEN_PID" | b"LISTEN_FDS" | b"LISTEN_FDNAMES") {
                let mut line = key;
                line.push("=");
                line.push(value);
                environment.push(c_string(&line)?);
            }
        }
        let mut listen_pid = Box::new([0; LISTEN_PID.len() + PID_DIGITS + 1]);
        listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID.as_bytes());
        let mut argv: Vec<_> = arguments.iter().map(|s| s.as_ptr()).collect();
        argv.push(std::ptr::null());
        let mut envp: Vec<_> = environment.iter().map(|s| s.as_ptr()).collect();
        envp.push(listen_pid.as_ptr().cast());
        envp.push(std::ptr::null());
        Ok(Exec { arguments, environment, argv, envp, listen_pid, socket })
    }

    /// In the child: only calls that are safe after a fork, and no allocation. Returns only to fail.
    fn run(&mut self, parent: libc::pid_t) -> io::Error {
        let mut digits = [0u8; PID_DIGITS];
        // SAFETY: getpid has no preconditions.
        let mut pid = unsafe { libc::getpid() } as u32;
        let mut at = PID_DIGITS;
        while pid > 0 {
            at -= 1;
            digits[at] = b'0' + (pid % 10) as u8;
            pid /= 10;
        }
        self.listen_pid[LISTEN_PID.len()..][..PID_DIGITS - at].copy_from_slice(&digits[at..]);
        // `envp` points at it; writing through the box and reading through that pointer must agree.
        let last = self.envp.len() - 2;
        self.envp[last] = self.listen_pid.as_ptr().cast();
        debug_assert!(!self.arguments.is_empty() && !self.environment.is_empty());
        // SAFETY: plain system calls on our own descriptors; the arrays are null-terminated arrays of
        // null-terminated strings owned by `self`, and nothing else runs in this process after the fork.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            if libc::getppid() != parent {
                return io::Error::other("the parent died before its child started");
            }
            let ready =
                if self.socket == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(self.socket, 3) };
            if ready < 0 {
                return io::Error::last_os_error();
            }
            environ = self.envp.as_ptr();
            libc::execvp(self.argv[0], self.argv.as_ptr());
        }
        io::Error::last_os_error()
    }
}

/// A command that, once spawned, becomes `command` with `socket` as descriptor 3, told so by LISTEN_FDS and
/// LISTEN_PID, and is sent SIGTERM when the thread that spawned it ends. `socket` must stay open until then; `name` is
/// what LISTEN_FDNAMES says of it.
///
/// The child replaces itself in the closure, instead of leaving that to the standard library, because its own
/// process id must be in its environment.
pub(crate) fn activated(
    command: &[String],
    socket: BorrowedFd<'_>,
    name: Option<&str>,
) -> io::Result<Command> {
    let program = command.first().ok_or_else(|| io::Error::other("there is no command to run"))?;
    let mut exec = Exec::new(command, socket.as_raw_fd(), name)?;
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    let mut command = Command::new(program);
    // SAFETY: `run` makes only async-signal-safe calls (execvp only reads PATH and the prepared arrays).
    unsafe { command.pre_exec(move || Err(exec.run(parent))) };
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_memory_is_sent_and_received() {
        let (a, b) = Stream::pair().unwrap();
        let mut from = *b"headpayload";
        let mut head = [0u8; 4];
        let mut rest = [0u8; 7];
        // SAFETY: the arrays live across the calls and are not looked at meanwhile.
        unsafe {
            a.send_raw(&[RawIoVec { ptr: from.as_mut_ptr(), len: from.len() }], Wait::Block).unwrap();
            let into =
                [RawIoVec { ptr: head.as_mut_ptr(), len: 4 }, RawIoVec { ptr: rest.as_mut_ptr(), len: 7 }];
            assert_eq!(b.recv_raw(&into, Wait::Block).unwrap(), 11);
        }
        assert_eq!((&head, &rest), (b"head", b"payload"));
    }
}
