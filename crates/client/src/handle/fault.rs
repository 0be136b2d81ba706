//! What a call to a handle fails with: an error number, which programs look at, and words.

use std::{borrow::Cow, fmt, io};

/// Numbers of Linux that callers compare with.
pub mod errno {
    use rustix::io::Errno;

    macro_rules! numbers {
        ($($name:ident = $rustix:ident;)*) => { $(
            #[doc = concat!("The number of ", stringify!($name), ".")]
            pub const $name: i32 = Errno::$rustix.raw_os_error();
        )* };
    }

    numbers! {
        EPERM = PERM;
        ENOENT = NOENT;
        ESRCH = SRCH;
        EINTR = INTR;
        EBADF = BADF;
        EACCES = ACCESS;
        EINVAL = INVAL;
        ENOSPC = NOSPC;
        ERANGE = RANGE;
        EDEADLK = DEADLK;
        ENAMETOOLONG = NAMETOOLONG;
        EPROTO = PROTO;
        ENOTSUP = OPNOTSUPP;
        ENOTCONN = NOTCONN;
        ESHUTDOWN = SHUTDOWN;
    }
}

/// The result of a call.
pub type Outcome<T> = Result<T, Fault>;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A number of Linux; 0 where there is none that would say anything.
    pub errno: i32,
    /// Words, without those of the number.
    pub text: Cow<'static, str>,
}

impl Fault {
    /// With a number and words.
    pub fn new(errno: i32, text: impl Into<Cow<'static, str>>) -> Fault {
        Fault { errno, text: text.into() }
    }

    /// EINVAL.
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(errno::EINVAL, text)
    }

    /// What the system said of an attempt.
    pub fn system(what: &str, e: &io::Error) -> Fault {
        match e.raw_os_error() {
            Some(number) => Fault::new(number, what.to_owned()),
            None => Fault::new(0, format!("{what}: {e}")),
        }
    }

    /// With something said before the words.
    pub fn after(self, context: &str) -> Fault {
        let text = match &*self.text {
            "" => context.to_owned(),
            text => format!("{context}: {text}"),
        };
        Fault::new(self.errno, text)
    }
}

/// What the system calls an error number.
pub fn reason(errno: i32) -> String {
    let mut text = io::Error::from_raw_os_error(errno).to_string();
    if let Some(cut) = text.find(" (os error") {
        text.truncate(cut);
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.text, self.errno) {
            (text, 0) => f.write_str(text),
            ("", errno) => f.write_str(&reason(errno)),
            (text, errno) => write!(f, "{text}: {}", reason(errno)),
        }
    }
}

impl std::error::Error for Fault {}
