//! What a single value can be, and the plain types.

use crate::{Arg, Kind, Wrong};
use std::path::{Path, PathBuf};

/// A type that a parameter's value can have.
pub trait Value: Sized {
    /// What help, manual and completion say about it.
    const KIND: Kind;

    /// The value that a user wrote as `text`. The error continues the sentence `key=value: `.
    fn from_text(text: &str) -> Result<Self, Wrong>;

    /// The value of a whole argument; only types that look at more than its text override this.
    fn from_arg(arg: &Arg) -> Result<Self, Wrong> {
        Self::from_text(&arg.value)
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn from_text(text: &str) -> Result<String, Wrong> {
        Ok(text.to_owned())
    }
}

/// Relative paths are made absolute at once, since a server changes its directory before it serves. The
/// path need not exist; links and `..` stay as they are.
impl Value for PathBuf {
    const KIND: Kind = Kind::Path;

    fn from_text(text: &str) -> Result<PathBuf, Wrong> {
        if text.is_empty() {
            return Err("not a path: it is empty".into());
        }
        if Path::new(text).is_absolute() {
            return Ok(PathBuf::from(text));
        }
        let here = std::env::current_dir().map_err(|error| {
            Wrong(format!("the current directory, which it starts from, is not known: {error}"))
        })?;
        Ok(here.join(text))
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Bool;

    fn from_text(text: &str) -> Result<bool, Wrong> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
            _ => Err("not a switch: on, yes, true and 1, or off, no, false and 0".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_what_people_write_in_any_case() {
        for on in ["1", "on", "ON", "True", "t", "Y", "yes"] {
            assert_eq!(bool::from_text(on), Ok(true), "{on}");
        }
        for off in ["0", "off", "False", "F", "n", "no"] {
            assert_eq!(bool::from_text(off), Ok(false), "{off}");
        }
        for neither in ["", "x", "01", "2", "enable", "disabled", " on"] {
            assert!(bool::from_text(neither).is_err(), "{neither:?}");
        }
    }

    #[test]
    fn paths_become_absolute_without_having_to_exist() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(PathBuf::from_text("no/such/../file"), Ok(here.join("no/such/../file")));
        assert_eq!(PathBuf::from_text("/x/./y"), Ok(PathBuf::from("/x/./y")));
        assert!(PathBuf::from_text("").is_err());
    }
}
