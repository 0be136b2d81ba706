//! Error numbers on the wire. They look like Linux's, but only the eight below may be sent; every other error of the host
//! becomes one of them.

use std::fmt;
use std::num::NonZeroU32;

use crate::command::{Command, CommandFlags};

/// An error value as it stands in a reply. A server sends only the named ones; a client may receive any.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(NonZeroU32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno(NonZeroU32::new($value).unwrap());)*

            /// The values that the specification knows.
            pub const ALL: &[Errno] = &[$(Errno::$name),*];

            /// The symbolic name, if the specification knows the value.
            pub const fn name(self) -> Option<&'static str> {
                match self.0.get() { $($value => Some(stringify!($name)),)* _ => None }
            }

            /// What it means, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self.0.get() { $($value => $text,)* _ => "unknown error" }
            }
        }
    };
}

errnos! {
    /// Not permitted, for example a write to a read-only export.
    EPERM = 1, "operation not permitted";
    /// The store failed.
    EIO = 5, "input/output error";
    /// The server is out of memory.
    ENOMEM = 12, "out of memory";
    /// The request makes no sense here, or an error without a better value.
    EINVAL = 22, "invalid argument";
    /// The store is full, or the request passes the end of the export.
    ENOSPC = 28, "no space left";
    /// The request is too large to be answered in the way that it asks for.
    EOVERFLOW = 75, "value too large";
    /// A fast zero would not be fast.
    ENOTSUP = 95, "operation not supported";
    /// The server is shutting down.
    ESHUTDOWN = 108, "server is shutting down";
}

/// Linux's numbers of host errors that map to something else than EINVAL; the same on all its architectures that matter
/// for these.
mod linux {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EFBIG: i32 = 27;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const EOVERFLOW: i32 = 75;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const ESHUTDOWN: i32 = 108;
    pub(super) const EDQUOT: i32 = 122;
}

impl Errno {
    /// The value found on the wire; `None` for 0, which means success.
    #[inline]
    pub const fn from_wire(value: u32) -> Option<Errno> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Errno(value)),
            None => None,
        }
    }

    /// The value for the wire.
    #[inline]
    pub const fn to_wire(self) -> u32 {
        self.0.get()
    }

    /// The value that a server may send for the host error `errno` (Linux numbering), in reply to a request with this
    /// command and these flags.
    ///
    /// ENOTSUP is only understood in reply to FAST_ZERO, and EOVERFLOW only where a request can be too large to answer as
    /// asked: a READ with DF, or an effect length beyond 32 bits. Elsewhere both become EINVAL, as does everything that
    /// the protocol has no value for.
    pub const fn from_host(errno: i32, command: Command, flags: CommandFlags, length: u64) -> Errno {
        match errno {
            linux::EPERM | linux::EROFS | linux::EACCES => Errno::EPERM,
            linux::EIO => Errno::EIO,
            linux::ENOMEM => Errno::ENOMEM,
            linux::ENOSPC | linux::EFBIG | linux::EDQUOT => Errno::ENOSPC,
            linux::ESHUTDOWN => Errno::ESHUTDOWN,
            linux::EOPNOTSUPP if flags.has(CommandFlags::FAST_ZERO) => Errno::ENOTSUP,
            linux::EOVERFLOW
                if (matches!(command, Command::Read) && flags.has(CommandFlags::DF))
                    || length > u32::MAX as u64 =>
            {
                Errno::EOVERFLOW
            }
            _ => Errno::EINVAL,
        }
    }

    /// The host error (Linux numbering) for a received value; a value that the specification does not know is EINVAL, as
    /// it demands.
    pub const fn to_host(self) -> i32 {
        match self.name() {
            Some(_) => self.0.get() as i32,
            None => 22,
        }
    }

    /// The value with this symbolic name, in any case.
    pub fn from_name(name: &str) -> Option<Errno> {
        Errno::ALL.iter().copied().find(|e| e.name().is_some_and(|known| known.eq_ignore_ascii_case(name)))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.meaning()),
            None => write!(f, "unknown error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(errno: i32) -> Errno {
        Errno::from_host(errno, Command::Write, CommandFlags::NONE, 512)
    }

    #[test]
    fn host_errors_become_one_of_the_eight() {
        for errno in -5..4000 {
            assert!(Errno::ALL.contains(&plain(errno)), "{errno}");
        }
        assert_eq!(plain(linux::EROFS), Errno::EPERM);
        assert_eq!(plain(linux::EDQUOT), Errno::ENOSPC);
        assert_eq!(plain(2), Errno::EINVAL);
    }

    #[test]
    fn notsup_is_for_fast_zero_and_overflow_for_what_can_be_too_large() {
        let zero = |flags| Errno::from_host(95, Command::WriteZeroes, flags, 512);
        assert_eq!(zero(CommandFlags::NONE), Errno::EINVAL);
        assert_eq!(zero(CommandFlags::FAST_ZERO), Errno::ENOTSUP);
        let overflow = |command, flags, length| Errno::from_host(75, command, flags, length);
        assert_eq!(overflow(Command::Read, CommandFlags::NONE, 512), Errno::EINVAL);
        assert_eq!(overflow(Command::Read, CommandFlags::DF, 512), Errno::EOVERFLOW);
        assert_eq!(overflow(Command::WriteZeroes, CommandFlags::NONE, 1 << 33), Errno::EOVERFLOW);
    }

    #[test]
    fn received_values_keep_their_number_and_unknown_ones_count_as_einval() {
        assert_eq!(Errno::from_wire(0), None);
        assert_eq!(Errno::from_wire(28).unwrap().to_host(), 28);
        assert_eq!(Errno::from_wire(12345).unwrap().to_host(), 22);
        assert_eq!(Errno::from_wire(12345).unwrap().to_string(), "unknown error 12345");
        assert_eq!(Errno::EIO.to_string(), "input/output error (EIO)");
        assert_eq!(Errno::from_name("enospc"), Some(Errno::ENOSPC));
    }
}
