//! One error type: what the client is told ([`Errno`]) and what the log is told (a sentence and its source).

use std::{borrow::Cow, fmt, num::NonZeroU16};

/// A non-zero errno of Linux; there is no "success" error, so the type has none either.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(NonZeroU16);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $posix:ident, $text:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno::known(libc::$posix);)*

            /// By its POSIX name, in any case: `EIO`, `enospc`.
            pub fn from_name(name: &str) -> Option<Errno> {
                $(if name.eq_ignore_ascii_case(stringify!($posix)) { return Some(Errno::$name); })*
                None
            }

            /// Its POSIX name: `EIO`. `None` for those that disks do not use.
            pub fn name(self) -> Option<&'static str> {
                $(if self == Errno::$name { return Some(stringify!($posix)); })*
                None
            }

            fn text(self) -> Option<&'static str> {
                $(if self == Errno::$name { return Some($text); })*
                None
            }
        }
    };
}

errnos! {
    /// The disk may not be changed, or not by this client.
    PERM = EPERM, "operation not permitted";
    /// No such file or export.
    NOENT = ENOENT, "no such file or directory";
    /// The medium or the peer failed.
    IO = EIO, "input/output error";
    /// No memory.
    NOMEM = ENOMEM, "out of memory";
    /// Access denied.
    ACCES = EACCES, "permission denied";
    /// In use.
    BUSY = EBUSY, "device or resource busy";
    /// The request makes no sense here.
    INVAL = EINVAL, "invalid argument";
    /// No space left.
    NOSPC = ENOSPC, "no space left on device";
    /// A write to what is read-only.
    ROFS = EROFS, "read-only file system";
    /// Too large for this disk.
    FBIG = EFBIG, "file too large";
    /// A value too large, a request that would be split.
    OVERFLOW = EOVERFLOW, "value too large";
    /// The disk cannot do that (fast).
    NOTSUP = EOPNOTSUPP, "operation not supported";
    /// The server or the connection is going away.
    SHUTDOWN = ESHUTDOWN, "shutting down";
    /// Took too long.
    TIMEDOUT = ETIMEDOUT, "timed out";
    /// Try again.
    AGAIN = EAGAIN, "resource temporarily unavailable";
    /// The peer went away.
    CONNRESET = ECONNRESET, "connection reset by peer";
    /// Out of range.
    RANGE = ERANGE, "result out of range";
}

impl Errno {
    const fn known(errno: i32) -> Errno {
        match NonZeroU16::new(errno as u16) {
            Some(n) => Errno(n),
            None => panic!("errno 0"),
        }
    }

    /// From a number; what is no errno (0, negative, huge) becomes `EIO`.
    pub fn from_raw(errno: i32) -> Errno {
        match u16::try_from(errno).ok().and_then(NonZeroU16::new) {
            Some(n) if n.get() < 4096 => Errno(n),
            _ => Errno::IO,
        }
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0.get().into()
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    why: Option<Box<Why>>,
}

#[derive(Debug)]
struct Why {
    sentence: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that disks do.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a sentence that a person understands.
    #[cold]
    pub fn new(errno: Errno, sentence: impl Into<Cow<'static, str>>) -> Self {
        Error { errno, why: Some(Box::new(Why { sentence: sentence.into(), source: None })) }
    }

    /// `EINVAL` with a sentence.
    #[cold]
    pub fn invalid(sentence: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Errno::INVAL, sentence)
    }

    /// `EIO` with a sentence.
    #[cold]
    pub fn io(sentence: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Errno::IO, sentence)
    }

    /// Puts what was attempted before the sentence: `reading disk.img: input/output error`.
    #[cold]
    pub fn context(self, attempted: impl fmt::Display) -> Self {
        let sentence = format!("{attempted}: {self}");
        let source = self.why.and_then(|w| w.source);
        Error { errno: self.errno, why: Some(Box::new(Why { sentence: sentence.into(), source })) }
    }

    /// What the client is told.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The sentence, where there is more to say than the errno does.
    pub fn sentence(&self) -> Option<&str> {
        self.why.as_ref().map(|w| &*w.sentence)
    }

    /// The same errno and sentence again, without the source: for all who wait for one outcome.
    pub fn duplicate(&self) -> Self {
        let why = self.why.as_ref().map(|w| Box::new(Why { sentence: w.sentence.clone(), source: None }));
        Error { errno: self.errno, why }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error { errno, why: None }
    }
}

impl From<std::io::Error> for Error {
    #[cold]
    fn from(e: std::io::Error) -> Self {
        let errno = e.raw_os_error().map_or(Errno::IO, Errno::from_raw);
        let mut sentence = e.to_string();
        if let Some(cut) = sentence.find(" (os error") {
            sentence.truncate(cut);
        }
        Error { errno, why: Some(Box::new(Why { sentence: sentence.into(), source: Some(Box::new(e)) })) }
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        std::io::Error::from(e).into()
    }
}

impl From<reactor::Panicked> for Error {
    fn from(e: reactor::Panicked) -> Self {
        Error::io(e.to_string())
    }
}

impl From<params::ParamError> for Error {
    fn from(e: params::ParamError) -> Self {
        Error::invalid(e.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => f.write_str(&why.sentence),
            None => self.errno.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.why.as_ref()?.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_sentences() {
        let e = Error::from(std::io::Error::from_raw_os_error(libc::ENOSPC)).context("writing disk.img");
        assert_eq!(e.errno(), Errno::NOSPC);
        assert_eq!(e.to_string(), "writing disk.img: No space left on device");
        assert_eq!(Error::from(Errno::IO).to_string(), "input/output error");
    }

    #[test]
    fn names_work_in_any_case_and_nonsense_is_eio() {
        assert_eq!(Errno::from_name("enospc"), Some(Errno::NOSPC));
        assert_eq!(Errno::from_name("EBOGUS"), None);
        assert_eq!(Errno::from_raw(0), Errno::IO);
        assert_eq!(Errno::from_raw(-5), Errno::IO);
    }
}
