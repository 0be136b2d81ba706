//! Values that must not be seen.

use crate::{Kind, Value, Wrong};
use rustix::termios::{self, LocalModes, OptionalActions};
use std::fmt;
use std::io::{IsTerminal, Read};

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

/// Files and pipes usually end the password with a newline that is not part of it.
fn first_line(mut content: String) -> String {
    content.truncate(content.find('\n').unwrap_or(content.len()));
    content
}

fn from_descriptor(number: &str) -> Result<Secret, Wrong> {
    // The text after "-" may be a password given by mistake, so no message repeats it.
    let Ok(number) = u32::from_text(number) else {
        return Err("a password that begins with '-' or '+' must be given in a file: +FILE".into());
    };
    if number < 3 {
        return Err("standard input, output and error cannot carry a password: use another descriptor".into());
    }
    let mut file = i32::try_from(number)
        .ok()
        .and_then(crate::inherited::take)
        .ok_or_else(|| Wrong(format!("no file descriptor {number} was inherited")))?;
    let mut content = String::new();
    file.read_to_string(&mut content)
        .map_err(|error| Wrong(format!("cannot read the password from file descriptor {number}: {error}")))?;
    Ok(Secret(first_line(content)))
}

fn from_terminal() -> Result<Secret, Wrong> {
    let terminal = std::io::stdin();
    if !terminal.is_terminal() {
        return Err("asking for a password needs a terminal on standard input".into());
    }
    let failed = |error: std::io::Error| Wrong(format!("cannot ask for the password: {error}"));
    let before = termios::tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    eprint!("password: ");
    termios::tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let mut line = String::new();
    let answer = terminal.read_line(&mut line);
    // The terminal must show what is typed again, whether or not the reading went well.
    let restored = termios::tcsetattr(&terminal, OptionalActions::Flush, &before);
    answer.map_err(failed)?;
    restored.map_err(|error| failed(error.into()))?;
    Ok(Secret(first_line(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn a_plain_password_is_itself() {
        assert_eq!(Secret::from_text("s e=cret").unwrap().reveal(), "s e=cret");
        assert_eq!(Secret::from_text("").unwrap().reveal(), "");
    }

    #[test]
    fn a_password_file_gives_its_first_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "from the file\nnot this").unwrap();
        let secret = Secret::from_text(&format!("+{}", file.path().display())).unwrap();
        assert_eq!(secret.reveal(), "from the file");
        let absent = Secret::from_text("+/no/such/file").unwrap_err();
        assert!(absent.0.starts_with("cannot read the password file /no/such/file: "), "{}", absent.0);
    }

    #[test]
    fn an_inherited_descriptor_is_read_once() {
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "through a descriptor").unwrap();
        file.rewind().unwrap();
        // A duplicate without close-on-exec is what a parent would have left us.
        let number = rustix::io::dup(&file).unwrap().into_raw_fd();
        assert_eq!(Secret::from_text(&format!("-{number:#x}")).unwrap().reveal(), "through a descriptor");
        assert!(Secret::from_text(&format!("-{number}")).is_err());
    }

    #[test]
    fn our_own_and_the_standard_descriptors_are_refused() {
        let ours = tempfile::tempfile().unwrap();
        for number in [0, 1, 2, ours.as_raw_fd(), 999, i32::MAX] {
            assert!(Secret::from_text(&format!("-{number}")).is_err(), "{number}");
        }
        assert!(ours.metadata().is_ok());
    }

    #[test]
    fn nothing_prints_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(..)");
        assert!(!Secret::from_text("-hunter2").unwrap_err().0.contains("hunter2"));
    }
}
